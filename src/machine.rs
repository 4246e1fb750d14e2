//! Names of this machine.

use std::net::IpAddr;

/// Returns whether a host's name or address always leads to the machine on which it is used.
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let name = host == "localhost" || host.ends_with(".localhost");
    name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Returns whether a name is that of this machine: in full, without its domain, or with `.local`.
pub fn is_own_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let machine = gethostname::gethostname().to_string_lossy().to_ascii_lowercase();
    let short = machine.split('.').next().unwrap_or_default();
    !name.is_empty() && (name == machine || name == short || name.strip_suffix(".local") == Some(short))
}
