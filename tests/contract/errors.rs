//! Section 7: errors of the proxy's own. Those of other sections are tried there.

use crate::fixture::*;

#[test]
fn bodies_that_cannot_be_understood() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    for body in ["", "no", "[]", "1", "{", r#"{"a":1,}"#, "{}{}", "\u{0}"] {
        proxy.chat(body).assert_error(400, "invalid_json");
    }
    let mut connection = proxy.connect();
    connection.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{\"a\":\"\xFF\"}",
    );
    connection.response().assert_error(400, "invalid_json");
    let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
    proxy.chat(&deep).assert_error(400, "invalid_json");
    assert_eq!(upstream.calls(), 0);
    assert_eq!(names_in(&proxy.dir.join("cache")), Vec::<String>::new(), "they leave no files");
}

#[test]
fn bodies_that_are_too_large() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MAX_BODY_MB=1");
    let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat((1 << 20) - 8));
    assert_eq!(fits.len(), 1 << 20);
    assert_eq!(proxy.chat(&fits).status, 200);
    proxy.chat(&(fits + " ")).assert_error(413, "body_too_large");

    // Refused before it is sent.
    for length in ["1048577", "1000000000000000"] {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        );
        proxy.connect().exchange(&head).assert_error(413, "body_too_large");
    }
    let mut chunks = String::from(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..17 {
        chunks.push_str(&format!("10000\r\n{}\r\n", "y".repeat(65536)));
    }
    proxy.connect().exchange(&(chunks + "0\r\n\r\n")).assert_error(413, "body_too_large");
    assert_eq!(proxy.chat(HELLO).status, 200);
}

#[test]
fn doubtful_framing_is_refused() {
    let proxy = Start::new().arg("--offline").start();
    let post = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
    for framing in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "Content-Length: two\r\n\r\n",
        "Content-Length: +2\r\n\r\n{}",
        "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "X-Title: a\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
        "X-Title: a\rX-Other: b\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        proxy.connect().exchange(&format!("{post}{framing}")).assert_error(400, "bad_request");
    }
    let broken = format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n");
    proxy.connect().exchange(&broken).assert_error(400, "invalid_json");
}

#[test]
fn without_a_key_it_says_what_to_do() {
    let upstream = Upstream::saying("hi");
    let without = format!("OPENROUTER_BASE_URL={}\n", upstream.url());
    let proxy = Start::new().env_file(&without).start();
    proxy.chat(HELLO).assert_error(401, "missing_api_key");
    proxy.wait_for_console("MISSING");
    proxy.write_env(&env(&upstream, ""));
    assert_eq!(proxy.chat(HELLO).status, 200, "needs no restart");
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn an_upstream_that_cannot_be_reached() {
    let proxy = Start::new()
        .env_file(format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:1/v1\nRETRIES=0"))
        .start();
    for body in [HELLO, HELLO_STREAM] {
        proxy.chat(body).assert_error(502, "upstream_unreachable");
    }
    proxy.write_env(&format!(
        "OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://no-such-host.invalid/v1\nRETRIES=0"
    ));
    proxy.chat(HELLO).assert_error(502, "upstream_unreachable");
}

/// What Windows' shells make of a README's first line: whoever gets that far is told the line that works there.
/// Where a proxy is on the way, it may be the one that can't be reached.
#[test]
fn a_proxy_that_cannot_be_reached_is_named() {
    let start = Start::new().env_file(format!(
        "OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://upstream.test/v1\nRETRIES=0\nHTTP_PROXY=http://me:pass-word@127.0.0.1:1\n"
    ));
    let proxy = start.start();
    let response = proxy.chat(HELLO);
    response.assert_error(502, "upstream_unreachable");
    assert!(response.text().contains("the proxy 127.0.0.1:1: connection refused"), "{}", response.text());
    proxy.wait_for_console("via      the proxy 127.0.0.1:1");
    assert!(!response.text().contains("pass-word") && !proxy.console().contains("pass-word"));
}

#[test]
fn a_key_that_is_refused_is_told_with_the_way_out() {
    let upstream = Upstream::start(|_, answer| {
        answer.json(401, r#"{"error":{"code":401,"message":"User not found."}}"#);
    });
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.chat(HELLO);
    assert_eq!((response.status, &response.json()["error"]["message"]), (401, &"User not found.".into()));
    proxy.wait_for_console("User not found. (the key ...wxyz isn't taken: make a new one");
}

#[test]
fn spoilt_bodies_are_recognized() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let address = format!("http://localhost:{}/v1/chat/completions", proxy.port);
    let send = |body: &[u8]| {
        let mut connection = proxy.connect();
        let length = body.len();
        connection.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        ));
        connection.send(body);
        connection.response()
    };
    for (body, line) in [
        (&b"'{messages:[{role:user,content:Hello}]}'"[..], format!("curl {address} -d \"{{\\\"messages")),
        (
            b"{messages:[{role:user,content:Hello}]}",
            format!("Invoke-RestMethod {address} -Method Post -Body '{{\""),
        ),
        (
            b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xC4\xE3\xBA\xC3\"}]}",
            format!("curl {address} -d @body.json"),
        ),
    ] {
        let refused = send(body);
        refused.assert_error(400, "invalid_json");
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&line), "{message}");
        // The line's own body is one that works.
        if let Some(body) = message.split(" -Body '").nth(1) {
            assert_eq!(proxy.chat(body.split('\'').next().unwrap()).status, 200);
        }
    }
    let json = r#"{"model":"some/model:free","messages":[{"role":"user","content":"你好"}]}"#;
    for mark in [true, false] {
        let units = mark.then_some(0xFEFF).into_iter().chain(json.encode_utf16());
        assert_eq!(send(&units.flat_map(u16::to_le_bytes).collect::<Vec<_>>()).status, 200);
        assert_eq!(upstream.last().body, json);
    }
}

#[test]
fn errors_name_the_cause() {
    let start = Start::new().env_file(format!(
        "OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://no-such-name.invalid/v1\nRETRIES=0\n"
    ));
    let proxy = start.start();
    let refused = proxy.chat(HELLO);
    refused.assert_error(502, "upstream_unreachable");
    assert!(refused.text().contains("no-such-name.invalid: its name can't be looked up"), "{refused:?}");

    let port = proxy.port;
    let strange = proxy.connect().exchange("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    strange.assert_error(403, "forbidden_host");
    assert!(strange.text().contains(&format!("http://localhost:{port} ")), "{strange:?}");
    for (path, meant) in [
        ("/v1/v1/messages", format!("set its base URL to http://localhost:{port}.")),
        ("/v1/chat/completions/chat/completions", format!("set its base URL to http://localhost:{port}/v1.")),
        ("/v1/chat/completion", "Did you mean /v1/chat/completions?".to_owned()),
        ("/v1/images/generations", "No free model that makes images is known.".to_owned()),
        ("/v1/files", "send their content inside of the request".to_owned()),
        ("/v1/batches", "send each request by itself".to_owned()),
    ] {
        let refused = proxy.post(path, "{}");
        refused.assert_status(404);
        let error = refused.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error", "it isn't the model's fault: {path}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("POST {path}")) && message.contains(&meant), "{message}");
    }
}
