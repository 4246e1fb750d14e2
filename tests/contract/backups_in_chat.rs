//! Section 3: a backup that knows only chat completions answers who speaks another API, and one that is named answers alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::fixture::*;

const UNKNOWN_URL: &str = r#"{"error":{"message":"Unknown request URL: POST /v1/x. Please check the URL for typos.","type":"invalid_request_error","code":"unknown_url"}}"#;

fn settings(backup: &Upstream, more: &str) -> String {
    format!(
        "BACKUPS=groq\nGROQ_BASE_URL={}\nGROQ_MODEL=llama, other/one\nGROQ_API_KEY=gsk_backup-key-5678\n{more}",
        backup.url()
    )
}

/// One that knows chat completions and nothing else, and of these no field that isn't everybody's.
fn chat_only(script: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request, answer| {
        if !request.path.ends_with("/chat/completions") {
            return answer.json(404, UNKNOWN_URL);
        }
        match unknown_in(&request.json()) {
            Some(unknown) => answer.json(400, &json!({"error": {"message": unknown}}).to_string()),
            None => script(request, answer),
        }
    })
}

/// What a strict server would refuse.
fn unknown_in(request: &Value) -> Option<String> {
    let only = |value: &Value, known: &[&str]| {
        let mut names = value.as_object().into_iter().flat_map(|object| object.keys());
        names
            .find(|name| !known.contains(&name.as_str()))
            .map(|name| format!("property '{name}' is unsupported in {value}"))
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let fields = [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
    ];
    let mut unknown = only(request, &fields);
    let mut waiting = Vec::new();
    for (number, message) in list(&request["messages"]).iter().enumerate() {
        let known: &[&str] = match message["role"].as_str() {
            Some("system") if number == 0 => &["role", "content"],
            Some("user") if waiting.is_empty() => &["role", "content"],
            Some("assistant") if waiting.is_empty() => &["role", "content", "tool_calls"],
            Some("tool") if waiting.contains(&message["tool_call_id"]) => {
                &["role", "content", "tool_call_id"]
            }
            _ => return Some(format!("out of order: {message}")),
        };
        waiting.retain(|id| *id != message["tool_call_id"]);
        waiting.extend(list(&message["tool_calls"]).iter().map(|call| call["id"].clone()));
        unknown = unknown.or(only(message, known));
        for part in list(&message["content"]) {
            unknown = unknown.or(only(&part, &["type", part["type"].as_str().unwrap_or_default()]));
        }
    }
    for tool in list(&request["tools"]) {
        unknown = unknown.or(only(&tool, &["type", "function"]));
        unknown = unknown.or(only(&tool["function"], &["name", "description", "parameters"]));
    }
    unknown.or((!waiting.is_empty()).then(|| format!("calls without results: {waiting:?}")))
}

/// OpenRouter without a credit left.
fn no_credits() -> Upstream {
    Upstream::start(|_, answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#))
}

const MESSAGES: &str = "/v1/messages?beta=true";
const RESPONSES: &str = "/v1/responses";

fn asked(path: &str, streams: bool) -> String {
    match path {
        MESSAGES => format!(
            r#"{{"model":"claude","max_tokens":9,"stream":{streams},"messages":[{{"role":"user","content":"hello"}}]}}"#
        ),
        _ => format!(r#"{{"model":"gpt","stream":{streams},"input":"hello"}}"#),
    }
}

/// The text of an answer, plain or streamed.
fn text_of(path: &str, response: &Response) -> String {
    let text = response.text();
    if response.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let events = text.split("\n\n").filter_map(|event| event.split_once("data: "));
        let events = events.filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
        let pieces = events.filter_map(|event| {
            let delta = if path == MESSAGES { &event["delta"]["text"] } else { &event["delta"] };
            delta.as_str().map(str::to_owned)
        });
        return pieces.collect();
    }
    let answer = response.json();
    let text = if path == MESSAGES {
        &answer["content"][0]["text"]
    } else {
        &answer["output"][0]["content"][0]["text"]
    };
    text.as_str().unwrap_or_default().to_owned()
}

#[test]
fn whoever_speaks_another_api_is_answered_all_the_same() {
    let upstream = no_credits();
    let backup = chat_only(|request, answer| answer.fitting(request, "from the backup"));
    for path in [MESSAGES, RESPONSES] {
        let proxy = Proxy::before(&upstream, &settings(&backup, ""));
        let before = backup.calls();
        for streams in [false, true, false, true] {
            let response = proxy.post(path, &asked(path, streams));
            assert_eq!(
                (response.status, &*text_of(path, &response)),
                (200, "from the backup"),
                "{path} {response:?}"
            );
            assert_eq!(response.header("x-proxy-backup"), Some("groq"));
            assert!(response.header("x-proxy-model").unwrap().ends_with(" -> llama"), "{response:?}");
            let end = match (path, streams) {
                (_, false) => "}",
                (MESSAGES, _) => "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
                (_, _) => "}\n\n",
            };
            assert!(response.text().ends_with(end), "{}", response.text());
            let sent = backup.last();
            assert_eq!((&*sent.path, &sent.json()["model"]), ("/api/v1/chat/completions", &json!("llama")));
            assert_eq!(sent.header("authorization"), Some("Bearer gsk_backup-key-5678"));
            assert!(
                sent.headers
                    .iter()
                    .all(|(name, value)| !name.starts_with("anthropic-") && !value.contains(KEY))
            );
        }
        let paths = backup.received().split_off(before);
        let unknown = paths.iter().filter(|request| !request.path.ends_with("/chat/completions")).count();
        assert_eq!((paths.len(), unknown), (5, 1), "{path}: it is found out once");
        // Its settings have changed, and it may know more now.
        proxy.write_env(&env(&upstream, &settings(&backup, "GROQ_MODEL=newer")));
        assert_eq!(proxy.post(path, &asked(path, false)).status, 200);
        assert_eq!(backup.calls() - before, 7, "{path}: asked once more");
    }
}

/// What Claude Code, Codex, opencode and others have sent.
#[test]
fn the_headers_of_an_api_go_where_it_is_spoken() {
    let upstream = no_credits();
    let of_messages = |backup: &Upstream| {
        let proxy = Proxy::before(&upstream, &settings(backup, ""));
        let body = asked(MESSAGES, false);
        let head = format!(
            "POST {MESSAGES} HTTP/1.1\r\nHost: localhost\r\nanthropic-beta: some-2025\r\nContent-Length: {}",
            body.len()
        );
        proxy.connect().exchange(&format!("{head}\r\n\r\n{body}")).assert_status(200);
        backup.last().header("anthropic-beta").map(str::to_owned)
    };
    let told = r#"{"type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let native = Upstream::start(move |_, answer| answer.json(200, told));
    assert_eq!(of_messages(&native).as_deref(), Some("some-2025"));
    let in_chat = chat_only(|request, answer| answer.fitting(request, "hi"));
    assert_eq!(of_messages(&in_chat), None);
}

#[test]
fn what_agents_send_is_told_so_that_strict_servers_take_it() {
    let upstream = no_credits();
    let backup = chat_only(|request, answer| answer.fitting(request, "from the backup"));
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    let mut count = 0;
    for recorded in [
        include_str!("../sdk/requests/claude-code-tools.json"),
        include_str!("../sdk/requests/codex-tools.json"),
        include_str!("../sdk/requests/codex-image.json"),
        include_str!("../sdk/requests/opencode-anthropic.json"),
        include_str!("../sdk/requests/opencode-openai-responses.json"),
        include_str!("../sdk/requests/backups/ag2-responses.json"),
        include_str!("../sdk/requests/backups/claude-code-332.json"),
        include_str!("../sdk/requests/backups/cline-openai-native.json"),
        include_str!("../sdk/requests/backups/copilot-responses.json"),
    ] {
        for call in serde_json::from_str::<Value>(recorded).unwrap().as_array().unwrap() {
            let path = call["path"].as_str().unwrap();
            let path = if path.contains("/messages") { MESSAGES } else { RESPONSES };
            if call["method"] != "POST" {
                continue;
            }
            let response = proxy.post(path, &call["body"].to_string());
            assert_eq!(text_of(path, &response), "from the backup", "{response:?}");
            count += 1;
        }
    }
    assert_eq!(count, 18);
}

#[test]
fn how_it_is_known_that_a_server_does_not_know_an_api() {
    let upstream = no_credits();
    let gone_in_messages = r#"{"type":"error","error":{"type":"not_found_error","message":"model: llama"}}"#;
    let gone_in_responses =
        r#"{"error":{"message":"The model `llama` does not exist","code":"model_not_found"}}"#;
    for (path, status, body, is_asked_in_chat) in [
        (MESSAGES, 404, "404 page not found", true),
        (MESSAGES, 404, gone_in_responses, true), // in no shape of Anthropic's
        (MESSAGES, 405, "", true),
        (MESSAGES, 501, "{}", true),
        (MESSAGES, 404, gone_in_messages, false),
        (MESSAGES, 400, "{}", false),
        (MESSAGES, 500, "{}", false),
        (RESPONSES, 404, UNKNOWN_URL, true),
        (RESPONSES, 404, gone_in_responses, false),
        (RESPONSES, 403, "{}", false),
    ] {
        let backup = Upstream::start(move |request, answer| {
            if request.path.ends_with("/chat/completions") {
                answer.fitting(request, "in chat")
            } else {
                answer.json(status, body)
            }
        });
        let proxy = Proxy::before(&upstream, &settings(&backup, ""));
        let answered = proxy.post(path, &asked(path, true)).status == 200;
        assert_eq!(
            (answered, backup.calls()),
            (is_asked_in_chat, 1 + usize::from(is_asked_in_chat)),
            "{path} {status} {body}"
        );
    }
}

/// Claude Code wants 64,000 tokens and more; Mistral knows no `stream_options`.
#[test]
fn what_a_server_refuses_without_need_is_left_out() {
    let upstream = no_credits();
    let backup = chat_only(|request, answer| match request.json() {
        asked if !asked["stream_options"].is_null() => {
            answer.json(
                422,
                r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options","include_usage"]}]}"#,
            );
        }
        asked if asked["max_tokens"].as_u64().is_some_and(|limit| limit > 8192) => {
            answer.json(400, r#"{"error":{"message":"`max_tokens` must be less than or equal to `8192`"}}"#);
        }
        _ => answer.fitting(request, "from the backup"),
    });
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    for (limit, calls, sent) in [(64_000, 4, Value::Null), (64_000, 2, Value::Null), (1000, 1, json!(1000))] {
        let before = backup.calls();
        let body = asked(MESSAGES, true).replace("\"max_tokens\":9", &format!("\"max_tokens\":{limit}"));
        assert_eq!(text_of(MESSAGES, &proxy.post(MESSAGES, &body)), "from the backup");
        assert_eq!((backup.calls() - before, &backup.last().json()["max_tokens"]), (calls, &sent), "{limit}");
    }
}

/// Events of a chat that comes to no good end.
#[test]
fn a_stream_that_breaks_off_ends_in_the_clients_api() {
    let upstream = no_credits();
    let backup = chat_only(|request, answer| {
        answer.stream_head();
        answer.piece(": wait\n\n");
        answer.piece(&delta("some words"));
        match request.number % 2 {
            0 => answer.piece("data: {\"error\":{\"code\":429,\"message\":\"too fast\"},\"choices\":[]}\n\n"),
            _ => answer.close(),
        }
        if request.number % 2 == 0 {
            answer.end();
        }
    });
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    for path in [MESSAGES, RESPONSES, MESSAGES, RESPONSES] {
        let response = proxy.post(path, &asked(path, true));
        let text = response.text();
        assert!(text.starts_with(": wait\n\nevent: ") && text.contains("some words"), "{text}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let kind = if path == MESSAGES { "event: error\n" } else { "event: response.failed\n" };
        assert!(last.starts_with(kind), "{path}: {last}");
    }
}

#[test]
fn tools_thoughts_and_usage_come_back_as_each_client_knows_them() {
    let upstream = no_credits();
    let backup = chat_only(|request, answer| {
        let call = json!([{"id": "call_1", "type": "function", "function": {"name": "shell__run", "arguments": "{\"x\":1}"}}]);
        let message =
            json!({"role": "assistant", "content": "<think>hm</think>\n\nI call", "tool_calls": call});
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}});
        assert!(!request.streams());
        answer.json(200, &json!({"model": "llama-3", "choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage}).to_string());
    });
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    let tools = json!([{"name": "shell__run", "input_schema": {"type": "object"}}]);
    let body = json!({"model": "x", "max_tokens": 9, "tools": tools, "messages": [{"role": "user", "content": "hi"}]});
    let told = proxy.post(MESSAGES, &body.to_string()).json();
    let kinds = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| one["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&told["content"]), ["thinking", "text", "tool_use"]);
    assert_eq!((&told["content"][2]["input"], &told["stop_reason"]), (&json!({"x": 1}), &json!("tool_use")));
    assert_eq!(
        (&told["usage"]["input_tokens"], &told["usage"]["cache_read_input_tokens"]),
        (&json!(4), &json!(5))
    );
    let tools =
        json!([{"type": "namespace", "name": "shell", "tools": [{"type": "function", "name": "run"}]}]);
    let told =
        proxy.post(RESPONSES, &json!({"model": "x", "tools": tools, "input": "hi"}).to_string()).json();
    assert_eq!(kinds(&told["output"]), ["reasoning", "message", "function_call"]);
    assert_eq!(
        (&told["output"][2]["namespace"], &told["output"][2]["name"]),
        (&json!("shell"), &json!("run"))
    );
    assert_eq!((&told["usage"]["input_tokens"], &told["model"]), (&json!(9), &json!("llama-3")));
}

#[test]
fn a_backup_that_is_named_answers_alone() {
    let upstream = Upstream::start(|_, answer| answer.json(500, "{}"));
    static FAULT: AtomicUsize = AtomicUsize::new(0);
    let backup = chat_only(|request, answer| match FAULT.load(Ordering::SeqCst) {
        0 => answer.fitting(request, "from the backup"),
        429 => answer.respond(
            429,
            "retry-after: 40\r\n",
            r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#,
        ),
        _ => answer.json(401, r#"{"error":{"message":"Incorrect API key provided"}}"#),
    });
    for key in [true, false] {
        FAULT.store(0, Ordering::SeqCst);
        let all = env(&upstream, &settings(&backup, ""));
        let proxy = Start::new().env_file(if key { all } else { all.replace(KEY, "") }).start();
        for (path, body) in [
            ("/v1/chat/completions", HELLO_STREAM.replace(MODEL, "groq/other/one")),
            (MESSAGES, asked(MESSAGES, true).replace("claude", "groq/other/one")),
            (RESPONSES, asked(RESPONSES, false).replace("gpt", "Groq/other/one")),
            ("/api/chat", HELLO.replace(MODEL, "groq/other/one")),
        ] {
            FAULT.store(0, Ordering::SeqCst);
            let response = proxy.post(path, &body);
            assert_eq!(
                (response.status, response.header("x-proxy-backup")),
                (200, Some("groq")),
                "{path} {response:?}"
            );
            assert!(
                response.header("x-proxy-model").unwrap().ends_with("roq/other/one -> other/one"),
                "{response:?}"
            );
            assert_eq!(backup.last().json()["model"], "other/one");
            for (status, said) in [(429, "slow down"), (429, "slow down"), (401, "Incorrect API key")] {
                FAULT.store(status, Ordering::SeqCst);
                let refused = proxy.post(path, &body);
                assert_eq!(usize::from(refused.status), status, "also while it rests: {refused:?}");
                assert!(refused.text().contains(said), "{refused:?}");
                let shape = refused.json();
                assert_eq!(shape["type"] == "error", path == MESSAGES, "{shape}");
                assert_eq!(shape["error"].is_string(), path == "/api/chat", "{shape}");
                assert_eq!(refused.header("retry-after"), (status == 429).then_some("40"));
            }
        }
    }
    assert_eq!(upstream.calls(), 0, "OpenRouter is never asked");
    // The panel shows what went to it, not what would have gone to OpenRouter.
    let proxy = Proxy::recording(&upstream, &settings(&backup, ""));
    proxy.chat(r#"{"model":"groq/llama","plugins":[],"messages":[]}"#);
    let id = proxy.get("/debug/calls").json()["calls"][0]["message_id"].as_str().unwrap().to_owned();
    let changes = proxy.get(&format!("/debug/calls/{id}")).json()["changes"].clone();
    assert_eq!(
        changes,
        json!([
            {"field": "model", "from": "\"groq/llama\"", "to": "\"llama\""},
            {"field": "plugins", "from": "[0]", "to": null},
        ])
    );
}

#[test]
fn a_backup_that_is_named_and_cannot_be_reached() {
    let upstream = Upstream::saying("never asked");
    let stopped = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!("BACKUPS=lmstudio,groq\nLMSTUDIO_MODEL=m\nLMSTUDIO_BASE_URL=http://{stopped}/v1");
    let other = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, &settings(&other, &more));
    for path in [MESSAGES, RESPONSES, "/v1/chat/completions"] {
        let body = r#"{"model":"lmstudio/m","max_tokens":9,"input":"hi","messages":[]}"#;
        let refused = proxy.post(path, body);
        refused.assert_status(502);
        assert!(refused.text().contains("refused"), "{}", refused.text());
        let text = refused.text();
        assert!(text.contains("LMSTUDIO_BASE_URL") && !text.contains("OPENROUTER"), "{text}");
    }
    assert_eq!((upstream.calls(), other.calls()), (0, 0));
}

/// Fields that are OpenRouter's, and none of a server that refuses what it doesn't know.
#[test]
fn what_only_openrouter_knows_stays_with_it() {
    let upstream = no_credits();
    let backup = Upstream::start(|_, answer| answer.json(200, "{}"));
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    let own = r#""models":["a:free"],"route":"x","provider":{},"plugins":[],"transforms":[],"session_id":"s","trace":{},"debug":{},"usage":{"include":true},"include_reasoning":true,"cache_control":{},"top_a":1,"min_p":0,"repetition_penalty":1,"fallbacks":[{"model":"b:free"}]"#;
    for (path, more, expected) in [
        (
            "/v1/chat/completions",
            r#""reasoning":{"effort":"low"},"top_k":1,"reasoning_effort":"low","messages":[{"role":"assistant","content":[{"type":"text","text":"x","cache_control":{}}],"reasoning":"hm","reasoning_details":[]}]"#,
            json!({"model": "llama", "reasoning_effort": "low", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}),
        ),
        (
            "/v1/messages",
            r#""max_tokens":1.50,"top_k":1,"thinking":{"type":"adaptive"},"messages":[]"#,
            json!({"model": "llama", "max_tokens": 1.5, "top_k": 1, "thinking": {"type": "adaptive"}, "messages": []}),
        ),
        (
            "/v1/responses",
            r#""reasoning":{"effort":"low"},"top_k":1,"input":"x""#,
            json!({"model": "llama", "reasoning": {"effort": "low"}, "input": "x"}),
        ),
        (
            "/v1/chat/completions",
            r#""stop":["a","b","c","d","e"],"tools":[{"type":"openrouter:datetime"},{"type":"function","function":{"name":"f"},"cache_control":{}}],"messages":[]"#,
            json!({"model": "llama", "stop": ["a", "b", "c", "d"], "tools": [{"type": "function", "function": {"name": "f"}}], "messages": []}),
        ),
        ("/v1/chat/completions", r#""tools":[],"messages":[]"#, json!({"model": "llama", "messages": []})),
        ("/v1/completions", r#""prompt":"x""#, json!({"model": "llama", "prompt": "x"})),
    ] {
        proxy.post(path, &format!(r#"{{"model":"c:free",{own},{more}}}"#));
        let sent = backup.last();
        assert_eq!((&*sent.path, sent.json()), (&*path.replace("/v1", "/api/v1"), expected));
    }
    for empty in ["", r#""tools":[],"#] {
        let body =
            format!(r#"{{"model":"x","stream":false,{empty}"messages":[{{"role":"user","content":"b"}}]}}"#);
        proxy.post("/api/chat", &body);
        let messages = json!([{"role": "user", "content": "b"}]);
        assert_eq!(backup.last().json(), json!({"model": "llama", "stream": false, "messages": messages}));
    }
    let think = r#"{"model":"x","think":"high","stream":false,"options":{"top_k":1,"min_p":0},"messages":[{"role":"assistant","content":"a","thinking":"hm"},{"role":"user","content":"b"}]}"#;
    proxy.post("/api/chat", think);
    let messages = json!([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]);
    assert_eq!(backup.last().json(), json!({"model": "llama", "stream": false, "messages": messages}));
}

#[test]
fn only_who_wants_to_be_left_alone_or_cannot_be_reached_rests() {
    let upstream = no_credits();
    for (status, rests) in [(429, true), (500, false), (401, false), (400, false), (503, false)] {
        let backup = Upstream::start(move |_, answer| answer.json(status, "{}"));
        let proxy = Proxy::before(&upstream, &settings(&backup, ""));
        for _ in 0..2 {
            assert_ne!(proxy.chat(HELLO).status, 200);
        }
        assert_eq!(backup.calls(), if rests { 1 } else { 2 }, "{status}");
    }
}

#[test]
fn when_all_rest_it_is_told_when_the_first_is_there_again() {
    let upstream = no_credits();
    let tired = |seconds: u64| {
        Upstream::start(move |_, answer| answer.respond(429, &format!("retry-after: {seconds}\r\n"), "{}"))
    };
    for waits in [[100, 600], [600, 100]] {
        let [first, second] = waits.map(tired);
        let more = format!("BACKUPS=groq,other\nOTHER_BASE_URL={}\nOTHER_MODEL=m", second.url());
        let proxy = Proxy::before(&upstream, &settings(&first, &more).replacen("BACKUPS=groq\n", "", 1));
        for _ in 0..2 {
            let refused = proxy.chat(HELLO);
            refused.assert_status(429);
            let seconds = refused.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
            assert!(seconds.is_some_and(|seconds| (50..=100).contains(&seconds)), "{waits:?}: {seconds:?}");
        }
        assert_eq!((first.calls(), second.calls()), (1, 1));
    }
}

#[test]
fn one_that_rests_is_there_again_as_soon_as_it_answers() {
    let upstream = no_credits();
    let backup = Upstream::start(|request, answer| {
        if request.body.contains("too much") {
            answer.respond(429, "retry-after: 600\r\n", "{}")
        } else {
            answer.fitting(request, "there again")
        }
    });
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    assert_ne!(proxy.chat(&HELLO.replace("hello", "too much")).status, 200);
    let refused = proxy.chat(HELLO);
    refused.assert_status(429);
    let seconds = refused.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| (61..=600).contains(&seconds)), "as it said: {seconds:?}");
    assert_eq!(backup.calls(), 1, "it rests");
    // Whoever names it asks it all the same.
    let named = r#"{"model":"groq/llama","messages":[{"role":"user","content":"hello"}]}"#;
    assert_eq!(proxy.chat(named).status, 200);
    assert_eq!(proxy.chat(HELLO).header("x-proxy-backup"), Some("groq"));
    assert_eq!(backup.calls(), 3);
}

/// What was asked of a backup by name is no answer for whoever asks OpenRouter the same.
#[test]
fn answers_again_are_the_same_ones_only() {
    let upstream = Upstream::saying("from OpenRouter");
    let backup = chat_only(|request, answer| answer.fitting(request, "from the backup"));
    let proxy = Proxy::before(&upstream, &settings(&backup, "REUSE_ANSWERS=10"));
    for path in [MESSAGES, RESPONSES] {
        let named =
            asked(path, false).replace("\"claude\"", "\"groq/llama\"").replace("\"gpt\"", "\"groq/llama\"");
        for _ in 0..2 {
            assert_eq!(text_of(path, &proxy.post(path, &named)), "from the backup");
        }
    }
    assert_eq!(upstream.calls(), 0);
    assert!(proxy.chat(&HELLO.replace(MODEL, "groq/llama")).text().contains("from the backup"));
    assert!(proxy.chat(&HELLO.replace(MODEL, "openrouter/free")).text().contains("from OpenRouter"));
}
