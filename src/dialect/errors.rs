//! Errors of upstreams, in whichever API's shape: what they say, which status they name, and where the account's limit
//! stands in them.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::json;

/// What is read aloud of an error's message.
const MAX_MESSAGE_CHARS: usize = 200;

/// The words that the APIs have for a status, as `type` or `code`:
/// <https://docs.anthropic.com/en/api/errors>, <https://openrouter.ai/docs/api/reference/errors-and-debugging>
const NAMED: [(&str, u16); 22] = [
    ("rate_limit_error", 429),
    ("rate_limit_exceeded", 429),
    ("too_many_requests", 429),
    ("overloaded_error", 529),
    ("api_error", 500),
    ("server_error", 500),
    ("internal_error", 500),
    ("timeout_error", 504),
    ("provider_unavailable", 503),
    ("server_is_overloaded", 503),
    ("invalid_request_error", 400),
    ("invalid_prompt", 400),
    ("invalid_request", 400),
    ("context_length_exceeded", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("insufficient_quota", 402),
    ("payment_required", 402),
    ("permission_error", 403),
    ("image_content_policy_violation", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
];

/// The error object of a body: `error`, or the `error` of its `response`.
pub fn object(body: &str) -> Option<String> {
    let fields = json::fields(body).ok()?;
    let error = |fields: &[json::Field<'_>]| {
        let value = json::field(fields, "error")?.value;
        (value != "null").then(|| value.to_owned())
    };
    error(&fields).or_else(|| error(&json::fields(json::field(&fields, "response")?.value).ok()?))
}

/// The status that an error object names by its number or by its words.
pub fn status(error: &str) -> Option<u16> {
    let fields = json::fields(error).ok()?;
    let value = |name: &str| {
        let value = json::field(&fields, name)?.value;
        Some(json::string(value).map_or_else(|| value.to_owned(), |text| text.into_owned()))
    };
    let named = [value("code"), value("type"), value("error_type")];
    let number = named.iter().flatten().find_map(|text| text.parse::<u16>().ok());
    let number = number.filter(|status| (400..600).contains(status));
    let word = || {
        named.iter().flatten().find_map(|text| NAMED.iter().find(|(word, _)| word == text).map(|(_, n)| *n))
    };
    number.or_else(word)
}

/// What an error object says, on one line.
pub fn message(error: &str) -> String {
    let fields = json::fields(error).unwrap_or_default();
    let message = json::field(&fields, "message").and_then(|field| json::string(field.value));
    let message = message.or_else(|| json::string(error)).unwrap_or_default();
    let mut printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut said = printable.by_ref().take(MAX_MESSAGE_CHARS).collect::<String>();
    if printable.next().is_some() {
        said.push('…');
    }
    said
}

/// An error object's `code`, a word or a number; its `type` where it has none.
pub fn code(error: &str) -> Option<String> {
    let fields = json::fields(error).ok()?;
    let value = |name: &str| {
        let value = json::field(&fields, name).filter(|field| field.value != "null")?.value;
        Some(json::string(value).map_or_else(|| value.to_owned(), |text| text.into_owned()))
    };
    value("code").or_else(|| value("type"))
}

/// Why a model can't serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTrouble {
    /// There is no such model, or nobody offers it any more.
    Gone,
    /// It lacks what the request needs.
    Unfit,
    /// The prompt is longer than its context.
    TooLong,
}

/// Whether an error says that the *model* can't serve this, so that another one might.
///
/// `error.availability.code` says it plainly where it stands; else the message does.
pub fn model_trouble(status: u16, body: &str) -> Option<ModelTrouble> {
    if !matches!(status, 400 | 404 | 413 | 422) {
        return None;
    }
    let body = serde_json::from_str::<Value>(body).ok()?;
    let error = ["/error", "/response/error"].iter().find_map(|path| body.pointer(path)).unwrap_or(&body);
    let availability = [&error["availability"], &body["availability"], &error["metadata"]["availability"]];
    let code = availability.iter().find_map(|availability| availability["code"].as_str());
    match code {
        Some(
            "free_variant_ended"
            | "no_endpoints"
            | "model_deprecated"
            | "model_not_found"
            | "model_unavailable_upstream",
        ) => return Some(ModelTrouble::Gone),
        Some("wrong_endpoint" | "privacy_restricted" | "constraint_filtered") => {
            return Some(ModelTrouble::Unfit);
        }
        _ => {}
    }
    let words = [&error["message"], &error["code"], &error["metadata"]["raw"]];
    let text =
        words.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let too_long = [
        "context length",
        "context window",
        "context_length",
        "maximum context",
        "too many tokens",
        "prompt is too long",
        "input is too long",
        "prompt too long",
        "token limit",
        "maximum prompt length",
    ];
    if says(&too_long) || (status == 413 && says(&["context", "token", "too long"])) {
        return Some(ModelTrouble::TooLong);
    }
    let capability = [
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
    let lacks =
        ["support", "not available", "no endpoints", "not enabled", "is not a multimodal", "not allowed"];
    if says(&capability) && says(&lacks) {
        return Some(ModelTrouble::Unfit);
    }
    if says(&["data policy", "guardrail", "allowed providers"]) {
        return Some(ModelTrouble::Unfit);
    }
    let gone = [
        "no endpoints",
        "not a valid model",
        "no such model",
        "model not found",
        "unknown model",
        "does not exist",
        "deprecated",
        "free period",
        "free variant",
        "unavailable for free",
        "no longer available",
        "model_not_found",
    ];
    says(&gone).then_some(ModelTrouble::Gone)
}

/// An account's limit as an upstream tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitNotice {
    /// When the next window begins.
    pub reset: SystemTime,
    /// Requests a window.
    pub per_window: Option<u32>,
}

/// Where a header's value comes from; names are lower case.
pub type Headers<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The limit that this error tells of, if it is the account's own.
///
/// `X-RateLimit-*` stand in the head, or in the body below `error.metadata.headers` or `metadata.headers`. Where there is
/// none, the message or `limit_source` of a 429 names the limit: a day's lasts until midnight UTC, a minute's until the
/// next full minute.
pub fn account_limit(status: u16, header: Headers<'_>, body: &str) -> Option<LimitNotice> {
    let body = match body.contains("imit") || body.contains("\\u") {
        true => serde_json::from_str::<Value>(body).unwrap_or_default(),
        false => Value::Null,
    };
    let now = SystemTime::now();
    let within = ["/error/metadata", "/metadata", "/response/error/metadata", "/response/metadata"];
    let metadata = within.map(|path| body.pointer(path).unwrap_or(&Value::Null));
    let number = |name: &str| {
        let in_body = metadata.iter().filter_map(|metadata| metadata["headers"].as_object());
        let in_body = in_body.flatten().find(|(n, _)| n.eq_ignore_ascii_case(name));
        let in_body =
            in_body.map(|(_, value)| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        header(name).or(in_body)?.trim().parse::<f64>().ok()
    };
    if let Some(remaining) = number("x-ratelimit-remaining") {
        let reset = number("x-ratelimit-reset")
            .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
            .filter(|reset| *reset > now);
        if remaining > 0.0 {
            return None;
        }
        if let Some(reset) = reset {
            return Some(LimitNotice { reset, per_window: number("x-ratelimit-limit").map(|n| n as u32) });
        }
    }
    let from_provider = metadata.iter().any(|metadata| !metadata["provider_code"].is_null());
    if status != 429 || from_provider {
        return None;
    }
    let source = metadata.iter().filter_map(|metadata| metadata["limit_source"].as_str());
    let message = ["/error/message", "/message", "/response/error/message", "/error"];
    let message = message.iter().filter_map(|path| body.pointer(path)?.as_str());
    let mut texts = source.chain(message).map(str::to_ascii_lowercase);
    texts.find_map(|text| {
        let names = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let window = if names(&["free-models-per-day", "free_tier_daily", "free_tier_per_day"]) {
            24 * 60 * 60
        } else if names(&["free-models-per-min", "free_tier_per_minute", "free_tier_minute"]) {
            60
        } else {
            return None;
        };
        let reset = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs((since / window + 1) * window))?;
        Some(LimitNotice { reset, per_window: None })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_header(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn errors_name_their_status() {
        for (error, expected) in [
            (r#"{"code":429,"message":"x"}"#, Some(429)),
            (r#"{"code":"503"}"#, Some(503)),
            (r#"{"code":"rate_limit_exceeded","message":"x"}"#, Some(429)),
            (r#"{"type":"overloaded_error"}"#, Some(529)),
            (r#"{"code":"server_error"}"#, Some(500)),
            (r#"{"code":null,"type":"not_found_error"}"#, Some(404)),
            (r#"{"code":"something"}"#, None),
            (r#""just text""#, None),
            (r#"{"code":200}"#, None),
        ] {
            assert_eq!(status(error), expected, "{error}");
        }
        assert_eq!(object(r#"{"response":{"error":{"code":"x"}}}"#).as_deref(), Some(r#"{"code":"x"}"#));
        assert_eq!(object(r#"{"error":null}"#), None);
    }

    fn in_ms(after: Duration) -> u128 {
        (SystemTime::now() + after).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
    }

    fn remaining(limit: Option<LimitNotice>) -> Option<u64> {
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
                let limit = account_limit(status, &no_header, &body);
                assert_eq!(limit.and_then(|limit| limit.per_window), Some(20), "{body}");
                assert!(remaining(limit) >= Some(38));
            }
            let past = body.replace(&ms.to_string(), "1000");
            assert!(account_limit(429, &no_header, &past).is_none() || past.contains("limit_source"));
            assert_eq!(
                account_limit(429, &no_header, &body.replace(r#""0""#, r#""3""#)),
                None,
                "some are left"
            );
        }
        let header = |name: &str| match name {
            "x-ratelimit-remaining" => Some("0".into()),
            "x-ratelimit-reset" => Some(ms.to_string()),
            _ => None,
        };
        assert!(account_limit(429, &header, "not JSON").is_some(), "in the head");
    }

    #[test]
    fn what_another_model_could_serve() {
        use ModelTrouble::{Gone, TooLong, Unfit};
        let error = |message: &str| format!(r#"{{"error":{{"code":404,"message":"{message}"}}}}"#);
        for (status, message, expected) in [
            (404, "No endpoints found for a/b:free.", Some(Gone)),
            (400, "a/b:free is not a valid model ID", Some(Gone)),
            (404, "No endpoints found that support tool use.", Some(Unfit)),
            (404, "No endpoints found that support image input", Some(Unfit)),
            (400, "This model does not support response_format json_schema", Some(Unfit)),
            (404, "No endpoints found matching your data policy", Some(Unfit)),
            (400, "This endpoint's maximum context length is 8192 tokens.", Some(TooLong)),
            (413, "The request has 9000 tokens, too many for this model", Some(TooLong)),
            (413, "Payload too large", None),
            (400, "messages: must not be empty", None),
            (404, "Nothing here", None),
            (401, "No such model", None),
        ] {
            assert_eq!(model_trouble(status, &error(message)), expected, "{message}");
        }
        let told =
            |code: &str| format!(r#"{{"error":{{"message":"x","availability":{{"code":"{code}"}}}}}}"#);
        assert_eq!(model_trouble(404, &told("free_variant_ended")), Some(Gone));
        assert_eq!(model_trouble(400, &told("wrong_endpoint")), Some(Unfit));
        assert_eq!(model_trouble(404, &told("something_new")), None);
    }

    #[test]
    fn a_limit_told_badly() {
        let body = |message: &str| format!(r#"{{"error":{{"code":429,"message":"{message}"}}}}"#);
        let day = "Rate limit exceeded: free-models-per-day-high-balance. ";
        assert!(remaining(account_limit(429, &no_header, &body(day))) <= Some(86_400));
        let minute = "Rate limit exceeded: free-models-per-min. ";
        assert!(remaining(account_limit(429, &no_header, &body(minute))) <= Some(60));
        let source = r#"{"error":{"code":"rate_limit_exceeded","message":"x"},"metadata":{"limit_source":"openrouter_free_tier_daily"}}"#;
        assert!(account_limit(429, &no_header, source).is_some());
        assert_eq!(account_limit(503, &no_header, &body(day)), None, "it is no 429");
        assert_eq!(account_limit(429, &no_header, &body("Provider returned error: rate limit")), None);
        let provider = format!(
            r#"{{"error":{{"code":429,"message":"{day}","metadata":{{"provider_code":429,"raw":"x"}}}}}}"#
        );
        assert_eq!(account_limit(429, &no_header, &provider), None, "a provider's");
    }
}
