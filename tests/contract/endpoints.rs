//! Section 1: endpoints.

use crate::fixture::*;

const MODELS: &str = r#"{"data":[{"id":"paid/model","pricing":{"prompt":"1"}},{"id":"a/b:free","name":"A","context_length":1e3,"pricing":{"prompt":"0"}},{"id":"c/d:free"}]}"#;

fn with_models() -> Upstream {
    Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/models" => answer.json(200, MODELS),
        _ => answer.fitting(request, "hi"),
    })
}

#[test]
fn every_usual_way_to_write_the_base_url() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    for prefix in ["/v1", "/api/v1", "/openai/v1", ""] {
        let request = format!(
            "POST {prefix}/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{HELLO}",
            HELLO.len()
        );
        assert_eq!(proxy.connect().exchange(&request).status, 200, "{prefix}");
        assert_eq!(upstream.last().path, "/api/v1/chat/completions");
        assert_eq!(proxy.get(&format!("{prefix}/models")).json()["object"], "list", "{prefix}");
    }
}

#[test]
fn models_are_the_free_ones_with_the_router_first() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    let list = proxy.get("/v1/models").json();
    let ids = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids, ["openrouter/free", "best", "a/b:free", "c/d:free"]);
    assert_eq!((&list["total_count"], &list["links"]["next"]), (&4.into(), &serde_json::Value::Null));
    let text = proxy.get("/v1/models").text().to_owned();
    let as_given = r#"{"id":"a/b:free","name":"A","context_length":1e3,"pricing":{"prompt":"0"}"#;
    assert!(text.contains(as_given), "{text}");
    for entry in list["data"].as_array().unwrap() {
        assert!(entry["created"].is_u64() && entry["owned_by"].is_string(), "{entry}");
        assert_eq!(entry["object"], "model");
    }
    assert_eq!(upstream.calls(), 2, "cached, and the account's own isn't there");

    assert_eq!(proxy.get("/v1/models/a/b:free").json()["name"], "A");
    assert_eq!(proxy.get("/v1/models/a%2Fb%3Afree").json()["name"], "A");
    assert_eq!(proxy.get("/v1/models/openrouter/free").json()["id"], "openrouter/free");
    assert_eq!(proxy.get("/v1/models/paid/model").status, 404);
    assert_eq!(proxy.get("/v1/models/user").json(), list);
}

#[test]
fn anthropics_clients_can_read_the_list_too() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    let ask = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\n\r\n");
        proxy.connect().exchange(&head).json()
    };
    let list = ask("/v1/models?limit=1000");
    assert_eq!((&list["has_more"], &list["first_id"]), (&false.into(), &"openrouter/free".into()));
    assert_eq!(list["last_id"], "c/d:free");
    for entry in list["data"].as_array().unwrap().iter().chain([&ask("/v1/models/a/b:free")]) {
        assert_eq!((&entry["type"], &entry["object"]), (&"model".into(), &"model".into()), "{entry}");
        assert!(entry["display_name"].is_string() && entry["created_at"].as_str().unwrap().ends_with('Z'));
    }
}

#[test]
fn without_an_upstream_there_is_what_needs_none() {
    let proxy = Start::new()
        .env_file(format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:1/v1\nBACKUPS=ollama\nOLLAMA_MODEL=llama3.2,qwen3:8b"))
        .start();
    let list = proxy.get("/v1/models").json();
    let ids = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap());
    let expected = ["openrouter/free", "best", "ollama/llama3.2", "ollama/qwen3:8b"];
    assert_eq!(ids.collect::<Vec<_>>(), expected);
    assert_eq!(proxy.get("/v1/models/ollama/qwen3:8b").json()["owned_by"], "ollama");
}

#[test]
fn an_upstream_that_keeps_silent_holds_no_list_up_for_long() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.is_empty() {
            answer.sees_close();
        } else {
            answer.say("hi")
        }
    });
    let proxy = Proxy::before(&upstream, "WORKERS=8");
    let mut clients = (0..6).map(|_| proxy.connect()).collect::<Vec<_>>();
    clients.iter_mut().for_each(|client| client.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    upstream.wait_for(1);
    assert_eq!(proxy.chat(HELLO).status, 200);
    for client in &mut clients {
        let list = client.response().json();
        assert_eq!(list["data"][0]["id"], "openrouter/free");
        assert_eq!(list["data"].as_array().unwrap().len(), 2);
    }
    let lists_asked = || upstream.received().iter().filter(|request| request.body.is_empty()).count();
    assert_eq!(lists_asked(), 1, "all waited for the same one");
    // Only the first wait for it, and nobody asks again while it hangs.
    for path in ["/v1/models", "/api/tags", "/v1/models/best", "/v1/models/user"] {
        proxy.get(path).assert_status(200);
    }
    proxy.post("/api/show", r#"{"model":"x"}"#).assert_status(200);
    assert_eq!(lists_asked(), 1, "still the first fetch, of 10 s");
}

#[test]
fn who_leaves_the_queue_leaves_its_place_in_it() {
    let upstream = Upstream::start(|_, answer| {
        answer.sees_close();
    });
    let proxy = Proxy::before(&upstream, "WORKERS=1\nQUEUE=1");
    let mut busy = proxy.connect();
    busy.send_chat(HELLO);
    upstream.wait_for(1);
    let mut queued = proxy.connect();
    queued.send_chat(HELLO);
    drop(queued);
    proxy.wait_for_console("499"); // while the other one is still at work
    let mut next = proxy.connect();
    next.send_chat(HELLO);
    drop(busy);
    upstream.wait_for(2);
    assert_eq!(upstream.calls(), 2, "those who left cost no call");
}

#[test]
fn health_answers_while_every_worker_is_busy() {
    let upstream = Upstream::start(|_, answer| {
        answer.sees_close();
    });
    let proxy = Proxy::recording(&upstream, "WORKERS=2\nQUEUE=1");
    let mut busy = (0..3).map(|_| proxy.connect()).collect::<Vec<_>>();
    busy.iter_mut().for_each(|connection| connection.send_chat(HELLO));
    upstream.wait_for(2);
    for path in ["/health", "/debug", "/debug/stats"] {
        assert_eq!(proxy.get(path).status, 200, "{path}");
    }
    assert_eq!(proxy.get("/health").json()["status"], "ok");
    let refused = eventually("a full queue", || Some(proxy.chat(HELLO)).filter(|r| r.status == 503));
    refused.assert_error(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(upstream.calls(), 2, "health, panel and refusal cost no call");
}

#[test]
fn head_is_get_without_a_body() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    for path in ["/v1/models", "/health", "/", "/nowhere"] {
        let mut connection = proxy.connect();
        let get = connection.exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = connection.head();
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        // Nothing of a body is in the way of the next answer.
        assert_eq!(connection.exchange("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    }
}

#[test]
fn the_front_page_says_where_things_are() {
    let proxy = Start::new().arg("--offline").start();
    let page = proxy.get("/");
    assert_eq!(page.status, 200);
    for endpoint in ["/v1/chat/completions", "/v1/models", "/health", "/debug"] {
        assert!(page.text().contains(endpoint), "{endpoint}");
    }
}

#[test]
fn unknown_paths_and_wrong_methods() {
    let proxy = Start::new().arg("--offline").start();
    for path in ["/v1/images", "/%64ebug", "/v1/v1/models", "/v1models", "/nowhere/"] {
        proxy.get(path).assert_error(404, "not_found");
    }
    let wrong = proxy.get("/v1/chat/completions");
    wrong.assert_error(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("POST"));
    let wrong = proxy.connect().exchange("DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wrong.assert_error(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("GET, HEAD"));
}
