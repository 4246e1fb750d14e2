//! The paths that belong to no API, and what the client probably meant if it asks for a path that doesn't exist.

use crate::client::access;
use crate::client::exchange::Exchange;
use crate::dialect::api::{self, PARAMETER};
use crate::dialect::{ALL, Action};
use crate::error::ApiError;
use crate::relay::shared;

/// The proxy's own paths, each with its description on the front page.
pub const OWN: [(&str, &str); 2] = [
    ("/health", "whether it runs"),
    ("/debug", "the panel (create an empty file DEBUG_MODE.txt to switch it on)"),
];

/// Parts of the APIs that aren't supported, each with the reason in English and Chinese.
const NOT_SERVED: [(&[&str], [&str; 2]); 7] = [
    (
        &["/images", "/v1beta/models/{model}:predict", "/models/{model}:predict"],
        ["No free model that makes images is known.", "没有已知的免费图像模型"],
    ),
    (
        &["/audio/transcriptions", "/audio/translations"],
        ["No free model that transcribes speech is known.", "没有已知的免费语音识别模型"],
    ),
    (
        &["/videos", "/v1beta/models/{model}:predictLongRunning", "/models/{model}:predictLongRunning"],
        ["No free model that makes videos is known.", "没有已知的免费视频模型"],
    ),
    (
        &["/moderations"],
        [
            "There are no moderations here: ask a free safety model in a chat (GET /v1/models?output_modalities=all).",
            "这里没有审核接口：请在对话中使用免费的安全模型",
        ],
    ),
    (
        &[
            "/batches",
            "/messages/batches",
            "/v1beta/batches",
            "/v1beta/models/{model}:batchGenerateContent",
            "/models/{model}:batchGenerateContent",
        ],
        [
            "There are no batches here: send each request by itself; those beyond the account's limit wait.",
            "这里没有批处理：请逐个发送请求，超出限额的会自动等待",
        ],
    ),
    (
        &["/files", "/uploads", "/v1beta/files", "/upload", "/v1beta/cachedContents", "/cachedContents"],
        [
            "No files are kept here: send their content inside of the request.",
            "这里不保存文件：请把内容直接放进请求",
        ],
    ),
    (
        &["/assistants", "/threads", "/fine_tuning", "/vector_stores", "/realtime", "/interactions"],
        ["There is nothing like it at OpenRouter.", "OpenRouter 没有这项功能"],
    ),
];
/// From this similarity on, a path is taken for a known one with a typing mistake (Jaro and Winkler: 1 is the same).
const ALIKE: f64 = 0.93;

/// Refuses what can be refused by the request's head alone: 404, 405 and others. `port` is the one in use.
pub fn check(exchange: &Exchange, port: u16) -> Result<(), ApiError> {
    if access::is_preflight(exchange) {
        return Ok(()); // whatever the path: the page learns from the request itself that nothing is there
    }
    let head = &exchange.head;
    match &head.route {
        Some(routed) => match routed.route.action {
            Action::Refuse(refusal) => return Err(refusal()),
            _ => return Ok(()),
        },
        None if own_methods(&head.path).contains(&head.method.as_str()) => return Ok(()),
        None => {}
    }
    let path = head.path.as_str();
    let asked = shared::asked(head);
    if let Some(why) = not_served(path) {
        return Err(not_found(&asked, why.map(str::to_owned)));
    }
    let own = own_methods(path).to_vec();
    let allowed = if own.is_empty() { api::methods(path) } else { own };
    if allowed.is_empty() {
        return Err(not_found(&asked, slip(path, port)));
    }
    let mut error = ApiError::method_not_allowed(&asked, &allowed);
    if path == "/" && head.method.as_str() == "POST" {
        // Some tools want the whole address and append nothing to it.
        let [english, chinese] = slip(path, port);
        error.message = format!("{} {english}", error.message);
        error = error.chinese(chinese);
    }
    Err(error)
}

/// Returns the methods of a path that belongs to no API; empty if there is no such path.
fn own_methods(path: &str) -> &'static [&'static str] {
    match path {
        _ if path.starts_with("/debug/calls/") => &["GET", "HEAD", "DELETE"],
        _ if path == "/" || path.starts_with("/debug/") || OWN.iter().any(|(own, _)| *own == path) => {
            &["GET", "HEAD"]
        }
        _ => &[],
    }
}

fn not_found(asked: &str, [english, chinese]: [String; 2]) -> ApiError {
    let slip = if english.is_empty() { english } else { format!("{english} ") };
    let error = ApiError::not_found(asked, &slip, &served());
    if chinese.is_empty() { error } else { error.chinese(format!("没有这个地址。{chinese}")) }
}

/// Lists the methods and paths that are served and have a description.
fn served() -> String {
    let routes = ALL.iter().flat_map(|api| api.routes.iter().map(move |route| (api, route)));
    let told = routes.filter(|(_, route)| !route.about.is_empty());
    let told = told.map(|(api, route)| format!("{} {}", route.method, api.shown(route)));
    let own = OWN.iter().map(|(path, _)| format!("GET {path}"));
    told.chain(own).collect::<Vec<_>>().join(", ")
}

/// Returns why `path` isn't served, if it belongs to a part of an API that isn't supported.
fn not_served(path: &str) -> Option<[&'static str; 2]> {
    let is_part = |part: &str| match part.split_once(PARAMETER) {
        Some((before, behind)) => path.starts_with(before) && path.ends_with(behind),
        None => path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    NOT_SERVED.iter().find(|(parts, _)| parts.iter().any(|part| is_part(part))).map(|(_, why)| *why)
}

/// Returns what is probably wrong with an unknown path, in English and Chinese; empty if that isn't clear.
fn slip(path: &str, port: u16) -> [String; 2] {
    let here = format!("http://localhost:{port}");
    let base_url = |added: &str, base: &str| {
        [
            format!("The tool adds {added} by itself: set its base URL to {here}{base}."),
            format!("工具会自己加上 {added}：请把它的基础地址（Base URL）设为 {here}{base}"),
        ]
    };
    if path == "/" {
        return [
            format!(
                "Set the tool's base URL to {here}/v1; one that wants the whole address, to {here}/v1/chat/completions."
            ),
            format!(
                "请把工具的基础地址（Base URL）设为 {here}/v1；如果它要完整地址，则为 {here}/v1/chat/completions"
            ),
        ];
    }
    if let Some((end, api)) = api::appended(path) {
        let more = &path[..path.len() - end.len()];
        let version =
            ["/v1", api.shown_base].into_iter().find(|base| !base.is_empty() && more.ends_with(base));
        return match version {
            Some(version) => base_url(version, ""),
            None => base_url(end, api.shown_base),
        };
    }
    if path.starts_with("/responses/") || path.starts_with("/chat/completions/") {
        return [
            "No answers are kept here: send the whole conversation with each request.".into(),
            "这里不保存回答：请在每个请求中发送整个对话".into(),
        ];
    }
    let patterns = ALL.iter().flat_map(|api| api.routes.iter().map(move |route| (api, route.pattern)));
    let alike = patterns.map(|(api, pattern)| (api, pattern, strsim::jaro_winkler(pattern, path)));
    match alike.max_by(|(.., a), (.., b)| a.total_cmp(b)) {
        Some((api, pattern, alike)) if alike >= ALIKE => {
            let meant = format!("{}{pattern}", api.shown_base);
            [format!("Did you mean {meant}?"), format!("是否指 {meant}？")]
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
                .contains("adds /v1 by itself: set its base URL to http://localhost:5001.")
        );
        assert!(
            slip("/v1/messages", 5001)
                .contains("adds /v1 by itself: set its base URL to http://localhost:5001.")
        );
        assert!(slip("/chat/completions/chat/completions", 1).contains("adds /chat/completions by itself"));
        assert!(slip("/openai/responses", 1).contains("to http://localhost:1/v1."));
        assert!(slip("/chat/completion", 1).contains("Did you mean /v1/chat/completions?"));
        assert!(slip("/message", 1).contains("/v1/messages?"));
        assert!(
            slip("/messages/v1/messages", 1)
                .contains("adds /v1 by itself: set its base URL to http://localhost:1.")
        );
        assert!(slip("/", 1).contains("http://localhost:1/v1/chat/completions"));
        assert_eq!(slip("/nothing/like/it", 1), "");
    }

    #[test]
    fn what_is_not_served_says_why() {
        for (path, why) in [
            ("/images/generations", "makes images"),
            ("/models/imagen-4:predict", "makes images"),
            ("/audio/transcriptions", "transcribes"),
            ("/messages/batches", "no batches"),
            ("/v1beta/files", "No files"),
        ] {
            assert!(not_served(path).is_some_and(|[english, _]| english.contains(why)), "{path}");
        }
        assert_eq!(not_served("/models/a:free"), None);
    }
}
