//! Section 3, "An answer that is none": a 200 that isn't what was asked for, in each dialect, plain and streamed, and what
//! becomes of it at the last try.

use std::thread;

use serde_json::{Value, json};

use crate::dialects::{CHAT, COMPLETIONS, DIALECTS, DONE, Dialect, MESSAGES, RESPONSES};
use crate::fixture::*;

/// What the client gets where the last try gave such an answer.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Last {
    /// The answer itself, byte for byte.
    AsItCame,
    /// An error of this status.
    Error(u16),
}
use Last::{AsItCame, Error};

/// How a 200 comes.
#[derive(Clone)]
enum Said {
    Plain(&'static str, String),
    Stream(Vec<String>),
}
use Said::{Plain, Stream};

impl Said {
    fn json(value: &Value) -> Self {
        Plain("application/json", value.to_string())
    }

    fn bytes(&self) -> String {
        match self {
            Plain(_, body) => body.clone(),
            Stream(pieces) => pieces.concat(),
        }
    }

    fn answer(&self, answer: &mut Answer<'_>) {
        match self {
            Plain(kind, body) => answer.respond(200, &format!("content-type: {kind}\r\n"), body),
            Stream(pieces) => {
                answer.stream_head();
                pieces.iter().for_each(|piece| answer.piece(piece));
                answer.end();
            }
        }
    }
}

/// What a model says as the only text, or as the only call, of an answer.
fn text(dialect: &Dialect, text: &str, finish: &str) -> Value {
    match dialect.name {
        "messages" => {
            let stop = if finish == "length" { "max_tokens" } else { "end_turn" };
            json!({"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [{"type": "text", "text": text}], "stop_reason": stop, "usage": {"input_tokens": 1, "output_tokens": 1}})
        }
        "responses" => {
            let mut body = json!({"id": "r", "object": "response", "model": MODEL, "status": "completed", "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": text, "annotations": []}]}]});
            if finish == "length" {
                body["status"] = "incomplete".into();
                body["incomplete_details"] = json!({"reason": "max_output_tokens"});
            }
            body
        }
        "completions" => {
            json!({"id": "g", "object": "text_completion", "model": MODEL, "choices": [{"index": 0, "text": text, "finish_reason": finish}]})
        }
        _ => {
            json!({"id": "g", "object": "chat.completion", "model": MODEL, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}]})
        }
    }
}

fn call(dialect: &Dialect, arguments: &str) -> Value {
    match dialect.name {
        "responses" => {
            json!({"id": "r", "object": "response", "model": MODEL, "status": "completed", "output": [{"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": arguments, "status": "completed"}]})
        }
        _ => {
            json!({"id": "g", "object": "chat.completion", "model": MODEL, "choices": [{"index": 0, "message": {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]}, "finish_reason": "tool_calls"}]})
        }
    }
}

fn reasoning(dialect: &Dialect) -> Value {
    match dialect.name {
        "messages" => {
            json!({"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [{"type": "thinking", "thinking": "hm", "signature": ""}], "stop_reason": "end_turn"})
        }
        "responses" => {
            json!({"id": "r", "object": "response", "model": MODEL, "status": "completed", "output": [{"type": "reasoning", "id": "q", "summary": [{"type": "summary_text", "text": "hm"}]}]})
        }
        _ => {
            json!({"id": "g", "object": "chat.completion", "model": MODEL, "choices": [{"index": 0, "message": {"role": "assistant", "content": "", "reasoning": "hm"}, "finish_reason": "stop"}]})
        }
    }
}

/// A stream of a text in these pieces.
fn text_stream(dialect: &Dialect, pieces: &[&str]) -> Vec<String> {
    let data = |value: Value| format!("data: {value}\n\n");
    let named = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let mut events = dialect.opening.iter().map(|event| (*event).to_owned()).collect::<Vec<_>>();
    match dialect.name {
        "messages" => {
            events.push(named(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})));
            for piece in pieces {
                events.push(named(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})));
            }
            events.push(named(json!({"type": "content_block_stop", "index": 0})));
            events.push(named(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})));
        }
        "responses" => {
            events.extend(dialect.saying[..2].iter().map(|event| (*event).to_owned()));
            for (number, piece) in pieces.iter().enumerate() {
                events.push(data(json!({"type": "response.output_text.delta", "sequence_number": number + 5, "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": piece})));
            }
        }
        "completions" => {
            for piece in pieces {
                events.push(data(json!({"id": "g", "object": "text_completion", "model": MODEL, "choices": [{"index": 0, "text": piece, "finish_reason": null}]})));
            }
        }
        _ => {
            for piece in pieces {
                events.push(data(json!({"id": "g", "object": "chat.completion.chunk", "model": MODEL, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]})));
            }
        }
    }
    match dialect.name {
        "responses" => {
            let whole = text(dialect, &pieces.concat(), "stop");
            events
                .push(data(json!({"type": "response.completed", "sequence_number": 40, "response": whole})));
        }
        _ => events.extend(dialect.ending.iter().map(|event| (*event).to_owned())),
    }
    events.push(DONE.to_owned());
    events
}

/// A request that offers a function.
fn with_tools(dialect: &Dialect, streamed: bool) -> String {
    let tools = match dialect.name {
        "messages" => r#"[{"name":"f","input_schema":{"type":"object"}}]"#,
        "responses" => r#"[{"type":"function","name":"f","parameters":{"type":"object"}}]"#,
        _ => r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#,
    };
    more(dialect, streamed, &format!(r#""tools":{tools}"#))
}

fn with_json(dialect: &Dialect) -> String {
    let format = match dialect.name {
        "messages" => r#""output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}"#,
        "responses" => r#""text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}}}"#,
        _ => r#""response_format":{"type":"json_object"}"#,
    };
    more(dialect, false, format)
}

fn more(dialect: &Dialect, streamed: bool, field: &str) -> String {
    let request = dialect.request("hello", streamed);
    format!("{},{field}}}", request.strip_suffix('}').unwrap())
}

struct Case {
    name: &'static str,
    dialect: &'static Dialect,
    request: String,
    said: Said,
    /// What follows at the last try; `None` where it is an answer after all.
    last: Option<Last>,
}

/// Each case is healed by the next try, and at the last one is what it is.
fn hold(cases: Vec<Case>) {
    let wrong = thread::scope(|scope| {
        let try_one = |case: &Case| -> Vec<String> {
            let mut wrong = Vec::new();
            for retries in [1, 0] {
                let (said, dialect) = (case.said.clone(), case.dialect);
                let upstream = Upstream::start(move |request, answer| match request.number {
                    1 => said.answer(answer),
                    _ => answer.good(dialect, request),
                });
                let proxy = Proxy::before(&upstream, &format!("RETRIES={retries}"));
                let response = proxy.post(dialect.path, &case.request);
                let asked_stream = case.request.contains(r#""stream":true"#);
                let (status, body, calls) = match case.last {
                    Some(_) if retries == 1 => (200, Some(dialect.good(asked_stream)), 2),
                    Some(Error(status)) => (status, None, 1),
                    None | Some(AsItCame) => (200, Some(case.said.bytes()), 1),
                };
                let same = body.is_none_or(|body| response.text() == body);
                if response.status != status || !same || upstream.calls() != calls {
                    wrong.push(format!(
                        "{} {} RETRIES={retries}: {:?} should be {:?}, got {} after {} calls: {}\n  {}",
                        dialect.name,
                        case.name,
                        case.said.bytes(),
                        case.last,
                        response.status,
                        upstream.calls(),
                        response.text(),
                        proxy.console().lines().last().unwrap_or_default(),
                    ));
                }
            }
            wrong
        };
        // A few at a time: each is a program of its own.
        let shares = cases.chunks(cases.len().div_ceil(4));
        let threads =
            shares.map(|share| scope.spawn(move || share.iter().flat_map(try_one).collect::<Vec<_>>()));
        let threads = threads.collect::<Vec<_>>();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn failures_that_no_sdk_can_read() {
    let mut cases = Vec::new();
    for dialect in DIALECTS {
        for body in [
            "<!DOCTYPE html><html><body>Bad gateway</body></html>",
            "{}",
            "[]",
            "null",
            "\"hi\"",
            "{\"choices\":",
        ] {
            for (kind, streamed) in [
                ("application/json", false),
                ("text/html", false),
                ("application/json", true),
                ("text/html", true),
            ] {
                cases.push(Case {
                    name: "unreadable",
                    dialect,
                    request: dialect.request("hello", streamed),
                    said: Plain(kind, body.into()),
                    last: Some(Error(502)),
                });
            }
        }
        // An answer of another dialect is none of this one.
        let other = if dialect.name == "messages" { &CHAT } else { &MESSAGES };
        cases.push(Case {
            name: "another dialect",
            dialect,
            request: dialect.request("hello", false),
            said: Plain("application/json", other.plain.into()),
            last: Some(Error(502)),
        });
        // A stream where a plain answer was asked for passes.
        cases.push(Case {
            name: "a stream for a plain request",
            dialect,
            request: dialect.request("hello", false),
            said: Stream(vec![dialect.stream()]),
            last: None,
        });
    }
    hold(cases);
}

#[test]
fn failures_of_an_answer_with_nothing_in_it() {
    let mut cases = Vec::new();
    for dialect in DIALECTS {
        for empty in dialect.empty {
            cases.push(Case {
                name: "empty",
                dialect,
                request: dialect.request("hello", false),
                said: Plain("application/json", (*empty).into()),
                last: Some(Error(502)),
            });
        }
        for ending in dialect.empty_streams {
            let events = dialect.opening.iter().chain(*ending).map(|event| (*event).to_owned());
            cases.push(Case {
                name: "an empty stream",
                dialect,
                request: dialect.request("hello", true),
                said: Stream(events.collect()),
                last: Some(Error(502)),
            });
        }
        cases.push(Case {
            name: "cut by its length",
            dialect,
            request: dialect.request("hello", false),
            said: Plain("application/json", dialect.cut_short.into()),
            last: None,
        });
        if dialect.name != "completions" {
            cases.push(Case {
                name: "reasoning alone",
                dialect,
                request: dialect.request("hello", false),
                said: Said::json(&reasoning(dialect)),
                last: Some(AsItCame),
            });
        }
    }
    hold(cases);
}

#[test]
fn failures_with_an_error_beside_a_part() {
    let mut cases = Vec::new();
    let mut case = |dialect: &'static Dialect, said: Value, status: u16| {
        cases.push(Case {
            name: "an error beside a part",
            dialect,
            request: dialect.request("hello", false),
            said: Said::json(&said),
            last: Some(Error(status)),
        });
    };
    for dialect in [&CHAT, &COMPLETIONS] {
        let mut beside = text(dialect, "half of", "stop");
        beside["error"] = json!({"code": 503, "message": "broke"});
        case(dialect, beside, 503);
        let mut within = text(dialect, "half of", "error");
        within["choices"][0]["error"] =
            json!({"code": 502, "message": "broke", "metadata": {"error_type": "provider_overloaded"}});
        case(dialect, within, 503);
        let mut http = text(dialect, "half of", "error");
        http["error"] = json!({"http_status": 504, "message": "broke"});
        case(dialect, http, 504);
        case(dialect, text(dialect, "half of", "error"), 502);
    }
    let mut failed = text(&RESPONSES, "half of", "stop");
    failed["status"] = "failed".into();
    failed["error"] = json!({"code": "server_error", "message": "broke"});
    failed["error_type"] = "provider_overloaded".into();
    case(&RESPONSES, failed, 503);
    let mut beside = text(&MESSAGES, "half of", "stop");
    beside["error"] =
        json!({"type": "overloaded_error", "message": "broke", "error_type": "provider_overloaded"});
    case(&MESSAGES, beside, 503);
    hold(cases);
}

#[test]
fn failures_of_tool_calls() {
    let mut cases = Vec::new();
    for dialect in [&CHAT, &RESPONSES, &MESSAGES] {
        for written in [
            "<tool_call>{\"name\":\"f\"}</tool_call>",
            "<function=f>{}</function>",
            "[TOOL_CALLS][{}]",
            "<|tool_call|>f()",
            "\n <tool_call>\n{}",
        ] {
            let mut case =
                |name, request, said, last| cases.push(Case { name, dialect, request, said, last });
            let body = text(dialect, written, "stop");
            case("a call as text", with_tools(dialect, false), Said::json(&body), Some(AsItCame));
            case("the same without tools", dialect.request("hello", false), Said::json(&body), None);
            let (first, second) = written.split_at(6);
            let whole = text_stream(dialect, &[written]);
            let split = text_stream(dialect, &[&first[..1], &first[1..], second]);
            case(
                "a call as text in a stream",
                with_tools(dialect, true),
                Stream(whole.clone()),
                Some(AsItCame),
            );
            case("the same in pieces", with_tools(dialect, true), Stream(split), Some(AsItCame));
            case("the same stream without tools", dialect.request("hello", true), Stream(whole), None);
        }
        for harmless in ["<tool", "<toolbox> is a tag", "Use <tool_call> for it", "[TOOL_BOX]", "<"] {
            let mut case =
                |name, request, said| cases.push(Case { name, dialect, request, said, last: None });
            case("like a call", with_tools(dialect, false), Said::json(&text(dialect, harmless, "stop")));
            let (first, second) = harmless.split_at(1);
            let pieces = if second.is_empty() { vec![first] } else { vec![first, second] };
            case("like a call in a stream", with_tools(dialect, true), Stream(text_stream(dialect, &pieces)));
        }
    }
    for dialect in [&CHAT, &RESPONSES] {
        let mut case = |name, arguments, last| {
            let said = Said::json(&call(dialect, arguments));
            cases.push(Case { name, dialect, request: with_tools(dialect, false), said, last });
        };
        case("arguments that aren't JSON", "{\"a\":", Some(AsItCame));
        case("arguments", "{\"a\":1}", None);
        case("empty arguments", "", None);
    }
    hold(cases);
}

#[test]
fn failures_where_json_was_asked_for() {
    let mut cases = Vec::new();
    for dialect in [&CHAT, &RESPONSES, &MESSAGES] {
        let mut case = |name, request, said: &Value, last| {
            cases.push(Case { name, dialect, request, said: Said::json(said), last });
        };
        let none = text(dialect, "Here you are: a=1", "stop");
        case("no JSON", with_json(dialect), &none, Some(AsItCame));
        case("no JSON, cut", with_json(dialect), &text(dialect, "Here you", "length"), None);
        case("JSON", with_json(dialect), &text(dialect, "{\"a\":1}", "stop"), None);
        case("fenced JSON", with_json(dialect), &text(dialect, "```json\n{\"a\":1}\n```", "stop"), None);
        case("none asked for", dialect.request("hello", false), &none, None);
    }
    hold(cases);
}

/// What a classifier says is no answer, unless the client named it; and no conversation keeps it.
#[test]
fn failures_of_models_that_do_not_chat() {
    const CLASSIFIER: &str = "nvidia/nemotron-3.5-content-safety:free";
    thread::scope(|scope| {
        for dialect in [&CHAT, &RESPONSES, &MESSAGES] {
            for streamed in [false, true] {
                scope.spawn(move || {
                    let verdict = text(dialect, "User Safety: safe", "stop").to_string();
                    let stream = text_stream(dialect, &["User ", "Safety: safe"]);
                    let upstream = Upstream::start(move |request, answer| match request.number {
                        1 | 4 if request.streams() => {
                            let events = stream
                                .iter()
                                .map(|event| event.replace(MODEL, CLASSIFIER))
                                .collect::<Vec<_>>();
                            answer.events(&events);
                            answer.end();
                        }
                        1 | 4 => answer.json(200, &verdict.replace(MODEL, CLASSIFIER)),
                        _ => answer.good(dialect, request),
                    });
                    let proxy = Proxy::before(&upstream, "");
                    let ask = |model: &str| {
                        proxy.post(dialect.path, &dialect.request("hello", streamed).replace(MODEL, model))
                    };
                    let name = format!("{} {streamed}", dialect.name);
                    assert_eq!(ask("openrouter/free").text(), dialect.good(streamed), "{name}");
                    assert_eq!(upstream.calls(), 2, "{name}");
                    assert_eq!(ask("openrouter/free").text(), dialect.good(streamed), "{name}");
                    assert!(!upstream.received().iter().any(|r| r.body.contains(CLASSIFIER)), "{name}: kept");
                    // Its word is what a client that names it wants.
                    assert!(ask(CLASSIFIER).text().contains("Safety: safe"), "{name}");
                    assert_eq!(upstream.calls(), 4, "{name}");
                });
            }
        }
    });
}

/// A stream is held only as long as it could become a call: not behind a word that is none, nor behind blanks that a call
/// of its own follows.
#[test]
fn failures_held_no_longer_than_needed() {
    for dialect in [&CHAT, &RESPONSES, &MESSAGES] {
        let called = match dialect.name {
            "messages" => {
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"called\",\"input\":{}}}\n\n"
            }
            "responses" => {
                "data: {\"type\":\"response.output_item.added\",\"sequence_number\":7,\"output_index\":1,\"item\":{\"type\":\"function_call\",\"id\":\"c\",\"call_id\":\"c\",\"name\":\"called\",\"arguments\":\"\"}}\n\n"
            }
            _ => {
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"called\",\"arguments\":\"\"}}]},\"finish_reason\":null}]}\n\n"
            }
        };
        let word = text_stream(dialect, &["<t", "able>", " follows"]);
        let mut blanks = text_stream(dialect, &["\n"]);
        let at = blanks.iter().position(|event| event.contains(r#""\n""#)).unwrap();
        blanks.insert(at + 1, called.into());
        for (events, until) in [(word, "able>"), (blanks, "called")] {
            let (go, went) = std::sync::mpsc::channel::<()>();
            let went = std::sync::Mutex::new(went);
            let at = events.iter().position(|event| event.contains(until)).unwrap();
            let (begin, rest) = (events[..=at].to_vec(), events[at + 1..].to_vec());
            let whole = events.concat();
            let upstream = Upstream::start(move |_, answer| {
                answer.events(&begin);
                went.lock().unwrap().recv_timeout(GUARD).unwrap();
                rest.iter().for_each(|event| answer.piece(event));
                answer.end();
            });
            let proxy = Proxy::before(&upstream, "");
            let mut client = proxy.connect();
            client.send_post(dialect.path, &with_tools(dialect, true));
            let mut read = client.read_head_and_until(until);
            go.send(()).unwrap();
            read += &client.rest_of_chunks();
            assert_eq!(read, whole, "{}", dialect.name);
        }
    }
}
