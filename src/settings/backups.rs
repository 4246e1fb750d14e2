//! Other OpenAI-compatible servers, which are asked when OpenRouter can't answer: `BACKUPS` and what belongs to each name.

use super::Secret;
use super::read::Reader;
use super::values::{is_placeholder, list, parse_base_url, parse_key};
use crate::dialect::model_name::BackupModels;
use crate::language::either;

/// Addresses of well-known names, and whether they want a key.
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

/// A server that is asked when OpenRouter can't answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// As in `BACKUPS`.
    pub name: String,
    /// `NAME_BASE_URL`, without a slash at its end.
    pub base_url: String,
    /// `NAME_API_KEY`.
    pub key: Option<Secret>,
    /// `NAME_MODEL`: those that clients may name, of which the first is the one that is asked otherwise.
    pub models: Vec<String>,
}

impl Backup {
    /// Its name and its models, as clients may name them.
    pub fn models(&self) -> BackupModels<'_> {
        (&self.name, &self.models)
    }

    /// The model that is asked where the client has named none of its own.
    pub fn model(&self) -> &str {
        self.models.first().map_or("", String::as_str)
    }
}

/// Reads them, in their order. One that lacks something is left out, and said.
pub(super) fn read(reader: &mut Reader<'_>, last_good: &[Backup]) -> Vec<Backup> {
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let names = reader.read_list(
        "BACKUPS",
        either("a name such as ollama or my-server", "名称，例如 ollama 或 my-server"),
        |name| Some(name.to_ascii_lowercase()).filter(|name| is_name(name)),
    );
    let mut backups = Vec::<Backup>::new();
    for name in names {
        if backups.iter().any(|backup| backup.name == name) {
            continue;
        }
        let last = last_good.iter().find(|backup| backup.name == name);
        backups.extend(read_one(reader, name, last));
    }
    backups
}

fn read_one(reader: &mut Reader<'_>, name: String, last: Option<&Backup>) -> Option<Backup> {
    let setting = |what: &str| format!("{}_{what}", name.to_ascii_uppercase().replace('-', "_"));
    let known = WELL_KNOWN.iter().find(|(known, ..)| *known == name);
    let base_url = reader.read(
        &setting("BASE_URL"),
        either("an address such as http://localhost:11434/v1", "地址，例如 http://localhost:11434/v1"),
        |v| parse_base_url(v).map(Some),
        known.map(|(_, url, _)| (*url).to_owned()),
        last.map(|backup| backup.base_url.clone()),
    );
    let key = reader.read(
        &setting("API_KEY"),
        either("the key as the server's owner shows it, without blanks", "服务商显示的密钥，不含空格"),
        |v| parse_key(v).filter(|_| !is_placeholder(v)).map(Some),
        None,
        last.and_then(|backup| backup.key.clone()),
    );
    let models = reader.read(
        &setting("MODEL"),
        either("a model's id, or several with commas", "模型的 id，多个以逗号分隔"),
        |v| Some(list(v).map(str::to_owned).collect::<Vec<_>>()).filter(|models| !models.is_empty()),
        Vec::new(),
        last.map(|backup| backup.models.clone()).unwrap_or_default(),
    );
    let needs_key = known.is_some_and(|(_, _, needs_key)| *needs_key);
    let missing = [
        (base_url.is_none(), "BASE_URL"),
        (models.is_empty(), "MODEL"),
        (needs_key && key.is_none(), "API_KEY"),
    ];
    if let Some((_, what)) = missing.into_iter().find(|(missing, _)| *missing) {
        reader.lack(&name, &setting(what));
        return None;
    }
    Some(Backup { name, base_url: base_url?, key, models })
}
