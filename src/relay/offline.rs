//! The built-in model of `--offline`: no network, no key, no intelligence, but every form of answer that a client can
//! ask for, so that a tool can be tried before there is a key.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::life::Cutter;
use crate::dialect::free_models::ChatRequest;
use crate::upstream::{Failure, Trouble};

/// Between two chunks of a stream.
const PAUSE: Duration = Duration::from_millis(15);
/// What the answer repeats of the question.
const QUOTED_CHARS: usize = 200;
/// Schemas can refer to themselves.
const MAX_DEPTH: usize = 8;

/// The name that it answers under.
const NAME: &str = "local-api-proxy/built-in:free";
const INTRODUCTION: &str = "This is the built-in test model of local-api-proxy: it needs no network and no key, and it is no real AI.";

/// An answer of the built-in model, told at the pace of a fast model.
pub struct Answer {
    streams: bool,
    /// What is still to be told, the next piece at the end.
    pieces: Vec<String>,
    begun: bool,
    /// What of the last piece didn't fit.
    rest: Vec<u8>,
    cutter: Arc<Cutter>,
}

impl Answer {
    /// As an upstream would name it.
    pub fn content_type(&self) -> &'static str {
        if self.streams { "text/event-stream" } else { "application/json" }
    }

    /// Reads on; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if self.rest.is_empty() {
            let Some(piece) = self.pieces.pop() else {
                return Ok(0);
            };
            if std::mem::replace(&mut self.begun, true) {
                thread::sleep(PAUSE);
            }
            if self.cutter.reason().is_some() {
                return Err(Failure::Broken(Trouble::BrokeOff, "it was cut off".into()));
            }
            self.rest = piece.into_bytes();
        }
        let read = self.rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&self.rest[..read]);
        self.rest.drain(..read);
        Ok(read)
    }
}

/// Answers a request, unless `cutter` cuts it off.
pub fn answer(request: &ChatRequest, cutter: Arc<Cutter>) -> Answer {
    let streams = request.stream;
    let request = serde_json::from_str::<Value>(request.as_written()).unwrap_or_default();
    let message = message(&request);
    let calls_tools = message.get("tool_calls").is_some();
    let finish = if calls_tools { "tool_calls" } else { "stop" };
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let words = |value: &Value| value.to_string().split_whitespace().count().max(1);
    let (prompt, completion) = (words(&request["messages"]), words(&message));
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
    let id = format!("gen-offline-{created}");
    if !streams {
        let whole = json!({
            "id": id, "object": "chat.completion", "created": created, "model": NAME,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": null}],
            "usage": usage,
        });
        return Answer { streams, pieces: vec![whole.to_string()], begun: false, rest: Vec::new(), cutter };
    }
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null});
        json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": NAME, "choices": [choice]})
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    let text = message["content"].as_str().unwrap_or_default();
    chunks.extend(text.split_inclusive(' ').map(|word| chunk(json!({"content": word}), Value::Null)));
    for (index, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let mut begun = call.clone();
        begun["index"] = json!(index);
        begun["function"]["arguments"] = json!("");
        chunks.push(chunk(json!({"tool_calls": [begun]}), Value::Null));
        let rest = json!({"index": index, "function": {"arguments": arguments}});
        chunks.push(chunk(json!({"tool_calls": [rest]}), Value::Null));
    }
    chunks.push(chunk(json!({}), json!(finish)));
    let mut last = chunk(json!({}), Value::Null);
    last["choices"] = json!([]);
    last["usage"] = usage;
    chunks.push(last);
    let done = std::iter::once("data: [DONE]\n\n".to_owned());
    let events = done.chain(chunks.into_iter().rev().map(|chunk| format!("data: {chunk}\n\n")));
    Answer { streams, pieces: events.collect(), begun: false, rest: Vec::new(), cutter }
}

fn message(request: &Value) -> Value {
    let last = request["messages"].as_array().and_then(|messages| messages.last()).unwrap_or(&Value::Null);
    let mut message = json!({"role": "assistant", "content": INTRODUCTION});
    if let Some(tool) = tool_to_call(request, last) {
        let arguments = example(&tool["parameters"], &tool["parameters"], 0);
        message["content"] = json!(format!("{INTRODUCTION} It calls the tool that it was offered."));
        message["tool_calls"] = json!([{
            "id": "call_offline_1", "type": "function",
            "function": {"name": tool["name"], "arguments": arguments.to_string()},
        }]);
        return message;
    }
    let format = &request["response_format"];
    match format["type"].as_str() {
        Some("json_schema") => {
            let schema = &format["json_schema"]["schema"];
            message["content"] = json!(example(schema, schema, 0).to_string());
        }
        Some("json_object") => message["content"] = json!(json!({"answer": INTRODUCTION}).to_string()),
        _ => {
            let said = text_of(&last["content"]);
            let said = said.chars().take(QUOTED_CHARS).collect::<String>();
            message["content"] = json!(format!("{INTRODUCTION} You said: {said}"));
        }
    }
    message
}

/// The function that is called: the one that the client chose, or the first, but none twice in a row.
fn tool_to_call<'a>(request: &'a Value, last: &Value) -> Option<&'a Value> {
    let choice = &request["tool_choice"];
    if last["role"] == "tool" || choice == "none" {
        return None;
    }
    let functions =
        request["tools"].as_array()?.iter().map(|tool| &tool["function"]).filter(|f| f["name"].is_string());
    let chosen = choice["function"]["name"].as_str();
    let mut wanted = functions.filter(|function| chosen.is_none_or(|name| function["name"] == name));
    wanted.next()
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| match part["text"].as_str() {
                Some(text) => text.to_owned(),
                None => format!("[{}]", part["type"].as_str().unwrap_or("?")),
            });
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// A value that fits a JSON schema, as far as examples go.
fn example(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    let within = |schema: &Value| example(schema, root, depth + 1);
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')))
    {
        return within(target);
    }
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    for alternatives in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[alternatives].as_array().and_then(|schemas| schemas.first()) {
            return within(first);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => match schema["format"].as_str() {
            Some("date") => json!("2024-02-14"),
            Some("date-time") => json!("2024-02-14T10:30:45Z"),
            _ => json!(INTRODUCTION),
        },
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        Some("array") => json!([within(&schema["items"])]),
        Some("null") => Value::Null,
        _ => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Value::Object(
                properties.map(|(name, schema)| (name.clone(), within(schema))).collect::<Map<_, _>>(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_is() {
        let answer = message(&json!({"messages": [{"role": "user", "content": "hello"}]}));
        let text = answer["content"].as_str().unwrap();
        assert!(text.contains("built-in test model") && text.ends_with("hello"), "{text}");
    }

    #[test]
    fn offered_tools_are_called_once() {
        let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]);
        let asked = json!({"tools": tools, "messages": [{"role": "user", "content": "x"}]});
        let call = &message(&asked)["tool_calls"][0];
        let arguments =
            serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(call["function"]["name"], "weather");
        assert_eq!(arguments["days"], 1);
        let answered = json!({"tools": tools, "messages": [{"role": "tool", "content": "sunny"}]});
        assert!(message(&answered)["content"].as_str().unwrap().ends_with("sunny"));
        let forbidden = json!({"tools": tools, "tool_choice": "none", "messages": []});
        assert!(message(&forbidden).get("tool_calls").is_none());
    }

    #[test]
    fn structured_output_fits_its_schema() {
        let schema = json!({"type": "object", "$defs": {"S": {"type": "array", "items": {"$ref": "#/$defs/S"}}},
            "properties": {"n": {"type": ["number", "null"]}, "e": {"enum": ["a", "b"]}, "s": {"$ref": "#/$defs/S"}}});
        let value = example(&schema, &schema, 0);
        assert_eq!(value["n"], 1);
        assert_eq!(value["e"], "a");
        assert!(value["s"].is_array());
    }
}
