//! The built-in model of `--offline`: no network, no key, no intelligence, but every form of answer that a client can
//! ask for, so that a tool can be tried before there is a key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::life::Cutter;
use crate::dialect::request::Request;
use crate::dialect::{Choice, Dialect, Format, Question, Said};
use crate::upstream::{Failure, Trouble};

/// Between two chunks of a stream.
const PAUSE: Duration = Duration::from_millis(15);
/// What the answer repeats of the question.
const QUOTED_CHARS: usize = 200;
/// Schemas can refer to themselves.
const MAX_DEPTH: usize = 8;

/// The name that it answers under.
pub const NAME: &str = "local-api-proxy/built-in:free";
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

/// Answers a request in the API that it was asked in, unless `cutter` cuts it off.
pub fn answer(dialect: &dyn Dialect, request: &Request, cutter: Arc<Cutter>) -> Answer {
    let asked = serde_json::from_str::<Value>(request.as_written()).unwrap_or_default();
    let said = reply_to(&dialect.question(&asked));
    let mut pieces = dialect.tell(&said, request.stream);
    pieces.reverse();
    Answer { streams: request.stream && pieces.len() > 1, pieces, begun: false, rest: Vec::new(), cutter }
}

fn reply_to(question: &Question) -> Said {
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let call = tool_to_call(question)
        .map(|(name, schema)| (name.clone(), example(schema, schema, 0)))
        .map(|(name, arguments)| (name, if arguments.is_object() { arguments } else { json!({}) }));
    let text = match (&question.format, &call) {
        (_, Some((name, _))) => format!("{INTRODUCTION} It calls {name}, as it was asked to."),
        (Format::Schema(schema), None) => example(schema, schema, 0).to_string(),
        (Format::Object, None) => json!({"answer": INTRODUCTION}).to_string(),
        (Format::Text, None) => {
            let said = question.text.chars().take(QUOTED_CHARS).collect::<String>();
            format!("{INTRODUCTION} You said: {said}")
        }
    };
    let tokens = (question.words, text.split_whitespace().count().max(1));
    let vectors = question.inputs.iter().map(|input| vector(input)).collect();
    Said { model: NAME, created, text, call, tokens, vectors, base64: question.base64 }
}

/// The tool that is called: the one that must be, or one that was asked for by its name, but none in answer to a tool.
fn tool_to_call(question: &Question) -> Option<&(String, Value)> {
    if question.tool_has_answered {
        return None;
    }
    let is_word = |at: usize, name: &str| {
        let beside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        beside(question.text[..at].chars().next_back())
            && beside(question.text[at + name.len()..].chars().next())
    };
    let is_named = |(name, _): &&(String, Value)| {
        question.text.match_indices(name.as_str()).any(|(at, _)| is_word(at, name))
    };
    match &question.choice {
        Choice::None => None,
        Choice::Named(name) => question.tools.iter().find(|(known, _)| known == name),
        Choice::Any => question.tools.iter().find(is_named).or_else(|| question.tools.first()),
        Choice::Free => question.tools.iter().find(is_named),
    }
}

/// Numbers that are the same for the same text, and nothing more.
fn vector(input: &str) -> Vec<f32> {
    const DIMENSIONS: u64 = 8;
    let number = |dimension: u64| {
        let mut hasher = DefaultHasher::new();
        (dimension, input).hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..DIMENSIONS).map(number).collect()
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
        let said = reply_to(&Question { text: "hello".into(), ..Question::default() });
        assert!(said.text.contains("built-in test model") && said.text.ends_with("hello"), "{}", said.text);
    }

    #[test]
    fn tools_are_called_by_name_or_by_choice() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
        let ask = |text: &str, choice: Choice, tool_has_answered: bool| {
            let tools = vec![("get".to_owned(), json!({})), ("get_weather".to_owned(), schema.clone())];
            let question =
                Question { text: text.into(), tools, choice, tool_has_answered, ..Question::default() };
            reply_to(&question).call
        };
        let (name, arguments) = ask("call get_weather now", Choice::Free, false).unwrap();
        assert_eq!((name.as_str(), &arguments["days"]), ("get_weather", &json!(1)));
        assert_eq!(ask("forget it", Choice::Free, false), None);
        assert_eq!(ask("x", Choice::Any, false).unwrap().0, "get");
        assert_eq!(ask("x", Choice::Named("get_weather".into()), false).unwrap().0, "get_weather");
        assert_eq!(ask("get_weather", Choice::None, false), None);
        assert_eq!(ask("get_weather", Choice::Free, true), None, "it has answered");
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
