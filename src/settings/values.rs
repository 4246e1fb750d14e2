//! Parses and checks single values: keys, addresses, certificates.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use subtle::ConstantTimeEq;
use ureq::http::Uri;

use crate::pipes::{self, Contents};
use crate::secrets;

/// A key or password: its text can be sent and compared, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// For tests elsewhere.
    #[cfg(test)]
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text itself, for what has to send or save it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether `given` is the same, in a time that doesn't tell how much of it is.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// Returns `...abcd`: the last 4 characters, or none of a short secret.
    pub fn masked(&self) -> String {
        secrets::masked(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// A proxy for connections to the upstream, perhaps with a password in its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    pub(super) url: Secret,
    proxy: ureq::Proxy,
}

impl ProxyUrl {
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h", "socks"];
        let authority = rest.strip_suffix('/').unwrap_or(rest).rsplit('@').next()?;
        if !known.contains(&scheme.to_ascii_lowercase().as_str()) || !is_authority(authority) {
            return None; // ureq uses the default port if it can't read one
        }
        let proxy = ureq::Proxy::new(url).ok()?;
        Some(Self { url: Secret(url.into()), proxy })
    }

    /// Returns the proxy for ureq's configuration.
    pub fn proxy(&self) -> &ureq::Proxy {
        &self.proxy
    }

    /// Returns the password in the URL, as it is written.
    pub fn password(&self) -> Option<&str> {
        let (user, _) = self.url.expose().rsplit_once('@')?;
        let user = user.split_once("://").map_or(user, |(_, user)| user);
        user.split_once(':').map(|(_, password)| password)
    }

    /// `host:port`, without user and password.
    pub fn address(&self) -> String {
        format!("{}:{}", self.proxy.host(), self.proxy.port())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|v| !v.is_empty())
}

/// Parses a key, which goes into a header: visible ASCII only. People paste it with its `Bearer`.
pub fn parse_key(value: &str) -> Option<Secret> {
    let key = value.strip_prefix("Bearer ").unwrap_or(value).trim();
    let visible = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    visible.then(|| Secret(key.into()))
}

/// Shorter fillers are left to the upstream to judge: a script's `x` may be a key that somebody's own server takes.
const FILLER_CHARACTERS: usize = 4;

/// Returns whether this is what examples have in place of a key.
pub fn is_placeholder(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let rest = key.strip_prefix("sk-or-v1-").or_else(|| key.strip_prefix("sk-or-")).unwrap_or(&key);
    let filler = rest.chars().count() >= FILLER_CHARACTERS && rest.chars().all(|c| "x*.…<>-_".contains(c));
    filler || key.ends_with("...") || key.ends_with('…') || key.contains("your") && key.contains("key")
}

/// Parses a host without a port: an IPv6 address has colons, a name has none.
pub(super) fn parse_host(value: &str) -> Option<String> {
    let host = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    let is_name = !host.is_empty() && host.bytes().all(plain);
    let is_v6 = host.split('%').next().is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    (is_name || is_v6).then(|| host.to_owned())
}

/// Returns whether the whole text is `host` or `host:port`.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => (host, port.strip_prefix(':').or((!port.is_empty()).then_some("x"))),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let good_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    parse_host(host).is_some() && port.is_none_or(good_port)
}

pub(super) fn parse_base_url(value: &str) -> Option<String> {
    let url = value.trim_end_matches('/');
    let url = url.strip_suffix("/chat/completions").unwrap_or(url);
    let uri = url.parse::<Uri>().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.query().is_none() && is_authority(uri.authority()?.as_str());
    (http && plain).then(|| url.to_owned())
}

pub(super) fn parse_origin(value: &str) -> Option<String> {
    let origin = value.trim_end_matches('/').to_ascii_lowercase();
    let good = origin == "*"
        || origin.split_once("://").is_some_and(|(scheme, authority)| {
            let app = !matches!(scheme, "http" | "https"); // extensions have ids, apps nothing
            !scheme.is_empty() && (app || is_authority(authority))
        });
    good.then_some(origin)
}

/// The certificates of `SSL_CERT_FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The file from which they were read.
    pub path: PathBuf,
    /// The certificates in the order of the file; at least one of them can be a root.
    pub roots: Vec<CertificateDer<'static>>,
}

pub(super) fn read_certificates(path: &Path) -> Option<Certificates> {
    // A pipe that nobody has written to yet holds none; it is read again once somebody has.
    let Ok(Contents::Bytes(bytes)) = pipes::read(path) else {
        return None;
    };
    let certificates = CertificateDer::pem_slice_iter(&bytes);
    let roots = certificates.collect::<Result<Vec<_>, _>>().ok()?;
    // The markers around a certificate may be right, and the text between them still not be one.
    let (good, _) = RootCertStore::empty().add_parsable_certificates(roots.iter().cloned());
    (good > 0).then(|| Certificates { path: path.to_owned(), roots })
}

/// Returns whether `NO_PROXY` names this host: by hosts (their subdomains too), `.domains`, `host:port`, `*`.
pub(super) fn bypasses_proxy(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    no_proxy.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        // A bare IPv6 address has colons of its own.
        let (name, entry_port) = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_matches(['[', ']']);
        let domain = name.trim_start_matches("*.").trim_start_matches('.');
        let same = host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        same && entry_port.is_none_or(|p| p.parse() == Ok(port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_whole() {
        for bad in [
            "127.0.0.1:notaport",
            "localhost:99999",
            "http://",
            "http://:80",
            "http://h:1:2",
            "ftp://h:1",
            "socks5://[::1:1080",
            "http://h/path",
        ] {
            assert_eq!(ProxyUrl::parse(bad), None, "{bad}");
        }
        for good in
            ["127.0.0.1:7890", "http://u:p:a@ss@h:1", "socks5h://[::1]:1080", "https://proxy.example/", "h"]
        {
            assert!(ProxyUrl::parse(good).is_some(), "{good}");
        }
        for (host, good) in [
            ("localhost", true),
            ("::1", true),
            ("[fe80::1%eth0]", true),
            ("localhost:5000", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(parse_host(host).is_some(), good, "{host}");
        }
    }

    #[test]
    fn base_urls() {
        let read = |value| parse_base_url(value).unwrap();
        assert_eq!(read("http://h:1/v1/"), "http://h:1/v1");
        assert_eq!(read("https://h/api/v1/chat/completions"), "https://h/api/v1");
        for bad in [
            "h:1/v1",
            "ftp://h/",
            "http://u:p@h/",
            "http://",
            "http://h:99999/v1",
            "http://h:/v1",
            "http://h:0",
        ] {
            assert_eq!(parse_base_url(bad), None, "{bad}");
        }
    }
}
