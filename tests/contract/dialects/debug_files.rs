//! Section 5: what debug mode saves of a call, in each dialect.

use serde_json::json;

use super::*;

/// The file of a kind, of the last call that left one.
fn saved(proxy: &Proxy, files: usize, kind: &str) -> Value {
    let files = proxy.files(files);
    let found = files.iter().rfind(|(name, _)| name.contains(&format!("_{kind}_")));
    found.unwrap_or_else(|| panic!("no {kind} among {files:?}")).1["data"].clone()
}

/// A stream with all that a dialect can say, and what of the saved answer must say it again.
struct Whole {
    dialect: &'static Dialect,
    stream: &'static [&'static str],
    saved: fn() -> Value,
}

#[rustfmt::skip]
const WHOLE: &[Whole] = &[
    Whole {
        dialect: &CHAT,
        stream: &[
            COMMENT,
            data!(r#"{"id":"g","object":"chat.completion.chunk","created":7,"model":"a/b:free","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"be"}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"reasoning":"cause"}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"content":"你"}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"content":"好"}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]}"#),
            data!(r#"{"id":"g","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#),
            data!(r#"{"id":"g","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#),
            DONE,
        ],
        saved: || {
            json!({"object": "chat.completion", "id": "g", "model": "a/b:free",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": "你好", "reasoning": "because", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
        },
    },
    Whole {
        dialect: &COMPLETIONS,
        stream: &[
            data!(r#"{"id":"g","object":"text_completion","created":7,"model":"a/b:free","choices":[{"text":"你","index":0,"finish_reason":null}]}"#),
            data!(r#"{"id":"g","object":"text_completion","created":7,"model":"a/b:free","choices":[{"text":"好","index":0,"finish_reason":"length"}]}"#),
            data!(r#"{"id":"g","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#),
            DONE,
        ],
        saved: || {
            json!({"object": "text_completion", "id": "g", "model": "a/b:free",
            "choices": [{"text": "你好", "index": 0, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
        },
    },
    Whole {
        dialect: &RESPONSES,
        stream: &[
            data!(r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","object":"response","model":"a/b:free","status":"in_progress","output":[]}}"#),
            data!(r#"{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"type":"message","id":"m","role":"assistant","content":[]}}"#),
            data!(r#"{"type":"response.output_text.delta","sequence_number":2,"item_id":"m","output_index":0,"content_index":0,"delta":"hi"}"#),
            data!(r#"{"type":"response.completed","sequence_number":3,"response":{"id":"r","object":"response","model":"a/b:free","status":"completed","output":[{"type":"message","id":"m","role":"assistant","status":"completed","content":[{"type":"output_text","text":"hi","annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5},"unknown":{"x":1.0}}}"#),
        ],
        // As the upstream put it together itself.
        saved: || {
            json!({"id": "r", "object": "response", "model": "a/b:free", "status": "completed",
            "output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "hi", "annotations": []}]}],
            "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}, "unknown": {"x": 1.0}})
        },
    },
    Whole {
        dialect: &RESPONSES,
        // Its last event has no output, though it streamed some.
        stream: &[
            data!(r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","object":"response","model":"a/b:free","status":"in_progress","output":[]}}"#),
            data!(r#"{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"type":"reasoning","id":"t","summary":[]}}"#),
            data!(r#"{"type":"response.reasoning_summary_part.added","sequence_number":2,"item_id":"t","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}"#),
            data!(r#"{"type":"response.reasoning_summary_text.delta","sequence_number":3,"item_id":"t","output_index":0,"summary_index":0,"delta":"be"}"#),
            data!(r#"{"type":"response.reasoning_summary_text.delta","sequence_number":4,"item_id":"t","output_index":0,"summary_index":0,"delta":"cause"}"#),
            data!(r#"{"type":"response.output_item.added","sequence_number":5,"output_index":1,"item":{"type":"message","id":"m","role":"assistant","content":[]}}"#),
            data!(r#"{"type":"response.content_part.added","sequence_number":6,"item_id":"m","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}"#),
            data!(r#"{"type":"response.output_text.delta","sequence_number":7,"item_id":"m","output_index":1,"content_index":0,"delta":"你"}"#),
            data!(r#"{"type":"response.output_text.delta","sequence_number":8,"item_id":"m","output_index":1,"content_index":0,"delta":"好"}"#),
            data!(r#"{"type":"response.output_item.added","sequence_number":9,"output_index":2,"item":{"type":"function_call","id":"f","call_id":"c","name":"f","arguments":""}}"#),
            data!(r#"{"type":"response.function_call_arguments.delta","sequence_number":10,"item_id":"f","output_index":2,"delta":"{\"a\":"}"#),
            data!(r#"{"type":"response.function_call_arguments.delta","sequence_number":11,"item_id":"f","output_index":2,"delta":"1}"}"#),
            data!(r#"{"type":"response.completed","sequence_number":12,"response":{"id":"r","object":"response","model":"a/b:free","status":"completed","output":[],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}}"#),
            DONE,
        ],
        saved: || {
            json!({"id": "r", "object": "response", "model": "a/b:free", "status": "completed", "output": [
                {"type": "reasoning", "id": "t", "summary": [{"type": "summary_text", "text": "because"}]},
                {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "你好"}]},
                {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": "{\"a\":1}"}],
            "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}})
        },
    },
    Whole {
        dialect: &RESPONSES,
        // Items that came whole stand for themselves.
        stream: &[
            data!(r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","object":"response","model":"a/b:free","status":"in_progress","output":[]}}"#),
            data!(r#"{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"type":"custom_tool_call","id":"c","call_id":"c","name":"patch","input":""}}"#),
            data!(r#"{"type":"response.custom_tool_call_input.delta","sequence_number":2,"item_id":"c","output_index":0,"delta":"*** "}"#),
            data!(r#"{"type":"response.custom_tool_call_input.delta","sequence_number":3,"item_id":"c","output_index":0,"delta":"Begin"}"#),
            data!(r#"{"type":"response.output_item.done","sequence_number":4,"output_index":0,"item":{"type":"custom_tool_call","id":"c","call_id":"c","name":"patch","input":"*** Begin","status":"completed"}}"#),
            data!(r#"{"type":"response.output_item.added","sequence_number":5,"output_index":1,"item":{"type":"message","id":"m","role":"assistant","content":[]}}"#),
            data!(r#"{"type":"response.refusal.delta","sequence_number":6,"item_id":"m","output_index":1,"content_index":0,"delta":"no"}"#),
            data!(r#"{"type":"response.incomplete","sequence_number":7,"response":{"id":"r","object":"response","model":"a/b:free","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[],"usage":null}}"#),
        ],
        saved: || {
            json!({"id": "r", "object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [
                {"type": "custom_tool_call", "id": "c", "call_id": "c", "name": "patch", "input": "*** Begin", "status": "completed"},
                {"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": "no"}]}]})
        },
    },
    Whole {
        dialect: &MESSAGES,
        stream: &[
            event!("message_start", r#"{"type":"message_start","message":{"id":"g","type":"message","role":"assistant","model":"a/b:free","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":1,"cache_read_input_tokens":0}}}"#),
            event!("content_block_start", r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"be"}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"cause"}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s=="}}"#),
            event!("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
            event!("ping", r#"{"type":"ping"}"#),
            event!("content_block_start", r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"你"}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"好"}}"#),
            event!("content_block_stop", r#"{"type":"content_block_stop","index":1}"#),
            event!("content_block_start", r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#),
            event!("content_block_delta", r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"1}"}}"#),
            event!("content_block_stop", r#"{"type":"content_block_stop","index":2}"#),
            event!("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":null,"output_tokens":9}}"#),
            event!("message_stop", r#"{"type":"message_stop"}"#),
            DONE,
        ],
        saved: || {
            json!({"id": "g", "type": "message", "role": "assistant", "model": "a/b:free", "stop_reason": "tool_use", "content": [
                {"type": "thinking", "thinking": "because", "signature": "s=="},
                {"type": "text", "text": "你好"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
            "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 0}})
        },
    },
];

/// Whether all of `part` stands in `whole`, which may have more.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        _ => whole == part,
    }
}

#[test]
fn a_stream_is_saved_as_the_answer_that_it_was() {
    std::thread::scope(|scope| {
        for whole in WHOLE {
            scope.spawn(|| {
                let upstream = Upstream::start(|_, answer| {
                    answer.events(whole.stream);
                    answer.end();
                });
                let proxy = Proxy::recording(&upstream, "");
                let body = whole.dialect.request("hello", true);
                assert_eq!(proxy.post(whole.dialect.path, &body).text(), whole.stream.concat());
                let found = saved(&proxy, 2, "RESPONSE");
                let wanted = (whole.saved)();
                assert!(
                    holds(&found, &wanted),
                    "{}\n  saved:  {found}\n  wanted: {wanted}",
                    whole.dialect.name
                );
                let request = serde_json::from_str::<Value>(&body).unwrap();
                assert_eq!(saved(&proxy, 2, "REQUEST"), request, "{}", whole.dialect.name);
            });
        }
    });
}

#[test]
fn plain_answers_are_saved_as_they_came_in_every_dialect() {
    let upstream = Upstream::start(|request, answer| answer.json(200, plain_answer(&request.path)));
    let proxy = Proxy::recording(&upstream, "");
    let mut files = 0;
    let mut check = |path: &str, body: &str| {
        files += 2;
        proxy.post(path, body).assert_status(200);
        let expected = serde_json::from_str::<Value>(plain_answer(path)).unwrap();
        assert_eq!(saved(&proxy, files, "RESPONSE"), expected, "{path}");
    };
    for dialect in DIALECTS {
        check(dialect.path, &dialect.request("hello", false));
    }
    check("/v1/embeddings", r#"{"model":"e:free","input":"x"}"#);
    assert_eq!(proxy.get("/debug/stats").json()["count"], 5);
    let calls = proxy.get("/debug/calls").json();
    for call in calls["calls"].as_array().unwrap() {
        assert_eq!(call["status"], 200, "{call}");
        let read = call["prompt_tokens"].as_u64();
        assert!(read == Some(3) || read == Some(2), "{call}");
    }
}

/// Streams tell the panel their numbers, too.
#[test]
fn the_numbers_of_a_stream_are_known_in_every_dialect() {
    let upstream = Upstream::start(|request, answer| {
        let dialect = DIALECTS.iter().find(|d| request.path.ends_with(&d.path["/v1".len()..])).unwrap();
        answer.good(dialect, request);
    });
    let proxy = Proxy::recording(&upstream, "");
    for dialect in DIALECTS {
        proxy.post(dialect.path, &dialect.request("hello", true)).assert_status(200);
        let call = proxy.get("/debug/calls").json()["calls"][0].clone();
        let name = format!("{}: {call}", dialect.name);
        assert_eq!((&call["prompt_tokens"], &call["completion_tokens"]), (&json!(3), &json!(2)), "{name}");
        assert_eq!((&call["stream"], &call["model"]), (&json!(true), &json!(MODEL)), "{name}");
        assert!(call["first_token_ms"].is_number(), "{name}");
        let id = call["message_id"].as_str().unwrap();
        let whole = proxy.get(&format!("/debug/calls/{id}")).json();
        assert_eq!((dialect.saved_text)(&whole["response"]), "said it", "{name}");
    }
}

#[test]
fn a_stream_cut_off_is_saved_as_far_as_it_came() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| {
            answer.events(&[dialect.opening, dialect.saying].concat());
            match subject(request) {
                "broken off" => answer.close(),
                "failed" => answer.piece(dialect.failures[0].0),
                _ => drop(answer.sees_close()),
            }
            answer.end();
        });
        let proxy = Proxy::recording(&upstream, "");
        let ask = |case: &str| {
            let mut client = proxy.connect();
            client.send_post(dialect.path, &(dialect.request)(MODEL, &format!("«{case}»"), true));
            client
        };
        ask("broken off").response().assert_status(200);
        let error = saved(&proxy, 2, "ERROR");
        assert_eq!((dialect.saved_text)(&error["partial"]), "said it", "{}: {error}", dialect.name);
        assert_eq!(error["status"], 502, "{}: {error}", dialect.name);
        assert_eq!(error["error"]["code"], "upstream_error", "{}: {error}", dialect.name);

        ask("failed").response().assert_status(200);
        let error = saved(&proxy, 4, "ERROR");
        assert_eq!((dialect.saved_text)(&error["partial"]), "said it", "{}: {error}", dialect.name);
        assert_eq!(error["error"]["message"], "no luck", "{}: {error}", dialect.name);

        let mut leaving = ask("left");
        leaving.read_head_and_until(dialect.saying.last().unwrap());
        drop(leaving);
        let error = saved(&proxy, 6, "ERROR");
        assert_eq!((dialect.saved_text)(&error["partial"]), "said it", "{}: {error}", dialect.name);
        assert_eq!(error["error"]["code"], "client_closed", "{}: {error}", dialect.name);
        assert_eq!(proxy.get("/debug/stats").json()["count"], 0, "{}", dialect.name);
    });
}

/// Refusals and the upstream's errors leave REQUEST and ERROR, in whatever shape they went to the client.
#[test]
fn errors_are_saved_in_every_dialect() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |_, answer| answer.json(403, &(dialect.error)(403, "no luck")));
        let proxy = Proxy::recording(&upstream, "");
        proxy.post(dialect.path, &dialect.request("hello", true)).assert_status(403);
        let error = saved(&proxy, 2, "ERROR");
        assert_eq!(
            (&error["status"], &error["error"]["message"]),
            (&json!(403), &json!("no luck")),
            "{error}"
        );

        proxy.post(dialect.path, "no").assert_status(400);
        assert_eq!(names_in(&proxy.dir.join("cache")).len(), 2, "what was no JSON leaves no file");

        let without_key = format!("OPENROUTER_BASE_URL={}\nCACHE_DIR=cache\n", upstream.url());
        let proxy = Start::new().env_file(without_key).file("DEBUG_MODE.txt", "").start();
        proxy.post(dialect.path, &dialect.request("hello", true)).assert_status(401);
        let error = saved(&proxy, 2, "ERROR");
        assert_eq!(error["status"], 401, "{error}");
        assert!(error["error"]["message"].is_string(), "{error}");
    });
}
