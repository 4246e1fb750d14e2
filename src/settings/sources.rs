//! The places where values come from, and the complaints about values that can't be used.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use serde::Serialize;

use super::args::Args;
use super::backup::Backup;
use crate::language::either;

/// Settings that are commonly written in lower case, above all in the environment.
pub(super) const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Where a value in force comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The setting isn't written anywhere.
    #[default]
    Default,
    /// `.env`.
    File,
    /// The process environment.
    Environment,
    /// The command line.
    Flag,
    /// The written value can't be used: the last good value stays, or the default.
    Kept,
}

/// The places where the values come from.
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

/// A complaint about a setting that can't be used as it stands.
pub(super) struct Complaint {
    pub(super) name: String,
    /// The message, without what is used instead.
    pub(super) text: String,
    /// Whether the message is to say what is used instead.
    pub(super) keeps_value: bool,
}

/// The state while the settings are read: their sources, and what has been found so far.
pub(super) struct Reader<'a> {
    pub(super) home: &'a Path,
    pub(super) complaints: Vec<Complaint>,
    /// `ALLOW_PAID_MODELS`, once it has been read.
    pub(super) allow_paid: bool,
    /// `BACKUPS`, once they have been read; before that, those that were good last.
    pub(super) backups: Vec<Backup>,
    sources: &'a Sources<'a>,
    /// The settings of `.env` by name.
    file: HashMap<&'a str, &'a str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources<'a>, last_backups: &[Backup]) -> Self {
        Self {
            home: sources.home,
            complaints: Vec::new(),
            allow_paid: false,
            backups: last_backups.to_vec(),
            sources,
            file: sources.file.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }

    /// Returns what is written, and where. `.env` wins over the environment, also with an empty value. Empty means not
    /// set.
    pub(super) fn get(&self, name: &str) -> Option<(String, Origin)> {
        let lower = PROXIES.contains(&name).then(|| name.to_ascii_lowercase());
        let written = self.file.get(name).or_else(|| self.file.get(lower.as_deref()?));
        let (value, origin) = match written {
            Some(value) => ((*value).to_owned(), Origin::File),
            None => {
                // curl, and programs that follow it, use the lower-case name if both are set.
                let environment = self.sources.environment;
                let value = lower.as_deref().and_then(environment).or_else(|| environment(name))?;
                (value, Origin::Environment)
            }
        };
        Some((value.trim().to_owned(), origin)).filter(|(value, _)| !value.is_empty())
    }

    /// Reports an invalid value. The value isn't repeated, because it may be a secret in the wrong place.
    pub(super) fn complain(&mut self, name: &str, range: &str) {
        let text = either(format!("{name} must be {range}"), format!("{name} 应为：{range}"));
        self.complaints.push(Complaint { name: name.to_owned(), text, keeps_value: true });
    }

    /// Reports something that doesn't make the setting's value invalid.
    pub(super) fn warn(&mut self, name: &str, text: String) {
        self.complaints.push(Complaint { name: name.to_owned(), text, keeps_value: false });
    }

    /// Identifies a complaint: the same for the same problem, so that nobody has to read of it at every save of the
    /// file.
    pub(super) fn about(&self, complaint: &Complaint) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&complaint.name, &complaint.text, self.get(&complaint.name).map(|(value, _)| value))
            .hash(&mut hasher);
        hasher.finish()
    }
}
