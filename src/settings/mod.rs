//! Every setting of `.env`, checked: a value that is out of range never gets in.

pub mod args;
pub mod backups;
pub mod env_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use subtle::ConstantTimeEq;
use ureq::http::Uri;

use crate::dialect::free_models;
use args::Args;
use backups::Backup;

use crate::language::either;

/// Bytes of a MB, as `MAX_BODY_MB` counts them.
const MB_BYTES: u64 = 1 << 20;

/// A key or password: its text can be sent and compared, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one header that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the same, in a time that doesn't tell how much of it is.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// `…abcd`: the last 4 characters, none of a short one.
    pub fn masked(&self) -> String {
        match self.0.char_indices().rev().nth(3) {
            Some((at, _)) if self.0.len() >= 12 => format!("...{}", &self.0[at..]),
            _ => "...".to_owned(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// A proxy toward the upstream, perhaps with a password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    url: Secret,
    proxy: ureq::Proxy,
}

impl ProxyUrl {
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h", "socks"];
        let authority = rest.strip_suffix('/').unwrap_or(rest).rsplit('@').next()?;
        if !known.contains(&scheme.to_ascii_lowercase().as_str()) || !is_authority(authority) {
            return None; // ureq takes what it can't read for the default port
        }
        let proxy = ureq::Proxy::new(url).ok()?;
        Some(Self { url: Secret(url.to_owned()), proxy })
    }

    /// For ureq's configuration.
    pub fn proxy(&self) -> &ureq::Proxy {
        &self.proxy
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

const NOT_SET: &str = "not set";

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
    /// `MODEL`: free unless `allow_paid_models`.
    pub model: String,
    /// `FALLBACK_MODELS`: free unless `allow_paid_models`.
    pub fallback_models: Vec<String>,
    /// `EMBEDDING_MODEL`: free unless `allow_paid_models`; the router makes no embeddings.
    pub embedding_model: Option<String>,
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
            embedding_model: None,
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

/// Where the values come from.
pub struct Sources<'a> {
    /// `.env`, in the order of the file; the last of a name counts.
    pub file: &'a [(String, String)],
    /// The process environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The command line.
    pub args: &'a Args,
    /// The home folder, which relative paths start from.
    pub home: &'a Path,
}

impl Sources<'_> {
    /// `.env` wins over the environment, also with an empty value. Empty means not set.
    fn get(&self, name: &str) -> Option<String> {
        let in_file = self.file.iter().rev().find(|(n, _)| n == name);
        let value = match in_file {
            Some((_, value)) => Some(value.clone()),
            None => (self.environment)(name),
        };
        value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    /// Proxies are commonly set in lower case, but only in the environment.
    fn get_proxy(&self, name: &str) -> Option<String> {
        let lower = || (self.environment)(&name.to_ascii_lowercase()).filter(|v| !v.is_empty());
        match self.file.iter().any(|(n, _)| n == name) {
            true => self.get(name),
            false => self.get(name).or_else(lower),
        }
    }
}

impl Settings {
    /// Reads every setting. One that can't be used as it stands keeps the value of `last_good`, or its default where this
    /// is the first time, and adds a sentence to the list.
    pub fn read(sources: &Sources<'_>, last_good: Option<&Settings>) -> (Settings, Vec<String>) {
        let default = Settings::default();
        let is_first = last_good.is_none();
        let last_good = last_good.unwrap_or(&default);
        let mut reader = Reader { sources, complaints: Vec::new() };
        let r = &mut reader;
        let bool = either("true or false", "true 或 false");

        let allow_paid_models =
            r.read("ALLOW_PAID_MODELS", bool, parse_bool, false, last_good.allow_paid_models);
        let free = |id: &str| allow_paid_models || free_models::is_free(id);
        let model_range = match allow_paid_models {
            true => either("a model's id", "模型的 id"),
            false => either(
                "openrouter/free or a model whose id ends in :free (ALLOW_PAID_MODELS=true lifts this)",
                "openrouter/free 或 id 以 :free 结尾的模型（ALLOW_PAID_MODELS=true 可解除限制）",
            ),
        };
        // Once paid models are forbidden again, a paid one that was good before isn't any more.
        let good = |id: &String| free(id);
        let last_model = Some(&last_good.model).filter(|id| good(id)).unwrap_or(&default.model);
        let embeds = |id: &String| good(id) && id != free_models::ROUTER;
        let last_embedding = last_good.embedding_model.clone().filter(embeds);

        let is_example = sources.get("OPENROUTER_API_KEY").is_some_and(|key| is_placeholder(&key));
        let key_range = match is_example {
            true => either(
                "your own key (free: https://openrouter.ai/keys), not the example",
                "您自己的密钥（免费申请：https://openrouter.ai/keys），而不是示例",
            ),
            false => {
                either("the key as OpenRouter shows it, without blanks", "OpenRouter 显示的密钥，不含空格")
            }
        };

        let settings = Settings {
            listen: Listen {
                host: r.read(
                    "HOST",
                    either("localhost, an IP address or a host name, without a port (that is PORT)", "localhost、IP 地址或主机名（端口用 PORT 设置）"),
                    parse_host,
                    default.listen.host.clone(),
                    last_good.listen.host.clone(),
                ),
                port: r.read(
                    "PORT",
                    either("a number from 0 to 65535", "0 到 65535 之间的数字"),
                    |v| v.parse().ok(),
                    default.listen.port,
                    last_good.listen.port,
                ),
                workers: r.read(
                    "WORKERS",
                    either("a number from 1 to 4096", "1 到 4096 之间的数字"),
                    in_range(1, 4096),
                    default.listen.workers,
                    last_good.listen.workers,
                ),
                queue: r.read(
                    "QUEUE",
                    either("a number from 0 to 100000", "0 到 100000 之间的数字"),
                    in_range(0, 100_000),
                    default.listen.queue,
                    last_good.listen.queue,
                ),
            },
            key: r.read(
                "OPENROUTER_API_KEY",
                key_range,
                |v| parse_key(v).filter(|_| !is_placeholder(v)).map(Some),
                None,
                last_good.key.clone(),
            ),
            cache_dir: r.read(
                "CACHE_DIR",
                either("a folder", "一个文件夹"),
                |v| Some(Some(sources.home.join(v).into())),
                None,
                None,
            ),
            cache_keep_days: r.read(
                "CACHE_KEEP_DAYS",
                either("a number of days from 1 to 36500", "1 到 36500 之间的天数"),
                |v| in_range(1, 36_500)(v).map(|d| Some(d as u32)),
                None,
                last_good.cache_keep_days,
            ),
            model: r.read(
                "MODEL",
                model_range,
                |v| Some(v.to_owned()).filter(good),
                default.model.clone(),
                last_model.clone(),
            ),
            fallback_models: r.read_models("FALLBACK_MODELS", model_range, good),
            embedding_model: r.read(
                "EMBEDDING_MODEL",
                either("a model that makes embeddings and whose id ends in :free (ALLOW_PAID_MODELS=true lifts this)", "生成嵌入向量且 id 以 :free 结尾的模型（ALLOW_PAID_MODELS=true 可解除限制）"),
                |v| Some(v.to_owned()).filter(embeds).map(Some),
                None,
                last_embedding,
            ),
            allow_paid_models,
            base_url: r.read(
                "OPENROUTER_BASE_URL",
                either("an address such as https://openrouter.ai/api/v1", "地址，例如 https://openrouter.ai/api/v1"),
                parse_base_url,
                default.base_url.clone(),
                last_good.base_url.clone(),
            ),
            http_proxy: r.read_proxy("HTTP_PROXY", &last_good.http_proxy),
            https_proxy: r.read_proxy("HTTPS_PROXY", &last_good.https_proxy),
            all_proxy: r.read_proxy("ALL_PROXY", &last_good.all_proxy),
            no_proxy: sources.get_proxy("NO_PROXY").unwrap_or_default(),
            ssl_cert_file: r.read(
                "SSL_CERT_FILE",
                either("a PEM file with certificates", "含有证书的 PEM 文件"),
                |v| read_certificates(&sources.home.join(v)).map(Some),
                None,
                last_good.ssl_cert_file.clone(),
            ),
            proxy_api_key: r.read(
                "PROXY_API_KEY",
                either("printable ASCII without blanks", "可打印的 ASCII 字符，不含空格"),
                |v| parse_key(v).map(Some),
                None,
                last_good.proxy_api_key.clone(),
            ),
            allowed_origins: r.read(
                "ALLOWED_ORIGINS",
                either("origins such as https://app.example.com, with commas between them, or *", "来源，例如 https://app.example.com，用逗号分隔，或 *"),
                parse_origins,
                Vec::new(),
                last_good.allowed_origins.clone(),
            ),
            test_mode: sources.args.offline
                || r.read("TEST_MODE", bool, parse_bool, false, last_good.test_mode),
            retries: r.read(
                "RETRIES",
                either("a number from 0 to 10", "0 到 10 之间的数字"),
                |v| in_range(0, 10)(v).map(|n| n as u32),
                default.retries,
                last_good.retries,
            ),
            max_wait: r.read(
                "MAX_WAIT",
                either("seconds from 0 to 86400", "0 到 86400 之间的秒数"),
                seconds(0.0),
                default.max_wait,
                last_good.max_wait,
            ),
            max_body_bytes: r.read(
                "MAX_BODY_MB",
                either("a number from 1 to 1024", "1 到 1024 之间的数字"),
                |v| in_range(1, 1024)(v).map(|n| n as u64 * MB_BYTES),
                default.max_body_bytes,
                last_good.max_body_bytes,
            ),
            upstream_timeout: r.read(
                "UPSTREAM_TIMEOUT",
                either("seconds from 0.1 to 86400", "0.1 到 86400 之间的秒数"),
                seconds(0.1),
                default.upstream_timeout,
                last_good.upstream_timeout,
            ),
            sticky: r.read(
                "STICKY_MINUTES",
                either("minutes from 0 to 10080", "0 到 10080 之间的分钟数"),
                |v| in_range(0, 10_080)(v).map(|minutes| Duration::from_secs(minutes as u64 * 60)),
                default.sticky,
                last_good.sticky,
            ),
            reuse: r.read(
                "REUSE_ANSWERS",
                either("minutes from 0 to 43200", "0 到 43200 之间的分钟数"),
                |v| in_range(0, 43_200)(v).map(|minutes| Duration::from_secs(minutes as u64 * 60)),
                default.reuse,
                last_good.reuse,
            ),
            backups: backups::read(r, &last_good.backups),
        };
        let mut settings = settings;
        if let Some(host) = &sources.args.host {
            settings.listen.host.clone_from(host);
        }
        if let Some(port) = sources.args.port {
            settings.listen.port = port;
        }
        let shown = settings.shown();
        reader.complain_of_names(&shown, settings.key.is_none());
        let told = reader.complaints.into_iter().map(|complaint| {
            let counts = shown.iter().find(|shown| shown.name == complaint.name);
            let counts = counts.map(|shown| shown.value.as_str()).filter(|_| complaint.keeps_value);
            match (counts, is_first) {
                (None, _) => complaint.text,
                (Some(value), true) => {
                    let text = complaint.text;
                    either(
                        format!("{text}; until then it counts as: {value}"),
                        format!("{text}；在此之前按此处理：{value}"),
                    )
                }
                (Some(value), false) => {
                    let text = complaint.text;
                    either(
                        format!("{text}; it stays as it was: {value}"),
                        format!("{text}；保持不变：{value}"),
                    )
                }
            }
        });
        let told = told.collect();
        (settings, told)
    }

    /// The proxy that requests to this address go through.
    pub fn proxy(&self, base_url: &str) -> Option<&ProxyUrl> {
        let uri = base_url.parse::<Uri>().ok()?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        if bypasses_proxy(&self.no_proxy, uri.host()?, port) {
            return None;
        }
        let own = if https { &self.https_proxy } else { &self.http_proxy };
        own.as_ref().or(self.all_proxy.as_ref()).or(self.http_proxy.as_ref())
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
        vec![
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
            entry("EMBEDDING_MODEL", or_none(self.embedding_model.clone())),
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
            entry("CACHE_KEEP_DAYS", self.cache_keep_days.map_or("all".into(), |d| d.to_string())),
        ]
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
        value => value,
    }
}

fn shown_backup(backup: &Backup) -> String {
    let key = backup.key.as_ref().map(|key| format!(", key {}", key.masked())).unwrap_or_default();
    format!("{} ({} at {}{key})", backup.name, backup.model, backup.base_url)
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
    complaints: Vec<Complaint>,
}

/// A setting that can't be used as it stands.
struct Complaint {
    name: String,
    /// What would be right.
    text: String,
    /// What counts instead is to be told.
    keeps_value: bool,
}

impl Reader<'_> {
    /// `range` says what would be right, in the words of a sentence that begins with "must be".
    fn read<T>(
        &mut self,
        name: &str,
        range: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        default: T,
        last_good: T,
    ) -> T {
        let Some(text) = self.sources.get(name) else {
            return default;
        };
        parse(&text).unwrap_or_else(|| {
            self.complain(name, range);
            last_good
        })
    }

    /// A list of models, of which those that can't be used are named and left out.
    fn read_models(&mut self, name: &str, range: &str, good: impl Fn(&String) -> bool) -> Vec<String> {
        let text = self.sources.get(name).unwrap_or_default();
        let (good, bad) = list(&text).map(str::to_owned).partition::<Vec<_>, _>(good);
        for model in bad {
            let text = either(
                format!("{name}: {model} is left out, as it must be {range}"),
                format!("{name}：已忽略 {model}，它必须是{range}"),
            );
            self.complaints.push(Complaint { name: name.to_owned(), text, keeps_value: false });
        }
        good
    }

    fn read_proxy(&mut self, name: &str, last_good: &Option<ProxyUrl>) -> Option<ProxyUrl> {
        let url = self.sources.get_proxy(name)?;
        let proxy = ProxyUrl::parse(&url);
        if proxy.is_none() {
            self.complain(
                name,
                either(
                    "an address such as http://127.0.0.1:7890 or socks5://user:password@host:1080",
                    "地址，例如 http://127.0.0.1:7890 或 socks5://user:password@host:1080",
                ),
            );
            return last_good.clone();
        }
        proxy
    }

    /// A backup that can't be asked as it stands.
    fn lack(&mut self, backup: &str, setting: &str) {
        let text = either(
            format!("{setting} is missing: the backup {backup} isn't asked without it"),
            format!("缺少 {setting}：没有它就不会使用备用服务 {backup}"),
        );
        self.complaints.push(Complaint { name: setting.to_owned(), text, keeps_value: false });
    }

    /// Names in the file that are no settings, but nearly.
    fn complain_of_names(&mut self, shown: &[Shown], lacks_key: bool) {
        let names =
            self.sources.file.iter().filter(|(name, _)| !shown.iter().any(|known| known.name == name));
        let own = |name: &str| {
            ["_BASE_URL", "_API_KEY", "_MODEL"].iter().any(|what| name.ends_with(what))
                && !name.starts_with("OPENROUTER_")
        };
        let mut complaints = Vec::new();
        for (name, value) in names {
            let holds_key = lacks_key && value.starts_with("sk-or-") && !is_placeholder(value);
            let meant = match holds_key {
                true => Some("OPENROUTER_API_KEY"),
                false if own(name) => None, // a backup's, listed or not
                false => shown.iter().map(|known| known.name).find(|known| is_meant(name, known)),
            };
            if let Some(meant) = meant {
                let text = either(
                    format!("{name} is no setting and isn't used: {meant} is one"),
                    format!("没有 {name} 这个设置，已忽略：应为 {meant}"),
                );
                complaints.push(Complaint { name: name.clone(), text, keeps_value: false });
            }
        }
        self.complaints.append(&mut complaints);
    }

    /// The value isn't repeated: it may be a secret in the wrong place.
    fn complain(&mut self, name: &str, range: &str) {
        let text = either(format!("{name} must be {range}"), format!("{name} 必须是{range}"));
        self.complaints.push(Complaint { name: name.to_owned(), text, keeps_value: true });
    }
}

fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn in_range(min: usize, max: usize) -> impl Fn(&str) -> Option<usize> {
    move |value| value.parse().ok().filter(|n| (min..=max).contains(n))
}

fn seconds(min: f64) -> impl Fn(&str) -> Option<Duration> {
    move |value| {
        let seconds = value.parse::<f64>().ok()?;
        (min..=86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|v| !v.is_empty())
}

/// A key goes into a header: visible ASCII only. People paste it with its `Bearer`.
fn parse_key(value: &str) -> Option<Secret> {
    let key = value.strip_prefix("Bearer ").unwrap_or(value).trim();
    let visible = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    visible.then(|| Secret(key.to_owned()))
}

/// Shorter ones are left to the upstream to judge: a script's `x` may be a key that somebody's own server takes.
const FILLER_CHARACTERS: usize = 4;

/// What stands in examples in a key's place.
fn is_placeholder(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let rest = key.strip_prefix("sk-or-v1-").or_else(|| key.strip_prefix("sk-or-")).unwrap_or(&key);
    let filler = rest.chars().count() >= FILLER_CHARACTERS && rest.chars().all(|c| "x*.…<>-_".contains(c));
    filler || key.ends_with("...") || key.ends_with('…') || key.contains("your") && key.contains("key")
}

/// Whether somebody who wrote `name` probably meant `known`: another case, a slip, a word too few, or a word too much
/// before it.
fn is_meant(name: &str, known: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let slips = if known.len() < 6 { 1 } else { 2 };
    let words = known.split('_').collect::<Vec<_>>();
    let fewer = name.split('_').count() > 1 && name.split('_').all(|word| words.contains(&word));
    let before = ["OPENROUTER_", "PROXY_", "LOCAL_API_PROXY_"];
    strsim::damerau_levenshtein(&name, known) <= slips
        || fewer
        || before.iter().any(|prefix| name.strip_prefix(prefix) == Some(known))
}

/// A host alone: an address of IPv6 has colons, a name has none.
fn parse_host(value: &str) -> Option<String> {
    let host = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    let is_name = !host.is_empty() && host.bytes().all(plain);
    let is_v6 = host.split('%').next().is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    (is_name || is_v6).then(|| host.to_owned())
}

/// `host` or `host:port`, whole.
fn is_authority(text: &str) -> bool {
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

fn parse_base_url(value: &str) -> Option<String> {
    let url = value.trim_end_matches('/');
    let url = url.strip_suffix("/chat/completions").unwrap_or(url);
    let uri = url.parse::<Uri>().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.query().is_none() && is_authority(uri.authority()?.as_str());
    (http && plain).then(|| url.to_owned())
}

fn parse_origins(value: &str) -> Option<Vec<String>> {
    list(value)
        .map(|origin| {
            let origin = origin.trim_end_matches('/').to_ascii_lowercase();
            let good = origin == "*"
                || origin.split_once("://").is_some_and(|(scheme, authority)| {
                    let app = !matches!(scheme, "http" | "https"); // extensions have ids, apps nothing
                    !scheme.is_empty() && (app || is_authority(authority))
                });
            good.then_some(origin)
        })
        .collect()
}

fn read_certificates(path: &Path) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let certificates = CertificateDer::pem_file_iter(path).ok()?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().ok()?;
    // The text around a certificate may be right, and what is in it none.
    let (good, _) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
    (good > 0).then(|| (path.to_owned(), certificates))
}

/// `NO_PROXY`: hosts (their subdomains too), `.domains`, `host:port`, `*`.
fn bypasses_proxy(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    list(no_proxy).any(|entry| {
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
pub(crate) mod tests_support {
    /// A key for tests elsewhere.
    pub(crate) fn secret(text: &str) -> super::Secret {
        super::Secret(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_over(text: &str, last_good: Option<&Settings>) -> (Settings, Vec<String>) {
        let (file, bad) = crate::settings::env_file::parse(text);
        assert!(bad.is_empty());
        let sources = Sources {
            file: &file,
            environment: &|name| (name == "http_proxy").then(|| "http://env:1".into()),
            args: &Args::default(),
            home: Path::new("/home/me"),
        };
        Settings::read(&sources, last_good)
    }

    fn read(text: &str) -> Settings {
        let (settings, complaints) = read_over(text, None);
        assert_eq!(complaints, Vec::<String>::new());
        settings
    }

    #[test]
    fn out_of_range_keeps_the_last_good_value() {
        let last_good = read("RETRIES=5\nMODEL=a/b:free\nUPSTREAM_TIMEOUT=7");
        let (settings, complaints) = read_over(
            "RETRIES=11\nMODEL=openai/gpt-4o\nUPSTREAM_TIMEOUT=never\nPORT=70000",
            Some(&last_good),
        );
        assert_eq!(settings.retries, 5);
        assert_eq!(settings.model, "a/b:free");
        assert_eq!(settings.upstream_timeout, Duration::from_secs(7));
        assert_eq!(settings.listen.port, 5000);
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        let (settings, _) = read_over("", Some(&last_good));
        assert_eq!(settings.retries, 2, "a setting taken away has its default again");
    }

    #[test]
    fn a_paid_model_doesnt_outlive_its_permission() {
        let paid = read("ALLOW_PAID_MODELS=true\nMODEL=openai/gpt-4o\nFALLBACK_MODELS=a/b,c/d:free");
        assert_eq!(paid.model, "openai/gpt-4o");
        let (settings, complaints) =
            read_over("MODEL=openai/gpt-4o\nFALLBACK_MODELS=a/b,c/d:free", Some(&paid));
        assert_eq!(settings.model, "openrouter/free");
        assert_eq!(settings.fallback_models, ["c/d:free"]);
        assert_eq!(complaints.len(), 2);
    }

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

    #[test]
    fn names_that_are_nearly_settings() {
        for (line, meant) in [
            ("RETRYS=3", "RETRIES"),
            ("retries=3", "RETRIES"),
            ("MODLE=a/b:free", "MODEL"),
            ("OPENROUTER_KEY=k", "OPENROUTER_API_KEY"),
            ("OPENROUTER_APIKEY=k", "OPENROUTER_API_KEY"),
            ("OPENROUTER_MODEL=a:free", "MODEL"),
            ("OPENAI_API_KEY=sk-or-v1-abcdef", "OPENROUTER_API_KEY"),
            ("PROXY_KEY=k", "PROXY_API_KEY"),
        ] {
            let (_, complaints) = read_over(line, None);
            assert_eq!(complaints.len(), 1, "{line}: {complaints:?}");
            assert!(complaints[0].ends_with(&format!(": {meant} is one")), "{complaints:?}");
            assert!(!complaints[0].contains("abcdef"));
        }
        for line in ["OPENAI_API_KEY=sk-abc", "GROQ_MODEL=x", "DATABASE_URL=x", "PATH=x", "USER=x", "LANG=x"]
        {
            assert_eq!(read_over(line, None).1, Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn a_placeholder_is_no_key() {
        for key in ["sk-or-v1-...", "sk-or-v1-xxxxxxxx", "your_key_here", "<your key>", "sk-or-v1-YOUR-KEY"] {
            let (settings, complaints) = read_over(&format!("OPENROUTER_API_KEY={key}"), None);
            assert!(settings.key.is_none(), "{key}");
            assert!(complaints[0].contains("your own key"), "{complaints:?}");
        }
        for key in ["sk-or-v1-0a1b2c", "sk-or-v1-x", "x", "sk-xxx-1"] {
            assert!(read(&format!("OPENROUTER_API_KEY={key}")).key.is_some(), "{key}");
        }
    }

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
    fn what_counts_instead_is_told() {
        let (_, complaints) =
            read_over("PORT=x\nHTTPS_PROXY=localhost:99999\nFALLBACK_MODELS=a:free,gpt-4o", None);
        let told = complaints.join("\n");
        assert!(
            told.contains("PORT must be a number from 0 to 65535; until then it counts as: 5000"),
            "{told}"
        );
        assert!(told.contains("HTTPS_PROXY must be") && told.contains("counts as: not set"), "{told}");
        assert!(told.contains("FALLBACK_MODELS: gpt-4o is left out"), "{told}");
        let good = read("PORT=7\nHTTPS_PROXY=http://h:1");
        let told = read_over("PORT=x\nHTTPS_PROXY=h:", Some(&good)).1.join("\n");
        assert!(told.contains("it stays as it was: 7") && told.contains("it stays as it was: h:1"), "{told}");
    }

    #[test]
    fn base_urls() {
        assert_eq!(read("OPENROUTER_BASE_URL=http://h:1/v1/").base_url, "http://h:1/v1");
        let full = read("OPENROUTER_BASE_URL=https://h/api/v1/chat/completions");
        assert_eq!(full.base_url, "https://h/api/v1");
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
