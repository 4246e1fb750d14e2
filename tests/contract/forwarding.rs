//! Section 3: forwarding. Patience and the account's limit have files of their own.

use std::io::Write;
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::thread;

use crate::fixture::*;

#[test]
fn headers_to_the_upstream() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let length = HELLO.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer clients-own\r\nCookie: a=b\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
         Content-Length: {length}\r\n\r\n{HELLO}"
    );
    assert_eq!(proxy.connect().exchange(&request).status, 200);
    let sent = upstream.last();
    assert_eq!(sent.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    let here = format!("http://localhost:{}", proxy.port);
    assert_eq!(sent.header("http-referer"), Some(here.as_str()));
    assert_eq!(sent.header("x-title"), Some("LocalAPIProxy"));
    assert_eq!(sent.header("x-openrouter-title"), Some("LocalAPIProxy"));
    for gone in ["cookie", "x-hop", "te", "connection"] {
        assert_eq!(sent.header(gone), None, "{gone}");
    }

    let own = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nHTTP-Referer: https://my.app\r\nX-Title: My App\r\n\
         Content-Length: {length}\r\n\r\n{HELLO}"
    );
    proxy.connect().exchange(&own);
    let sent = upstream.last();
    assert_eq!(sent.header("http-referer"), Some("https://my.app"));
    assert_eq!(sent.header("x-title"), Some("My App"));
}

#[test]
fn headers_to_the_client() {
    let upstream = Upstream::start(|_, answer| {
        let headers = "content-type: application/json\r\nset-cookie: a=b\r\nx-generation-id: g\r\nx-request-id: r\r\n\
                       x-ratelimit-limit: 20\r\nkeep-alive: timeout=5\r\nserver: x\r\n";
        answer.respond(200, headers, &completion("hi"));
    });
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.chat(HELLO);
    assert_eq!(response.text(), completion("hi"));
    for (name, value) in [("x-generation-id", "g"), ("x-request-id", "r"), ("x-ratelimit-limit", "20")] {
        assert_eq!(response.header(name), Some(value));
    }
    for gone in ["set-cookie", "keep-alive", "server", "transfer-encoding"] {
        assert_eq!(response.header(gone), None, "{gone}");
    }
}

#[test]
fn the_upstreams_own_errors_pass_through() {
    let error = r#"{"error":{"code":400,"message":"bad thing","metadata":{"x":1.0}}}"#;
    for status in [400, 401, 402, 403, 404, 413, 422] {
        let upstream = Upstream::start(move |_, answer| answer.json(status, error));
        let proxy = Proxy::before(&upstream, "");
        for body in [HELLO, HELLO_STREAM] {
            let response = proxy.chat(body);
            assert_eq!((response.status, response.text()), (status, error));
            let stays = matches!(status, 401..=403).then_some("false");
            assert_eq!(
                response.header("x-should-retry"),
                stays,
                "{status}: Claude Code repeats it for minutes otherwise"
            );
        }
        assert_eq!(upstream.calls(), 2, "{status} is not tried again");
    }
}

#[test]
fn a_token_is_there_before_the_next_one_is_made() {
    let (ask, asked) = channel::<()>();
    let asked = Mutex::new(asked);
    let upstream = Upstream::start(move |_, answer| {
        let asked = asked.lock().unwrap();
        answer.stream_head();
        for piece in
            [": OPENROUTER PROCESSING\n\n", &delta("one"), &delta("two"), &last_delta(), "data: [DONE]\n\n"]
        {
            answer.piece(piece);
            asked.recv().unwrap(); // until the client has it
        }
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO_STREAM);
    let head = client.head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-cache"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    for piece in
        [": OPENROUTER PROCESSING\n\n", &delta("one"), &delta("two"), &last_delta(), "data: [DONE]\n\n"]
    {
        assert_eq!(client.read_until("\n\n"), piece);
        ask.send(()).unwrap();
    }
    assert_eq!(client.rest_of_chunks(), "");
}

#[test]
fn every_byte_is_handed_on_at_once() {
    let (ask, asked) = channel::<()>();
    let asked = Mutex::new(asked);
    let rest = format!(": 你好\r\n\r\nevent: x\ndata: {{}}\n\n{}data: [DONE]\n\n", last_delta());
    let bytes = rest.clone().into_bytes();
    let upstream = Upstream::start(move |_, answer| {
        let asked = asked.lock().unwrap();
        answer.stream_head();
        answer.piece(&delta("first"));
        for byte in &bytes {
            asked.recv().unwrap();
            answer.raw([b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        }
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO_STREAM);
    client.head();
    assert_eq!(client.read_until("\n\n"), delta("first"));
    for byte in rest.as_bytes() {
        ask.send(()).unwrap();
        assert_eq!(client.raw_chunk(), Some(vec![*byte]));
    }
    assert_eq!(client.rest_of_chunks(), "");
}

#[test]
fn an_answer_that_takes_long_holds_up_nobody() {
    let (ask, asked) = channel::<()>();
    let asked = Mutex::new(asked);
    let upstream = Upstream::start(move |request, answer| {
        if request.body.contains("long") {
            asked.lock().unwrap().recv().unwrap();
        }
        answer.fitting(request, "an answer");
    });
    let proxy = Proxy::before(&upstream, "");
    // Also where there is nothing to be done before the waiting begins, not even a connection to be made.
    for round in 1..=100 {
        let mut slow = proxy.connect();
        slow.send_chat(&HELLO.replace("hello", "long"));
        upstream.wait_for(2 * round - 1);
        proxy.get("/health").assert_status(200);
        proxy.chat(HELLO).assert_status(200);
        ask.send(()).unwrap();
        slow.response().assert_status(200);
    }
}

#[test]
fn many_streams_at_once() {
    let together = Barrier::new(64);
    let upstream = Upstream::start(move |_, answer| {
        answer.stream_head();
        answer.piece(&delta("begun"));
        together.wait(); // all 64 are under way at the same time
        answer.piece(&last_delta());
        answer.piece("data: [DONE]\n\n");
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let response = proxy.chat(HELLO_STREAM);
                assert_eq!(response.text(), delta("begun") + &last_delta() + "data: [DONE]\n\n");
            });
        }
    });
}

#[test]
fn a_client_that_leaves_closes_the_upstream_connection() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |request, answer| {
        if request.streams() {
            answer.stream_head();
            answer.piece(&delta("begun"));
        }
        // Nothing more is sent: the leaving must be noticed all the same.
        tell.lock().unwrap().send(answer.sees_close()).unwrap();
    });
    let proxy = Proxy::recording(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO_STREAM);
    client.read_head_and_until("begun");
    drop(client);
    assert!(told.recv_timeout(GUARD).unwrap(), "while streaming");
    let files = proxy.files(2);
    let error = &files.iter().find(|(name, _)| name.contains("_ERROR_")).unwrap().1["data"];
    assert_eq!(error["error"]["code"], "client_closed");
    assert_eq!(error["partial"]["choices"][0]["message"]["content"], "begun");

    let mut client = proxy.connect();
    client.send_chat(HELLO);
    upstream.wait_for(2);
    drop(client);
    assert!(told.recv_timeout(GUARD).unwrap(), "before the answer");
}

#[test]
fn an_upstream_that_breaks_off_in_the_middle() {
    let upstream = Upstream::start(|request, answer| {
        answer.stream_head();
        answer.piece(&delta("half"));
        match request.number {
            1 => answer.raw("5\r\nda"),               // in the middle of a chunk
            2 => answer.end(),                        // without [DONE] and finish_reason
            3 => answer.piece("data: {\"id\":\"cut"), // in the middle of an event
            _ => {}
        }
        answer.close();
    });
    let proxy = Proxy::recording(&upstream, "");
    for number in 1..=4 {
        let response = proxy.chat(HELLO_STREAM);
        assert_eq!(response.status, 200);
        let text = response.text();
        assert!(text.starts_with(&delta("half")), "{number}: {text}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let event: serde_json::Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event["error"]["code"], 502, "{number}");
        assert_eq!(event["choices"][0]["finish_reason"], "error");
        assert!(!text.contains("[DONE]"));
    }
    assert_eq!(upstream.calls(), 4, "never after a part of the answer has gone out");
    let files = proxy.files(8);
    let partial = &files.iter().find(|(name, _)| name.contains("_ERROR_")).unwrap().1["data"]["partial"];
    assert_eq!(partial["choices"][0]["message"]["content"], "half");
}

/// However the last line is written.
const ENDS: [&str; 7] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}",
    "data: [DONE]\n\n",
    "data: [DONE]\r\n\r\n",
    "data: [DONE]\n",
    "data: [DONE]",
    "data:[DONE]\r",
];

#[test]
fn a_stream_whose_end_was_said_is_whole() {
    let upstream = Upstream::start(|request, answer| {
        answer.stream_head();
        answer.piece(&delta("all of it"));
        answer.piece(ENDS[request.number - 1]);
        match request.number {
            1 | 2 => answer.end(), // after [DONE] it may be missing
            _ => answer.close(),
        }
    });
    let proxy = Proxy::before(&upstream, "");
    for end in ENDS {
        assert_eq!(proxy.chat(HELLO_STREAM).text(), delta("all of it") + end, "{end:?}");
    }
}

#[test]
fn a_mid_stream_error_of_the_upstream_arrives_as_it_is() {
    let error = "data: {\"id\":\"g\",\"error\":{\"code\":502,\"message\":\"x\"},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n";
    let upstream = Upstream::start(move |_, answer| {
        answer.stream_head();
        answer.piece(&delta("half"));
        answer.piece(error);
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.chat(HELLO_STREAM).text(), delta("half") + error);
}

#[test]
fn silence_is_an_error_and_slowness_is_not() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("slowly") {
            answer.stream_head();
            for _ in 0..14 {
                thread::sleep(std::time::Duration::from_millis(100)); // this is what is tried here
                answer.piece(": OPENROUTER PROCESSING\n\n");
            }
            answer.piece(&delta("at last"));
            answer.piece(&last_delta());
            answer.piece("data: [DONE]\n\n");
            return answer.end();
        }
        if request.streams() {
            answer.stream_head();
            answer.piece(&delta("half"));
        }
        answer.sees_close();
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "UPSTREAM_TIMEOUT=1");
    proxy.chat(HELLO).assert_error(504, "upstream_timeout");
    assert_eq!(upstream.calls(), 1, "silence is not tried again");
    let response = proxy.chat(HELLO_STREAM);
    assert!(response.text().contains(r#""code":504"#), "{response:?}");
    let slow = HELLO_STREAM.replace("hello", "slowly");
    assert!(proxy.chat(&slow).text().ends_with("data: [DONE]\n\n"));
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Upstream::saying("the key was here");
    let url = elsewhere.url();
    let upstream = Upstream::start(move |_, answer| {
        answer.respond(307, &format!("location: {url}/chat/completions\r\n"), "")
    });
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.chat(HELLO);
    assert_eq!((response.status, response.header("location")), (307, None));
    assert_eq!(elsewhere.calls(), 0);
}

#[test]
fn long_answers_are_relayed_as_they_come() {
    let long = "x".repeat(10 << 20);
    let answer_body = completion(&long);
    let expected = answer_body.clone();
    let upstream = Upstream::start(move |request, answer| match request.number {
        1 => answer.json(200, &answer_body),
        _ => {
            answer.raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
                answer_body.len(),
                &answer_body[..9 << 20]
            ));
            answer.close();
        }
    });
    let proxy = Proxy::before(&upstream, "");
    assert!(proxy.chat(HELLO).text() == expected, "arrives whole");
    // One that breaks off can't be mistaken for a whole one.
    let mut client = proxy.connect();
    client.send_chat(HELLO);
    client.head();
    let cut = thread::spawn(move || client.rest_of_chunks()).join();
    assert!(cut.is_err(), "the last chunk has no size");
}

#[test]
fn compressed_answers_are_not_passed_on_compressed() {
    let upstream = Upstream::start(|_, answer| {
        let headers = "content-type: application/json\r\ncontent-encoding: br\r\n";
        answer.respond(200, headers, "????");
    });
    let proxy = Proxy::before(&upstream, "");
    proxy.chat(HELLO).assert_error(502, "upstream_error");
    assert_eq!(upstream.last().header("accept-encoding"), Some("identity"));
}

/// Asked for `identity`, an upstream may still compress.
#[test]
fn gzip_is_decoded() {
    let upstream = Upstream::start(|_, answer| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(completion("unpacked").as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        let length = packed.len();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n";
        answer.raw(format!("{head}content-length: {length}\r\n\r\n"));
        answer.raw(packed);
    });
    let proxy = Proxy::before(&upstream, "");
    for _ in 0..2 {
        let response = proxy.chat(HELLO);
        assert_eq!(response.json()["choices"][0]["message"]["content"], "unpacked");
        assert_eq!(response.header("content-encoding"), None);
    }
}

#[test]
fn http_1_0_clients_get_no_chunks() {
    let upstream = Upstream::saying("hi there");
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    let length = HELLO_STREAM.len();
    client.send(format!(
        "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{HELLO_STREAM}"
    ));
    let response = client.response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.text(), delta("hi ") + &delta("there") + &last_delta() + "data: [DONE]\n\n");
}

#[test]
fn a_connection_is_used_again_and_again() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    for number in 1..=20 {
        let body = if number % 2 == 0 { HELLO } else { HELLO_STREAM };
        assert_eq!(client.chat(body).status, 200);
    }
    let connections = upstream.received().iter().map(|r| r.connection).max();
    assert!(connections < Some(4), "and so are those to the upstream: {connections:?} for twenty");
}

#[test]
fn chunked_and_expected_bodies_arrive() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let post = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
    let (first, second) = HELLO.split_at(20);
    let chunked = format!(
        "{post}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x};ext=1\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    assert_eq!(proxy.connect().exchange(&chunked).status, 200);
    assert_eq!(upstream.last().body, HELLO);

    let mut client = proxy.connect();
    client.send(format!("{post}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", HELLO.len()));
    assert_eq!(client.head().status, 100);
    client.send(HELLO);
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.last().body, HELLO);
}
