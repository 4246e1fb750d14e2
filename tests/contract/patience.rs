//! Section 3: patience with free models.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::fixture::*;

type Fault = (&'static str, fn(&Received, &mut Answer<'_>), u16);

/// Failures that another try can heal, and the status that the client gets when none does.
const FAULTS: [Fault; 11] = [
    ("closed before the head", |_, answer| answer.close(), 502),
    ("408", |_, answer| answer.json(408, r#"{"error":{"code":408,"message":"x"}}"#), 408),
    ("500", |_, answer| answer.json(500, r#"{"error":{"code":500,"message":"x"}}"#), 500),
    ("502", |_, answer| answer.json(502, r#"{"error":{"code":502,"message":"x"}}"#), 502),
    ("503 with a short Retry-After", |_, answer| answer.respond(503, "retry-after: 0\r\n", "{}"), 503),
    ("529", |_, answer| answer.json(529, "overloaded"), 529),
    (
        "an error as the whole body",
        |_, answer| answer.json(200, r#"{"error":{"code":503,"message":"no provider"}}"#),
        503,
    ),
    ("an error without a code", |_, answer| answer.json(200, r#"{"error":{"message":"?"}}"#), 502),
    (
        "an error as the first event",
        |_, answer| {
            answer.stream_head();
            answer.piece("data: {\"error\":{\"code\":500,\"message\":\"x\"},\"choices\":[]}\n\n");
            answer.end();
        },
        500,
    ),
    (
        "a body cut in the middle",
        |_, answer| {
            answer.raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choices\":");
            answer.close();
        },
        502,
    ),
    (
        "a stream without an event",
        |_, answer| {
            answer.stream_head();
            answer.end();
        },
        502,
    ),
];

#[test]
fn what_another_try_heals() {
    thread::scope(|scope| {
        for (name, fault, _) in FAULTS {
            scope.spawn(move || {
                let upstream = Upstream::start(move |request, answer| match request.number {
                    1 | 3 => fault(request, answer),
                    _ => answer.fitting(request, "healed"),
                });
                let proxy = Proxy::before(&upstream, "");
                let plain = proxy.chat(HELLO);
                assert_eq!((plain.status, plain.text()), (200, completion("healed").as_str()), "{name}");
                assert_eq!(plain.header("x-proxy-attempts"), Some("2"), "{name}");
                assert_eq!(plain.header("x-should-retry"), None, "{name}");
                let streamed = proxy.chat(HELLO_STREAM);
                assert_eq!(streamed.status, 200, "{name}");
                assert_eq!(streamed.text(), delta("healed") + &last_delta() + "data: [DONE]\n\n", "{name}");
                assert_eq!(upstream.calls(), 4, "{name}");
                proxy.wait_for_console("trying again in");
            });
        }
    });
}

#[test]
fn when_the_last_try_fails_too() {
    thread::scope(|scope| {
        for (name, fault, status) in FAULTS {
            scope.spawn(move || {
                let upstream = Upstream::start(fault);
                let proxy = Proxy::recording(&upstream, "RETRIES=1");
                for (body, calls) in [(HELLO, 2), (HELLO_STREAM, 4)] {
                    let failed = proxy.chat(body);
                    assert_eq!(failed.status, status, "{name}: {failed:?}");
                    assert_eq!(failed.header("x-should-retry"), Some("false"), "{name}");
                    assert_eq!(failed.header("x-proxy-attempts"), Some("2"), "{name}");
                    assert_eq!(upstream.calls(), calls, "{name}: never more than 1 + RETRIES");
                }
                let files = proxy.files(4);
                let error = files.iter().find(|(name, _)| name.contains("_ERROR_")).unwrap();
                assert_eq!(error.1["data"]["status"], status, "{name}");
                assert_eq!(error.1["attempts"].as_array().unwrap().len(), 1, "{name}");
            });
        }
    });
}

#[test]
fn an_empty_answer_is_tried_again() {
    let empty =
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#;
    let cut =
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"length"}]}"#;
    let upstream = Upstream::start(move |request, answer| match request.number {
        1 | 3.. => answer.json(200, if request.number > 5 { cut } else { empty }),
        _ => answer.say("something"),
    });
    let proxy = Proxy::before(&upstream, "RETRIES=2");
    assert_eq!(proxy.chat(HELLO).text(), completion("something"));
    let nothing = proxy.chat(HELLO);
    nothing.assert_error(502, "upstream_error");
    assert_eq!(upstream.calls(), 5);
    assert_eq!(proxy.chat(HELLO).text(), cut, "because of `length`: it is what was asked for");
    assert_eq!(upstream.calls(), 6);
}

#[test]
fn comments_go_on_while_it_is_tried_again() {
    let upstream = Upstream::start(|request, answer| {
        answer.stream_head();
        answer.piece(": OPENROUTER PROCESSING\n\n");
        if request.number % 3 == 0 {
            answer.piece(&(delta("at last") + &last_delta() + "data: [DONE]\n\n"));
        } else {
            answer.piece("data: {\"error\":{\"code\":502,\"message\":\"flaky\"},\"choices\":[]}\n\n");
        }
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.chat(HELLO_STREAM);
    let expected =
        ": OPENROUTER PROCESSING\n\n".repeat(3) + &delta("at last") + &last_delta() + "data: [DONE]\n\n";
    assert_eq!(response.text(), expected);

    proxy.write_env(&env(&upstream, "RETRIES=0"));
    let failed = proxy.chat(HELLO_STREAM);
    assert_eq!(failed.status, 200, "which was on its way already");
    let expected = ": OPENROUTER PROCESSING\n\ndata: {\"error\":{\"code\":502,\"message\":\"flaky\"},\"choices\":[]}\n\n";
    assert_eq!(failed.text(), expected);
}

/// Whatever it says of when it may be asked again: another model isn't busy.
#[test]
fn a_busy_models_place_is_taken_at_once() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
    for value in ["0".to_owned(), "30".to_owned(), date, "9000000000000000".to_owned()] {
        let upstream = Upstream::start(move |request, answer| match request.json()["model"].as_str() {
            Some("a:free") => answer.respond(429, &format!("retry-after: {value}\r\n"), "{}"),
            _ => answer.say("here"),
        });
        let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=b:free");
        for calls in [2, 3] {
            let response = proxy.chat(r#"{"model":"a:free"}"#);
            assert_eq!((response.status, response.header("x-proxy-model")), (200, Some("a:free -> b:free")));
            // The second time it isn't asked any more, unless it said that it would be there.
            assert!(upstream.calls() == calls || upstream.calls() == calls + 1);
        }
        proxy.wait_for_console("asking b:free");
    }
}

#[test]
fn other_models_are_tried() {
    let upstream = Upstream::start(|_, answer| answer.respond(502, "retry-after: 0\r\n", "{}"));
    let proxy = Proxy::before(&upstream, "RETRIES=3\nFALLBACK_MODELS=b:free, c:free");
    let asked = |body: &str| {
        let before = upstream.calls();
        let response = proxy.chat(body);
        let received = upstream.received().split_off(before);
        let models = received.iter().map(|r| r.json()["model"].as_str().unwrap().to_owned());
        (models.collect::<Vec<_>>(), response)
    };
    let (models, response) = asked(r#"{"model":"a:free","n":1.50}"#);
    assert_eq!(models, ["a:free", "b:free", "c:free", "openrouter/free"]);
    assert_eq!(response.header("x-proxy-model"), Some("a:free -> openrouter/free"));
    assert_eq!(upstream.last().body, r#"{"model":"openrouter/free","n":1.50}"#);
    assert_eq!(asked("{}").0, ["openrouter/free"; 4], "which picks another by itself");
}

#[test]
fn a_refused_connection_is_tried_again() {
    // A port that nobody listens on at first.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let env = format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://{address}/v1\nRETRIES=10");
    let proxy = Start::new().env_file(env).start();
    thread::scope(|scope| {
        let asking = scope.spawn(|| proxy.chat(HELLO));
        proxy.wait_for_console("trying again");
        let listener = std::net::TcpListener::bind(address).unwrap();
        scope.spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let body = completion("here now");
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        assert_eq!(asking.join().unwrap().text(), completion("here now"));
    });
}

/// A generator that gives the same numbers for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn percent(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % 100
    }
}

/// How a storm with this seed ends: each status, and the calls at the upstream.
fn storm(seed: u64) -> (Vec<u16>, usize) {
    let random = Mutex::new(Random(seed));
    let now = "content-type: application/json\r\nretry-after: 0\r\n";
    let upstream = Upstream::start(move |_, answer| match random.lock().unwrap().percent() {
        0..30 => answer.respond(
            429,
            now,
            r#"{"error":{"code":429,"message":"x","metadata":{"provider_code":429}}}"#,
        ),
        30..35 => answer.respond(502, now, r#"{"error":{"code":502,"message":"x"}}"#),
        35..40 => answer.respond(200, now, r#"{"error":{"code":503,"message":"x"}}"#),
        40..43 => answer.say(""),
        43..45 => {
            answer
                .raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"cho");
            answer.close();
        }
        _ => answer.say("hi"),
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    let statuses = (0..400).map(|_| client.chat(HELLO).status).collect();
    (statuses, upstream.calls())
}

#[test]
fn a_storm_ends_as_the_arithmetic_says() {
    let [(statuses, calls), again] = std::thread::scope(|scope| {
        [(); 2].map(|()| scope.spawn(|| storm(7))).map(|storm| storm.join().unwrap())
    });
    let succeeded = statuses.iter().filter(|status| **status == 200).count() as f64 / 400.0;
    // 45 % fail: 1 - 0.45^3 = 0.909 succeed, with 1 + 0.45 + 0.45^2 = 1.65 calls each. Four standard deviations.
    assert!((0.85..=0.965).contains(&succeeded), "{succeeded}");
    let calls_each = calls as f64 / 400.0;
    assert!((1.49..=1.82).contains(&calls_each), "{calls_each}");
    assert!(statuses.iter().all(|status| [200, 429, 502, 503].contains(status)), "{statuses:?}");
    assert_eq!(again, (statuses, calls), "the same seed gives the same result");
}

#[test]
fn what_happened_is_visible() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 => answer.respond(
            503,
            "retry-after: 0\r\n",
            r#"{"error":{"code":503,"message":"no provider fits"}}"#,
        ),
        _ => answer.say("hi"),
    });
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO);
    proxy.wait_for_console("some/model:free: 503 no provider fits; trying again");
    assert_eq!(proxy.get("/debug/stats").json()["failed_tries"], 1);
    let call = &proxy.get("/debug/calls").json()["calls"][0];
    assert_eq!((&call["attempts"], &call["status"]), (&Value::from(2), &Value::from(200)));
    assert_eq!(call["tries"][0]["failed"], "503 no provider fits");
    let files = proxy.files(2);
    let response = files.iter().find(|(name, _)| name.contains("_RESPONSE_")).unwrap();
    assert_eq!(response.1["attempts"][0]["model"], MODEL);
}
