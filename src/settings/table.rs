//! Every setting, in one table: a line of it defines the setting's field, how it is read, its default, what the panel
//! shows and what messages say of it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::backups::{Backup, Backups};
use super::forms::{
    BaseUrl, Days, Flag, Folder, Form, Host, Key, List, Megabytes, Minutes, Model, ModelMapping, Number,
    Optional, PemFile, Proxy, ProxyKey, Seconds, Text, WebOrigin,
};
use super::sources::{Origin, Reader};
use super::values::{Certificates, ProxyUrl, Secret};
use crate::dialect::model_name::Mapping;

/// A setting.
pub struct Setting {
    /// The name in `.env`.
    pub name: &'static str,
    /// The default as it would be written in `.env`; empty if it is not set.
    pub default: &'static str,
    /// Whether a change takes effect only at the next start.
    pub needs_restart: bool,
    /// What the setting is for, in English and in Chinese.
    pub meaning: [&'static str; 2],
    /// Returns what is shown if the setting is not set, in both languages.
    pub(super) unset: fn() -> [&'static str; 2],
    /// Reads a text into the setting's field. Returns whether the text is valid.
    pub(super) read: fn(&str, &mut Settings, &mut Reader<'_>) -> bool,
    /// Describes what is valid.
    pub(super) range: fn(&str, &Reader<'_>) -> String,
    /// Takes the last good value over, if it is still valid. Returns whether it is.
    pub(super) keep: fn(&mut Settings, &Settings, &Reader<'_>) -> bool,
    /// Returns the value for people to read, secrets masked; empty if it is not set.
    pub(super) show: fn(&Settings) -> String,
    /// Returns whether both have the same value.
    pub(super) same: fn(&Settings, &Settings) -> bool,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! settings {
    (
        live { $($field:ident: $type:ty, $name:literal, $form:expr, $default:literal, $english:literal, $chinese:literal;)* }
        needs_restart { $($at:ident: $at_type:ty, $at_name:literal, $at_form:expr, $at_default:literal, $at_english:literal, $at_chinese:literal;)* }
    ) => {
        /// The settings that need a restart to change.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Listen {
            $(#[doc = concat!("`", $at_name, "`: ", $at_english, ".")] pub $at: $at_type,)*
        }

        /// The settings in force. Every value has been checked.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(rustdoc::bare_urls, reason = "the meanings are for consoles and the panel, which know no Markdown")]
        pub struct Settings {
            /// The settings that need a restart to change.
            pub listen: Listen,
            $(#[doc = concat!("`", $name, "`: ", $english, ".")] pub $field: $type,)*
            /// Whether the upstream's address is this proxy's own: then there is no upstream until that is corrected.
            pub upstream_is_itself: bool,
            /// Where the values come from, in the order of the table.
            pub origins: Vec<Origin>,
        }

        impl Settings {
            /// Returns settings without any value, for the table to fill.
            pub(super) fn blank() -> Self {
                Self {
                    listen: Listen { $($at: Default::default(),)* },
                    $($field: Default::default(),)*
                    upstream_is_itself: false,
                    origins: Vec::new(),
                }
            }
        }

        /// All settings. Those on which others depend (`ALLOW_PAID_MODELS`, `BACKUPS`) stand before these.
        pub static SETTINGS: &[Setting] = &[
            $(settings!(@line ($field) $type, $name, $form, $default, false, $english, $chinese),)*
            $(settings!(@line (listen.$at) $at_type, $at_name, $at_form, $at_default, true, $at_english, $at_chinese),)*
        ];
    };
    (@line ($($field:ident).+) $type:ty, $name:literal, $form:expr, $default:literal, $restart:literal, $english:literal, $chinese:literal) => {
        Setting {
            name: $name,
            default: $default,
            needs_restart: $restart,
            meaning: [$english, $chinese],
            unset: || Form::<$type>::unset(&$form),
            read: |text, settings, reader| match $form.read($name, text, reader) {
                Some(value) => { settings.$($field).+ = value; true }
                None => false,
            },
            range: |text, reader| Form::<$type>::range(&$form, text, reader),
            keep: |settings, last, reader| {
                let is_good = $form.is_still_good(&last.$($field).+, reader);
                if is_good { settings.$($field).+.clone_from(&last.$($field).+); }
                is_good
            },
            show: |settings| $form.show(&settings.$($field).+),
            same: |one, other| one.$($field).+ == other.$($field).+,
        }
    };
}

// One line each, which is easier to compare than what a formatter makes of it.
settings! {
    live {
        key: Option<Secret>, "OPENROUTER_API_KEY", Optional(Key), "", "your key, free from https://openrouter.ai/keys", "你的密钥，在 https://openrouter.ai/keys 免费申请";
        cache_dir: Option<Arc<Path>>, "CACHE_DIR", Optional(Folder), "", "folder for debug mode's files; unset: none are saved", "调试模式保存文件的文件夹；不设置则不保存";
        cache_keep_days: Option<u32>, "CACHE_KEEP_DAYS", Optional(Days(36_500)), "", "older debug files are removed", "删除早于此天数的调试文件";
        debug_mode: bool, "DEBUG_MODE", Flag, "false", "debug mode without the file DEBUG_MODE.txt", "不创建 DEBUG_MODE.txt 也打开调试模式";
        allow_paid_models: bool, "ALLOW_PAID_MODELS", Flag, "false", "lifts the free-model rule", "取消免费模型规则";
        backups: Vec<Backup>, "BACKUPS", Backups, "", "other servers, asked in their order when OpenRouter can't answer", "OpenRouter 无法回答时依次使用的其他服务器";
        model: String, "MODEL", Model::Default, "openrouter/free", "used when a request names no free model; best: the proxy chooses", "请求没有指定免费模型时使用；best 表示由代理挑选";
        fallback_models: Vec<String>, "FALLBACK_MODELS", List(Model::Chat), "", "free models to try after the asked one has failed", "所请求的模型失败后依次尝试的免费模型";
        model_map: Vec<Mapping>, "MODEL_MAP", List(ModelMapping), "", "what names of models that aren't free are replaced by, such as *haiku*=best", "把不免费的模型名替换成什么，例如 *haiku*=best";
        embedding_model: Option<String>, "EMBEDDING_MODEL", Optional(Model::Named(["that makes embeddings", "生成嵌入向量"])), "", "a free model for embeddings that name none", "没有指定模型的嵌入请求所用的免费模型";
        rerank_model: Option<String>, "RERANK_MODEL", Optional(Model::Named(["that ranks documents", "用于重排序"])), "", "a free model for reranking that names none", "没有指定模型的重排序请求所用的免费模型";
        speech_model: Option<String>, "SPEECH_MODEL", Optional(Model::Named(["that speaks", "用于语音合成"])), "", "a free model for speech that names none", "没有指定模型的语音请求所用的免费模型";
        sticky: Duration, "STICKY_MINUTES", Minutes(10_080), "30", "minutes for which a conversation keeps its model; 0: never", "一段对话保持同一个模型的分钟数；0 表示不保持";
        reuse: Duration, "REUSE_ANSWERS", Minutes(43_200), "0", "minutes for which the same request gets the same answer without a call; 0: never", "相同的请求在多少分钟内得到相同的回答而不消耗调用；0 表示不重用";
        retries: u32, "RETRIES", Number(0, 10), "2", "tries after a failed one", "失败后再试的次数";
        max_wait: Duration, "MAX_WAIT", Seconds(0.0), "65", "seconds that a request may wait for the account's limit; 0: never wait", "一个请求为账户限额最多等待的秒数；0 表示不等待";
        proxy_api_key: Option<Secret>, "PROXY_API_KEY", Optional(ProxyKey), "", "when set, clients must send it as their API key", "设置后，客户端必须把它作为 API 密钥发送";
        allowed_origins: Vec<String>, "ALLOWED_ORIGINS", List(WebOrigin), "", "further web pages that may call, or *", "另外允许调用的网页来源，或 *";
        base_url: String, "OPENROUTER_BASE_URL", BaseUrl, "https://openrouter.ai/api/v1", "any OpenAI-compatible server", "任何兼容 OpenAI 的服务器";
        http_proxy: Option<ProxyUrl>, "HTTP_PROXY", Optional(Proxy), "", "proxy toward the upstream, for https too where it stands alone", "访问上游的代理；单独设置时也用于 https";
        https_proxy: Option<ProxyUrl>, "HTTPS_PROXY", Optional(Proxy), "", "proxy toward an upstream of https", "访问 https 上游的代理";
        all_proxy: Option<ProxyUrl>, "ALL_PROXY", Optional(Proxy), "", "proxy toward any upstream", "访问任何上游的代理";
        no_proxy: String, "NO_PROXY", Text, "", "hosts that are reached without a proxy", "不经过代理的主机";
        ssl_cert_file: Option<Certificates>, "SSL_CERT_FILE", Optional(PemFile), "", "PEM file with further roots (a company's inspecting proxy)", "含有额外根证书的 PEM 文件（公司里会解密 HTTPS 的代理）";
        test_mode: bool, "TEST_MODE", Flag, "false", "the built-in model answers (--offline)", "由内置模型回答（--offline）";
        max_body_bytes: u64, "MAX_BODY_MB", Megabytes(1024), "64", "largest request, in MB", "请求的最大大小（MB）";
        upstream_timeout: Duration, "UPSTREAM_TIMEOUT", Seconds(0.1), "300", "seconds of silence that count as the upstream's end", "上游沉默多少秒视为中断";
    }
    needs_restart {
        host: String, "HOST", Host, "localhost", "the address to listen on", "监听的地址";
        port: u16, "PORT", Number(0, 65_535), "5000", "the port to listen on; 0: any free one", "监听的端口；0 表示任意空闲端口";
        workers: usize, "WORKERS", Number(1, 4096), "256", "requests that run at once", "同时处理的请求数";
        queue: usize, "QUEUE", Number(0, 100_000), "256", "requests that may wait for a worker", "可以排队等待的请求数";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a README's table of settings: names, defaults.
    fn rows(readme: &str, heading: &str) -> Vec<(String, String)> {
        let section = readme.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
        let cells = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells = line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
            let in_list = |cell: &str| {
                cell.split([',', '、'])
                    .map(|part| part.trim().trim_matches('`').to_owned())
                    .collect::<Vec<_>>()
            };
            (in_list(cells[0]), in_list(cells[1]))
        });
        let rows = cells.flat_map(|(names, defaults)| {
            let defaults = defaults.into_iter().chain(std::iter::repeat(String::new()));
            names.into_iter().zip(defaults).collect::<Vec<_>>()
        });
        rows.collect()
    }

    #[test]
    fn both_readmes_have_every_setting() {
        for (readme, heading, all) in [
            (include_str!("../../README.md"), "\n## Settings\n", "keep all"),
            (include_str!("../../README.zh-CN.md"), "\n## 设置\n", "全部保留"),
        ] {
            let rows = rows(readme, heading);
            for setting in SETTINGS {
                let row = rows.iter().find(|(name, _)| name == setting.name);
                let (_, default) = row.unwrap_or_else(|| panic!("{} isn't in{heading}", setting.name));
                let is_default =
                    default == setting.default || setting.name == "CACHE_KEEP_DAYS" && default == all;
                assert!(is_default, "the default of {} in{heading}", setting.name);
            }
            let is_known = |name: &str| name.starts_with("NAME_") || SETTINGS.iter().any(|s| s.name == name);
            for (name, _) in &rows {
                assert!(is_known(name), "{name} in{heading}");
            }
        }
    }

    #[test]
    fn the_example_has_settings_only() {
        for line in include_str!("../../.env.example").lines() {
            let Some((name, _)) = line.trim_start_matches('#').split_once('=') else { continue };
            if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                let of_a_backup = name.ends_with("_MODEL") || name.ends_with("_API_KEY");
                assert!(of_a_backup || SETTINGS.iter().any(|setting| setting.name == name), "{name}");
            }
        }
    }

    #[test]
    fn every_default_is_one() {
        let settings = Settings::default();
        for setting in SETTINGS {
            let shown = (setting.show)(&settings);
            assert_eq!(shown, setting.default, "{setting:?}");
        }
    }
}
