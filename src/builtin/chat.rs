//! Chat completions of the built-in model.

use crate::json::items;
use serde_json::{Value, json};

use super::{Choice, Format, Question, Said, data_event, text_of, words};

/// Reads the question from the body of a request.
pub fn question(request: &Value) -> Question {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.last().unwrap_or(&Value::Null);
    let functions = items(&request["tools"]).map(|tool| &tool["function"]);
    let format = &request["response_format"];
    let choice = &request["tool_choice"];
    Question {
        text: text_of(&last["content"]),
        words: words(&request["messages"]),
        tools: functions
            .filter_map(|f| Some((f["name"].as_str()?.to_owned(), f["parameters"].clone())))
            .collect(),
        choice: match (choice.as_str(), choice["function"]["name"].as_str()) {
            (_, Some(name)) => Choice::Named(name.to_owned()),
            (Some("none"), _) => Choice::None,
            (Some("required"), _) => Choice::Any,
            _ => Choice::Free,
        },
        tool_has_answered: matches!(last["role"].as_str(), Some("tool" | "function")),
        format: match format["type"].as_str() {
            Some("json_schema") => Format::Schema(format["json_schema"]["schema"].clone()),
            Some("json_object") => Format::Object,
            _ => Format::Text,
        },
        ..Question::default()
    }
}

/// Returns the answer: one piece for a plain one, one event each for a stream.
pub fn tell(said: &Said, streams: bool) -> Vec<String> {
    let id = format!("gen-offline-{}", said.created);
    let finish = if said.call.is_some() { "tool_calls" } else { "stop" };
    let (prompt, completion) = said.tokens;
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
    let call = said.call.as_ref().map(|(name, arguments)| {
        let function = json!({"name": name, "arguments": arguments.to_string()});
        json!({"id": format!("call_offline_{}", said.created), "type": "function", "function": function})
    });
    if !streams {
        let mut message = json!({"role": "assistant", "content": said.text});
        if let Some(call) = call {
            message["tool_calls"] = json!([call]);
        }
        let choice = json!({"index": 0, "message": message, "finish_reason": finish, "logprobs": null});
        let whole = json!({
            "id": id, "object": "chat.completion", "created": said.created, "model": said.model,
            "choices": [choice], "usage": usage,
        });
        return vec![whole.to_string()];
    }
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null});
        json!({
            "id": id, "object": "chat.completion.chunk", "created": said.created, "model": said.model,
            "choices": [choice],
        })
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    let words = said.text.split_inclusive(' ');
    chunks.extend(words.map(|word| chunk(json!({"content": word}), Value::Null)));
    if let Some(mut call) = call {
        let arguments = call["function"]["arguments"].take();
        call["index"] = json!(0);
        call["function"]["arguments"] = json!("");
        chunks.push(chunk(json!({"tool_calls": [call]}), Value::Null));
        let rest = json!({"index": 0, "function": {"arguments": arguments}});
        chunks.push(chunk(json!({"tool_calls": [rest]}), Value::Null));
    }
    chunks.push(chunk(json!({}), json!(finish)));
    let mut last = chunk(json!({}), Value::Null);
    last["choices"] = json!([]);
    last["usage"] = usage;
    chunks.push(last);
    let events = chunks.iter().map(data_event);
    events.chain([String::from("data: [DONE]\n\n")]).collect()
}
