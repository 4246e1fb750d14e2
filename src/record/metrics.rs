//! The figures of a call, as the panel and the debug files have them.

use std::borrow::Cow;
use std::time::Duration;

use crate::json::quoted;

/// One try of a call that failed and was followed by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTry {
    /// The model that was asked.
    pub model: String,
    /// What happened, in words.
    pub reason: String,
    /// When, from the beginning of the call.
    pub at: Duration,
}

/// The figures of a call.
#[derive(Debug, Clone, Default)]
pub struct CallMetrics {
    /// The API that it was asked in.
    pub dialect: Cow<'static, str>,
    /// Where clients ask for it.
    pub path: Cow<'static, str>,
    /// The backup that was asked last, if one was.
    pub backup: Option<String>,
    /// The answer is one of before, this old: no call was made.
    pub reused: Option<Duration>,
    /// HTTP status; 499 when the client left.
    pub status: u16,
    /// The model that the client named.
    pub asked: Option<String>,
    /// The model that answered, or was asked last.
    pub model: String,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// Tries that failed before the last.
    pub failed_tries: Vec<FailedTry>,
    /// Time spent waiting for the account's limit.
    pub waited: Duration,
    /// From the beginning to the first content.
    pub first_token: Option<Duration>,
    /// From the beginning to the end.
    pub total: Duration,
    /// Tokens of the request.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
    /// `code` of the error that it ended with.
    pub error_code: Option<String>,
}

impl CallMetrics {
    /// The fields of a JSON object; those that only an end brings are null before it.
    pub(super) fn json(&self, ended: bool) -> String {
        let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".into());
        let once_ended = |value: String| or_null(Some(value).filter(|_| ended));
        let ms = |d: Duration| ((d.as_secs_f64() * 10_000.0).round() / 10.0).to_string();
        format!(
            concat!(
                r#""status":{},"dialect":{},"path":{},"asked":{},"model":{},"backup":{},"reused":{},"stream":{},"waited_ms":{},"#,
                r#""first_token_ms":{},"total_ms":{},"prompt_tokens":{},"completion_tokens":{},"error_code":{}"#
            ),
            once_ended(self.status.to_string()),
            quoted(&self.dialect),
            quoted(&self.path),
            or_null(self.asked.as_deref().map(quoted)),
            once_ended(quoted(&self.model)),
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
}

/// The tries that failed, a JSON array.
pub(super) fn attempts_json(metrics: &CallMetrics) -> String {
    let tries = metrics.failed_tries.iter().map(|failed| {
        format!(
            r#"{{"model":{},"failed":{},"after_ms":{}}}"#,
            quoted(&failed.model),
            quoted(&failed.reason),
            failed.at.as_millis()
        )
    });
    format!("[{}]", tries.collect::<Vec<_>>().join(","))
}
