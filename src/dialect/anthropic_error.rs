//! Errors of our own in Anthropic's shape, for its API as it is and as it is told in chat completions.

use serde_json::{Value, json};

use crate::error::{ApiError, NO_THREADS};

/// `{"type":"error","error":{"type":…,"message":…}}`: <https://docs.anthropic.com/en/api/errors>
pub(super) fn error_object(error: &ApiError) -> Value {
    let kind = match (error.status, error.code) {
        // Not that of a missing model: tools tell their users to choose another one then.
        (_, "not_found" | "method_not_allowed") => "invalid_request_error",
        (401, _) => "authentication_error",
        (402, _) => "billing_error",
        (403, _) => "permission_error",
        (404, _) => "not_found_error",
        (413, _) => "request_too_large",
        (429, _) => "rate_limit_error",
        (503 | 529, _) => "overloaded_error",
        (408 | 504, _) => "timeout_error",
        (500.., _) => "api_error",
        _ => "invalid_request_error",
    };
    let mut object = json!({"type": "error", "error": {"type": kind, "message": error.message}});
    if error.code == NO_THREADS {
        object["error"]["details"] = json!({"error_code": NO_THREADS, "unsupported": []});
    }
    object
}
