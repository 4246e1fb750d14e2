//! What an answer says about itself: its model, tokens and end, whether it is an error or holds nothing at all, and the
//! `chat.completion` that a stream's chunks add up to.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Tokens as the upstream counted them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the request.
    #[serde(default)]
    pub prompt_tokens: Option<u64>,
    /// Of the answer.
    #[serde(default)]
    pub completion_tokens: Option<u64>,
}

/// The same fields stand in an answer and in each chunk of a stream; all else is skipped, not built.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
}

/// The fields of a message of which at least one holds something in any answer worth having.
const CONTENT_FIELDS: [&str; 9] = [
    "content",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "audio",
    "images",
    "tool_calls",
    "function_call",
];

/// What was learned of an answer so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// A `finish_reason` has come.
    pub finished: bool,
    /// `data: [DONE]` has come.
    pub done: bool,
    /// An error has come, as its own text.
    pub error: Option<String>,
    /// Some content has come.
    pub content: bool,
}

impl Facts {
    /// Adds what one event of a stream says. `None` is an event that is no text or too long to be looked at.
    pub fn add_event(&mut self, data: Option<&str>) {
        match data {
            Some(data) if data.trim() == "[DONE]" => self.done = true,
            Some(data) => self.add(data),
            None => self.content = true,
        }
    }

    /// Adds what an answer or a chunk says.
    pub fn add(&mut self, json: &str) {
        let Ok(part) = serde_json::from_str::<Part<'_>>(json) else {
            return;
        };
        if let Some(model) = part.model.filter(|model| self.model.as_deref() != Some(model)) {
            self.model = Some(model.into_owned());
        }
        if let Some(usage) = part.usage {
            self.usage = usage;
        }
        if self.error.is_none() {
            self.error = part.error.map(|error| error.get().to_owned());
        }
        for choice in part.choices.unwrap_or_default() {
            self.finished |= choice.finish_reason.is_some();
            self.content |= self.content || choice.message.or(choice.delta).is_some_and(holds_something);
        }
    }
}

fn is_empty(value: &str) -> bool {
    matches!(value, "null" | "\"\"" | "[]" | "{}")
}

fn holds_something(message: &RawValue) -> bool {
    let fields = crate::json::fields(message.get()).unwrap_or_default();
    fields.iter().any(|f| CONTENT_FIELDS.contains(&f.name.as_ref()) && !is_empty(f.value))
}

/// Whether a plain answer is a completion in which the model said nothing, and not because it wasn't allowed to.
pub fn is_empty_answer(body: &str) -> bool {
    let Ok(part) = serde_json::from_str::<Part<'_>>(body) else {
        return false;
    };
    let choices = part.choices.unwrap_or_default();
    let says_nothing = |choice: &Choice<'_>| {
        let cut =
            choice.finish_reason.is_some_and(|r| matches!(r.get(), "\"length\"" | "\"content_filter\""));
        !cut && choice.message.is_some_and(|message| !holds_something(message))
    };
    !choices.is_empty() && choices.iter().all(says_nothing)
}

/// The status that an error object names, if it is one: `{"code": 429, …}`.
pub fn error_status(error: &str) -> Option<u16> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        code: Value,
    }
    let code = serde_json::from_str::<Named>(error).ok()?.code;
    let code = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
    u16::try_from(code).ok().filter(|code| (400..600).contains(code))
}

/// Puts a stream's chunks together.
#[derive(Debug, Default)]
pub struct Assembly {
    answer: Map<String, Value>,
    choices: Vec<Map<String, Value>>,
}

impl Assembly {
    /// Adds a chunk; what isn't one is left out.
    pub fn add(&mut self, chunk: &str) {
        let Ok(Value::Object(chunk)) = serde_json::from_str(chunk) else {
            return;
        };
        for (name, value) in chunk {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("object", _) => {
                    self.answer.insert(name, json!("chat.completion"));
                }
                ("choices", Value::Array(choices)) => {
                    choices.into_iter().for_each(|choice| self.add_choice(choice))
                }
                (_, value) => {
                    self.answer.insert(name, value);
                }
            }
        }
    }

    fn add_choice(&mut self, choice: Value) {
        let Value::Object(choice) = choice else {
            return;
        };
        let index = choice.get("index").cloned().unwrap_or(json!(0));
        let known = self.choices.iter().position(|known| known.get("index") == Some(&index));
        let at = known.unwrap_or_else(|| {
            let new = Map::from_iter([("index".to_owned(), index), ("message".to_owned(), json!({}))]);
            self.choices.push(new);
            self.choices.len() - 1
        });
        let target = &mut self.choices[at];
        for (name, value) in choice {
            match (name.as_str(), value) {
                ("index", _) => {}
                ("delta", Value::Object(delta)) => {
                    if let Some(Value::Object(message)) = target.get_mut("message") {
                        delta.into_iter().for_each(|(name, value)| merge(message, name, value));
                    }
                }
                (_, value) => merge(target, name, value),
            }
        }
    }

    /// The `chat.completion`; `None` when no chunk has come.
    pub fn finish(mut self) -> Option<Value> {
        if self.answer.is_empty() && self.choices.is_empty() {
            return None;
        }
        for choice in &mut self.choices {
            if let Some(Value::Array(calls)) = choice.get_mut("message").and_then(|m| m.get_mut("tool_calls"))
            {
                for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                    call.shift_remove("index");
                }
            }
        }
        self.answer.entry("object").or_insert(json!("chat.completion"));
        self.answer.insert("choices".into(), self.choices.into_iter().map(Value::Object).collect());
        Some(Value::Object(self.answer))
    }
}

/// Adds what a delta brings: text grows, lists grow, elements with an `index` grow by themselves, the rest is replaced.
fn merge(target: &mut Map<String, Value>, name: String, value: Value) {
    const WHOLE: [&str; 7] =
        ["role", "id", "type", "name", "finish_reason", "native_finish_reason", "format"];
    match (target.get_mut(&name), value) {
        (Some(_), Value::Null) => {}
        (Some(Value::String(text)), Value::String(more)) if !WHOLE.contains(&name.as_str()) => {
            text.push_str(&more)
        }
        (Some(Value::Array(list)), Value::Array(more)) => {
            more.into_iter().for_each(|element| add_element(list, element))
        }
        (Some(Value::Object(object)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(object, name, value));
        }
        (Some(Value::String(_)), Value::String(more)) if more.is_empty() => {}
        (Some(old), value) => *old = value,
        (None, Value::Array(more)) => {
            let mut list = Vec::new();
            more.into_iter().for_each(|element| add_element(&mut list, element));
            target.insert(name, Value::Array(list));
        }
        (None, value) => {
            target.insert(name, value);
        }
    }
}

fn add_element(list: &mut Vec<Value>, element: Value) {
    let index = element.get("index").cloned();
    let known = list.iter_mut().find(|known| index.is_some() && known.get("index") == index.as_ref());
    match (known, element) {
        (Some(Value::Object(known)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(known, name, value));
        }
        (_, element) => list.push(element),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_stream() {
        let mut facts = Facts::default();
        facts.add_event(Some(
            r#"{"model":"a:free","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#,
        ));
        assert!(!facts.content && !facts.finished);
        facts.add_event(Some(
            r#"{"model":"a:free","choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#,
        ));
        facts.add_event(Some(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0}}"#));
        facts.add_event(Some("[DONE]"));
        let expected = Facts {
            model: Some("a:free".into()),
            usage: Usage { prompt_tokens: Some(3), completion_tokens: Some(4) },
            finished: true,
            done: true,
            error: None,
            content: true,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn answers_with_nothing_in_them() {
        let answer = |choice: &str| format!(r#"{{"choices":[{{"finish_reason":"stop",{choice}}}]}}"#);
        for nothing in [
            r#""message":{"role":"assistant","content":""}"#,
            r#""message":{"content":null,"tool_calls":[],"reasoning":""}"#,
        ] {
            assert!(is_empty_answer(&answer(nothing)), "{nothing}");
        }
        for something in [
            r#""message":{"content":" "}"#,
            r#""message":{"content":null,"reasoning":"hm"}"#,
            r#""message":{"content":"","tool_calls":[{}]}"#,
            r#""message":{"content":null,"refusal":"no"}"#,
            r#""message":{"content":"","audio":{"id":"x"}}"#,
        ] {
            assert!(!is_empty_answer(&answer(something)), "{something}");
        }
        assert!(!is_empty_answer(r#"{"choices":[{"finish_reason":"length","message":{"content":""}}]}"#));
        assert!(!is_empty_answer(r#"{"ok":true}"#), "not a completion");
    }

    #[test]
    fn errors_name_their_status() {
        assert_eq!(error_status(r#"{"code":429,"message":"x"}"#), Some(429));
        assert_eq!(error_status(r#"{"code":"503"}"#), Some(503));
        assert_eq!(error_status(r#"{"code":"rate_limited"}"#), None);
        assert_eq!(error_status(r#""just text""#), None);
        assert_eq!(error_status(r#"{"code":200}"#), None);
    }

    #[test]
    fn chunks_add_up() {
        let mut assembly = Assembly::default();
        for chunk in [
            r#"{"id":"g","object":"chat.completion.chunk","model":"a:free","choices":[{"index":0,"delta":{"role":"assistant","content":"He","reasoning":"a"},"finish_reason":null}]}"#,
            r#"{"id":"g","model":"a:free","choices":[{"index":0,"delta":{"role":"assistant","content":"llo","reasoning":"b","tool_calls":[{"index":0,"id":"t","type":"function","function":{"name":"f","arguments":"{\"x\""}},{"index":1,"id":"u","function":{"name":"g","arguments":""}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
            "garbage",
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        ] {
            assembly.add(chunk);
        }
        let expected = json!({
            "id": "g", "object": "chat.completion", "model": "a:free",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                "role": "assistant", "content": "Hello", "reasoning": "ab",
                "tool_calls": [
                    {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                    {"id": "u", "function": {"name": "g", "arguments": "{}"}}
                ]}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2}
        });
        assert_eq!(assembly.finish(), Some(expected));
        assert_eq!(Assembly::default().finish(), None);
    }
}
