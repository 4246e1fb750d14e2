//! What another try heals, what it doesn't, and what the client gets when none does.

use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use super::*;

/// How a try fails.
#[derive(Clone, Copy)]
enum Fault {
    /// A status with an error in the dialect's shape.
    Status(u16),
    /// A 429 of one provider.
    Provider,
    Reset,
    Closed,
    /// A body, or a stream that said nothing, cut off.
    CutOff,
    /// A whole body in a 200.
    Body(&'static str),
    /// A stream that ends as it should, after the events that say nothing where the flag says so.
    Stream(bool, &'static [&'static str]),
    /// The same with one event.
    Event(bool, &'static str),
    /// A stream whose comments go on at once, and then this.
    Commented(&'static str),
}

/// A fault, whether it is one of streams, of plain answers, or of both, and the statuses it may be passed on with.
struct Case {
    name: String,
    fault: Fault,
    streamed: Option<bool>,
    statuses: Vec<u16>,
}

fn healable(dialect: &'static Dialect) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, streamed, fault, statuses: &[u16]| {
        cases.push(Case {
            name: format!("{name} {}", cases.len()),
            fault,
            streamed,
            statuses: statuses.into(),
        });
    };
    for status in [408, 500, 502, 503, 504, 520, 529] {
        add("status", None, Fault::Status(status), &[status]);
    }
    add("a provider's 429", None, Fault::Provider, &[429]);
    add("reset", None, Fault::Reset, &[502]);
    add("closed", None, Fault::Closed, &[502]);
    add("cut off", None, Fault::CutOff, &[502]);
    for (body, statuses) in dialect.failed_bodies {
        add("an error as the whole body", None, Fault::Body(body), statuses);
    }
    for (event, statuses) in dialect.failures {
        add("first event an error", Some(true), Fault::Event(false, event), statuses);
        add("an error behind the opening", Some(true), Fault::Event(true, event), statuses);
    }
    for body in dialect.empty {
        add("an empty answer", Some(false), Fault::Body(body), &[502]);
    }
    for events in dialect.empty_streams {
        add("a stream that says nothing", Some(true), Fault::Stream(true, events), &[502]);
    }
    add("an empty stream", Some(true), Fault::Stream(false, &[]), &[502]);
    cases
}

fn fail(dialect: &'static Dialect, fault: Fault, request: &Received, answer: &mut Answer<'_>) {
    let opening = |opened| if opened { dialect.opening } else { &[] };
    let json = "content-type: application/json\r\nretry-after: 0\r\n";
    match fault {
        Fault::Status(status) => answer.respond(status, json, &(dialect.error)(status, "no luck")),
        Fault::Provider => answer.respond(
            429,
            json,
            &(dialect.error)(429, "no luck").replacen(
                "\"message\"",
                r#""metadata":{"provider_code":429,"provider_name":"X"},"message""#,
                1,
            ),
        ),
        Fault::Reset => answer.reset(),
        Fault::Closed => answer.close(),
        Fault::CutOff if request.streams() => {
            answer.events(dialect.opening);
            answer.close();
        }
        Fault::CutOff => {
            let (half, length) = (&dialect.plain[..dialect.plain.len() / 2], dialect.plain.len());
            answer.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{half}"));
            answer.close();
        }
        Fault::Body(body) => answer.respond(200, json, body),
        Fault::Stream(opened, events) => {
            answer.events(&[opening(opened), events].concat());
            answer.end();
        }
        Fault::Event(opened, event) => {
            answer.events(&[opening(opened), &[event]].concat());
            answer.end();
        }
        Fault::Commented(event) => {
            answer.events(&[&[COMMENT], dialect.opening, &[event]].concat());
            answer.end();
        }
    }
}

/// How often each subject came.
#[derive(Default)]
struct Tries(Mutex<HashMap<String, usize>>);

impl Tries {
    fn next(&self, request: &Received) -> usize {
        let mut tries = self.0.lock().unwrap();
        let number = tries.entry(subject(request).to_owned()).or_default();
        *number += 1;
        *number
    }
}

/// One proxy for a dialect's cases, all at once, each with a model of its own: what is learnt of one concerns no other.
fn all_at_once(
    dialect: &'static Dialect,
    settings: &str,
    cases: Vec<Case>,
    fails: fn(usize) -> bool,
    check: impl Fn(&Case, bool, Response, usize) + Sync,
) {
    let by_name = cases.iter().map(|case| (case.name.clone(), case.fault)).collect::<HashMap<_, _>>();
    let tries = Tries::default();
    let upstream = Upstream::start(move |request, answer| {
        let name = subject(request).trim_end_matches(" streamed");
        if fails(tries.next(request)) {
            fail(dialect, by_name[name], request, answer)
        } else {
            answer.good(dialect, request)
        }
    });
    let proxy = Proxy::before(&upstream, settings);
    thread::scope(|scope| {
        for (number, case) in cases.iter().enumerate() {
            for streamed in
                [false, true].into_iter().filter(|kind| case.streamed.is_none_or(|only| only == *kind))
            {
                let (upstream, proxy, check) = (&upstream, &proxy, &check);
                scope.spawn(move || {
                    let name = if streamed { format!("{} streamed", case.name) } else { case.name.clone() };
                    let model = format!("case/{number}{streamed}:free");
                    let body = (dialect.request)(&model, &format!("«{name}»"), streamed);
                    let response = proxy.post(dialect.path, &body);
                    let asked = upstream.received().iter().filter(|r| subject(r) == name).count();
                    check(case, streamed, response, asked);
                });
            }
        }
    });
}

#[test]
fn what_another_try_heals_in_every_dialect() {
    in_every_dialect(|dialect| {
        all_at_once(
            dialect,
            "",
            healable(dialect),
            |number| number == 1,
            |case, streamed, response, asked| {
                let name = format!("{}: {}, streamed: {streamed}", dialect.name, case.name);
                assert_eq!((response.status, response.text()), (200, &*dialect.good(streamed)), "{name}");
                assert_eq!(response.header("x-proxy-attempts"), Some("2"), "{name}");
                assert_eq!(response.header("x-should-retry"), None, "{name}");
                assert_eq!(asked, 2, "{name}");
            },
        );
    });
}

#[test]
fn the_last_failure_is_the_clients_in_every_dialect() {
    in_every_dialect(|dialect| {
        all_at_once(
            dialect,
            "RETRIES=1",
            healable(dialect),
            |_| true,
            |case, streamed, response, asked| {
                let name = format!("{}: {}, streamed: {streamed}: {response:?}", dialect.name, case.name);
                assert!(case.statuses.contains(&response.status), "{name}");
                assert_eq!(response.header("x-should-retry"), Some("false"), "{name}");
                assert_eq!(response.header("x-proxy-attempts"), Some("2"), "{name}");
                assert_eq!(asked, 2, "{name}");
                match case.fault {
                    Fault::Status(status) => {
                        assert_eq!(response.text(), (dialect.error)(status, "no luck"), "{name}")
                    }
                    Fault::Body(body) if body.contains("no luck") => {
                        assert_eq!(response.text(), body, "{name}")
                    }
                    Fault::Provider | Fault::Event(..) => {
                        assert!(response.text().contains("no luck"), "{name}");
                        assert!(response.json()["error"]["message"].is_string(), "{name}");
                    }
                    _ => (dialect.assert_error)(&response.json(), response.status, Some("upstream_error")),
                }
            },
        );
    });
}

/// A 200 is on its way when comments have gone on: the last failure becomes the end of the stream.
#[test]
fn comments_go_on_while_it_is_tried_again_in_every_dialect() {
    let commented = |dialect: &'static Dialect| {
        let case = |(event, _): &(&'static str, &[u16])| Case {
            name: (*event).chars().filter(|c| c.is_alphanumeric()).collect(),
            fault: Fault::Commented(event),
            streamed: Some(true),
            statuses: vec![200],
        };
        dialect.failures.iter().map(case).collect::<Vec<_>>()
    };
    in_every_dialect(|dialect| {
        all_at_once(
            dialect,
            "",
            commented(dialect),
            |number| number == 1,
            |_, _, response, asked| {
                assert_eq!(
                    (response.text(), asked),
                    (&*(COMMENT.to_owned() + &dialect.stream()), 2),
                    "{}",
                    dialect.name
                );
            },
        );
        all_at_once(
            dialect,
            "RETRIES=0",
            commented(dialect),
            |_| true,
            |case, _, response, _| {
                let name = format!("{} {}: {:?}", dialect.name, case.name, response);
                assert_eq!(response.status, 200, "{name}");
                let text = response.text();
                assert!(text.starts_with(COMMENT) && text.contains("no luck"), "{name}");
                assert!(!text.contains("[DONE]") && text.ends_with("\n\n"), "{name}");
                let Fault::Commented(event) = case.fault else { unreachable!() };
                assert!(text.ends_with(event), "{name}: the failure as it came");
            },
        );
    });
}

/// What nothing can heal goes to the client at once, as it is.
#[test]
fn what_is_not_tried_again_in_any_dialect() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(|request, answer| {
            let (status, headers) = subject(request).split_once(' ').unwrap();
            // Not even the blanks of it are touched.
            let body = (dialect.error)(status.parse().unwrap(), "no luck").replace(',', " ,\\n ");
            answer.respond(
                status.parse().unwrap(),
                &headers.replace(';', "\r\n"),
                &body.replace("\\n", "\n"),
            );
        });
        let proxy = Proxy::before(&upstream, "");
        let mut client = proxy.connect();
        let statuses =
            [400, 401, 402, 403, 405, 409, 413, 415, 422, 451, 501].map(|status| format!("{status} "));
        for case in &statuses {
            for streamed in [false, true] {
                let before = upstream.calls();
                let body = (dialect.request)("openrouter/free", &format!("«{case}»"), streamed);
                let response = client.post(dialect.path, &body);
                let status = case.split(' ').next().unwrap().parse().unwrap();
                let name = format!("{} {case:?}, streamed: {streamed}: {response:?}", dialect.name);
                let expected = (dialect.error)(status, "no luck").replace(',', " ,\n ");
                assert_eq!((response.status, response.text()), (status, &*expected), "{name}");
                let stays = matches!(status, 401..=403).then_some("false");
                assert_eq!(response.header("x-should-retry"), stays, "{name}");
                assert_eq!(response.header("x-proxy-attempts"), None, "{name}");
                assert_eq!(upstream.calls(), before + 1, "{name}");
            }
        }
    });
}

#[test]
fn an_answer_cut_short_by_its_limit_is_no_failure() {
    in_every_dialect(|dialect| {
        let stream = [dialect.opening, dialect.cut_short_stream].concat();
        let sent = stream.clone();
        let upstream = Upstream::start(move |request, answer| {
            if request.streams() {
                answer.events(&sent);
                answer.end();
            } else {
                answer.json(200, dialect.cut_short)
            }
        });
        let proxy = Proxy::before(&upstream, "");
        for (streamed, expected) in [(false, dialect.cut_short.to_owned()), (true, stream.concat())] {
            let response = proxy.post(dialect.path, &dialect.request("hello", streamed));
            assert_eq!((response.status, response.text()), (200, &*expected), "{}", dialect.name);
        }
        assert_eq!(upstream.calls(), 2, "{}", dialect.name);
    });
}

/// Text is not the only thing that an answer can hold.
#[test]
fn an_answer_without_text_may_say_something_all_the_same() {
    let answers: &[(&Dialect, &[&str])] = &[
        (
            &CHAT,
            &[
                r#"{"choices":[{"index":0,"message":{"content":"","reasoning":"hm"},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"index":0,"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"index":0,"message":{"content":null,"audio":{"id":"a"}},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":"tool_calls"}]}"#,
                r#"{"choices":[{"index":0,"message":{"content":""}},{"index":1,"message":{"content":"x"}}]}"#,
            ],
        ),
        (
            &RESPONSES,
            &[
                r#"{"id":"r","object":"response","status":"completed","output":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]}"#,
                r#"{"id":"r","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":"no"}]}]}"#,
            ],
        ),
        (
            &MESSAGES,
            &[
                r#"{"id":"g","type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":{}}],"stop_reason":"tool_use"}"#,
                r#"{"id":"g","type":"message","content":[{"type":"thinking","thinking":"hm","signature":"s"}],"stop_reason":"end_turn"}"#,
            ],
        ),
    ];
    let streams: &[(&Dialect, &[&str])] = &[
        (
            &CHAT,
            &[
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":null,\"reasoning\":\"hm\"}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"refusal\":\"no\"}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"audio\":{\"data\":\"AA==\"}}}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
            ],
        ),
        (
            &RESPONSES,
            &[
                "data: {\"type\":\"response.output_item.added\",\"sequence_number\":3,\"output_index\":0,\"item\":{\"type\":\"function_call\",\"id\":\"f\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"\"}}\n\n",
                "data: {\"type\":\"response.reasoning_text.delta\",\"sequence_number\":3,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"hm\"}\n\n",
            ],
        ),
        (
            &MESSAGES,
            &[
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\n",
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n",
            ],
        ),
    ];
    let upstream = Upstream::start(|request, answer| {
        let said = serde_json::from_str::<String>(&format!("\"{}\"", subject(request))).unwrap();
        let dialect =
            DIALECTS.iter().find(|dialect| request.path.ends_with(&dialect.path["/v1".len()..])).unwrap();
        if request.streams() {
            answer.events(&[dialect.opening, &[&said], dialect.ending].concat());
            answer.end();
        } else {
            answer.json(200, &said)
        }
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for (streamed, table) in [(false, answers), (true, streams)] {
        for (dialect, said) in table {
            for text in *said {
                let escaped = Value::from(format!("«{text}»")).to_string();
                let body = dialect.request(escaped.trim_matches('"'), streamed);
                let response = proxy.post(dialect.path, &body);
                let expected = if streamed {
                    [dialect.opening, &[text], dialect.ending].concat().concat()
                } else {
                    (*text).to_owned()
                };
                assert_eq!((response.status, response.text()), (200, &*expected), "{}: {text}", dialect.name);
            }
        }
    }
}

/// Section 3, "Knowing the models": the next one in line is asked at once.
#[test]
fn what_a_model_cannot_do_the_next_one_does_in_every_dialect() {
    const TROUBLES: [(u16, &str); 4] = [
        (404, "No endpoints found for some/model:free."),
        (404, "No endpoints found that support tool use."),
        (400, "some/model:free is not a valid model ID"),
        (400, "This endpoint's maximum context length is 8000 tokens. You requested 9000."),
    ];
    in_every_dialect(|dialect| {
        for (status, message) in TROUBLES {
            let upstream = Upstream::start(move |request, answer| {
                if request.body.contains(MODEL) {
                    answer.json(status, &(dialect.error)(status, message))
                } else {
                    answer.good(dialect, request)
                }
            });
            let proxy = Proxy::before(&upstream, "");
            for streamed in [false, true] {
                let response = proxy.post(dialect.path, &dialect.request("hello", streamed));
                let name = format!("{}: {message}: {response:?}", dialect.name);
                assert_eq!((response.status, response.text()), (200, &*dialect.good(streamed)), "{name}");
                assert_eq!(
                    response.header("x-proxy-model"),
                    Some("some/model:free -> openrouter/free"),
                    "{name}"
                );
            }
        }
    });
}

/// A failure is one however its bytes come: cut anywhere, with other line ends, behind a long opening.
#[test]
fn failures_are_recognized_however_they_are_written() {
    type Writing = (&'static str, fn(String) -> String, usize);
    const WRITINGS: [Writing; 6] = [
        ("byte by byte", |text| text, 1),
        ("CRLF", |text| text.replace('\n', "\r\n"), 1000),
        ("CRLF, byte by byte", |text| text.replace('\n', "\r\n"), 1),
        ("CR", |text| text.replace('\n', "\r"), 1000),
        (
            "no blank behind the colon",
            |text| text.replace("data: ", "data:").replace("event: ", "event:"),
            1000,
        ),
        ("other fields", |text| text.replace("data: ", "id: 1\nretry: 5\ndata: "), 1000),
    ];
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| {
            let (_, writing, size) = WRITINGS.iter().find(|(name, ..)| *name == subject(request)).unwrap();
            if request.body.contains("openrouter/free") {
                return answer.good(dialect, request);
            }
            answer.stream_head();
            for piece in writing(dialect.opening.concat() + dialect.failures[0].0).as_bytes().chunks(*size) {
                answer.raw(format!("{:x}\r\n", piece.len()));
                answer.raw(piece);
                answer.raw("\r\n");
            }
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        thread::scope(|scope| {
            for (name, ..) in WRITINGS {
                let proxy = &proxy;
                scope.spawn(move || {
                    let body = dialect.request(&format!("«{name}»"), true);
                    let response = proxy.post(dialect.path, &body);
                    let expected = dialect.stream();
                    assert_eq!(
                        (response.status, response.text()),
                        (200, &*expected),
                        "{}: {name}",
                        dialect.name
                    );
                });
            }
        });
    });
}

/// A byte-order mark at the beginning of a stream is no part of its first event (WHATWG HTML, 9.2.5).
#[test]
fn a_byte_order_mark_hides_no_event() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| match request.number {
            1 => {
                answer.events(&[format!("\u{feff}{}{}", dialect.opening[0], dialect.failures[0].0)]);
                answer.end();
            }
            _ => answer.good(dialect, request),
        });
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.post(dialect.path, &dialect.request("hello", true));
        assert_eq!((response.status, response.text()), (200, &*dialect.stream()), "{}", dialect.name);
    });
}

/// Some upstreams say the whole request again in their first event, instructions and tools and all.
#[test]
fn an_error_behind_a_long_opening_is_healed() {
    for length in [10_000, 100_000, 1_000_000] {
        let opening = RESPONSES.opening[0].replacen(
            "\"output\"",
            &format!(r#""instructions":"{}","output""#, "x".repeat(length)),
            1,
        );
        let long = opening.clone();
        let upstream = Upstream::start(move |request, answer| match request.number {
            1 => {
                answer.events(&[&long, RESPONSES.failures[0].0]);
                answer.end();
            }
            _ => {
                answer.events(&[long.clone(), RESPONSES.stream()]);
                answer.end();
            }
        });
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.post(RESPONSES.path, &RESPONSES.request("hello", true));
        assert!(
            response.text() == opening.clone() + &RESPONSES.stream(),
            "{length}: {:?}",
            &response.text()[response.text().len() - 400..]
        );
        assert_eq!((response.status, response.header("x-proxy-attempts")), (200, Some("2")), "{length}");
    }
}

/// Where nothing says how long a body is, its end may come too early without anybody noticing but who reads it.
#[test]
fn a_plain_answer_that_ends_within_its_json_is_tried_again_in_every_dialect() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| match request.number {
            1 => {
                answer.raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n");
                answer.raw(&dialect.plain[..dialect.plain.len() - 5]);
                answer.close();
            }
            2 => answer.json(200, &dialect.plain[..dialect.plain.len() / 2]),
            _ => answer.json(200, dialect.plain),
        });
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.post(dialect.path, &dialect.request("hello", false));
        assert_eq!((response.status, response.text()), (200, dialect.plain), "{}", dialect.name);
        assert_eq!(upstream.calls(), 3, "{}", dialect.name);
    });
}

/// Blank lines keep a plain answer's connection alive until the model has spoken.
#[test]
fn blank_lines_before_a_plain_answer_change_nothing() {
    const BLANKS: &str = "\n\n         \n\n";
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| {
            answer.raw(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            );
            answer.piece(BLANKS);
            answer.piece(match request.number {
                1 => dialect.failed_bodies[0].0,
                2 => dialect.empty[0],
                _ => dialect.plain,
            });
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.post(dialect.path, &dialect.request("hello", false));
        let plain = serde_json::from_str::<Value>(dialect.plain).unwrap();
        assert_eq!((response.status, response.json()), (200, plain), "{}", dialect.name);
        assert!(response.text().ends_with(dialect.plain), "{}", dialect.name);
        assert_eq!(upstream.calls(), 3, "{}", dialect.name);
    });
}
