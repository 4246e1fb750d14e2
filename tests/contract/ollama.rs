//! Section 10: Ollama's face.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};
use std::thread;

use serde_json::{Value, json};

use crate::dialects::{COMMENT, DONE};
use crate::fixture::*;

const MODELS: &str = r#"{"data":[
    {"id":"paid/model","context_length":9000000},
    {"id":"see/all:free","name":"See: All","created":1700000000,"context_length":131072,"architecture":{"input_modalities":["text","image"],"output_modalities":["text"]},"supported_parameters":["tools","tool_choice","temperature"]},
    {"id":"plain/one:free","context_length":8192,"architecture":{"input_modalities":["text"]},"supported_parameters":["temperature"]},
    {"id":"bare/two:free"}]}"#;

const SAY: &str = r#"{"model":"llama3.2","messages":[{"role":"user","content":"hello"}]}"#;
const SAY_PLAIN: &str =
    r#"{"model":"llama3.2","stream":false,"messages":[{"role":"user","content":"hello"}]}"#;
const GENERATE: &str = r#"{"model":"llama3.2","prompt":"hello"}"#;
const GENERATE_PLAIN: &str = r#"{"model":"llama3.2","stream":false,"prompt":"hello"}"#;

/// The four ways to ask for the same.
const WAYS: [(&str, &str); 4] = [
    ("/api/chat", SAY),
    ("/api/chat", SAY_PLAIN),
    ("/api/generate", GENERATE),
    ("/api/generate", GENERATE_PLAIN),
];

fn with_models() -> Upstream {
    Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/models" => answer.json(200, MODELS),
        _ => answer.fitting(request, "hello there"),
    })
}

/// The lines of an answer.
fn lines(response: &Response) -> Vec<Value> {
    let text = response.text();
    assert!(text.ends_with('\n') || !text.contains('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// What an answer says, whichever of the two it is.
fn said(line: &Value) -> &str {
    line["message"]["content"].as_str().or(line["response"].as_str()).unwrap_or_default()
}

#[track_caller]
fn assert_error(response: &Response, status: u16) -> String {
    assert_eq!(response.status, status, "{response:?}");
    let body = response.json();
    let text = body["error"].as_str().unwrap_or_else(|| panic!("no text: {body}"));
    assert!(!text.is_empty() && body.as_object().unwrap().len() == 1, "{body}");
    text.to_owned()
}

#[track_caller]
fn assert_last_line(line: &Value, reason: &str) {
    assert_eq!((&line["done"], &line["done_reason"]), (&json!(true), &json!(reason)), "{line}");
    for name in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(line[name].is_u64(), "{name}: {line}");
    }
    assert!(
        line["model"].is_string() && line["created_at"].as_str().is_some_and(|at| at.ends_with('Z')),
        "{line}"
    );
}

/// A chunk of chat completions with this choice.
fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"g\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

const USAGE: &str =
    "data: {\"id\":\"g\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";

#[test]
fn what_can_be_asked_about() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    let version = proxy.get("/api/version").json()["version"].as_str().unwrap().to_owned();
    let numbers = version.split('.').map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>();
    assert!(numbers.len() == 3 && numbers >= vec![0, 6, 4], "{version}");
    assert_eq!(proxy.get("/api/ps").json(), json!({"models": []}));

    let tags = proxy.get("/api/tags").json();
    let models = tags["models"].as_array().unwrap();
    let names = models.iter().map(|model| model["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names, ["openrouter/free", "best", "see/all:free", "plain/one:free", "bare/two:free"]);
    for model in models {
        assert_eq!(model["model"], model["name"]);
        assert!(model["modified_at"].is_string() && model["size"].is_u64(), "{model}");
        assert!(model["digest"].is_string() && model["details"]["family"].is_string(), "{model}");
        assert!(model["capabilities"].as_array().unwrap().contains(&json!("completion")), "{model}");
    }
    assert_eq!(models[2]["capabilities"], json!(["completion", "tools", "vision"]));
    assert_eq!(models[3]["capabilities"], json!(["completion"]));

    for field in ["model", "name"] {
        for (id, context, tools, vision) in [
            ("see/all:free", Some(131_072), true, true),
            ("plain/one:free", Some(8192), false, false),
            ("bare/two:free", None, false, false),
            ("openrouter/free", None, true, true),
        ] {
            let shown = proxy.post("/api/show", &format!(r#"{{"{field}":"{id}"}}"#)).json();
            let can = shown["capabilities"].as_array().unwrap();
            let has = |what: &str| can.contains(&json!(what));
            assert_eq!(
                (has("completion"), has("tools"), has("vision")),
                (true, tools, vision),
                "{id}: {shown}"
            );
            let info = &shown["model_info"];
            let architecture = info["general.architecture"].as_str().unwrap();
            let length = &info[format!("{architecture}.context_length")];
            match context {
                Some(context) => assert_eq!(length, &json!(context), "{id}: {shown}"),
                None => assert!(length.as_u64().is_some_and(|length| length > 0), "{id}: {shown}"),
            }
            assert!(info["general.basename"].as_str().is_some_and(|name| !name.is_empty()), "{shown}");
            assert!(shown["details"].is_object(), "{shown}");
        }
    }
    assert_eq!(upstream.calls(), 2, "each list is asked for once");
}

#[test]
fn heads_unknown_paths_and_wrong_methods() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    for path in ["/api/version", "/api/tags", "/api/ps", "/api/nothing"] {
        let mut client = proxy.connect();
        let get = client.exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = client.head();
        assert_eq!(
            (head.status, head.header("content-length")),
            (get.status, get.header("content-length")),
            "{path}"
        );
        assert_eq!(client.exchange("GET /api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200, "{path}");
    }
    // Only its own paths speak its errors.
    for path in ["/api/nothing", "/api/chats", "/api/v2/nothing", "/api/openai/chat/completions"] {
        proxy.get(path).assert_error(404, "not_found");
        proxy.post(path, "{}").assert_error(404, "not_found");
    }
    assert_error(&proxy.get("/api/chat/x"), 404);
    for (method, path, allowed) in [
        ("GET", "/api/chat", "POST"),
        ("DELETE", "/api/generate", "POST"),
        ("PUT", "/api/embed", "POST"),
        ("GET", "/api/show", "POST"),
        ("POST", "/api/tags", "GET, HEAD"),
        ("POST", "/api/version", "GET, HEAD"),
        ("DELETE", "/api/ps", "GET, HEAD"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}");
        let wrong = proxy.connect().exchange(&head);
        assert_error(&wrong, 405);
        assert_eq!(wrong.header("allow"), Some(allowed), "{method} {path}");
    }
    assert!(upstream.received().iter().all(|request| request.path.contains("/models")));
}

#[test]
fn models_are_neither_pulled_nor_made() {
    let upstream = with_models();
    let proxy = Proxy::before(&upstream, "");
    // It is there: any model will do.
    let pulled = proxy.post("/api/pull", r#"{"model":"llama3"}"#);
    assert_eq!((pulled.status, pulled.text()), (200, "{\"status\":\"success\"}\n"));
    for (method, path) in [("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete")] {
        let body = r#"{"model":"llama3","source":"a","destination":"b"}"#;
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        assert_error(&proxy.connect().exchange(&request), 501);
    }
    assert_eq!(upstream.calls(), 0);
}

/// What is asked, and which fields the upstream gets for it. A null must be missing.
struct Translated {
    path: &'static str,
    asked: Value,
    sent: Value,
}

fn chat(more: Value, sent: Value) -> Translated {
    let mut asked = json!({"model": "a/b:free", "messages": [{"role": "user", "content": "hi"}]});
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Translated { path: "/api/chat", asked, sent }
}

fn generate(more: Value, sent: Value) -> Translated {
    let mut asked = json!({"model": "a/b:free", "prompt": "hi"});
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Translated { path: "/api/generate", asked, sent }
}

fn translations() -> Vec<Translated> {
    let schema = json!({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]});
    let tool =
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}});
    let user = json!([{"role": "user", "content": "hi"}]);
    vec![
        chat(json!({}), json!({"model": "a/b:free", "messages": user, "stream": true})),
        chat(json!({"stream": true}), json!({"stream": true})),
        chat(json!({"model": "llama3"}), json!({"model": "openrouter/free"})),
        chat(json!({"model": "x:latest"}), json!({"model": "openrouter/free"})),
        chat(json!({"model": "a/b:free:latest"}), json!({"model": "a/b:free"})),
        chat(json!({"model": "openrouter/free"}), json!({"model": "openrouter/free"})),
        // Options that chat completions have, and others.
        chat(
            json!({"options": {"temperature": 0.5, "top_p": 0.25, "seed": 7}}),
            json!({"temperature": 0.5, "top_p": 0.25, "seed": 7}),
        ),
        chat(
            json!({"options": {"stop": ["a", "b"], "num_predict": 9}}),
            json!({"stop": ["a", "b"], "max_tokens": 9, "num_predict": null}),
        ),
        chat(json!({"options": {"num_predict": -1}}), json!({"max_tokens": null})),
        chat(
            json!({"options": {"presence_penalty": 0.5, "frequency_penalty": 1}}),
            json!({"presence_penalty": 0.5, "frequency_penalty": 1}),
        ),
        chat(json!({"options": {"top_k": 5, "min_p": 0.125}}), json!({"top_k": 5, "min_p": 0.125})),
        chat(
            json!({"options": {"num_ctx": 4096, "mirostat": 1, "num_gpu": 1, "numa": true, "unheard_of": 1}}),
            json!({"num_ctx": null, "mirostat": null, "num_gpu": null, "numa": null, "unheard_of": null, "options": null}),
        ),
        chat(
            json!({"options": {}, "keep_alive": "5m", "truncate": true}),
            json!({"keep_alive": null, "truncate": null, "options": null}),
        ),
        chat(
            json!({"options": null, "format": null, "think": null, "tools": null}),
            json!({"messages": user, "options": null, "format": null, "think": null}),
        ),
        chat(json!({"format": ""}), json!({"response_format": null})),
        chat(json!({"format": "json"}), json!({"response_format": {"type": "json_object"}, "format": null})),
        chat(
            json!({"format": schema}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}),
        ),
        chat(json!({"think": true}), json!({"reasoning": {"enabled": true}, "think": null})),
        chat(json!({"think": "high"}), json!({"reasoning": {"effort": "high"}, "think": null})),
        chat(json!({"think": "low"}), json!({"reasoning": {"effort": "low"}})),
        chat(json!({"tools": [tool]}), json!({"tools": [tool]})),
        chat(json!({"tools": []}), json!({"messages": user})),
        chat(
            json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "你好"}]}),
            json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "你好"}]}),
        ),
        generate(json!({}), json!({"model": "a/b:free", "messages": user, "stream": true, "prompt": null})),
        generate(
            json!({"system": "be brief"}),
            json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}], "system": null}),
        ),
        generate(
            json!({"options": {"temperature": 0, "num_predict": 5}}),
            json!({"temperature": 0, "max_tokens": 5}),
        ),
        generate(
            json!({"format": "json", "think": true}),
            json!({"response_format": {"type": "json_object"}, "reasoning": {"enabled": true}}),
        ),
        generate(
            json!({"format": schema}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}),
        ),
        generate(
            json!({"raw": true, "template": "x", "context": [1, 2], "keep_alive": 0}),
            json!({"messages": user, "raw": null, "template": null, "context": null, "keep_alive": null}),
        ),
    ]
}

/// Whether everything wanted stands there.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| match found.get(name) {
                None => value.is_null(),
                Some(there) => !value.is_null() && holds(there, value),
            })
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        _ => found == wanted,
    }
}

#[test]
fn requests_are_translated() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    let mut failed = Vec::new();
    for Translated { path, asked, sent } in translations() {
        client.post(path, &asked.to_string()).assert_status(200);
        let found = upstream.last();
        assert_eq!(found.path, "/api/v1/chat/completions");
        assert_eq!(found.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
        assert_eq!(found.header("content-type"), Some("application/json"));
        if !holds(&found.json(), &sent) {
            failed.push(format!("asked: {asked}\n    sent:   {}\n    wanted: {sent}", found.body));
        }
    }
    // Plain ones are asked for plainly, and thinking can be switched off in more ways than one.
    client.post("/api/chat", SAY_PLAIN);
    assert!(!upstream.last().streams());
    client.post("/api/chat", &SAY.replacen('{', r#"{"think":false,"#, 1));
    let off = &upstream.last().json()["reasoning"];
    if !(off["enabled"] == false || off["effort"] == "none") {
        failed.push(format!("think: false became reasoning: {off}"));
    }
    drop(proxy);
    assert!(failed.is_empty(), "{} failed:\n  {}", failed.len(), failed.join("\n  "));
}

#[test]
fn images_become_data_urls() {
    let upstream = Upstream::saying("a dot");
    let proxy = Proxy::before(&upstream, "");
    const PNG: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    const JPEG: &str = "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////";
    for (image, kind) in [(PNG, "image/png"), (JPEG, "image/jpeg")] {
        let chat = format!(
            r#"{{"model":"x","messages":[{{"role":"user","content":"what?","images":["{image}","{PNG}"]}}]}}"#
        );
        let generate = format!(r#"{{"model":"x","prompt":"what?","images":["{image}","{PNG}"]}}"#);
        for (path, body) in [("/api/chat", chat), ("/api/generate", generate)] {
            proxy.post(path, &body).assert_status(200);
            let sent = upstream.last().json();
            let parts = sent["messages"][0]["content"].as_array().unwrap().clone();
            let urls = parts.iter().filter_map(|part| part["image_url"]["url"].as_str()).collect::<Vec<_>>();
            assert_eq!(urls, [format!("data:{kind};base64,{image}"), format!("data:image/png;base64,{PNG}")]);
            let texts = parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>();
            assert_eq!((texts, parts.len()), (vec!["what?"], 3), "{sent}");
            assert!(sent["messages"][0].get("images").is_none(), "{sent}");
        }
    }
}

#[test]
fn tools_go_there_and_back() {
    let upstream = Upstream::start(|request, answer| {
        let calls = r#"[{"index":0,"id":"call_a","type":"function","function":{"name":"weather","arguments":"{\"city\":\"北京\"}"}},{"index":1,"id":"call_b","type":"function","function":{"name":"time","arguments":""}}]"#;
        if !request.streams() {
            let message = format!(r#"{{"role":"assistant","content":null,"tool_calls":{calls}}}"#);
            return answer.json(200, &format!(r#"{{"id":"g","model":"{MODEL}","choices":[{{"index":0,"message":{message},"finish_reason":"tool_calls"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#));
        }
        answer.stream_head();
        for delta in [
            r#"{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"weather","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"\"北京\"}"}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"time","arguments":""}}]}"#,
        ] {
            answer.piece(&chunk(delta, "null"));
        }
        answer.piece(&(chunk("{}", "\"tool_calls\"") + USAGE + DONE));
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    for streamed in [false, true] {
        let asked = json!({"model": "x", "stream": streamed, "messages": [{"role": "user", "content": "weather?"}],
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]});
        let response = proxy.post("/api/chat", &asked.to_string());
        let all = lines(&response);
        let calls = all.iter().filter_map(|line| line["message"]["tool_calls"].as_array()).flatten();
        let calls = calls.map(|call| &call["function"]).collect::<Vec<_>>();
        let wanted = [("weather", json!({"city": "北京"})), ("time", json!({}))];
        let found = calls.iter().map(|call| (call["name"].as_str().unwrap(), call["arguments"].clone()));
        assert_eq!(found.collect::<Vec<_>>(), wanted, "{}", response.text());
        assert_last_line(all.last().unwrap(), "stop");

        // The client tells what came of it, in the same order, without ids.
        let history = json!([
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "北京"}}}, {"function": {"name": "time", "arguments": {}}}]},
            {"role": "tool", "tool_name": "weather", "content": "sunny"},
            {"role": "tool", "tool_name": "time", "content": "noon"},
        ]);
        proxy.post("/api/chat", &json!({"model": "x", "stream": streamed, "messages": history}).to_string());
        let sent = upstream.last().json();
        let made = sent["messages"][1]["tool_calls"].as_array().unwrap();
        let arguments =
            |call: &Value| serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap());
        assert_eq!(arguments(&made[0]).unwrap(), json!({"city": "北京"}), "{sent}");
        assert_eq!(arguments(&made[1]).unwrap(), json!({}), "{sent}");
        for (number, content) in ["sunny", "noon"].iter().enumerate() {
            let result = &sent["messages"][2 + number];
            assert_eq!((&result["role"], &result["content"]), (&json!("tool"), &json!(content)), "{sent}");
            assert!(result["tool_call_id"].is_string(), "{sent}");
            assert_eq!(result["tool_call_id"], made[number]["id"], "{sent}");
            assert_eq!(made[number]["type"], "function", "{sent}");
        }
        assert_ne!(made[0]["id"], made[1]["id"], "{sent}");
    }
}

/// A model may write what is no JSON, or no object: clients take the arguments for an object all the same. A call with
/// others than the model's could do anything, so it is told as text.
#[test]
fn arguments_are_objects_whatever_the_model_wrote() {
    const ARGUMENTS: [&str; 5] = ["", "{\\\"a\\\":", "nonsense", "[1]", "null"];
    let upstream = Upstream::start(|request, answer| {
        let arguments = ARGUMENTS[request.json()["seed"].as_u64().unwrap() as usize];
        let call = format!(
            r#"{{"tool_calls":[{{"index":0,"id":"c","type":"function","function":{{"name":"f","arguments":"{arguments}"}}}}]}}"#
        );
        if request.streams() {
            answer.stream_head();
            answer.piece(&(chunk(&call, "null") + &chunk("{}", "\"tool_calls\"") + DONE));
            answer.end();
        } else {
            answer.json(
                200,
                &format!(r#"{{"choices":[{{"index":0,"message":{call},"finish_reason":"tool_calls"}}]}}"#),
            )
        }
    });
    let proxy = Proxy::before(&upstream, "");
    for (seed, arguments) in ARGUMENTS.iter().enumerate() {
        for streamed in [false, true] {
            let asked = json!({"model": "x", "stream": streamed, "options": {"seed": seed}, "messages": [{"role": "user", "content": "x"}]});
            let response = proxy.post("/api/chat", &asked.to_string());
            let all = lines(&response);
            let mut calls = all.iter().filter_map(|line| line["message"]["tool_calls"].as_array()).flatten();
            if let "" | "null" = *arguments {
                let call = calls.next().unwrap_or_else(|| panic!("{arguments}: {}", response.text()));
                assert_eq!(call["function"]["name"], "f", "{arguments}");
                assert_eq!(call["function"]["arguments"], json!({}), "{arguments}: {call}");
            } else {
                assert!(calls.next().is_none(), "{}", response.text());
                let text =
                    all.iter().filter_map(|line| line["message"]["content"].as_str()).collect::<String>();
                assert_eq!(text, format!("f({})", arguments.replace('\\', "")));
            }
            assert_last_line(all.last().unwrap(), "stop");
        }
    }
}

/// Results that come in another order are told by their names, or by the ids of newer clients.
#[test]
fn tool_results_find_their_calls() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let calls =
        json!([{"function": {"name": "a", "arguments": {}}}, {"function": {"name": "b", "arguments": {}}}]);
    let with_ids = json!([{"id": "one", "function": {"name": "f", "arguments": {}}}, {"id": "two", "function": {"name": "f", "arguments": {}}}]);
    for (made, results) in [
        (
            calls,
            [
                json!({"role": "tool", "tool_name": "b", "content": "1"}),
                json!({"role": "tool", "tool_name": "a", "content": "0"}),
            ],
        ),
        (
            with_ids,
            [
                json!({"role": "tool", "tool_call_id": "two", "content": "1"}),
                json!({"role": "tool", "tool_call_id": "one", "content": "0"}),
            ],
        ),
    ] {
        let messages = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": made}, results[0], results[1]]);
        proxy.post("/api/chat", &json!({"model": "x", "messages": messages}).to_string()).assert_status(200);
        let sent = upstream.last().json();
        for result in [&sent["messages"][2], &sent["messages"][3]] {
            let number = result["content"].as_str().unwrap().parse::<usize>().unwrap();
            let call = &sent["messages"][1]["tool_calls"][number];
            assert!(result["tool_call_id"].is_string() && result["tool_call_id"] == call["id"], "{sent}");
        }
    }
}

#[test]
fn plain_answers_are_translated() {
    let upstream = Upstream::start(|request, answer| {
        let (message, finish) = match request.number {
            1 | 2 => (r#"{"role":"assistant","content":"你好","reasoning":"hm"}"#, "stop"),
            _ => (r#"{"role":"assistant","content":"cut"}"#, "length"),
        };
        answer.json(200, &format!(r#"{{"id":"g","model":"{MODEL}","choices":[{{"index":0,"message":{message},"finish_reason":"{finish}"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#));
    });
    let proxy = Proxy::before(&upstream, "");
    for (text, reason) in [("你好", "stop"), ("cut", "length")] {
        for (path, body) in [("/api/chat", SAY_PLAIN), ("/api/generate", GENERATE_PLAIN)] {
            let response = proxy.post(path, body);
            assert_eq!(
                response.header("content-type").map(|kind| kind.starts_with("application/json")),
                Some(true)
            );
            assert_eq!(response.header("x-proxy-model"), Some("llama3.2 -> openrouter/free"), "{path}");
            let answer = response.json();
            assert_last_line(&answer, reason);
            assert_eq!(
                (&answer["prompt_eval_count"], &answer["eval_count"]),
                (&json!(3), &json!(2)),
                "{answer}"
            );
            assert_eq!(said(&answer), text, "{answer}");
            let thinking = match path {
                "/api/chat" => &answer["message"]["thinking"],
                _ => &answer["thinking"],
            };
            assert_eq!(
                thinking.as_str().unwrap_or_default(),
                if text == "cut" { "" } else { "hm" },
                "{answer}"
            );
            if path == "/api/chat" {
                assert_eq!(answer["message"]["role"], "assistant", "{answer}");
            }
        }
    }
}

/// One line an event, when it is there; comments of the upstream are no lines.
#[test]
fn a_line_is_there_before_the_next_event_is_made() {
    let (ask, asked) = channel::<()>();
    let asked = Mutex::new(asked);
    let upstream = Upstream::start(move |_, answer| {
        let asked = asked.lock().unwrap();
        answer.stream_head();
        answer.piece(COMMENT);
        answer.piece(&chunk(r#"{"role":"assistant","content":""}"#, "null"));
        for delta in [r#"{"reasoning":"hm"}"#, r#"{"content":"你"}"#, r#"{"content":"好\n"}"#] {
            answer.piece(&chunk(delta, "null"));
            asked.recv().unwrap(); // until the client has it
            answer.piece(COMMENT);
        }
        answer.piece(&(chunk("{}", "\"stop\"") + USAGE + DONE));
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    for (path, body) in [("/api/chat", SAY), ("/api/generate", GENERATE)] {
        let mut client = proxy.connect();
        client.send_post(path, body);
        let head = client.head();
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/x-ndjson")), "{path}");
        let mut next = || {
            let text = client.read_until("\n");
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            serde_json::from_str::<Value>(&text).unwrap()
        };
        for (thinking, content) in [("hm", ""), ("", "你"), ("", "好\n")] {
            let mut line = next();
            while said(&line).is_empty() && !line.to_string().contains("\"thinking\"") {
                line = next(); // the role may have a line of its own
            }
            let found = line["message"]["thinking"].as_str().or(line["thinking"].as_str());
            assert_eq!((found.unwrap_or_default(), said(&line)), (thinking, content), "{path}: {line}");
            assert_eq!(line["done"], false, "{line}");
            assert!(line["model"].is_string() && line["created_at"].is_string(), "{line}");
            ask.send(()).unwrap();
        }
        let last = next();
        assert_last_line(&last, "stop");
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(3), &json!(2)), "{last}");
        assert_eq!(client.chunk(), None, "{path}");
    }
}

#[test]
fn a_client_that_leaves_closes_the_upstream_connection() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |request, answer| {
        if request.streams() {
            answer.stream_head();
            answer.piece(&delta("begun"));
        }
        tell.lock().unwrap().send(answer.sees_close()).unwrap();
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "");
    for (number, (path, body)) in WAYS.into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send_post(path, body);
        upstream.wait_for(number + 1);
        if !body.contains(r#""stream":false"#) {
            client.read_head_and_until("begun");
        }
        drop(client);
        assert!(told.recv_timeout(GUARD).unwrap(), "{path} {body}");
    }
    assert_eq!(upstream.calls(), WAYS.len());
}

/// Clients ask so to have a model in memory.
#[test]
fn without_a_prompt_nothing_is_called() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "");
    for (path, body) in [
        ("/api/chat", r#"{"model":"llama3"}"#),
        ("/api/chat", r#"{"model":"llama3","messages":[]}"#),
        ("/api/chat", r#"{"model":"llama3","messages":[],"stream":false,"keep_alive":"1h"}"#),
        ("/api/generate", r#"{"model":"llama3"}"#),
        ("/api/generate", r#"{"model":"llama3","prompt":""}"#),
        ("/api/generate", r#"{"model":"llama3","prompt":"","stream":false}"#),
    ] {
        let response = proxy.post(path, body);
        response.assert_status(200);
        let all = lines(&response);
        assert_eq!(all.len(), 1, "{body}: {}", response.text());
        assert_eq!((&all[0]["done"], &all[0]["done_reason"]), (&json!(true), &json!("load")), "{body}");
        assert_eq!(said(&all[0]), "", "{body}");
    }
    assert_eq!(upstream.calls(), 0);
}

/// Failures of the upstream's, the status, and a word of the text.
#[test]
fn failures_are_one_text() {
    type Fault = (&'static str, fn(&mut Answer<'_>), u16, &'static str);
    const FAULTS: [Fault; 9] = [
        (
            "400",
            |answer| answer.json(400, r#"{"error":{"code":400,"message":"bad thing"}}"#),
            400,
            "bad thing",
        ),
        (
            "402",
            |answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#),
            402,
            "no credits",
        ),
        ("403", |answer| answer.json(403, r#"{"error":{"code":403,"message":"flagged"}}"#), 403, "flagged"),
        ("404", |answer| answer.json(404, r#"{"error":{"code":404,"message":"nowhere"}}"#), 404, "nowhere"),
        ("a page", |answer| answer.respond(500, "content-type: text/html\r\n", "<html>oops</html>"), 500, ""),
        ("502", |answer| answer.json(502, r#"{"error":{"code":502,"message":"down"}}"#), 502, "down"),
        (
            "a 200",
            |answer| answer.json(200, r#"{"error":{"code":503,"message":"no provider"}}"#),
            503,
            "no provider",
        ),
        ("closed", |answer| answer.close(), 502, ""),
        (
            "empty",
            |answer| answer.json(200, r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#),
            502,
            "",
        ),
    ];
    let faults = FAULTS.map(|(name, fault, ..)| (name, fault)).into_iter().collect::<HashMap<_, _>>();
    let upstream = Upstream::start(move |request, answer| {
        let (_, fault) = faults.iter().find(|(name, _)| request.body.contains(&format!("«{name}»"))).unwrap();
        fault(answer);
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    thread::scope(|scope| {
        for (name, _, status, word) in FAULTS {
            let proxy = &proxy;
            scope.spawn(move || {
                for (path, body) in WAYS {
                    let response = proxy.post(path, &body.replace("hello", &format!("«{name}»")));
                    let text = assert_error(&response, status);
                    assert!(text.contains(word), "{name}: {text}");
                }
            });
        }
    });
}

#[test]
fn an_error_in_a_stream_is_its_last_line() {
    let upstream = Upstream::start(|request, answer| {
        answer.stream_head();
        answer.piece(&(delta("half ") + &delta("said")));
        let error = r#"data: {"error":{"code":502,"message":"no luck"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#;
        match request.number % 4 {
            0 => answer.end(),
            1 => answer.piece(&format!("{error}\n\n")),
            2 => answer.raw("5\r\nda"),
            _ => {}
        }
        match request.number % 4 {
            0 => {}
            1 => answer.end(),
            _ => answer.close(),
        }
    });
    let proxy = Proxy::before(&upstream, "");
    for number in 1..=4 {
        for (path, body) in [("/api/chat", SAY), ("/api/generate", GENERATE)] {
            let response = proxy.post(path, body);
            assert_eq!(response.status, 200);
            let all = lines(&response);
            let (last, before) = all.split_last().unwrap();
            assert_eq!(before.iter().map(said).collect::<String>(), "half said", "{number}");
            assert!(before.iter().all(|line| line["done"] == false), "{number}: {}", response.text());
            let text = last["error"].as_str().unwrap_or_else(|| panic!("{number}: {}", response.text()));
            assert!(!text.is_empty() && last.get("done").is_none_or(|done| done == false), "{last}");
        }
    }
    assert_eq!(upstream.calls(), 8, "never again after a part of it has gone out");
}

/// The end is the finish and `[DONE]`, however it is written, as for chat.
#[test]
fn a_whole_stream_has_a_last_line_however_it_ends() {
    const ENDS: [&str; 4] = ["data: [DONE]\n\n", "data: [DONE]\n", "data: [DONE]", ""];
    let upstream = Upstream::start(|request, answer| {
        let end = ENDS[(request.number - 1) % ENDS.len()];
        answer.stream_head();
        answer.piece(&delta("all of it"));
        answer.piece(&(chunk("{}", "\"length\"") + USAGE + end));
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    for _ in ENDS {
        let response = proxy.post("/api/chat", SAY);
        let all = lines(&response);
        assert_eq!(all.iter().map(said).collect::<String>(), "all of it", "{}", response.text());
        assert_last_line(all.last().unwrap(), "length");
        assert!(!response.text().contains("error"), "{}", response.text());
    }
    assert_eq!(upstream.calls(), ENDS.len());
}

/// Clients wait for the line that says so, and the upstream may take its time to end.
#[test]
fn the_last_line_is_there_as_soon_as_the_answer_is_over() {
    let upstream = Upstream::start(|_, answer| {
        answer.stream_head();
        answer.piece(&(delta("all of it") + &last_delta() + DONE));
        assert!(answer.sees_close());
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_post("/api/chat", SAY);
    client.read_head_and_until("\"done\":true");
}

/// As OpenAI-compatible servers write it.
#[test]
fn text_arrives_however_it_is_written() {
    let upstream = Upstream::start(|request, answer| {
        if request.streams() {
            answer.stream_head();
            answer.piece(&chunk(r#"{"reasoning_content":"hm"}"#, "null"));
            answer.piece(&chunk(r#"{"content":"smile \ud83d"}"#, "null"));
            answer.piece(&chunk(r#"{"content":"\ude00"}"#, "null"));
            answer.piece(&(chunk(r#"{"content":[{"type":"text","text":"!"}]}"#, "\"stop\"") + DONE));
            answer.end();
        } else {
            answer.json(200, r#"{"choices":[{"message":{"content":[{"type":"text","text":"half \ud83d"}],"reasoning_content":"hm"},"finish_reason":"stop"}]}"#)
        }
    });
    let proxy = Proxy::before(&upstream, "");
    let all = lines(&proxy.post("/api/chat", SAY));
    assert_eq!(all.iter().map(said).collect::<String>(), "smile \u{1F600}!");
    assert_eq!(all[0]["message"]["thinking"], "hm");
    let plain = proxy.post("/api/chat", SAY_PLAIN).json();
    assert_eq!((said(&plain), &plain["message"]["thinking"]), ("half ", &json!("hm")));
}

#[test]
fn an_error_of_the_first_event_is_one_text() {
    let upstream = Upstream::start(|_, answer| {
        answer.stream_head();
        answer.piece("data: {\"error\":{\"code\":503,\"message\":\"busy\"},\"choices\":[]}\n\n");
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for path in ["/api/chat", "/api/generate"] {
        let body = if path == "/api/chat" { SAY } else { GENERATE };
        assert_eq!(assert_error(&proxy.post(path, body), 503), "busy");
    }
}

#[test]
fn what_another_try_heals() {
    type Fault = (&'static str, fn(&Received, &mut Answer<'_>));
    const FAULTS: [Fault; 6] = [
        ("500", |_, answer| answer.respond(500, "retry-after: 0\r\n", "{}")),
        ("a provider's 429", |_, answer| {
            let body = r#"{"error":{"code":429,"message":"x","metadata":{"provider_code":429}}}"#;
            answer.respond(429, "retry-after: 0\r\n", body);
        }),
        ("reset", |_, answer| answer.reset()),
        ("an error inside", |_, answer| {
            answer.respond(200, "retry-after: 0\r\n", r#"{"error":{"code":502,"message":"x"}}"#);
        }),
        ("nothing said", |request, answer| {
            if request.streams() {
                answer.stream_head();
                answer.piece(&(COMMENT.to_owned() + &delta("") + &last_delta() + DONE));
                answer.end();
            } else {
                answer.say("")
            }
        }),
        ("first event an error", |request, answer| {
            if request.streams() {
                answer.stream_head();
                answer.piece("data: {\"error\":{\"code\":502,\"message\":\"x\"}}\n\n");
                answer.end();
            } else {
                answer.close()
            }
        }),
    ];
    thread::scope(|scope| {
        for (name, fault) in FAULTS {
            scope.spawn(move || {
                let upstream = Upstream::start(move |request, answer| match request.number % 2 {
                    1 => fault(request, answer),
                    _ => answer.fitting(request, "healed"),
                });
                let proxy = Proxy::before(&upstream, "STICKY_MINUTES=0");
                for (path, body) in WAYS {
                    let response = proxy.post(path, &body.replace("llama3.2", "openrouter/free"));
                    assert_eq!(response.status, 200, "{name}: {response:?}");
                    assert_eq!(response.header("x-proxy-attempts"), Some("2"), "{name}");
                    assert_eq!(
                        lines(&response).iter().map(said).collect::<String>(),
                        "healed",
                        "{name} {path}"
                    );
                }
                assert_eq!(upstream.calls(), 8, "{name}");
            });
        }
    });
}

fn limited(reset: u128) -> String {
    format!(
        r#"{{"error":{{"message":"Rate limit exceeded: free-models-per-day. ","code":429,"metadata":{{"headers":{{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}"}}}}}}}}"#
    )
}

#[test]
fn the_accounts_limit_is_said_or_waited_for() {
    let reset = now_ms() + 3_600_000;
    let upstream = Upstream::start(move |_, answer| answer.json(429, &limited(reset)));
    let proxy = Proxy::before(&upstream, "");
    for (path, body) in WAYS {
        let refused = proxy.post(path, body);
        let text = assert_error(&refused, 429);
        assert!(text.contains(':'), "says the time: {text}");
        assert!(refused.header("retry-after").is_some() && refused.header("x-should-retry") == Some("false"));
    }
    assert_eq!(upstream.calls(), 1);

    let reset = OnceLock::new();
    let upstream = Upstream::start(move |request, answer| {
        if now_ms() < *reset.get_or_init(|| now_ms() + 1000) {
            answer.json(429, &limited(*reset.get().unwrap()))
        } else {
            answer.fitting(request, "waited for")
        }
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    thread::scope(|scope| {
        for (path, body) in WAYS {
            let proxy = &proxy;
            scope.spawn(move || {
                let response = proxy.post(path, body);
                assert_eq!(lines(&response).iter().map(said).collect::<String>(), "waited for", "{path}");
            });
        }
    });
}

#[test]
fn a_backup_answers_where_openrouter_cannot() {
    let upstream =
        Upstream::start(|_, answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#));
    let backup = Upstream::saying("from the backup");
    let settings =
        format!("BACKUPS=groq\nGROQ_BASE_URL={}\nGROQ_MODEL=llama-70b\nGROQ_API_KEY=sk-groq", backup.url());
    let proxy = Proxy::before(&upstream, &settings);
    for (path, body) in WAYS {
        let response = proxy.post(path, body);
        assert_eq!((response.status, response.header("x-proxy-backup")), (200, Some("groq")), "{response:?}");
        assert_eq!(lines(&response).iter().map(said).collect::<String>(), "from the backup");
        let sent = backup.last();
        assert_eq!(
            (sent.path.as_str(), &sent.json()["model"]),
            ("/api/v1/chat/completions", &json!("llama-70b"))
        );
        assert_eq!(sent.header("authorization"), Some("Bearer sk-groq"));
    }
    // An embedding is nobody else's.
    assert_error(&proxy.post("/api/embed", r#"{"model":"e:free","input":"x"}"#), 402);
}

#[test]
fn numbers_of_an_embedding_stay_what_they_are() {
    const NUMBERS: &str = "[0.9618072509765625,-0.00023412704467773438,1e-7,0.30000000000000004]";
    let upstream = Upstream::start(|_, answer| {
        answer.json(200, &format!(r#"{{"data":[{{"index":0,"embedding":{NUMBERS}}}],"model":"e:free"}}"#));
    });
    let proxy = Proxy::before(&upstream, "EMBEDDING_MODEL=e:free");
    let response = proxy.post("/api/embed", r#"{"model":"m","input":"x"}"#);
    assert!(response.text().contains(NUMBERS), "{}", response.text());
}

#[test]
fn embeddings_are_lists_of_vectors() {
    let upstream = Upstream::start(|request, answer| {
        let input = request.json()["input"].clone();
        let count = input.as_array().map_or(1, Vec::len);
        let data =
            (0..count).map(|n| format!(r#"{{"object":"embedding","index":{n},"embedding":[{n}.5,-1]}}"#));
        let data = data.collect::<Vec<_>>().join(",");
        answer.json(200, &format!(r#"{{"object":"list","data":[{data}],"model":"e:free","usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#));
    });
    let proxy = Proxy::before(&upstream, "EMBEDDING_MODEL=e:free");
    for (body, model, vectors) in [
        (r#"{"model":"nomic-embed-text","input":"x"}"#, "e:free", json!([[0.5, -1]])),
        (r#"{"model":"f/g:free","input":["x","y"]}"#, "f/g:free", json!([[0.5, -1], [1.5, -1]])),
        (
            r#"{"model":"f/g:free","input":["x"],"truncate":true,"keep_alive":"5m","options":{"num_ctx":1}}"#,
            "f/g:free",
            json!([[0.5, -1]]),
        ),
    ] {
        let answer = proxy.post("/api/embed", body).json();
        let floats = |value: &Value| serde_json::from_value::<Vec<Vec<f64>>>(value.clone()).unwrap();
        assert_eq!(floats(&answer["embeddings"]), floats(&vectors), "{answer}");
        assert!(answer["model"].is_string(), "{answer}");
        assert_eq!(answer["prompt_eval_count"], 4, "{answer}");
        let sent = upstream.last();
        assert_eq!((sent.path.as_str(), &sent.json()["model"]), ("/api/v1/embeddings", &json!(model)));
        assert!(
            sent.json().get("options").is_none() && sent.json().get("keep_alive").is_none(),
            "{}",
            sent.body
        );
    }
    let without = Proxy::before(&upstream, "");
    assert_error(&without.post("/api/embed", r#"{"model":"nomic-embed-text","input":"x"}"#), 400);
    for body in ["", "no", "[]"] {
        assert_error(&proxy.post("/api/embed", body), 400);
    }
}

#[test]
fn bodies_that_cannot_be_understood() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MAX_BODY_MB=1");
    for path in ["/api/chat", "/api/generate", "/api/show"] {
        for body in ["", "no", "[]", "7", "{", r#"{"model":"x",}"#, "{}{}"] {
            assert_error(&proxy.post(path, body), 400);
        }
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n");
        assert_error(&proxy.connect().exchange(&head), 413);
    }
    assert_eq!(upstream.calls(), 0);
    // JSON of another kind than is meant: an answer or a refusal, as long as it is a whole one.
    for odd in [
        r#""messages":"hello""#,
        r#""messages":{"role":"user"}"#,
        r#""messages":[7]"#,
        r#""messages":[{"role":7,"content":{}}]"#,
        r#""messages":[{"role":"user","content":"x","images":"y"}]"#,
        r#""messages":[{"role":"user","content":"x","images":[7,null]}]"#,
        r#""messages":[{"role":"user","content":"x","images":[""]}]"#,
        r#""messages":[{"role":"assistant","tool_calls":{"a":1}}]"#,
        r#""messages":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":"text"}}]},{"role":"tool"}]"#,
        r#""messages":[{"role":"tool","content":"nobody asked"}]"#,
        r#""messages":[{"role":"user","content":"x"}],"options":[1]"#,
        r#""messages":[{"role":"user","content":"x"}],"options":{"temperature":"hot","stop":7,"num_predict":"all"}"#,
        r#""messages":[{"role":"user","content":"x"}],"format":7"#,
        r#""messages":[{"role":"user","content":"x"}],"think":{"a":[]}"#,
        r#""messages":[{"role":"user","content":"x"}],"tools":"f""#,
        r#""messages":[{"role":"user","content":"x"}],"stream":"yes""#,
        r#""messages":[{"role":"user","content":"x"}],"stream":null"#,
        r#""prompt":7"#,
        r#""prompt":["x"]"#,
        r#""prompt":"x","images":7"#,
        r#""prompt":"x","system":{"a":1}"#,
    ] {
        for path in ["/api/chat", "/api/generate"] {
            let response = proxy.post(path, &format!(r#"{{"model":"x",{odd}}}"#));
            match response.status {
                200 => assert_eq!(lines(&response).last().unwrap()["done"], true, "{odd}: {response:?}"),
                _ => drop(assert_error(&response, 400)),
            }
        }
    }
}

#[test]
fn who_is_not_let_in_is_told_in_one_text() {
    let upstream = Upstream::saying("never asked");
    let ask = |proxy: &Proxy, (path, body): (&str, &str), headers: &str| {
        let length = body.len();
        proxy
            .connect()
            .exchange(&format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
    };
    let open = Proxy::before(&upstream, "");
    let locked = Proxy::before(&upstream, "PROXY_API_KEY=let-me-in");
    let without_key = Start::new().env_file(format!("OPENROUTER_BASE_URL={}\n", upstream.url())).start();
    for way in WAYS {
        assert_error(&ask(&locked, way, "Host: localhost\r\n"), 401);
        assert_error(&ask(&open, way, "Host: evil.example\r\n"), 403);
        assert_error(&ask(&open, way, "Host: localhost\r\nOrigin: https://evil.example\r\n"), 403);
        assert_error(&ask(&without_key, way, "Host: localhost\r\n"), 401);
    }
    assert_error(&locked.get("/api/tags"), 401);
    assert_eq!(upstream.calls(), 0);

    let nobody = format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:1/v1\nRETRIES=0");
    let proxy = Start::new().env_file(nobody).start();
    for (path, body) in WAYS {
        assert_error(&proxy.post(path, body), 502);
    }
    let tags = proxy.get("/api/tags").json();
    assert_eq!(
        (tags["models"].as_array().unwrap().len(), &tags["models"][0]["name"]),
        (2, &json!("openrouter/free"))
    );
}

#[test]
fn silence_and_a_full_proxy_are_told_in_one_text() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("half") {
            answer.stream_head();
            answer.piece(&delta("half"));
        }
        answer.sees_close();
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "UPSTREAM_TIMEOUT=1\nWORKERS=3\nQUEUE=0");
    thread::scope(|scope| {
        let silent = [SAY, SAY_PLAIN].map(|body| scope.spawn(|| proxy.post("/api/chat", body)));
        let half = scope.spawn(|| proxy.post("/api/chat", &SAY.replace("hello", "half")));
        upstream.wait_for(3);
        let full = proxy.post("/api/chat", SAY);
        assert_error(&full, 503);
        assert_eq!(full.header("retry-after"), Some("1"));
        for silent in silent {
            assert_error(&silent.join().unwrap(), 504);
        }
        let half = half.join().unwrap();
        let all = lines(&half);
        assert_eq!((half.status, said(&all[0])), (200, "half"));
        assert!(all.last().unwrap()["error"].is_string(), "{}", half.text());
    });
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn long_prompts_and_long_answers_arrive_whole() {
    let long = ("x".repeat(100) + "你好 \"x\" \\ ").repeat(10_000); // 1.1 MB
    let expected = long.clone();
    let upstream = Upstream::start(move |request, answer| {
        if request.streams() {
            let mut pieces = String::new();
            answer.stream_head();
            expected.split_inclusive("好").for_each(|piece| pieces.push_str(&delta(piece)));
            pieces.as_bytes().chunks(10_000).for_each(|piece| {
                answer.raw(format!("{:x}\r\n", piece.len()));
                answer.raw(piece);
                answer.raw("\r\n");
            });
            answer.piece(&(last_delta() + DONE));
            answer.end();
        } else {
            answer.say(&expected)
        }
    });
    let proxy = Proxy::before(&upstream, "");
    let text = Value::from(long.as_str()).to_string();
    for (path, body) in WAYS {
        let response = proxy.post(path, &body.replace("\"hello\"", &text));
        assert!(lines(&response).iter().map(said).collect::<String>() == long, "{path}: the answer");
        assert!(upstream.last().json()["messages"][0]["content"] == long, "{path}: the prompt");
    }
}

/// Old clients send no `Content-Type`, or that of a form, and some a path with a slash at its end.
#[test]
fn old_clients_are_understood() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    for headers in ["", "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: text/plain\r\n"]
    {
        for path in ["/api/chat", "/api/chat/", "//api//chat"] {
            let length = SAY_PLAIN.len();
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{SAY_PLAIN}"
            );
            assert_eq!(said(&proxy.connect().exchange(&request).json()), "hi", "{path} {headers}");
        }
    }
    let mut client = proxy.connect();
    let length = SAY.len();
    client.send(format!("POST /api/chat HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{SAY}"));
    let response = client.response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(lines(&response).iter().map(said).collect::<String>(), "hi");
}

/// Debug mode and panel see it as any other call.
#[test]
fn its_calls_are_saved_and_counted() {
    let upstream = Upstream::saying("hello there");
    let proxy = Proxy::recording(&upstream, "");
    for (number, (path, body)) in WAYS.into_iter().enumerate() {
        proxy.post(path, body).assert_status(200);
        let files = proxy.files(2 * (number + 1));
        let saved = |kind: &str| {
            let found = files.iter().rfind(|(name, _)| name.contains(&format!("_{kind}_")));
            found.unwrap_or_else(|| panic!("no {kind} among {files:?}")).1["data"].clone()
        };
        assert_eq!(saved("REQUEST"), serde_json::from_str::<Value>(body).unwrap(), "{path}");
        assert_eq!(saved("RESPONSE")["choices"][0]["message"]["content"], "hello there", "{path}");
    }
    assert_eq!(proxy.get("/debug/stats").json()["count"], 4);
    let calls = proxy.get("/debug/calls").json();
    for call in calls["calls"].as_array().unwrap() {
        assert_eq!(
            (&call["asked"], &call["model"], &call["status"]),
            (&json!("llama3.2"), &json!(MODEL), &json!(200))
        );
        assert_eq!((&call["prompt_tokens"], &call["completion_tokens"]), (&json!(3), &json!(2)), "{call}");
    }
}

/// Not every upstream streams whenever it is asked to.
#[test]
fn a_plain_answer_to_a_streamed_request_is_lines_all_the_same() {
    let upstream = Upstream::start(|_, answer| answer.say("hello there"));
    let proxy = Proxy::before(&upstream, "");
    for (path, body) in [("/api/chat", SAY), ("/api/generate", GENERATE)] {
        let response = proxy.post(path, body);
        let all = lines(&response);
        assert_eq!(
            (response.status, all.iter().map(said).collect::<String>().as_str()),
            (200, "hello there"),
            "{path}"
        );
        assert_last_line(all.last().unwrap(), "stop");
    }
}
