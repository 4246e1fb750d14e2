//! Section 9: life and death.

#![cfg(unix)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use crate::fixture::*;

#[test]
fn the_first_signal_lets_requests_finish() {
    let (ask, asked) = channel::<()>();
    let asked = Mutex::new(asked);
    let upstream = Upstream::start(move |_, answer| {
        answer.stream_head();
        answer.piece(&delta("begun"));
        asked.lock().unwrap().recv().unwrap();
        answer.piece(&last_delta());
        answer.piece("data: [DONE]\n\n");
        answer.end();
    });
    for signal in ["TERM", "INT"] {
        let mut proxy = Proxy::recording(&upstream, "");
        let mut client = proxy.connect();
        client.send_chat(HELLO_STREAM);
        client.read_head_and_until("begun");
        proxy.signal(signal);
        eventually("the stop", || (proxy.get("/health").status == 503).then_some(()));
        proxy.chat(HELLO).assert_error(503, "shutting_down");
        ask.send(()).unwrap();
        assert!(client.rest_of_chunks().ends_with("data: [DONE]\n\n"));
        assert_eq!(proxy.wait(), Some(0));
        assert_eq!(proxy.files(2).len(), 2, "what was queued is saved");
        proxy.wait_for_console("stopped");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::start(|_, answer| {
        answer.sees_close();
        answer.close();
    });
    let mut proxy = Proxy::before(&upstream, "");
    proxy.connect().send_chat(HELLO);
    let mut client = proxy.connect();
    client.send_chat(HELLO);
    upstream.wait_for(1);
    proxy.signal("INT");
    proxy.wait_for_console("stopping");
    proxy.signal("INT");
    assert_eq!(proxy.wait(), Some(130));
}

/// nohup(1) has a program ignore the signal.
#[cfg(target_os = "linux")]
#[test]
fn it_outlives_its_terminal_where_that_is_wanted() {
    let upstream = Upstream::saying("hi");
    // Where these tests run under nohup themselves, nothing that they start can be without it.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    if ignored.ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e']) {
        let mut proxy = Proxy::before(&upstream, "");
        proxy.signal("HUP");
        assert_eq!(proxy.wait(), Some(0));
    }

    let start = Start::new().env_file(env(&upstream, ""));
    let mut proxy = start.ignoring_hangups().start();
    proxy.signal("HUP");
    assert_eq!(proxy.chat(HELLO).status, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    proxy.wait_for_console("stopped");
    assert_eq!(proxy.console().matches("stopped").count(), 1);
}

#[test]
fn nobody_is_waited_for_where_nobody_is_at_work() {
    let mut proxy = Proxy::before(&Upstream::saying("hi"), "");
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), Some(0));
    proxy.wait_for_console("stopped");
    assert_eq!(proxy.console().matches("stopped").count(), 1);
    assert!(!proxy.console().contains("10 s"), "{}", proxy.console());
}

#[test]
fn a_stream_that_outlives_the_grace_is_ended_with_an_error() {
    let upstream = Upstream::start(|_, answer| {
        answer.stream_head();
        answer.piece(&delta("begun"));
        answer.sees_close();
        answer.close();
    });
    let mut proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO_STREAM);
    client.read_head_and_until("begun");
    let mut uploads = [(); 2].map(|()| upload_half(&proxy));
    proxy.signal("TERM");
    let rest = client.rest_of_chunks();
    assert!(rest.contains(r#""error_type":"shutting_down""#) && !rest.contains("[DONE]"), "{rest}");
    uploads.iter_mut().for_each(|stalled| stalled.response().assert_error(503, "shutting_down"));
    assert_eq!(proxy.wait(), Some(0));
}

/// The head of a request, and half of its body.
fn upload_half(proxy: &Proxy) -> Connection {
    let mut client = proxy.connect();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}", HELLO.len());
    client.send(format!("{head}\r\n\r\n{}", &HELLO[..HELLO.len() / 2]));
    client
}

#[test]
fn an_upload_that_has_begun_is_served_after_the_signal() {
    let upstream = Upstream::saying("hi");
    let mut proxy = Proxy::before(&upstream, "");
    let mut uploads = [(); 5].map(|()| upload_half(&proxy));
    assert_eq!(proxy.chat(HELLO).status, 200, "the heads have been read by then");
    proxy.signal("TERM");
    eventually("the stop", || (proxy.get("/health").status == 503).then_some(()));
    for client in &mut uploads {
        client.send(&HELLO[HELLO.len() / 2..]);
        client.response().assert_status(200);
    }
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn those_who_wait_for_the_limit_are_told_that_it_stops() {
    let upstream = Upstream::start(|_, answer| {
        let reset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() + 40_000;
        let headers = format!("x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n");
        answer.respond(429, &headers, "{}");
    });
    let mut proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO);
    proxy.wait_for_console("limit is reached");
    proxy.signal("TERM");
    client.response().assert_error(503, "shutting_down");
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn silent_slow_and_malformed_clients_cost_the_others_nothing() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "WORKERS=4\nQUEUE=4");
    let silent = (0..100).map(|_| proxy.connect()).collect::<Vec<_>>();
    let stalled = (0..20)
        .map(|_| {
            let mut client = proxy.connect();
            client.send(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{",
            );
            client
        })
        .collect::<Vec<_>>();
    for garbage in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "\0\0\0\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\nA B: c\r\n\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(garbage);
        client.shutdown_write();
        client.read_to_end();
    }
    for _ in 0..20 {
        assert_eq!(proxy.chat(HELLO).status, 200);
    }
    drop((silent, stalled));
}

#[test]
fn it_recovers_when_descriptors_run_out() {
    let upstream = Upstream::saying("hi");
    let start = Start::new().env_file(env(&upstream, "WORKERS=4")).arg("--port").arg("0");
    // A shell sets the limit for the proxy alone.
    let proxy = start.with_descriptor_limit(128).start();
    for _ in 0..3 {
        let clients = (0..200).map(|_| proxy.connect()).collect::<Vec<_>>();
        thread::sleep(std::time::Duration::from_millis(200)); // they have to use descriptors up
        drop(clients);
        proxy.wait_until_it_serves();
        assert_eq!(proxy.chat(HELLO).status, 200);
        assert_eq!(proxy.get("/health").status, 200);
    }
}

#[test]
fn twenty_streams_finish_after_the_signal() {
    let begun = Arc::new(AtomicUsize::new(0));
    let (count, stopping) = (Arc::clone(&begun), Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&stopping);
    let upstream = Upstream::start(move |_, answer| {
        answer.stream_head();
        answer.piece(&delta("begun"));
        count.fetch_add(1, Ordering::SeqCst);
        eventually("the signal", || stop.load(Ordering::SeqCst).then_some(()));
        answer.piece(&last_delta());
        answer.piece("data: [DONE]\n\n");
        answer.end();
    });
    let mut proxy = Proxy::recording(&upstream, "");
    let clients = (0..20).map(|_| {
        let mut client = proxy.connect();
        client.send_chat(HELLO_STREAM);
        client
    });
    let clients = clients.collect::<Vec<_>>();
    eventually("all streams", || (begun.load(Ordering::SeqCst) == 20).then_some(()));
    proxy.signal("TERM");
    proxy.wait_for_console("stopping");
    stopping.store(true, Ordering::SeqCst);
    for mut client in clients {
        assert_eq!(client.head().status, 200);
        assert!(client.rest_of_chunks().ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(proxy.wait(), Some(0));
    assert_eq!(proxy.files(40).len(), 40);
}

#[test]
fn a_panic_in_one_request_is_that_requests_500() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "WORKERS=2");
    for _ in 0..10 {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Test-Panic: 1\r\nContent-Length: {}\r\n\r\n{HELLO}",
            HELLO.len()
        );
        proxy.connect().exchange(&request).assert_error(500, "internal_error");
    }
    proxy.wait_for_console("internal error in worker-");
    assert_eq!(proxy.chat(HELLO).status, 200);
}
