//! The settings of a backup, a server other than OpenRouter.

use super::values::Secret;
use crate::dialect::model_name::BackupModels;

/// A server that is asked when OpenRouter can't answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The name in `BACKUPS`.
    pub name: String,
    /// `NAME_BASE_URL`, without a slash at its end.
    pub base_url: String,
    /// `NAME_API_KEY`.
    pub key: Option<Secret>,
    /// `NAME_MODEL`: the models that clients may name, of which the first is asked if they name none.
    pub models: Vec<String>,
}

impl Backup {
    /// Returns the backup's name and models, as clients may name them.
    pub fn models(&self) -> BackupModels<'_> {
        (&self.name, &self.models)
    }

    /// Returns the model that is asked if the client has named none of the backup's.
    pub fn model(&self) -> &str {
        self.models.first().map_or("", String::as_str)
    }
}
