//! Other OpenAI-compatible servers, which are asked when OpenRouter can't answer: `BACKUPS` and what belongs to each name.

pub use super::backup::Backup;
use super::forms::{Form, List};
use super::sources::Reader;
use super::values::{is_placeholder, list, parse_base_url, parse_key};
use crate::language::either;

/// Well-known servers: name, address, and whether they want a key.
const WELL_KNOWN: [(&str, &str, bool); 10] = [
    ("ollama", "http://localhost:11434/v1", false),
    ("lmstudio", "http://localhost:1234/v1", false),
    ("llamacpp", "http://localhost:8080/v1", false),
    ("groq", "https://api.groq.com/openai/v1", true),
    ("cerebras", "https://api.cerebras.ai/v1", true),
    ("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", true),
    ("mistral", "https://api.mistral.ai/v1", true),
    ("github", "https://models.github.ai/inference", true),
    ("nvidia", "https://integrate.api.nvidia.com/v1", true),
    ("sambanova", "https://api.sambanova.ai/v1", true),
];

/// `BACKUPS`, and what belongs to each of its names.
pub(super) struct Backups;

impl Form<Vec<Backup>> for Backups {
    /// Reads the backups in their order. One that lacks something is left out and reported.
    fn read(&self, setting: &str, text: &str, reader: &mut Reader<'_>) -> Option<Vec<Backup>> {
        let names: Vec<String> = List(Name).read(setting, text, reader)?;
        let last_good = std::mem::take(&mut reader.backups);
        let mut backups = Vec::<Backup>::new();
        for name in names {
            if backups.iter().any(|backup| backup.name == name) {
                continue;
            }
            let last = last_good.iter().find(|backup| backup.name == name);
            backups.extend(read_one(reader, name, last));
        }
        if backups.is_empty() && text.is_empty() {
            hint_at_keys(reader);
        }
        reader.backups.clone_from(&backups);
        Some(backups)
    }

    fn range(&self, text: &str, reader: &Reader<'_>) -> String {
        Name.range(text, reader)
    }

    fn show(&self, value: &Vec<Backup>) -> String {
        let shown = value.iter().map(|backup| {
            let key = backup.key.as_ref().map(|key| format!(", key {}", key.masked())).unwrap_or_default();
            format!("{} ({} at {}{key})", backup.name, backup.models.join(", "), backup.base_url)
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

struct Name;

impl Form<String> for Name {
    fn read(&self, _: &str, text: &str, _: &mut Reader<'_>) -> Option<String> {
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        Some(text.to_ascii_lowercase()).filter(|name| is_name(name))
    }

    fn range(&self, _: &str, _: &Reader<'_>) -> String {
        either("a name such as ollama or my-server", "名称，例如 ollama 或 my-server").to_owned()
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// Reads a setting of one backup. If it can't be used, the last good value stays.
fn read_part<T>(
    reader: &mut Reader<'_>,
    setting: &str,
    range: &str,
    parse: impl FnOnce(&str) -> Option<T>,
    last_good: Option<T>,
) -> Option<T> {
    let (text, _) = reader.get(setting)?;
    parse(&text).or_else(|| {
        reader.complain(setting, range);
        last_good
    })
}

fn read_one(reader: &mut Reader<'_>, name: String, last: Option<&Backup>) -> Option<Backup> {
    let setting = |what: &str| format!("{}_{what}", name.to_ascii_uppercase().replace('-', "_"));
    let known = WELL_KNOWN.iter().find(|(known, ..)| *known == name);
    let written = reader.get(&setting("BASE_URL")).is_some();
    let base_url = read_part(
        reader,
        &setting("BASE_URL"),
        either("an address such as http://localhost:11434/v1", "地址，例如 http://localhost:11434/v1"),
        parse_base_url,
        last.map(|backup| backup.base_url.clone()),
    );
    let base_url = base_url.or_else(|| known.filter(|_| !written).map(|(_, url, _)| (*url).to_owned()));
    let key = read_part(
        reader,
        &setting("API_KEY"),
        either("the key as the server's owner shows it, without blanks", "服务商显示的密钥，不含空格"),
        |text| parse_key(text).filter(|_| !is_placeholder(text)),
        last.and_then(|backup| backup.key.clone()),
    );
    let models = read_part(
        reader,
        &setting("MODEL"),
        either("a model's id, or several with commas", "模型的 id，多个以逗号分隔"),
        |text| Some(list(text).map(str::to_owned).collect::<Vec<_>>()).filter(|models| !models.is_empty()),
        last.map(|backup| backup.models.clone()),
    );
    let needs_key = known.is_some_and(|(_, _, needs_key)| *needs_key);
    let missing = [
        (base_url.is_none(), "BASE_URL"),
        (models.is_none(), "MODEL"),
        (needs_key && key.is_none(), "API_KEY"),
    ];
    if let Some((_, what)) = missing.into_iter().find(|(missing, _)| *missing) {
        let setting = setting(what);
        let text = either(
            format!("{setting} is missing: the backup {name} isn't asked without it"),
            format!("缺少 {setting}：没有它就不会使用备用服务 {name}"),
        );
        reader.warn(&setting, text);
        return None;
    }
    Some(Backup { name, base_url: base_url?, key, models: models? })
}

/// Reports keys of known servers that aren't used, because a key does nothing by itself.
fn hint_at_keys(reader: &mut Reader<'_>) {
    for (name, ..) in WELL_KNOWN.iter().filter(|(.., needs_key)| *needs_key) {
        let upper = name.to_ascii_uppercase();
        let setting = format!("{upper}_API_KEY");
        if reader.get(&setting).is_some() {
            let text = either(
                format!(
                    "{setting} isn't used yet: write BACKUPS={name} and {upper}_MODEL=... to have {name} asked when OpenRouter can't answer"
                ),
                format!(
                    "{setting} 尚未使用：写上 BACKUPS={name} 和 {upper}_MODEL=...，OpenRouter 无法回答时就会使用 {name}"
                ),
            );
            reader.warn(&setting, text);
        }
    }
}
