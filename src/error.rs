//! Errors of the proxy's own, in the shape that every OpenAI SDK understands:
//! <https://platform.openai.com/docs/guides/error-codes>

use crate::json;

/// An error response: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Machine-readable code, one for each case of the contract.
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// Header fields that belong to it.
    pub headers: Vec<(&'static str, String)>,
}

impl ApiError {
    /// An error of this status and code.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// The same with `Retry-After: seconds`.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with("retry-after", seconds.to_string())
    }

    /// The same with one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// OpenAI's `type` for this status.
    pub fn kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// `{"message": …, "type": …, "param": null, "code": …}`
    pub fn object(&self) -> String {
        let (message, kind) = (json::quoted(&self.message), self.kind());
        format!(r#"{{"message":{message},"type":"{kind}","param":null,"code":"{}"}}"#, self.code)
    }

    /// The body of the response.
    pub fn body(&self) -> String {
        format!(r#"{{"error":{}}}"#, self.object())
    }

    /// The same as OpenRouter tells it in the middle of a stream, as one SSE event with `data:` and blank line:
    /// <https://openrouter.ai/docs/api/reference/streaming#mid-stream-errors>
    pub fn mid_stream_event(&self) -> String {
        let (message, kind) = (json::quoted(&self.message), self.kind());
        format!(
            concat!(
                r#"data: {{"object":"chat.completion.chunk","error":{{"code":{},"message":{},"type":"{}","#,
                r#""metadata":{{"error_type":"{}"}}}},"#,
                r#""choices":[{{"index":0,"delta":{{"content":""}},"finish_reason":"error"}}]}}"#,
                "\n\n"
            ),
            self.status, message, kind, self.code
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_json() {
        let error = ApiError::new(502, "upstream_error", "it said \"no\"\n");
        let body = serde_json::from_str::<serde_json::Value>(&error.body()).unwrap();
        assert_eq!(body["error"]["message"], "it said \"no\"\n");
        assert_eq!(body["error"]["param"], serde_json::Value::Null);
        let event = error.mid_stream_event();
        let data = event.strip_prefix("data: ").and_then(|e| e.strip_suffix("\n\n")).unwrap();
        let data = serde_json::from_str::<serde_json::Value>(data).unwrap();
        assert_eq!(data["error"]["code"], 502);
        assert_eq!(data["choices"][0]["finish_reason"], "error");
    }
}
