//! Decides who gets in: this machine's tools and pages, but no web site that takes on this machine's name, or calls from
//! a page in a browser on it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ureq::http::Method;

use crate::client::exchange::{Exchange, Reply};
use crate::dialect;
use crate::encoding::percent_decoded;
use crate::error::ApiError;
use crate::machine::{is_loopback_host, is_own_name};
use crate::settings::Settings;
use crate::upstream::{HOPS, is_from_here};

/// Schemes of desktop apps, editors and browser extensions, whose pages may use the proxy.
const APP_SCHEMES: [&str; 8] = [
    "app://",
    "file://",
    "tauri://",
    "vscode-webview://",
    "chrome-extension://",
    "moz-extension://",
    "safari-web-extension://",
    "extension://",
];
/// Origins of apps on phones, compared as a whole.
const APP_ORIGINS: [&str; 2] = ["capacitor://localhost", "ionic://localhost"];

/// How long a browser may remember the answer to a preflight.
const PREFLIGHT_SECONDS: &str = "600";

/// Checks whether the request comes from this proxy itself, then where it is sent to, which page sends it, and who
/// sends it.
///
/// Adds the CORS headers that the answer to an allowed page needs.
pub fn check(exchange: &mut Exchange, settings: &Settings) -> Result<(), ApiError> {
    if exchange.head.headers(HOPS.as_str()).any(|hops| is_from_here(&hops)) {
        return Err(ApiError::loop_detected());
    }
    check_host(exchange, settings)?;
    check_origin(exchange, settings)?;
    let open_to_all = exchange.head.path == "/health" || is_preflight(exchange);
    if !open_to_all {
        check_key(exchange, settings)?;
    }
    if is_debug_path(&exchange.head.path) { check_debug(exchange, settings) } else { Ok(()) }
}

fn is_debug_path(path: &str) -> bool {
    path == "/debug" || path.starts_with("/debug/")
}

/// A web site can give its own name this machine's address (DNS rebinding) and so be "same origin"; but then its name
/// is in `Host`. If the proxy has a key of its own, names don't matter.
fn check_host(exchange: &Exchange, settings: &Settings) -> Result<(), ApiError> {
    if settings.proxy_api_key.is_some() {
        return Ok(());
    }
    let own = |host: &str| is_own_host(host, &settings.listen.host);
    let target = exchange.head.target_host.as_deref().map(Cow::Borrowed);
    match exchange.head.header("host").into_iter().chain(target).find(|host| !own(host)) {
        Some(host) => Err(ApiError::forbidden_host(&host, settings.listen.port)),
        None => Ok(()),
    }
}

/// Whether a `Host` names this machine: an IP address, `localhost`, the machine's own name, or what `HOST` says.
pub fn is_own_host(host: &str, bound: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && host.parse::<IpAddr>().is_err() => {
            name
        }
        _ => host,
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_matches(['[', ']']);
    if bare.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    if name == bound.to_ascii_lowercase() {
        return true;
    }
    // What containers call their host: `host.docker.internal`, `host.containers.internal`, `host.lima.internal`.
    let is_container_host = name
        .strip_prefix("host.")
        .and_then(|rest| rest.strip_suffix(".internal"))
        .is_some_and(|engine| !engine.is_empty() && !engine.contains('.'));
    is_container_host || is_own_name(&name)
}

fn check_origin(exchange: &mut Exchange, settings: &Settings) -> Result<(), ApiError> {
    let Some(origin) = exchange.head.header("origin").map(Cow::into_owned) else {
        return Ok(()); // no browser, or a page opened by its user
    };
    if !is_allowed_origin(&origin, &settings.allowed_origins) && !is_own_origin(exchange, &origin) {
        return Err(ApiError::forbidden_origin(&origin));
    }
    exchange.extra_headers = vec![
        ("access-control-allow-origin".into(), origin),
        ("access-control-expose-headers".into(), "*".into()),
        ("vary".into(), "Origin".into()),
    ];
    Ok(())
}

/// Returns whether pages of this origin may use the proxy: loopback pages, apps, and the `listed` ones.
pub fn is_allowed_origin(origin: &str, listed: &[String]) -> bool {
    let origin = origin.to_ascii_lowercase();
    if APP_SCHEMES.iter().any(|scheme| origin.starts_with(scheme)) || APP_ORIGINS.contains(&origin.as_str()) {
        return true;
    }
    let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let loopback = page.is_some_and(|authority| {
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => authority,
        };
        is_loopback_host(name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name))
    });
    loopback || listed.iter().any(|allowed| allowed == "*" || *allowed == origin)
}

/// Whether the page was served by the proxy itself, under the name that the request is sent to.
fn is_own_origin(exchange: &Exchange, origin: &str) -> bool {
    let host = exchange.head.header("host").unwrap_or_default();
    !host.is_empty() && origin.strip_prefix("http://").is_some_and(|page| page.eq_ignore_ascii_case(&host))
}

fn check_key(exchange: &Exchange, settings: &Settings) -> Result<(), ApiError> {
    let Some(key) = &settings.proxy_api_key else {
        return Ok(());
    };
    let matches = |given: &str| key.matches(given.trim().as_bytes());
    let scheme = |name: &str, value: &str| {
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case(name).then(|| rest.trim().to_owned())
    };
    let authorized = exchange.head.headers("authorization").any(|value| match scheme("bearer", &value) {
        Some(given) => matches(&given),
        None => scheme("basic", &value)
            .and_then(|b64| basic_password(&b64))
            .is_some_and(|given| key.matches(&given)),
    });
    let in_header = |name: &&str| exchange.head.headers(name).any(|given| matches(&given));
    let in_headers = || dialect::ALL.iter().any(|api| api.key_headers.iter().any(in_header));
    let in_query = || {
        let name = exchange.head.route.as_ref()?.api.key_parameter?;
        let parameters = exchange.head.query.as_deref()?.split('&').filter_map(|part| part.split_once('='));
        parameters.into_iter().find(|(known, _)| *known == name).map(|(_, given)| percent_decoded(given))
    };
    if authorized || in_headers() || in_query().is_some_and(|given| matches(&given)) {
        return Ok(());
    }
    let error = ApiError::wrong_proxy_key();
    // A browser asks its user for the key, and then sends it with the panel's own requests too.
    Err(if is_debug_path(&exchange.head.path) {
        error.with(
            "www-authenticate",
            "Basic realm=\"local-api-proxy: any user name, PROXY_API_KEY as password\"",
        )
    } else {
        error
    })
}

/// The password of HTTP Basic, whatever the user name.
fn basic_password(base64: &str) -> Option<Vec<u8>> {
    let decoded = decode_base64(base64)?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Refuses the panel, which shows what was asked and answered, to other machines and to other pages on this one.
fn check_debug(exchange: &Exchange, settings: &Settings) -> Result<(), ApiError> {
    if settings.proxy_api_key.is_none() && is_forwarded(exchange) {
        return Err(ApiError::panel_is_not_forwarded());
    }
    if !exchange.peer().is_some_and(is_this_machine) {
        return Err(ApiError::panel_is_local());
    }
    match exchange.head.header("origin") {
        Some(origin) if !is_own_origin(exchange, &origin) => Err(ApiError::panel_is_its_own_page()),
        _ => Ok(()),
    }
}

/// Returns whether a server in front of the proxy has forwarded the request, no matter for whom.
fn is_forwarded(exchange: &Exchange) -> bool {
    exchange.head.names().any(|name| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-forwarded-")
            || ["forwarded", "x-real-ip", "via", "cf-connecting-ip"].contains(&name.as_str())
    })
}

fn is_this_machine(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Returns whether the request is a preflight, by which a browser asks if it may send another one.
pub fn is_preflight(exchange: &Exchange) -> bool {
    exchange.head.method == Method::OPTIONS
}

/// The answer to a preflight, which has passed [`check`].
pub fn preflight(exchange: &Exchange) -> Reply {
    let mut reply = Reply { status: 204, ..Reply::default() };
    reply = reply.with("allow", "GET, HEAD, POST, OPTIONS");
    if exchange.head.header("origin").is_none() {
        return reply;
    }
    // Echoed only if it is a list of names and nothing else.
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_, ".contains(&b);
    let asked =
        exchange.head.header("access-control-request-headers").filter(|names| names.bytes().all(is_name));
    let headers = asked.unwrap_or(Cow::Borrowed("authorization, content-type, x-api-key"));
    reply = reply
        .with("access-control-allow-methods", "GET, HEAD, POST, OPTIONS")
        .with("access-control-allow-headers", headers)
        .with("access-control-max-age", PREFLIGHT_SECONDS);
    if exchange.head.header("access-control-request-private-network").is_some() {
        reply = reply.with("access-control-allow-private-network", "true");
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panel_is_for_this_machine() {
        let local = |address: &str| is_this_machine(address.parse().unwrap());
        assert!(local("127.0.0.1:1000") && local("[::1]:1000") && local("[::ffff:127.0.0.1]:1000"));
        assert!(!local("192.0.2.1:1000") && !local("[2001:db8::1]:1000"));
    }

    #[test]
    fn own_names() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1:1",
            "[::1]:5000",
            "::1",
            "192.168.1.2",
            "a.localhost:1",
            "my.box:5000",
            "host.docker.internal:5000",
            "host.containers.internal",
        ] {
            assert!(is_own_host(host, "my.box"), "{host}");
        }
        for host in [
            "evil.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "evil.com:5000",
            "",
            "notlocalhost",
            "host..internal",
            "host.a.b.internal",
            "host.internal",
        ] {
            assert!(!is_own_host(host, "localhost"), "{host}");
        }
    }

    #[test]
    fn origins() {
        let settings =
            Settings { allowed_origins: vec!["https://app.example.com".into()], ..Settings::default() };
        for origin in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://[::1]:8080",
            "app://obsidian.md",
            "https://App.example.com",
            "chrome-extension://abc",
            "capacitor://localhost",
            "ionic://localhost",
        ] {
            assert!(is_allowed_origin(origin, &settings.allowed_origins), "{origin}");
        }
        for origin in [
            "null",
            "https://evil.com",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com:80",
            "http://localhost@evil.com",
            "https://example.com",
            "httpx://localhost",
            "capacitor://localhost.evil.com",
        ] {
            assert!(!is_allowed_origin(origin, &settings.allowed_origins), "{origin}");
        }
        let all = Settings { allowed_origins: vec!["*".into()], ..Settings::default() };
        assert!(is_allowed_origin("https://evil.com", &all.allowed_origins));
        assert!(is_allowed_origin("null", &all.allowed_origins));
    }
}
