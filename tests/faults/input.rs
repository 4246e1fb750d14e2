//! Requests that nobody should send.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::fixture::*;
use crate::{ALLOCATORS_MOOD_KIB, assert_serves};

/// What the proxy may need while it refuses them all.
const MAX_MEMORY_KIB: usize = 64 * 1024;

/// xorshift64*: the same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> usize {
        (self.next() % limit) as usize
    }

    fn bytes(&mut self, limit: u64) -> Vec<u8> {
        let length = self.below(limit);
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn chat(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = Vec::new();
    write!(
        request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    request.extend_from_slice(body);
    request
}

fn with_headers(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
}

fn malformed(random: &mut Random, number: usize) -> Vec<u8> {
    match number % 16 {
        0 => random.bytes(2000),
        1 => {
            let mut request = b"GET /".to_vec();
            request.extend(random.bytes(200));
            request.extend(b" HTTP/1.1\r\nHost: localhost\r\n\r\n");
            request
        }
        2 => with_headers("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
        3 => with_headers(
            "Transfer-Encoding: chunked\r\n",
            &format!("{:x}\r\nshort", 1 + random.below(1 << 40)),
        ),
        4 => with_headers("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        5 => with_headers("Content-Length: 5\r\nContent-Length: 6\r\n", "{}    "),
        6 => with_headers(&format!("Content-Length: {}x\r\n", random.below(99)), "{}"),
        7 => with_headers(&format!("Content-Length: {}\r\n", random.below(1 << 30)), "{"),
        8 => with_headers("X-\0: \0\r\nContent-Length: 2\r\n", "{}"),
        9 => chat(random.bytes(4000)),
        10 => chat([b"{\"messages\":\"".as_slice(), &random.bytes(300), b"\"}"].concat()),
        11 if number % 64 == 11 => {
            with_headers(&format!("X-Long: {}\r\nContent-Length: 2\r\n", "x".repeat(1 << 20)), "{}")
        }
        12 if number % 64 == 12 => {
            let mut headers = String::new();
            (0..10_000).for_each(|n| write!(headers, "X-{n}: {n}\r\n").unwrap());
            with_headers(&(headers + "Content-Length: 2\r\n"), "{}")
        }
        13 if number % 64 == 13 => chat(format!("{{\"messages\":{}", "[".repeat(100_000))),
        14 if number % 64 == 14 => chat(format!("{{\"x\":\"{}\"}}", "y".repeat(2 << 20))),
        15 if number % 64 == 15 => {
            let chunk = format!("10000\r\n{}\r\n", "z".repeat(0x10000));
            with_headers("Transfer-Encoding: chunked\r\n", &chunk.repeat(32))
        }
        _ => {
            let mut request = chat(HELLO.replace("hello", "x"));
            let at = random.below(request.len() as u64);
            request[at] = random.next() as u8;
            request.truncate(at + 1 + random.below(100));
            request
        }
    }
}

#[test]
fn ten_thousand_malformed_requests() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MAX_BODY_MB=1");
    let mut random = Random(20_260_101);
    let mut before = proxy.usage();
    for number in 0..10_000 {
        let mut client = proxy.connect();
        // The answer may come, and the connection end, before all of it is sent.
        let _ = client.try_send(&malformed(&mut random, number));
        client.try_shutdown_write();
        let answer = client.read_answer();
        // Some are first told to go on.
        let last = answer.windows(9).rposition(|window| window == b"HTTP/1.1 ").unwrap_or(0);
        let status = answer.get(last + 9..last + 12).unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{number}: {answer:?}");
        assert!(matches!(status, b"" | b"200" | [b'4', ..] | b"505"), "{number}: {answer:?}");
        if number % 500 == 0 {
            assert_serves(&proxy);
        }
        if number == 1000 {
            before = proxy.usage();
        }
    }
    assert_serves(&proxy);
    let usage = proxy.usage();
    println!("{before:?}\n{usage:?}");
    assert!(usage.peak_kib <= MAX_MEMORY_KIB, "{usage:?}");
    assert!(usage.resident_kib <= before.resident_kib + ALLOCATORS_MOOD_KIB, "{before:?} {usage:?}");
    eventually("descriptors to be closed", || {
        (proxy.usage().descriptors <= before.descriptors + 4).then_some(())
    });
    assert!(!proxy.console().contains("internal error"));
}

/// Room is made for what comes, not for what is announced.
#[test]
fn lengths_that_nobody_means() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    assert_serves(&proxy);
    let before = proxy.usage();
    let refused = |length: u64| {
        let mut client = proxy.connect();
        client.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{"
        ));
        client.response().assert_error(413, "body_too_large");
    };
    (0..30).for_each(|_| refused(1_500_000_000));
    eventually("their descriptors to be closed", || {
        (proxy.usage().descriptors < before.descriptors + 10).then_some(())
    });
    refused(u64::MAX >> 1);
    assert_serves(&proxy);
    let after = proxy.usage();
    assert!(after.peak_kib <= MAX_MEMORY_KIB, "{after:?}");
}

/// Of some a tree is made for a moment, which takes up to a hundred times their length.
#[test]
fn requests_of_many_small_parts_leave_no_memory_behind() {
    const PARTS: usize = 60_000;
    let many = |part: &str| format!("{part},").repeat(PARTS - 1) + part;
    let text = many(r#"{"type":"text","text":"a"}"#);
    let gemini = format!(r#"{{"contents":[{{"parts":[{}]}}]}}"#, many(r#"{"text":"a"}"#));
    let ollama = format!(r#"{{"stream":false,"messages":[{}]}}"#, many(r#"{"role":"user","content":"a"}"#));
    let content = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
    let asked = [
        ("/v1/chat/completions", content(&format!("[{text}]"))),
        ("/v1/messages/count_tokens", content(&format!("[{text}]"))),
        ("/v1beta/models/m:generateContent", gemini.clone()),
        ("/v1beta/models/m:countTokens", gemini),
        ("/api/chat", ollama),
    ];
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let ask = |path: &str, body: &str| proxy.post(path, body).assert_status(200);
    for _ in 0..20 {
        ask("/v1/chat/completions", HELLO);
    }
    let before = proxy.usage();
    for (path, body) in &asked {
        (0..3).for_each(|_| ask(path, body));
    }
    // What a thread keeps comes back when it ends.
    eventually("the memory to be given back", || {
        let after = proxy.usage();
        println!("{before:?} {after:?}");
        (after.resident_kib <= before.resident_kib + ALLOCATORS_MOOD_KIB).then_some(())
    });
    assert_serves(&proxy);
}
