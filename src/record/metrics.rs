//! The figures of a call, as the panel and the debug files have them.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use crate::json::quoted;
use crate::record::changes::{Change, changes_json};

/// One attempt of a call that failed and was followed by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTry {
    /// The model that was asked.
    pub model: String,
    /// What happened, in words.
    pub reason: String,
    /// When it failed, from the beginning of the call.
    pub at: Duration,
    /// Until when the model isn't asked again because of this, if it rests.
    pub rests_until: Option<SystemTime>,
}

/// The figures of a call.
#[derive(Debug, Clone, Default)]
pub struct CallMetrics {
    /// The name of the tool that asked.
    pub tool: String,
    /// The first words of what was asked.
    pub first_words: String,
    /// How the request was changed on the way.
    pub changes: Vec<Change>,
    /// The API in which the client asked.
    pub dialect: Cow<'static, str>,
    /// The path at which clients find this route.
    pub path: Cow<'static, str>,
    /// The backup that was asked last, if one was.
    pub backup: Option<String>,
    /// The age of the answer, if it is a kept one: then no call was made.
    pub reused: Option<Duration>,
    /// HTTP status; 499 if the client left, or somebody cancelled the call.
    pub status: u16,
    /// The model that the client named.
    pub asked: Option<String>,
    /// The model that answered, or was asked last.
    pub model: String,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// Attempts that failed before the last.
    pub failed_tries: Vec<FailedTry>,
    /// Time spent waiting for the account's limit.
    pub waited: Duration,
    /// The time from the beginning to the first content.
    pub first_token: Option<Duration>,
    /// The time from the beginning to the end.
    pub total: Duration,
    /// Tokens of the request.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
    /// The `code` of the error with which it ended.
    pub error_code: Option<String>,
}

impl CallMetrics {
    /// Returns the fields of a JSON object; those that are known only at the end are null before it.
    pub(super) fn json(&self, ended: bool) -> String {
        let once_ended = |value: String| or_null(Some(value).filter(|_| ended));
        format!(
            concat!(
                r#""status":{},"tool":{},"first_words":{},"dialect":{},"path":{},"asked":{},"model":{},"backup":{},"reused":{},"stream":{},"#,
                r#""waited_ms":{},"first_token_ms":{},"total_ms":{},"prompt_tokens":{},"completion_tokens":{},"error_code":{}"#
            ),
            once_ended(self.status.to_string()),
            quoted(&self.tool),
            quoted(&self.first_words),
            quoted(&self.dialect),
            quoted(&self.path),
            or_null(self.asked.as_deref().map(quoted)),
            or_null(Some(&self.model).filter(|model| !model.is_empty()).map(|model| quoted(model))),
            or_null(self.backup.as_deref().map(quoted)),
            or_null(self.reused.map(|age| age.as_secs().to_string())),
            self.stream,
            ms(self.waited),
            or_null(self.first_token.map(ms)),
            once_ended(ms(self.total)),
            or_null(self.prompt_tokens.map(|n| n.to_string())),
            or_null(self.completion_tokens.map(|n| n.to_string())),
            or_null(self.error_code.as_deref().map(quoted)),
        )
    }

    /// Returns the object for the second file of a call: the same fields, and what is needed to read them again.
    pub(super) fn file_json(&self, begun_ms: i64, ended_ms: i64) -> String {
        let changes = changes_json(&self.changes);
        format!(r#"{{"begun_ms":{begun_ms},"ended_ms":{ended_ms},{},"changes":{changes}}}"#, self.json(true))
    }
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".into())
}

fn ms(duration: Duration) -> String {
    (tenths_of_ms(duration) / 10.0).to_string()
}

/// Rounds as if the time had been read from a file, so that a restart changes no figure.
pub(super) fn whole_ms(duration: Duration) -> u32 {
    (tenths_of_ms(duration) / 10.0) as u32
}

fn tenths_of_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round()
}

/// Returns milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// Returns the failed attempts as a JSON array.
pub(super) fn attempts_json(metrics: &CallMetrics) -> String {
    let tries = metrics.failed_tries.iter().map(|failed| {
        format!(
            r#"{{"model":{},"failed":{},"after_ms":{},"rests_until_ms":{}}}"#,
            quoted(&failed.model),
            quoted(&failed.reason),
            failed.at.as_millis(),
            or_null(failed.rests_until.map(|until| unix_ms(until).to_string())),
        )
    });
    format!("[{}]", tries.collect::<Vec<_>>().join(","))
}
