//! Anthropic's Messages API, which Claude Code speaks: <https://docs.anthropic.com/en/api/messages>

use std::borrow::Cow;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::anthropic_error::error_object;
use super::edits::Edits;
use super::files;
use super::free_models::{Kept, ToolRule};
use super::merge::{MemoryBudget, append};
use super::messages_as_chat::MessagesAsChat;
use super::request::elsewhere;
use super::{
    Action, AnswerSummary, Api, CHAT_MODELS, Dialect, Listed, Needs, Reader, Route, Show, Usage, given,
};
use super::{Flaw, errors, flaw_of, may_mention, mentions, named_event};
use super::{Translated, text, tokens};
use crate::error::ApiError;
use crate::json::{self, Field, SurrogateJoiner, items};

/// The shortest request.
const SAMPLE: &str = r#"{"max_tokens":1000,"messages":[{"role":"user","content":"Hello"}]}"#;

/// The declaration of the API.
pub static API: Api = Api {
    name: "messages",
    routes: &[
        Route::post("/messages", Action::Ask(&Messages))
            .about("Anthropic's Messages API (Claude Code)")
            .sample(SAMPLE),
        Route::post("/messages/count_tokens", Action::Local(count_tokens)).sample(SAMPLE),
        Route::get("/models", Action::List(CHAT_MODELS, list)),
        Route::get("/models/{model}", Action::Show(Show { named_in: None, any_name: false, write: show })),
    ],
    identifying_headers: &["anthropic-version"],
    key_headers: &["x-api-key"],
    error_body: |error| error_object(error).to_string(),
    ..Api::DEFAULT
};

/// Writes OpenAI's list with the fields that Anthropic's SDK needs in addition.
fn list(models: &[Listed<'_>]) -> String {
    let data = models.iter().map(|model| show(model, "")).collect::<Vec<_>>().join(",");
    let [first, last] = [models.first(), models.last()].map(|model| model.map(|model| model.id));
    let [first, last] = [first, last].map(|id| id.map_or("null".into(), json::quoted));
    let (count, more) = (models.len(), format!(r#""has_more":false,"first_id":{first},"last_id":{last}"#));
    format!(r#"{{"object":"list","data":[{data}],"total_count":{count},"links":{{"next":null}},{more}}}"#)
}

fn show(model: &Listed<'_>, _: &str) -> String {
    let created = DateTime::from_timestamp(model.created as i64, 0).unwrap_or_default();
    let (name, created) = (json::quoted(model.name), created.format("%Y-%m-%dT%H:%M:%SZ"));
    let object = model.json.strip_suffix('}').unwrap_or(model.json);
    format!(r#"{object},"type":"model","display_name":{name},"created_at":"{created}"}}"#)
}

/// The Messages dialect.
#[derive(Debug)]
pub struct Messages;

/// The tokens of a message in addition to its content.
const TOKENS_AROUND_A_MESSAGE: u64 = 3;
/// The tokens of an image of most sizes: width times height divided by 750, at most 1,600
/// (<https://docs.anthropic.com/en/docs/build-with-claude/vision>).
pub const TOKENS_OF_AN_IMAGE: u64 = 1500;
/// The bytes for each token of a PDF in base64, roughly: a page has 1,500 to 3,000 tokens.
pub const PDF_BYTES_A_TOKEN: u64 = 30;

/// The tools that stay, which the client runs: its own, and those that Anthropic has defined for clients. All others
/// are run, and charged, by somebody else.
const TOOLS: ToolRule = ToolRule {
    stays: |kind| match kind {
        None | Some("custom") => true,
        Some(kind) => {
            let client_run = ["bash_", "text_editor_", "computer_", "memory_", "tool_search_tool_"];
            client_run.iter().any(|prefix| kind.starts_with(prefix))
        }
    },
    auto: r#"{"type":"auto"}"#,
    dependent: &["tool_choice"],
};

impl Dialect for Messages {
    fn path(&self) -> &'static str {
        "/messages"
    }

    fn make_free(&self, fields: &[Field<'_>], edits: &mut Edits) -> bool {
        TOOLS.apply(fields, edits, Kept::default());
        for server_run in ["mcp_servers", "container"] {
            edits.drop_field(fields, server_run);
        }
        files::carried(fields)
    }

    fn needs(&self, fields: &[Field<'_>]) -> Needs {
        let structured = |name| given(fields, name).is_some_and(|format| format.contains("json_"));
        Needs {
            tools: given(fields, "tools").is_some(),
            images: given(fields, "messages").is_some_and(|messages| may_mention(messages, r#""image""#)),
            structured: structured("output_config") || structured("output_format"),
        }
    }

    fn takes_several_models(&self) -> bool {
        true
    }

    fn turns(&self) -> Option<&'static str> {
        Some("messages")
    }

    /// Whether `thread` is `{"type":"continue","previous_message_id":…}`: then Anthropic's SDKs send only what is new,
    /// and everything once they are told that there are no threads ([`NO_THREADS`](crate::error::NO_THREADS)). A
    /// request that only begins a thread (`"create"`) has everything anyway.
    fn wants_a_kept_conversation(&self, fields: &[Field<'_>]) -> bool {
        let thread = given(fields, "thread").and_then(|thread| serde_json::from_str::<Value>(thread).ok());
        thread.is_some_and(|thread| thread["type"] == "continue")
    }

    /// Anthropic's clients have a list of their own: <https://openrouter.ai/docs/guides/routing/model-fallbacks>
    fn has_fallbacks(&self) -> bool {
        true
    }

    /// Anthropic's clients send `?beta=true`.
    fn forwards_query(&self) -> bool {
        true
    }

    /// Anthropic's API has `top_k`, too.
    fn elsewhere<'a>(&self, field: &Field<'a>) -> Option<Cow<'a, str>> {
        if field.name == "top_k" { Some(Cow::Borrowed(field.value)) } else { elsewhere(field) }
    }

    fn as_chat(&self) -> Option<&'static dyn Translated> {
        Some(&MessagesAsChat)
    }

    fn names_a_model(&self, body: &str) -> bool {
        let body = serde_json::from_str::<Value>(body).unwrap_or_default();
        body["type"] == "error" && errors::names_a_model(&body["error"])
    }

    fn read_answer(&self, body: &str, needs: Needs) -> AnswerSummary {
        let mut summary = AnswerSummary::default();
        match serde_json::from_str::<Message<'_>>(body) {
            Ok(message) if message.content.is_some() || message.error.is_some() => {
                message.add_to(&mut summary);
                if (needs.tools || needs.structured) && summary.error.is_none() {
                    summary.flaw = message.flaw(needs);
                }
            }
            _ => return AnswerSummary::unreadable(),
        }
        summary
    }

    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        let assembly = assemble.then(Assembly::default);
        Box::new(MessagesReader { needs, assembly, ..MessagesReader::default() })
    }
}

/// Counts the tokens of a request's system, tools and messages without asking a model: `{"input_tokens": N}`. `address`
/// is where the request was sent to.
fn count_tokens(body: Vec<u8>, address: &str) -> Result<String, ApiError> {
    let text = text::decode(body, &|| address.to_owned())?;
    let count = text::with_tree(&text, || count_tokens_of(&text))?;
    let count = count.map_err(|error| text::not_an_object(&text, &error, address, SAMPLE))?;
    Ok(format!(r#"{{"input_tokens":{count}}}"#))
}

fn count_tokens_of(body: &str) -> serde_json::Result<u64> {
    let fields = json::fields(body)?;
    let part = |name| json::field(&fields, name).and_then(|part| serde_json::from_str(part.value).ok());
    let [system, tools, messages] = ["system", "tools", "messages"].map(part).map(Option::unwrap_or_default);
    let tools = items(&tools).map(|tool| tokens::estimate(&tool.to_string())).sum::<u64>();
    let messages = items(&messages).map(|message| TOKENS_AROUND_A_MESSAGE + tokens_of(&message["content"]));
    Ok(TOKENS_AROUND_A_MESSAGE + tokens_of(&system) + tools + messages.sum::<u64>())
}

/// Estimates how many tokens the model sees of a text or of blocks: not of the JSON around them, and not of an image's
/// base64.
fn tokens_of(content: &Value) -> u64 {
    if let Value::String(text) = content {
        return tokens::estimate(text);
    }
    let of_block = |block: &Value| match block["type"].as_str() {
        Some("image") => TOKENS_OF_AN_IMAGE,
        Some("document") => match block["source"]["data"].as_str() {
            Some(data) if block["source"]["type"] == "base64" => data.len() as u64 / PDF_BYTES_A_TOKEN,
            Some(text) => tokens::estimate(text),
            None => tokens_of(&block["source"]["content"]),
        },
        Some("tool_use") => {
            tokens::estimate(block["name"].as_str().unwrap_or_default())
                + tokens::estimate(&block["input"].to_string())
        }
        _ => ["text", "thinking", "content"].into_iter().map(|part| tokens_of(&block[part])).sum(),
    };
    items(content).map(of_block).sum()
}

/// The fields of a message that tell how it went.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Message<'_> {
    fn add_to(&self, summary: &mut AnswerSummary) {
        summary.model = self.model.as_ref().map(ToString::to_string);
        summary.usage = self.usage.unwrap_or_default();
        summary.error = self.error.map(|error| error.get().to_owned());
        for block in self.content.iter().flatten() {
            look_at(block.get(), summary);
        }
        stopped(self.stop_reason.as_deref(), summary);
    }

    /// Returns what makes a plain answer useless to a client that offered tools or wanted JSON.
    fn flaw(&self, needs: Needs) -> Option<Flaw> {
        let blocks = self.content.iter().flatten().map(|block| serde_json::from_str::<Value>(block.get()));
        let blocks = blocks.collect::<Result<Vec<_>, _>>().ok()?;
        let texts = blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>();
        let calls =
            blocks.iter().any(|block| block["type"].as_str().is_some_and(|kind| kind.ends_with("tool_use")));
        if calls || texts.is_empty() { None } else { flaw_of(&texts.concat(), needs) }
    }
}

fn stopped(reason: Option<&str>, summary: &mut AnswerSummary) {
    summary.cut_short |=
        matches!(reason, Some("max_tokens" | "refusal" | "pause_turn" | "model_context_window_exceeded"));
}

/// Notes whether a block is content or reasoning; a text or a thought without a word is neither.
fn look_at(block: &str, summary: &mut AnswerSummary) {
    let fields = json::fields(block).unwrap_or_default();
    let kind = json::field(&fields, "type").and_then(|kind| json::string(kind.value));
    let holds = |name: &str| given(&fields, name).is_some();
    match kind.as_deref() {
        Some("text") => summary.has_content |= holds("text"),
        Some("thinking") => summary.has_reasoning |= holds("thinking") || holds("signature"),
        Some("redacted_thinking") => summary.has_reasoning = true,
        _ => summary.has_content = true,
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// The fields of a block's delta that tell what it adds.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

#[derive(Default)]
struct MessagesReader {
    summary: AnswerSummary,
    needs: Needs,
    assembly: Option<Assembly>,
}

impl Reader for MessagesReader {
    fn read(&mut self, data: Option<&str>) {
        let Some(data) = data else {
            self.summary.has_content = true; // an event this long has content
            return;
        };
        // Of a thousand tokens only the first tells anything new.
        let is_delta = data.starts_with(r#"{"type":"content_block_delta""#);
        let is_known = self.summary.has_content && self.summary.says_something();
        if is_known && self.assembly.is_none() && is_delta {
            return;
        }
        let Ok(event) = serde_json::from_str::<Event<'_>>(data) else {
            return; // `[DONE]`, or data that the client couldn't read either
        };
        match event.kind.as_deref() {
            Some("message_start") => {
                let message = event.message.and_then(|m| serde_json::from_str::<Message<'_>>(m.get()).ok());
                if let Some(message) = message {
                    message.add_to(&mut self.summary);
                }
            }
            Some("message_delta") => {
                let delta =
                    event.delta.and_then(|delta| serde_json::from_str::<Message<'_>>(delta.get()).ok());
                stopped(delta.as_ref().and_then(|delta| delta.stop_reason.as_deref()), &mut self.summary);
                // These are totals, which replace those of the beginning if they are given.
                let usage = event.usage.unwrap_or_default();
                let known = self.summary.usage;
                self.summary.usage = Usage {
                    prompt_tokens: usage.prompt_tokens.or(known.prompt_tokens),
                    completion_tokens: usage.completion_tokens.or(known.completion_tokens),
                };
            }
            Some("message_stop") => self.summary.done = true,
            Some("ping") => {}
            Some("content_block_start") => {
                if let Some(block) = event.content_block {
                    let mut started = AnswerSummary::default();
                    look_at(block.get(), &mut started);
                    self.summary.has_reasoning |= started.has_reasoning;
                    if started.has_content {
                        self.summary.read_other_content();
                    }
                    // If tools are offered, a text could become a call that is written as text.
                    self.summary.has_content |= !self.needs.tools && mentions(block.get(), r#""text""#);
                    // The beginning of a block already tells that it is reasoning.
                    self.summary.has_reasoning |= mentions(block.get(), r#""thinking""#);
                }
            }
            Some("content_block_delta") => {
                let delta = event.delta.and_then(|delta| serde_json::from_str::<Delta<'_>>(delta.get()).ok());
                match delta {
                    Some(delta) if delta.kind == "text_delta" && delta.text.is_empty() => {}
                    Some(delta) if delta.kind == "text_delta" => {
                        self.summary.has_content = true;
                        if self.needs.tools {
                            self.summary.read_opening(&delta.text);
                        }
                    }
                    Some(delta) if matches!(&*delta.kind, "thinking_delta" | "signature_delta") => {
                        self.summary.has_reasoning = true;
                    }
                    _ => self.summary.has_content = true,
                }
            }
            _ if event.error.is_some() => {
                self.summary.done = true;
                if self.summary.error.is_none() {
                    self.summary.error = event.error.map(|error| error.get().to_owned());
                }
            }
            _ => {}
        }
        if let Some(assembly) = &mut self.assembly {
            assembly.add(data);
        }
    }

    fn summary(&self) -> &AnswerSummary {
        &self.summary
    }

    fn broken_off(&self, error: &ApiError) -> String {
        named_event(&json!({"type": "error", "error": {"type": "api_error", "message": error.message}}))
    }

    fn answer(self: Box<Self>) -> Option<Value> {
        self.assembly?.finish()
    }
}

/// The message that is put together from a stream.
#[derive(Default)]
struct Assembly {
    message: Map<String, Value>,
    blocks: Vec<Value>,
    /// The JSON of the tools' input, which comes in pieces that aren't JSON.
    inputs: Vec<String>,
    halves: SurrogateJoiner,
    room: MemoryBudget,
}

impl Assembly {
    fn add(&mut self, data: &str) {
        if !self.room.is_left() {
            return;
        }
        let Some(mut event) = self.halves.parse(data) else {
            return;
        };
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                if let Value::Object(message) = event["message"].take() {
                    self.message = message;
                }
            }
            "content_block_start" => {
                let value = event["content_block"].take();
                let (block, _, room) = self.block(&event["index"]);
                room.replace(block, value);
            }
            "content_block_delta" => {
                let delta = event["delta"].take();
                let (block, input, room) = self.block(&event["index"]);
                let text = |name: &str| delta[name].as_str().unwrap_or_default();
                match delta["type"].as_str().unwrap_or_default() {
                    "text_delta" => append(block, "text", text("text"), room),
                    "thinking_delta" => append(block, "thinking", text("thinking"), room),
                    "signature_delta" => append(block, "signature", text("signature"), room),
                    "input_json_delta" => room.push_str(input, text("partial_json")),
                    _ => {}
                }
            }
            "message_delta" => {
                for part in ["delta", "usage"] {
                    let Value::Object(more) = event[part].take() else { continue };
                    let target = match part {
                        "usage" => self.message.entry("usage").or_insert(json!({})).as_object_mut(),
                        _ => Some(&mut self.message),
                    };
                    if let Some(target) = target {
                        let told = more.into_iter().filter(|(_, value)| !value.is_null());
                        told.for_each(|(name, value)| self.room.insert(target, name, value));
                    }
                }
            }
            _ => {}
        }
    }

    fn block(&mut self, index: &Value) -> (&mut Value, &mut String, &mut MemoryBudget) {
        /// No real answer has more blocks.
        const MAX_BLOCKS: usize = 4096;
        let index = (index.as_u64().unwrap_or(0) as usize).min(MAX_BLOCKS);
        while self.blocks.len() <= index {
            self.blocks.push(json!({}));
            self.inputs.push(String::new());
        }
        (&mut self.blocks[index], &mut self.inputs[index], &mut self.room)
    }

    fn finish(mut self) -> Option<Value> {
        if self.message.is_empty() && self.blocks.is_empty() {
            return None;
        }
        for (block, input) in self.blocks.iter_mut().zip(self.inputs) {
            if let (false, Value::Object(block)) = (input.is_empty(), block) {
                // Input that was cut off isn't JSON; it is shown as it came.
                let input = serde_json::from_str(&input).unwrap_or(Value::String(input));
                block.insert("input".into(), input);
            }
        }
        self.message.insert("content".into(), self.blocks.into());
        Some(Value::Object(self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::free_models::ROUTER;
    use super::super::model_name::Rule;
    use super::super::request::Request;
    use super::*;

    fn sent(body: &str) -> String {
        let rule = Rule { default_model: ROUTER, ..Rule::default() };
        let request = Request::parse(&Messages, body.to_owned(), &rule).unwrap();
        String::from_utf8(request.body(&request.model).into_owned()).unwrap()
    }

    #[test]
    fn what_costs_money_goes() {
        let free = r#"{"model":"a:free","tools":[{"name":"t","input_schema":{}},{"type":"custom","name":"c"},{"type":"bash_20250124","name":"bash"},{"type":null,"name":"n"}],"tool_choice":{"type":"any"},"fallbacks":[{"model":"b:free"}]}"#;
        assert_eq!(sent(free), free);
        for paid in [
            "web_search_20250305",
            "web_fetch_20250910",
            "code_execution_20250825",
            "advisor_20260301",
            "mcp_toolset",
            "openrouter:web_search",
        ] {
            assert_eq!(
                sent(&format!(
                    r#"{{"model":"a:free","tools":[{{"type":"{paid}","name":"p"}}],"tool_choice":{{"type":"any"}}}}"#
                )),
                r#"{"model":"a:free"}"#
            );
            assert_eq!(
                sent(&format!(
                    r#"{{"model":"a:free","tools":[{{"type":"{paid}","name":"p"}},{{"name":"t"}}],"tool_choice":{{"type":"tool","name":"p"}}}}"#
                )),
                r#"{"model":"a:free","tools":[{"name":"t"}],"tool_choice":{"type":"auto"}}"#
            );
        }
        assert_eq!(
            sent(
                r#"{"model":"claude-x","mcp_servers":[{}],"container":{},"speed":"fast","service_tier":"auto","fallbacks":[{"model":"claude-y"},{"model":"b:free"}],"n":1}"#
            ),
            r#"{"model":"b:free","fallbacks":[{"model":"b:free"}],"n":1}"#
        );
        assert_eq!(
            sent(r#"{"model":"a:free","fallbacks":[{"model":"b:free","m\u006fdel":"claude-y"}]}"#),
            r#"{"model":"a:free"}"#
        );
    }

    #[test]
    fn documents_that_need_a_parser_get_the_free_one() {
        let with = |content: &str| {
            format!(r#"{{"model":"a:free","messages":[{{"role":"user","content":{content}}}]}}"#)
        };
        for content in [
            r#"[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"x"}}]"#,
            r#"[{"type":"document","source":{"type":"url","url":"https://x/y"}}]"#,
            r#"[{"type":"docum\u0065nt","source":{"type":"file","file_id":"f"}}]"#,
            r#"[{"type":"document","source":{"type":"text","type":"base64","data":"x"}}]"#,
            r#"[{"type":"tool_result","content":[{"type":"document","source":{"type":"base64","data":"x"}}]}]"#,
            r#"[{"type":"image","source":{"type":"base64","media_type":"application/pdf","data":"x"}}]"#,
        ] {
            let sent = sent(&with(content));
            assert!(
                sent.ends_with(r#""plugins":[{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}]}"#),
                "{sent}"
            );
        }
        for content in [
            r#"[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"a pdf"}}]"#,
            r#"[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"document"}}]"#,
            r#""a document, a pdf""#,
        ] {
            assert_eq!(sent(&with(content)), with(content));
        }
    }

    fn read(events: &[Value], assemble: bool) -> Box<dyn Reader> {
        let mut reader = Messages.reader(assemble, Needs::default());
        events.iter().for_each(|event| reader.read(Some(&event.to_string())));
        reader
    }

    #[test]
    fn what_events_say() {
        let mut events = vec![
            json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "x:free", "content": [], "usage": {"input_tokens": 5, "output_tokens": 0}}}),
            json!({"type": "ping"}),
        ];
        assert!(!read(&events, false).summary().has_content);
        let stopped = |reason: &str| json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9, "input_tokens": null}});
        let mut empty = events.clone();
        empty.push(stopped("end_turn"));
        empty.push(json!({"type": "message_stop"}));
        let summary = read(&empty, false).summary().clone();
        assert!(summary.done && !summary.is_an_answer());
        empty[2] = stopped("max_tokens");
        assert!(read(&empty, false).summary().is_an_answer());
        events.extend([
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
            json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ":1}"}}),
            stopped("tool_use"),
            json!({"type": "message_stop"}),
        ]);
        let reader = read(&events, true);
        let summary = reader.summary();
        assert!(summary.has_content && summary.done && summary.model.as_deref() == Some("x:free"));
        assert_eq!(summary.usage, Usage { prompt_tokens: Some(5), completion_tokens: Some(9) });
        let expected = json!({
            "id": "m", "type": "message", "role": "assistant", "model": "x:free",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
            "usage": {"input_tokens": 5, "output_tokens": 9}, "stop_reason": "tool_use",
        });
        assert_eq!(reader.answer(), Some(expected));
    }

    #[test]
    fn errors() {
        let reader =
            read(&[json!({"type": "error", "error": {"type": "overloaded_error", "message": "m"}})], false);
        assert!(reader.summary().error.is_some() && reader.summary().done);
        assert_eq!(
            reader.broken_off(&ApiError::stopping()).split('\n').next(),
            Some("event: error"),
            "SDKs go by the event's name"
        );
        assert!(
            Messages
                .read_answer(
                    r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
                    Needs::default()
                )
                .error
                .is_some()
        );
        assert!(
            !Messages
                .read_answer(r#"{"type":"message","content":[],"stop_reason":"end_turn"}"#, Needs::default())
                .is_an_answer()
        );
        let own = (API.error_body)(&ApiError::missing_key());
        assert!(own.starts_with(r#"{"type":"error","error":{"type":"authentication_error""#), "{own}");
    }
}
