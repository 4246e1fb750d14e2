//! Answers of the built-in model in the Responses API.

use serde_json::{Value, json};

use super::{Choice, Format, Question, Said, named_event, text_of, words};

/// Reads the question from the body of a request.
pub fn question(request: &Value) -> Question {
    let input = &request["input"];
    let items = input.as_array().map(Vec::as_slice).unwrap_or_default();
    // Items that a client adds about itself (tools, settings) have neither content nor output.
    let said = |item: &&Value| {
        item["content"].is_string() || item["content"].is_array() || item["output"] != Value::Null
    };
    let last = items.iter().rev().find(said).unwrap_or(&Value::Null);
    let tool_has_answered = last["type"].as_str().is_some_and(|kind| kind.ends_with("_output"));
    let tools = crate::json::items(&request["tools"]);
    let tools = tools.filter(|tool| tool["type"] == "function");
    let format = &request["text"]["format"];
    let choice = &request["tool_choice"];
    Question {
        text: match (input.as_str(), tool_has_answered) {
            (Some(text), _) => text.to_owned(),
            (None, true) => text_of(&last["output"]),
            (None, false) => text_of(&last["content"]),
        },
        words: words(input),
        tools: tools
            .filter_map(|tool| Some((tool["name"].as_str()?.to_owned(), tool["parameters"].clone())))
            .collect(),
        choice: match (choice.as_str(), choice["name"].as_str()) {
            (_, Some(name)) => Choice::Named(name.to_owned()),
            (Some("none"), _) => Choice::None,
            (Some("required"), _) => Choice::Any,
            _ => Choice::Free,
        },
        tool_has_answered,
        format: match format["type"].as_str() {
            Some("json_schema") => Format::Schema(format["schema"].clone()),
            Some("json_object") => Format::Object,
            _ => Format::Text,
        },
        ..Question::default()
    }
}

/// Returns the answer: one piece for a plain one, one event each for a stream.
pub fn tell(said: &Said, streams: bool) -> Vec<String> {
    let (input, output) = said.tokens;
    let usage = json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output,
    });
    let item_id = format!("msg_offline_{}", said.created);
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let message = |status: &str, content: Value| json!({"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content});
    let call_id = format!("call_offline_{}", said.created);
    let call = |status: &str, name: &str, arguments: &str| {
        json!({
            "id": format!("fc_offline_{}", said.created), "type": "function_call", "call_id": call_id,
            "name": name, "arguments": arguments, "status": status,
        })
    };
    let mut items = vec![message("completed", json!([part(&said.text)]))];
    if let Some((name, arguments)) = &said.call {
        items.push(call("completed", name, &arguments.to_string()));
    }
    let response = |status: &str, output: &[Value], usage: &Value| {
        json!({
            "id": format!("gen-offline-{}", said.created), "object": "response", "created_at": said.created,
            "model": said.model, "status": status, "output": output, "usage": usage, "error": null,
            "incomplete_details": null, "instructions": null, "metadata": {}, "parallel_tool_calls": true,
            "temperature": null, "tool_choice": "auto", "tools": [], "top_p": null,
        })
    };
    if !streams {
        return vec![response("completed", &items, &usage).to_string()];
    }
    let mut events = vec![
        json!({"type": "response.created", "response": response("in_progress", &[], &Value::Null)}),
        json!({"type": "response.in_progress", "response": response("in_progress", &[], &Value::Null)}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": message("in_progress", json!([]))}),
    ];
    let at = |kind: &str, name: &str, value: Value| json!({"type": kind, "item_id": item_id, "output_index": 0, "content_index": 0, name: value});
    events.push(at("response.content_part.added", "part", part("")));
    let words = said.text.split_inclusive(' ');
    events.extend(words.map(|word| at("response.output_text.delta", "delta", json!(word))));
    events.push(at("response.output_text.done", "text", json!(said.text)));
    events.push(at("response.content_part.done", "part", part(&said.text)));
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": items[0]}));
    if let Some((name, arguments)) = &said.call {
        let arguments = arguments.to_string();
        let item_id = &items[1]["id"];
        events.extend([
            json!({"type": "response.output_item.added", "output_index": 1, "item": call("in_progress", name, "")}),
            json!({"type": "response.function_call_arguments.delta", "item_id": item_id, "output_index": 1, "delta": arguments}),
            json!({"type": "response.function_call_arguments.done", "item_id": item_id, "output_index": 1, "name": name, "arguments": arguments}),
            json!({"type": "response.output_item.done", "output_index": 1, "item": items[1]}),
        ]);
    }
    events.push(json!({"type": "response.completed", "response": response("completed", &items, &usage)}));
    let numbered = events.into_iter().enumerate().map(|(number, mut event)| {
        event["sequence_number"] = json!(number);
        named_event(&event)
    });
    numbered.collect()
}
