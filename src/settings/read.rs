//! How the settings are read: what can't be used as it stands keeps its last good value, and is said.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use super::args::Args;
use super::backups::{self, Backup};
use super::values::{
    in_range, is_placeholder, list, parse_base_url, parse_bool, parse_host, parse_key, parse_origin,
    read_certificates, seconds,
};
use super::{Listen, MB_BYTES, ProxyUrl, Settings, Shown, in_words};
use crate::dialect::free_models;
use crate::dialect::model_name::{BEST, Mapping};
use crate::dialect::{Named, named_kinds};
use crate::language::either;

const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

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
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let in_file = self.file.iter().rev().find(|(n, _)| n == name);
        let value = match in_file {
            Some((_, value)) => Some(value.clone()),
            None => (self.environment)(name),
        };
        value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    /// Proxies are commonly set in lower case.
    fn get_proxy(&self, name: &str) -> Option<String> {
        let lower = name.to_ascii_lowercase();
        let stands = |name: &str| self.file.iter().any(|(n, _)| n == name);
        match (stands(name), stands(&lower)) {
            (true, _) => self.get(name),
            (false, true) => self.get(&lower),
            (false, false) => self.get(name).or_else(|| self.get(&lower)),
        }
    }
}

impl Settings {
    /// Reads every setting. One that can't be used as it stands keeps the value of `last_good`, or its default where this
    /// is the first time, and adds a sentence to the list.
    pub fn read(sources: &Sources<'_>, last_good: Option<&Settings>) -> (Settings, Vec<Warning>) {
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
        let default_model = |id: &String| good(id) || id == BEST;
        let last_model = Some(&last_good.model).filter(|id| default_model(id)).unwrap_or(&default.model);
        let named_range = either(
            "a model of that kind whose id ends in :free (ALLOW_PAID_MODELS=true lifts this)",
            "id 以 :free 结尾的该类模型（ALLOW_PAID_MODELS=true 可解除限制）",
        );
        let named_models = named_kinds().map(|Named { setting, .. }| {
            let fits = |id: &String| good(id) && id != free_models::ROUTER;
            let last = last_good.named_model(setting).map(str::to_owned).filter(fits);
            let read = |v: &str| Some(v.to_owned()).filter(fits).map(Some);
            (setting, r.read(setting, named_range, read, None, last))
        });
        let named_models = named_models.collect();

        let is_example = sources.get("OPENROUTER_API_KEY").is_some_and(|key| is_placeholder(&key));
        let key_range = match is_example {
            true => either(
                "your own key (free: https://openrouter.ai/keys), not the example",
                "你自己的密钥（免费申请：https://openrouter.ai/keys），而不是示例",
            ),
            false => either(
                "the key as OpenRouter shows it: letters, digits and signs of ASCII, no blanks",
                "OpenRouter 显示的密钥：只有英文字母、数字和符号，不含空格",
            ),
        };

        let backups = backups::read(r, &last_good.backups);
        let backup_models = backups.iter().map(Backup::models).collect::<Vec<_>>();
        let mapping_range = match allow_paid_models {
            true => either("PATTERN=MODEL", "模式=模型"),
            false => either(
                "PATTERN=MODEL with a free model, best, or NAME/model of a backup (such as *haiku*=z-ai/glm-4.5-air:free)",
                "模式=模型，模型为免费模型、best 或备用服务的 NAME/model（例如 *haiku*=z-ai/glm-4.5-air:free）",
            ),
        };
        let settings = Settings {
            listen: Listen {
                host: r.read(
                    "HOST",
                    either(
                        "localhost, an IP address or a host name, without a port (that is PORT)",
                        "localhost、IP 地址或主机名（端口用 PORT 设置）",
                    ),
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
                |v| Some(v.to_owned()).filter(default_model),
                default.model.clone(),
                last_model.clone(),
            ),
            fallback_models: r
                .read_list("FALLBACK_MODELS", model_range, |id| Some(id.to_owned()).filter(good)),
            named_models,
            allow_paid_models,
            base_url: r.read(
                "OPENROUTER_BASE_URL",
                either(
                    "an address such as https://openrouter.ai/api/v1",
                    "地址，例如 https://openrouter.ai/api/v1",
                ),
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
            allowed_origins: r.read_list(
                "ALLOWED_ORIGINS",
                either(
                    "an origin such as https://app.example.com, or *",
                    "来源，例如 https://app.example.com，或 *",
                ),
                parse_origin,
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
            model_map: r.read_list("MODEL_MAP", mapping_range, |entry| {
                Mapping::parse(entry, allow_paid_models, &backup_models)
            }),
            backups,
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
            let counts = counts.map(|shown| in_words(&shown.value)).filter(|_| complaint.keeps_value);
            let about = complaint.about(sources);
            let text = match (counts, is_first) {
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
            };
            Warning { text, about }
        });
        let told = told.collect();
        (settings, told)
    }
}

pub(super) struct Reader<'a> {
    pub(super) sources: &'a Sources<'a>,
    complaints: Vec<Complaint>,
}

/// What is said of a setting that can't be used as it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning {
    /// The sentence.
    pub text: String,
    /// The same as long as it is about the same: nobody wants to read it at every save of the file.
    pub about: u64,
}

/// A setting that can't be used as it stands.
struct Complaint {
    name: String,
    /// What would be right.
    text: String,
    /// What counts instead is to be told.
    keeps_value: bool,
}

impl Complaint {
    fn about(&self, sources: &Sources<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.name, &self.text, sources.get_proxy(&self.name)).hash(&mut hasher);
        hasher.finish()
    }
}

impl Reader<'_> {
    /// `range` says what would be right, in the words of a sentence that begins with "must be".
    pub(super) fn read<T>(
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

    /// A list, of which what can't be used is named and left out.
    pub(super) fn read_list<T>(
        &mut self,
        name: &str,
        range: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let text = self.sources.get(name).unwrap_or_default();
        let mut good = Vec::new();
        for entry in list(&text) {
            match parse(entry) {
                Some(entry) => good.push(entry),
                None => {
                    let text = either(
                        format!("{name}: {entry} is left out, as it must be {range}"),
                        format!("{name}：已忽略 {entry}，应为：{range}"),
                    );
                    self.complaints.push(Complaint { name: name.to_owned(), text, keeps_value: false });
                }
            }
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
    pub(super) fn lack(&mut self, backup: &str, setting: &str) {
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
        let is_proxy = |name: &str| PROXIES.iter().any(|proxy| name == proxy.to_ascii_lowercase());
        let own = |name: &str| {
            ["_BASE_URL", "_API_KEY", "_MODEL"].iter().any(|what| name.ends_with(what))
                && !name.starts_with("OPENROUTER_")
        };
        let mut complaints = Vec::new();
        for (name, value) in names {
            let holds_key = lacks_key && value.starts_with("sk-or-") && !is_placeholder(value);
            let meant = match holds_key {
                true => Some("OPENROUTER_API_KEY"),
                false if own(name) || is_proxy(name) => None, // a backup's, listed or not
                false => {
                    let meant = shown.iter().map(|known| known.name).filter(|known| is_meant(name, known));
                    let upper = name.to_ascii_uppercase();
                    meant.min_by_key(|known| strsim::damerau_levenshtein(&upper, known))
                }
            };
            if let Some(meant) = meant {
                let text = either(
                    format!("{name} is no setting and isn't used: {meant} is one"),
                    format!("没有 {name} 这个设置，已忽略：应为 {meant}"),
                );
                complaints.push(Complaint { name: name.clone(), text, keeps_value: false });
            }
        }
        for known in shown {
            let mut values =
                self.sources.file.iter().filter(|(name, _)| name == known.name).map(|(_, value)| value);
            let first = values.next();
            if values.any(|value| Some(value) != first) {
                let name = known.name;
                let text = either(
                    format!("{name} stands there more than once: the last one counts"),
                    format!("{name} 出现了不止一次：以最后一个为准"),
                );
                complaints.push(Complaint { name: name.to_owned(), text, keeps_value: false });
            }
        }
        self.complaints.append(&mut complaints);
    }

    /// The value isn't repeated: it may be a secret in the wrong place.
    pub(super) fn complain(&mut self, name: &str, range: &str) {
        let text = either(format!("{name} must be {range}"), format!("{name} 应为：{range}"));
        self.complaints.push(Complaint { name: name.to_owned(), text, keeps_value: true });
    }
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

#[cfg(test)]
pub(super) mod tests {
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
        let (settings, told) = Settings::read(&sources, last_good);
        (settings, told.into_iter().map(|told| told.text).collect())
    }

    pub(in super::super) fn read(text: &str) -> Settings {
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
    fn a_name_that_stands_twice_is_said() {
        let (settings, complaints) =
            read_over("OPENROUTER_API_KEY=sk-or-v1-0a1b2c\nOPENROUTER_API_KEY=", None);
        assert!(settings.key.is_none());
        assert_eq!(complaints, ["OPENROUTER_API_KEY stands there more than once: the last one counts"]);
        assert_eq!(read_over("RETRIES=1\nRETRIES=1", None).1, Vec::<String>::new());
    }

    #[test]
    fn proxies_may_be_written_as_in_the_environment() {
        let settings = read("https_proxy=http://h:1\nno_proxy=x");
        assert_eq!((settings.https_proxy.unwrap().address(), settings.no_proxy), ("h:1".into(), "x".into()));
        assert_eq!(read("https_proxy=http://h:1\nHTTPS_PROXY=").https_proxy, None);
        let told = read_over("Https_Proxy=x", None).1;
        assert!(told[0].ends_with(": HTTPS_PROXY is one"), "{told:?}");
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
    fn names_that_models_go_by() {
        let text = "MODEL=best\nMODEL_MAP=a*=best, b=groq/y/z:1\nBACKUPS=groq\nGROQ_API_KEY=gsk_123456\nGROQ_MODEL=x, y/z:1";
        let settings = read(text);
        assert_eq!(settings.backups[0].models, ["x", "y/z:1"]);
        assert_eq!(settings.backups[0].model(), "x");
        let names =
            |asked: &str| settings.rule(&settings.model).target(Some(asked), || None, true).to_string();
        assert_eq!(["ab", "b", "c", "groq/x"].map(names), ["best", "groq/y/z:1", "best", "groq/x"]);
        let (kept, complaints) = read_over("MODEL=bester\nMODEL_MAP=b=groq/x", Some(&settings));
        assert_eq!((kept.model.as_str(), kept.model_map.len()), ("best", 0));
        assert!(
            complaints[0].starts_with("MODEL must be ") && complaints[1].starts_with("MODEL_MAP: b=groq/x ")
        );
        let (_, complaints) = read_over("FALLBACK_MODELS=best", None);
        assert_eq!(complaints.len(), 1, "the others are tried in their order");
    }
}
