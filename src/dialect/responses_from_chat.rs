//! Answers of chat completions, translated to OpenAI's Responses API: plain, or event by event.

use std::time::SystemTime;

use serde_json::Value;

use super::chat_parts::{Block, ChatParts, Kind, Step, blocks_of, unique};
use super::errors::{self, Diagnosis, ErrorCause, ModelFault};
use super::responses_tools::{ToolKind, Tools};
use super::{Translator, UpstreamError, named_event};
use crate::error::ApiError;
use crate::object::object;

/// A translator for one answer.
#[derive(Debug)]
pub(super) struct ResponsesTranslator {
    /// The model that the client asked for, until the server names one.
    model: String,
    /// Whether the reasoning is sent as its own summary, because the client asked for a summary.
    summarizes: bool,
    tools: Tools,
    /// The unique part of the ids of the response and its items.
    name: String,
    created_at: u64,
    parts: ChatParts,
    /// The number of the next event; 0 before the response has begun.
    number: u64,
    /// Items that are done.
    output: Vec<Value>,
    /// The kind of the tool that the open item calls.
    open_tool: ToolKind,
    /// Whether nothing may follow.
    is_over: bool,
}

impl Translator for ResponsesTranslator {
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn event(&mut self, data: &str) -> String {
        if self.is_over {
            return String::new();
        }
        match self.parts.read(data) {
            None => String::new(), // `[DONE]`
            Some(Ok(steps)) => self.begin() + &self.tell(steps),
            Some(Err(error)) => {
                let begun = self.begin();
                self.is_over = true;
                begun + &self.failed(&failure(&error))
            }
        }
    }

    fn end(&mut self) -> String {
        if std::mem::replace(&mut self.is_over, true) {
            return String::new();
        }
        let steps = self.parts.finish();
        let told = self.begin() + &self.tell(steps);
        let response = self.whole();
        let kind = format!("response.{}", response["status"].as_str().unwrap_or_default());
        told + &self.numbered(object! {"type": kind, "response": response})
    }

    fn answer(&mut self, body: &str) -> String {
        let blocks = match blocks_of(body) {
            Some(Ok((parts, blocks))) => {
                self.parts = parts;
                blocks
            }
            _ => return self.error_body(&UpstreamError::in_a_success(body)),
        };
        for block in blocks {
            let item = self.item(&block, self.end_status(), &block.text);
            self.output.push(item);
        }
        self.learn_model();
        self.whole().to_string()
    }

    fn broken_off(&self, error: &ApiError) -> String {
        if self.is_over {
            return String::new();
        }
        let error = object! {"code": "server_error", "message": &error.message};
        if self.number > 0 {
            return self.failed(&error);
        }
        // SDKs accept no other event first.
        let response = self.response("in_progress", Value::Null, Value::Null);
        let first = object! {"type": "response.created", "response": response, "sequence_number": 0};
        named_event(&first) + &self.failed_as(1, &error)
    }

    fn error_body(&self, UpstreamError { body, .. }: &UpstreamError<'_>) -> String {
        // Errors have the same shape in both APIs.
        match errors::object(body).filter(|error| !errors::message(error).is_empty()) {
            Some(_) => (*body).to_owned(),
            None => {
                let error = object! {"message": body.trim(), "type": "upstream_error", "param": Value::Null, "code": Value::Null};
                object! {"error": error}.to_string()
            }
        }
    }
}

impl ResponsesTranslator {
    /// Creates the translator for the answer to this request.
    pub(super) fn new(asked: &Value) -> Self {
        let summary = &asked["reasoning"]["summary"];
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            model: asked["model"].as_str().unwrap_or_default().to_owned(),
            summarizes: summary.is_string() && summary != "none",
            tools: Tools::of(asked),
            name: unique(),
            created_at: since.unwrap_or_default().as_secs(),
            parts: ChatParts::new(true),
            number: 0,
            output: Vec::new(),
            open_tool: ToolKind::Function,
            is_over: false,
        }
    }

    fn learn_model(&mut self) {
        if let Some(model) = &self.parts.model {
            self.model.clone_from(model);
        }
    }

    fn begin(&mut self) -> String {
        if self.number > 0 {
            return String::new();
        }
        self.learn_model();
        let response = self.response("in_progress", Value::Null, Value::Null);
        let kinds = ["response.created", "response.in_progress"];
        kinds.map(|kind| self.numbered(object! {"type": kind, "response": &response})).concat()
    }

    fn numbered(&mut self, mut event: Value) -> String {
        event["sequence_number"] = Value::from(self.number);
        self.number += 1;
        named_event(&event)
    }

    fn tell(&mut self, steps: Vec<Step>) -> String {
        let mut told = String::new();
        for step in steps {
            let events = match step {
                Step::Begin(block) => self.item_begins(&block),
                Step::More(kind, more) => self.item_grows(kind, &more),
                Step::End(block) => self.item_ends(block),
            };
            events.into_iter().for_each(|event| told += &self.numbered(event));
        }
        told
    }

    fn item_begins(&mut self, block: &Block) -> Vec<Value> {
        self.open_tool = self.tool_kind(block);
        let item = self.item(block, "in_progress", "");
        let added =
            object! {"type": "response.output_item.added", "output_index": self.output.len(), "item": item};
        let part = self
            .part(block.kind, "")
            .map(|part| self.at(block.kind, self.part_event("added", block.kind), "part", part));
        std::iter::once(added).chain(part).collect()
    }

    fn item_grows(&self, kind: Kind, more: &str) -> Vec<Value> {
        let is_streamed = kind != Kind::Call || self.open_tool == ToolKind::Function;
        let delta = || self.at(kind, self.text_event(kind) + ".delta", "delta", Value::from(more));
        is_streamed.then(delta).into_iter().collect()
    }

    fn item_ends(&mut self, block: Block) -> Vec<Value> {
        let Block { kind, text, .. } = &block;
        let item = self.item(&block, self.end_status(), text);
        let mut events = Vec::new();
        let mut at =
            |event: String, name: &str, value: Value| events.push(self.at(*kind, event, name, value));
        match (kind, self.tool_kind(&block)) {
            (Kind::Call, ToolKind::Function) => {
                at("response.function_call_arguments.done".into(), "arguments", Value::from(text.as_str()));
                events[0]["name"] = item["name"].clone();
            }
            // The input is sent all at once: it comes inside JSON, which must be complete to be unwrapped.
            (Kind::Call, ToolKind::Custom) => {
                at("response.custom_tool_call_input.delta".into(), "delta", item["input"].clone());
                at("response.custom_tool_call_input.done".into(), "input", item["input"].clone());
            }
            (Kind::Call, _) => {}
            _ => {
                let name = if *kind == Kind::Refusal { "refusal" } else { "text" };
                at(self.text_event(*kind) + ".done", name, Value::from(text.as_str()));
                if let Some(part) = self.part(*kind, text) {
                    at(self.part_event("done", *kind), "part", part);
                }
            }
        }
        events.push(
            object! {"type": "response.output_item.done", "output_index": self.output.len(), "item": &item},
        );
        self.output.push(item);
        events
    }

    /// Returns an event about the open item.
    fn at(&self, kind: Kind, event: String, name: &str, value: Value) -> Value {
        let mut event =
            object! {"type": event, "item_id": self.item_id(kind), "output_index": self.output.len()};
        match kind {
            Kind::Call => {}
            Kind::Reasoning if self.summarizes => event["summary_index"] = Value::from(0),
            _ => event["content_index"] = Value::from(0),
        }
        event[name] = value;
        if kind == Kind::Text && name != "part" {
            event["logprobs"] = Value::Array(Vec::new());
        }
        event
    }

    fn text_event(&self, kind: Kind) -> String {
        let kind = match kind {
            Kind::Reasoning if self.summarizes => "reasoning_summary_text",
            Kind::Reasoning => "reasoning_text",
            Kind::Text => "output_text",
            Kind::Refusal => "refusal",
            Kind::Call => "function_call_arguments",
        };
        format!("response.{kind}")
    }

    fn part_event(&self, what: &str, kind: Kind) -> String {
        let is_summary = kind == Kind::Reasoning && self.summarizes;
        format!("response.{}.{what}", if is_summary { "reasoning_summary_part" } else { "content_part" })
    }

    /// Returns the content of an item that isn't a call.
    fn part(&self, kind: Kind, text: &str) -> Option<Value> {
        match kind {
            Kind::Reasoning if self.summarizes => Some(object! {"type": "summary_text", "text": text}),
            Kind::Reasoning => Some(object! {"type": "reasoning_text", "text": text}),
            Kind::Text => Some(
                object! {"type": "output_text", "text": text, "annotations": Vec::<Value>::new(), "logprobs": Vec::<Value>::new()},
            ),
            Kind::Refusal => Some(object! {"type": "refusal", "refusal": text}),
            Kind::Call => None,
        }
    }

    fn item_id(&self, kind: Kind) -> String {
        let kind = match kind {
            Kind::Reasoning => "rs",
            Kind::Text | Kind::Refusal => "msg",
            Kind::Call => "fc",
        };
        format!("{kind}_{}_{}", self.name, self.output.len())
    }

    fn tool_kind(&self, block: &Block) -> ToolKind {
        self.tools.names.tool(&block.name).map_or(ToolKind::Function, |tool| tool.kind)
    }

    /// Returns an item of the output with this text or these arguments.
    fn item(&self, block: &Block, status: &str, text: &str) -> Value {
        let id = self.item_id(block.kind);
        let parts =
            || self.part(block.kind, text).filter(|_| !text.is_empty()).into_iter().collect::<Vec<_>>();
        match block.kind {
            Kind::Reasoning => {
                let (summary, content) =
                    if self.summarizes { (parts(), Vec::new()) } else { (Vec::new(), parts()) };
                object! {"type": "reasoning", "id": id, "summary": summary, "content": content, "status": status}
            }
            Kind::Text | Kind::Refusal => {
                object! {"type": "message", "id": id, "role": "assistant", "status": status, "content": parts()}
            }
            Kind::Call => self.call(block, id, status, text),
        }
    }

    fn call(&self, block: &Block, id: String, status: &str, arguments: &str) -> Value {
        let tool = self.tools.names.tool(&block.name);
        let name = tool.map_or(&block.name, |tool| &tool.name);
        let object = || serde_json::from_str::<Value>(arguments).ok().filter(Value::is_object);
        let mut item = object! {"type": "function_call", "id": id, "call_id": &block.id, "status": status};
        match self.tool_kind(block) {
            ToolKind::Function => {
                item["name"] = Value::from(name.as_str());
                item["arguments"] = Value::from(arguments);
            }
            ToolKind::Custom => {
                item["type"] = Value::from("custom_tool_call");
                item["name"] = Value::from(name.as_str());
                let input = object().and_then(|object| Some(object["input"].as_str()?.to_owned()));
                item["input"] = Value::from(input.as_deref().unwrap_or(arguments));
            }
            ToolKind::ToolSearch => {
                item["type"] = Value::from("tool_search_call");
                item["execution"] = Value::from("client");
                item["arguments"] = object().unwrap_or_else(|| object! {});
            }
            ToolKind::ApplyPatch => {
                item["type"] = Value::from("apply_patch_call");
                item["operation"] = object().unwrap_or_else(|| object! {});
            }
        }
        if let Some(namespace) = tool.and_then(|tool| tool.namespace.as_deref()) {
            item["namespace"] = Value::from(namespace);
        }
        item
    }

    fn is_cut(&self) -> Option<&'static str> {
        match self.parts.finish.as_deref() {
            Some("length") => Some("max_output_tokens"),
            Some("content_filter") => Some("content_filter"),
            _ => None,
        }
    }

    fn end_status(&self) -> &'static str {
        if self.is_cut().is_some() { "incomplete" } else { "completed" }
    }

    fn whole(&self) -> Value {
        let tokens = self.parts.tokens;
        let usage = object! {
            "input_tokens": tokens.input, "input_tokens_details": object! {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output, "output_tokens_details": object! {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.input + tokens.output,
        };
        let mut response = self.response(self.end_status(), usage, Value::Null);
        if let Some(reason) = self.is_cut() {
            response["incomplete_details"] = object! {"reason": reason};
        }
        response
    }

    fn failed(&self, error: &Value) -> String {
        self.failed_as(self.number, error)
    }

    fn failed_as(&self, number: u64, error: &Value) -> String {
        let response = self.response("failed", Value::Null, error.clone());
        named_event(&object! {"type": "response.failed", "response": response, "sequence_number": number})
    }

    fn response(&self, status: &str, usage: Value, error: Value) -> Value {
        object! {
            "id": format!("resp_{}", self.name), "object": "response", "created_at": self.created_at,
            "model": &self.model, "status": status, "output": self.output.clone(), "usage": usage, "error": error,
            "incomplete_details": Value::Null, "instructions": Value::Null, "metadata": object! {}, "parallel_tool_calls": true,
            "temperature": Value::Null, "tool_choice": "auto", "tools": Vec::<Value>::new(), "top_p": Value::Null,
        }
    }
}

/// Returns a server's error as a response holds it: Codex decides by the code.
fn failure(error: &Value) -> Value {
    let diagnosis = Diagnosis::of(error);
    let word = error["code"].as_str().filter(|code| code.parse::<u16>().is_err());
    let code = match (diagnosis.about, word) {
        (ErrorCause::Model(ModelFault::TooLong), _) => "context_length_exceeded",
        (_, Some(word)) => word,
        _ if diagnosis.status == 429 => "rate_limit_exceeded",
        _ => "server_error",
    };
    let message = error["message"].as_str().or(error.as_str()).unwrap_or("The model ended with an error.");
    object! {"code": code, "message": message}
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The events of a stream, each checked to have its name and number.
    fn events(told: &str) -> Vec<Value> {
        let events = told.split_terminator("\n\n").enumerate().map(|(number, event)| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            assert_eq!(data["sequence_number"], number);
            data
        });
        events.collect()
    }

    fn told(asked: Value, chunks: &[Value]) -> Vec<Value> {
        let mut translator = ResponsesTranslator::new(&asked);
        let mut told = String::new();
        for chunk in chunks {
            told += &translator.event(&chunk.to_string());
        }
        told += &translator.event("[DONE]");
        told += &translator.end();
        assert_eq!(translator.end() + &translator.broken_off(&ApiError::stopping()), "", "nothing follows");
        events(&told)
    }

    fn chunk(delta: Value) -> Value {
        json!({"id": "c", "model": "n", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn call(id: &str, name: &str, arguments: &str) -> Value {
        chunk(
            json!({"tool_calls": [{"index": id.parse::<u64>().ok(), "id": id, "function": {"name": name, "arguments": arguments}}]}),
        )
    }

    fn tools() -> Value {
        json!([
            {"type": "function", "name": "f"}, {"type": "custom", "name": "c"}, {"type": "tool_search", "execution": "client"},
            {"type": "apply_patch"}, {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]}])
    }

    /// Returns what matters of an event besides its type.
    fn short(event: &Value) -> String {
        let kind = event["type"].as_str().unwrap().strip_prefix("response.").unwrap();
        let said = ["delta", "text", "arguments", "input"].into_iter().find_map(|name| event[name].as_str());
        let item = event["item"]["type"]
            .as_str()
            .map(|kind| format!("{kind} {}", event["item"]["status"].as_str().unwrap()));
        let at = event["output_index"].as_u64().map(|index| format!("{index} ")).unwrap_or_default();
        format!("{at}{kind} {}", said.map(str::to_owned).or(item).unwrap_or_default()).trim().to_owned()
    }

    #[test]
    fn chunks_become_events() {
        let events = told(
            json!({"model": "m", "tools": tools()}),
            &[
                chunk(json!({"role": "assistant", "content": ""})),
                chunk(json!({"reasoning": "hm"})),
                chunk(json!({"content": "h"})),
                chunk(json!({"content": "i"})),
                call("0", "n__g", ""),
                call("0", "", "{\"x\":"),
                call("0", "", "1}"),
                call("1", "c", "{\"input\":"),
                call("1", "", "\"a\\nb\"}"),
                call("2", "tool_search", "{\"query\":\"q\"}"),
                call("3", "apply_patch", "{\"type\":\"delete_file\",\"path\":\"p\"}"),
                json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
                json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}}),
            ],
        );
        let expected = [
            "created",
            "in_progress",
            "0 output_item.added reasoning in_progress",
            "0 content_part.added",
            "0 reasoning_text.delta hm",
            "0 reasoning_text.done hm",
            "0 content_part.done",
            "0 output_item.done reasoning completed",
            "1 output_item.added message in_progress",
            "1 content_part.added",
            "1 output_text.delta h",
            "1 output_text.delta i",
            "1 output_text.done hi",
            "1 content_part.done",
            "1 output_item.done message completed",
            "2 output_item.added function_call in_progress",
            "2 function_call_arguments.delta {\"x\":",
            "2 function_call_arguments.delta 1}",
            "2 function_call_arguments.done {\"x\":1}",
            "2 output_item.done function_call completed",
            "3 output_item.added custom_tool_call in_progress",
            "3 custom_tool_call_input.delta a\nb",
            "3 custom_tool_call_input.done a\nb",
            "3 output_item.done custom_tool_call completed",
            "4 output_item.added tool_search_call in_progress",
            "4 output_item.done tool_search_call completed",
            "5 output_item.added apply_patch_call in_progress",
            "5 output_item.done apply_patch_call completed",
            "completed",
        ];
        assert_eq!(events.iter().map(short).collect::<Vec<_>>(), expected);
        let response = &events[28]["response"];
        let output = response["output"].as_array().unwrap();
        let done = events
            .iter()
            .filter(|event| event["type"] == "response.output_item.done")
            .map(|event| &event["item"]);
        assert!(output.iter().eq(done), "the whole output is what was told");
        for event in &events {
            let item = event["output_index"].as_u64().map(|index| &output[index as usize]["id"]);
            let id = if event["item"].is_null() { &event["item_id"] } else { &event["item"]["id"] };
            assert_eq!(item.unwrap_or(&Value::Null), id, "{event}");
            assert!(event["response"].is_null() || event["response"]["id"] == response["id"]);
        }
        assert_eq!(output[0]["content"], json!([{"type": "reasoning_text", "text": "hm"}]));
        assert_eq!(
            output[1]["content"],
            json!([{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}])
        );
        let said = |at: usize, names: &[&str]| {
            names.iter().map(|name| output[at][*name].clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            said(2, &["call_id", "name", "namespace", "arguments"]),
            [json!("0"), json!("g"), json!("n"), json!("{\"x\":1}")]
        );
        assert_eq!(said(3, &["call_id", "name", "input"]), [json!("1"), json!("c"), json!("a\nb")]);
        assert_eq!(
            said(4, &["call_id", "execution", "arguments"]),
            [json!("2"), json!("client"), json!({"query": "q"})]
        );
        assert_eq!(
            said(5, &["call_id", "operation"]),
            [json!("3"), json!({"type": "delete_file", "path": "p"})]
        );
        let usage = json!({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 13});
        assert_eq!(
            (&response["usage"], &response["model"], &response["status"]),
            (&usage, &json!("n"), &json!("completed"))
        );
    }

    #[test]
    fn thoughts_as_a_summary_where_one_was_asked_for() {
        let chunks = [chunk(json!({"content": "<think>hm</think>hi"}))];
        let events = told(json!({"reasoning": {"summary": "auto"}}), &chunks);
        let expected = [
            "0 output_item.added reasoning in_progress",
            "0 reasoning_summary_part.added",
            "0 reasoning_summary_text.delta hm",
            "0 reasoning_summary_text.done hm",
            "0 reasoning_summary_part.done",
            "0 output_item.done reasoning completed",
        ];
        assert_eq!(events[2..8].iter().map(short).collect::<Vec<_>>(), expected);
        assert_eq!(events[7]["item"]["summary"], json!([{"type": "summary_text", "text": "hm"}]));
        assert!(events[3..7].iter().all(|event| event["summary_index"] == 0));
    }

    #[test]
    fn streams_that_say_little_are_ended_all_the_same() {
        let kinds = |events: &[Value]| events.iter().map(short).collect::<Vec<_>>().join(", ");
        assert_eq!(kinds(&told(json!({}), &[])), "created, in_progress, completed");
        let cut = json!({"choices": [{"delta": {"content": "h"}, "finish_reason": "length"}]});
        let cut = told(json!({}), &[cut]);
        let last = &cut[cut.len() - 1];
        assert_eq!(
            (&last["type"], &last["response"]["incomplete_details"]["reason"]),
            (&json!("response.incomplete"), &json!("max_output_tokens"))
        );
        assert_eq!(last["response"]["output"][0]["status"], "incomplete");
        for (error, code) in [
            (json!({"code": 429, "message": "slow"}), "rate_limit_exceeded"),
            (json!({"code": "context_length_exceeded", "message": "slow"}), "context_length_exceeded"),
            (json!({"message": "slow"}), "server_error"),
        ] {
            let failed = told(json!({}), &[json!({"error": error})]);
            assert_eq!(kinds(&failed), "created, in_progress, failed");
            assert_eq!(failed[2]["response"]["error"], json!({"code": code, "message": "slow"}));
        }
        let mut translator = ResponsesTranslator::new(&json!({}));
        let broken = translator.broken_off(&ApiError::broke_off(&"x".into()));
        assert_eq!(kinds(&events(&broken)), "created, failed");
        let begun = translator.event(&chunk(json!({"content": "h"})).to_string());
        let broken = events(&(begun + &translator.broken_off(&ApiError::broke_off(&"x".into()))));
        let last = &broken[broken.len() - 1];
        assert_eq!(
            (&last["response"]["status"], &last["response"]["error"]["code"]),
            (&json!("failed"), &json!("server_error"))
        );
        assert_eq!(last["response"]["id"], broken[0]["response"]["id"]);
    }

    #[test]
    fn whole_answers_and_errors() {
        let mut translator = ResponsesTranslator::new(&json!({"tools": tools()}));
        let calls = json!([{"id": "1", "function": {"name": "c", "arguments": "not JSON"}}]);
        let body = json!({"model": "n", "choices": [{"message": {"content": "hi", "refusal": "no", "tool_calls": calls}, "finish_reason": "stop"}]});
        let told = serde_json::from_str::<Value>(&translator.answer(&body.to_string())).unwrap();
        let kinds = told["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap());
        assert_eq!(kinds.collect::<Vec<_>>(), ["message", "message", "custom_tool_call"]);
        assert_eq!(told["output"][1]["content"], json!([{"type": "refusal", "refusal": "no"}]));
        assert_eq!(
            (&told["output"][2]["input"], &told["status"], &told["object"]),
            (&json!("not JSON"), &json!("completed"), &json!("response"))
        );
        let error = r#"{"error":{"message":"no","code":402}}"#;
        assert_eq!(translator.error_body(&UpstreamError::in_a_success(error)), error);
        assert_eq!(
            serde_json::from_str::<Value>(&translator.error_body(&UpstreamError::in_a_success("<html>")))
                .unwrap()["error"]["message"],
            "<html>"
        );
    }
}
