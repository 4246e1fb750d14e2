//! What went wrong on the way to the upstream, in words that people can act on.

use std::fmt;
use std::io;
use std::time::Duration;

use ureq::Timeout;
use ureq::config::Config;
use ureq::http::Uri;

use super::CONNECT_TIMEOUT;
use crate::error::is_about_descriptors;
use crate::language::Words;

/// Why no answer came, or only a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure, which decides what to do next.
    pub kind: FailureKind,
    /// The reason, as shown to people.
    pub reason: Words,
}

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection could be opened.
    Unreachable,
    /// No connection could be opened, because no address is known for a name.
    UnknownName,
    /// No secure connection could be set up.
    Tls,
    /// The connection ended, or carried something other than HTTP.
    BrokeOff,
    /// Nothing came for this long: `UPSTREAM_TIMEOUT`.
    Silent(Duration),
    /// The system has no descriptor left: too many connections are open.
    NoDescriptors,
    /// The upstream is this proxy itself, or one that calls it.
    Loop,
}

impl Failure {
    /// Returns the failure of a connection that ended, or carried something other than HTTP.
    pub fn broke_off(reason: Words) -> Self {
        Self { kind: FailureKind::BrokeOff, reason }
    }

    /// Returns the failure of an answer that ended before it was complete.
    pub fn cut() -> Self {
        Self::broke_off(Words::new("it ended before the answer was whole", "回答还没结束就中断了"))
    }

    /// Returns the failure of a call that this proxy cut off.
    pub fn aborted() -> Self {
        Self::broke_off(Words::new("it was cut off", "已被中断"))
    }

    /// Returns the failure of a call whose upstream is this proxy, or one that calls it.
    pub fn is_a_loop() -> Self {
        let reason = Words::new("the upstream is this proxy itself", "上游就是这个代理自己");
        Self { kind: FailureKind::Loop, reason }
    }

    fn silent(limit: Duration) -> Self {
        let seconds = limit.as_secs_f64();
        let reason =
            Words::new(format!("no byte for {seconds} s"), format!("{seconds} 秒内没有收到任何数据"));
        Self { kind: FailureKind::Silent(limit), reason }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason.english)
    }
}

/// The error of a failed name look-up. The system's own errors differ too much to be recognized.
#[derive(Debug)]
pub(super) struct UnknownName {
    /// The host that was looked up.
    pub(super) host: String,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} can't be looked up", self.host)
    }
}

impl std::error::Error for UnknownName {}

/// Describes an error without the words of ureq, which could hold an address with a password in it.
#[cold]
#[inline(never)]
pub(super) fn failure(
    error: ureq::Error,
    uri: &Uri,
    config: &Config,
    timeout: Duration,
    connected: bool,
) -> Failure {
    let (kind, reason, unknown) = match error {
        ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite) => return Failure::silent(timeout),
        ureq::Error::Timeout(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            let reason = Words::new(
                format!("no connection within {seconds} s"),
                format!("{seconds} 秒内未能建立连接"),
            );
            (FailureKind::Unreachable, reason, None)
        }
        ureq::Error::ConnectProxyFailed(_) => {
            (FailureKind::Unreachable, Words::new("the HTTP proxy refused", "HTTP 代理拒绝了连接"), None)
        }
        ureq::Error::Io(error) => match of_io(&error) {
            Ok((kind, reason)) => (kind, reason, None),
            Err(UnknownName { host }) => {
                (FailureKind::UnknownName, unknown_name(), Some(host.as_str().to_owned()))
            }
        },
        ureq::Error::HostNotFound => (FailureKind::UnknownName, unknown_name(), None),
        ureq::Error::Tls(reason) => (FailureKind::Tls, Words::from(reason).about("TLS", "TLS"), None),
        ureq::Error::TlsRequired => {
            (FailureKind::Tls, Words::new("TLS can't be set up", "无法建立 TLS"), None)
        }
        ureq::Error::LargeResponseHeader(..) => {
            (FailureKind::BrokeOff, Words::new("its response head is too large", "它的响应头过大"), None)
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
            (FailureKind::BrokeOff, Words::new("what it answered is not HTTP", "它的回答不是 HTTP"), None)
        }
        _ => (FailureKind::BrokeOff, Words::new("the connection failed", "连接失败"), None),
    };
    let host = |uri: &Uri| uri.authority().map(ToString::to_string).unwrap_or_default();
    // Without a connection, it was the proxy that couldn't be reached, if there is one.
    let proxy = config
        .proxy()
        .filter(|proxy| !connected && unknown.as_deref().is_none_or(|host| host == proxy.host()));
    let reason = match (kind, proxy) {
        (FailureKind::Unreachable | FailureKind::UnknownName, Some(proxy)) => {
            let address = format!("{}:{}", proxy.host(), proxy.port());
            reason.about(format_args!("the proxy {address}"), format_args!("代理 {address}"))
        }
        (FailureKind::Unreachable | FailureKind::UnknownName, None) => {
            let host = unknown.unwrap_or_else(|| host(uri));
            reason.about(&host, &host)
        }
        _ => reason,
    };
    Failure { kind, reason }
}

fn unknown_name() -> Words {
    Words::new(
        "its name can't be looked up: there is no network, or the address has a slip in it",
        "无法解析域名：没有网络，或地址有误",
    )
}

/// Describes an error of the socket, or of what is wrapped around it.
fn of_io(error: &io::Error) -> Result<(FailureKind, Words), &UnknownName> {
    if is_about_descriptors(error) {
        let reason = Words::new("too many connections are open", "打开的连接过多");
        return Ok((FailureKind::NoDescriptors, reason));
    }
    let inside = error.get_ref();
    if let Some(unknown) = inside.and_then(|inner| inner.downcast_ref::<UnknownName>()) {
        return Err(unknown);
    }
    if let Some(tls) = inside.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Ok((FailureKind::Tls, of_tls(tls).about("TLS", "TLS")));
    }
    let inner = inside.and_then(|inner| inner.downcast_ref::<io::Error>());
    Ok(match inner.unwrap_or(error).kind() {
        io::ErrorKind::UnexpectedEof => {
            (FailureKind::BrokeOff, Words::new("it closed the connection", "对方关闭了连接"))
        }
        kind @ (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            (FailureKind::BrokeOff, of_kind(kind))
        }
        kind => (FailureKind::Unreachable, of_kind(kind)),
    })
}

fn of_kind(kind: io::ErrorKind) -> Words {
    let english = kind.to_string();
    let chinese = match kind {
        io::ErrorKind::ConnectionRefused => "连接被拒绝",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "连接被重置",
        io::ErrorKind::HostUnreachable => "主机不可达",
        io::ErrorKind::NetworkUnreachable => "网络不可达",
        io::ErrorKind::TimedOut => "超时",
        _ => return english.into(),
    };
    Words::new(english, chinese)
}

/// Describes a TLS error, without the words of rustls if people can do something about it.
fn of_tls(error: &rustls::Error) -> Words {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                Words::new("its certificate's issuer is not trusted", "证书的签发者不受信任")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Words::new(
                "its certificate has expired, or the clock here is wrong",
                "证书已过期，或本机时钟不准",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Words::new("its certificate is for another name", "证书与域名不符")
            }
            other => Words::new(
                format!("its certificate can't be used: {other}"),
                format!("证书无法使用：{other}"),
            ),
        },
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_in_both_languages() {
        let config = |proxy: Option<&str>| {
            let proxy = proxy.map(|proxy| ureq::Proxy::new(proxy).unwrap());
            ureq::Agent::config_builder().proxy(proxy).build()
        };
        let uri = "http://upstream.example:81/v1".parse::<Uri>().unwrap();
        let told = |error: io::Error, proxy, connected| {
            let limit = Duration::from_millis(500);
            let failure = failure(ureq::Error::Io(error), &uri, &config(proxy), limit, connected);
            (failure.kind, failure.reason.english.into_owned(), failure.reason.chinese.into_owned())
        };
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let unknown = |host: &str| io::Error::other(UnknownName { host: host.into() });
        let (kind, english, chinese) = told(refused(), Some("http://me:secret@h:1"), false);
        assert_eq!(kind, FailureKind::Unreachable);
        assert_eq!((&*english, &*chinese), ("the proxy h:1: connection refused", "代理 h:1：连接被拒绝"));
        assert_eq!(told(refused(), None, false).1, "upstream.example:81: connection refused");
        let (kind, english, _) = told(unknown("upstream.example"), Some("socks5://h:1"), false);
        assert_eq!(kind, FailureKind::UnknownName);
        assert!(english.starts_with("upstream.example: its name can't be looked up"), "{english}");
        let (_, english, _) = told(unknown("h"), Some("socks5://h:1"), false);
        assert!(english.starts_with("the proxy h:1: its name can't"), "{english}");
        let expired = rustls::Error::from(rustls::CertificateError::Expired);
        let (kind, english, chinese) = told(io::Error::other(expired), None, false);
        assert_eq!(kind, FailureKind::Tls);
        assert!(
            english.starts_with("TLS: its certificate has expired") && chinese.starts_with("TLS：证书已过期")
        );
        assert_eq!(Failure::silent(Duration::from_millis(500)).reason.chinese, "0.5 秒内没有收到任何数据");
    }
}
