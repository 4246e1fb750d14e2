//! Checks what both translations to chat completions guarantee, whatever the request and the answer are.

use local_api_proxy::dialect::{Translated, ClientRequest};
use local_api_proxy::error::ApiError;
use serde_json::Value;

const FIELDS: [&str; 15] = [
    "model",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stop",
    "response_format",
    "seed",
];

/// The input's first line is a request, each other line the data of an event. The translated events are given to
/// `well_formed`: once of a whole answer, and once of one that was broken off.
pub fn check(input: &str, translated: &dyn Translated, well_formed: fn(&[Value])) {
    let (request, answer) = input.split_once('\n').unwrap_or((input, ""));
    let understood = serde_json::from_str::<Value>(request).is_ok_and(|request| request.is_object());
    let written = ClientRequest { body: request.to_owned(), ..ClientRequest::default() };
    match translated.translate(&written) {
        Ok(sent) => strict(&serde_json::from_str(&sent).expect("JSON")),
        Err(_) => assert!(!understood, "a JSON object was refused"),
    }
    for is_whole in [false, true] {
        let mut translator = translated.translator(&written);
        let mut told = String::new();
        for data in answer.lines() {
            told += &translator.event(data);
        }
        told += &if is_whole { translator.end() } else { translator.broken_off(&ApiError::stopping()) };
        let events = told.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once("\ndata: ").expect("a name and data");
            let data = serde_json::from_str::<Value>(data).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        });
        well_formed(&events.collect::<Vec<_>>());
    }
    for data in answer.lines() {
        let told = translated.translator(&written).answer(data);
        // An error of the chat server is passed on as it came.
        assert!(serde_json::from_str::<Value>(&told).is_ok_and(|told| told.is_object()), "{told}");
    }
}

/// Checks that a server that takes nothing unknown, and nothing out of order, could take this request.
fn strict(sent: &Value) {
    let object = |value: &Value, allowed: &[&str]| {
        let fields = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
        assert!(fields.keys().all(|name| allowed.contains(&name.as_str())), "{value}");
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    object(sent, &FIELDS);
    let name_of = |function: &Value| {
        let name = function["name"].as_str().expect("a name").to_owned();
        assert!(name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)), "{name}");
        name
    };
    let mut open = Vec::<Value>::new();
    for (number, message) in list(&sent["messages"]).iter().enumerate() {
        let role = message["role"].as_str().expect("a role");
        assert!(role == "tool" || open.is_empty(), "calls without results");
        match role {
            "system" => {
                assert!(number == 0 && message["content"].is_string());
                object(message, &["role", "content"]);
            }
            "user" => {
                object(message, &["role", "content"]);
                assert!(message["content"].is_string() || !list(&message["content"]).is_empty());
            }
            "assistant" => {
                object(message, &["role", "content", "tool_calls"]);
                for call in list(&message["tool_calls"]) {
                    object(&call, &["id", "type", "function"]);
                    object(&call["function"], &["name", "arguments"]);
                    let arguments = call["function"]["arguments"].as_str().expect("text");
                    assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|arguments| arguments.is_object()));
                    name_of(&call["function"]);
                    open.push(call["id"].clone());
                }
            }
            "tool" => {
                object(message, &["role", "content", "tool_call_id"]);
                assert!(message["content"].is_string());
                let call = open.iter().position(|id| *id == message["tool_call_id"]).expect("a result of a call");
                open.remove(call);
            }
            _ => panic!("{role}"),
        }
    }
    assert!(open.is_empty(), "calls without results");
    let mut names = Vec::new();
    for tool in list(&sent["tools"]) {
        object(&tool, &["type", "function"]);
        object(&tool["function"], &["name", "description", "parameters"]);
        assert!(tool["type"] == "function" && tool["function"]["parameters"].is_object());
        let name = name_of(&tool["function"]);
        assert!(!names.contains(&name), "twice: {name}");
        names.push(name);
    }
    match &sent["tool_choice"] {
        Value::Null => {}
        Value::String(choice) => assert!(!names.is_empty() && matches!(choice.as_str(), "none" | "required")),
        choice => assert!(names.contains(&name_of(&choice["function"])), "{choice}"),
    }
}
