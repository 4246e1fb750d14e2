//! Section 11: Google's Gemini API over the same free models.

use serde_json::{Value, json};

use crate::fixture::*;

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
const SSE: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
const HI: &str = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;

/// Requests as Google's SDKs and the tools that use them sent them.
const RECORDED: [&str; 5] = [
    include_str!("../sdk/requests/google-genai-python.json"),
    include_str!("../sdk/requests/google-genai-js.json"),
    include_str!("../sdk/requests/rust-genai-gemini.json"),
    include_str!("../sdk/requests/pi-google.json"),
    include_str!("../sdk/requests/gemini-cli.json"),
];

/// All that chat completions know of what is ever sent here.
const CHAT_FIELDS: [&str; 17] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "reasoning",
    "plugins",
];

fn events(stream: &str) -> Vec<Value> {
    let events =
        stream.strip_suffix("\n\n").unwrap_or_else(|| panic!("no blank line behind the last: {stream}"));
    let data = events.split("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"))).collect()
}

/// What is sent for a body.
fn sent(path: &str, body: &Value) -> Value {
    let upstream = Upstream::start(|request, answer| answer.fitting(request, "hi"));
    let proxy = Proxy::before(&upstream, "");
    proxy.post(path, &body.to_string()).assert_status(200);
    upstream.last().json()
}

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"gen-1\",\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

#[test]
fn all_recorded_requests_go_out_free_and_are_answered() {
    let upstream = Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/embeddings" => {
            answer.json(200, r#"{"data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[1.5]}]}"#)
        }
        path if path.contains("/models") => answer.json(200, r#"{"data":[{"id":"a/b:free","name":"B"}]}"#),
        _ => answer.fitting(request, "hi there"),
    });
    let proxy = Proxy::before(&upstream, "EMBEDDING_MODEL=e/m:free\nSTICKY_MINUTES=0");
    for recorded in RECORDED.iter().flat_map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap()) {
        let [method, path] = ["method", "path"].map(|name| recorded[name].as_str().unwrap());
        let body = if recorded["body"].is_null() { String::new() } else { recorded["body"].to_string() };
        let headers =
            recorded["headers"].as_array().unwrap().iter().map(|header| {
                format!("{}: {}\r\n", header[0].as_str().unwrap(), header[1].as_str().unwrap())
            });
        let (headers, length) = (headers.collect::<String>(), body.len());
        let calls = upstream.calls();
        let answer = proxy.connect().exchange(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ));
        let what = format!("{path} {body}: {}", answer.text());
        let only_googles_tools = body.contains("googleSearch") && !body.contains("functionDeclarations");
        match path {
            _ if ["/files", "cachedContents", "interactions"].iter().any(|part| path.contains(part)) => {
                assert_eq!(
                    (answer.status, &answer.json()["error"]["status"]),
                    (404, &"NOT_FOUND".into()),
                    "{what}"
                );
            }
            _ if only_googles_tools => {
                assert_eq!(answer.json()["error"]["status"], "INVALID_ARGUMENT", "{what}");
                assert!(what.contains("Google's own tools"), "{what}");
                assert_eq!(upstream.calls(), calls);
            }
            "/v1/models" => assert_eq!(answer.json()["models"][2]["name"], "models/a/b:free", "{what}"),
            "/v1/models/gemini-2.5-flash" => {
                assert_eq!(answer.json()["name"], "models/gemini-2.5-flash", "{what}")
            }
            _ if path.ends_with(":countTokens") => assert!(answer.json()["totalTokens"].is_u64(), "{what}"),
            _ if path.ends_with(":embedContent") => {
                assert_eq!(answer.json()["embedding"]["values"], json!([1.5]), "{what}")
            }
            _ if path.ends_with(":batchEmbedContents") => {
                assert_eq!(
                    answer.json(),
                    json!({"embeddings": [{"values": [1.5]}, {"values": [2]}]}),
                    "{what}"
                );
                assert_eq!(upstream.last().json(), json!({"model": "e/m:free", "input": ["l", "l"]}));
            }
            _ => {
                assert_eq!(answer.status, 200, "{what}");
                let sent = upstream.last().json();
                let named = path.split("models/").nth(1).unwrap().rsplit_once(':').unwrap().0;
                let free = if named.ends_with(":free") { named } else { "openrouter/free" };
                assert_eq!(sent["model"], free, "{what}");
                for name in sent.as_object().unwrap().keys() {
                    assert!(CHAT_FIELDS.contains(&name.as_str()), "{name} of {sent}");
                }
                let text = sent.to_string();
                for googles in
                    ["googleSearch", "\"OBJECT\"", "\"STRING\"", "parametersJsonSchema", "thoughtSignature"]
                {
                    assert!(!text.contains(googles), "{googles} in {text}");
                }
                let told = if path.contains("stream") { events(answer.text()) } else { vec![answer.json()] };
                let said = told
                    .iter()
                    .flat_map(|event| event["candidates"][0]["content"]["parts"].as_array().unwrap());
                assert_eq!(said.map(|part| part["text"].as_str().unwrap()).collect::<String>(), "hi there");
                assert_eq!(told.last().unwrap()["candidates"][0]["finishReason"], "STOP");
            }
        }
    }
}

#[test]
fn a_whole_request() {
    let asked = json!({
        "systemInstruction": {"parts": [{"text": "Be"}, {"text": "brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mime_type": "image/png", "data": "-_8"}}]},
            {"role": "user", "parts": []},
            {"role": "user", "parts": [{"text": "again"}]},
            {"role": "model", "parts": [
                {"text": "hm", "thought": true}, {"text": "well"},
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "x"},
                {"function_call": {"name": "g", "args": {}, "id": "mine"}},
                {"functionCall": {"name": "f"}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "one"}}},
                {"functionResponse": {"id": "mine", "name": "g", "response": {"x": [1]},
                    "parts": [{"inlineData": {"mimeType": "image/jpeg", "data": "/9j/"}}]}},
                {"text": "so?"},
            ]},
        ],
        "tools": [
            {"googleSearch": {}},
            {"function_declarations": [
                {"name": "f", "description": "F", "parameters": {"type": "OBJECT", "required": ["a"], "propertyOrdering": ["a"],
                    "properties": {"a": {"type": "INTEGER", "nullable": true, "minimum": 1}, "type": {"type": "ARRAY", "minItems": "2", "items": {"type": "STRING", "format": "enum", "enum": ["A"]}}}}},
                {"name": "g", "parametersJsonSchema": {"type": "object", "$ref": "#/x"}},
                {"name": "h"},
            ]},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowed_function_names": ["f", "g"]}},
        "generationConfig": {
            "temperature": 0.25, "top_p": 0.5, "topK": 5.0, "maxOutputTokens": 100, "stopSequences": ["x"], "candidateCount": 1,
            "seed": 7, "presencePenalty": 0.5, "frequency_penalty": -1, "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"n": {"type": "NUMBER"}}},
            "thinkingConfig": {"thinkingBudget": 512, "includeThoughts": true},
        },
        "safetySettings": [{"category": "x"}], "cachedContent": "cachedContents/1", "labels": {"a": "b"},
    });
    let function = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let mut f = function(
        "f",
        json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": ["integer", "null"], "minimum": 1},
            "type": {"type": "array", "minItems": 2, "items": {"type": "string", "enum": ["A"]}},
        }}),
    );
    f["function"]["description"] = json!("F");
    let expected = json!({
        "model": "openrouter/free",
        "messages": [
            {"role": "system", "content": "Be\nbrief."},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,+/8="}},
                {"type": "text", "text": "again"},
            ]},
            {"role": "assistant", "content": "well", "tool_calls": [
                {"id": "call_1_0", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "mine", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                {"id": "call_1_2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1_0", "content": "one"},
            {"role": "tool", "tool_call_id": "mine", "content": "{\"x\":[1]}"},
            {"role": "tool", "tool_call_id": "call_1_2", "content": "There is no result of this call."},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}}, {"type": "text", "text": "so?"},
            ]},
        ],
        "tools": [f, function("g", json!({"type": "object", "$ref": "#/x"}))],
        "tool_choice": "required",
        "temperature": 0.25, "top_p": 0.5, "top_k": 5, "max_tokens": 100, "stop": ["x"], "seed": 7,
        "presence_penalty": 0.5, "frequency_penalty": -1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": true,
            "schema": {"type": "object", "properties": {"n": {"type": "number"}}}}},
        "reasoning": {"max_tokens": 512},
    });
    let sent = sent(GENERATE, &asked);
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&sent[name], value, "{name}");
    }
    assert_eq!(sent.as_object().unwrap().len(), expected.as_object().unwrap().len(), "{sent}");
}

#[test]
fn choices_structures_and_files() {
    let tools = json!([{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}]);
    let with = |more: Value| {
        let mut asked = json!({"contents": [{"parts": [{"text": "x"}]}]});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sent(GENERATE, &asked)
    };
    for (config, choice) in [
        (json!({"mode": "AUTO"}), json!("auto")),
        (json!({"mode": "NONE"}), json!("none")),
        (json!({"mode": "any"}), json!("required")),
        (
            json!({"mode": "ANY", "allowedFunctionNames": ["g"]}),
            json!({"type": "function", "function": {"name": "g"}}),
        ),
        (json!({}), Value::Null),
    ] {
        let sent = with(json!({"tools": tools, "toolConfig": {"functionCallingConfig": config}}));
        assert_eq!(sent["tool_choice"], choice, "{config}");
    }
    let any = json!({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}, "tools": []});
    assert_eq!(with(any)["tool_choice"], Value::Null, "there is nothing to choose from");
    for (config, format) in [
        (json!({"responseMimeType": "application/json"}), json!("json_object")),
        (json!({"responseMimeType": "text/plain"}), Value::Null),
        (
            json!({"response_mime_type": "application/json", "responseJsonSchema": {"type": "OBJECT"}}),
            json!("json_schema"),
        ),
    ] {
        assert_eq!(with(json!({"generationConfig": config}))["response_format"]["type"], format, "{config}");
    }
    for (thinking, reasoning) in [
        (json!({"thinkingBudget": 0}), json!({"enabled": false})),
        (json!({"thinkingLevel": "HIGH"}), json!({"effort": "high"})),
        (json!({"include_thoughts": true, "thinking_budget": -1}), json!({"enabled": true})),
    ] {
        assert_eq!(with(json!({"generationConfig": {"thinkingConfig": thinking}}))["reasoning"], reasoning);
    }
    let engine = json!([{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]);
    for pdf in [
        json!({"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}}),
        json!({"fileData": {"fileUri": "https://x/y.pdf", "mimeType": "application/pdf"}}),
    ] {
        let sent = with(json!({"contents": [{"parts": [pdf]}]}));
        assert_eq!(sent["messages"][0]["content"][0]["type"], "file", "{sent}");
        assert_eq!(sent["plugins"], engine, "{sent}");
    }
    let text = json!({"inlineData": {"mimeType": "text/plain", "data": "aGVsbG8"}});
    assert_eq!(with(json!({"contents": [{"parts": [text]}]}))["messages"][0]["content"], "hello");
}

#[test]
fn a_plain_answer_in_all_its_parts() {
    let upstream = Upstream::start(|_, answer| {
        let message = json!({"role": "assistant", "reasoning": "hm", "content": "well", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":[1]}"}},
            {"id": "d", "type": "function", "function": {"name": "g", "arguments": ""}}]});
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 2}});
        let choices = [json!({"index": 0, "message": message, "finish_reason": "tool_calls"})];
        answer.json(
            200,
            &json!({"id": "gen-1", "model": "a/b:free", "choices": choices, "usage": usage}).to_string(),
        );
    });
    let proxy = Proxy::before(&upstream, "");
    for path in [
        GENERATE,
        "/v1/models/x:generateContent",
        "/models/x:generateContent",
        "/v1beta/models/models/x%3AgenerateContent",
    ] {
        let answer = proxy.post(path, HI);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("x-proxy-model").unwrap().ends_with("-> openrouter/free"));
        assert_eq!(
            answer.json(),
            json!({
                "candidates": [{"content": {"parts": [
                    {"text": "hm", "thought": true}, {"text": "well"},
                    {"functionCall": {"name": "f", "args": {"a": [1]}, "id": "c"}},
                    {"functionCall": {"name": "g", "args": {}, "id": "d"}},
                ], "role": "model"}, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 3, "totalTokenCount": 8, "thoughtsTokenCount": 2},
                "modelVersion": "a/b:free", "responseId": "gen-1",
            })
        );
    }
    let free = proxy.post("/v1beta/models/qwen/qwen3-coder:free:generateContent", HI);
    assert_eq!((free.status, free.header("x-proxy-model")), (200, None));
    assert_eq!(upstream.last().json()["model"], "qwen/qwen3-coder:free");
    let quiet = r#"{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"thinkingConfig":{"includeThoughts":false}}}"#;
    assert_eq!(proxy.post(GENERATE, quiet).json()["candidates"][0]["content"]["parts"][0]["text"], "well");
}

#[test]
fn reasons_why_an_answer_ended() {
    for (finish, reason) in [("length", "MAX_TOKENS"), ("content_filter", "SAFETY"), ("stop", "STOP")] {
        let upstream = Upstream::start(move |_, answer| {
            let choice = json!({"message": {"content": "x"}, "finish_reason": finish});
            answer.json(200, &json!({"choices": [choice]}).to_string());
        });
        let answer = Proxy::before(&upstream, "").post(GENERATE, HI).json();
        assert_eq!(answer["candidates"][0]["finishReason"], reason);
    }
}

fn calling() -> Upstream {
    Upstream::start(|_, answer| {
        answer.stream_head();
        answer.piece(": OPENROUTER PROCESSING\n\n");
        answer.piece(&chunk(r#"{"role":"assistant","content":""}"#, "null"));
        answer.piece(&chunk(r#"{"reasoning":"hm"}"#, "null"));
        answer.piece(": OPENROUTER PROCESSING\n\n");
        answer.piece(&chunk(r#"{"content":"we"}"#, "null"));
        answer.piece(&chunk(r#"{"content":"ll"}"#, "null"));
        answer.piece(&chunk(
            r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\""}}]}"#,
            "null",
        ));
        answer.piece(&chunk(
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
            r#""tool_calls""#,
        ));
        answer.piece("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n");
        answer.piece("data: [DONE]\n\n");
        answer.end();
    })
}

fn told_by_calling(told: &[Value]) {
    let parts =
        told.iter().map(|event| event["candidates"][0]["content"]["parts"].clone()).collect::<Vec<_>>();
    assert_eq!(
        parts,
        [
            json!([{"text": "hm", "thought": true}]),
            json!([{"text": "we"}]),
            json!([{"text": "ll"}]),
            json!([{"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}}]),
        ]
    );
    let last = told.last().unwrap();
    assert_eq!(
        (&last["candidates"][0]["finishReason"], &last["usageMetadata"]["totalTokenCount"]),
        (&json!("STOP"), &json!(3))
    );
    assert!(told.iter().all(|event| event["modelVersion"] == MODEL && event["responseId"] == "gen-1"));
}

#[test]
fn a_stream_of_events() {
    let upstream = calling();
    let proxy = Proxy::before(&upstream, "");
    let answer = proxy.post(SSE, HI);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(!answer.text().contains("OPENROUTER") && !answer.text().contains("[DONE]"), "{}", answer.text());
    told_by_calling(&events(answer.text()));
    assert_eq!(upstream.last().json()["stream_options"]["include_usage"], true);
}

#[test]
fn a_stream_that_is_an_array_that_grows() {
    let upstream = calling();
    let proxy = Proxy::before(&upstream, "");
    let answer = proxy.post(STREAM, HI);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    told_by_calling(answer.json().as_array().unwrap());
}

#[test]
fn each_event_goes_out_before_the_next_one_is_made() {
    for path in [SSE, STREAM] {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let upstream = Upstream::start(move |_, answer| {
            answer.stream_head();
            answer.piece(&delta("one"));
            wait.lock().unwrap().recv_timeout(GUARD).unwrap();
            answer.piece(&delta("two"));
            answer.piece(&last_delta());
            answer.piece("data: [DONE]\n\n");
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        let mut client = proxy.connect();
        client.send_post(path, HI);
        client.read_head_and_until("one");
        go.send(()).unwrap();
        assert!(client.rest_of_chunks().contains("two"));
    }
}

#[test]
fn a_stream_that_breaks_ends_with_googles_error() {
    let faults: [fn(&mut Answer<'_>); 2] = [
        |answer| answer.close(),
        |answer| {
            answer.piece("data: {\"error\":{\"code\":502,\"message\":\"gone\"},\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}\n\n");
            answer.end();
        },
    ];
    for fault in faults {
        let upstream = Upstream::start(move |_, answer| {
            answer.stream_head();
            answer.piece(&delta("some"));
            fault(answer);
        });
        let proxy = Proxy::before(&upstream, "");
        let told = proxy.post(SSE, HI);
        let last = events(told.text()).pop().unwrap();
        assert_eq!(
            (&last["error"]["code"], &last["error"]["status"]),
            (&json!(502), &json!("UNAVAILABLE")),
            "{last}"
        );
        assert!(told.text().contains("data: {\"error\":{\"code\":502,"), "{}", told.text());
        let array = proxy.post(STREAM, HI).json();
        assert_eq!(array.as_array().unwrap().len(), 2, "{array}");
        assert_eq!(array[1]["error"]["code"], 502);
    }
}

#[test]
fn errors_in_googles_shape() {
    let upstream = Upstream::start(|_, answer| {
        answer.respond(
            429,
            "retry-after: 37\r\n",
            r#"{"error":{"code":429,"message":"slow down","metadata":{"provider_name":"P"}}}"#,
        );
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for path in [GENERATE, SSE] {
        let refused = proxy.post(path, HI);
        assert_eq!((refused.status, refused.header("content-type")), (429, Some("application/json")));
        assert_eq!(
            refused.json(),
            json!({"error": {
                "code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}],
            }})
        );
    }
    for (method, path, body, status, name) in [
        ("POST", GENERATE, "{", 400, "INVALID_ARGUMENT"),
        ("POST", GENERATE, "[]", 400, "INVALID_ARGUMENT"),
        ("GET", GENERATE, "", 405, "UNIMPLEMENTED"),
        ("POST", "/v1beta/models/imagen-4:predict", "{}", 404, "NOT_FOUND"),
        ("POST", "/v1beta/files", "{}", 404, "NOT_FOUND"),
        ("GET", "/v1beta/nowhere", "", 404, "NOT_FOUND"),
    ] {
        let length = body.len();
        let refused = proxy.connect().exchange(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let error = refused.json()["error"].clone();
        assert_eq!(
            (refused.status, &error["code"], &error["status"]),
            (status, &json!(status), &json!(name)),
            "{path}: {error}"
        );
        assert!(error["message"].is_string());
    }
    let strange =
        proxy.connect().exchange(&format!("POST {GENERATE} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
    assert_eq!(strange.json()["error"]["status"], "PERMISSION_DENIED");
}

#[test]
fn a_limit_that_lasts_says_when_to_come_back() {
    let reset =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 7_200_000;
    let upstream = Upstream::start(move |_, answer| {
        let headers =
            format!("X-RateLimit-Limit: 50\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: {reset}\r\n");
        answer.respond(
            429,
            &headers,
            r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day"}}"#,
        );
    });
    let proxy = Proxy::before(&upstream, "");
    let refused = proxy.post(SSE, HI);
    let error = &refused.json()["error"];
    let delay =
        error["details"][0]["retryDelay"].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    assert!((7000..=7200).contains(&delay), "{error}");
    assert_eq!(refused.header("retry-after"), Some(delay.to_string().as_str()));
}

#[test]
fn another_try_heals_as_anywhere() {
    for path in [GENERATE, SSE, STREAM] {
        let upstream = Upstream::start(|request, answer| match request.number {
            1 => answer.respond(503, "retry-after: 0\r\n", "busy"),
            _ => answer.fitting(request, "hi"),
        });
        let proxy = Proxy::before(&upstream, "");
        let answer = proxy.post(path, HI);
        assert_eq!((answer.status, answer.header("x-proxy-attempts")), (200, Some("2")), "{path}");
        assert!(answer.text().contains("\"hi\""), "{}", answer.text());
    }
}

#[test]
fn lists_in_googles_shape_for_googles_clients_alone() {
    let upstream = Upstream::start(|_, answer| {
        answer.json(200, r#"{"data":[{"id":"a/b:free","name":"B","context_length":1000,"top_provider":{"max_completion_tokens":50}}]}"#);
    });
    let proxy = Proxy::before(&upstream, "");
    let ask = |path: &str, header: &str| {
        proxy.connect().exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n")).json()
    };
    let of = |list: &Value, name: &str| {
        list["models"].as_array().unwrap().iter().find(|model| model["name"] == name).cloned().unwrap()
    };
    for (path, header) in [
        ("/v1beta/models?pageSize=5", ""),
        ("/v1/models", "x-goog-api-client: genai\r\n"),
        ("/models", "x-goog-api-key: x\r\n"),
    ] {
        let model = of(&ask(path, header), "models/a/b:free");
        assert_eq!(
            (&model["displayName"], &model["inputTokenLimit"], &model["outputTokenLimit"]),
            (&json!("B"), &json!(1000), &json!(50))
        );
        assert!(model["supportedGenerationMethods"].to_string().contains("generateContent"));
    }
    assert_eq!(ask("/v1/models", "")["object"], "list");
    for path in ["/v1beta/models/a/b:free", "/v1beta/models/a%2Fb%3Afree", "/v1beta/models/models/a/b:free"] {
        assert_eq!(ask(path, "")["name"], "models/a/b:free", "{path}");
    }
    assert_eq!(ask("/v1beta/models/gone:free", "")["error"]["status"], "NOT_FOUND");
}

#[test]
fn the_proxys_key_in_googles_ways() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "PROXY_API_KEY=a+b/c-d");
    let ask = |target: &str, header: &str| {
        let length = HI.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{header}\r\n{HI}"
        );
        proxy.connect().exchange(&request)
    };
    assert_eq!(ask(GENERATE, "x-goog-api-key: a+b/c-d\r\n").status, 200);
    assert_eq!(ask(&format!("{GENERATE}?key=a%2Bb%2Fc-d"), "").status, 200);
    for (target, header) in
        [(GENERATE, ""), (GENERATE, "x-goog-api-key: x\r\n"), (&*format!("{GENERATE}?key=x"), "")]
    {
        assert_eq!(ask(target, header).json()["error"]["status"], "UNAUTHENTICATED", "{target}");
    }
    assert_eq!(
        ask("/v1/chat/completions?key=a%2Bb%2Fc-d", "").status,
        401,
        "only Google's clients write it there"
    );
    assert!(!proxy.console().contains("key="), "{}", proxy.console());
    assert!(upstream.received().iter().all(|sent| !sent.path.contains("key=")));
}

#[test]
fn tokens_are_counted_here() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "");
    let count = |body: &Value| {
        proxy.post("/v1beta/models/x:countTokens", &body.to_string()).json()["totalTokens"].as_u64().unwrap()
    };
    let contents = json!([{"parts": [{"text": "The quick brown fox jumps over the lazy dog."}]}]);
    let few = count(&json!({"contents": contents}));
    assert!((8..=12).contains(&few), "{few}");
    assert_eq!(count(&json!({"generateContentRequest": {"contents": contents}})), few);
    let image = json!([{"parts": [{"inlineData": {"mimeType": "image/png", "data": "x".repeat(100_000)}}]}]);
    assert!(count(&json!({"contents": image})) < 5000);
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn the_built_in_model_speaks_it_too() {
    let proxy = Start::new().arg("--offline").start();
    let told = events(proxy.post(SSE, HI).text());
    assert!(told.len() > 3 && told[0]["candidates"][0]["content"]["parts"][0]["text"].is_string());
    let asked = r#"{"contents":[{"parts":[{"text":"call weather"}]}],"tools":[{"functionDeclarations":[{"name":"weather"}]}]}"#;
    let told = proxy.post(GENERATE, asked).json();
    assert_eq!(told["candidates"][0]["content"]["parts"][1]["functionCall"]["name"], "weather", "{told}");
}

/// A server that streams where a plain answer was asked for, and the other way round.
#[test]
fn the_shape_is_the_one_that_was_asked_for() {
    let upstream = Upstream::start(|request, answer| {
        if request.streams() {
            return answer.say("hello there");
        }
        answer.stream_head();
        let pieces = ["hello ", "there"].map(|text| chunk(&format!(r#"{{"content":"{text}"}}"#), "null"));
        answer.piece(&(pieces.concat() + &chunk("{}", "\"stop\"") + "data: [DONE]\n\n"));
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    let plain = proxy.post(GENERATE, HI);
    assert_eq!(
        plain.json()["candidates"][0]["content"]["parts"],
        json!([{"text": "hello there"}]),
        "{plain:?}"
    );
    assert_eq!(plain.header("content-type"), Some("application/json"));
    let streamed = proxy.post(SSE, HI);
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        events(streamed.text())[0]["candidates"][0]["content"]["parts"],
        json!([{"text": "hello there"}])
    );
    let ollama = json!({"model": "x", "stream": false, "messages": [{"role": "user", "content": "x"}]});
    let ollama = proxy.post("/api/chat", &ollama.to_string());
    assert_eq!(ollama.json()["message"]["content"], "hello there", "{ollama:?}");
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn a_stream_in_place_of_a_plain_answer_fails_as_any_other() {
    let error = "data: {\"error\":{\"code\":502,\"message\":\"it died\"}}\n\n";
    for (piece, said) in [(error, "it died"), ("data: {\"choices\":[]}\n\n", "broke off")] {
        let upstream = Upstream::start(move |_, answer| {
            answer.stream_head();
            answer.piece(piece);
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "RETRIES=0");
        let refused = proxy.post(GENERATE, HI);
        assert_eq!(refused.status, 502, "{refused:?}");
        assert!(refused.text().contains(said), "{refused:?}");
    }
}

#[test]
fn two_documents_in_one_event_are_two_events() {
    let upstream = Upstream::start(|request, answer| {
        let chunk = |text: &str| chunk(&format!(r#"{{"content":"{text}"}}"#), "null");
        let [first, second] = [chunk("hello "), chunk("there")];
        let (first, second) = (first.trim_end(), second.trim_end().trim_start_matches("data: "));
        let between = if request.number == 1 { "" } else { "\ndata: " };
        answer.stream_head();
        answer.piece(&format!("{first}{between}{second}\n\ndata: [DONE]\n\n"));
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "");
    for _ in 0..2 {
        let streamed = proxy.post(SSE, HI);
        let parts = events(streamed.text());
        let text =
            parts.iter().filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str());
        assert_eq!(text.collect::<String>(), "hello there", "{streamed:?}");
    }
    assert_eq!(upstream.calls(), 2);
}

/// A client would run it with other arguments than the model's.
#[test]
fn a_call_whose_arguments_are_no_object_is_text() {
    let call = r#"[{"index":0,"id":"c","type":"function","function":{"name":"delete_all","arguments":"{\"only\": [\"tmp"}}]"#;
    let upstream = Upstream::start(move |request, answer| {
        if request.streams() {
            answer.stream_head();
            answer.piece(
                &(chunk(&format!(r#"{{"tool_calls":{call}}}"#), "\"tool_calls\"") + "data: [DONE]\n\n"),
            );
            answer.end();
        } else {
            let choice =
                format!(r#"{{"index":0,"message":{{"tool_calls":{call}}},"finish_reason":"tool_calls"}}"#);
            answer.json(200, &format!(r#"{{"choices":[{choice}]}}"#));
        }
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for path in [GENERATE, SSE] {
        let response = proxy.post(path, HI);
        let text = response.text();
        assert!(
            text.contains(r#"delete_all({\"only\": [\"tmp)"#) && !text.contains("functionCall"),
            "{text}"
        );
    }
}

#[test]
fn what_has_no_contents_is_refused_without_a_call() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "");
    for body in [
        r#"{}"#,
        r#"{"contents":[]}"#,
        r#"{"contents":null}"#,
        r#"{"contents":[{"parts":[]}],"systemInstruction":{"parts":[{"text":"x"}]}}"#,
    ] {
        let refused = proxy.post(GENERATE, body);
        assert_eq!(
            (refused.status, refused.json()["error"]["status"].as_str()),
            (400, Some("INVALID_ARGUMENT"))
        );
    }
    assert_eq!(upstream.calls(), 0);
    let sent = sent(
        GENERATE,
        &json!({"contents": "hi", "generationConfig": {"maxOutputTokens": "77", "seed": "5"}}),
    );
    assert_eq!(sent["messages"], json!([{"role": "user", "content": "hi"}]));
    assert_eq!((&sent["max_tokens"], &sent["seed"]), (&json!(77), &json!(5)));
}

/// An upstream's 304 has no body, and neither has ours.
#[test]
fn a_status_without_a_body_keeps_the_connection_in_step() {
    let upstream = Upstream::start(|_, answer| answer.raw("HTTP/1.1 304 Not Modified\r\n\r\n"));
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for (path, body) in [(GENERATE, HI), ("/api/chat", HELLO), ("/v1/chat/completions", HELLO)] {
        let mut client = proxy.connect();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let head = client.head();
        assert_eq!((head.status, head.header("content-length")), (304, None), "{head:?}");
        client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response().status, 200, "{path}");
    }
}

#[test]
fn an_answer_that_nests_too_deeply_is_no_success() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let upstream = Upstream::start(move |_, answer| {
        answer.json(200, &format!(r#"{{"choices":[{{"message":{{"content":"hi"}},"finish_reason":"stop"}}],"usage":{{"x":{deep}}}}}"#));
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for (path, body) in [
        (GENERATE, HI),
        ("/api/chat", r#"{"model":"x","stream":false,"messages":[{"role":"user","content":"x"}]}"#),
    ] {
        let refused = proxy.post(path, body);
        assert_eq!(refused.status, 502, "{refused:?}");
        assert!(refused.text().contains("nests too deeply"), "{refused:?}");
    }
}

/// A tree of so many values would take a hundred times the body's size.
#[test]
fn a_body_of_many_small_parts_takes_no_memory() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let parts = |many: usize| {
        format!(r#"{{"contents":[{{"parts":[{}]}}]}}"#, vec![r#"{"text":"a"}"#; many].join(","))
    };
    for path in [GENERATE, "/v1beta/models/gemini-2.5-flash:countTokens"] {
        let refused = proxy.post(path, &parts(300_000));
        assert_eq!(refused.status, 413, "{refused:?}");
        assert!(refused.text().contains("250000 JSON values"), "{refused:?}");
        proxy.post(path, &parts(10_000)).assert_status(200);
    }
    let messages = vec![r#"{"role":"user","content":"a"}"#; 200_000].join(",");
    for path in ["/api/chat", "/v1/messages/count_tokens"] {
        let refused = proxy.post(path, &format!(r#"{{"model":"x","messages":[{messages}]}}"#));
        assert_eq!(refused.status, 413, "{refused:?}");
    }
    assert_eq!(upstream.calls(), 1);
    proxy.chat(&format!(r#"{{"messages":[{messages}]}}"#)).assert_status(200);
}
