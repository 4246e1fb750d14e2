//! Which paths there are, and what was probably meant where somebody asks for another.

use crate::client::access;
use crate::client::exchange::Exchange;
use crate::dialect::{messages, ollama};
use crate::error::ApiError;
use crate::relay::{Api, shared};

/// Where requests go to a model, as tools append it to their base URL. The longer of two with the same end first.
const ENDPOINTS: [&str; 12] = [
    "/chat/completions",
    "/messages/count_tokens",
    "/completions",
    "/responses",
    "/messages",
    "/embeddings",
    "/models",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/tags",
    "/api/show",
];
/// Parts of OpenAI's API that no free model serves.
const NOT_SERVED: [&str; 12] = [
    "/audio",
    "/images",
    "/moderations",
    "/files",
    "/uploads",
    "/batches",
    "/assistants",
    "/threads",
    "/fine_tuning",
    "/vector_stores",
    "/realtime",
    "/rerank",
];
/// Paths that are as alike as this are the same with a slip in it (Jaro and Winkler: 1 is the same).
const ALIKE: f64 = 0.93;

/// Whether a path leads to the upstream.
pub fn needs_worker(path: &str) -> bool {
    let lists = matches!(path, "/models" | "/api/tags" | "/api/show");
    Api::of(path).is_some() || lists || path.starts_with("/models/")
}

/// 404 and 405, which need nothing but the request line. `port` is the one in use.
pub fn check(exchange: &Exchange, port: u16) -> Result<(), ApiError> {
    if access::is_preflight(exchange) {
        return Ok(()); // whatever the path: the page learns from the request itself that nothing is there
    }
    let path = exchange.head.path.as_str();
    let get = ["GET", "HEAD"];
    let allowed: &[&str] = match path {
        path if path == messages::COUNT_PATH || path == "/api/show" || Api::of(path).is_some() => &["POST"],
        path if ollama::ELSEWHERE.contains(&path) => return Err(ApiError::not_ollamas_disk()),
        "/api/version" | "/api/tags" | "/api/ps" => &get,
        "/" | "/health" | "/models" | "/debug" | "/debug/stats" | "/debug/calls" => &get,
        _ if path.starts_with("/models/") || path.starts_with("/debug/") => &get,
        _ => return Err(ApiError::not_found(&shared::asked(&exchange.head), &slip(path, port))),
    };
    let method = exchange.head.method.as_str();
    match allowed.contains(&method) {
        true => Ok(()),
        false => Err(ApiError::method_not_allowed(&shared::asked(&exchange.head), allowed)),
    }
}

/// What is wrong with a path that isn't there, where it is plain.
fn slip(path: &str, port: u16) -> String {
    let base = format!("http://localhost:{port}");
    let appended = ENDPOINTS.iter().find_map(|endpoint| Some((path.strip_suffix(endpoint)?, endpoint)));
    if let Some((more, endpoint)) = appended {
        return match more {
            "/v1" => format!("The tool adds /v1 by itself: set its base URL to {base}. "),
            _ => format!("The tool adds {endpoint} by itself: set its base URL to {base}/v1. "),
        };
    }
    if path.starts_with("/responses/") || path.starts_with("/chat/completions/") {
        return "No answers are kept here: send the whole conversation with each request. ".into();
    }
    if NOT_SERVED.iter().any(|part| path == *part || path.starts_with(&format!("{part}/"))) {
        return "There are no free models for it. ".into();
    }
    let alike = |endpoint: &&str| strsim::jaro_winkler(endpoint, path);
    match ENDPOINTS.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(endpoint) if alike(endpoint) >= ALIKE => match endpoint.starts_with("/api") {
            true => format!("Did you mean {endpoint}? "),
            false => format!("Did you mean /v1{endpoint}? "),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_named() {
        assert!(
            slip("/v1/chat/completions", 5001)
                .contains("adds /v1 by itself: set its base URL to http://localhost:5001. ")
        );
        assert!(
            slip("/v1/messages", 5001)
                .contains("adds /v1 by itself: set its base URL to http://localhost:5001. ")
        );
        assert!(slip("/chat/completions/chat/completions", 1).contains("adds /chat/completions by itself"));
        assert!(slip("/openai/responses", 1).contains("to http://localhost:1/v1. "));
        assert!(slip("/chat/completion", 1).contains("Did you mean /v1/chat/completions?"));
        assert!(slip("/message", 1).contains("/v1/messages?"));
        assert!(slip("/images/generations", 1).contains("no free models"));
        assert_eq!(slip("/nothing/like/it", 1), "");
    }
}
