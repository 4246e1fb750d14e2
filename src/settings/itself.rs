//! Addresses that lead back to this proxy: a request to one of them would come back for ever.

use std::net::IpAddr;

use ureq::http::Uri;

use super::sources::{Origin, Reader};
use super::table::{Listen, SETTINGS, Settings};
use crate::language::either;
use crate::machine::{is_loopback_host, is_own_name};

/// Refuses an upstream, and leaves out backups, whose address is this proxy's own. `in_force` are the last good
/// settings, with the address that the proxy listens on, if there are any.
pub(super) fn refuse(settings: &mut Settings, in_force: Option<&Settings>, reader: &mut Reader<'_>) {
    let listen = in_force.map_or(&settings.listen, |in_force| &in_force.listen).clone();
    if is_own_address(&settings.base_url, &listen) {
        let name = "OPENROUTER_BASE_URL";
        match in_force.filter(|last_good| !last_good.upstream_is_itself) {
            Some(last_good) => {
                settings.base_url.clone_from(&last_good.base_url);
                reader.complain(
                    name,
                    either(
                        "another server's address, not this proxy's own",
                        "其他服务器的地址，不能是这个代理自己",
                    ),
                );
            }
            None => {
                settings.upstream_is_itself = true;
                reader.warn(
                    name,
                    either(
                        format!(
                            "{name} is this proxy's own address: there is no upstream until that is corrected"
                        ),
                        format!("{name} 是这个代理自己的地址：改正之前没有上游可用"),
                    ),
                );
            }
        }
        if let Some(at) = SETTINGS.iter().position(|setting| setting.name == name) {
            settings.origins[at] = Origin::Kept;
        }
    }
    settings.backups.retain(|backup| {
        let is_own = is_own_address(&backup.base_url, &listen);
        if is_own {
            let (name, url) = (&backup.name, &backup.base_url);
            reader.warn("BACKUPS", either(
                format!("BACKUPS: {name} is left out, as {url} is this proxy's own address (change PORT, or the backup's)"),
                format!("BACKUPS：已忽略 {name}，因为 {url} 是这个代理自己的地址（请更换 PORT 或备用服务的端口）"),
            ));
        }
        !is_own
    });
}

fn is_own_address(url: &str, listen: &Listen) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    if port != listen.port {
        return false;
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_unspecified = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let on_loopback =
        is_loopback_host(&listen.host) || is_unspecified(&listen.host) || is_own_name(&listen.host);
    host.eq_ignore_ascii_case(&listen.host)
        || on_loopback && (is_loopback_host(host) || is_unspecified(host) || is_own_name(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses() {
        let machine = gethostname::gethostname().to_string_lossy().into_owned();
        let listens = |host: &str, port| Listen { host: host.into(), port, ..Settings::default().listen };
        for host in
            ["localhost", "a.localhost", "127.0.0.1", "127.1.2.3", "[::1]", "0.0.0.0", "LOCALHOST", &machine]
        {
            for bound in ["localhost", "0.0.0.0", "::"] {
                let url = format!("http://{host}:5000/v1");
                assert!(is_own_address(&url, &listens(bound, 5000)), "{url} on {bound}");
                assert!(!is_own_address(&url, &listens(bound, 5001)), "{url} on {bound}");
            }
        }
        assert!(is_own_address("http://my.box/v1", &listens("my.box", 80)));
        assert!(is_own_address("http://192.168.1.2:5000", &listens("192.168.1.2", 5000)));
        for (url, bound) in [
            ("http://192.168.1.3:5000", "192.168.1.2"),
            ("http://localhost:5000", "192.168.1.2"),
            ("http://openrouter.ai:5000", "localhost"),
        ] {
            assert!(!is_own_address(url, &listens(bound, 5000)), "{url} on {bound}");
        }
    }
}
