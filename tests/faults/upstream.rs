//! An upstream that fails at every stage.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::assert_serves;
use crate::fixture::*;

/// One that does `fault` when asked for it, and answers everything else.
fn faulty(fault: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request, answer| {
        if request.body.contains("fault") { fault(request, answer) } else { answer.fitting(request, "hi") }
    })
}

fn asking_for_it(body: &str) -> String {
    body.replace("hello", "fault")
}

fn head(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}\r\n")
}

#[test]
fn nobody_there() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    proxy.write_env(&format!(
        "OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:1/api/v1\nRETRIES=0"
    ));
    proxy.chat(HELLO).assert_error(502, "upstream_unreachable");
    proxy.write_env(&env(&upstream, ""));
    assert_serves(&proxy);
}

#[test]
fn an_end_or_a_reset_at_each_stage() {
    type Stage = (&'static str, fn(&mut Answer<'_>));
    let stages: [Stage; 8] = [
        ("before the head", |_| {}),
        ("in the status line", |a| a.raw("HTTP/1.1 20")),
        ("in the headers", |a| a.raw("HTTP/1.1 200 OK\r\ncontent-ty")),
        ("after the head", |a| a.raw(head("content-length: 100\r\n"))),
        ("in the body", |a| a.raw(head("content-length: 100\r\n") + "{\"choices\":")),
        ("in a chunk", |a| a.raw(head("transfer-encoding: chunked\r\n") + "40\r\n{\"choi")),
        ("between chunks", |a| a.raw(head("transfer-encoding: chunked\r\n") + "2\r\n{}\r\n")),
        ("in a chunk's size", |a| a.raw(head("transfer-encoding: chunked\r\n") + "2\r\n{}\r\n1")),
    ];
    type End = (&'static str, fn(&mut Answer<'_>));
    let ends: [End; 2] = [("end", |a| a.close()), ("reset", |a| a.reset())];
    for (end, finish) in ends {
        for (stage, fault) in stages {
            let upstream = faulty(move |_, answer| {
                fault(answer);
                finish(answer);
            });
            let proxy = Proxy::before(&upstream, "RETRIES=0");
            let response = proxy.chat(&asking_for_it(HELLO));
            assert_eq!(response.status, 502, "{end} {stage}: {response:?}");
            response.assert_error(502, "upstream_error");
            assert_serves(&proxy);
        }
    }
}

#[test]
fn a_stream_that_ends_or_is_reset_at_each_stage() {
    type Stage = (&'static str, fn(&mut Answer<'_>));
    let stages: [Stage; 4] = [
        ("after the first event", |a| a.piece(&delta("half"))),
        ("in an event", |a| a.piece(&format!("{}data: {{\"choi", delta("half")))),
        ("in a chunk", |a| a.raw(format!("{:x}\r\n{}", 10_000, delta("half")))),
        ("in a comment", |a| a.piece(&format!("{}: OPENROU", delta("half")))),
    ];
    type End = (&'static str, fn(&mut Answer<'_>));
    let ends: [End; 3] = [
        ("last chunk", |a| {
            a.end();
            a.close();
        }),
        ("end", |a| a.close()),
        ("reset", |a| a.reset()),
    ];
    for (end, finish) in ends {
        for (stage, fault) in stages {
            let upstream = faulty(move |_, answer| {
                answer.stream_head();
                fault(answer);
                finish(answer);
            });
            let proxy = Proxy::before(&upstream, "RETRIES=0");
            let response = proxy.chat(&asking_for_it(HELLO_STREAM));
            response.assert_status(200);
            let text = response.text();
            let (before, error) = text.rsplit_once("data: ").unwrap();
            assert!(before.starts_with(&delta("half")), "{end} {stage}: {text}");
            let error = serde_json::from_str::<serde_json::Value>(error.trim_end());
            let error = error.unwrap_or_else(|e| panic!("{end} {stage}: {e}: {text}"));
            assert_eq!(error["error"]["code"], 502, "{end} {stage}: {text}");
            assert_eq!(error["choices"][0]["finish_reason"], "error", "{end} {stage}: {text}");
            // A request between an answer and its connection's end is reset, as one is that was read.
            upstream.wait_for_closed(1);
            assert_serves(&proxy);
        }
    }
}

#[test]
fn silence_at_each_stage() {
    type Stage = (&'static str, fn(&mut Answer<'_>));
    let stages: [Stage; 4] = [
        ("before the head", |_| {}),
        ("in the headers", |a| a.raw("HTTP/1.1 200 OK\r\ncontent-ty")),
        ("after the head", |a| a.raw(head("content-length: 100\r\n"))),
        ("in the body", |a| a.raw(head("content-length: 100\r\n") + "{\"choices\":")),
    ];
    let proxies = stages.map(|(stage, fault)| {
        let upstream = faulty(move |_, answer| {
            fault(answer);
            answer.sees_close();
            answer.close();
        });
        let proxy = Proxy::before(&upstream, "UPSTREAM_TIMEOUT=1");
        let mut client = proxy.connect();
        client.send_chat(&asking_for_it(HELLO));
        (stage, upstream, proxy, client)
    });
    for (stage, _upstream, proxy, mut client) in proxies {
        let response = client.response();
        assert_eq!(response.status, 504, "{stage}: {response:?}");
        assert_serves(&proxy);
    }
}

#[test]
fn a_pooled_connection_closed_between_requests_a_hundred_times() {
    let upstream = Upstream::start(|request, answer| {
        answer.fitting(request, "hi");
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for number in 1..=100 {
        let response = proxy.chat(HELLO);
        assert_eq!(response.status, 200, "{response:?}");
        upstream.wait_for_closed(number);
    }
    assert_eq!(upstream.calls(), 100, "and none was asked twice");
}

/// Too late for the look at a pooled connection before it is used.
#[test]
fn a_pooled_connection_closed_while_a_request_is_on_its_way() {
    let upstream = Upstream::start(|request, answer| {
        answer.fitting(request, "hi");
        answer.close_unread();
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for number in 1..=20 {
        let response = proxy.chat(HELLO);
        assert_eq!(response.status, 200, "{number}: {response:?}");
        assert_eq!(response.header("x-proxy-attempts"), None);
    }
    assert_eq!(upstream.calls(), 20, "and none was asked twice");
}

/// By a firewall on the way, which resets what it doesn't know.
#[test]
fn a_pooled_connection_forgotten_while_it_was_idle() {
    let upstream = Upstream::start(|request, answer| match request.number {
        2 => answer.reset(),
        _ => answer.fitting(request, "hi"),
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    assert_serves(&proxy);
    thread::sleep(Duration::from_millis(5500)); // this is what is tried here
    assert_serves(&proxy);
    let connections = upstream.received().iter().map(|request| request.connection).collect::<Vec<_>>();
    assert_eq!(connections, [1, 1, 2]);
}

#[test]
fn answers_that_are_no_answers() {
    type Fault = (&'static str, fn(&mut Answer<'_>), u16);
    let faults: [Fault; 6] = [
        ("endless headers", |a| (0..200_000).for_each(|n| a.raw(format!("x-{n}: endless\r\n"))), 502),
        ("too long a length", |a| a.raw(head("content-length: 500\r\n") + "{}"), 502),
        ("a length that is none", |a| a.raw(head("content-length: many\r\n") + "{}"), 502),
        (
            "broken gzip",
            |a| a.raw(head("content-encoding: gzip\r\ncontent-length: 6\r\n") + "\x1f{bro}"),
            502,
        ),
        ("no HTTP", |a| a.raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502),
        ("HTML", |a| a.respond(503, "content-type: text/html\r\n", "<h1>down</h1>"), 503),
    ];
    for (what, fault, status) in faults {
        let upstream = faulty(move |_, answer| {
            answer.raw("HTTP/1.1 200 OK\r\n".repeat(usize::from(what == "endless headers")));
            fault(answer);
            answer.close();
        });
        let proxy = Proxy::before(&upstream, "RETRIES=0");
        for (body, asked) in [(HELLO, 1), (HELLO_STREAM, 2)] {
            let response = proxy.chat(&asking_for_it(body));
            assert_eq!(response.status, status, "{what}: {response:?}");
            // A request between an answer and its connection's end is reset, as one is that was read.
            upstream.wait_for_closed(asked);
        }
        assert_serves(&proxy);
    }
}

#[test]
fn an_event_of_ten_megabytes() {
    let upstream = faulty(|_, answer| {
        answer.stream_head();
        answer.piece(&delta(&"y".repeat(10 << 20)));
        answer.piece(&last_delta());
        answer.piece("data: [DONE]\n\n");
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(&asking_for_it(HELLO_STREAM));
    assert_eq!(client.head().status, 200);
    let mut received = 0;
    let mut end = Vec::new();
    while let Some(chunk) = client.raw_chunk() {
        received += chunk.len();
        end = chunk;
    }
    assert!(received > 10 << 20 && end.ends_with(b"data: [DONE]\n\n"), "{received}");
    assert_serves(&proxy);
}

#[test]
#[ignore = "a gigabyte takes some seconds"]
fn a_body_of_a_gigabyte_takes_no_memory() {
    const CHUNKS: usize = 16 * 1024;
    let upstream = faulty(|_, answer| {
        answer.raw(head("transfer-encoding: chunked\r\n"));
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..CHUNKS {
            answer.raw(&chunk);
        }
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    assert_serves(&proxy);
    let before = proxy.usage();
    let mut client = proxy.connect();
    client.send_chat(&asking_for_it(HELLO));
    assert_eq!(client.head().status, 200);
    let mut received = 0;
    while let Some(chunk) = client.raw_chunk() {
        received += chunk.len();
    }
    assert_eq!(received, CHUNKS * 0x10000);
    let after = proxy.usage();
    println!("{before:?} {after:?}");
    assert!(after.peak_kib < before.peak_kib + 32 * 1024, "{after:?}");
    assert_serves(&proxy);
}

/// A comment every 10 s of a day, without the waiting.
#[test]
fn a_day_of_comments() {
    const COMMENTS: usize = 24 * 3600 / 10;
    let sent = AtomicUsize::new(0);
    let upstream = faulty(move |_, answer| {
        answer.stream_head();
        while sent.fetch_add(1, Ordering::Relaxed) < COMMENTS {
            answer.piece(": OPENROUTER PROCESSING\n\n");
        }
        answer.piece(&delta("at last"));
        answer.piece(&last_delta());
        answer.piece("data: [DONE]\n\n");
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(&asking_for_it(HELLO_STREAM));
    assert_eq!(client.head().status, 200);
    let text = client.rest_of_chunks();
    assert_eq!(text.matches(": OPENROUTER PROCESSING\n\n").count(), COMMENTS);
    assert!(text.contains("at last") && text.ends_with("data: [DONE]\n\n"));
    assert_serves(&proxy);
}

/// Trailers are no part of an answer, and their end isn't waited for.
#[test]
fn trailers_without_an_end_hold_no_answer_back() {
    let upstream = faulty(|_, answer| {
        let body = crate::fixture::completion("hi");
        answer.raw(head("transfer-encoding: chunked\r\n") + &format!("{:x}\r\n{body}\r\n0\r\n", body.len()));
        while answer.try_raw(format!("x-trailer: {}\r\n", "x".repeat(1000))) {}
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for body in [HELLO, HELLO] {
        let response = proxy.chat(&asking_for_it(body));
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.text().contains("hi"));
        assert_serves(&proxy);
    }
}
