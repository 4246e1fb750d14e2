//! Errors of the proxy's own, in the dialect of the path that was asked.

use super::*;

/// The same door, written otherwise.
fn ways(dialect: &Dialect) -> [String; 5] {
    let bare = &dialect.path["/v1".len()..];
    [
        dialect.path.to_owned(),
        bare.to_owned(),
        format!("/api/v1{bare}"),
        format!("/v1/{bare}/"),
        format!("{}?beta=true", dialect.path),
    ]
}

#[track_caller]
fn assert_own(dialect: &Dialect, response: &Response, status: u16, code: &str) {
    let name = format!("{} {code}: {response:?}", dialect.name);
    assert_eq!(response.status, status, "{name}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{name}");
    (dialect.assert_error)(&response.json(), status, Some(code));
    assert!(response.json()["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{name}");
}

#[test]
fn bodies_that_cannot_be_understood_in_every_dialect() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "MAX_BODY_MB=1");
    for dialect in DIALECTS {
        for path in ways(dialect) {
            for body in ["", "no", "[]", "null", "{", r#"{"model":"a:free",}"#, "{}{}"] {
                assert_own(dialect, &proxy.post(&path, body), 400, "invalid_json");
            }
            let mut client = proxy.connect();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"));
            client.send(b"{\"a\":\"\xFF\"}");
            assert_own(dialect, &client.response(), 400, "invalid_json");
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n");
            assert_own(dialect, &proxy.connect().exchange(&head), 413, "body_too_large");
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn requests_that_are_not_let_in_in_every_dialect() {
    let upstream = Upstream::saying("never asked");
    let open = Proxy::before(&upstream, "");
    let locked = Proxy::before(&upstream, "PROXY_API_KEY=let-me-in");
    let without_key = Start::new().env_file(format!("OPENROUTER_BASE_URL={}\n", upstream.url())).start();
    for dialect in DIALECTS {
        for path in ways(dialect) {
            let body = dialect.request("hello", true);
            let ask = |proxy: &Proxy, method: &str, headers: &str| {
                let length = body.len();
                let head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n");
                proxy.connect().exchange(&(head + &body))
            };
            let here = "Host: localhost\r\n";
            assert_own(dialect, &ask(&without_key, "POST", here), 401, "missing_api_key");
            assert_own(dialect, &ask(&locked, "POST", here), 401, "invalid_proxy_key");
            let wrong = format!("{here}x-api-key: let-me\r\n");
            assert_own(dialect, &ask(&locked, "POST", &wrong), 401, "invalid_proxy_key");
            assert_own(dialect, &ask(&open, "POST", "Host: evil.example\r\n"), 403, "forbidden_host");
            let origin = format!("{here}Origin: https://evil.example\r\n");
            assert_own(dialect, &ask(&open, "POST", &origin), 403, "forbidden_origin");
            let wrong = ask(&open, "PUT", here);
            assert_own(dialect, &wrong, 405, "method_not_allowed");
            assert_eq!(wrong.header("allow"), Some("POST"), "{path}");
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn unknown_paths_below_a_dialects_own() {
    let proxy = Start::new().arg("--offline").start();
    for dialect in DIALECTS {
        assert_own(dialect, &proxy.get(&format!("{}/some_id", dialect.path)), 404, "not_found");
        assert_own(dialect, &proxy.post(&format!("{}/batches", dialect.path), "{}"), 404, "not_found");
    }
}

/// What HTTP itself is against.
#[test]
fn refusals_of_the_head_in_every_dialect() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "");
    let mut failed = Vec::new();
    for (headers, status, code) in [
        ("Content-Length: 2\r\nContent-Encoding: br", 415, "bad_request"),
        ("Content-Length: 2\r\nExpect: wonders", 417, "bad_request"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", 400, "bad_request"),
        ("Content-Length: two", 400, "bad_request"),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
            426,
            "upgrade_unsupported",
        ),
    ] {
        for dialect in DIALECTS {
            let request =
                format!("POST {} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{{}}", dialect.path);
            let response = proxy.connect().exchange(&request);
            assert_eq!(response.status, status, "{headers}: {response:?}");
            let body = response.json();
            let own = if dialect.name == MESSAGES.name {
                body["type"] == "error" && body["error"]["type"] == "invalid_request_error"
            } else {
                body["error"]["code"] == code && body["error"]["type"].is_string()
            };
            if !own {
                failed.push(format!("{} {status}: {body}", dialect.name));
            }
        }
    }
    assert_eq!(upstream.calls(), 0);
    assert!(failed.is_empty(), "not in the path's dialect:\n  {}", failed.join("\n  "));
}

#[test]
fn an_upstream_that_cannot_be_reached_in_every_dialect() {
    let nobody = format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:1/v1\nRETRIES=0");
    let proxy = Start::new().env_file(nobody).start();
    for dialect in DIALECTS {
        for streamed in [false, true] {
            let response = proxy.post(dialect.path, &dialect.request("hello", streamed));
            assert_own(dialect, &response, 502, "upstream_unreachable");
        }
    }
}

#[test]
fn a_full_proxy_says_so_in_every_dialect() {
    let upstream = Upstream::start(|_, answer| {
        answer.sees_close();
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "WORKERS=1\nQUEUE=0");
    let mut busy = proxy.connect();
    busy.send_post(CHAT.path, &CHAT.request("hello", true));
    upstream.wait_for(1);
    for dialect in DIALECTS {
        let full = proxy.post(dialect.path, &dialect.request("hello", true));
        assert_own(dialect, &full, 503, "overloaded");
        assert_eq!(full.header("retry-after"), Some("1"), "{}", dialect.name);
    }
    assert_eq!(upstream.calls(), 1);
}

/// It answers by itself, and so do its errors.
#[test]
fn counting_tokens_speaks_the_dialect_of_messages() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "");
    for path in
        ["/v1/messages/count_tokens", "/messages/count_tokens?beta=true", "/api/v1/messages/count_tokens"]
    {
        assert_own(&MESSAGES, &proxy.post(path, "no"), 400, "invalid_json");
        let count = |body: &str| {
            let response = proxy.post(path, body);
            assert_eq!(response.status, 200, "{response:?}");
            response.json()["input_tokens"].as_u64().unwrap()
        };
        let short = r#"{"model":"claude","messages":[{"role":"user","content":"hello"}]}"#;
        let long = short.replace("hello", &"hello there ".repeat(500));
        let with_tools = short.replacen('{', r#"{"tools":[{"name":"f","description":"what it is good for","input_schema":{"type":"object"}}],"#, 1);
        let with_system = short.replacen('{', r#"{"system":"be brief and kind to everybody who asks","#, 1);
        assert!(count(short) > 0);
        for more in [&long, &with_tools, &with_system] {
            assert!(count(more) > count(short), "{more}");
        }
    }
    assert_eq!(upstream.calls(), 0);
}

/// Anthropic's SDKs send only what is new of a conversation that the server keeps, and everything once they are told that
/// none does; the model would know nothing of what came before.
#[test]
fn conversations_that_somebody_else_is_to_have_kept() {
    let upstream = Upstream::start(|_, answer| answer.json(200, MESSAGES.plain));
    let proxy = Proxy::before(&upstream, "");
    let with =
        |thread: &str| MESSAGES.request("hello", false).replacen('{', &format!("{{\"thread\":{thread},"), 1);
    for streamed in [false, true] {
        let body = MESSAGES.request("hello", streamed);
        let goes_on = r#"{"thread":{"type":"continue","previous_message_id":"gen-1"},"#;
        let refused = proxy.post(MESSAGES.path, &body.replacen('{', goes_on, 1));
        assert_own(&MESSAGES, &refused, 400, "thread_unsupported_request");
        let details = &refused.json()["error"]["details"];
        assert_eq!(
            details,
            &serde_json::json!({"error_code": "thread_unsupported_request", "unsupported": []})
        );
    }
    assert_eq!(upstream.calls(), 0);
    for whole in [r#"{"type":"create"}"#, "null", "{}", "3"] {
        let body = with(whole);
        assert_eq!(proxy.post(MESSAGES.path, &body).status, 200, "{whole}");
        let sent = upstream.received().pop().unwrap().json();
        assert_eq!(sent["thread"], serde_json::from_str::<Value>(whole).unwrap());
    }
}
