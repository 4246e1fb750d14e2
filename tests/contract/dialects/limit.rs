//! The account's own limit, in each dialect's words.

use std::sync::OnceLock;

use super::*;

const HOUR_MS: u128 = 3_600_000;

/// Where the upstream says it.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// In the head of a 429, in the body of one, as the whole body of a 200, as the first event, behind the opening.
    Head,
    Plain,
    Body,
    FirstEvent,
    BehindTheOpening,
}

use Form::{BehindTheOpening, Body, FirstEvent, Head, Plain};

/// Each form, and whether the client asks for a stream.
const FORMS: [(Form, bool); 8] = [
    (Head, false),
    (Head, true),
    (Plain, false),
    (Plain, true),
    (Body, false),
    (Body, true),
    (FirstEvent, true),
    (BehindTheOpening, true),
];

fn say_limited(dialect: &Dialect, form: Form, limit: &str, reset: Option<u128>, answer: &mut Answer<'_>) {
    let headers = |reset| {
        format!(r#""X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}""#)
    };
    let body = (dialect.limited)(limit, &reset.map(headers).unwrap_or_default());
    match form {
        Head => {
            let reset = reset.map_or_else(String::new, |reset| format!("x-ratelimit-reset: {reset}\r\n"));
            let headers = format!("x-ratelimit-limit: 20\r\nx-ratelimit-remaining: 0\r\n{reset}");
            answer.respond(429, &headers, &(dialect.error)(429, "Rate limit exceeded"));
        }
        Plain => answer.json(429, &body),
        Body => answer.json(200, &body),
        FirstEvent | BehindTheOpening => {
            let opening = if matches!(form, FirstEvent) { &[] } else { dialect.opening };
            let events = opening.iter().map(|event| (*event).to_owned()).chain([dialect.as_event(&body)]);
            answer.events(&events.collect::<Vec<_>>());
            answer.end();
        }
    }
}

/// Each dialect with each form, all at once.
fn in_every_form(test: impl Fn(&'static Dialect, Form, bool) + Sync) {
    std::thread::scope(|scope| {
        for dialect in DIALECTS {
            for (form, streamed) in FORMS {
                let test = &test;
                scope.spawn(move || test(dialect, form, streamed));
            }
        }
    });
}

#[test]
fn the_minutes_limit_is_waited_for_in_every_dialect() {
    in_every_form(|dialect, form, streamed| {
        let reset = OnceLock::new();
        let upstream = Upstream::start(move |request, answer| {
            let reset = *reset.get_or_init(|| now_ms() + 1200);
            if now_ms() < reset {
                say_limited(dialect, form, "free-models-per-min", Some(reset), answer)
            } else {
                answer.good(dialect, request)
            }
        });
        let proxy = Proxy::before(&upstream, "RETRIES=0");
        let mut first = proxy.connect();
        first.send_post(dialect.path, &dialect.request("first", streamed));
        upstream.wait_for(1);
        let waiting = || proxy.get("/health").json()["waiting"] == 1;
        eventually("it to wait", || (waiting() || upstream.calls() > 1).then_some(()));
        let second = proxy.post(dialect.path, &dialect.request("second", !streamed));
        let name = format!("{} {form:?}", dialect.name);
        assert_eq!((second.status, second.text()), (200, &*dialect.good(!streamed)), "{name}");
        let first = first.response();
        assert_eq!((first.status, first.text()), (200, &*dialect.good(streamed)), "{name}");
        assert_eq!(upstream.calls(), 3, "{name}: one found out, and both went on when it was over");
    });
}

/// A refusal because of the day's limit, as the dialect's clients understand it.
#[track_caller]
fn assert_used_up(dialect: &Dialect, refused: &Response, name: &str) {
    let name = format!("{} {name}: {refused:?}", dialect.name);
    refused.assert_status(429);
    assert_eq!(refused.header("content-type"), Some("application/json"), "{name}");
    assert_eq!(refused.header("x-should-retry"), Some("false"), "{name}");
    let body = refused.json();
    let message = body["error"]["message"].as_str().unwrap_or_default();
    let clock =
        message.as_bytes().windows(5).any(|w| w[2] == b':' && w[0].is_ascii_digit() && w[4].is_ascii_digit());
    assert!(clock, "{name}: says the time");
    if dialect.name == MESSAGES.name {
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&"error".into(), &"rate_limit_error".into()),
            "{name}"
        );
    } else {
        refused.assert_error(429, "rate_limit_exceeded");
    }
    let told = refused.header("retry-after").and_then(|told| told.parse::<u64>().ok()).expect(&name);
    if dialect.name == RESPONSES.name {
        assert_eq!(body["error"]["type"], "usage_limit_reached", "{name}");
        let resets_at = body["error"]["resets_at"].as_u64().expect(&name);
        let expected = (now_ms() / 1000) as u64 + told;
        assert!(resets_at.abs_diff(expected) <= 5, "{name}: {resets_at}, not {expected}");
    }
}

#[test]
fn the_days_limit_is_said_in_every_dialects_own_words() {
    in_every_form(|dialect, form, streamed| {
        let reset = now_ms() + 3 * HOUR_MS;
        let upstream = Upstream::start(move |_, answer| {
            say_limited(dialect, form, "free-models-per-day", Some(reset), answer);
        });
        let proxy = Proxy::before(&upstream, "");
        for streamed in [streamed, false, true] {
            let refused = proxy.post(dialect.path, &dialect.request("hello", streamed));
            assert_used_up(dialect, &refused, &format!("{form:?}"));
            let told = refused.header("retry-after").unwrap().parse::<u64>().unwrap();
            assert!((10_700..=10_800).contains(&told), "{told}");
        }
        assert_eq!(upstream.calls(), 1, "{} {form:?}: one found out", dialect.name);
    });
}

/// Some limits come without a time, but with a name.
#[test]
fn a_limit_that_is_only_named_counts_in_every_dialect() {
    std::thread::scope(|scope| {
        for dialect in DIALECTS {
            for (limit, longest) in [("free-models-per-day", 86_400), ("free-models-per-min", 61)] {
                scope.spawn(move || {
                    let upstream =
                        Upstream::start(move |_, answer| say_limited(dialect, Plain, limit, None, answer));
                    let proxy = Proxy::before(&upstream, "MAX_WAIT=0");
                    let refused = proxy.post(dialect.path, &dialect.request("hello", false));
                    assert_used_up(dialect, &refused, limit);
                    let told = refused.header("retry-after").unwrap().parse::<u64>().unwrap();
                    assert!(told <= longest, "{} {limit}: {told}", dialect.name);
                });
            }
        }
    });
}

/// All dialects share one account, and so one gate.
#[test]
fn what_one_dialect_found_out_holds_for_the_others() {
    let reset = now_ms() + HOUR_MS;
    let upstream = Upstream::start(move |_, answer| {
        say_limited(&MESSAGES, Plain, "free-models-per-day", Some(reset), answer)
    });
    let proxy = Proxy::before(&upstream, "");
    for dialect in [&MESSAGES, &CHAT, &COMPLETIONS, &RESPONSES] {
        assert_used_up(dialect, &proxy.post(dialect.path, &dialect.request("hello", true)), "");
    }
    let embedding = proxy.post("/v1/embeddings", r#"{"model":"e:free","input":"x"}"#);
    embedding.assert_error(429, "rate_limit_exceeded");
    let ollama = proxy.post("/api/chat", r#"{"model":"x","messages":[{"role":"user","content":"hello"}]}"#);
    assert_eq!((ollama.status, ollama.json()["error"].is_string()), (429, true), "{ollama:?}");
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn a_providers_limit_is_never_taken_for_the_accounts() {
    // Some have headers of such names, too, or speak of a day in their texts.
    const HEADERS: [&str; 4] = [
        "retry-after: 0\r\n",
        "retry-after: 0\r\nx-ratelimit-remaining: 0\r\n",
        "retry-after: 0\r\nx-ratelimit-remaining: 7\r\nx-ratelimit-reset: 32503680000000\r\n",
        "retry-after: 0\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1600000000000\r\n",
    ];
    std::thread::scope(|scope| {
        for dialect in DIALECTS {
            scope.spawn(move || {
                let upstream = Upstream::start(move |request, answer| match request.number {
                    number if number % 2 == 1 => {
                        let said = "Rate limit exceeded at the provider: free-models-per-day";
                        let body = (dialect.error)(429, said);
                        let metadata = r#""metadata":{"provider_code":429,"raw":"slow down"},"message""#;
                        let body = body.replacen("\"message\"", metadata, 1);
                        answer.respond(429, HEADERS[number / 2 % HEADERS.len()], &body);
                    }
                    _ => answer.good(dialect, request),
                });
                let proxy = Proxy::before(&upstream, "MAX_WAIT=0");
                for number in 0..2 * HEADERS.len() {
                    let streamed = number >= HEADERS.len();
                    let body = (dialect.request)(&format!("m/{number}:free"), "hello", streamed);
                    let response = proxy.post(dialect.path, &body);
                    let name =
                        format!("{} {:?}: {response:?}", dialect.name, HEADERS[number % HEADERS.len()]);
                    assert_eq!((response.status, response.text()), (200, &*dialect.good(streamed)), "{name}");
                }
            });
        }
    });
}

/// They hold no worker, in whatever dialect they ask, and cost no call once they have left.
#[test]
fn those_who_wait_may_leave_in_every_dialect() {
    let reset = now_ms() + 60_000;
    let upstream = Upstream::start(move |_, answer| {
        say_limited(&CHAT, Plain, "free-models-per-min", Some(reset), answer)
    });
    let proxy = Proxy::before(&upstream, "WORKERS=2\nQUEUE=1");
    let waiting = |count: usize| {
        eventually("as many to wait", || (proxy.get("/health").json()["waiting"] == count).then_some(()));
    };
    let mut clients = Vec::new();
    for (number, dialect) in DIALECTS.iter().cycle().take(8).enumerate() {
        let mut client = proxy.connect();
        client.send_post(dialect.path, &dialect.request("hello", number % 2 == 0));
        waiting(number + 1);
        clients.push(client);
    }
    drop(clients);
    waiting(0);
    assert!(upstream.calls() <= 2, "{}", upstream.calls());
}
