//! Names of this machine.

use std::net::IpAddr;

/// Whether a host's name or address leads to this machine and to no other, whatever machine it is.
pub fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let name = host == "localhost" || host.ends_with(".localhost");
    name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a name is that of this machine: in full, without its domain, or with `.local`.
pub fn is_own_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let machine = gethostname::gethostname().to_string_lossy().to_ascii_lowercase();
    let short = machine.split('.').next().unwrap_or_default();
    !name.is_empty() && (name == machine || name == short || name.strip_suffix(".local") == Some(short))
}
