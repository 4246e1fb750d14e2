//! Section 3, "Which model is next": conversations keep their model, as the tools write them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::dialects::{CHAT, Dialect, MESSAGES, RESPONSES};
use crate::fixture::*;

/// An upstream whose router has another model answer each time.
fn router(dialect: &'static Dialect) -> Upstream {
    let picked = Mutex::new(0);
    Upstream::start(move |request, answer| {
        let mut model = request.json()["model"].as_str().unwrap().to_owned();
        if model == "openrouter/free" {
            let mut picked = picked.lock().unwrap();
            *picked += 1;
            model = format!("picked/{picked}:free");
        }
        good_of(&model, dialect, request, answer);
    })
}

fn good_of(model: &str, dialect: &Dialect, request: &Received, answer: &mut Answer<'_>) {
    if request.streams() {
        answer.stream_head();
        answer.piece(&dialect.stream().replace(MODEL, model));
        answer.end();
    } else {
        answer.json(200, &dialect.plain.replace(MODEL, model));
    }
}

fn post(proxy: &Proxy, path: &str, headers: &str, body: &Value) -> Response {
    let body = body.to_string();
    let length = body.len();
    proxy.connect().exchange(&format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    ))
}

/// A request with its headers, as a client has them on a line.
type Sent = (String, Value);

/// Two conversations by turns: each keeps the model that answered it first.
fn keep_apart(name: &str, dialect: &'static Dialect, turns: impl Fn(&str, usize) -> Sent) {
    let upstream = router(dialect);
    let proxy = Proxy::before(&upstream, "");
    for turn in 0..3 {
        for who in ["alice", "bob"] {
            let (headers, body) = turns(who, turn);
            assert_eq!(post(&proxy, dialect.path, &headers, &body).status, 200, "{name}");
        }
    }
    let models = upstream
        .received()
        .iter()
        .map(|r| r.json()["model"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    let expected = [
        "openrouter/free",
        "openrouter/free",
        "picked/1:free",
        "picked/2:free",
        "picked/1:free",
        "picked/2:free",
    ];
    assert_eq!(models, expected, "{name}");
}

/// As Claude Code 2.1.332 writes them: what was a list is a string later, and marks move.
fn claude_code(first: &str, turn: usize) -> Value {
    let mark = json!({"type": "ephemeral"});
    let context = "The context\nof this session";
    let mut messages = vec![
        json!({"role": "user", "content": [{"type": "text", "text": "<system-reminder>"}, {"type": "text", "text": first}]}),
    ];
    messages.push(match turn {
        0 => json!({"role": "system", "content": [{"type": "text", "text": context, "cache_control": mark}], "output_config": {"effort": "medium"}}),
        _ => json!({"role": "system", "content": context, "output_config": {"effort": "medium"}}),
    });
    for step in 1..=turn {
        messages.push(json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "tool_use", "id": format!("t{step}"), "name": "Bash", "input": {"command": "ls"}}]}));
        let mut result = json!({"tool_use_id": format!("t{step}"), "type": "tool_result", "content": "files", "is_error": false});
        if step == turn {
            result["cache_control"] = mark.clone();
        }
        messages.push(json!({"role": "user", "content": [result]}));
    }
    json!({"model": "claude-opus-5-5", "max_tokens": 100, "system": [{"type": "text", "text": "You are", "cache_control": mark}], "messages": messages, "tools": [{"name": "Bash", "input_schema": {"type": "object"}}], "stream": true})
}

/// As Qwen Code and OpenClaw do: the last message is no part of the next history.
fn with_reminder(dialect: &Dialect, first: &str, turn: usize) -> Value {
    let field = if dialect.name == "responses" { "input" } else { "messages" };
    let mut messages = vec![json!({"role": "user", "content": first})];
    for step in 0..turn {
        messages.push(json!({"role": "assistant", "content": format!("step {step}")}));
        messages.push(json!({"role": "user", "content": format!("go on {step}")}));
    }
    messages.push(json!({"role": "user", "content": format!("It is now {turn} o'clock")}));
    let mut body = json!({"model": "gpt-4o", "max_tokens": 100});
    body[field] = messages.into();
    body
}

/// The same said in other ways: as a string or as a list, with blanks, with marks.
fn otherwise_written(dialect: &Dialect, first: &str, turn: usize) -> Value {
    let kind = if dialect.name == "responses" { "input_text" } else { "text" };
    let written = |text: &str| match turn % 3 {
        0 => json!(text),
        1 => json!([{"type": kind, "text": text}]),
        _ => json!([{"type": kind, "text": text, "cache_control": {"type": "ephemeral"}}]),
    };
    let field = if dialect.name == "responses" { "input" } else { "messages" };
    let mut messages = vec![json!({"role": "user", "content": written(first)})];
    for step in 0..turn {
        messages.push(json!({"role": "assistant", "content": format!("step {step}")}));
        messages.push(json!({"role": "user", "content": written("go on")}));
    }
    let mut body = json!({"model": "gpt-4o", "max_tokens": 100});
    body[field] = messages.into();
    if turn == 0 && dialect.name == "responses" {
        body[field] = first.into();
    }
    match dialect.name {
        "messages" if turn == 1 => body["system"] = json!("Be good"),
        "messages" => body["system"] = json!([{"type": "text", "text": "Be good"}]),
        "responses" => body["instructions"] = json!("Be good"),
        _ => {}
    }
    body
}

#[test]
fn failures_to_know_a_conversation_by_its_beginning() {
    keep_apart("Claude Code", &MESSAGES, |who, turn| (String::new(), claude_code(who, turn)));
    for dialect in [&CHAT, &MESSAGES, &RESPONSES] {
        keep_apart("a reminder", dialect, |who, turn| (String::new(), with_reminder(dialect, who, turn)));
        keep_apart("written otherwise", dialect, |who, turn| {
            (String::new(), otherwise_written(dialect, who, turn))
        });
    }
}

/// The same words, but two sessions, which their clients name.
#[test]
fn failures_to_know_a_conversation_by_its_name() {
    let id = |who: &str| format!("{who}-0000-0000-0000-000000000000");
    keep_apart("X-Claude-Code-Session-Id", &MESSAGES, |who, turn| {
        (format!("X-Claude-Code-Session-Id: {}\r\n", id(who)), claude_code("the same", turn))
    });
    keep_apart("metadata.user_id, JSON", &MESSAGES, |who, turn| {
        let mut body = claude_code("the same", turn);
        let user = json!({"device_id": "0", "account_uuid": "", "session_id": id(who)});
        body["metadata"] = json!({"user_id": user.to_string()});
        (String::new(), body)
    });
    keep_apart("metadata.user_id, a name", &MESSAGES, |who, turn| {
        let mut body = claude_code("the same", turn);
        body["metadata"] = json!({"user_id": format!("user_00_account__session_{}", id(who))});
        (String::new(), body)
    });
    for dialect in [&CHAT, &MESSAGES, &RESPONSES] {
        keep_apart("x-session-id", dialect, |who, turn| {
            (format!("x-session-id: ses_{}\r\n", id(who)), with_reminder(dialect, "the same", turn))
        });
        keep_apart("session_id", dialect, |who, turn| {
            let mut body = with_reminder(dialect, "the same", turn);
            body["session_id"] = id(who).into();
            (String::new(), body)
        });
        // A summary takes the place of the history: the name stays.
        keep_apart("a compaction", dialect, |who, turn| {
            (
                format!("x-session-id: ses_{}\r\n", id(who)),
                with_reminder(dialect, &format!("summary {turn}"), 0),
            )
        });
    }
    for dialect in [&CHAT, &RESPONSES] {
        keep_apart("prompt_cache_key", dialect, |who, turn| {
            let mut body = with_reminder(dialect, "the same", turn);
            body["prompt_cache_key"] = id(who).into();
            (String::new(), body)
        });
    }
}

/// What needs other abilities is another conversation, also in the same session.
#[test]
fn failures_to_keep_needs_apart() {
    let upstream = router(&CHAT);
    let proxy = Proxy::before(&upstream, "");
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    for offers in [false, true, false, true] {
        let mut body = with_reminder(&CHAT, "hello", 0);
        if offers {
            body["tools"] = tools.clone();
        }
        post(&proxy, CHAT.path, "x-session-id: one\r\n", &body).assert_status(200);
    }
    let models = upstream
        .received()
        .iter()
        .map(|r| r.json()["model"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(models, ["openrouter/free", "openrouter/free", "picked/1:free", "picked/2:free"]);
}

/// One bad moment costs a conversation no model, two do, and a `Retry-After` is heeded at once.
#[test]
fn failures_of_a_conversations_model() {
    let table = [
        (1, "", ["picked/1:free", "picked/1:free"]),
        (2, "", ["picked/1:free", "picked/1:free"]),
        (1, "retry-after: 30\r\n", ["picked/1:free", "openrouter/free"]),
    ];
    thread::scope(|scope| {
        for dialect in [&CHAT, &MESSAGES, &RESPONSES] {
            for (failures, headers, expected) in table {
                scope.spawn(move || {
                    let (picked, failed) = (Mutex::new(0), Mutex::new(0));
                    let upstream = Upstream::start(move |request, answer| {
                        let mut model = request.json()["model"].as_str().unwrap().to_owned();
                        if model == "openrouter/free" {
                            let mut picked = picked.lock().unwrap();
                            *picked += 1;
                            model = format!("picked/{picked}:free");
                        }
                        let mut failed = failed.lock().unwrap();
                        if request.number > 1 && model == "picked/1:free" && *failed < failures {
                            *failed += 1;
                            let body = r#"{"error":{"code":429,"message":"Provider returned error"},"metadata":{"provider_name":"Chutes","raw":"busy"}}"#;
                            let head = format!("content-type: application/json\r\n{headers}");
                            return answer.respond(429, &head, body);
                        }
                        good_of(&model, dialect, request, answer);
                    });
                    let proxy = Proxy::before(&upstream, "");
                    for turn in 0..3 {
                        let body = with_reminder(dialect, "hello", turn);
                        post(&proxy, dialect.path, "", &body).assert_status(200);
                    }
                    let models = upstream.received().iter().map(|r| r.json()["model"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
                    let name = format!("{} {failures} {headers:?}: {models:?}", dialect.name);
                    assert_eq!(models[1..3], expected, "{name}");
                    let last = models.last().unwrap();
                    assert_eq!(last == "picked/1:free", failures == 1 && headers.is_empty(), "{name}");
                    if failures == 2 {
                        assert_eq!(models[3], "openrouter/free", "{name}");
                    }
                });
            }
        }
    });
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// Ten models behind a router, of which four never answer and two only every other time.
fn ten_models(seed: u64, answered: Arc<Mutex<HashMap<usize, Vec<String>>>>) -> Upstream {
    let random = Mutex::new(Random(seed));
    let asked = Mutex::new([0_usize; 10]);
    Upstream::start(move |request, answer| {
        let named = request.json()["model"].as_str().unwrap().to_owned();
        let number =
            named.strip_prefix("ten/").and_then(|n| n.strip_suffix(":free")).and_then(|n| n.parse().ok());
        let number: usize = number.unwrap_or_else(|| random.lock().unwrap().below(10).try_into().unwrap());
        let times = {
            let mut asked = asked.lock().unwrap();
            asked[number] += 1;
            asked[number]
        };
        let is_up = match number {
            0..4 => false,
            4..6 => times % 2 == 0,
            _ => true,
        };
        let model = format!("ten/{number}:free");
        if is_up {
            let text = request.body.split_once("conversation ").and_then(|(_, rest)| rest.split_once('.'));
            if let Some(conversation) = text.and_then(|(number, _)| number.parse().ok()) {
                answered.lock().unwrap().entry(conversation).or_default().push(model.clone());
            }
            answer.json(200, &completion("hi").replace(MODEL, &model));
        } else {
            let body = format!(
                r#"{{"error":{{"code":429,"message":"Provider returned error","metadata":{{"provider_name":"Chutes","raw":"{model} is temporarily rate-limited upstream"}}}}}}"#
            );
            answer.json(429, &body);
        }
    })
}

#[test]
fn failures_of_most_models_leave_conversations_theirs() {
    let kept = |seed: u64| {
        let answered = Arc::default();
        let upstream = ten_models(seed, Arc::clone(&answered));
        let proxy = Proxy::before(&upstream, "");
        let mut failed = 0;
        for turn in 0..10 {
            for conversation in 0..10 {
                let body = with_reminder(&CHAT, &format!("conversation {conversation}."), turn);
                failed += usize::from(post(&proxy, CHAT.path, "", &body).status != 200);
            }
        }
        let answered = answered.lock().unwrap();
        let kept = answered.values().filter(|models| models.iter().all(|model| *model == models[0])).count();
        println!("seed {seed}: {kept} kept, {failed} failed, {} calls", upstream.calls());
        (kept, failed)
    };
    let results = thread::scope(|scope| {
        let seeds = [1, 2, 3, 4, 5, 6].map(|seed| scope.spawn(move || kept(seed)));
        seeds.map(|seed| seed.join().unwrap())
    });
    let mean = results.iter().map(|(kept, _)| *kept as f64).sum::<f64>() / results.len() as f64;
    assert!(mean >= 9.0, "{results:?}");
}

#[test]
fn failures_of_most_models_cost_half_as_many_calls_again() {
    let batch = |seed: u64| {
        let upstream = ten_models(seed, Arc::default());
        let proxy = Proxy::before(&upstream, "");
        let ask = |number| {
            let body = CHAT.request(&format!("question {number}"), false).replace(MODEL, "openrouter/free");
            usize::from(proxy.chat(&body).status == 200)
        };
        (upstream.calls() + (0..100).map(ask).sum::<usize>(), upstream.calls())
    };
    let results = thread::scope(|scope| {
        let seeds = [1, 2, 3, 4, 5, 6].map(|seed| scope.spawn(move || batch(seed)));
        seeds.map(|seed| seed.join().unwrap())
    });
    println!("{results:?}");
    let mean = |of: fn(&(usize, usize)) -> usize| {
        results.iter().map(of).sum::<usize>() as f64 / results.len() as f64
    };
    assert!(mean(|(answers, _)| *answers) >= 99.0, "{results:?}");
    // Half of the first calls meet one that is away, and a tenth of them one of the two then.
    assert!(mean(|(_, calls)| *calls) <= 165.0, "{results:?}");
}
