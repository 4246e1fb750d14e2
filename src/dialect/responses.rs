//! OpenAI's Responses API, which Codex speaks: <https://openrouter.ai/docs/api/reference/responses/overview>

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::edits::{Edits, Keep, Removed, kept_elements};
use super::files;
use super::free_models::{Kept, ROUTER, ToolRule, with};
use super::merge::{MemoryBudget, append};
use super::responses_as_chat::ResponsesAsChat;
use super::{
    Action, AnswerSummary, Api, Dialect, Needs, Reader, Route, Translated, Usage, given, is_nothing,
};
use super::{Flaw, are_arguments, errors, flaw_of, may_mention, mentions, named_event};
use crate::error::ApiError;
use crate::json::{self, Field, SurrogateJoiner};

/// The declaration of the API.
pub static API: Api = Api {
    name: "responses",
    routes: &[Route::post("/responses", Action::Ask(&Responses))
        .about("OpenAI's Responses API (Codex)")
        .sample(r#"{"input":"Hello"}"#)],
    error_body,
    ..Api::DEFAULT
};

/// Returns the body of an error; the day's limit has the form that Codex shows.
fn error_body(error: &ApiError) -> String {
    let Some(resets_at) = error.resets_at else {
        return error.body();
    };
    let error = json!({
        "message": error.message, "type": "usage_limit_reached", "param": null, "code": error.code,
        "resets_at": resets_at,
    });
    json!({"error": error}).to_string()
}

/// The Responses dialect.
#[derive(Debug)]
pub struct Responses;

/// The tools that stay: those that the client runs, and those that the upstream runs for nothing. Even `shell` is run,
/// and charged, by OpenRouter: <https://openrouter.ai/docs/guides/features/server-tools/shell>
const TOOLS: ToolRule = ToolRule {
    stays: |kind| matches!(kind, Some("function" | "custom" | "namespace" | "apply_patch" | "tool_search")),
    auto: r#""auto""#,
    dependent: &["tool_choice", "parallel_tool_calls"],
};

impl Dialect for Responses {
    fn path(&self) -> &'static str {
        "/responses"
    }

    fn make_free(&self, fields: &[Field<'_>], edits: &mut Edits) -> bool {
        let input = json::field(fields, "input").map(|input| input.value);
        let mut more = Kept::default();
        // Items of the conversation can add tools, too.
        let brings =
            |input: &&str| may_mention(input, "additional_tools") || mentions(input, "tool_search_output");
        match input.filter(brings) {
            Some(list) if list.starts_with('[') => {
                edits.keep_elements("input", list, |item| keep_item(item, &mut more));
            }
            Some(item) => match keep_item(item, &mut more) {
                Keep::AsWritten => {}
                Keep::Rewritten(item) => edits.replace("input", item),
                Keep::Not => edits.drop_field(fields, "input"),
            },
            None => {}
        }
        TOOLS.apply(fields, edits, more);
        files::carried(fields)
    }

    fn needs(&self, fields: &[Field<'_>]) -> Needs {
        Needs {
            tools: given(fields, "tools").is_some(),
            images: given(fields, "input").is_some_and(|input| may_mention(input, "input_image")),
            structured: given(fields, "text").is_some_and(|text| text.contains("json_")),
        }
    }

    fn takes_several_models(&self) -> bool {
        true
    }

    fn turns(&self) -> Option<&'static str> {
        Some("input")
    }

    fn as_chat(&self) -> Option<&'static dyn Translated> {
        Some(&ResponsesAsChat)
    }

    fn names_a_model(&self, body: &str) -> bool {
        errors::names_a_model(&serde_json::from_str::<Value>(body).unwrap_or_default()["error"])
    }

    fn read_answer(&self, body: &str, needs: Needs) -> AnswerSummary {
        let mut summary = AnswerSummary::default();
        match serde_json::from_str::<Response<'_>>(body) {
            Ok(response)
                if response.status.is_some() || response.output.is_some() || response.error.is_some() =>
            {
                response.add_to(&mut summary);
                summary.in_progress = matches!(response.status.as_deref(), Some("in_progress" | "queued"));
                if (needs.tools || needs.structured) && summary.error.is_none() {
                    summary.flaw = response.flaw(needs);
                }
            }
            _ => return AnswerSummary::unreadable(),
        }
        summary
    }

    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        let assembly = assemble.then(Assembly::default);
        Box::new(ResponsesReader { needs, assembly, ..ResponsesReader::default() })
    }
}

/// Decides on an item of the input: one that adds tools keeps those that cost nothing.
fn keep_item(item: &str, kept: &mut Kept) -> Keep {
    let Ok(mut fields) = json::fields(item) else {
        return Keep::AsWritten; // the upstream says what is wrong with it
    };
    let is = |wanted: &str| {
        let kind = |field: &&Field<'_>| {
            field.name == "type" && json::string(field.value).is_some_and(|kind| kind == wanted)
        };
        fields.iter().any(|field| kind(&field))
    };
    let is_result = is("tool_search_output");
    if !is_result && !is("additional_tools") {
        return Keep::AsWritten;
    }
    let rewritten = json::drop_duplicates(&mut fields);
    let tools = json::field(&fields, "tools").map_or("null", |tools| tools.value);
    match kept_elements(tools, |tool| TOOLS.keep(tool, kept)) {
        None if tools == "null" && !rewritten => Keep::AsWritten,
        // The output of a tool search stays, as the result of its call.
        None | Some((_, Removed::All)) if is_result => Keep::Rewritten(with(&fields, "tools", "[]")),
        None | Some((_, Removed::All)) => Keep::Not,
        Some((_, Removed::None)) if rewritten => Keep::Rewritten(json::object(&fields)),
        Some((_, Removed::None)) => Keep::AsWritten,
        Some((list, Removed::Some)) => Keep::Rewritten(with(&fields, "tools", &list)),
    }
}

/// The fields of a response that tell how it went.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    created_at: Option<f64>,
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<Vec<&'a RawValue>>,
}

impl Response<'_> {
    fn add_to(&self, summary: &mut AnswerSummary) {
        if let Some(model) = &self.model {
            summary.model = Some(model.clone().into_owned());
        }
        if let Some(usage) = self.usage {
            summary.usage = usage;
        }
        for item in self.output.iter().flatten() {
            look_at(item.get(), summary);
        }
        match self.status.as_deref() {
            Some("incomplete") => summary.cut_short = true,
            Some("failed" | "cancelled") if summary.error.is_none() => {
                let error = self.error.map_or(r#"{"message":"The response failed."}"#, RawValue::get);
                summary.error = Some(error.to_owned());
            }
            _ if summary.error.is_none() => summary.error = self.error.map(|error| error.get().to_owned()),
            _ => {}
        }
    }

    /// Returns what makes a plain answer useless to a client that offered tools or wanted JSON.
    fn flaw(&self, needs: Needs) -> Option<Flaw> {
        let items = self.output.iter().flatten().map(|item| serde_json::from_str::<Value>(item.get()));
        let items = items.collect::<Result<Vec<_>, _>>().ok()?;
        let mut texts = String::new();
        for item in &items {
            match item["type"].as_str() {
                Some("function_call") if !are_arguments(item["arguments"].as_str().unwrap_or_default()) => {
                    return Some(Flaw::BrokenArguments);
                }
                Some("message") => {
                    let parts = json::items(&item["content"]);
                    texts.extend(parts.filter_map(|part| part["text"].as_str()));
                }
                Some("reasoning") => {}
                _ => return None,
            }
        }
        if texts.is_empty() { None } else { flaw_of(&texts, needs) }
    }
}

/// Notes whether an item is content or reasoning; a message without a word is neither.
fn look_at(item: &str, summary: &mut AnswerSummary) {
    let fields = json::fields(item).unwrap_or_default();
    let kind = json::field(&fields, "type").and_then(|kind| json::string(kind.value));
    match kind.as_deref() {
        Some("message") => summary.has_content |= says_a_word(&fields),
        Some("reasoning") => summary.has_reasoning = true,
        _ => summary.has_content = true,
    }
}

fn says_a_word(message: &[Field<'_>]) -> bool {
    let parts = json::field(message, "content").and_then(|content| json::elements(content.value));
    parts.unwrap_or_default().into_iter().any(|part| {
        let fields = json::fields(part).unwrap_or_default();
        fields.iter().any(|f| matches!(f.name.as_ref(), "text" | "refusal") && !is_nothing(f.value))
    })
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    sequence_number: Option<u64>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
}

#[derive(Default)]
struct ResponsesReader {
    summary: AnswerSummary,
    needs: Needs,
    /// The id of the response that has begun.
    id: Option<String>,
    created_at: u64,
    next_number: u64,
    /// Items that are done, which are sent again if the response breaks off.
    done: Vec<String>,
    done_bytes: usize,
    assembly: Option<Assembly>,
}

/// The most bytes of items that are sent again if the response breaks off.
const MAX_DONE_BYTES: usize = 256 << 10;

impl Reader for ResponsesReader {
    fn read(&mut self, data: Option<&str>) {
        let Some(data) = data else {
            self.summary.has_content = true; // an event this long has content
            self.next_number += 1;
            return;
        };
        // Of a thousand tokens only the first tells anything new.
        let is_known = self.summary.has_content && self.summary.says_something();
        if is_known && self.assembly.is_none() && is_delta(data) {
            self.next_number = number_of(data).unwrap_or(self.next_number) + 1;
            return;
        }
        let Ok(event) = serde_json::from_str::<Event<'_>>(data) else {
            return; // `[DONE]`, or data that the client couldn't read either
        };
        self.next_number = event.sequence_number.unwrap_or(self.next_number) + 1;
        let response =
            event.response.and_then(|response| serde_json::from_str::<Response<'_>>(response.get()).ok());
        if let Some(response) = &response {
            self.id = response.id.as_ref().map(ToString::to_string).or(self.id.take());
            self.created_at = response.created_at.map_or(self.created_at, |at| at as u64);
            response.add_to(&mut self.summary);
        }
        let fails = |summary: &mut AnswerSummary, error: Option<&str>| {
            summary.done = true;
            if summary.error.is_none() {
                summary.error = Some(error.unwrap_or(data).to_owned());
            }
        };
        let error = event.error.map(RawValue::get).filter(|error| *error != "null");
        match event.kind.as_deref() {
            Some("response.created" | "response.in_progress" | "response.queued" | "ping") => {}
            Some("response.completed" | "response.done") => {
                self.summary.finished = true;
                self.summary.done = true;
            }
            Some("response.incomplete") => {
                self.summary.cut_short = true;
                self.summary.done = true;
            }
            Some("response.failed" | "response.error" | "error") => fails(&mut self.summary, error),
            None if error.is_some() => fails(&mut self.summary, error),
            Some("response.output_text.delta") => {
                let delta = event.delta.and_then(|delta| json::string(delta.get())).unwrap_or_default();
                self.summary.has_content |= !delta.is_empty();
                if self.needs.tools {
                    self.summary.read_opening(&delta);
                }
            }
            Some(kind) if kind.starts_with("response.reasoning") => self.summary.has_reasoning = true,
            // If tools are offered, a text could become a call that is written as text.
            Some("response.content_part.added") if self.needs.tools => {}
            Some("response.output_item.added") if self.needs.tools => {
                let mut added = AnswerSummary::default();
                event.item.iter().for_each(|item| look_at(item.get(), &mut added));
                self.summary.has_reasoning |= added.has_reasoning;
                if added.has_content {
                    self.summary.read_other_content();
                }
            }
            Some("response.output_item.added") => {
                let is_thought = event.item.is_some_and(|item| mentions(item.get(), r#""reasoning""#));
                self.summary.has_reasoning |= is_thought;
                self.summary.has_content |= !is_thought;
            }
            Some(kind) if kind.starts_with("response.") => {
                self.summary.has_content = true;
                let item = event.item.filter(|_| kind == "response.output_item.done").map(RawValue::get);
                if let Some(item) = item.filter(|item| self.done_bytes + item.len() <= MAX_DONE_BYTES) {
                    self.done_bytes += item.len();
                    self.done.push(item.to_owned());
                }
            }
            _ => {}
        }
        if let (Some(assembly), Some(kind)) = (&mut self.assembly, event.kind.as_deref()) {
            assembly.add(kind, data);
        }
    }

    fn summary(&self) -> &AnswerSummary {
        &self.summary
    }

    /// If no response has begun yet, one begins and fails: SDKs accept no other event first.
    fn broken_off(&self, error: &ApiError) -> String {
        let done = self.done.iter().filter_map(|item| serde_json::from_str::<Value>(item).ok());
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (begun, id, created_at) = match &self.id {
            Some(id) => (true, id.clone(), self.created_at),
            None => (false, format!("resp_proxy_{}", now().as_micros()), now().as_secs()),
        };
        let model = self.summary.model.as_deref().unwrap_or(ROUTER);
        let mut event = json!({
            "type": "response.failed",
            "sequence_number": self.next_number,
            "response": {
                "id": id, "object": "response", "created_at": created_at, "model": model,
                "status": "failed", "error": {"code": "server_error", "message": error.message},
                "incomplete_details": null, "instructions": null, "metadata": {},
                "output": done.collect::<Vec<_>>(),
                "parallel_tool_calls": true, "temperature": null, "tool_choice": "auto", "tools": [], "top_p": null,
                "usage": null,
            },
        });
        if begun {
            return named_event(&event);
        }
        let mut first = event.clone();
        first["type"] = json!("response.created");
        first["response"]["status"] = json!("in_progress");
        first["response"]["error"] = Value::Null;
        event["sequence_number"] = json!(self.next_number + 1);
        named_event(&first) + &named_event(&event)
    }

    fn answer(self: Box<Self>) -> Option<Value> {
        self.assembly?.finish()
    }
}

/// Whether an event is a piece of something that has begun: `{"type":"response.output_text.delta",…`.
fn is_delta(data: &str) -> bool {
    let kind = data.strip_prefix(r#"{"type":"response."#).and_then(|rest| rest.split('"').next());
    kind.is_some_and(|kind| kind.ends_with(".delta"))
}

/// Returns the `sequence_number` of a delta. The model's text can't look like it, as its quotes are escaped.
fn number_of(data: &str) -> Option<u64> {
    const NAME: &str = r#""sequence_number":"#;
    let behind = data[memchr::memmem::find(data.as_bytes(), NAME.as_bytes())? + NAME.len()..].trim_start();
    let end = behind.bytes().position(|b| !b.is_ascii_digit())?;
    behind[..end].parse().ok()
}

/// The response that is put together from a stream. Its last event holds all of it, but `output` may be empty there
/// though text was streamed.
#[derive(Default)]
struct Assembly {
    response: Option<Value>,
    items: BTreeMap<u64, Value>,
    parts: usize,
    halves: SurrogateJoiner,
    room: MemoryBudget,
}

impl Assembly {
    fn add(&mut self, kind: &str, data: &str) {
        // The last event repeats the whole response, which is no larger than an event may be.
        let is_last = !kind.ends_with(".delta") && kind.matches('.').count() == 1;
        if !self.room.is_left() && !is_last {
            return;
        }
        let Some(mut event) = self.halves.parse(data) else {
            return;
        };
        let number = |name: &str| event[name].as_u64().unwrap_or(0);
        let (output, content, summary) =
            (number("output_index"), number("content_index") as usize, number("summary_index") as usize);
        let delta = event["delta"].as_str().unwrap_or_default().to_owned();
        match kind {
            "response.output_item.added" | "response.output_item.done" => {
                let (item, room) = self.item(output);
                room.replace(item, event["item"].take());
            }
            "response.content_part.added" => {
                if let Some((part, room)) = self.part(output, "content", content) {
                    room.replace(part, event["part"].take());
                }
            }
            "response.output_text.delta" | "response.content_part.delta" => {
                self.text(output, "content", content, "output_text", "text", &delta);
            }
            "response.refusal.delta" => self.text(output, "content", content, "refusal", "refusal", &delta),
            "response.reasoning_text.delta" => {
                self.text(output, "content", content, "reasoning_text", "text", &delta);
            }
            "response.reasoning_summary_text.delta" => {
                self.text(output, "summary", summary, "summary_text", "text", &delta);
            }
            "response.function_call_arguments.delta" => {
                let (item, room) = self.item(output);
                append(item, "arguments", &delta, room);
            }
            "response.custom_tool_call_input.delta" => {
                let (item, room) = self.item(output);
                append(item, "input", &delta, room);
            }
            _ if event["response"].is_object() => self.response = Some(event["response"].take()),
            _ => {}
        }
    }

    fn item(&mut self, index: u64) -> (&mut Value, &mut MemoryBudget) {
        (self.items.entry(index).or_insert_with(|| json!({})), &mut self.room)
    }

    /// Returns the part at this place in one of an item's lists.
    fn part(&mut self, output: u64, list: &str, index: usize) -> Option<(&mut Value, &mut MemoryBudget)> {
        /// The most parts of all items: no real answer has more.
        const MAX_PARTS: usize = 4096;
        let left = MAX_PARTS.saturating_sub(self.parts);
        let item = self.items.entry(output).or_insert_with(|| json!({}));
        let parts = item.as_object_mut()?.entry(list).or_insert_with(|| json!([])).as_array_mut()?;
        let missing = index.saturating_add(1).saturating_sub(parts.len());
        if missing > left {
            return None;
        }
        self.parts += missing;
        parts.extend(std::iter::repeat_with(|| json!({})).take(missing));
        Some((parts.get_mut(index)?, &mut self.room))
    }

    fn text(&mut self, output: u64, list: &str, index: usize, kind: &str, name: &str, delta: &str) {
        let Some((part, room)) = self.part(output, list, index) else { return };
        if let Some(object) = part.as_object_mut() {
            object.entry("type").or_insert_with(|| json!(kind));
        }
        append(part, name, delta, room);
    }

    fn finish(self) -> Option<Value> {
        let items = self.items.into_values().collect::<Vec<_>>();
        let mut response = match self.response {
            Some(response) => response,
            None if items.is_empty() => return None,
            None => json!({"object": "response"}),
        };
        if response["output"].as_array().is_none_or(Vec::is_empty) {
            response["output"] = Value::Array(items);
        }
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model_name::Rule;
    use super::super::request::Request;
    use super::*;

    fn sent(body: &str) -> String {
        let rule = Rule { default_model: ROUTER, ..Rule::default() };
        let request = Request::parse(&Responses, body.to_owned(), &rule).unwrap();
        String::from_utf8(request.body(&request.model).into_owned()).unwrap()
    }

    #[test]
    fn only_tools_that_cost_nothing_stay() {
        let free = r#"{"model":"a:free","tools":[{"type":"function","name":"f"},{"type":"custom","name":"c"},{"type":"apply_patch"},{"type":"namespace","name":"n","tools":[{"type":"function","name":"g"}]}],"tool_choice":"auto"}"#;
        assert_eq!(sent(free), free);
        for paid in
            ["web_search", "shell", "local_shell", "mcp", "image_generation", "openrouter:bash", "new"]
        {
            let tools = format!(r#"[{{"type":"{paid}"}},{{"type":"function","name":"f"}}]"#);
            assert_eq!(
                sent(&format!(r#"{{"model":"a:free","tools":{tools},"tool_choice":{{"type":"{paid}"}}}}"#)),
                r#"{"model":"a:free","tools":[{"type":"function","name":"f"}],"tool_choice":"auto"}"#
            );
            let hidden = format!(
                r#"{{"model":"a:free","tools":[{{"type":"namespace","name":"n","tools":[{{"type":"{paid}"}}]}}],"tool_choice":"auto"}}"#
            );
            assert_eq!(sent(&hidden), r#"{"model":"a:free"}"#);
            let on_the_way = format!(
                r#"{{"model":"a:free","input":[{{"type":"additional_tools","tools":{tools}}},{{"role":"user","content":"x"}}]}}"#
            );
            assert_eq!(
                sent(&on_the_way),
                r#"{"model":"a:free","input":[{"type":"additional_tools","tools":[{"type":"function","name":"f"}]},{"role":"user","content":"x"}]}"#
            );
        }
        let escaped = r#"{"model":"a:free","input":[{"t\u0079pe":"additional\u005ftools","tools":[{"type":"web_search"}]},1]}"#;
        assert_eq!(sent(escaped), r#"{"model":"a:free","input":[1]}"#);
        assert_eq!(
            sent(
                r#"{"model":"a:free","tools":[{"type":"mcp"},{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"mcp"},{"type":"function","name":"f"}]}}"#
            ),
            r#"{"model":"a:free","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}}"#
        );
    }

    #[test]
    fn files_get_the_free_engine_wherever_they_are() {
        for input in [
            r#"[{"role":"user","content":[{"type":"input_file","file_url":"https://x/y.pdf"}]}]"#,
            r#"[{"type":"function_call_output","call_id":"c","output":[{"type":"input_file","file_data":"x"}]}]"#,
            r#"[{"role":"user","content":[{"type":"input_image","image_url":"data:application/pdf;base64,x"}]}]"#,
        ] {
            let sent = sent(&format!(r#"{{"model":"a:free","input":{input}}}"#));
            assert!(
                sent.ends_with(r#""plugins":[{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}]}"#),
                "{sent}"
            );
        }
        let image = r#"{"model":"a:free","input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,file"}]}]}"#;
        assert_eq!(sent(image), image);
    }

    fn read(events: &[Value], assemble: bool) -> Box<dyn Reader> {
        let mut reader = Responses.reader(assemble, Needs::default());
        events.iter().for_each(|event| reader.read(Some(&event.to_string())));
        reader
    }

    fn begun() -> Vec<Value> {
        vec![
            json!({"type": "response.created", "sequence_number": 0, "response": {"id": "r", "created_at": 7, "model": "m:free", "status": "in_progress", "output": []}}),
            json!({"type": "response.in_progress", "sequence_number": 1, "response": {"id": "r", "model": "m:free", "status": "in_progress", "output": []}}),
        ]
    }

    #[test]
    fn what_events_say() {
        let mut events = begun();
        assert!(!read(&events, false).summary().has_content);
        events.push(json!({"type": "response.output_item.added", "sequence_number": 2, "output_index": 0, "item": {"type": "message", "content": []}}));
        assert!(read(&events, false).summary().has_content);
        let needs = Needs { tools: true, ..Needs::default() };
        let mut reader = Responses.reader(false, needs);
        events.iter().for_each(|event| reader.read(Some(&event.to_string())));
        assert!(!reader.summary().has_content, "it may become a tool call that is written as text");
        for number in 3..6 {
            events.push(json!({"type": "response.output_text.delta", "sequence_number": number, "output_index": 0, "content_index": 0, "delta": "x"}));
        }
        let reader = read(&events, false);
        assert!(!reader.summary().done);
        let broken = reader.broken_off(&ApiError::stopping());
        assert!(
            broken.starts_with("event: response.failed\ndata: {") && broken.ends_with("}\n\n"),
            "{broken}"
        );
        assert!(broken.contains(r#""sequence_number":6"#) && broken.contains(r#""id":"r""#), "{broken}");
        events.push(json!({"type": "response.completed", "sequence_number": 6, "response": {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 3}}}));
        let reader = read(&events, true);
        assert!(reader.summary().done && reader.summary().usage.completion_tokens == Some(3));
        let answer = reader.answer().unwrap();
        assert_eq!(answer["output"][0]["content"][0]["text"], "xxx", "although the last event has none");
    }

    #[test]
    fn errors_in_all_four_forms() {
        for (event, message) in [
            (
                json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error", "message": "m"}}}),
                "m",
            ),
            (
                json!({"type": "response.error", "error": {"code": "rate_limit_exceeded", "message": "m"}}),
                "m",
            ),
            (json!({"type": "error", "error": {"message": "m"}}), "m"),
            (json!({"type": "error", "code": "server_error", "message": "m", "sequence_number": 2}), "m"),
            (json!({"error": {"code": 429, "message": "m"}}), "m"),
        ] {
            let mut events = begun();
            events.push(event.clone());
            let reader = read(&events, false);
            let error = reader.summary().error.clone().unwrap();
            assert_eq!(super::super::errors::message(&error), message, "{event}");
            assert!(reader.summary().done && !reader.summary().has_content);
        }
        let plain =
            r#"{"id":"r","status":"failed","output":[],"error":{"code":"server_error","message":"m"}}"#;
        assert!(Responses.read_answer(plain, Needs::default()).error.is_some());
    }

    #[test]
    fn plain_answers_with_nothing_in_them() {
        let summary = |output: &str| {
            Responses.read_answer(
                &format!(r#"{{"status":"completed","model":"m:free","output":{output}}}"#),
                Needs::default(),
            )
        };
        for nothing in
            ["[]", r#"[{"type":"message","content":[]}]"#, r#"[{"type":"message","content":[{"text":""}]}]"#]
        {
            assert!(!summary(nothing).is_an_answer(), "{nothing}");
        }
        assert!(summary(r#"[{"type":"function_call","name":"f"}]"#).has_content);
        assert!(
            Responses.read_answer(r#"{"status":"incomplete","output":[]}"#, Needs::default()).is_an_answer()
        );
    }
}
