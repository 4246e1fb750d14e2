//! Every setting of `.env`, checked: a value that is out of range never gets in.

pub mod args;
pub mod backups;
pub mod env_edit;
pub mod env_file;
mod read;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use ureq::http::Uri;

use crate::dialect::free_models;
use crate::dialect::model_name::{Mapping, Rule};
use crate::dialect::named_kinds;
use crate::language::either;
use backups::Backup;
pub use read::{Sources, Warning};
pub use values::{ProxyUrl, Secret, is_placeholder, parse_key};

/// Bytes of a MB, as `MAX_BODY_MB` counts them.
const MB_BYTES: u64 = 1 << 20;

const NOT_SET: &str = "not set";
const KEEP_ALL: &str = "all";

/// What needs a restart to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// `HOST`.
    pub host: String,
    /// `PORT`; 0 takes any free one.
    pub port: u16,
    /// `WORKERS`: requests that run at once.
    pub workers: usize,
    /// `QUEUE`: requests that may wait for a worker.
    pub queue: usize,
}

/// The settings in force. Every value has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `HOST`, `PORT`, `WORKERS` and `QUEUE`.
    pub listen: Listen,
    /// `OPENROUTER_API_KEY`.
    pub key: Option<Secret>,
    /// `CACHE_DIR`, absolute or relative to the current folder.
    pub cache_dir: Option<Arc<Path>>,
    /// `CACHE_KEEP_DAYS`; `None` keeps all.
    pub cache_keep_days: Option<u32>,
    /// `MODEL`, or `best`: free unless `allow_paid_models`.
    pub model: String,
    /// `FALLBACK_MODELS`: free unless `allow_paid_models`.
    pub fallback_models: Vec<String>,
    /// `EMBEDDING_MODEL` and its like, by name: free unless `allow_paid_models`; never the router, which only chats.
    pub named_models: Vec<(&'static str, Option<String>)>,
    /// `MODEL_MAP`, in its order.
    pub model_map: Vec<Mapping>,
    /// `ALLOW_PAID_MODELS`.
    pub allow_paid_models: bool,
    /// `OPENROUTER_BASE_URL`, without a slash at its end.
    pub base_url: String,
    /// `HTTP_PROXY`.
    pub http_proxy: Option<ProxyUrl>,
    /// `HTTPS_PROXY`.
    pub https_proxy: Option<ProxyUrl>,
    /// `ALL_PROXY`.
    pub all_proxy: Option<ProxyUrl>,
    /// `NO_PROXY`, as written.
    pub no_proxy: String,
    /// `SSL_CERT_FILE`, and the certificates found in it.
    pub ssl_cert_file: Option<(PathBuf, Vec<CertificateDer<'static>>)>,
    /// `PROXY_API_KEY`: what clients must send.
    pub proxy_api_key: Option<Secret>,
    /// `ALLOWED_ORIGINS`: lower case, `*` for all.
    pub allowed_origins: Vec<String>,
    /// `TEST_MODE`, or `--offline`.
    pub test_mode: bool,
    /// `RETRIES`: tries after the first.
    pub retries: u32,
    /// `MAX_WAIT`: how long one request may wait for the account's limit.
    pub max_wait: Duration,
    /// `MAX_BODY_MB`, in bytes.
    pub max_body_bytes: u64,
    /// `UPSTREAM_TIMEOUT`: silence of the upstream that counts as its end.
    pub upstream_timeout: Duration,
    /// `STICKY_MINUTES`: how long a conversation keeps its model.
    pub sticky: Duration,
    /// `REUSE_ANSWERS`: for how long an answer is given again; 0: never.
    pub reuse: Duration,
    /// `BACKUPS`, in their order.
    pub backups: Vec<Backup>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen { host: "localhost".into(), port: 5000, workers: 256, queue: 256 },
            key: None,
            cache_dir: None,
            cache_keep_days: None,
            model: free_models::ROUTER.into(),
            fallback_models: Vec::new(),
            named_models: Vec::new(),
            model_map: Vec::new(),
            allow_paid_models: false,
            base_url: "https://openrouter.ai/api/v1".into(),
            http_proxy: None,
            https_proxy: None,
            all_proxy: None,
            no_proxy: String::new(),
            ssl_cert_file: None,
            proxy_api_key: None,
            allowed_origins: Vec::new(),
            test_mode: false,
            retries: 2,
            max_wait: Duration::from_secs(65),
            max_body_bytes: 64 * MB_BYTES,
            upstream_timeout: Duration::from_secs(300),
            sticky: Duration::from_secs(30 * 60),
            reuse: Duration::ZERO,
            backups: Vec::new(),
        }
    }
}

/// One setting as the console and the panel show it.
pub struct Shown {
    /// As in `.env`.
    pub name: &'static str,
    /// Its value, secrets masked.
    pub value: String,
    /// Takes effect at the next start only.
    pub needs_restart: bool,
}

impl Settings {
    /// The model that a setting names for a kind of which none stands in for another.
    pub fn named_model(&self, setting: &str) -> Option<&str> {
        self.named_models.iter().find(|(name, _)| *name == setting)?.1.as_deref()
    }

    /// The proxy that requests to this address go through.
    pub fn proxy(&self, base_url: &str) -> Option<&ProxyUrl> {
        let uri = base_url.parse::<Uri>().ok()?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        if values::bypasses_proxy(&self.no_proxy, uri.host()?, port) {
            return None;
        }
        let own = if https { &self.https_proxy } else { &self.http_proxy };
        own.as_ref().or(self.all_proxy.as_ref()).or(self.http_proxy.as_ref())
    }

    /// What the names of models in a request go by. `default_model` answers where they name none that may be used.
    pub fn rule<'a>(&'a self, default_model: &'a str) -> Rule<'a> {
        Rule {
            default_model,
            allow_paid: self.allow_paid_models,
            map: &self.model_map,
            backups: self.backups.iter().map(Backup::models).collect(),
        }
    }

    /// Every setting in the order of the README, for people to read.
    pub fn shown(&self) -> Vec<Shown> {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| NOT_SET.into());
        let proxy = |proxy: &Option<ProxyUrl>| or_none(proxy.as_ref().map(ProxyUrl::address));
        let seconds = |d: Duration| d.as_secs_f64().to_string();
        let path = |p: &Path| p.display().to_string();
        let entry = |name, value| Shown {
            name,
            value,
            needs_restart: matches!(name, "HOST" | "PORT" | "WORKERS" | "QUEUE"),
        };
        let mut shown = vec![
            entry("OPENROUTER_API_KEY", or_none(self.key.as_ref().map(Secret::masked))),
            entry("CACHE_DIR", or_none(self.cache_dir.as_deref().map(path))),
            entry("MODEL", self.model.clone()),
            entry("HOST", self.listen.host.clone()),
            entry("PORT", self.listen.port.to_string()),
            entry("OPENROUTER_BASE_URL", self.base_url.clone()),
            entry("HTTP_PROXY", proxy(&self.http_proxy)),
            entry("HTTPS_PROXY", proxy(&self.https_proxy)),
            entry("ALL_PROXY", proxy(&self.all_proxy)),
            entry("NO_PROXY", or_none(Some(self.no_proxy.clone()).filter(|v| !v.is_empty()))),
            entry("SSL_CERT_FILE", or_none(self.ssl_cert_file.as_ref().map(|(p, _)| path(p)))),
            entry("PROXY_API_KEY", or_none(self.proxy_api_key.as_ref().map(Secret::masked))),
            entry(
                "ALLOWED_ORIGINS",
                or_none(Some(self.allowed_origins.join(", ")).filter(|v| !v.is_empty())),
            ),
            entry("ALLOW_PAID_MODELS", self.allow_paid_models.to_string()),
        ];
        let named = named_kinds().map(|named| named.setting);
        shown.extend(named.map(|name| entry(name, or_none(self.named_model(name).map(str::to_owned)))));
        shown.extend([
            entry("MODEL_MAP", or_none(Some(joined(&self.model_map)).filter(|v| !v.is_empty()))),
            entry("RETRIES", self.retries.to_string()),
            entry(
                "FALLBACK_MODELS",
                or_none(Some(self.fallback_models.join(", ")).filter(|v| !v.is_empty())),
            ),
            entry("MAX_WAIT", seconds(self.max_wait)),
            entry("TEST_MODE", self.test_mode.to_string()),
            entry("WORKERS", self.listen.workers.to_string()),
            entry("QUEUE", self.listen.queue.to_string()),
            entry("MAX_BODY_MB", (self.max_body_bytes / MB_BYTES).to_string()),
            entry("UPSTREAM_TIMEOUT", seconds(self.upstream_timeout)),
            entry("STICKY_MINUTES", (self.sticky.as_secs() / 60).to_string()),
            entry("REUSE_ANSWERS", (self.reuse.as_secs() / 60).to_string()),
            entry(
                "BACKUPS",
                or_none(
                    Some(self.backups.iter().map(shown_backup).collect::<Vec<_>>().join(", "))
                        .filter(|v| !v.is_empty()),
                ),
            ),
            entry("CACHE_KEEP_DAYS", self.cache_keep_days.map_or(KEEP_ALL.into(), |d| d.to_string())),
        ]);
        shown
    }

    /// What is different in `newer`, a line each.
    pub fn changes(&self, newer: &Settings) -> Vec<String> {
        let secrets = |s: &Settings| {
            [
                ("OPENROUTER_API_KEY", s.key.clone()),
                ("PROXY_API_KEY", s.proxy_api_key.clone()),
                ("HTTP_PROXY", s.http_proxy.as_ref().map(|p| p.url.clone())),
                ("HTTPS_PROXY", s.https_proxy.as_ref().map(|p| p.url.clone())),
                ("ALL_PROXY", s.all_proxy.as_ref().map(|p| p.url.clone())),
            ]
        };
        let differ = |name: &str| {
            let pairs = secrets(self).into_iter().zip(secrets(newer));
            pairs.into_iter().any(|(old, new)| old.0 == name && old.1 != new.1)
                || name == "BACKUPS" && self.backups != newer.backups
        };
        let pairs = self.shown().into_iter().zip(newer.shown());
        pairs
            .filter(|(old, new)| old.value != new.value || differ(new.name))
            .map(|(_, new)| match new.needs_restart {
                true => {
                    let note = either("(needs a restart)", "（重启后生效）");
                    format!("{} = {} {note}", new.name, in_words(&new.value))
                }
                false => format!("{} = {}", new.name, in_words(&new.value)),
            })
            .collect()
    }
}

/// A value as a console shows it: the panel has words of its own.
fn in_words(value: &str) -> &str {
    match value {
        NOT_SET => either(NOT_SET, "未设置"),
        KEEP_ALL => either(KEEP_ALL, "全部保留"),
        value => value,
    }
}

fn joined<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn shown_backup(backup: &Backup) -> String {
    let key = backup.key.as_ref().map(|key| format!(", key {}", key.masked())).unwrap_or_default();
    format!("{} ({} at {}{key})", backup.name, joined(&backup.models), backup.base_url)
}

#[cfg(test)]
pub(crate) mod tests_support {
    /// A key for tests elsewhere.
    pub(crate) fn secret(text: &str) -> super::Secret {
        super::Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::read::tests::read;
    use super::values::bypasses_proxy;
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let text = "OPENROUTER_API_KEY=sk-or-v1-secret-abcd\nPROXY_API_KEY=hunter2\nHTTPS_PROXY=http://me:pa55@host:8080";
        let settings = read(text);
        let shown = settings.shown().into_iter().map(|s| s.value).collect::<String>();
        for text in [shown, format!("{settings:?}")] {
            for secret in ["sk-or-v1", "secret", "hunter2", "pa55"] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
            assert!(text.contains("...abcd"));
        }
    }

    #[test]
    fn a_changed_secret_with_the_same_end_is_a_change() {
        let old = read("OPENROUTER_API_KEY=sk-or-v1-aaaaaaaa-1234");
        let new = read("OPENROUTER_API_KEY=sk-or-v1-bbbbbbbb-1234\nPORT=1");
        let expected = ["OPENROUTER_API_KEY = ...1234", "PORT = 1 (needs a restart)"];
        assert_eq!(old.changes(&new), expected);
    }

    #[test]
    fn which_proxy_is_used() {
        let via = |text: &str| {
            let settings = read(text);
            settings.proxy(&settings.base_url).map(ProxyUrl::address)
        };
        assert_eq!(via(""), Some("env:1".into()), "lower case, from the environment");
        assert_eq!(via("HTTP_PROXY="), None, ".env wins, also with nothing");
        assert_eq!(via("HTTP_PROXY=127.0.0.1:7890"), Some("127.0.0.1:7890".into()));
        assert_eq!(via("ALL_PROXY=socks5h://s:1080"), Some("s:1080".into()));
        assert_eq!(via("HTTPS_PROXY=http://h:2\nNO_PROXY=x, .openrouter.ai"), None);
        let http = "OPENROUTER_BASE_URL=http://up:81/v1\nHTTPS_PROXY=http://h:2\nHTTP_PROXY=http://p:3\n";
        assert_eq!(via(http), Some("p:3".into()));
        assert_eq!(via(&format!("{http}NO_PROXY=up:80")), Some("p:3".into()));
        assert_eq!(via(&format!("{http}NO_PROXY=up:81")), None);
        assert!(bypasses_proxy("::1", "[::1]", 80));
        assert!(!bypasses_proxy("ample.com", "example.com", 80));
    }
}
