//! What people look at: `/`, `/health`, and in debug mode the panel with its data.

use std::sync::Arc;

use ureq::http::Method;

use crate::client::exchange::{Exchange, Reply};
use crate::error::ApiError;
use crate::json::quoted;
use crate::live::Snapshot;
use crate::relay::shared::Shared;

/// The name by which a second start recognizes the first.
pub const NAME: &str = "local-api-proxy";

/// Nothing but the page's own files runs, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// The panel's files, under `/debug/`.
const FILES: [(&str, &str, &str); 7] = [
    ("panel.css", CSS, include_str!("../../static/panel.css")),
    ("panel.js", JAVASCRIPT, include_str!("../../static/panel.js")),
    ("words.js", JAVASCRIPT, include_str!("../../static/words.js")),
    ("dom.js", JAVASCRIPT, include_str!("../../static/dom.js")),
    ("plots.js", JAVASCRIPT, include_str!("../../static/plots.js")),
    ("call.js", JAVASCRIPT, include_str!("../../static/call.js")),
    ("chat.js", JAVASCRIPT, include_str!("../../static/chat.js")),
];
const PAGE: &str = include_str!("../../static/panel.html");

/// `GET /health`
pub fn health(shared: &Shared) -> Reply {
    let version = env!("CARGO_PKG_VERSION");
    let status = if shared.life.is_stopping() { "stopping" } else { "ok" };
    let waiting = shared.gate.waiting();
    Reply::json(
        200,
        format!(r#"{{"status":"{status}","name":"{NAME}","version":"{version}","waiting":{waiting}}}"#),
    )
}

/// `GET /`
pub fn front_page(shared: &Shared) -> Reply {
    let port = shared.live.snapshot().settings.listen.port;
    let text = format!(
        "local-api-proxy: OpenRouter's free models for every OpenAI-compatible tool on this machine\n\n\
         Point your tool at   http://localhost:{port}/v1   with any API key and any model.\n\n\
         POST /v1/chat/completions   chat completions, plain and streamed\n\
         GET  /v1/models             the free models\n\
         GET  /health                whether it runs\n\
         GET  /debug                 the panel (create an empty file DEBUG_MODE.txt to switch it on)\n"
    );
    Reply::new(200, "text/plain; charset=utf-8", text)
}

/// Everything under `/debug`, for those who may see it.
pub fn answer(shared: &Shared, exchange: &Exchange, snapshot: &Arc<Snapshot>) -> Reply {
    if !snapshot.debug {
        return Reply::error("", &ApiError::debug_disabled());
    }
    debug_assert_eq!(exchange.head.method, Method::GET);
    let path = exchange.head.path.strip_prefix("/debug").unwrap_or_default().trim_start_matches('/');
    let reply = match path {
        "" => Reply::new(200, "text/html; charset=utf-8", PAGE),
        "stats" => Reply::json(200, shared.calls.stats_json(snapshot)),
        "calls" => Reply::json(200, shared.calls.list_json()),
        "settings" => Reply::json(200, settings_json(snapshot)),
        "state" => Reply::json(200, state_json(shared, snapshot)),
        _ => match (path.strip_prefix("calls/"), FILES.iter().find(|(name, ..)| *name == path)) {
            (Some(id), _) => match shared.calls.call_json(id) {
                Some(call) => Reply::json(200, call),
                None => not_found("No such call among the recent ones."),
            },
            (None, Some((_, content_type, text))) => Reply::new(200, content_type, *text),
            (None, None) => not_found("The panel has no such page."),
        },
    };
    reply
        .with("cache-control", "no-store")
        .with("content-security-policy", CONTENT_SECURITY_POLICY)
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer")
}

fn not_found(message: &str) -> Reply {
    Reply::error("", &ApiError::no_such(message))
}

fn settings_json(snapshot: &Snapshot) -> String {
    let settings = snapshot.settings.shown().into_iter().map(|setting| {
        let (name, value) = (quoted(setting.name), quoted(&setting.value));
        format!(r#"{{"name":{name},"value":{value},"needs_restart":{}}}"#, setting.needs_restart)
    });
    format!(r#"{{"settings":[{}]}}"#, settings.collect::<Vec<_>>().join(","))
}

/// What the top line of the panel says, and the account's quota where the upstream tells it.
fn state_json(shared: &Shared, snapshot: &Arc<Snapshot>) -> String {
    let settings = &snapshot.settings;
    let limit = shared.gate.closed().map(|limit| crate::relay::gate::local_time(limit.reset));
    let limit = limit.map_or("null".into(), |time| quoted(&time));
    let quota = shared.quota.current(snapshot).map_or("null".into(), |quota| {
        format!(r#"{{"limit":{},"remaining":{},"used":{}}}"#, quota.limit, quota.remaining, quota.used)
    });
    format!(
        r#"{{"model":{},"key":{},"test_mode":{},"saving":{},"limit_until":{limit},"waiting":{},"quota":{quota}}}"#,
        quoted(&settings.model),
        settings.key.is_some(),
        settings.test_mode,
        settings.cache_dir.is_some(),
        shared.gate.waiting()
    )
}
