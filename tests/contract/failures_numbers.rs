//! Section 3: limits and numbers that come from outside, whatever they say; how connections and streams end.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::dialects::{CHAT, COMPLETIONS, DIALECTS, DONE, Dialect};
use crate::fixture::*;

/// Resets that nobody can believe, and some that are in another unit.
fn strange_resets() -> Vec<String> {
    let now = now_ms();
    vec![
        (now * 1_000_000).to_string(),
        (now * 1000).to_string(),
        "99999999999999999999999999".into(),
        "9223372036854775807".into(),
        "-1".into(),
        "0".into(),
        "1e400".into(),
        "soon".into(),
        String::new(),
    ]
}

fn members(reset: &str) -> String {
    format!(r#""X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}""#)
}

#[track_caller]
fn refused_for(response: &Response, most: u64, name: &str) {
    assert_eq!(response.status, 429, "{name}: {response:?}");
    assert_eq!(response.header("x-should-retry"), Some("false"), "{name}");
    let seconds = response.header("retry-after").unwrap().parse::<u64>().unwrap();
    assert!((1..=most).contains(&seconds), "{name}: {seconds}");
}

#[test]
fn failures_with_a_reset_that_is_nonsense() {
    thread::scope(|scope| {
        for dialect in DIALECTS {
            scope.spawn(move || {
                for reset in strange_resets() {
                    for (limit, most) in [("free-models-per-min", 60), ("free-models-per-day", 86_400)] {
                        let body = (dialect.limited)(limit, &members(&reset));
                        let head = format!("x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n");
                        let upstream = Upstream::start(move |request, answer| match request.number {
                            1 => answer.respond(429, &head, &body),
                            _ => answer.json(429, &body),
                        });
                        let proxy = Proxy::before(&upstream, "MAX_WAIT=0");
                        let name = format!("{} {limit} {reset:?}", dialect.name);
                        for _ in 0..3 {
                            refused_for(
                                &proxy.post(dialect.path, &dialect.request("hi", false)),
                                most,
                                &name,
                            );
                        }
                        // A minute may have begun in between.
                        assert!(upstream.calls() <= 2, "{name}: {} calls", upstream.calls());
                    }
                }
            });
        }
    });
}

/// The reset is a time of the upstream's, and so is its `Date`.
#[test]
fn failures_are_measured_by_the_upstreams_clock() {
    for dialect in DIALECTS {
        for (late, name) in [(7200_i64, "ahead"), (-7200, "behind"), (-120, "two minutes behind")] {
            let upstream = Upstream::start(move |_, answer| {
                let theirs = i64::try_from(now_ms()).unwrap() + late * 1000;
                let date = SystemTime::UNIX_EPOCH + Duration::from_millis(theirs.try_into().unwrap());
                let head =
                    format!("date: {}\r\ncontent-type: application/json\r\n", httpdate::fmt_http_date(date));
                let body = (dialect.limited)("free-models-per-min", &members(&(theirs + 40_000).to_string()));
                answer.respond(429, &head, &body);
            });
            let proxy = Proxy::before(&upstream, "MAX_WAIT=0");
            let refused = proxy.post(dialect.path, &dialect.request("hi", false));
            refused_for(&refused, 42, name);
            assert!(
                refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 30,
                "{name} {refused:?}"
            );
        }
    }
}

/// One that is over in no time, or was when the answer came, again and again, is believed three times at most.
#[test]
fn failures_of_a_limit_that_is_over_at_once() {
    thread::scope(|scope| {
        for (dialect, ahead) in DIALECTS.into_iter().flat_map(|dialect| [(dialect, 20), (dialect, -1000)]) {
            scope.spawn(move || {
                let upstream = Upstream::start(move |_, answer| {
                    let members = members(&(now_ms() as i64 + ahead).to_string());
                    answer.json(429, &(dialect.limited)("free-models-per-min", &members));
                });
                let proxy = Proxy::before(&upstream, "");
                let refused = proxy.post(dialect.path, &dialect.request("hi", false));
                assert_eq!(refused.status, 429, "{}: {refused:?}", dialect.name);
                assert!(upstream.calls() <= 3, "{}: {} calls", dialect.name, upstream.calls());
            });
        }
    });
}

/// Another model's own limit closes no gate, however much it looks like the account's.
#[test]
fn failures_of_one_busy_model_hold_nobody_else() {
    for dialect in DIALECTS {
        let upstream = Upstream::start(move |request, answer| {
            if request.json()["model"] != "busy/one:free" {
                return answer.good(dialect, request);
            }
            let reset = (now_ms() + 50_000).to_string();
            let body = (dialect.limited)("limit_rpm/busy/one/0b7e", &members(&reset));
            let body = body.replace(r#","limit_source":"free_tier""#, "");
            let head = format!(
                "content-type: application/json\r\nx-ratelimit-limit: 8\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n"
            );
            answer.respond(429, &head, &body);
        });
        let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=b:free\nMAX_WAIT=0");
        for (number, model) in ["busy/one:free", "busy/one:free", MODEL, "openrouter/free"].iter().enumerate()
        {
            let body = dialect.request("hi", false).replace(MODEL, model);
            let response = proxy.post(dialect.path, &body);
            assert_eq!((response.status, upstream.calls()), (200, number + 2), "{} {model}", dialect.name);
        }
        assert!(!proxy.console().contains("limit is reached"), "{}", proxy.console());
    }
}

#[test]
fn failures_of_a_backup_that_never_wants_to_be_asked_again() {
    let upstream =
        Upstream::start(|_, answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#));
    let backup = Upstream::start(|_, answer| answer.respond(429, "retry-after: 9000000000000000\r\n", "{}"));
    let settings = format!("BACKUPS=one\nONE_BASE_URL={}\nONE_API_KEY=k\nONE_MODEL=m", backup.url());
    let proxy = Proxy::before(&upstream, &settings);
    for _ in 0..3 {
        let response = proxy.chat(HELLO);
        assert!([402, 429].contains(&response.status), "{response:?}");
        let seconds = response.header("retry-after").map_or(1, |seconds| seconds.parse::<u64>().unwrap());
        assert!((1..=86_400).contains(&seconds), "{seconds}");
    }
}

/// What an old key's request meets says nothing of the new one.
#[test]
fn failures_of_an_old_key_forget_nothing_of_the_new_one() {
    const NEW: &str = "sk-or-v1-fedcba9876543210-zyxw";
    let (go, went) = channel::<()>();
    let went = Mutex::new(went);
    let upstream = Upstream::start(move |request, answer| {
        if request.header("authorization").is_some_and(|key| key.ends_with(NEW)) {
            return answer.json(
                429,
                &(CHAT.limited)("free-models-per-day", &members(&(now_ms() + 7_200_000).to_string())),
            );
        }
        if request.number == 1 {
            went.lock().unwrap().recv_timeout(GUARD).unwrap();
            return answer.json(502, "{}");
        }
        answer.say("old, but good");
    });
    let proxy = Proxy::before(&upstream, "");
    let mut old = proxy.connect();
    old.send_chat(HELLO);
    upstream.wait_for(1);
    proxy.write_env(&env(&upstream, "").replace(KEY, NEW));
    proxy.chat(HELLO).assert_error(429, "rate_limit_exceeded");
    go.send(()).unwrap();
    let _ = old.response();
    let calls = upstream.calls();
    proxy.chat(HELLO).assert_error(429, "rate_limit_exceeded");
    assert_eq!(upstream.calls(), calls, "the new key's limit was known");
}

#[test]
fn failures_that_no_repetition_heals_say_so_in_every_dialect() {
    let proxy = Start::new().start();
    for dialect in DIALECTS {
        let refused = proxy.post(dialect.path, &dialect.request("hi", false));
        assert_eq!(
            (refused.status, refused.header("x-should-retry")),
            (401, Some("false")),
            "{}",
            dialect.name
        );
        let broken = proxy.post(dialect.path, "{");
        assert_eq!(
            (broken.status, broken.header("x-should-retry")),
            (400, Some("false")),
            "{}",
            dialect.name
        );
    }
    let refused = proxy.get("/v1/messages");
    assert_eq!((refused.status, refused.header("x-should-retry")), (405, Some("false")));
}

fn company_tls() -> (String, rustls::ServerConfig) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (certified.cert.pem(), config)
}

fn with_tls(script: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static) -> (Upstream, Proxy) {
    let (root, config) = company_tls();
    let upstream = Upstream::with_tls(config, script);
    let settings = env(&upstream, "SSL_CERT_FILE=company.pem\nRETRIES=0");
    let proxy = Start::new().env_file(settings).file("company.pem", root).start();
    (upstream, proxy)
}

/// As TLS servers close what was idle for long: with `close_notify`, whether the connection below ends or not.
#[test]
fn failures_of_pooled_tls_connections_do_not_count() {
    for lingers in [false, true] {
        let (upstream, proxy) = with_tls(move |request, answer| {
            answer.fitting(request, "hi");
            if lingers { answer.notify_only() } else { answer.close() }
        });
        for number in 1..=6 {
            let body = if number % 2 == 0 { HELLO } else { HELLO_STREAM };
            assert_eq!(proxy.chat(body).status, 200, "{lingers} {number}: {}", proxy.console());
            upstream.wait_for_notified(number);
        }
        assert_eq!(upstream.calls(), 6);
    }
}

/// Whatever stands behind an answer belongs to no other one.
#[test]
fn failures_of_answers_with_something_behind_them() {
    let stale = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let script = move |request: &Received, answer: &mut Answer<'_>| {
        let good = completion("hi");
        let begin = "HTTP/1.1 200 OK\r\ncontent-type:";
        if request.streams() {
            let text = delta("hi") + &last_delta() + DONE;
            let head = format!("{begin} text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            answer.raw(format!("{head}{:x}\r\n{text}\r\n0\r\n\r\n{stale}", text.len()));
        } else {
            answer.raw(format!(
                "{begin} application/json\r\ncontent-length: {}\r\n\r\n{good}{stale}",
                good.len()
            ));
        }
    };
    let plain = Upstream::start(script);
    let plain_proxy = Proxy::before(&plain, "RETRIES=0");
    let (upstream, proxy) = with_tls(script);
    for (upstream, proxy) in [(plain, plain_proxy), (upstream, proxy)] {
        for _ in 0..3 {
            assert_eq!(proxy.chat(HELLO).text(), completion("hi"));
            assert_eq!(proxy.chat(HELLO_STREAM).text(), delta("hi") + &last_delta() + DONE);
        }
        assert_eq!(upstream.calls(), 6);
    }
}

/// Holds what it is in until the test is over.
fn held(stay: &Mutex<Receiver<()>>) {
    let _ = stay.lock().unwrap().recv_timeout(GUARD);
}

/// Its connection stays open, but the answer is whole: that is the client's end, too.
#[test]
fn failures_to_close_behind_a_whole_answer() {
    type Ended = (&'static Dialect, Vec<&'static str>);
    let mut cases: Vec<Ended> = Vec::new();
    for dialect in DIALECTS {
        let whole = [dialect.opening, dialect.saying, dialect.ending].concat();
        cases.push((dialect, [&*whole, &[DONE]].concat()));
        if dialect.name == "chat" || dialect.name == "completions" {
            // A bare `finish_reason`: usage may follow, and doesn't.
            cases.push((dialect, whole[..whole.len() - 1].to_vec()));
        }
        cases.push((dialect, whole));
    }
    thread::scope(|scope| {
        for (dialect, events) in cases {
            scope.spawn(move || {
                let (_until_the_end, stay): (Sender<()>, _) = channel();
                let (stay, text) = (Mutex::new(stay), events.concat());
                let upstream = Upstream::start(move |_, answer| {
                    answer.events(&events);
                    held(&stay);
                });
                let proxy = Proxy::before(&upstream, "");
                let response = proxy.post(dialect.path, &dialect.request("hi", true));
                assert_eq!(response.text(), text, "{}", dialect.name);
                assert_eq!(upstream.calls(), 1, "{}", dialect.name);
            });
        }
    });
}

/// However the connection goes then.
#[test]
fn failures_behind_a_whole_answer_are_no_failures() {
    thread::scope(|scope| {
        for dialect in DIALECTS {
            for way in ["reset", "close"] {
                scope.spawn(move || {
                    let whole = [dialect.opening, dialect.saying, dialect.ending].concat();
                    let text = whole.concat();
                    let upstream = Upstream::start(move |_, answer| {
                        answer.events(&whole);
                        if way == "reset" { answer.reset() } else { answer.close() }
                    });
                    let proxy = Proxy::before(&upstream, "");
                    let response = proxy.post(dialect.path, &dialect.request("hi", true));
                    assert_eq!(response.text(), text, "{} {way}", dialect.name);
                });
            }
        }
    });
}

/// Usage behind a bare `finish_reason` still arrives.
#[test]
fn failures_to_say_usage_at_once_lose_nothing() {
    for dialect in [&CHAT, &COMPLETIONS] {
        let (go, went) = channel::<()>();
        let went = Mutex::new(went);
        let whole = [dialect.opening, dialect.saying, dialect.ending, &[DONE]].concat();
        let text = whole.concat();
        let upstream = Upstream::start(move |_, answer| {
            answer.events(&whole[..whole.len() - 2]);
            went.lock().unwrap().recv_timeout(GUARD).unwrap();
            whole[whole.len() - 2..].iter().for_each(|event| answer.piece(event));
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        let mut client = proxy.connect();
        client.send_post(dialect.path, &dialect.request("hi", true));
        let mut read = client.read_head_and_until(r#""finish_reason":"stop""#);
        go.send(()).unwrap();
        read += &client.rest_of_chunks();
        assert_eq!(read, text);
    }
}
