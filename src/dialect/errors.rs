//! Reads the errors of upstreams, each of them once, in whichever API's shape: what an error is about, and what it
//! says.
//!
//! OpenRouter's stable fields decide (`error_type`, `availability`, `limit_source`, `metadata`:
//! <https://openrouter.ai/docs/api/reference/errors-and-debugging>), then wordings that are known, then the status
//! alone.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::json;

/// The most characters of an error's message that are shown.
const MAX_MESSAGE_CHARS: usize = 200;
/// The longest pause that is believed, whatever an upstream says: a later time is nonsense.
const LONGEST_REST: Duration = Duration::from_secs(24 * 60 * 60);
/// A reset that is over by less than this was still ahead when the answer was sent.
const RESET_TOLERANCE: Duration = Duration::from_secs(5);
/// A clock that is off by less than this counts as right: a `Date` has whole seconds only.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * 60;

/// The status of each `error_type`, and of the words that other APIs and servers use as `type` or `code`:
/// <https://docs.anthropic.com/en/api/errors>
const NAMED: [(&str, u16); 42] = [
    ("authentication", 401),
    ("permission_denied", 403),
    ("payment_required", 402),
    ("rate_limit_exceeded", 429),
    ("provider_overloaded", 503),
    ("provider_unavailable", 502),
    ("timeout", 504),
    ("server", 500),
    ("unmapped", 500),
    ("context_length_exceeded", 400),
    ("max_tokens_exceeded", 400),
    ("token_limit_exceeded", 400),
    ("string_too_long", 400),
    ("invalid_request", 400),
    ("invalid_prompt", 400),
    ("content_policy_violation", 400),
    ("refusal", 400),
    ("invalid_image", 400),
    ("image_too_large", 400),
    ("image_too_small", 400),
    ("unsupported_image_format", 400),
    ("image_download_failed", 400),
    ("not_found", 404),
    ("image_not_found", 404),
    ("precondition_failed", 412),
    ("payload_too_large", 413),
    ("unprocessable", 422),
    ("rate_limit_error", 429),
    ("too_many_requests", 429),
    ("overloaded_error", 529),
    ("api_error", 500),
    ("server_error", 500),
    ("internal_error", 500),
    ("timeout_error", 504),
    ("server_is_overloaded", 503),
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("insufficient_quota", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
];

/// What an error is about, which decides what the proxy does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCause {
    /// The account's limit for free models is reached.
    AccountLimit(LimitNotice),
    /// The account, its key or its settings: another attempt doesn't change them.
    Account,
    /// The request: it fails everywhere.
    Request,
    /// The model that was asked: another model could serve the request.
    Model(ModelFault),
    /// The provider that served the model: another provider may accept the request.
    Provider,
    /// The moment: the same request may succeed soon.
    Moment,
    /// Nothing that the proxy knows.
    Unknown,
}

/// What is wrong with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFault {
    /// The model isn't there.
    Gone {
        /// Whether nothing says that this will pass: `availability.retryable` isn't true.
        for_good: bool,
    },
    /// The model can't do what this request needs.
    Unfit,
    /// The prompt is longer than the model's context.
    TooLong,
    /// The model or its providers are overloaded, or don't serve this region. The model isn't asked for this long, if
    /// the duration is known.
    Busy(Option<Duration>),
}

/// An account's limit as an upstream reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitNotice {
    /// When the next window begins, by the local clock.
    pub reset: SystemTime,
    /// Requests a minute, if it is the limit per minute and the error gives the number.
    pub per_window: Option<u32>,
}

/// An upstream's error, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What the error is about.
    pub about: ErrorCause,
    /// The status of the response; for an error in a 200 the one that the error names, else 502.
    pub status: u16,
    /// The error's message, on one line.
    pub message: String,
    /// How long the upstream wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the error comes from a provider, not from OpenRouter itself.
    pub is_the_providers: bool,
    /// The model that the error names, which may be the one that a router has picked.
    pub model: Option<String>,
}

/// Looks up a header field by its name in lower case.
pub type Headers<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Words for capabilities; together with those in `LACKS` they say that a model lacks one.
const CAPABILITIES: [&str; 9] = [
    "tool",
    "image",
    "vision",
    "multimodal",
    "modalit",
    "structured",
    "response_format",
    "json_schema",
    "function call",
];
const LACKS: [&str; 6] =
    ["support", "not available", "no endpoints", "not enabled", "is not a multimodal", "not allowed"];

/// How OpenRouter and its providers say that a prompt is too long.
const TOO_LONG: [&str; 14] = [
    "context_length_exceeded",
    "maximum context length",
    "maximum context",
    "context length",
    "context window",
    "available context size",
    "exceed context limit",
    "exceeds the maximum number of tokens allowed",
    "maximum prompt length",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "too many tokens",
    "token limit",
];

impl Diagnosis {
    /// Reads an error from the `status` of the response (below 400 if the error came in a success), its header fields,
    /// and its body or the event that holds the error.
    pub fn read(status: u16, header: Headers<'_>, text: &str) -> Self {
        let body = serde_json::from_str::<Value>(text).unwrap_or_default();
        Evidence::of(&body, status, header).diagnose()
    }

    /// Reads an error object that came in a success.
    pub fn of(error: &Value) -> Self {
        Evidence::of(error, 200, &|_| None).diagnose()
    }
}

/// The contents of an error, wherever its API puts them.
struct Evidence<'a> {
    body: &'a Value,
    error: &'a Value,
    header: Headers<'a>,
    status: u16,
}

impl<'a> Evidence<'a> {
    fn of(body: &'a Value, status: u16, header: Headers<'a>) -> Self {
        let places = ["/error", "/response/error", "/choices/0/error"];
        let found = places.into_iter().filter_map(|path| body.pointer(path)).find(|error| !error.is_null());
        let mut evidence = Self { body, error: found.unwrap_or(body), header, status };
        if status < 400 {
            evidence.status = evidence.named_status().unwrap_or(502);
        }
        evidence
    }

    /// Returns the values of a field that may stand beside the error, in it, or in its `metadata`.
    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        let holders =
            [self.error, &self.error["metadata"], self.body, &self.body["metadata"], &self.body["response"]];
        let more = [&self.body["response"]["metadata"], &self.body["openrouter_metadata"]];
        holders.into_iter().chain(more).map(move |holder| &holder[name]).filter(|value| !value.is_null())
    }

    fn text(&self, name: &'a str) -> Option<&'a str> {
        self.all(name).find_map(Value::as_str)
    }

    fn named_status(&self) -> Option<u16> {
        let number = |value: &Value| {
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
            u16::try_from(number).ok().filter(|status| (400..600).contains(status))
        };
        let word = |value: &Value| {
            let word = value.as_str()?;
            NAMED.iter().find(|(name, _)| *name == word).map(|(_, status)| *status)
        };
        let read = |value: &Value| number(value).or_else(|| word(value));
        let words = self.all("error_type").find_map(word);
        let code = || ["code", "http_status", "type"].iter().find_map(|name| read(&self.error[*name]));
        words.or_else(code).or_else(|| self.all("http_status").find_map(number))
    }

    fn diagnose(self) -> Diagnosis {
        let retry_after = self.retry_after();
        let is_the_providers = self.is_the_providers();
        let about = self.about(retry_after, is_the_providers);
        let (message, model) = (self.message(), self.model());
        Diagnosis { about, status: self.status, message, retry_after, is_the_providers, model }
    }

    fn about(&self, retry_after: Option<Duration>, is_the_providers: bool) -> ErrorCause {
        let said = self.said();
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if let Some(limit) = self.account_limit(&said, is_the_providers) {
            return ErrorCause::AccountLimit(limit);
        }
        let error_type = self.text("error_type").unwrap_or_default();
        match error_type {
            "authentication" | "payment_required" => return ErrorCause::Account,
            "content_policy_violation"
            | "refusal"
            | "string_too_long"
            | "invalid_image"
            | "image_too_large"
            | "image_too_small"
            | "unsupported_image_format"
            | "image_download_failed"
            | "image_not_found" => {
                return ErrorCause::Request;
            }
            "context_length_exceeded" | "max_tokens_exceeded" | "token_limit_exceeded" => {
                return ErrorCause::Model(ModelFault::TooLong);
            }
            _ => {}
        }
        if let Some(about) = self.availability(retry_after) {
            return about;
        }
        if self.status == 429 {
            let rest = retry_after.or_else(|| self.until_reset());
            return ErrorCause::Model(ModelFault::Busy(rest));
        }
        match error_type {
            "permission_denied" => return ErrorCause::Account,
            "provider_overloaded" | "provider_unavailable" | "timeout" | "server" | "unmapped" => {
                return ErrorCause::Moment;
            }
            _ => {}
        }
        if matches!(self.status, 400 | 404 | 413 | 422) {
            if says(&TOO_LONG) || (self.status == 413 && says(&["context", "token", "too long"])) {
                return ErrorCause::Model(ModelFault::TooLong);
            }
            if says(&["data policy", "guardrail", "allowed providers", "privacy settings"]) {
                return ErrorCause::Model(ModelFault::Unfit);
            }
            // Any provider may refuse, for reasons of its own, what the next one accepts.
            if is_the_providers {
                return ErrorCause::Provider;
            }
            if says(&CAPABILITIES) && says(&LACKS) {
                return ErrorCause::Model(ModelFault::Unfit);
            }
            if is_about_a_missing_model(&said) {
                return ErrorCause::Model(ModelFault::Gone { for_good: true });
            }
        }
        if self.status == 403 && says(&["region", "country", "territory"]) {
            return ErrorCause::Model(ModelFault::Busy(retry_after));
        }
        match self.status {
            401..=403 => ErrorCause::Account,
            400 | 422 => ErrorCause::Request,
            408 | 500 | 502..=599 => ErrorCause::Moment,
            _ => ErrorCause::Unknown,
        }
    }

    /// Returns what `error.availability` says, which is always about the model.
    fn availability(&self, retry_after: Option<Duration>) -> Option<ErrorCause> {
        let availability = self.all("availability").find(|value| value.is_object())?;
        let fault = match availability["code"].as_str()? {
            "model_not_found"
            | "no_endpoints"
            | "model_deprecated"
            | "model_unavailable_upstream"
            | "free_variant_ended" => ModelFault::Gone { for_good: availability["retryable"] != true },
            "wrong_endpoint" | "privacy_restricted" => ModelFault::Unfit,
            "constraint_filtered" => match availability["excluded_by"].as_str() {
                Some("geo" | "data_region") => ModelFault::Busy(retry_after),
                Some("context_length") => ModelFault::TooLong,
                _ => ModelFault::Unfit,
            },
            "region_restricted" | "capacity_exhausted" | "temporarily_unavailable" => {
                ModelFault::Busy(retry_after)
            }
            _ => return None,
        };
        Some(ErrorCause::Model(fault))
    }

    /// Whether the error names a provider, or has OpenRouter's words for a provider's refusal.
    fn is_the_providers(&self) -> bool {
        let named = self.all("provider_name").any(|name| name.as_str().is_some_and(|name| !name.is_empty()));
        let pool = self.text("limit_source").is_some_and(|source| source.starts_with("upstream_provider"));
        named
            || pool
            || self.all("provider_code").next().is_some()
            || self.error["message"].as_str().is_some_and(|said| said.starts_with("Provider returned error"))
    }

    /// Returns the model that the error is about: the only one in `requested_models`, or the one in the words about a
    /// limit.
    fn model(&self) -> Option<String> {
        let requested =
            self.all("availability").find_map(|availability| availability["requested_models"].as_array());
        if let Some([Value::String(only)]) = requested.map(Vec::as_slice) {
            return Some(only.clone());
        }
        let said = self.said();
        let (before, _) = said.split_once(" is temporarily rate-limited upstream").or_else(|| {
            let (_, after) = said.split_once("high demand for ")?;
            after.split_once(' ')
        })?;
        let name = before.rsplit(char::is_whitespace).next()?;
        name.contains('/').then(|| name.to_owned())
    }

    /// Returns all words of the error, in lower case.
    fn said(&self) -> String {
        let message = self.error["message"].as_str().or_else(|| self.error.as_str());
        let code = self.error["code"].as_str();
        let raw =
            self.all("raw").next().map(|raw| raw.as_str().map_or_else(|| raw.to_string(), str::to_owned));
        let words = message.into_iter().chain(code).chain(raw.as_deref());
        words.collect::<Vec<_>>().join(" ").to_lowercase()
    }

    fn message(&self) -> String {
        let message = self.error["message"].as_str().or_else(|| self.error.as_str());
        let message = message.or_else(|| self.body["message"].as_str()).unwrap_or_default();
        // The provider's own words say more than OpenRouter's.
        let raw = self.all("raw").next().filter(|_| message.starts_with("Provider returned error"));
        match raw.map(|raw| raw.as_str().map_or_else(|| raw.to_string(), str::to_owned)) {
            Some(raw) => one_line(&format!("{message}: {raw}")),
            None => one_line(message),
        }
    }

    /// Returns the account's limit if the error names it, or if it names no other limit and nothing is left of it.
    fn account_limit(&self, said: &str, is_the_providers: bool) -> Option<LimitNotice> {
        let source = self.text("limit_source").unwrap_or_default();
        let names = |words: &[&str]| words.iter().any(|word| said.contains(word) || source.contains(word));
        let is_a_days = names(&["free-models-per-day", "free_tier_daily", "free_tier_per_day"]);
        let is_a_minutes = names(&["free-models-per-min", "free_tier_per_minute", "free_tier_minute"]);
        let remaining = self.rate_limit("x-ratelimit-remaining");
        if remaining.is_some_and(|remaining| remaining > 0.0) {
            return None;
        }
        let is_named = is_a_days || is_a_minutes || source.contains("free_tier");
        let is_used_up = remaining.is_some() && !said.contains("limit_rpm/");
        let is_reached = is_used_up || (is_named && self.status == 429);
        if is_the_providers || !is_reached {
            return None;
        }
        // Without a credible time, assume the next window of the limit that is named.
        let left = self.until_reset().unwrap_or_else(|| {
            let since = self.date().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let window = if is_a_days { DAY } else { MINUTE };
            Duration::from_secs((since.as_secs() / window + 1) * window).saturating_sub(since)
        });
        let per_window = self.rate_limit("x-ratelimit-limit").filter(|n| *n >= 1.0).map(|n| n as u32);
        let per_window = per_window.filter(|_| !is_a_days);
        Some(LimitNotice { reset: SystemTime::now().checked_add(left)?, per_window })
    }

    /// Returns an `X-RateLimit-*` value from the header, or from the body's `metadata.headers`.
    fn rate_limit(&self, name: &str) -> Option<f64> {
        let in_body = self.all("headers").filter_map(Value::as_object).flatten();
        let in_body = in_body.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let in_body =
            in_body.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).next();
        (self.header)(name).or(in_body)?.trim().parse::<f64>().ok().filter(|number| number.is_finite())
    }

    /// Returns the time until `X-RateLimit-Reset` (ms since 1970) by the upstream's own clock.
    fn until_reset(&self) -> Option<Duration> {
        let since = Duration::try_from_secs_f64(self.rate_limit("x-ratelimit-reset")? / 1000.0).ok()?;
        match SystemTime::UNIX_EPOCH.checked_add(since)?.duration_since(self.date()) {
            Ok(left) => Some(left).filter(|left| *left <= LONGEST_REST),
            Err(over) => (over.duration() <= RESET_TOLERANCE).then_some(Duration::ZERO),
        }
    }

    /// Returns the time by the upstream's clock; clocks are wrong by hours where two systems share a machine.
    fn date(&self) -> SystemTime {
        let now = SystemTime::now();
        let date = (self.header)("date").and_then(|date| httpdate::parse_http_date(&date).ok());
        let off = |date: &SystemTime| {
            let apart = now.duration_since(*date).or_else(|_| date.duration_since(now)).unwrap_or_default();
            apart > CLOCK_TOLERANCE
        };
        date.filter(off).unwrap_or(now)
    }

    /// Returns how long to wait, from the header field (seconds or a date:
    /// [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)), from `availability`, or from a
    /// provider's `metadata`. Nonsense is ignored.
    fn retry_after(&self) -> Option<Duration> {
        let in_head = (self.header)("retry-after").and_then(|value| self.parse_retry_after(&value));
        let in_body = || {
            let availability = self.all("availability").map(|availability| &availability["retry_after"]);
            let beside = ["retry_after", "retry_after_seconds"].into_iter().flat_map(|name| self.all(name));
            let headers = self.all("headers").filter_map(Value::as_object).flatten();
            let headers =
                headers.filter(|(name, _)| name.eq_ignore_ascii_case("retry-after")).map(|(_, value)| value);
            availability.chain(beside).chain(headers).find_map(|value| match value {
                Value::Number(_) => bounded(value.as_f64()?),
                Value::String(text) => self.parse_retry_after(text),
                _ => None,
            })
        };
        in_head.or_else(in_body)
    }

    fn parse_retry_after(&self, value: &str) -> Option<Duration> {
        let value = value.trim();
        if let Ok(seconds) = value.parse::<f64>() {
            return bounded(seconds);
        }
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(self.date()).unwrap_or_default()).filter(|rest| *rest <= LONGEST_REST)
    }
}

fn bounded(seconds: f64) -> Option<Duration> {
    let seconds = if seconds < 0.0 { 0.0 } else { seconds };
    Duration::try_from_secs_f64(seconds).ok().filter(|rest| *rest <= LONGEST_REST)
}

/// Whether an error says that there is no such model. A picture, a tool or a parameter can also not exist or be
/// deprecated: "`temperature` is deprecated for this model" doesn't say that the model is gone.
fn is_about_a_missing_model(said: &str) -> bool {
    let plain = [
        "no endpoints",
        "not a valid model",
        "no such model",
        "model not found",
        "model_not_found",
        "unknown model",
        "free period",
        "free variant",
        "unavailable for free",
    ];
    if plain.iter().any(|words| said.contains(words)) {
        return true;
    }
    let missing = ["does not exist", "deprecated", "no longer available", "not found"];
    said.split(['.', '\n', ';']).any(|sentence| {
        let at = missing.iter().filter_map(|words| sentence.find(words)).min();
        let Some((before, after)) = at.map(|at| sentence.split_at(at)) else {
            return false;
        };
        let is_a_models = before.contains("model") || before.contains(":free");
        let others = ["image", "tool", "function", "file", "url", "parameter"];
        is_a_models
            && !after.starts_with("deprecated for")
            && !others.iter().any(|other| before.contains(other))
    })
}

fn one_line(text: &str) -> String {
    let mut printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut said = printable.by_ref().take(MAX_MESSAGE_CHARS).collect::<String>();
    if printable.next().is_some() {
        said.push('…');
    }
    said
}

/// Returns the error object of a body: `error`, or the `error` of its `response` or of its first choice, which may also
/// have ended with an error that nobody names.
pub fn object(body: &str) -> Option<String> {
    let fields = json::fields(body).ok()?;
    let error = |fields: &[json::Field<'_>]| {
        let value = json::field(fields, "error")?.value;
        (value != "null").then(|| value.to_owned())
    };
    let of_choice = || {
        let choices = json::elements(json::field(&fields, "choices")?.value)?;
        let choice = json::fields(choices.first()?).ok()?;
        let has_failed = json::field(&choice, "finish_reason").is_some_and(|f| f.value == "\"error\"");
        error(&choice).or_else(|| has_failed.then(|| CHOICE_ERROR.to_owned()))
    };
    let of_response = || error(&json::fields(json::field(&fields, "response")?.value).ok()?);
    error(&fields).or_else(of_response).or_else(of_choice)
}

/// The error of a choice that ended with an error without naming it.
pub const CHOICE_ERROR: &str = r#"{"code":502,"message":"The model ended with an error."}"#;

/// Returns what an upstream's error says, with the provider's own words where it has any; never nothing.
pub fn in_words(status: u16, body: &str) -> String {
    let own = object(body).map(|own| message(&own)).filter(|text| !text.is_empty());
    let said = own.map(|own| {
        let whole = Diagnosis::read(status, &|_| None, body).message;
        if whole.is_empty() { own } else { whole }
    });
    let said = said.unwrap_or_else(|| body.trim().to_owned());
    if said.is_empty() {
        format!("The upstream answered with status {status}, and without a word.")
    } else {
        said
    }
}

/// Returns the message of an error object, on one line.
pub fn message(error: &str) -> String {
    let fields = json::fields(error).unwrap_or_default();
    let message = json::field(&fields, "message").and_then(|field| json::string(field.value));
    one_line(&message.or_else(|| json::string(error)).unwrap_or_default())
}

/// Returns an error object's `code`, a word or a number; its `type` if it has no code.
pub fn code(error: &str) -> Option<String> {
    let fields = json::fields(error).ok()?;
    let value = |name: &str| {
        let value = json::field(&fields, name).filter(|field| field.value != "null")?.value;
        Some(json::string(value).map_or_else(|| value.to_owned(), |text| text.into_owned()))
    };
    value("code").or_else(|| value("type"))
}

/// Whether an error object is about a model.
pub fn names_a_model(error: &Value) -> bool {
    let said = ["message", "code", "param"].into_iter().filter_map(|name| error[name].as_str());
    said.map(str::to_ascii_lowercase).any(|said| said.contains("model"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModelFault::{Busy, Gone, TooLong, Unfit};

    fn no_header(_: &str) -> Option<String> {
        None
    }

    fn read(status: u16, body: &str) -> Diagnosis {
        Diagnosis::read(status, &no_header, body)
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    /// Returns the same error in the form of each API.
    fn in_each_api(error_type: &str, message: &str, more: &str) -> [String; 4] {
        [
            format!(
                r#"{{"error":{{"code":1,"message":"{message}","metadata":{{"error_type":"{error_type}"}}{more}}}}}"#
            ),
            format!(
                r#"{{"type":"error","error":{{"type":"x","message":"{message}","error_type":"{error_type}"{more}}}}}"#
            ),
            format!(
                r#"{{"error":{{"code":"server_error","message":"{message}"{more}}},"error_type":"{error_type}"}}"#
            ),
            format!(
                r#"{{"type":"response.failed","response":{{"status":"failed","error":{{"code":"server_error","message":"{message}"{more}}},"error_type":"{error_type}"}}}}"#
            ),
        ]
    }

    #[test]
    fn what_each_error_type_is_about() {
        for (error_type, status, about) in [
            ("authentication", 401, ErrorCause::Account),
            ("permission_denied", 403, ErrorCause::Account),
            ("payment_required", 402, ErrorCause::Account),
            ("rate_limit_exceeded", 429, ErrorCause::Model(Busy(None))),
            ("provider_overloaded", 503, ErrorCause::Moment),
            ("provider_unavailable", 502, ErrorCause::Moment),
            ("timeout", 504, ErrorCause::Moment),
            ("server", 500, ErrorCause::Moment),
            ("unmapped", 500, ErrorCause::Moment),
            ("context_length_exceeded", 400, ErrorCause::Model(TooLong)),
            ("max_tokens_exceeded", 400, ErrorCause::Model(TooLong)),
            ("token_limit_exceeded", 400, ErrorCause::Model(TooLong)),
            ("string_too_long", 400, ErrorCause::Request),
            ("invalid_request", 400, ErrorCause::Request),
            ("invalid_prompt", 400, ErrorCause::Request),
            ("content_policy_violation", 400, ErrorCause::Request),
            ("refusal", 400, ErrorCause::Request),
            ("invalid_image", 400, ErrorCause::Request),
            ("image_too_large", 400, ErrorCause::Request),
            ("image_too_small", 400, ErrorCause::Request),
            ("unsupported_image_format", 400, ErrorCause::Request),
            ("image_download_failed", 400, ErrorCause::Request),
            ("not_found", 404, ErrorCause::Unknown),
            ("image_not_found", 404, ErrorCause::Request),
            ("precondition_failed", 412, ErrorCause::Unknown),
            ("payload_too_large", 413, ErrorCause::Unknown),
            ("unprocessable", 422, ErrorCause::Request),
        ] {
            for body in in_each_api(error_type, "x", "") {
                let in_a_200 = read(200, &body);
                assert_eq!((in_a_200.status, in_a_200.about), (status, about), "{body}");
                assert_eq!(read(status, &body).about, about, "{body}");
            }
        }
    }

    #[test]
    fn what_each_availability_is_about() {
        for (code, status, more, about) in [
            ("model_not_found", 400, "", Gone { for_good: true }),
            ("no_endpoints", 404, "", Gone { for_good: true }),
            ("model_deprecated", 404, "", Gone { for_good: true }),
            ("model_unavailable_upstream", 404, r#","retryable":true"#, Gone { for_good: false }),
            ("free_variant_ended", 404, r#","fallback_models":["a/b"]"#, Gone { for_good: true }),
            ("wrong_endpoint", 400, "", Unfit),
            ("privacy_restricted", 404, "", Unfit),
            ("constraint_filtered", 404, r#","excluded_by":"geo""#, Busy(None)),
            ("constraint_filtered", 404, r#","excluded_by":"context_length""#, TooLong),
            ("constraint_filtered", 404, r#","excluded_by":"max_price""#, Unfit),
            ("capacity_exhausted", 429, r#","retry_after":7"#, Busy(seconds(7))),
            ("temporarily_unavailable", 503, r#","retryable":true"#, Busy(None)),
            ("region_restricted", 403, "", Busy(None)),
        ] {
            let availability = format!(r#","availability":{{"code":"{code}"{more}}}"#);
            for body in in_each_api("not_found", "No endpoints", &availability) {
                for status in [status, 200] {
                    assert_eq!(read(status, &body).about, ErrorCause::Model(about), "{body}");
                }
            }
        }
        let unknown = r#"{"error":{"message":"x","availability":{"code":"something_new"}}}"#;
        assert_eq!(read(404, unknown).about, ErrorCause::Unknown);
    }

    #[test]
    fn what_words_say() {
        let long = ErrorCause::Model(TooLong);
        for (status, message, about) in [
            (404, "No endpoints found for a/b:free.", ErrorCause::Model(Gone { for_good: true })),
            (400, "a/b:free is not a valid model ID", ErrorCause::Model(Gone { for_good: true })),
            (404, "The model `a/b:free` does not exist", ErrorCause::Model(Gone { for_good: true })),
            (404, "No endpoints found that support tool use.", ErrorCause::Model(Unfit)),
            (400, "This model does not support response_format json_schema", ErrorCause::Model(Unfit)),
            (404, "No endpoints found matching your data policy", ErrorCause::Model(Unfit)),
            (400, "This endpoint's maximum context length is 8192 tokens.", long),
            (400, "the request exceeds the available context size", long),
            (400, "input length and `max_tokens` exceed context limit", long),
            (400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", long),
            (400, "Your input exceeds the context window of this model", long),
            (413, "The request has 9000 tokens, too many for this model", long),
            (429, "maximum context length: tokens per minute", ErrorCause::Model(Busy(None))),
            (400, "`temperature` is deprecated for this model", ErrorCause::Request),
            (404, "The image at https://x/y.png does not exist", ErrorCause::Unknown),
            (400, "Tool `f` does not exist", ErrorCause::Request),
            (413, "Payload too large", ErrorCause::Unknown),
            (403, "Blocked by your guardrail", ErrorCause::Account),
            (403, "This model is not available in your region", ErrorCause::Model(Busy(None))),
        ] {
            let body = format!(r#"{{"error":{{"code":{status},"message":"{message}"}}}}"#);
            assert_eq!(read(status, &body).about, about, "{message}");
        }
    }

    #[test]
    fn a_providers_words_are_its_own() {
        let raw = r#""{\"error\":\"prompt is too long: 9 tokens\"}""#;
        for (status, metadata, about) in [
            (
                400,
                r#""provider_name":"P","raw":"Developer instruction is not enabled""#.to_owned(),
                ErrorCause::Provider,
            ),
            (404, r#""provider_name":"P","raw":"nothing here""#.to_owned(), ErrorCause::Provider),
            (413, r#""provider_name":"P""#.to_owned(), ErrorCause::Provider),
            (422, r#""raw":{"detail":"x"}"#.to_owned(), ErrorCause::Provider),
            (400, format!(r#""provider_name":"P","raw":{raw}"#), ErrorCause::Model(TooLong)),
            (
                400,
                r#""provider_name":"P","raw":{"error":{"message":"maximum context length is 8"}}"#.to_owned(),
                ErrorCause::Model(TooLong),
            ),
            (
                429,
                r#""provider_name":"P","raw":"temporarily rate-limited upstream""#.to_owned(),
                ErrorCause::Model(Busy(None)),
            ),
            (502, r#""provider_name":"P""#.to_owned(), ErrorCause::Moment),
        ] {
            for body in [
                format!(
                    r#"{{"error":{{"message":"Provider returned error","code":{status},"metadata":{{{metadata}}}}}}}"#
                ),
                format!(
                    r#"{{"error":{{"message":"Provider returned error","type":"x"}},"metadata":{{{metadata}}}}}"#
                ),
            ] {
                let diagnosis = read(status, &body);
                assert_eq!((diagnosis.about, diagnosis.is_the_providers), (about, true), "{body}");
            }
        }
        let raw = r#"{"error":{"message":"Provider returned error","metadata":{"raw":"why not"}}}"#;
        assert_eq!(read(400, raw).message, "Provider returned error: why not");
    }

    fn in_ms(after: Duration) -> u128 {
        (SystemTime::now() + after).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
    }

    fn limit(status: u16, header: Headers<'_>, body: &str) -> Option<LimitNotice> {
        match Diagnosis::read(status, header, body).about {
            ErrorCause::AccountLimit(limit) => Some(limit),
            _ => None,
        }
    }

    fn left(limit: Option<LimitNotice>) -> Option<u64> {
        Some(limit?.reset.duration_since(SystemTime::now()).unwrap().as_secs())
    }

    #[test]
    fn the_accounts_limit_in_each_shape() {
        let ms = in_ms(Duration::from_secs(40));
        let headers =
            format!(r#"{{"X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{ms}"}}"#);
        for body in [
            format!(r#"{{"error":{{"message":"x","code":429,"metadata":{{"headers":{headers}}}}}}}"#),
            format!(
                r#"{{"type":"error","error":{{"type":"rate_limit_error"}},"metadata":{{"headers":{headers}}}}}"#
            ),
            format!(
                r#"{{"error":{{"code":"rate_limit_exceeded"}},"metadata":{{"headers":{headers},"limit_source":"free_tier_per_minute"}}}}"#
            ),
        ] {
            for status in [429, 200, 503] {
                let limit = limit(status, &no_header, &body);
                assert_eq!(limit.and_then(|limit| limit.per_window), Some(20), "{body}");
                assert!(left(limit) >= Some(38));
            }
            assert_eq!(limit(429, &no_header, &body.replace(r#""0""#, r#""3""#)), None, "some are left");
            // Nonsense is ignored.
            for nonsense in ["1000".to_owned(), format!("{ms}000000"), "1e300".to_owned(), "soon".to_owned()]
            {
                let limit = limit(429, &no_header, &body.replace(&ms.to_string(), &nonsense));
                assert!(left(limit) <= Some(60), "{nonsense}: until the next full minute");
            }
        }
        let header = |name: &str| match name {
            "x-ratelimit-remaining" => Some("0".into()),
            "x-ratelimit-reset" => Some(ms.to_string()),
            _ => None,
        };
        assert!(limit(429, &header, "not JSON").is_some(), "in the head");
    }

    #[test]
    fn whose_limit_it_is() {
        let ms = in_ms(Duration::from_secs(20));
        let headers = format!(
            r#""headers":{{"X-RateLimit-Limit":"8","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{ms}"}}"#
        );
        let model = format!(
            r#"{{"error":{{"message":"Rate limit exceeded: limit_rpm/a/b/1-2. High demand for a/b:free on OpenRouter - limited to 8 requests per minute.","code":429,"metadata":{{{headers},"provider_name":null}}}}}}"#
        );
        let ErrorCause::Model(Busy(Some(rest))) = read(429, &model).about else {
            panic!("one model's limit isn't the account's");
        };
        assert!(rest > Duration::from_secs(15) && rest < Duration::from_secs(21));
        let provider = format!(
            r#"{{"error":{{"message":"Provider returned error","code":429,"metadata":{{{headers},"provider_name":"P"}}}}}}"#
        );
        assert!(matches!(read(429, &provider).about, ErrorCause::Model(Busy(_))));
        let pool = r#"{"error":{"message":"x","code":429,"metadata":{"limit_source":"upstream_provider_shared_pool"}}}"#;
        assert_eq!(read(429, pool).about, ErrorCause::Model(Busy(None)));
    }

    #[test]
    fn a_limit_told_badly() {
        let body = |message: &str| format!(r#"{{"error":{{"code":429,"message":"{message}"}}}}"#);
        let day = "Rate limit exceeded: free-models-per-day-high-balance. ";
        assert!(left(limit(429, &no_header, &body(day))) <= Some(86_400));
        let minute = "Rate limit exceeded: free-models-per-min. ";
        assert!(left(limit(429, &no_header, &body(minute))) <= Some(60));
        let source = r#"{"error":{"code":"rate_limit_exceeded","message":"x"},"metadata":{"limit_source":"openrouter_free_tier_daily"}}"#;
        assert!(limit(429, &no_header, source).is_some());
        assert_eq!(limit(503, &no_header, &body(day)), None, "it is no 429");
        assert_eq!(limit(429, &no_header, &body("Provider returned error: rate limit")), None);
    }

    #[test]
    fn a_reset_is_measured_by_the_upstreams_clock() {
        let two_hours = Duration::from_secs(7200);
        let date = httpdate::fmt_http_date(SystemTime::now() + two_hours);
        let ms = in_ms(two_hours + Duration::from_secs(30)).to_string();
        let header = |name: &str| match name {
            "date" => Some(date.clone()),
            "x-ratelimit-remaining" => Some("0".into()),
            "x-ratelimit-reset" => Some(ms.clone()),
            _ => None,
        };
        let left = left(limit(429, &header, ""));
        assert!(left >= Some(28) && left <= Some(31), "{left:?}");
    }
}
