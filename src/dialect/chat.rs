//! OpenAI's chat completions: <https://openrouter.ai/docs/api/reference/overview>

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::chat_conversation::MAX_STOPS;
use super::chat_parts::is_only_thought;
use super::edits::Edits;
use super::errors::CHOICE_ERROR;
use super::files;
use super::free_models::{Kept, ToolRule};
use super::merge::{MemoryBudget, OPEN_ELEMENTS, merge};
use super::request::elsewhere;
use super::{
    Action, AnswerSummary, Api, CHAT_MODELS, Dialect, Listed, Needs, Reader, Route, Show, Usage, data_event,
    given,
};
use super::{Flaw, are_arguments, flaw_of, is_nothing, may_mention};
use crate::error::ApiError;
use crate::json::{self, Field, SurrogateJoiner};

/// The declaration of the API, and of OpenAI's lists of models.
pub static API: Api = Api {
    name: "chat",
    routes: &[
        Route::post("/chat/completions", Action::Ask(&Chat))
            .about("chat completions, plain and streamed")
            .sample(r#"{"messages":[{"role":"user","content":"Hello"}]}"#),
        Route::get("/models", Action::List(CHAT_MODELS, list)).about("the free models"),
        Route::get("/models/user", Action::List(CHAT_MODELS, list)),
        Route::get("/models/{model}", Action::Show(Show { named_in: None, any_name: false, write: show })),
    ],
    key_headers: &["api-key"],
    ..Api::DEFAULT
};

/// Writes OpenAI's list of models, with the fields that OpenRouter's list has in addition.
pub(super) fn list(models: &[Listed<'_>]) -> String {
    let data = models.iter().map(|model| model.json).collect::<Vec<_>>().join(",");
    let count = models.len();
    format!(r#"{{"object":"list","data":[{data}],"total_count":{count},"links":{{"next":null}}}}"#)
}

fn show(model: &Listed<'_>, _: &str) -> String {
    model.json.to_owned()
}

/// The chat completions dialect.
#[derive(Debug)]
pub struct Chat;

/// The tools that stay: functions, which the client runs. Most of OpenRouter's own tools (`openrouter:…`) are charged.
pub(super) const TOOLS: ToolRule = ToolRule {
    stays: |kind| matches!(kind, None | Some("function" | "custom")),
    auto: r#""auto""#,
    dependent: &["tool_choice", "parallel_tool_calls"],
};

/// The fields of a message that hold content: in any useful answer at least one of them isn't empty.
const CONTENT_FIELDS: [&str; 6] = ["content", "refusal", "audio", "images", "tool_calls", "function_call"];
/// The fields of a message that hold reasoning.
const REASONING_FIELDS: [&str; 3] = ["reasoning", "reasoning_content", "reasoning_details"];

impl Dialect for Chat {
    fn path(&self) -> &'static str {
        "/chat/completions"
    }

    fn make_free(&self, fields: &[Field<'_>], edits: &mut Edits) -> bool {
        TOOLS.apply(fields, edits, Kept::default());
        files::carried(fields)
    }

    fn needs(&self, fields: &[Field<'_>]) -> Needs {
        let format = given(fields, "response_format");
        Needs {
            tools: given(fields, "tools").is_some(),
            images: given(fields, "messages").is_some_and(|messages| may_mention(messages, "image_url")),
            structured: format.is_some_and(|format| format.contains("json")),
        }
    }

    fn takes_several_models(&self) -> bool {
        true
    }

    fn turns(&self) -> Option<&'static str> {
        Some("messages")
    }

    fn elsewhere<'a>(&self, field: &Field<'a>) -> Option<Cow<'a, str>> {
        match field.name.as_ref() {
            "reasoning" => None,
            "messages" => Some(messages_elsewhere(field.value)),
            "tools" => tools_elsewhere(field.value),
            "stop" => Some(stops_elsewhere(field.value)),
            _ => elsewhere(field),
        }
    }

    fn read_answer(&self, body: &str, needs: Needs) -> AnswerSummary {
        let Some(part) = Part::parse(body).filter(|part| part.choices.is_some() || part.error.is_some())
        else {
            return AnswerSummary::unreadable();
        };
        let mut summary = AnswerSummary::default();
        if (needs.tools || needs.structured) && part.error.is_none() {
            summary.flaw = part.flaw(needs);
        }
        // Without the angle bracket, which Go's servers write as an escape; nearly all answers have none.
        let is_only_thought = body.contains("think") && part.is_only_thought();
        part.add_to(&mut summary, Needs::default());
        if is_only_thought {
            (summary.has_content, summary.has_reasoning) = (false, true);
        }
        summary
    }

    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        Box::new(ChatReader::new("chat.completion", assemble, needs))
    }
}

/// Fields of a message and its parts that only OpenRouter knows.
const OPENROUTERS_OWN: [&str; 3] = ["reasoning", "reasoning_details", "cache_control"];

fn messages_elsewhere(written: &str) -> Cow<'_, str> {
    if !OPENROUTERS_OWN.iter().any(|name| may_mention(written, name)) {
        return Cow::Borrowed(written);
    }
    let Ok(mut messages) = serde_json::from_str::<Value>(written) else {
        return Cow::Borrowed(written);
    };
    let strip = |value: &mut Value| {
        let fields = value.as_object_mut().into_iter();
        fields.for_each(|fields| OPENROUTERS_OWN.iter().for_each(|name| drop(fields.shift_remove(*name))));
    };
    for message in messages.as_array_mut().into_iter().flatten() {
        strip(message);
        message.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    }
    Cow::Owned(messages.to_string())
}

/// Returns the tools that other servers know; `None` if there are none, for servers refuse an empty list.
fn tools_elsewhere(written: &str) -> Option<Cow<'_, str>> {
    let Some(tools) = json::elements(written) else {
        return Some(Cow::Borrowed(written));
    };
    let is_openrouters = |tool: &&str| {
        let fields = json::fields(tool).unwrap_or_default();
        let kind = json::field(&fields, "type").and_then(|kind| json::string(kind.value));
        kind.is_some_and(|kind| kind.starts_with("openrouter:"))
    };
    let kept = tools.iter().filter(|tool| !is_openrouters(tool));
    let kept = kept.map(|tool| json::without(tool, &["cache_control"])).collect::<Vec<_>>();
    (!kept.is_empty()).then(|| Cow::Owned(format!("[{}]", kept.join(","))))
}

/// Returns as many stop sequences as every server takes.
fn stops_elsewhere(written: &str) -> Cow<'_, str> {
    match json::elements(written) {
        Some(stops) if stops.len() > MAX_STOPS => Cow::Owned(format!("[{}]", stops[..MAX_STOPS].join(","))),
        _ => Cow::Borrowed(written),
    }
}

/// Returns the text of a message's content, with the type in brackets for each part that isn't text.
pub fn text_of(content: &Value) -> String {
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

/// Returns the reasoning of a message or a delta, by OpenRouter's name for it or by llama.cpp's.
pub(super) fn thought_in(message: &Value) -> String {
    let texts = [&message["reasoning"], &message["reasoning_content"]].map(text_of);
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// Returns the arguments of a tool call; an empty object if they aren't an object.
pub(super) fn arguments_of(call: &Value) -> Value {
    let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
    let arguments = serde_json::from_str::<Value>(arguments).ok().filter(Value::is_object);
    arguments.unwrap_or_else(|| json!({}))
}

/// Returns a tool call as text if its arguments are no object: run with other arguments, it could do anything.
pub(super) fn call_as_text(call: &Value) -> Option<String> {
    let function = &call["function"];
    let arguments = function["arguments"].as_str().unwrap_or_default().trim();
    let is_object = serde_json::from_str::<Value>(arguments).is_ok_and(|arguments| arguments.is_object());
    let name = function["name"].as_str().unwrap_or_default();
    (!matches!(arguments, "" | "null") && !is_object).then(|| format!("{name}({arguments})"))
}

/// The fields that are read from a plain answer and from each chunk of a stream; all others are skipped, not built.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Vec<PartChoice<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PartChoice<'a> {
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    /// The text of a legacy completion.
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl<'a> Part<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns what makes a plain answer useless to a client that offered tools or wanted JSON.
    fn flaw(&self, needs: Needs) -> Option<Flaw> {
        let mut messages = self.choices.iter().flatten().filter_map(|choice| choice.message);
        messages.find_map(|message| {
            let fields = json::fields(message.get()).ok()?;
            let calls = given(&fields, "tool_calls").and_then(json::elements).unwrap_or_default();
            let is_broken = |call: &&str| {
                let call = serde_json::from_str::<Value>(call).unwrap_or_default();
                call["function"]["arguments"].as_str().is_some_and(|arguments| !are_arguments(arguments))
            };
            if calls.iter().any(is_broken) {
                return Some(Flaw::BrokenArguments);
            }
            let content = given(&fields, "content").filter(|_| calls.is_empty())?;
            let text = text_of(&serde_json::from_str(content).ok()?);
            flaw_of(&text, needs)
        })
    }

    /// Returns whether a plain answer has nothing but reasoning, written as `<think>…</think>`.
    fn is_only_thought(&self) -> bool {
        let mut messages = self.choices.iter().flatten().filter_map(|choice| choice.message).peekable();
        messages.peek().is_some()
            && messages.all(|message| {
                let fields = json::fields(message.get()).unwrap_or_default();
                let mut others = CONTENT_FIELDS.iter().filter(|name| **name != "content");
                let text = given(&fields, "content").and_then(json::string).unwrap_or_default();
                is_only_thought(&text) && !others.any(|name| given(&fields, name).is_some())
            })
    }

    fn add_to(self, summary: &mut AnswerSummary, needs: Needs) {
        if let Some(model) = self.model.filter(|model| summary.model.as_deref() != Some(model)) {
            summary.model = Some(model.into_owned());
        }
        if let Some(usage) = self.usage {
            summary.usage = usage;
        }
        if summary.error.is_none() {
            summary.error = self.error.map(|error| error.get().to_owned());
        }
        for choice in self.choices.unwrap_or_default() {
            // Some servers send an empty reason in each chunk.
            if let Some(reason) = choice.finish_reason.filter(|reason| !is_nothing(reason.get())) {
                summary.finished = true;
                summary.cut_short |= matches!(reason.get(), "\"length\"" | "\"content_filter\"");
                if reason.get() == "\"error\"" && choice.error.is_none() && summary.error.is_none() {
                    summary.error = Some(CHOICE_ERROR.to_owned());
                }
            }
            if summary.error.is_none() {
                summary.error = choice.error.map(|error| error.get().to_owned());
            }
            summary.has_content |= choice.text.is_some_and(|text| !is_nothing(text.get()));
            let Some(message) = choice.message.or(choice.delta) else { continue };
            let fields = json::fields(message.get()).unwrap_or_default();
            let holds = |names: &[&str]| names.iter().any(|name| given(&fields, name).is_some());
            summary.has_content |= holds(&CONTENT_FIELDS);
            summary.has_reasoning |= holds(&REASONING_FIELDS);
            if needs.tools
                && let Some(text) = given(&fields, "content").and_then(json::string)
            {
                summary.read_opening(&text);
            }
            if given(&fields, "tool_calls").is_some() {
                summary.read_other_content();
            }
        }
    }
}

/// A reader for a stream of chunks, of chat or of legacy completions.
pub(super) struct ChatReader {
    summary: AnswerSummary,
    object: &'static str,
    needs: Needs,
    assembly: Option<Assembly>,
}

impl ChatReader {
    /// `object` becomes the field of this name in the whole answer.
    pub(super) fn new(object: &'static str, assemble: bool, needs: Needs) -> Self {
        Self { summary: AnswerSummary::default(), object, needs, assembly: assemble.then(Assembly::default) }
    }
}

impl Reader for ChatReader {
    fn read(&mut self, data: Option<&str>) {
        let Some(data) = data else {
            self.summary.has_content = true; // an event this long has content
            return;
        };
        if data.trim() == "[DONE]" {
            self.summary.done = true;
            return;
        }
        // Of a thousand tokens only the first and the last tell anything new.
        if self.summary.has_content
            && self.summary.says_something()
            && self.assembly.is_none()
            && is_just_a_token(data)
        {
            return;
        }
        if let Some(part) = Part::parse(data) {
            part.add_to(&mut self.summary, self.needs);
        }
        if let Some(assembly) = &mut self.assembly {
            assembly.add(data);
        }
    }

    fn summary(&self) -> &AnswerSummary {
        &self.summary
    }

    /// The event has the shape of OpenRouter's own:
    /// <https://openrouter.ai/docs/api/reference/streaming#mid-stream-errors>
    fn broken_off(&self, error: &ApiError) -> String {
        let chat = self.object == "chat.completion";
        let object = if chat { "chat.completion.chunk" } else { self.object };
        let mut choice = json!({"index": 0, "delta": {"content": ""}, "finish_reason": "error"});
        if !chat {
            choice = json!({"index": 0, "text": "", "finish_reason": "error", "logprobs": null});
        }
        data_event(&json!({
            "object": object,
            "error": {
                "code": error.status, "message": error.message, "type": error.kind(),
                "metadata": {"error_type": error.code},
            },
            "choices": [choice],
        }))
    }

    fn answer(self: Box<Self>) -> Option<Value> {
        self.assembly?.finish(self.object)
    }
}

/// Whether a chunk has nothing to tell but its text: no end, no usage, no error. The whole chunk is searched for these,
/// so that no text can hide them; a chunk whose text only mentions them is parsed.
fn is_just_a_token(chunk: &str) -> bool {
    let finds = |needle: &str| memchr::memmem::find(chunk.as_bytes(), needle.as_bytes());
    let ends = || match finds("\"finish_reason\"") {
        Some(at) => {
            !chunk[at + "\"finish_reason\"".len()..].trim_start_matches([':', ' ']).starts_with("null")
        }
        None => false,
    };
    chunk.starts_with('{') && finds("\"usage\"").is_none() && finds("\"error\"").is_none() && !ends()
}

/// The answer that is put together from a stream's chunks.
#[derive(Debug, Default)]
struct Assembly {
    answer: Map<String, Value>,
    choices: Vec<Map<String, Value>>,
    halves: SurrogateJoiner,
    room: MemoryBudget,
}

impl Assembly {
    /// Adds a chunk; ignores data that isn't one.
    fn add(&mut self, chunk: &str) {
        if !self.room.is_left() {
            return;
        }
        let Some(Value::Object(chunk)) = self.halves.parse(chunk) else {
            return;
        };
        for (name, value) in chunk {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("object" | "error", _) => {}
                ("choices", Value::Array(choices)) => {
                    choices.into_iter().for_each(|choice| self.add_choice(choice))
                }
                (_, value) => self.room.insert(&mut self.answer, name, value),
            }
        }
    }

    fn add_choice(&mut self, choice: Value) {
        let Value::Object(choice) = choice else {
            return;
        };
        let index = choice.get("index").cloned().unwrap_or(json!(0));
        let is_known = |known: &Map<String, Value>| known.get("index") == Some(&index);
        let recent = self.choices.len().saturating_sub(OPEN_ELEMENTS);
        let known = self.choices[recent..].iter().rposition(is_known).map(|at| recent + at);
        let at = known.unwrap_or_else(|| {
            let mut choice = Map::new();
            self.room.insert(&mut choice, "index".to_owned(), index);
            self.choices.push(choice);
            self.choices.len() - 1
        });
        let (target, room) = (&mut self.choices[at], &mut self.room);
        for (name, value) in choice {
            match (name.as_str(), value) {
                ("index", _) => {}
                ("delta", Value::Object(delta)) => {
                    let message = target.entry("message").or_insert(json!({}));
                    if let Value::Object(message) = message {
                        delta.into_iter().for_each(|(name, value)| merge(message, name, value, room));
                    }
                }
                (_, value) => merge(target, name, value, room),
            }
        }
    }

    /// Returns the whole answer; `None` if no chunk has come.
    fn finish(mut self, object: &str) -> Option<Value> {
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
        self.answer.insert("object".into(), object.into());
        self.answer.insert("choices".into(), self.choices.into_iter().map(Value::Object).collect());
        Some(Value::Object(self.answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(body: &str) -> AnswerSummary {
        Chat.read_answer(body, Needs::default())
    }

    fn read(events: &[&str], assemble: bool) -> Box<ChatReader> {
        let mut reader = Box::new(ChatReader::new("chat.completion", assemble, Needs::default()));
        events.iter().for_each(|data| reader.read(Some(data)));
        reader
    }

    #[test]
    fn facts_of_a_stream() {
        let events = [
            r#"{"model":"a:free","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#,
            r#"{"model":"a:free","choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#,
            r#"{"model":"a:free","choices":[{"delta":{"content":"\"finish_reason\""},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0}}"#,
            "[DONE]",
        ];
        assert!(
            !read(&events[..1], false).summary.has_content && !read(&events[..1], false).summary.finished
        );
        let expected = AnswerSummary {
            model: Some("a:free".into()),
            usage: Usage { prompt_tokens: Some(3), completion_tokens: Some(4) },
            has_content: true,
            cut_short: false,
            finished: true,
            done: true,
            error: None,
            ..AnswerSummary::default()
        };
        assert_eq!(read(&events, false).summary, expected);
        assert_eq!(read(&events, true).summary, expected);
        let cut = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
        assert!(read(&[cut], false).summary.is_an_answer());
        assert!(
            !read(&[r#"{"choices":[{"delta":{"content":"x"},"finish_reason":""}]}"#], false).summary.finished
        );
        let failed = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"error"}]}"#;
        assert_eq!(read(&[failed], false).summary.error.as_deref(), Some(CHOICE_ERROR));
    }

    #[test]
    fn answers_with_nothing_in_them() {
        let answer = |choice: &str| format!(r#"{{"choices":[{{"finish_reason":"stop",{choice}}}]}}"#);
        for nothing in [
            r#""message":{"role":"assistant","content":""}"#,
            r#""message":{"content":null,"tool_calls":[],"reasoning":""}"#,
        ] {
            assert!(!summary_of(&answer(nothing)).is_an_answer(), "{nothing}");
        }
        for something in [
            r#""message":{"content":" "}"#,
            r#""message":{"content":"","tool_calls":[{}]}"#,
            r#""message":{"content":null,"refusal":"no"}"#,
            r#""message":{"content":"","audio":{"id":"x"}}"#,
            r#""text":"x""#,
        ] {
            assert!(summary_of(&answer(something)).is_an_answer(), "{something}");
        }
        let cut = r#"{"choices":[{"finish_reason":"length","message":{"content":""}}]}"#;
        assert!(summary_of(cut).is_an_answer());
        let thought = summary_of(&answer(r#""message":{"content":null,"reasoning":"hm"}"#));
        assert!(!thought.is_an_answer() && thought.has_reasoning && !thought.unreadable);
        for other in [r#"{"ok":true}"#, "{}", "[]", "null", "<html>", ""] {
            assert!(summary_of(other).unreadable, "{other}");
        }
        let part = r#"{"choices":[{"finish_reason":"error","message":{"content":"x"}}]}"#;
        assert!(summary_of(part).error.is_some());
    }

    #[test]
    fn content_that_nobody_asked_for() {
        let needs = Needs { tools: true, images: false, structured: false };
        let flaw = |message: &str, needs| {
            let body = format!(r#"{{"choices":[{{"finish_reason":"stop","message":{message}}}]}}"#);
            Chat.read_answer(&body, needs).flaw
        };
        for call in ["<tool_call>{}", "  <function=f>", "[TOOL_CALLS] x", "<|tool_call_begin|>"] {
            let message = format!(r#"{{"content":"{call}"}}"#);
            assert_eq!(flaw(&message, needs), Some(Flaw::CallAsText), "{call}");
            assert_eq!(flaw(&message, Needs::default()), None, "no tools were offered");
        }
        let call = |arguments: &str| {
            format!(
                r#"{{"content":"<b>","tool_calls":[{{"function":{{"name":"f","arguments":"{arguments}"}}}}]}}"#
            )
        };
        assert_eq!(flaw(&call("{a"), needs), Some(Flaw::BrokenArguments));
        assert_eq!(flaw(&call(""), needs), None, "no arguments are none");
        assert_eq!(flaw(&call("{}"), needs), None);
        let json = Needs { structured: true, ..Needs::default() };
        assert_eq!(flaw(r#"{"content":"Sure, here you are"}"#, json), Some(Flaw::NoJson));
        for text in [
            r#"{"a":1}"#,
            r#"```json
{"a":1}
```"#,
            r#"Here: {"a":1}."#,
            "[1]",
            "7",
        ] {
            assert_eq!(flaw(&format!(r#"{{"content":"{text}"}}"#), json), None, "{text}");
        }
    }

    #[test]
    fn a_stream_says_nothing_while_it_could_become_a_call() {
        let needs = Needs { tools: true, images: false, structured: false };
        let after = |texts: &[&str]| {
            let mut reader = ChatReader::new("chat.completion", false, needs);
            for text in texts {
                reader.read(Some(&format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#)));
            }
            (reader.summary.says_something(), reader.summary.flaw)
        };
        assert_eq!(after(&["<"]), (false, None));
        assert_eq!(after(&["<", "tool_"]), (false, None));
        assert_eq!(after(&["<", "tool_", "call>"]), (true, Some(Flaw::CallAsText)));
        assert_eq!(after(&["<", "b>"]), (true, None));
        assert_eq!(after(&["Hello"]), (true, None));
    }

    #[test]
    fn chunks_add_up() {
        let reader = read(
            &[
                r#"{"id":"g","object":"chat.completion.chunk","model":"a:free","choices":[{"index":0,"delta":{"role":"assistant","content":"He","reasoning":"a"},"finish_reason":null}]}"#,
                r#"{"id":"g","model":"a:free","choices":[{"index":0,"delta":{"role":"assistant","content":"llo","reasoning":"b","tool_calls":[{"index":0,"id":"t","type":"function","function":{"name":"f","arguments":"{\"x\""}},{"index":1,"id":"u","function":{"name":"g","arguments":""}}]}}]}"#,
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
                "garbage",
                r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            ],
            true,
        );
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
        assert_eq!(reader.answer(), Some(expected));
        assert_eq!(Box::new(ChatReader::new("chat.completion", true, Needs::default())).answer(), None);
    }

    #[test]
    fn a_broken_stream_ends_in_openrouters_shape() {
        let event = read(&[], false).broken_off(&ApiError::broke_off(&"it \"said\" no".into()));
        let data = event.strip_prefix("data: ").and_then(|e| e.strip_suffix("\n\n")).unwrap();
        let data = serde_json::from_str::<Value>(data).unwrap();
        assert_eq!(
            (&data["error"]["code"], &data["choices"][0]["finish_reason"]),
            (&json!(502), &json!("error"))
        );
    }

    #[test]
    fn thought_alone_is_nothing_also_where_its_marks_are_escaped() {
        for written in ["<think>hm</think>", r"\u003cthink\u003ehm\u003c/think\u003e"] {
            let choice =
                format!(r#"{{"choices":[{{"message":{{"content":"{written}"}},"finish_reason":"stop"}}]}}"#);
            let summary = summary_of(&choice);
            assert!(summary.has_reasoning && !summary.is_an_answer(), "{written}");
        }
    }
}
