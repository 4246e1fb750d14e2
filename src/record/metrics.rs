//! The figures of a call, as the panel and the debug files have them.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::json;
use crate::language::Words;
use crate::record::changes::Change;

/// One attempt of a call that failed and was followed by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTry {
    /// The model that was asked.
    pub model: String,
    /// What happened, in words.
    pub reason: Words,
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
    /// Whether the last attempt is among them: no backup could answer.
    pub all_failed: bool,
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

/// The JSON form of [`CallMetrics`]; values that are known only at the end are null before it.
#[derive(Debug, Serialize)]
pub(super) struct MetricsJson<'a> {
    status: Option<u16>,
    tool: &'a str,
    first_words: &'a str,
    dialect: &'a str,
    path: &'a str,
    asked: Option<&'a str>,
    model: Option<&'a str>,
    backup: Option<&'a str>,
    reused: Option<u64>,
    stream: bool,
    attempts: usize,
    waited_ms: f64,
    first_token_ms: Option<f64>,
    total_ms: Option<f64>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    error_code: Option<&'a str>,
}

/// The object in the second file of a call, with what is needed to read the call again.
#[derive(Serialize)]
struct FileMetrics<'a> {
    begun_ms: i64,
    ended_ms: i64,
    #[serde(flatten)]
    metrics: MetricsJson<'a>,
    changes: &'a [Change],
}

/// The JSON form of [`FailedTry`].
#[derive(Debug, Serialize)]
pub(super) struct FailedTryJson<'a> {
    model: &'a str,
    failed: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_in_chinese: Option<&'a str>,
    after_ms: u64,
    rests_until_ms: Option<u64>,
}

impl CallMetrics {
    /// Returns how many attempts were made.
    pub fn attempts(&self) -> usize {
        self.failed_tries.len() + usize::from(!self.all_failed)
    }

    pub(super) fn json(&self, ended: bool) -> MetricsJson<'_> {
        MetricsJson {
            status: ended.then_some(self.status),
            tool: &self.tool,
            first_words: &self.first_words,
            dialect: &self.dialect,
            path: &self.path,
            asked: self.asked.as_deref(),
            model: Some(self.model.as_str()).filter(|model| !model.is_empty()),
            backup: self.backup.as_deref(),
            reused: self.reused.map(|age| age.as_secs()),
            stream: self.stream,
            attempts: self.attempts(),
            waited_ms: ms(self.waited),
            first_token_ms: self.first_token.map(ms),
            total_ms: ended.then_some(ms(self.total)),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            error_code: self.error_code.as_deref(),
        }
    }

    /// Returns the object for the second file of a call: the same fields, and what is needed to read them again.
    pub(super) fn file_json(&self, begun_ms: i64, ended_ms: i64) -> String {
        json::text(&FileMetrics { begun_ms, ended_ms, metrics: self.json(true), changes: &self.changes })
    }

    /// Returns the failed attempts.
    pub(super) fn tries_json(&self) -> Vec<FailedTryJson<'_>> {
        let tries = self.failed_tries.iter().map(|failed| FailedTryJson {
            model: &failed.model,
            failed: &failed.reason.english,
            failed_in_chinese: failed.reason.only_chinese(),
            after_ms: failed.at.as_millis() as u64,
            rests_until_ms: failed.rests_until.map(unix_ms),
        });
        tries.collect()
    }
}

/// Converts to milliseconds with one decimal.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Rounds as if the time had been read from a file, so that a restart changes no figure.
pub(super) fn whole_ms(duration: Duration) -> u32 {
    ms(duration) as u32
}

/// Returns milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
