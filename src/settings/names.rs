//! Finds names in `.env` that are not settings, but nearly.

use std::collections::HashMap;

use super::sources::{PROXIES, Reader};
use super::table::SETTINGS;
use super::values::is_placeholder;
use crate::language::either;

/// Names that people know from other programs, and the settings that they mean.
const ALIASES: [(&str, &str); 8] = [
    ("DEBUG", "DEBUG_MODE"),
    ("RETRY", "RETRIES"),
    ("TIMEOUT", "UPSTREAM_TIMEOUT"),
    ("PROXY", "HTTPS_PROXY"),
    ("CACHE", "CACHE_DIR"),
    ("CORS_ORIGINS", "ALLOWED_ORIGINS"),
    ("OPENAI_BASE_URL", "OPENROUTER_BASE_URL"),
    ("OPENAI_API_BASE", "OPENROUTER_BASE_URL"),
];
/// How many hints are given: more of them are no slips, but another program's file.
const MAX_HINTS: usize = 20;
/// How many strange names are looked at: a file of settings has no more.
const MAX_STRANGE: usize = 1000;
/// A longer name isn't looked at: no setting's name is nearly as long.
const MAX_NAME: usize = 40;

/// Reports names that probably mean a setting, and settings that have two different values.
pub(super) fn hint(file: &[(String, String)], lacks_key: bool, reader: &mut Reader<'_>) {
    let mut first_values = HashMap::new();
    let mut hints = Vec::new();
    let mut strange = 0;
    for (name, value) in file {
        let first = *first_values.entry(name.as_str()).or_insert(value);
        let is_setting = SETTINGS.iter().any(|setting| setting.name == name);
        let text = if is_setting {
            (first != value).then(|| {
                either(
                    format!("{name} stands there more than once: the last one counts"),
                    format!("{name} 出现了不止一次：以最后一个为准"),
                )
            })
        } else if strange == MAX_STRANGE {
            None
        } else {
            strange += 1;
            meant(name, value, lacks_key, reader).map(|meant| {
                either(
                    format!("{name} is no setting and isn't used: {meant} is one"),
                    format!("没有 {name} 这个设置，已忽略：应为 {meant}"),
                )
            })
        };
        if let Some(text) = text
            && !hints.iter().any(|(_, known)| *known == text)
        {
            hints.push((name, text));
        }
        if hints.len() >= MAX_HINTS {
            break;
        }
    }
    for (name, text) in hints {
        reader.warn(name, text);
    }
}

/// Returns the setting that was probably meant.
fn meant(name: &str, value: &str, lacks_key: bool, reader: &Reader<'_>) -> Option<&'static str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let upper = name.to_ascii_uppercase().replace('-', "_");
    let is_backups = reader.backups.iter().any(|backup| {
        let prefix = format!("{}_", backup.name.to_ascii_uppercase().replace('-', "_"));
        upper.starts_with(&prefix)
    });
    let holds_key = value.starts_with(if lacks_key { "sk-or-" } else { "sk-or-v1-" }) && lacks_key
        || upper == "OPENAI_API_KEY" && value.starts_with("sk-");
    if holds_key && !is_backups && !is_placeholder(value) {
        return Some("OPENROUTER_API_KEY");
    }
    if let Some((_, meant)) = ALIASES.iter().find(|(alias, _)| *alias == upper) {
        return Some(meant);
    }
    // The name is a backup's, whether it is listed in `BACKUPS` or not.
    let of_a_backup = ["_BASE_URL", "_API_KEY", "_MODEL"].iter().any(|what| name.ends_with(what))
        && !name.starts_with("OPENROUTER_");
    if is_backups || of_a_backup || PROXIES.iter().any(|proxy| name == proxy.to_ascii_lowercase()) {
        return None;
    }
    let nearly = SETTINGS.iter().map(|setting| setting.name).filter(|known| is_meant(&upper, known));
    nearly.min_by_key(|known| strsim::damerau_levenshtein(&upper, known))
}

/// Returns whether somebody who wrote `name` (here in upper case) probably meant `known`: with a slip, with a word too
/// few, or with a word too much before it.
fn is_meant(name: &str, known: &str) -> bool {
    let slips = if known.len() < 6 { 1 } else { 2 };
    let words = known.split('_').collect::<Vec<_>>();
    let fewer = name.split('_').count() > 1 && name.split('_').all(|word| words.contains(&word));
    let before = ["OPENROUTER_", "PROXY_", "LOCAL_API_PROXY_"];
    name.len().abs_diff(known.len()) <= slips && strsim::damerau_levenshtein(name, known) <= slips
        || fewer
        || before.iter().any(|prefix| name.strip_prefix(prefix) == Some(known))
}
