//! How the text of a setting is read and its value shown: one form for each kind of value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::sources::Reader;
use super::values::{
    Certificates, ProxyUrl, Secret, is_placeholder, list, parse_base_url, parse_host, parse_key,
    parse_origin, read_certificates,
};
use crate::dialect::free_models::{ROUTER, is_free};
use crate::dialect::model_name::{BEST, Mapping};
use crate::language::either;

/// Bytes of a MB, as `MAX_BODY_MB` counts them.
const MB_BYTES: u64 = 1 << 20;

/// What is shown for a setting that is not set: in English, which the panel translates, and in Chinese.
pub(super) const NOT_SET: [&str; 2] = ["not set", "未设置"];

/// How the values of a setting are read and shown.
pub(super) trait Form<T> {
    /// Parses a value; `None` if the text is invalid. Parts of it that can't be used are left out and reported.
    fn read(&self, name: &str, text: &str, reader: &mut Reader<'_>) -> Option<T>;

    /// Describes what is valid, as the end of a sentence that begins with "must be".
    fn range(&self, text: &str, reader: &Reader<'_>) -> String;

    /// Returns the value for people to read, secrets masked; empty if it is not set.
    fn show(&self, value: &T) -> String;

    /// Returns what is shown if the setting is not set, in both languages.
    fn unset(&self) -> [&'static str; 2] {
        NOT_SET
    }

    /// Returns whether a value that was valid before still is.
    fn is_still_good(&self, _value: &T, _reader: &Reader<'_>) -> bool {
        true
    }
}

/// A value that may be left out.
pub(super) struct Optional<F>(pub(super) F);

impl<T, F: Form<T>> Form<Option<T>> for Optional<F> {
    fn read(&self, name: &str, text: &str, reader: &mut Reader<'_>) -> Option<Option<T>> {
        if text.is_empty() { Some(None) } else { self.0.read(name, text, reader).map(Some) }
    }

    fn range(&self, text: &str, reader: &Reader<'_>) -> String {
        self.0.range(text, reader)
    }

    fn show(&self, value: &Option<T>) -> String {
        value.as_ref().map(|value| self.0.show(value)).unwrap_or_default()
    }

    fn unset(&self) -> [&'static str; 2] {
        self.0.unset()
    }

    fn is_still_good(&self, value: &Option<T>, reader: &Reader<'_>) -> bool {
        value.as_ref().is_none_or(|value| self.0.is_still_good(value, reader))
    }
}

/// Several values with commas between them; invalid ones are reported and left out.
pub(super) struct List<F>(pub(super) F);

impl<T, F: Form<T>> Form<Vec<T>> for List<F> {
    fn read(&self, name: &str, text: &str, reader: &mut Reader<'_>) -> Option<Vec<T>> {
        let mut good = Vec::new();
        for entry in list(text) {
            match self.0.read(name, entry, reader) {
                Some(entry) => good.push(entry),
                None => {
                    let range = self.0.range(entry, reader);
                    let text = either(
                        format!("{name}: {entry} is left out, as it must be {range}"),
                        format!("{name}：已忽略 {entry}，应为：{range}"),
                    );
                    reader.warn(name, text);
                }
            }
        }
        Some(good)
    }

    fn range(&self, text: &str, reader: &Reader<'_>) -> String {
        self.0.range(text, reader)
    }

    fn show(&self, value: &Vec<T>) -> String {
        value.iter().map(|entry| self.0.show(entry)).collect::<Vec<_>>().join(", ")
    }
}

/// Defines a form whose values depend on their text and the home folder alone.
macro_rules! form {
    ($(#[$doc:meta])* $name:ident: $type:ty, $read:expr, $show:expr, $english:literal, $chinese:literal) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Form<$type> for $name {
            fn read(&self, _: &str, text: &str, reader: &mut Reader<'_>) -> Option<$type> {
                let read: fn(&str, &Path) -> Option<$type> = $read;
                read(text, reader.home)
            }

            fn range(&self, _: &str, _: &Reader<'_>) -> String {
                either($english, $chinese).to_owned()
            }

            fn show(&self, value: &$type) -> String {
                let show: fn(&$type) -> String = $show;
                show(value)
            }
        }
    };
}

form!(
    /// A switch.
    Flag: bool,
    |text, _| match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    },
    bool::to_string,
    "true or false",
    "true 或 false"
);
form!(
    /// A text, taken as it is written.
    Text: String, |text, _| Some(text.to_owned()), String::clone, "a text", "文本"
);
form!(
    /// A folder; relative ones start from the home folder.
    Folder: Arc<Path>,
    // Joining the components again gives all separators the same form.
    |text, home| Some(home.join(text).components().collect::<PathBuf>().into()),
    |path| path.display().to_string(),
    "a folder",
    "一个文件夹"
);
form!(
    /// A host to listen on.
    Host: String, |text, _| parse_host(text), String::clone,
    "localhost, an IP address or a host name, without a port (that is PORT)",
    "localhost、IP 地址或主机名（端口用 PORT 设置）"
);
form!(
    /// The address of a server.
    BaseUrl: String, |text, _| parse_base_url(text), String::clone,
    "an address such as https://openrouter.ai/api/v1",
    "地址，例如 https://openrouter.ai/api/v1"
);
form!(
    /// A proxy toward the upstream.
    Proxy: ProxyUrl, |text, _| ProxyUrl::parse(text), ProxyUrl::address,
    "an address such as http://127.0.0.1:7890 or socks5://user:password@host:1080",
    "地址，例如 http://127.0.0.1:7890 或 socks5://user:password@host:1080"
);
form!(
    /// A file with certificates.
    PemFile: Certificates,
    |text, home| read_certificates(&home.join(text)),
    |certificates| certificates.path.display().to_string(),
    "a PEM file with certificates",
    "含有证书的 PEM 文件"
);
form!(
    /// The key that clients must send.
    ProxyKey: Secret, |text, _| parse_key(text), Secret::masked,
    "printable ASCII without blanks",
    "可打印的 ASCII 字符，不含空格"
);
form!(
    /// The origin of a web page.
    WebOrigin: String, |text, _| parse_origin(text), String::clone,
    "an origin such as https://app.example.com, or *",
    "来源，例如 https://app.example.com，或 *"
);

/// OpenRouter's key.
pub(super) struct Key;

impl Form<Secret> for Key {
    fn read(&self, _: &str, text: &str, _: &mut Reader<'_>) -> Option<Secret> {
        parse_key(text).filter(|_| !is_placeholder(text))
    }

    fn range(&self, text: &str, _: &Reader<'_>) -> String {
        if is_placeholder(text) {
            either(
                "your own key (free: https://openrouter.ai/keys), not the example",
                "你自己的密钥（免费申请：https://openrouter.ai/keys），而不是示例",
            )
        } else {
            either(
                "the key as OpenRouter shows it: letters, digits and signs of ASCII, no blanks",
                "OpenRouter 显示的密钥：只有英文字母、数字和符号，不含空格",
            )
        }
        .to_owned()
    }

    fn show(&self, value: &Secret) -> String {
        value.masked()
    }
}

/// A whole number between these two, both included.
pub(super) struct Number(pub(super) u32, pub(super) u32);

impl<T: TryFrom<u32> + ToString> Form<T> for Number {
    fn read(&self, _: &str, text: &str, _: &mut Reader<'_>) -> Option<T> {
        let number = text.parse().ok().filter(|number| (self.0..=self.1).contains(number))?;
        T::try_from(number).ok()
    }

    fn range(&self, _: &str, _: &Reader<'_>) -> String {
        let Self(min, max) = self;
        either(format!("a number from {min} to {max}"), format!("{min} 到 {max} 之间的数字"))
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// Days for which something is kept, from 1 to this number.
pub(super) struct Days(pub(super) u32);

impl Form<u32> for Days {
    fn read(&self, name: &str, text: &str, reader: &mut Reader<'_>) -> Option<u32> {
        Number(1, self.0).read(name, text, reader)
    }

    fn range(&self, _: &str, _: &Reader<'_>) -> String {
        let max = self.0;
        either(format!("a number of days from 1 to {max}"), format!("1 到 {max} 之间的天数"))
    }

    fn show(&self, value: &u32) -> String {
        value.to_string()
    }

    fn unset(&self) -> [&'static str; 2] {
        ["all", "全部保留"]
    }
}

/// Seconds, perhaps with a fraction, this number at least.
pub(super) struct Seconds(pub(super) f64);

/// The maximum: a day.
const MAX_SECONDS: f64 = 86_400.0;

impl Form<Duration> for Seconds {
    fn read(&self, _: &str, text: &str, _: &mut Reader<'_>) -> Option<Duration> {
        let seconds = text.parse().ok()?;
        (self.0..=MAX_SECONDS).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    }

    fn range(&self, _: &str, _: &Reader<'_>) -> String {
        let min = self.0;
        either(format!("seconds from {min} to {MAX_SECONDS}"), format!("{min} 到 {MAX_SECONDS} 之间的秒数"))
    }

    fn show(&self, value: &Duration) -> String {
        value.as_secs_f64().to_string()
    }
}

/// Minutes, from 0 to this number.
pub(super) struct Minutes(pub(super) u32);

impl Form<Duration> for Minutes {
    fn read(&self, name: &str, text: &str, reader: &mut Reader<'_>) -> Option<Duration> {
        let minutes: u32 = Number(0, self.0).read(name, text, reader)?;
        Some(Duration::from_secs(u64::from(minutes) * 60))
    }

    fn range(&self, _: &str, _: &Reader<'_>) -> String {
        let max = self.0;
        either(format!("minutes from 0 to {max}"), format!("0 到 {max} 之间的分钟数"))
    }

    fn show(&self, value: &Duration) -> String {
        (value.as_secs() / 60).to_string()
    }
}

/// MB from 1 to this number; the value is in bytes.
pub(super) struct Megabytes(pub(super) u32);

impl Form<u64> for Megabytes {
    fn read(&self, name: &str, text: &str, reader: &mut Reader<'_>) -> Option<u64> {
        let megabytes: u32 = Number(1, self.0).read(name, text, reader)?;
        Some(u64::from(megabytes) * MB_BYTES)
    }

    fn range(&self, text: &str, reader: &Reader<'_>) -> String {
        Form::<u32>::range(&Number(1, self.0), text, reader)
    }

    fn show(&self, value: &u64) -> String {
        (value / MB_BYTES).to_string()
    }
}

/// A model's id: a free one, unless paid ones are allowed.
#[derive(PartialEq)]
pub(super) enum Model {
    /// A model to chat with, or `best`.
    Default,
    /// A model to chat with.
    Chat,
    /// A model of a kind in which none stands in for another, with the kind's description in both languages.
    Named([&'static str; 2]),
}

impl Model {
    fn may_be(&self, id: &str, reader: &Reader<'_>) -> bool {
        match (self, id) {
            (Self::Default, BEST) => true,
            (Self::Named(_), ROUTER | BEST) => false,
            _ => reader.allow_paid || is_free(id),
        }
    }
}

impl Form<String> for Model {
    fn read(&self, _: &str, text: &str, reader: &mut Reader<'_>) -> Option<String> {
        self.may_be(text, reader).then(|| text.to_owned())
    }

    fn range(&self, _: &str, reader: &Reader<'_>) -> String {
        match (self, reader.allow_paid) {
            (Self::Named([english, chinese]), _) => either(
                format!(
                    "a model {english} and whose id ends in :free (ALLOW_PAID_MODELS=true lifts this)"
                ),
                format!("{chinese}且 id 以 :free 结尾的模型（ALLOW_PAID_MODELS=true 可解除限制）"),
            ),
            (_, true) => either("a model's id", "模型的 id").to_owned(),
            (Self::Default, false) => either(
                "openrouter/free, best, or a model whose id ends in :free (ALLOW_PAID_MODELS=true lifts this)",
                "openrouter/free、best 或 id 以 :free 结尾的模型（ALLOW_PAID_MODELS=true 可解除限制）",
            )
            .to_owned(),
            (Self::Chat, false) => either(
                "openrouter/free or a model whose id ends in :free (ALLOW_PAID_MODELS=true lifts this)",
                "openrouter/free 或 id 以 :free 结尾的模型（ALLOW_PAID_MODELS=true 可解除限制）",
            )
            .to_owned(),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    /// Once paid models are forbidden again, a paid one that was good before isn't any more.
    fn is_still_good(&self, value: &String, reader: &Reader<'_>) -> bool {
        self.may_be(value, reader)
    }
}

/// An entry of `MODEL_MAP`.
pub(super) struct ModelMapping;

impl Form<Mapping> for ModelMapping {
    fn read(&self, _: &str, text: &str, reader: &mut Reader<'_>) -> Option<Mapping> {
        let backups = reader.backups.iter().map(|backup| backup.models()).collect::<Vec<_>>();
        Mapping::parse(text, reader.allow_paid, &backups)
    }

    fn range(&self, _: &str, reader: &Reader<'_>) -> String {
        if reader.allow_paid {
            either("PATTERN=MODEL", "模式=模型")
        } else {
            either(
                "PATTERN=MODEL with a free model, best, or NAME/model of a backup (such as *haiku*=z-ai/glm-4.5-air:free)",
                "模式=模型，模型为免费模型、best 或备用服务的 NAME/model（例如 *haiku*=z-ai/glm-4.5-air:free）",
            )
        }
        .to_owned()
    }

    fn show(&self, value: &Mapping) -> String {
        value.to_string()
    }
}
