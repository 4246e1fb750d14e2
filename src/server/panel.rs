//! The pages for people: `/`, `/health`, and in debug mode the panel with its data.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::Utc;
use ring::digest::{SHA256, digest};
use serde_json::json;
use ureq::http::Method;

use super::routes::OWN;
use crate::client::exchange::{Exchange, Reply};
use crate::dialect;
use crate::dialect::Needs;
use crate::encoding::percent_decoded;
use crate::error::ApiError;
use crate::language::Words;
use crate::live::{DEBUG_FILE, Snapshot};
use crate::relay::gate::local_time;
use crate::relay::model::{Kind, Model};
use crate::relay::quota::{Account, Quota};
use crate::relay::shared::Shared;
use crate::secrets;
use crate::settings::env_file;
use crate::tools::connect;

/// The name in `/health` by which a second proxy recognizes the first.
pub const NAME: &str = "local-api-proxy";

/// Only the page's own files run, and no other page may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// Includes a file that build.rs has prepared.
macro_rules! page_file {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name))
    };
}
/// The panel's files, under `/debug/`.
const FILES: [(&str, &str, &[u8]); 18] = [
    ("icon.png", "image/png", include_bytes!("../../static/icon.png")),
    ("panel.css", CSS, page_file!("panel.css").as_bytes()),
    ("panel.js", JAVASCRIPT, page_file!("panel.js").as_bytes()),
    ("words.js", JAVASCRIPT, page_file!("words.js").as_bytes()),
    ("time.js", JAVASCRIPT, page_file!("time.js").as_bytes()),
    ("proxy.js", JAVASCRIPT, page_file!("proxy.js").as_bytes()),
    ("dom.js", JAVASCRIPT, page_file!("dom.js").as_bytes()),
    ("plots.js", JAVASCRIPT, page_file!("plots.js").as_bytes()),
    ("calls.js", JAVASCRIPT, page_file!("calls.js").as_bytes()),
    ("call.js", JAVASCRIPT, page_file!("call.js").as_bytes()),
    ("conversation.js", JAVASCRIPT, page_file!("conversation.js").as_bytes()),
    ("curl.js", JAVASCRIPT, page_file!("curl.js").as_bytes()),
    ("json.js", JAVASCRIPT, page_file!("json.js").as_bytes()),
    ("markdown.js", JAVASCRIPT, page_file!("markdown.js").as_bytes()),
    ("models.js", JAVASCRIPT, page_file!("models.js").as_bytes()),
    ("chat.js", JAVASCRIPT, page_file!("chat.js").as_bytes()),
    ("connect.js", JAVASCRIPT, page_file!("connect.js").as_bytes()),
    ("settings.js", JAVASCRIPT, page_file!("settings.js").as_bytes()),
];
const PAGE: &str = page_file!("panel.html");
const OFF_PAGE: &str = page_file!("off.html");
/// A limit that ends within this time is the minute's, not the day's.
const A_MINUTES_LIMIT: Duration = Duration::from_secs(120);

/// Answers `GET /health`.
pub fn health(shared: &Shared) -> Reply {
    let version = env!("CARGO_PKG_VERSION");
    let status = if shared.in_flight.is_stopping() { "stopping" } else { "ok" };
    let waiting = shared.gate.waiting();
    let health = json!({"status": status, "name": NAME, "version": version, "waiting": waiting});
    Reply::json(200, health.to_string())
}

/// Answers `GET /`.
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

/// Answers everything under `/debug`. Whether the client may see it has been checked before.
pub fn answer(shared: &Shared, exchange: &Exchange, snapshot: &Arc<Snapshot>) -> Reply {
    if !snapshot.debug {
        return switched_off(shared, exchange);
    }
    let path = exchange.head.path.strip_prefix("/debug").unwrap_or_default().trim_start_matches('/');
    let reply = match path {
        "" => Reply::new(200, "text/html; charset=utf-8", PAGE),
        "stats" => Reply::json(200, shared.calls.stats_json(snapshot)),
        "calls" => shown(calls_json(shared, exchange, snapshot)),
        "days" => Reply::json(200, shared.calls.days_json(snapshot)),
        "settings" => Reply::json(200, settings_json(shared, snapshot)),
        "models" => Reply::json(200, models_json(shared, snapshot)),
        "connect" => Reply::json(200, connect_json(shared, exchange, snapshot)),
        "state" => shown(state_json(shared, snapshot)),
        _ => match (path.strip_prefix("calls/"), FILES.iter().find(|(name, ..)| *name == path)) {
            (Some(id), _) if exchange.head.method == Method::DELETE => {
                if shared.calls.cancel(id) {
                    Reply::json(200, r#"{"cancelled":true}"#)
                } else {
                    not_found("No such call is under way.")
                }
            }
            (Some(id), _) => match shared.calls.call_json(snapshot, id) {
                Some(call) => shown(call),
                None => not_found("No such call among the recent ones."),
            },
            (None, Some((_, content_type, bytes))) => Reply::new(200, content_type, *bytes),
            (None, None) => not_found("The panel has no such page."),
        },
    };
    reply
        .with("cache-control", "no-store")
        .with("content-security-policy", CONTENT_SECURITY_POLICY)
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer")
}

/// Answers that debug mode is off. A browser gets a page that says how to switch it on, in the browser's language.
fn switched_off(shared: &Shared, exchange: &Exchange) -> Reply {
    const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;margin:0}\
        main{max-width:40rem;margin:12vh auto;padding:0 1rem}h1{font-size:1.25rem}\
        pre{padding:.75rem 1rem;border:1px solid;border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}";
    // The page reloads only when the panel is there: until then nothing moves while somebody reads.
    const SCRIPT: &str =
        "setInterval(async()=>{if((await fetch('/debug').catch(()=>({}))).ok)location.reload()},2000)";
    let header = |name: &str| exchange.head.header(name).unwrap_or_default();
    if !header("accept").contains("text/html") {
        return Reply::error("", &ApiError::debug_disabled());
    }
    let path = shared.live.home().join(DEBUG_FILE).display().to_string();
    let path = path.replace('&', "&amp;").replace('<', "&lt;");
    let [lang, title, words, then] = if header("accept-language").trim_start().starts_with("zh") {
        [
            "zh-CN",
            "调试模式已关闭",
            "新建一个空文件即可打开面板：",
            "无需重启：文件一出现，本页就会变成面板。删除该文件即可再次关闭。",
        ]
    } else {
        [
            "en",
            "Debug mode is off",
            "Create this file, empty, to open the panel:",
            "No restart is needed: this page becomes the panel as soon as the file is there. Delete it to switch the panel off again.",
        ]
    };
    let parts = [
        ("lang", lang),
        ("style", STYLE),
        ("script", SCRIPT),
        ("title", title),
        ("words", words),
        ("path", &path),
        ("then", then),
    ];
    let page = parts
        .iter()
        .fold(OFF_PAGE.to_owned(), |page, (name, text)| page.replace(&format!("{{{name}}}"), text));
    let hash = |text: &str| BASE64.encode(digest(&SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    Reply::new(403, "text/html; charset=utf-8", page)
        .with("cache-control", "no-store")
        .with("content-security-policy", policy)
        .with("vary", "Accept, Accept-Language")
}

/// Returns all calls, or those that are new or changed (`since`), or those that contain some words (`find`).
fn calls_json(shared: &Shared, exchange: &Exchange, snapshot: &Snapshot) -> String {
    let query = exchange.head.query.as_deref().unwrap_or_default();
    let value = |name: &str| {
        let value =
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?.replace('+', " ");
        Some(percent_decoded(&value))
    };
    match value("find") {
        Some(words) => shared.calls.search_json(&words),
        None => shared.calls.list_json(snapshot, value("since").and_then(|since| since.parse().ok())),
    }
}

fn not_found(message: &str) -> Reply {
    Reply::error("", &ApiError::no_such(message))
}

/// Answers with what clients and upstreams have written, with the secrets in it hidden.
fn shown(json: String) -> Reply {
    Reply::json(200, secrets::hidden(&json).into_owned())
}

/// Returns the settings in force; one that needs a restart also has the value that it will have then.
fn settings_json(shared: &Shared, snapshot: &Snapshot) -> String {
    let after = shared.live.after_restart().shown();
    let settings = snapshot.settings.shown().into_iter().zip(after).map(|(setting, after)| {
        // If the port is 0, the system may choose any.
        let is_due = setting.needs_restart && setting.value != after.value && after.value != "0";
        let mut shown = json!(setting);
        shown["after_restart"] = is_due.then_some(after.value).into();
        shown
    });
    json!({ "settings": settings.collect::<Vec<_>>() }).to_string()
}

/// Returns what each tool needs, with the address by which the panel itself is reached.
fn connect_json(shared: &Shared, exchange: &Exchange, snapshot: &Snapshot) -> String {
    let own = shared.site.to_str().unwrap_or_default().to_owned();
    let root = exchange.head.header("host").map_or(own, |host| format!("http://{host}"));
    connect::json(&root, snapshot.settings.proxy_api_key.is_some())
}

/// Returns the free models there are now, what was seen of each, in which order `best` asks them and why; and the
/// backups.
fn models_json(shared: &Shared, snapshot: &Arc<Snapshot>) -> String {
    let ms = |time: Duration| time.as_millis() as u64;
    let at = |time: SystemTime| ms(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let figure = |value: f64| (value * 1000.0).round() / 1000.0;
    let now = SystemTime::now();
    let today = Utc::now().date_naive();
    let listing = shared.models.listing(Kind::Chat, snapshot);
    let order = shared.history.in_order(&listing.models, Needs::default());
    let mut seen = shared.history.models();
    let mut row = |id: &str, listed: Option<&Model>, setting: &str| {
        let seen = seen.remove(id).unwrap_or_default();
        let can = listed.map(|model| model.can).unwrap_or_default();
        let rank = order.iter().position(|candidate| candidate.model.id == id);
        let candidate = rank.map(|rank| &order[rank]);
        let index = candidate.map(|candidate| candidate.index);
        let known = listed.and_then(|model| model.indexes.intelligence);
        json!({
            "id": id,
            "name": listed.map_or(id, |model| &model.name),
            "setting": setting,
            "listed": listed.is_some(),
            "context_length": listed.and_then(|model| model.context_length),
            "tools": can.tools,
            "images": can.images,
            "structured": can.structured,
            "expired": listed.is_some_and(|model| model.is_expired(today)),
            "expires": listed.and_then(|model| model.expires).map(|date| date.to_string()),
            "calls": seen.calls,
            "answered": seen.answered,
            "first_token_ms": seen.first_token().map(ms),
            "rests_until_ms": seen.rests_until.filter(|_| seen.rests()).map(at),
            "retired": seen.retired && seen.rests(),
            "rank": rank.map(|rank| rank + 1),
            "worth": candidate.map(|candidate| figure(candidate.worth)),
            "index": known.or(index).map(figure),
            "index_known": known.is_some(),
            "share": figure(seen.share(now)),
            "speed": candidate.map(|candidate| figure(candidate.speed)),
        })
    };
    let router = listing.router();
    let mut rows = vec![row(&router.id, Some(&router), "MODEL")];
    rows.extend(order.iter().map(|candidate| row(&candidate.model.id, Some(candidate.model), "MODEL")));
    let is_ranked = |id: &str| order.iter().any(|candidate| candidate.model.id == id);
    let resting = listing.models.iter().filter(|model| !is_ranked(&model.id));
    rows.extend(resting.map(|model| row(&model.id, Some(model), "MODEL")));
    // For the kinds of models that have a setting of their own, because no model of them can stand in for another.
    let setting_of = |kind| {
        dialect::named_kinds().find(|named| Kind::at(named.list) == kind).map_or("MODEL", |n| n.setting)
    };
    // Models that were asked but aren't in the list.
    let is_listed = |id: &str| listing.models.iter().any(|model| model.id == id);
    let mut others = shared.history.models().into_keys().filter(|id| !is_listed(id)).collect::<Vec<_>>();
    others.sort_unstable();
    rows.extend(others.iter().map(|id| match shared.models.of_another_kind(id, snapshot) {
        Some((kind, model)) => row(id, Some(&model), setting_of(kind)),
        None => row(id, None, "MODEL"),
    }));
    let backups = snapshot.settings.backups.iter().map(|backup| {
        json!({
            "name": backup.name,
            "model": backup.models.join(", "),
            "address": backup.base_url,
            "rests_until_ms": shared.backups.rests_until(backup).map(at),
        })
    });
    let backups = backups.collect::<Vec<_>>();
    json!({"models": rows, "backups": backups}).to_string()
}

/// Returns what the top line of the panel shows, and the account's quota if the upstream tells it.
fn state_json(shared: &Shared, snapshot: &Arc<Snapshot>) -> String {
    let settings = &snapshot.settings;
    let closed = shared.gate.closed(settings.key.as_ref());
    let limit = closed.map(|limit| local_time(limit.reset));
    let told = shared.quota.current(snapshot);
    let (state, reason) = if settings.test_mode {
        ("test_mode", None)
    } else if settings.key.is_none() {
        ("no_key", None)
    } else if shared.in_flight.is_stopping() {
        ("stopping", None)
    } else if closed.is_some() {
        ("limit", None)
    } else {
        trouble(shared, told.as_ref())
    };
    let account = told.map(|(account, _)| account);
    let mut quota = match account {
        Some(Account::Taken(quota)) => quota,
        _ => None,
    };
    if let (Some(quota), Some(limit)) = (&mut quota, closed)
        && limit.remaining() > A_MINUTES_LIMIT
    {
        quota.used += quota.remaining;
        quota.remaining = 0;
    }
    json!({
        "state": state,
        "reason": reason.as_ref().map(|reason| &*reason.english),
        "reason_in_chinese": reason.as_ref().and_then(Words::only_chinese),
        "via": settings.proxy(&settings.base_url).map(|proxy| proxy.address()),
        "address": settings.base_url,
        "model": settings.model,
        "key": settings.key.is_some(),
        "test_mode": settings.test_mode,
        "saving": settings.cache_dir.is_some(),
        "cache_dir": settings.cache_dir.as_ref().map(|dir| dir.display().to_string()),
        "env_file": shared.live.home().join(env_file::NAME).display().to_string(),
        "limit_until": limit,
        "waiting": shared.gate.waiting(),
        "quota": quota.map(|Quota { limit, remaining, used }| json!({"limit": limit, "remaining": remaining, "used": used})),
        "version": env!("CARGO_PKG_VERSION"),
    })
    .to_string()
}

/// Returns whether the upstream can be used, by the last call or the last query of the account, whichever is later.
fn trouble(shared: &Shared, told: Option<&(Account, SystemTime)>) -> (&'static str, Option<Words>) {
    let look = told.and_then(|(account, when)| match account {
        Account::Taken(_) => Some((*when, ("ok", None))),
        Account::Refused => Some((*when, ("key_refused", None))),
        Account::Unreachable(reason) => Some((*when, ("unreachable", Some(reason.clone())))),
        Account::Unknown => None,
    });
    let last = shared.calls.last_outcome().map(|outcome| {
        let state = match outcome.error_code.as_deref() {
            Some("upstream_unreachable") => ("unreachable", outcome.reason),
            _ if outcome.status == 401 => ("key_refused", None),
            _ => ("ok", None),
        };
        (outcome.ended, state)
    });
    look.into_iter().chain(last).max_by_key(|(when, _)| *when).map_or(("ok", None), |(_, state)| state)
}
