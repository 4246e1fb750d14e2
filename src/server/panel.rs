//! What people look at: `/`, `/health`, and in debug mode the panel with its data.

use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use ureq::http::Method;

use super::routes::OWN;
use crate::client::exchange::{Exchange, Reply};
use crate::dialect;
use crate::error::ApiError;
use crate::json::quoted;
use crate::live::Snapshot;
use crate::relay::models::Model;
use crate::relay::shared::Shared;
use crate::secrets;

/// The name by which a second start recognizes the first.
pub const NAME: &str = "local-api-proxy";

/// Nothing but the page's own files runs, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// The panel's files, under `/debug/`.
const FILES: [(&str, &str, &str); 13] = [
    ("panel.css", CSS, include_str!("../../static/panel.css")),
    ("panel.js", JAVASCRIPT, include_str!("../../static/panel.js")),
    ("words.js", JAVASCRIPT, include_str!("../../static/words.js")),
    ("time.js", JAVASCRIPT, include_str!("../../static/time.js")),
    ("proxy.js", JAVASCRIPT, include_str!("../../static/proxy.js")),
    ("dom.js", JAVASCRIPT, include_str!("../../static/dom.js")),
    ("plots.js", JAVASCRIPT, include_str!("../../static/plots.js")),
    ("calls.js", JAVASCRIPT, include_str!("../../static/calls.js")),
    ("call.js", JAVASCRIPT, include_str!("../../static/call.js")),
    ("conversation.js", JAVASCRIPT, include_str!("../../static/conversation.js")),
    ("json.js", JAVASCRIPT, include_str!("../../static/json.js")),
    ("models.js", JAVASCRIPT, include_str!("../../static/models.js")),
    ("chat.js", JAVASCRIPT, include_str!("../../static/chat.js")),
];
const PAGE: &str = include_str!("../../static/panel.html");

/// `GET /health`
pub fn health(shared: &Shared) -> Reply {
    let version = env!("CARGO_PKG_VERSION");
    let status = if shared.in_flight.is_stopping() { "stopping" } else { "ok" };
    let waiting = shared.gate.waiting();
    Reply::json(
        200,
        format!(r#"{{"status":"{status}","name":"{NAME}","version":"{version}","waiting":{waiting}}}"#),
    )
}

/// `GET /`
pub fn front_page(shared: &Shared) -> Reply {
    let port = shared.live.snapshot().settings.listen.port;
    let mut text = format!(
        "local-api-proxy: OpenRouter's free models for every AI tool on this machine\n\n\
         Point your tool at   http://localhost:{port}/v1   with any API key and any model.\n\
         (Claude Code and other tools of Anthropic's API: http://localhost:{port}, without /v1.)\n\n"
    );
    let routes = dialect::ALL.iter().flat_map(|api| api.routes.iter().map(move |route| (api, route)));
    let routes = routes.map(|(api, route)| (route.method, api.shown(route), route.about));
    let own = OWN.iter().map(|(path, about)| ("GET", (*path).to_owned(), *about));
    for (method, path, about) in routes.chain(own).filter(|(.., about)| !about.is_empty()) {
        let _ = writeln!(text, "{method:<4} {path:<27} {about}"); // a string takes everything
    }
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
        "calls" => shown(shared.calls.list_json(snapshot)),
        "settings" => Reply::json(200, settings_json(snapshot)),
        "models" => Reply::json(200, models_json(shared, snapshot)),
        "state" => Reply::json(200, state_json(shared, snapshot)),
        _ => match (path.strip_prefix("calls/"), FILES.iter().find(|(name, ..)| *name == path)) {
            (Some(id), _) => match shared.calls.call_json(id) {
                Some(call) => shown(call),
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

/// What clients and upstreams have written.
fn shown(json: String) -> Reply {
    Reply::json(200, secrets::hidden(&json).into_owned())
}

fn settings_json(snapshot: &Snapshot) -> String {
    let settings = snapshot.settings.shown().into_iter().map(|setting| {
        let (name, value) = (quoted(setting.name), quoted(&setting.value));
        format!(r#"{{"name":{name},"value":{value},"needs_restart":{}}}"#, setting.needs_restart)
    });
    format!(r#"{{"settings":[{}]}}"#, settings.collect::<Vec<_>>().join(","))
}

/// The free models there are now, what was seen of them here, and the backups.
fn models_json(shared: &Shared, snapshot: &Arc<Snapshot>) -> String {
    let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".into());
    let at = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_millis().to_string()
    };
    let listed = shared.models.current(snapshot);
    let mut seen = shared.history.models();
    let mut row = |id: &str, listed: Option<&Model>, setting: &str| {
        let seen = seen.remove(id).unwrap_or_default();
        let can = listed.map(|model| model.can).unwrap_or_default();
        format!(
            r#"{{"id":{},"name":{},"setting":"{setting}","listed":{},"context_length":{},"tools":{},"images":{},"structured":{},"calls":{},"answered":{},"first_token_ms":{},"rests_until_ms":{},"retired":{}}}"#,
            quoted(id),
            quoted(listed.map_or(id, |model| &model.name)),
            listed.is_some(),
            or_null(listed.and_then(|model| model.context_length).map(|n| n.to_string())),
            can.tools,
            can.images,
            can.structured,
            seen.calls,
            seen.answered,
            or_null(seen.first_token().map(|time| time.as_millis().to_string())),
            or_null(seen.rests_until.filter(|_| seen.rests()).map(at)),
            seen.retired && seen.rests(),
        )
    };
    let mut rows = listed.iter().map(|model| row(&model.id, Some(model), "MODEL")).collect::<Vec<_>>();
    // Those that were asked for, and that the list doesn't have.
    let mut others = shared.history.models().into_keys().collect::<Vec<_>>();
    others.retain(|id| !listed.iter().any(|model| *model.id == **id));
    others.sort_unstable();
    // It doesn't hold those of which none stands in for another: they have lists of their own.
    let named = shared.named_models.iter().filter(|_| !others.is_empty());
    let named = named.map(|(named, models)| (named.setting, models.current(snapshot))).collect::<Vec<_>>();
    rows.extend(others.iter().map(|id| {
        let of = |(setting, models): &'_ (&'static str, Arc<Vec<Model>>)| {
            models.iter().find(|model| *model.id == **id).map(|model| row(id, Some(model), setting))
        };
        named.iter().find_map(of).unwrap_or_else(|| row(id, None, "MODEL"))
    }));
    let backups = snapshot.settings.backups.iter().map(|backup| {
        let rests = or_null(shared.history.backup_rests_until(&backup.name).map(at));
        let models = backup.models.join(", ");
        let [name, model, address] = [&backup.name, &models, &backup.base_url].map(|text| quoted(text));
        format!(r#"{{"name":{name},"model":{model},"address":{address},"rests_until_ms":{rests}}}"#)
    });
    let backups = backups.collect::<Vec<_>>().join(",");
    format!(r#"{{"models":[{}],"backups":[{backups}]}}"#, rows.join(","))
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
