//! The proxy's own errors in Anthropic's shape, for requests that are passed on and for those translated to chat
//! completions.

use serde_json::{Value, json};

use crate::error::{ApiError, NO_THREADS};

/// Returns an error as `{"type":"error","error":{"type":…,"message":…}}`: <https://docs.anthropic.com/en/api/errors>
pub(super) fn error_object(error: &ApiError) -> Value {
    let kind = match (error.status, error.code) {
        // Not `not_found_error`: tools take it for a missing model and tell their users to choose another one.
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
