//! What people look at: `/`, `/health`, and in debug mode the panel with its data.

use tiny_http::Method;

use crate::client::{Exchange, Reply};
use crate::error::ApiError;
use crate::json::quoted;
use crate::live::Snapshot;
use crate::proxy::Proxy;

/// The name by which a second start recognizes the first.
pub const NAME: &str = "local-api-proxy";

/// Nothing but the page's own files runs, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The panel's files, under `/debug/`.
const FILES: [(&str, &str, &str); 2] = [
    (
        "panel.css",
        "text/css; charset=utf-8",
        include_str!("../static/panel.css"),
    ),
    (
        "panel.js",
        "text/javascript; charset=utf-8",
        include_str!("../static/panel.js"),
    ),
];
const PAGE: &str = include_str!("../static/panel.html");

/// `GET /health`
pub fn health(proxy: &Proxy) -> Reply {
    let version = env!("CARGO_PKG_VERSION");
    let status = if proxy.life.is_stopping() {
        "stopping"
    } else {
        "ok"
    };
    let waiting = proxy.gate.waiting();
    Reply::json(
        200,
        format!(r#"{{"status":"{status}","name":"{NAME}","version":"{version}","waiting":{waiting}}}"#),
    )
}

/// `GET /`
pub fn front_page(proxy: &Proxy) -> Reply {
    let port = proxy.live.snapshot().settings.listen.port;
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
pub fn answer(proxy: &Proxy, exchange: &Exchange, snapshot: &Snapshot) -> Reply {
    if !snapshot.debug {
        let message = "Debug mode is off. Create an empty file DEBUG_MODE.txt beside .env to switch it on; no restart is needed.";
        return Reply::from(&ApiError::new(403, "debug_disabled", message));
    }
    debug_assert_eq!(exchange.method, Method::Get);
    let path = exchange
        .path
        .strip_prefix("/debug")
        .unwrap_or_default()
        .trim_start_matches('/');
    let reply = match path {
        "" => Reply::new(200, "text/html; charset=utf-8", PAGE),
        "stats" => Reply::json(200, proxy.calls.stats_json(snapshot)),
        "calls" => Reply::json(200, proxy.calls.list_json()),
        "settings" => Reply::json(200, settings_json(snapshot)),
        _ => match (
            path.strip_prefix("calls/"),
            FILES.iter().find(|(name, ..)| *name == path),
        ) {
            (Some(id), _) => match proxy.calls.call_json(id) {
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
    Reply::from(&ApiError::new(404, "not_found", message))
}

fn settings_json(snapshot: &Snapshot) -> String {
    let settings = snapshot.settings.shown().into_iter().map(|setting| {
        let (name, value) = (quoted(setting.name), quoted(&setting.value));
        format!(
            r#"{{"name":{name},"value":{value},"needs_restart":{}}}"#,
            setting.needs_restart
        )
    });
    format!(r#"{{"settings":[{}]}}"#, settings.collect::<Vec<_>>().join(","))
}
