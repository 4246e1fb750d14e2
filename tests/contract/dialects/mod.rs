//! Section 3, "All dialects alike": what holds for chat holds for each API that a client may speak.

// Before the files that use them.
macro_rules! data {
    ($json:literal) => {
        concat!("data: ", $json, "\n\n")
    };
}

/// With the name that Anthropic's SDKs go by.
macro_rules! event {
    ($name:literal, $json:literal) => {
        concat!("event: ", $name, "\ndata: ", $json, "\n\n")
    };
}

mod backups;
mod debug_files;
mod embeddings;
mod ends;
mod errors;
mod limit;
mod patience;
mod streams;

use serde_json::Value;

use crate::fixture::*;

/// One API, in what an upstream says in it. All of its good answers say `said it`.
pub struct Dialect {
    pub name: &'static str,
    pub path: &'static str,
    /// A request for a model that says a text, plain or streamed.
    request: fn(&str, &str, bool) -> String,
    pub plain: &'static str,
    /// The events of a stream: those that say nothing yet, those that say something, and those that end it.
    pub opening: &'static [&'static str],
    pub saying: &'static [&'static str],
    pub ending: &'static [&'static str],
    /// An error of the upstream's: its status and its message become the body.
    error: fn(u16, &str) -> String,
    /// Failures as an event or as the whole body of a 200, and the statuses that a client may get for them.
    failures: &'static [(&'static str, &'static [u16])],
    failed_bodies: &'static [(&'static str, &'static [u16])],
    /// Plain answers and streams with nothing in them.
    pub empty: &'static [&'static str],
    pub empty_streams: &'static [&'static [&'static str]],
    /// Answers with nothing in them, because of what was asked for.
    pub cut_short: &'static str,
    cut_short_stream: &'static [&'static str],
    /// The account's limit, by its name and the members of `headers`.
    pub limited: fn(&str, &str) -> String,
    /// The name of an error's event, where the dialect's events have names.
    error_event_name: &'static str,
    /// Fails unless an error of this status has the dialect's shape, and this code where one is given.
    pub assert_error: fn(&Value, u16, Option<&str>),
    /// The same of the event (its name, its data) that ends a stream which broke off behind these whole events; the
    /// number is 2 where another one was torn, else 1.
    assert_broken_off: fn(Option<&str>, &Value, &str, u64, &str),
    /// The text in a saved answer.
    saved_text: fn(&Value) -> String,
}

pub const DIALECTS: [&Dialect; 4] = [&CHAT, &COMPLETIONS, &RESPONSES, &MESSAGES];
pub const DONE: &str = "data: [DONE]\n\n";
pub const COMMENT: &str = ": OPENROUTER PROCESSING\n\n";

/// An error with a numeric code, as chat and completions have it.
fn openai_error(status: u16, message: &str) -> String {
    format!(r#"{{"error":{{"code":{status},"message":"{message}"}}}}"#)
}

fn openai_limited(limit: &str, headers: &str) -> String {
    format!(
        r#"{{"error":{{"message":"Rate limit exceeded: {limit}. ","code":429,"metadata":{{"headers":{{{headers}}}}}}}}}"#
    )
}

fn stream_field(streamed: bool) -> &'static str {
    if streamed { r#","stream":true"# } else { "" }
}

#[rustfmt::skip]
pub const CHAT: Dialect = Dialect {
    name: "chat",
    path: "/v1/chat/completions",
    request: |model, text, streamed| {
        let stream = stream_field(streamed);
        format!(r#"{{"model":"{model}"{stream},"messages":[{{"role":"user","content":"{text}"}}]}}"#)
    },
    plain: r#"{"id":"gen-1","object":"chat.completion","created":1,"model":"some/model:free","choices":[{"index":0,"message":{"role":"assistant","content":"said it"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    opening: &[
        data!(r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"some/model:free","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#),
        data!(r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"some/model:free","choices":[]}"#),
    ],
    saying: &[
        data!(r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"some/model:free","choices":[{"index":0,"delta":{"content":"said "},"finish_reason":null}]}"#),
        data!(r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"some/model:free","choices":[{"index":0,"delta":{"content":"it"},"finish_reason":null}]}"#),
    ],
    ending: &[
        data!(r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"some/model:free","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#),
        data!(r#"{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"some/model:free","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#),
    ],
    error: openai_error,
    failures: &[
        (data!(r#"{"id":"gen-1","object":"chat.completion.chunk","error":{"code":503,"message":"no luck"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#), &[503]),
        (data!(r#"{"error":{"code":500,"message":"no luck"}}"#), &[500]),
        (data!(r#"{"error":{"message":"no luck"}}"#), &[502]),
        (data!(r#"{"id":"gen-1","choices":[{"index":0,"delta":{},"finish_reason":"error","error":{"code":503,"message":"no luck"}}]}"#), &[503]),
    ],
    failed_bodies: &[
        (r#"{"error":{"code":503,"message":"no luck"}}"#, &[503]),
        (r#"{"error":{"message":"no luck"}}"#, &[502]),
    ],
    empty: &[
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[]},"finish_reason":null}]}"#,
        r#"{"choices":[]}"#,
        "",
        "\n \n",
    ],
    empty_streams: &[
        &[data!(r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#), DONE],
        &[data!(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#)],
        &[DONE],
        &[],
    ],
    cut_short: r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"content_filter"}]}"#,
    cut_short_stream: &[
        data!(r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length"}]}"#),
        DONE,
    ],
    limited: openai_limited,
    error_event_name: "",
    assert_error: assert_openai_error,
    assert_broken_off: |_, last, _, _, name| {
        assert!(last["error"]["code"].is_number() && last["error"]["message"].is_string(), "{name}: {last}");
        assert_eq!(last["choices"][0]["finish_reason"], "error", "{name}: {last}");
        assert_eq!(last["choices"][0]["delta"]["content"], "", "{name}: {last}");
    },
    saved_text: |saved| text_of(&saved["choices"][0]["message"]["content"]),
};

#[rustfmt::skip]
pub const COMPLETIONS: Dialect = Dialect {
    name: "completions",
    path: "/v1/completions",
    request: |model, text, streamed| {
        let stream = stream_field(streamed);
        format!(r#"{{"model":"{model}"{stream},"prompt":"{text}"}}"#)
    },
    plain: r#"{"id":"gen-1","object":"text_completion","created":1,"model":"some/model:free","choices":[{"text":"said it","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    opening: &[data!(r#"{"id":"gen-1","object":"text_completion","created":1,"model":"some/model:free","choices":[{"text":"","index":0,"finish_reason":null}]}"#)],
    saying: &[
        data!(r#"{"id":"gen-1","object":"text_completion","created":1,"model":"some/model:free","choices":[{"text":"said ","index":0,"finish_reason":null}]}"#),
        data!(r#"{"id":"gen-1","object":"text_completion","created":1,"model":"some/model:free","choices":[{"text":"it","index":0,"finish_reason":null}]}"#),
    ],
    ending: &[
        data!(r#"{"id":"gen-1","object":"text_completion","created":1,"model":"some/model:free","choices":[{"text":"","index":0,"finish_reason":"stop"}]}"#),
        data!(r#"{"id":"gen-1","object":"text_completion","created":1,"model":"some/model:free","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#),
    ],
    error: openai_error,
    failures: &[
        (data!(r#"{"id":"gen-1","object":"text_completion","error":{"code":503,"message":"no luck"},"choices":[{"text":"","index":0,"finish_reason":"error"}]}"#), &[503]),
        (data!(r#"{"error":{"code":500,"message":"no luck"}}"#), &[500]),
    ],
    failed_bodies: &[(r#"{"error":{"code":503,"message":"no luck"}}"#, &[503])],
    empty: &[r#"{"choices":[{"text":"","index":0,"finish_reason":"stop"}]}"#, r#"{"choices":[]}"#, "", "\n \n"],
    empty_streams: &[&[data!(r#"{"choices":[{"text":"","index":0,"finish_reason":"stop"}]}"#), DONE], &[DONE]],
    cut_short: r#"{"choices":[{"text":"","index":0,"finish_reason":"length"}]}"#,
    cut_short_stream: &[data!(r#"{"choices":[{"text":"","index":0,"finish_reason":"content_filter"}]}"#), DONE],
    limited: openai_limited,
    error_event_name: "",
    assert_error: assert_openai_error,
    assert_broken_off: |_, last, _, _, name| {
        assert!(last["error"]["code"].is_number() && last["error"]["message"].is_string(), "{name}: {last}");
        assert_eq!(last["choices"][0]["finish_reason"], "error", "{name}: {last}");
    },
    saved_text: |saved| text_of(&saved["choices"][0]["text"]),
};

#[rustfmt::skip]
pub const RESPONSES: Dialect = Dialect {
    name: "responses",
    path: "/v1/responses",
    request: |model, text, streamed| {
        let stream = stream_field(streamed);
        format!(r#"{{"model":"{model}"{stream},"input":"{text}"}}"#)
    },
    plain: r#"{"id":"resp_1","object":"response","created_at":1,"model":"some/model:free","status":"completed","output":[{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"said it","annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}"#,
    opening: &[
        data!(r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1,"model":"some/model:free","status":"in_progress","output":[]}}"#),
        data!(r#"{"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1","object":"response","created_at":1,"model":"some/model:free","status":"in_progress","output":[]}}"#),
        data!(r#"{"type":"response.queued","sequence_number":2,"response":{"id":"resp_1","object":"response","created_at":1,"model":"some/model:free","status":"queued","output":[]}}"#),
    ],
    saying: &[
        data!(r#"{"type":"response.output_item.added","sequence_number":3,"output_index":0,"item":{"type":"message","id":"msg_1","role":"assistant","status":"in_progress","content":[]}}"#),
        data!(r#"{"type":"response.content_part.added","sequence_number":4,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}"#),
        data!(r#"{"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"said "}"#),
        data!(r#"{"type":"response.output_text.delta","sequence_number":6,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"it"}"#),
        data!(r#"{"type":"response.output_text.done","sequence_number":7,"item_id":"msg_1","output_index":0,"content_index":0,"text":"said it"}"#),
        data!(r#"{"type":"response.content_part.done","sequence_number":8,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"said it","annotations":[]}}"#),
        data!(r#"{"type":"response.output_item.done","sequence_number":9,"output_index":0,"item":{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"said it","annotations":[]}]}}"#),
    ],
    ending: &[data!(r#"{"type":"response.completed","sequence_number":10,"response":{"id":"resp_1","object":"response","created_at":1,"model":"some/model:free","status":"completed","output":[{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"said it","annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}}"#)],
    error: |status, message| match status {
        // The code is a text or a number, as OpenRouter's pages have it both ways.
        500.. => format!(r#"{{"error":{{"code":"server_error","message":"{message}"}},"metadata":null}}"#),
        _ => openai_error(status, message),
    },
    failures: &[
        (data!(r#"{"type":"response.failed","sequence_number":11,"response":{"id":"resp_1","object":"response","status":"failed","output":[],"error":{"code":"server_error","message":"no luck"}}}"#), &[500, 502]),
        (data!(r#"{"type":"error","sequence_number":11,"code":"server_error","message":"no luck","param":null}"#), &[500, 502]),
        (data!(r#"{"type":"error","sequence_number":11,"error":{"code":503,"message":"no luck"}}"#), &[503]),
        (data!(r#"{"type":"response.error","sequence_number":11,"error":{"code":503,"message":"no luck"}}"#), &[503]),
    ],
    failed_bodies: &[
        (r#"{"id":"resp_1","object":"response","status":"failed","output":[],"error":{"code":"server_error","message":"no luck"},"error_type":"server"}"#, &[500, 502]),
        (r#"{"error":{"code":503,"message":"no luck"}}"#, &[503]),
    ],
    empty: &[
        r#"{"id":"resp_1","object":"response","status":"completed","output":[],"error":null}"#,
        r#"{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","id":"m","role":"assistant","status":"completed","content":[]}]}"#,
        "",
        "\n \n",
    ],
    empty_streams: &[
        &[
            data!(r#"{"type":"response.completed","sequence_number":3,"response":{"id":"resp_1","object":"response","status":"completed","output":[]}}"#),
            DONE,
        ],
        &[DONE],
        &[],
    ],
    cut_short: r#"{"id":"resp_1","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}"#,
    cut_short_stream: &[data!(r#"{"type":"response.incomplete","sequence_number":3,"response":{"id":"resp_1","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}}"#)],
    limited: |limit, headers| {
        format!(
            r#"{{"error":{{"code":"rate_limit_exceeded","message":"Rate limit exceeded: {limit}. "}},"metadata":{{"headers":{{{headers}}}}}}}"#
        )
    },
    error_event_name: "error",
    assert_error: assert_openai_error,
    assert_broken_off: |event, last, whole, at_most, name| {
        assert!(event.is_none_or(|event| event == "response.failed"), "{name}: {event:?}");
        assert_eq!(last["type"], "response.failed", "{name}: {last}");
        let response = &last["response"];
        assert_eq!((&response["status"], &response["error"]["code"]), (&"failed".into(), &"server_error".into()), "{name}");
        assert!(response["error"]["message"].is_string(), "{name}: {last}");
        // Of the same response, the next event.
        if let Some((_, before)) = events_in(whole).last() {
            let before = serde_json::from_str::<Value>(before).unwrap();
            assert_eq!(response["id"], "resp_1", "{name}: {last}");
            let last_one = before["sequence_number"].as_u64().unwrap();
            let number = last["sequence_number"].as_u64().unwrap();
            assert!((last_one + 1..=last_one + at_most).contains(&number), "{name}: {last}");
        }
    },
    saved_text: |saved| text_of(&saved["output"][0]["content"][0]["text"]),
};

#[rustfmt::skip]
pub const MESSAGES: Dialect = Dialect {
    name: "messages",
    path: "/v1/messages",
    request: |model, text, streamed| {
        let stream = stream_field(streamed);
        format!(
            r#"{{"model":"{model}","max_tokens":99{stream},"messages":[{{"role":"user","content":"{text}"}}]}}"#
        )
    },
    plain: r#"{"id":"gen-1","type":"message","role":"assistant","model":"some/model:free","content":[{"type":"text","text":"said it"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#,
    opening: &[
        event!("message_start", r#"{"type":"message_start","message":{"id":"gen-1","type":"message","role":"assistant","model":"some/model:free","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":0}}}"#),
        event!("ping", r#"{"type":"ping"}"#),
    ],
    saying: &[
        event!("content_block_start", r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#),
        event!("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"said "}}"#),
        event!("ping", r#"{"type":"ping"}"#),
        event!("content_block_delta", r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"it"}}"#),
        event!("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        event!("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":null,"output_tokens":2}}"#),
    ],
    ending: &[event!("message_stop", r#"{"type":"message_stop"}"#)],
    error: |status, message| {
        let kind = anthropics_type(status);
        format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":null}}"#)
    },
    failures: &[
        (event!("error", r#"{"type":"error","error":{"type":"overloaded_error","message":"no luck"}}"#), &[503, 529]),
        (event!("error", r#"{"type":"error","error":{"type":"api_error","message":"no luck","error_type":"server"}}"#), &[500, 502]),
        (data!(r#"{"error":{"code":503,"message":"no luck"}}"#), &[503]),
    ],
    failed_bodies: &[
        (r#"{"type":"error","error":{"type":"overloaded_error","message":"no luck"}}"#, &[503, 529]),
        (r#"{"type":"error","error":{"type":"api_error","message":"no luck"},"request_id":"gen-1"}"#, &[500, 502]),
    ],
    empty: &[
        r#"{"id":"gen-1","type":"message","role":"assistant","content":[],"stop_reason":"end_turn"}"#,
        r#"{"id":"gen-1","type":"message","role":"assistant","content":[{"type":"text","text":""}],"stop_reason":"end_turn"}"#,
    ],
    empty_streams: &[
        &[
            event!("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":0}}"#),
            event!("message_stop", r#"{"type":"message_stop"}"#),
        ],
        &[event!("message_stop", r#"{"type":"message_stop"}"#), DONE],
        &[DONE],
        &[],
    ],
    cut_short: r#"{"id":"gen-1","type":"message","role":"assistant","content":[],"stop_reason":"max_tokens"}"#,
    cut_short_stream: &[
        event!("message_delta", r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":0}}"#),
        event!("message_stop", r#"{"type":"message_stop"}"#),
    ],
    limited: |limit, headers| {
        format!(
            r#"{{"type":"error","error":{{"type":"rate_limit_error","message":"Rate limit exceeded: {limit}. "}},"request_id":null,"metadata":{{"headers":{{{headers}}},"limit_source":"free_tier"}}}}"#
        )
    },
    error_event_name: "error",
    assert_error: assert_anthropic_error,
    assert_broken_off: |event, last, _, _, name| {
        assert_eq!(event, Some("error"), "{name}: {last}");
        assert_eq!((&last["type"], &last["error"]["type"]), (&"error".into(), &"api_error".into()), "{name}: {last}");
        assert!(last["error"]["message"].is_string(), "{name}: {last}");
    },
    saved_text: |saved| text_of(&saved["content"][0]["text"]),
};

fn assert_openai_error(body: &Value, _status: u16, code: Option<&str>) {
    let error = &body["error"];
    assert!(error["message"].is_string(), "{body}");
    if let Some(code) = code {
        assert_eq!(error["code"], code, "{body}");
        assert!(error["type"].is_string() && error.get("param").is_some_and(Value::is_null), "{body}");
    }
}

fn assert_anthropic_error(body: &Value, status: u16, code: Option<&str>) {
    assert_eq!(body["type"], "error", "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
    let kind = body["error"]["type"].as_str().unwrap_or_else(|| panic!("no type: {body}"));
    // Anthropic has no 502 and no 503 of its own.
    let expected: &[&str] = match status {
        // A path that isn't there must not read like a model that isn't.
        404 if code == Some("not_found") => &["invalid_request_error"],
        401 => &["authentication_error"],
        402 => &["billing_error"],
        403 => &["permission_error"],
        404 => &["not_found_error"],
        408 | 504 => &["timeout_error", "api_error"],
        413 => &["request_too_large"],
        429 => &["rate_limit_error"],
        503 | 529 => &["overloaded_error", "api_error"],
        500.. => &["api_error"],
        _ => &["invalid_request_error"],
    };
    assert!(expected.contains(&kind), "{status}: {body}");
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The type that Anthropic gives a status.
pub fn anthropics_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// A plain answer in the dialect of an upstream's path.
pub fn plain_answer(path: &str) -> &'static str {
    let end = path.split('?').next().unwrap();
    let dialect = DIALECTS.iter().find(|dialect| end.ends_with(&dialect.path["/v1".len()..]));
    dialect.map_or(VECTORS, |dialect| dialect.plain)
}

/// What `/embeddings` answers.
pub const VECTORS: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.25,-1.0]}],"model":"embed/one:free","usage":{"prompt_tokens":2,"total_tokens":2}}"#;

impl Dialect {
    pub fn request(&self, text: &str, streamed: bool) -> String {
        (self.request)(MODEL, text, streamed)
    }

    /// All of a good stream.
    pub fn stream(&self) -> String {
        [self.opening, self.saying, self.ending].concat().concat() + DONE
    }

    pub fn good(&self, streamed: bool) -> String {
        if streamed { self.stream() } else { self.plain.to_owned() }
    }

    /// A body as an event of a stream.
    fn as_event(&self, body: &str) -> String {
        let name = match self.error_event_name {
            "" => String::new(),
            name => format!("event: {name}\n"),
        };
        format!("{name}data: {body}\n\n")
    }
}

impl Answer<'_> {
    /// All of a good answer, streamed event by event.
    pub fn good(&mut self, dialect: &Dialect, request: &Received) {
        if request.streams() {
            self.events(&[dialect.opening, dialect.saying, dialect.ending, &[DONE]].concat());
            self.end();
        } else {
            self.json(200, dialect.plain);
        }
    }

    /// The beginning of a stream.
    pub fn events(&mut self, events: &[impl AsRef<str>]) {
        self.stream_head();
        events.iter().for_each(|event| self.piece(event.as_ref()));
    }
}

/// The dialects side by side.
fn in_every_dialect(test: impl Fn(&'static Dialect) + Sync) {
    std::thread::scope(|scope| {
        for dialect in DIALECTS {
            let test = &test;
            scope.spawn(move || test(dialect));
        }
    });
}

/// Fails unless a stream holds these events and then, behind whatever had begun, the error that says it broke off.
#[track_caller]
pub fn assert_broken_off(dialect: &Dialect, text: &str, whole: &str, name: &str) {
    assert!(text.starts_with(whole), "{name}: {text}");
    assert!(!text.contains("[DONE]"), "{name}: {text}");
    assert!(text.ends_with("\n\n"), "{name}: {text}");
    let (event, data) = *events_in(text).last().unwrap();
    let last = serde_json::from_str::<Value>(data).unwrap_or_else(|e| panic!("{name}: {e}: {text}"));
    let torn = text[whole.len()..].trim_end().contains("\n\n");
    (dialect.assert_broken_off)(event, &last, whole, if torn { 2 } else { 1 }, name);
}

/// A subject that a test gives a request, so that a script knows the case: `«this»`.
pub fn subject(request: &Received) -> &str {
    let after = request.body.split_once('«').expect("a subject").1;
    after.split_once('»').expect("a subject's end").0
}

/// The events of a stream: their names, where they have one, and their data. Comments are left out.
pub fn events_in(text: &str) -> Vec<(Option<&str>, &str)> {
    fn field<'a>(block: &'a str, name: &str) -> Option<&'a str> {
        let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    }
    let blocks = text.split("\n\n").map(|block| (field(block, "event"), field(block, "data")));
    blocks.filter_map(|(name, data)| Some((name, data?))).collect()
}
