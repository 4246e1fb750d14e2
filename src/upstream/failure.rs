//! What went wrong on the way to the upstream, in words that people can do something about.

use std::fmt;
use std::io;
use std::time::Duration;

use ureq::Timeout;
use ureq::config::Config;

use super::CONNECT_TIMEOUT;
use crate::error::{
    CLOSED, EXPIRED, NO_BYTE, NO_CONNECTION, OTHER_NAME, PROXY_REFUSED, TLS, UNKNOWN_NAME, UNTRUSTED,
    VIA_PROXY, is_about_descriptors,
};

/// Why no answer, or only a part of one, came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it ended early: the reason in words.
    Broken(Trouble, String),
    /// `UPSTREAM_TIMEOUT` went by without a byte.
    Silent(Duration),
}

/// Where a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There was none.
    Unreachable,
    /// It ended, or carried something else than HTTP.
    BrokeOff,
    /// The system has none to give: too many are open.
    NoDescriptors,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(_, reason) => f.write_str(reason),
            Self::Silent(limit) => write!(f, "{NO_BYTE}{} s", limit.as_secs_f64()),
        }
    }
}

/// Says what happened without the words of ureq, which could hold an address with a password in it.
#[cold]
#[inline(never)]
pub(super) fn failure(error: ureq::Error, config: &Config, timeout: Duration, connected: bool) -> Failure {
    // Without a connection it was the proxy that couldn't be reached, where there is one.
    let proxy = config.proxy().filter(|_| !connected);
    let broken = |trouble, reason: String| match proxy {
        Some(proxy) if trouble == Trouble::Unreachable => {
            let (host, port) = (proxy.host(), proxy.port());
            Failure::Broken(trouble, format!("{VIA_PROXY}{host}:{port}: {reason}"))
        }
        _ => Failure::Broken(trouble, reason),
    };
    match error {
        ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite) => Failure::Silent(timeout),
        ureq::Error::Timeout(_) => {
            broken(Trouble::Unreachable, format!("{NO_CONNECTION}{} s", CONNECT_TIMEOUT.as_secs()))
        }
        ureq::Error::HostNotFound => broken(Trouble::Unreachable, UNKNOWN_NAME.into()),
        ureq::Error::ConnectProxyFailed(_) => broken(Trouble::Unreachable, PROXY_REFUSED.into()),
        ureq::Error::Io(e) if is_about_descriptors(&e) => {
            Failure::Broken(Trouble::NoDescriptors, "too many connections are open".into())
        }
        ureq::Error::Io(e) => {
            let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
            match (tls, inner.unwrap_or(&e).kind()) {
                (Some(tls), _) => Failure::Broken(Trouble::Unreachable, format!("{TLS}{}", in_words(tls))),
                (None, io::ErrorKind::UnexpectedEof) => broken(Trouble::BrokeOff, CLOSED.into()),
                (None, kind @ (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)) => {
                    broken(Trouble::BrokeOff, kind.to_string())
                }
                (None, _) if !connected && is_about_a_name(&e) => {
                    broken(Trouble::Unreachable, UNKNOWN_NAME.into())
                }
                (None, kind) => broken(Trouble::Unreachable, kind.to_string()),
            }
        }
        ureq::Error::Tls(reason) => broken(Trouble::Unreachable, format!("{TLS}{reason}")),
        ureq::Error::TlsRequired => broken(Trouble::Unreachable, "TLS can't be set up".into()),
        ureq::Error::LargeResponseHeader(..) => {
            broken(Trouble::BrokeOff, "its response head is too large".into())
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
            broken(Trouble::BrokeOff, "what it answered is not HTTP".into())
        }
        _ => broken(Trouble::BrokeOff, "the connection failed".into()),
    }
}

/// What people can do something about, without the words of rustls.
fn in_words(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => UNTRUSTED.into(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => EXPIRED.into(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                OTHER_NAME.into()
            }
            other => format!("its certificate can't be used: {other}"),
        },
        other => other.to_string(),
    }
}

/// Whether a name could not be looked up. The kind of such errors has no name of its own: std's words on Unix, and on
/// Windows [WinSock's](https://learn.microsoft.com/windows/win32/winsock/windows-sockets-error-codes-2) 11001 to 11004.
fn is_about_a_name(error: &io::Error) -> bool {
    let winsock = error.raw_os_error().is_some_and(|code| (11001..=11004).contains(&code));
    winsock
        || error.kind() == io::ErrorKind::Other
        || error.to_string().starts_with("failed to lookup address")
}
