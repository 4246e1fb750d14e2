//! Section 2: what becomes of a model's name, in each dialect, as the upstream sees it.

use serde_json::{Value, json};

use crate::dialects::{DIALECTS, plain_answer};
use crate::fixture::*;

fn answering() -> Upstream {
    Upstream::start(|request, answer| answer.json(200, plain_answer(&request.path)))
}

/// What the upstream was asked for, and what the client was told of it.
fn asked_for(proxy: &Proxy, upstream: &Upstream, path: &str, body: &Value) -> (String, Option<String>) {
    let response = proxy.post(path, &body.to_string());
    response.assert_status(200);
    let received = upstream.received();
    let sent = received.iter().rev().find(|request| !request.body.is_empty()).unwrap().json();
    (sent["model"].as_str().unwrap().to_owned(), response.header("x-proxy-model").map(str::to_owned))
}

#[test]
fn a_pattern_says_what_stands_in_for_a_name() {
    let upstream = answering();
    let map = "MODEL=my/own:free\nMODEL_MAP=*haiku* = z-ai/glm-4.5-air:free,gpt-4o*=openrouter/free, GPT-*-mini=a/mini:free";
    let proxy = Proxy::before(&upstream, map);
    let paths = DIALECTS.iter().map(|dialect| dialect.path).chain(["/api/chat", "/api/generate"]);
    for path in paths {
        for (asked, expected) in [
            ("claude-3-5-haiku-20241022", "z-ai/glm-4.5-air:free"),
            ("Claude-HAIKU", "z-ai/glm-4.5-air:free"),
            ("gpt-4o-mini", "openrouter/free"),
            ("gpt-5-mini", "a/mini:free"),
            ("gpt-5", "my/own:free"),
            ("x/haiku:free", "x/haiku:free"),
        ] {
            let body = json!({"model": asked, "prompt": "x", "stream": false, "input": "x", "max_tokens": 9,
                "messages": [{"role": "user", "content": "x"}]});
            let (sent, told) = asked_for(&proxy, &upstream, path, &body);
            assert_eq!(sent, expected, "{asked} at {path}");
            let replaced = (asked != expected).then(|| format!("{asked} -> {expected}"));
            assert_eq!(told, replaced, "{asked} at {path}");
        }
    }
    proxy.wait_for_console("claude-3-5-haiku-20241022 is not free: z-ai/glm-4.5-air:free answers instead");
    proxy.write_env(&env(&upstream, "MODEL_MAP=gpt-5=b:free"));
    let body = json!({"model": "gpt-5"});
    assert_eq!(asked_for(&proxy, &upstream, "/v1/chat/completions", &body).0, "b:free");
    proxy.wait_for_console("MODEL_MAP = gpt-5=b:free");
}

#[test]
fn nothing_paid_is_mapped_to() {
    let upstream = answering();
    let map = "MODEL_MAP=o3=openai/gpt-4o, o4=~x/latest:free, o5=openrouter/fusion:free, o6=a:free, o7=groq/x, =b:free, o8";
    let proxy = Proxy::before(&upstream, map);
    for (asked, expected) in [
        ("o3", "openrouter/free"),
        ("o4", "openrouter/free"),
        ("o5", "openrouter/free"),
        ("o6", "a:free"),
        ("o7", "openrouter/free"),
    ] {
        let (sent, _) = asked_for(&proxy, &upstream, "/v1/chat/completions", &json!({"model": asked}));
        assert_eq!(sent, expected, "{asked}");
    }
    for wrong in
        ["o3=openai/gpt-4o", "o4=~x/latest:free", "o5=openrouter/fusion:free", "o7=groq/x", "=b:free", "o8"]
    {
        proxy.wait_for_console(&format!("MODEL_MAP: {wrong} is left out"));
    }
}

/// The first that is free of those that a request names beside, wherever they stand.
#[test]
fn a_clients_own_free_models_come_first() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream, "MODEL=my/own:free\nMODEL_MAP=o3=mapped:free");
    for dialect in DIALECTS {
        for (beside, expected) in [
            (json!({"models": ["gpt-4o", "c:free", "d:free"]}), "c:free"),
            (json!({"model": "o3", "models": ["c:free"]}), "c:free"),
            (json!({"model": null, "models": ["c:free"]}), "c:free"),
            (json!({"model": "a:free", "models": ["c:free"]}), "a:free"),
            (json!({"model": "o3", "models": ["~x/y:free", "gpt-4o"]}), "mapped:free"),
            (json!({"models": ["gpt-4o"]}), "my/own:free"),
            (
                json!({"fallbacks": [{"model": "c:free"}]}),
                if dialect.path == "/v1/messages" { "c:free" } else { "my/own:free" },
            ),
        ] {
            let (sent, _) = asked_for(&proxy, &upstream, dialect.path, &beside);
            assert_eq!(sent, expected, "{beside} at {}", dialect.path);
        }
    }
}

/// No server knows a model of this name.
#[test]
fn best_never_goes_upstream() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream, "MODEL=best\nMODEL_MAP=gpt*=best\nEMBEDDING_MODEL=e:free");
    let paths = DIALECTS.iter().map(|dialect| dialect.path);
    for path in paths.chain(["/v1/embeddings", "/api/chat"]) {
        for asked in [json!("best"), json!("gpt-4o"), json!("openrouter/free"), json!("o3"), Value::Null] {
            let body = json!({"model": asked, "stream": false, "input": "x", "messages": [{"role": "user", "content": "x"}]});
            let (sent, _) = asked_for(&proxy, &upstream, path, &body);
            assert_ne!(sent, "best", "{asked} at {path}");
            assert_eq!(sent == "e:free", path == "/v1/embeddings", "{sent} for {asked} at {path}");
        }
    }
    assert!(!proxy.console().contains("best is not free"));
}

/// A router is no model, whatever its suffix, unless the upstream's own list has it.
#[test]
fn a_routers_name_is_free_where_it_is_listed() {
    let upstream = Upstream::start(|request, answer| match request.path.split('?').next().unwrap() {
        "/api/v1/models" | "/api/v1/models/user" => {
            answer.json(200, r#"{"data":[{"id":"openrouter/tried-out:free"},{"id":"a/b:free"}]}"#);
        }
        path => answer.json(200, plain_answer(path)),
    });
    let proxy = Proxy::before(&upstream, "");
    let asked = |model: &str, path: &str| {
        let beside = json!(["openrouter/tried-out:free", "openrouter/fusion:free"]);
        let body = json!({"model": model, "models": beside, "stream": false, "input": "x", "prompt": "x",
            "messages": [{"role": "user", "content": "x"}]});
        proxy.post(path, &body.to_string()).assert_status(200);
        let mut calls = upstream.received().into_iter().filter(|call| !call.body.is_empty());
        calls.next_back().unwrap().json()
    };
    for path in DIALECTS.iter().map(|dialect| dialect.path).chain(["/api/chat"]) {
        let sent = asked("openrouter/tried-out:free", path);
        assert_eq!(sent["model"], "openrouter/tried-out:free", "at the very first request, too: {path}");
        if path != "/api/chat" {
            assert_eq!(sent["models"], json!(["openrouter/tried-out:free"]), "{path}");
        }
        for router in ["openrouter/fusion:free", "~openrouter/tried-out:free"] {
            let sent = asked(router, path);
            let first = if path == "/api/chat" { "openrouter/free" } else { "openrouter/tried-out:free" };
            assert_eq!(sent["model"], first, "{router} at {path}");
        }
    }
}

#[test]
fn settings_name_no_router_and_no_alias() {
    let upstream = answering();
    let more = "MODEL=openrouter/fusion:free\nFALLBACK_MODELS=~v/f:free, openrouter/auto:free, b:free\nEMBEDDING_MODEL=~v/e:free";
    let proxy = Proxy::before(&upstream, more);
    let (sent, _) = asked_for(&proxy, &upstream, "/v1/chat/completions", &json!({}));
    assert_eq!(sent, "openrouter/free");
    proxy.post("/v1/embeddings", r#"{"input":"x"}"#).assert_status(400);
    for said in [
        "MODEL must be",
        "~v/f:free is left out",
        "openrouter/auto:free is left out",
        "EMBEDDING_MODEL must be",
    ] {
        proxy.wait_for_console(said);
    }
}
