//! Answers of the built-in model in the Messages API.

use crate::json::items;
use serde_json::{Value, json};

use super::{Choice, Format, Question, Said, named_event, text_of, words};

/// Reads the question from the body of a request.
pub fn question(request: &Value) -> Question {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Clients add their own reminders after the user's message, as messages with the role `system`.
    let last = messages.iter().rev().find(|message| message["role"] != "system").unwrap_or(&Value::Null);
    let blocks = last["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let result = blocks.iter().find(|block| block["type"] == "tool_result");
    let tools = items(&request["tools"]);
    let choice = &request["tool_choice"];
    let format = match &request["output_config"]["format"] {
        Value::Null => &request["output_format"],
        format => format,
    };
    Question {
        text: match result {
            Some(result) => text_of(&result["content"]),
            None => text_of(&last["content"]),
        },
        words: words(&request["messages"]) + words(&request["system"]),
        tools: tools
            .filter_map(|tool| Some((tool["name"].as_str()?.to_owned(), tool["input_schema"].clone())))
            .collect(),
        choice: match choice["type"].as_str() {
            Some("tool") => Choice::Named(choice["name"].as_str().unwrap_or_default().to_owned()),
            Some("none") => Choice::None,
            Some("any") => Choice::Any,
            _ => Choice::Free,
        },
        tool_has_answered: result.is_some(),
        format: match format["type"].as_str() {
            Some("json_schema") => Format::Schema(format["schema"].clone()),
            _ => Format::Text,
        },
        ..Question::default()
    }
}

/// Returns the answer: one piece for a plain one, one event each for a stream.
pub fn tell(said: &Said, streams: bool) -> Vec<String> {
    let (input, output) = said.tokens;
    let stop = if said.call.is_some() { "tool_use" } else { "end_turn" };
    let message = |content: Value, stop: Value, output: usize| {
        json!({
            "id": format!("msg_offline_{}", said.created), "type": "message", "role": "assistant",
            "model": said.model, "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": input, "output_tokens": output},
        })
    };
    let call = |arguments: &Value, name: &str| json!({"type": "tool_use", "id": format!("toolu_offline_{}", said.created), "name": name, "input": arguments});
    if !streams {
        let mut content = vec![json!({"type": "text", "text": said.text})];
        content.extend(said.call.as_ref().map(|(name, arguments)| call(arguments, name)));
        return vec![message(json!(content), json!(stop), output).to_string()];
    }
    let delta =
        |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let mut events = vec![
        json!({"type": "message_start", "message": message(json!([]), Value::Null, 0)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    let words = said.text.split_inclusive(' ');
    events.extend(words.map(|word| delta(0, json!({"type": "text_delta", "text": word}))));
    events.push(json!({"type": "content_block_stop", "index": 0}));
    if let Some((name, arguments)) = &said.call {
        events.extend([
            json!({"type": "content_block_start", "index": 1, "content_block": call(&json!({}), name)}),
            delta(1, json!({"type": "input_json_delta", "partial_json": arguments.to_string()})),
            json!({"type": "content_block_stop", "index": 1}),
        ]);
    }
    events.push(json!({
        "type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
        "usage": {"output_tokens": output},
    }));
    events.push(json!({"type": "message_stop"}));
    events.iter().map(named_event).collect()
}
