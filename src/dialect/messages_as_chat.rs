//! Anthropic's Messages API, translated for servers that know only chat completions, and their answers translated back.

use serde_json::Value;

use super::anthropic_error::error_object;
use super::chat::Chat;
use super::chat_conversation::{
    Conversation, MAX_STOPS, Outcome, ToolNames, begin_request, chosen, document, function, picture, schema,
    text,
};
use super::chat_parts::{Block, ChatParts, Kind, Step, Tokens, blocks_of, unique};
use super::errors::{self, Diagnosis};
use super::{ClientRequest, Dialect, Translated, Translator, Untranslatable, UpstreamError, named_event};
use crate::error::ApiError;
use crate::json::{self, items};
use crate::object::object;

/// The translation of the Messages API to chat completions.
#[derive(Debug)]
pub struct MessagesAsChat;

/// Tools that Anthropic's own models know by their type: the beginning of the type, and the description and the
/// parameters that other models need.
const KNOWN_TOOLS: [(&str, &str, &str); 4] = [
    (
        "bash_",
        "Runs a command in a bash shell that stays open.",
        r#"{"command":{"type":"string"},"restart":{"type":"boolean"}}"#,
    ),
    (
        "text_editor_",
        "Views and edits text files: view, create, str_replace, insert.",
        r#"{"command":{"type":"string","enum":["view","create","str_replace","insert"]},"path":{"type":"string"},"view_range":{"type":"array","items":{"type":"integer"}},"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":{"type":"string"},"insert_line":{"type":"integer"},"insert_text":{"type":"string"}}"#,
    ),
    (
        "memory_",
        "Keeps notes as files below /memories: view, create, str_replace, insert, delete, rename.",
        r#"{"command":{"type":"string","enum":["view","create","str_replace","insert","delete","rename"]},"path":{"type":"string"},"view_range":{"type":"array","items":{"type":"integer"}},"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":{"type":"string"},"insert_line":{"type":"integer"},"insert_text":{"type":"string"},"old_path":{"type":"string"},"new_path":{"type":"string"}}"#,
    ),
    (
        "computer_",
        "Uses the screen, mouse and keyboard of a computer: screenshot, left_click, type, key, mouse_move, scroll, wait.",
        r#"{"action":{"type":"string"},"coordinate":{"type":"array","items":{"type":"integer"}},"start_coordinate":{"type":"array","items":{"type":"integer"}},"text":{"type":"string"},"scroll_direction":{"type":"string"},"scroll_amount":{"type":"integer"},"duration":{"type":"number"}}"#,
    ),
];

/// The beginning of the first of Claude Code's instructions, which is meant only for Anthropic: it changes from call to
/// call, so that a local server would have to read the whole prompt anew each time.
const BILLING: &str = "x-anthropic-billing-header:";

impl Translated for MessagesAsChat {
    fn native(&self) -> &'static dyn Dialect {
        &Chat
    }

    fn translate(&self, written: &ClientRequest) -> Result<String, Untranslatable> {
        let asked = Value::Object(serde_json::from_str(&written.body)?);
        let mut request = begin_request(&asked, &["max_tokens"]);
        let mut put = |name: &str, value: Value| request.insert(name.to_owned(), value);
        let names = tool_names(&asked);
        put("messages", messages(&asked, &names));
        let tools = tools(&asked, &names);
        if !tools.is_empty() {
            put("tools", Value::from(tools));
            let choice = &asked["tool_choice"];
            let name = choice["name"].as_str().and_then(|name| names.sent(name));
            let chosen = match (choice["type"].as_str(), name) {
                (Some("any"), _) => Some(Value::from("required")),
                (Some("none"), _) => Some(Value::from("none")),
                (Some("tool"), Some(name)) => Some(chosen(name)),
                _ => None,
            };
            chosen.and_then(|chosen| put("tool_choice", chosen));
            if choice["disable_parallel_tool_use"] == true {
                put("parallel_tool_calls", Value::from(false));
            }
        }
        let stops = items(&asked["stop_sequences"]).take(MAX_STOPS).collect::<Vec<_>>();
        if !stops.is_empty() {
            put("stop", stops.into_iter().cloned().collect());
        }
        let formats = [&asked["output_config"]["format"], &asked["output_format"]];
        if let Some(format) = formats.into_iter().find(|format| format["type"] == "json_schema") {
            put("response_format", schema(None, &Value::Null, &format["schema"], &Value::from(true)));
        }
        Ok(Value::Object(request).to_string())
    }

    fn translator(&self, written: &ClientRequest) -> Box<dyn Translator> {
        let asked = json::with_only(&written.body, &["model", "thinking", "tools"]);
        Box::new(MessagesTranslator {
            model: asked["model"].as_str().unwrap_or_default().to_owned(),
            shows_thinking: asked["thinking"]["type"] != "disabled",
            names: tool_names(&asked),
            id: format!("msg_{}", unique()),
            parts: ChatParts::new(false),
            is_begun: false,
            is_over: false,
            blocks: 0,
            has_called: false,
            has_refused: false,
        })
    }
}

/// Returns the entry of a tool whose type Anthropic has defined.
fn known_tool(tool: &Value) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let kind = tool["type"].as_str()?;
    KNOWN_TOOLS.iter().find(|(prefix, ..)| kind.starts_with(prefix))
}

/// Returns the tools that the client runs, by their names; tools that a server runs mean nothing to other servers.
fn client_tools(asked: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let tools = items(&asked["tools"]).filter_map(|tool| Some((tool["name"].as_str()?, tool)));
    tools.filter(|(_, tool)| {
        matches!(tool["type"].as_str(), None | Some("custom")) || known_tool(tool).is_some()
    })
}

fn tool_names(asked: &Value) -> ToolNames<String> {
    let mut names = ToolNames::default();
    for (name, _) in client_tools(asked) {
        names.add(name, name, name.to_owned());
    }
    names
}

fn tools(asked: &Value, names: &ToolNames<String>) -> Vec<Value> {
    let mut told = std::collections::HashSet::new();
    let tools = client_tools(asked).filter(|(name, _)| told.insert(*name)).map(|(name, tool)| {
        let name = names.called(name, name);
        match known_tool(tool) {
            Some((_, description, properties)) => {
                let properties = serde_json::from_str::<Value>(properties).unwrap_or_default();
                function(&name, description, &object! {"type": "object", "properties": properties})
            }
            None => function(&name, tool["description"].as_str().unwrap_or_default(), &tool["input_schema"]),
        }
    });
    tools.collect()
}

fn messages(asked: &Value, names: &ToolNames<String>) -> Value {
    let results = |message: &'_ Value| message["role"] != "assistant";
    let turns = || items(&asked["messages"]);
    let outcomes = turns().filter(|message| results(message)).flat_map(|message| items(&message["content"]));
    let outcomes = outcomes.filter(|block| block["type"] == "tool_result").map(|block| {
        let id = block["tool_use_id"].as_str().unwrap_or_default().to_owned();
        (id, Outcome::new(parts_of(&block["content"]), block["is_error"] == true))
    });
    let mut conversation = Conversation::new(outcomes.collect());
    let mut system = parts_of(&asked["system"]);
    system.retain(|part| part["text"].as_str().is_some_and(|text| !text.starts_with(BILLING)));
    conversation.instruct(system);
    for message in turns() {
        let content = &message["content"];
        match message["role"].as_str() {
            Some("system") => conversation.instruct(parts_of(content)),
            Some("assistant") => {
                conversation.answer(parts_of(content));
                for block in items(content).filter(|block| block["type"] == "tool_use") {
                    let [id, name] = ["id", "name"].map(|field| block[field].as_str().unwrap_or_default());
                    let input =
                        if block["input"].is_object() { block["input"].to_string() } else { "{}".into() };
                    conversation.call(id, &names.called(name, name), &input);
                }
            }
            _ => {
                for _ in items(content).filter(|block| block["type"] == "tool_result") {
                    conversation.outcome();
                }
                conversation.ask(parts_of(content));
            }
        }
    }
    conversation.finish()
}

/// Returns the content of a text or of blocks, except calls and their results, and except thoughts, which are the
/// model's own.
fn parts_of(content: &Value) -> Vec<Value> {
    if let Some(said) = content.as_str() {
        return if said.is_empty() { Vec::new() } else { vec![text(said)] };
    }
    let mut parts = Vec::new();
    for block in items(content) {
        let source = &block["source"];
        let field = |name: &str| block[name].as_str().filter(|text| !text.is_empty());
        match block["type"].as_str().unwrap_or_default() {
            "text" => parts.extend(field("text").map(text)),
            "image" => parts.extend(image(source)),
            "document" => {
                parts.extend(field("title").map(text));
                match source["type"].as_str().unwrap_or_default() {
                    "text" => parts.extend(source["data"].as_str().map(text)),
                    "content" => parts.extend(parts_of(&source["content"])),
                    "base64" => {
                        let [media_type, data] =
                            ["media_type", "data"].map(|field| source[field].as_str().unwrap_or_default());
                        parts.push(document(field("title").unwrap_or("document.pdf"), media_type, data));
                    }
                    _ => parts.extend(source["url"].as_str().map(text)),
                }
            }
            "search_result" => {
                parts.extend([field("title"), field("source")].into_iter().flatten().map(text));
                parts.extend(parts_of(&block["content"]));
            }
            // A search for tools has found this one; all of them are offered anyway.
            "tool_reference" => parts.extend(field("tool_name").map(text)),
            _ => {}
        }
    }
    parts
}

fn image(source: &Value) -> Option<Value> {
    let field = |name: &str| source[name].as_str();
    match field("type")? {
        "base64" => Some(picture(format!("data:{};base64,{}", field("media_type")?, field("data")?))),
        "url" => Some(picture(field("url")?)),
        _ => None,
    }
}

struct MessagesTranslator {
    /// The model that the client asked for, until the server names one.
    model: String,
    shows_thinking: bool,
    names: ToolNames<String>,
    id: String,
    parts: ChatParts,
    is_begun: bool,
    /// Whether nothing may follow.
    is_over: bool,
    /// How many blocks have begun.
    blocks: usize,
    has_called: bool,
    has_refused: bool,
}

impl Translator for MessagesTranslator {
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
                self.is_over = true;
                named_event(&error_event(&error, Diagnosis::of(&error).status))
            }
        }
    }

    fn end(&mut self) -> String {
        if std::mem::replace(&mut self.is_over, true) {
            return String::new();
        }
        let steps = self.parts.finish();
        let mut told = self.begin() + &self.tell(steps);
        let delta = object! {"stop_reason": self.stop_reason(self.parts.finish.as_deref()), "stop_sequence": Value::Null};
        told += &named_event(
            &object! {"type": "message_delta", "delta": delta, "usage": usage(self.parts.tokens)},
        );
        told + &named_event(&object! {"type": "message_stop"})
    }

    fn answer(&mut self, body: &str) -> String {
        let (parts, blocks) = match blocks_of(body) {
            Some(Ok(answer)) => answer,
            _ => return self.error_body(&UpstreamError::in_a_success(body)),
        };
        let shows_thinking = self.shows_thinking;
        let mut content = Vec::new();
        for block in blocks.into_iter().filter(|block| shows_thinking || block.kind != Kind::Reasoning) {
            self.note(&block);
            let mut told = self.block(&block);
            match block.kind {
                Kind::Reasoning => told["thinking"] = Value::from(block.text),
                Kind::Text | Kind::Refusal => told["text"] = Value::from(block.text),
                Kind::Call => {
                    let input = serde_json::from_str::<Value>(&block.text).ok().filter(Value::is_object);
                    told["input"] = input.unwrap_or_else(|| object! {});
                }
            }
            content.push(told);
        }
        self.model = parts.model.unwrap_or(std::mem::take(&mut self.model));
        let stop = self.stop_reason(parts.finish.as_deref());
        self.message(Value::from(content), Value::from(stop), parts.tokens).to_string()
    }

    fn broken_off(&self, error: &ApiError) -> String {
        if self.is_over { String::new() } else { named_event(&error_object(error)) }
    }

    fn error_body(&self, UpstreamError { status, body, .. }: &UpstreamError<'_>) -> String {
        let error = errors::object(body).and_then(|error| serde_json::from_str(&error).ok());
        error_event(&error.unwrap_or_else(|| Value::from(body.trim())), *status).to_string()
    }
}

impl MessagesTranslator {
    fn begin(&mut self) -> String {
        if std::mem::replace(&mut self.is_begun, true) {
            return String::new();
        }
        if let Some(model) = &self.parts.model {
            self.model.clone_from(model);
        }
        let message = self.message(Value::Array(Vec::new()), Value::Null, self.parts.tokens);
        named_event(&object! {"type": "message_start", "message": message})
    }

    fn tell(&mut self, steps: Vec<Step>) -> String {
        let mut told = String::new();
        for step in steps {
            let kind = match &step {
                Step::Begin(block) | Step::End(block) => block.kind,
                Step::More(kind, _) => *kind,
            };
            if kind == Kind::Reasoning && !self.shows_thinking {
                continue;
            }
            let event = match step {
                Step::Begin(block) => {
                    self.note(&block);
                    self.blocks += 1;
                    let index = self.blocks - 1;
                    object! {"type": "content_block_start", "index": index, "content_block": self.block(&block)}
                }
                Step::More(kind, more) => {
                    let delta = match kind {
                        Kind::Reasoning => object! {"type": "thinking_delta", "thinking": more},
                        Kind::Text | Kind::Refusal => object! {"type": "text_delta", "text": more},
                        Kind::Call => object! {"type": "input_json_delta", "partial_json": more},
                    };
                    object! {"type": "content_block_delta", "index": self.blocks - 1, "delta": delta}
                }
                Step::End(_) => object! {"type": "content_block_stop", "index": self.blocks - 1},
            };
            told += &named_event(&event);
        }
        told
    }

    fn note(&mut self, block: &Block) {
        self.has_called |= block.kind == Kind::Call;
        self.has_refused |= block.kind == Kind::Refusal;
    }

    /// Returns a block without content.
    fn block(&self, block: &Block) -> Value {
        match block.kind {
            Kind::Reasoning => object! {"type": "thinking", "thinking": "", "signature": ""},
            Kind::Text | Kind::Refusal => object! {"type": "text", "text": ""},
            Kind::Call => {
                let name = self.names.tool(&block.name).unwrap_or(&block.name);
                object! {"type": "tool_use", "id": &block.id, "name": name, "input": object! {}}
            }
        }
    }

    fn message(&self, content: Value, stop: Value, tokens: Tokens) -> Value {
        object! {
            "id": &self.id, "type": "message", "role": "assistant", "model": &self.model, "content": content,
            "stop_reason": stop, "stop_sequence": Value::Null, "usage": usage(tokens),
        }
    }

    fn stop_reason(&self, finish: Option<&str>) -> &'static str {
        match finish {
            Some("length") => "max_tokens",
            Some("content_filter") => "refusal",
            _ if self.has_called => "tool_use",
            _ if self.has_refused => "refusal",
            _ => "end_turn",
        }
    }
}

/// Returns the usage, in which cached tokens are counted by themselves.
fn usage(tokens: Tokens) -> Value {
    object! {
        "input_tokens": tokens.input - tokens.cached, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tokens.cached, "output_tokens": tokens.output,
    }
}

/// Returns an upstream's error in Anthropic's shape.
fn error_event(error: &Value, status: u16) -> Value {
    let message = error["message"].as_str().or(error.as_str()).unwrap_or("The model ended with an error.");
    error_object(&ApiError::new(status, "upstream_error", message.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(body: impl ToString) -> ClientRequest {
        ClientRequest { body: body.to_string(), ..ClientRequest::default() }
    }

    fn translated(body: &Value) -> Value {
        serde_json::from_str(&MessagesAsChat.translate(&written(body)).unwrap()).unwrap()
    }

    #[test]
    fn a_conversation_becomes_a_chat() {
        let asked = json!({
            "model": "m", "max_tokens": 9, "stream": true, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "metadata": {"user_id": "u"},
            "stop_sequences": ["a", "b", "c", "d", "e"], "thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cch=0;"},
                {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            "tools": [
                {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true, "cache_control": {}},
                {"name": "bash", "type": "bash_20250124"},
                {"name": "web_search", "type": "web_search_20250305"}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "system", "content": "and kind"},
                {"role": "user", "content": [
                    {"type": "text", "text": "look", "cache_control": {}},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                    {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I call"},
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1.50}},
                    {"type": "tool_use", "id": "2", "name": "gone tool", "input": {}},
                    {"type": "tool_use", "id": "3", "name": "f", "input": {}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "3", "is_error": true, "content": "bad"},
                    {"type": "tool_result", "tool_use_id": "1", "content": [
                        {"type": "text", "text": "one"}, {"type": "text", "text": "two"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "BB"}}]},
                    {"type": "tool_result", "tool_use_id": "9", "content": "of nothing"},
                    {"type": "text", "text": "go on"}]},
                {"role": "assistant", "content": "{"}],
        });
        let expected = json!({
            "model": "m", "stream": true, "temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "be brief\n\nand kind"},
                {"role": "user", "content": [
                    {"type": "text", "text": "hi"}, {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                    {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]},
                {"role": "assistant", "content": "I call", "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1.5}"}},
                    {"id": "2", "type": "function", "function": {"name": "gone_tool", "arguments": "{}"}},
                    {"id": "3", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "one\ntwo"},
                {"role": "tool", "tool_call_id": "2", "content": "(The call was not carried out.)"},
                {"role": "tool", "tool_call_id": "3", "content": "Error: bad"},
                {"role": "user", "content": [
                    {"type": "text", "text": "From the result of f:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,BB"}},
                    {"type": "text", "text": "Result of a tool: of nothing"},
                    {"type": "text", "text": "go on"}]},
                {"role": "assistant", "content": "{"}],
            "tools": [
                {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
                {"type": "function", "function": {"name": "bash", "description": "Runs a command in a bash shell that stays open.", "parameters": {
                    "type": "object", "properties": {"command": {"type": "string"}, "restart": {"type": "boolean"}}}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false,
            "stop": ["a", "b", "c", "d"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}},
        });
        let translated = translated(&asked);
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&translated[name], value, "{name}");
        }
        assert_eq!(translated, expected);
    }

    #[test]
    fn only_what_is_there_is_sent() {
        let asked = json!({"model": "m", "max_tokens": 9, "tools": [], "tool_choice": {"type": "any"}, "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]});
        let expected = json!({"model": "m", "max_tokens": 9, "messages": [
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "(The call was not carried out.)"}]});
        assert_eq!(translated(&asked), expected);
        let choice = |choice: Value| {
            let tools = json!([{"name": "f", "input_schema": {}}]);
            let sent = translated(&json!({"tools": tools, "tool_choice": choice}));
            (sent["tool_choice"].clone(), sent["parallel_tool_calls"].clone())
        };
        for (asked, sent) in [
            (json!({"type": "auto"}), Value::Null),
            (json!({"type": "any", "disable_parallel_tool_use": false}), json!("required")),
            (json!({"type": "none"}), json!("none")),
            (json!({"type": "tool", "name": "g"}), Value::Null),
        ] {
            assert_eq!(choice(asked), (sent, Value::Null));
        }
        assert!(
            MessagesAsChat.translate(&written("[]")).is_err()
                && MessagesAsChat.translate(&written("{")).is_err()
        );
    }

    #[test]
    fn documents_and_results_of_searches() {
        let content = json!([
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}, "title": "t.pdf"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]}},
            {"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "found"}]},
            {"type": "tool_reference", "tool_name": "f"},
            {"type": "something_new", "text": "never"},
        ]);
        let parts = parts_of(&content);
        let file = json!({"type": "file", "file": {"filename": "t.pdf", "file_data": "data:application/pdf;base64,AA"}});
        let texts = ["plain", "inner", "t", "s", "found", "f"].map(text);
        assert_eq!(parts, [vec![text("t.pdf"), file], texts.to_vec()].concat());
    }

    /// The events of a stream, each checked to have its name.
    fn events(told: &str) -> Vec<Value> {
        let events = told.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        });
        events.collect()
    }

    fn told(asked: Value, chunks: &[Value]) -> Vec<Value> {
        let mut translator = MessagesAsChat.translator(&written(asked));
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

    #[test]
    fn chunks_become_events() {
        let long = "f".repeat(70);
        let asked = json!({"model": "m", "tools": [{"name": long, "input_schema": {}}]});
        let call = |index: u32, id: &str, name: &str, arguments: &str| {
            chunk(
                json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}),
            )
        };
        let mut events = told(
            asked,
            &[
                chunk(json!({"role": "assistant", "content": ""})),
                chunk(json!({"reasoning": "hm"})),
                chunk(json!({"content": "h"})),
                chunk(json!({"content": "i"})),
                call(0, "1", &long[..64], ""),
                call(0, "", "", "{\"x\":"),
                call(0, "", "", "1}"),
                call(1, "2", "g", "{}"),
                json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
                json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}}),
            ],
        );
        assert!(events[0]["message"]["id"].as_str().unwrap().starts_with("msg_"));
        events[0]["message"]["id"] = json!("msg");
        let delta =
            |index: u32, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let start = |index: u32, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let stop = |index: u32| json!({"type": "content_block_stop", "index": index});
        let tool = |id: &str, name: &str| json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        let usage = |input: u32, cached: u32, output: u32| json!({"input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached, "output_tokens": output});
        let expected = [
            json!({"type": "message_start", "message": {
                "id": "msg", "type": "message", "role": "assistant", "model": "n", "content": [], "stop_reason": null,
                "stop_sequence": null, "usage": usage(0, 0, 0)}}),
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            stop(0),
            start(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "h"})),
            delta(1, json!({"type": "text_delta", "text": "i"})),
            stop(1),
            start(2, tool("1", &long)),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"x\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
            stop(2),
            start(3, tool("2", "g")),
            delta(3, json!({"type": "input_json_delta", "partial_json": "{}"})),
            stop(3),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage(4, 5, 4)}),
            json!({"type": "message_stop"}),
        ];
        for (number, expected) in expected.iter().enumerate() {
            assert_eq!(&events[number], expected);
        }
        assert_eq!(events.len(), expected.len());
    }

    #[test]
    fn streams_that_say_little_are_ended_all_the_same() {
        let kinds = |events: Vec<Value>| {
            events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(told(json!({}), &[])), ["message_start", "message_delta", "message_stop"]);
        let error = told(
            json!({}),
            &[chunk(json!({"content": "h"})), json!({"error": {"code": 429, "message": "slow"}})],
        );
        assert_eq!(
            error.last(),
            Some(&json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}))
        );
        let hidden = told(
            json!({"thinking": {"type": "disabled"}}),
            &[chunk(json!({"content": "<think>hm</think>hi"}))],
        );
        assert_eq!(
            kinds(hidden)[1..5],
            ["content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
        );
        let mut translator = MessagesAsChat.translator(&written("{}"));
        translator.event(&chunk(json!({"content": "h"})).to_string());
        assert_eq!(
            events(&translator.broken_off(&ApiError::broke_off(&"x".into())))[0]["error"]["type"],
            "api_error"
        );
    }

    #[test]
    fn whole_answers() {
        let answer = |message: Value, finish: &str| {
            let body = json!({"model": "n", "choices": [{"message": message, "finish_reason": finish}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}});
            let told = MessagesAsChat.translator(&written("{}")).answer(&body.to_string());
            serde_json::from_str::<Value>(&told).unwrap()
        };
        let call = json!([{"id": "1", "function": {"name": "f", "arguments": "{\"x\":1}"}}, {"id": "2", "function": {"name": "g", "arguments": ""}}]);
        let told = answer(json!({"content": "<think>hm</think>hi", "tool_calls": call}), "stop");
        assert_eq!(
            told["content"],
            json!([
                {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "hi"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}, {"type": "tool_use", "id": "2", "name": "g", "input": {}}])
        );
        assert_eq!((&told["stop_reason"], &told["model"]), (&json!("tool_use"), &json!("n")));
        assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["output_tokens"]), (&json!(3), &json!(4)));
        for (finish, stop) in [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")]
        {
            assert_eq!(answer(json!({"content": "x"}), finish)["stop_reason"], stop);
        }
        let refused = answer(json!({"content": null, "refusal": "no"}), "stop");
        assert_eq!(
            (&refused["content"][0]["text"], &refused["stop_reason"]),
            (&json!("no"), &json!("refusal"))
        );
    }

    #[test]
    fn errors_in_anthropics_shape() {
        let translator = MessagesAsChat.translator(&written("{}"));
        for (status, body, kind, message) in [
            // The form that Groq uses.
            (
                401,
                r#"{"error":{"message":"no","type":"invalid_request_error"}}"#,
                "authentication_error",
                "no",
            ),
            (400, r#"{"error":{"message":"bad","code":"x"}}"#, "invalid_request_error", "bad"),
            (502, r#"{"error":"text"}"#, "api_error", "text"),
            (404, "<html>", "not_found_error", "<html>"),
        ] {
            let error = UpstreamError { status, retry_after: None, body };
            let told = serde_json::from_str::<Value>(&translator.error_body(&error)).unwrap();
            assert_eq!(told, json!({"type": "error", "error": {"type": kind, "message": message}}));
        }
    }
}
