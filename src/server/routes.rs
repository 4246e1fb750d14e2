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
        _ => return Err(not_found(&shared::asked(&exchange.head), path, port)),
    };
    let method = exchange.head.method.as_str();
    match allowed.contains(&method) {
        true => Ok(()),
        false => {
            let mut error = ApiError::method_not_allowed(&shared::asked(&exchange.head), allowed);
            if path == "/" && method == "POST" {
                // Some tools want the whole address, and append nothing to it.
                let [english, chinese] = slip(path, port);
                error.message = format!("{} {}", error.message, english.trim_end());
                error = error.chinese(chinese);
            }
            Err(error)
        }
    }
}

fn not_found(asked: &str, path: &str, port: u16) -> ApiError {
    let [english, chinese] = slip(path, port);
    let error = ApiError::not_found(asked, &english);
    match chinese.is_empty() {
        true => error,
        false => error.chinese(format!("没有这个地址。{chinese}")),
    }
}

/// What is wrong with a path that isn't there, where it is plain: in English, with a blank behind it, and in Chinese.
fn slip(path: &str, port: u16) -> [String; 2] {
    let base = format!("http://localhost:{port}");
    let base_url = |added: &str, base: &str| {
        [
            format!("The tool adds {added} by itself: set its base URL to {base}. "),
            format!("工具会自己加上 {added}：请把它的基础地址（Base URL）设为 {base}"),
        ]
    };
    let plain = |english: &str, chinese: &str| [format!("{english} "), chinese.to_owned()];
    if path == "/" {
        return [
            format!(
                "Set the tool's base URL to {base}/v1; one that wants the whole address, to {base}/v1/chat/completions. "
            ),
            format!(
                "请把工具的基础地址（Base URL）设为 {base}/v1；如果它要完整地址，则为 {base}/v1/chat/completions"
            ),
        ];
    }
    let appended = ENDPOINTS.iter().find_map(|endpoint| Some((path.strip_suffix(endpoint)?, endpoint)));
    if let Some((more, endpoint)) = appended {
        return match more.ends_with("/v1") {
            true => base_url("/v1", &base),
            false => base_url(endpoint, &format!("{base}/v1")),
        };
    }
    if path.starts_with("/responses/") || path.starts_with("/chat/completions/") {
        return plain(
            "No answers are kept here: send the whole conversation with each request.",
            "这里不保存回答：请在每个请求中发送整个对话",
        );
    }
    if NOT_SERVED.iter().any(|part| path == *part || path.starts_with(&format!("{part}/"))) {
        return plain("There are no free models for it.", "没有提供这项功能的免费模型");
    }
    let alike = |endpoint: &&str| strsim::jaro_winkler(endpoint, path);
    match ENDPOINTS.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(endpoint) if alike(endpoint) >= ALIKE => {
            let version = if endpoint.starts_with("/api") { "" } else { "/v1" };
            [format!("Did you mean {version}{endpoint}? "), format!("是否指 {version}{endpoint}？")]
        }
        _ => [String::new(), String::new()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_named() {
        let slip = |path, port| slip(path, port)[0].clone();
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
        assert!(
            slip("/messages/v1/messages", 1)
                .contains("adds /v1 by itself: set its base URL to http://localhost:1. ")
        );
        assert!(slip("/", 1).contains("http://localhost:1/v1/chat/completions"));
        assert_eq!(slip("/nothing/like/it", 1), "");
    }
}
