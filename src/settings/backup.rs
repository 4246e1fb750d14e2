//! Another server than OpenRouter, checked.

use super::values::Secret;
use crate::dialect::model_name::BackupModels;

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
