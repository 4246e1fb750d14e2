//! OpenAI's Responses API, translated for servers that know only chat completions: the requests. The answers are
//! translated back in [`responses_from_chat`](super::responses_from_chat).

use serde_json::Value;

use super::chat::Chat;
use super::chat_conversation::{Conversation, Outcome, begin_request, document, picture, schema, text};
use super::responses_from_chat::ResponsesTranslator;
use super::responses_tools::{Tools, flat, key};
use super::{ClientRequest, Dialect, Translated, Translator, Untranslatable};
use crate::json::{self, items};
use crate::object::object;

/// The translation of the Responses API to chat completions.
#[derive(Debug)]
pub struct ResponsesAsChat;

impl Translated for ResponsesAsChat {
    fn native(&self) -> &'static dyn Dialect {
        &Chat
    }

    fn translate(&self, written: &ClientRequest) -> Result<String, Untranslatable> {
        let asked = Value::Object(serde_json::from_str(&written.body)?);
        let mut request = begin_request(&asked, &["frequency_penalty", "presence_penalty"]);
        let mut put = |name: &str, value: Value| request.insert(name.to_owned(), value);
        if !asked["max_output_tokens"].is_null() {
            put("max_tokens", asked["max_output_tokens"].clone());
        }
        let tools = Tools::of(&asked);
        put("messages", messages(&asked, &tools));
        let format = &asked["text"]["format"];
        match format["type"].as_str() {
            Some("json_schema") => {
                let name = format["name"].as_str();
                put(
                    "response_format",
                    schema(name, &format["description"], &format["schema"], &format["strict"]),
                );
            }
            Some("json_object") => {
                put("response_format", object! {"type": "json_object"});
            }
            _ => {}
        }
        let (functions, choice) = tools.chosen(&asked["tool_choice"]);
        if !functions.is_empty() {
            put("tools", Value::from(functions));
            choice.and_then(|choice| put("tool_choice", choice));
            if asked["parallel_tool_calls"] == false {
                put("parallel_tool_calls", Value::from(false));
            }
        }
        Ok(Value::Object(request).to_string())
    }

    fn translator(&self, written: &ClientRequest) -> Box<dyn Translator> {
        let fields = ["model", "reasoning", "tools", "input"];
        // The input may be long, and hardly ever has tools.
        let has_more_tools =
            ["additional_tools", "tool_search_output"].iter().any(|kind| written.body.contains(kind));
        let wanted = if has_more_tools { &fields[..] } else { &fields[..3] };
        Box::new(ResponsesTranslator::new(&json::with_only(&written.body, wanted)))
    }
}
fn messages(asked: &Value, tools: &Tools) -> Value {
    let items = || items(&asked["input"]);
    let outcomes = items().filter_map(|item| Some((call_of_outcome(item)?, outcome(item, tools))));
    let mut conversation = Conversation::new(outcomes.collect());
    conversation.instruct(parts_of(&asked["instructions"]));
    if asked["input"].is_string() {
        conversation.ask(parts_of(&asked["input"]));
    }
    for item in items() {
        if call_of_outcome(item).is_some() {
            conversation.outcome();
            continue;
        }
        let kind = item["type"].as_str().unwrap_or("message");
        let parts = || parts_of(&item["content"]);
        match (kind.strip_suffix("_call"), item["call_id"].as_str()) {
            (Some(kind), Some(id)) => {
                let named = item["name"].as_str();
                let namespace = item["namespace"].as_str();
                let name = named.unwrap_or(kind);
                let name = tools.names.called(&key(namespace, name), &flat(namespace, name));
                conversation.call(id, &name, &arguments(item));
            }
            _ if kind == "reasoning" => {} // the model's own
            _ => match item["role"].as_str() {
                Some("system" | "developer") => conversation.instruct(parts()),
                Some("assistant") => conversation.answer(parts()),
                _ => {
                    let parts = parts();
                    if !parts.is_empty() {
                        conversation.ask(parts);
                    }
                }
            },
        }
    }
    conversation.finish()
}

/// Returns the id of the call whose result an item is.
fn call_of_outcome(item: &Value) -> Option<String> {
    let is_outcome = item["type"].as_str().is_some_and(|kind| kind.ends_with("_output"));
    is_outcome.then(|| item["call_id"].as_str().unwrap_or_default().to_owned())
}

fn outcome(item: &Value, tools: &Tools) -> Outcome {
    if item["type"] == "tool_search_output" {
        let found = items(&item["tools"]).flat_map(|tool| match tool["type"].as_str() {
            Some("namespace") => {
                items(&tool["tools"]).map(|inner| (tool["name"].as_str(), inner)).collect::<Vec<_>>()
            }
            _ => vec![(None, tool)],
        });
        let names =
            found.filter_map(|(namespace, tool)| tools.names.sent(&key(namespace, tool["name"].as_str()?)));
        let names = names.collect::<Vec<_>>().join(", ");
        return Outcome::new(vec![text(format!("Tools that may be called now: {names}"))], false);
    }
    let output = &item["output"];
    let parts = match output {
        Value::Object(_) if output["image_url"].is_string() => parts_of(&Value::Array(vec![output.clone()])),
        Value::Object(_) => vec![text(output.to_string())],
        output => parts_of(output),
    };
    Outcome::new(parts, item["status"] == "failed")
}

/// Returns the arguments of a call in the history; servers require an object.
fn arguments(item: &Value) -> String {
    let written = ["arguments", "input", "operation", "action"].into_iter().map(|field| &item[field]);
    let written = written.into_iter().find(|written| !written.is_null()).unwrap_or(&Value::Null);
    let Some(written) = written.as_str() else {
        return if written.is_object() { written.to_string() } else { "{}".into() };
    };
    let is_object = || serde_json::from_str::<Value>(written).is_ok_and(|arguments| arguments.is_object());
    match item["type"].as_str() {
        Some("custom_tool_call") => object! {"input": written}.to_string(),
        _ if written.trim().is_empty() => "{}".into(),
        _ if is_object() => written.to_owned(),
        _ => object! {"input": written}.to_string(),
    }
}

/// Returns the parts of a text or of a list of content.
fn parts_of(content: &Value) -> Vec<Value> {
    if let Some(said) = content.as_str() {
        return if said.is_empty() { Vec::new() } else { vec![text(said)] };
    }
    let parts = items(content).filter_map(|part| {
        let field = |name: &str| part[name].as_str().filter(|text| !text.is_empty());
        match part["type"].as_str()? {
            "input_image" | "computer_screenshot" => {
                let mut picture = picture(field("image_url")?);
                if let Some(detail) = field("detail").filter(|detail| matches!(*detail, "low" | "high")) {
                    picture["image_url"]["detail"] = Value::from(detail);
                }
                Some(picture)
            }
            "input_file" => match field("file_data") {
                Some(data) => {
                    Some(document(field("filename").unwrap_or("document.pdf"), "application/pdf", data))
                }
                None => field("file_url").or(field("filename")).map(text),
            },
            "input_audio" => Some(object! {"type": "input_audio", "input_audio": &part["input_audio"]}),
            "refusal" => field("refusal").map(text),
            _ => field("text").map(text),
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::chat_conversation::chosen;
    use super::*;

    fn written(body: impl ToString) -> ClientRequest {
        ClientRequest { body: body.to_string(), ..ClientRequest::default() }
    }

    fn translated(body: &Value) -> Value {
        serde_json::from_str(&ResponsesAsChat.translate(&written(body)).unwrap()).unwrap()
    }

    #[test]
    fn a_response_becomes_a_chat() {
        let asked = json!({
            "model": "m", "stream": true, "max_output_tokens": 9, "temperature": 0.5, "store": false, "include": ["x"],
            "reasoning": {"effort": "high", "summary": "auto"}, "prompt_cache_key": "k", "client_metadata": {}, "parallel_tool_calls": false,
            "instructions": "be brief", "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "strict": true, "schema": {"type": "object"}}},
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "and kind"}]},
                {"role": "user", "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "high"}]},
                {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "role": "assistant", "id": "msg", "status": "completed", "content": [{"type": "output_text", "text": "I call"}]},
                {"type": "function_call", "call_id": "1", "id": "fc", "name": "run", "namespace": "shell", "arguments": "{\"x\":1}", "status": "completed"},
                {"type": "custom_tool_call", "call_id": "2", "name": "patch", "input": "*** \"x\""},
                {"type": "function_call", "call_id": "3", "name": "run", "arguments": "broken"},
                {"type": "custom_tool_call_output", "call_id": "2", "output": "patched"},
                {"type": "function_call_output", "call_id": "1", "output": [
                    {"type": "input_text", "text": "one"}, {"type": "input_image", "image_url": "https://a/b.png"}]},
                {"role": "user", "content": "go on"}],
            "tools": [
                {"type": "function", "name": "run", "strict": false, "description": "d", "parameters": {"type": "object"}},
                {"type": "custom", "name": "patch", "description": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
                {"type": "namespace", "name": "shell", "tools": [{"type": "function", "name": "run", "parameters": {"type": "object"}}]},
                {"type": "web_search"}],
            "tool_choice": {"type": "custom", "name": "patch"},
        });
        let input =
            json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]});
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let expected = json!({
            "model": "m", "stream": true, "temperature": 0.5, "stream_options": {"include_usage": true}, "max_tokens": 9,
            "messages": [
                {"role": "system", "content": "be brief\n\nand kind"},
                {"role": "user", "content": [
                    {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "high"}}]},
                {"role": "assistant", "content": "I call", "tool_calls": [
                    call("1", "shell__run", "{\"x\":1}"), call("2", "patch", "{\"input\":\"*** \\\"x\\\"\"}"), call("3", "run", "{\"input\":\"broken\"}")]},
                {"role": "tool", "tool_call_id": "1", "content": "one"},
                {"role": "tool", "tool_call_id": "2", "content": "patched"},
                {"role": "tool", "tool_call_id": "3", "content": "(The call was not carried out.)"},
                {"role": "user", "content": [
                    {"type": "text", "text": "From the result of shell__run:"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
                    {"type": "text", "text": "go on"}]}],
            "tools": [
                {"type": "function", "function": {"name": "run", "description": "d", "parameters": {"type": "object"}}},
                {"type": "function", "function": {"name": "patch", "description": "p\n\nThe input follows this grammar (lark):\nstart: x", "parameters": input}},
                {"type": "function", "function": {"name": "shell__run", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "patch"}}, "parallel_tool_calls": false,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}},
        });
        let translated = translated(&asked);
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&translated[name], value, "{name}");
        }
        assert_eq!(translated, expected);
    }

    #[test]
    fn the_shortest_ones() {
        let message = json!([{"role": "user", "content": "hi"}]);
        assert_eq!(
            translated(&json!({"model": "m", "input": "hi"})),
            json!({"model": "m", "messages": message})
        );
        let asked = json!({"input": [{"role": "user", "content": "hi"}], "text": {"format": {"type": "json_object"}}, "stream": false, "tools": []});
        assert_eq!(
            translated(&asked),
            json!({"stream": false, "messages": message, "response_format": {"type": "json_object"}})
        );
        assert!(ResponsesAsChat.translate(&written("[]")).is_err());
    }

    #[test]
    fn which_tools_may_be_called() {
        let tools = json!([{"type": "function", "name": "f"}, {"type": "function", "name": "g"}, {"type": "namespace", "name": "n_", "tools": [{"type": "custom", "name": "f"}]}]);
        for (choice, names, sent) in [
            (json!("auto"), &["f", "g", "n__f"][..], Value::Null),
            (json!("required"), &["f", "g", "n__f"], json!("required")),
            (json!("none"), &["f", "g", "n__f"], json!("none")),
            (json!({"type": "function", "name": "g"}), &["f", "g", "n__f"], chosen("g")),
            (json!({"type": "function", "name": "x"}), &["f", "g", "n__f"], Value::Null),
            (
                json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}),
                &["g"],
                json!("required"),
            ),
            (
                json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]}),
                &[],
                Value::Null,
            ),
        ] {
            let sent_now = translated(&json!({"tools": tools, "tool_choice": choice}));
            let offered = items(&sent_now["tools"])
                .map(|tool| tool["function"]["name"].as_str().unwrap())
                .collect::<Vec<_>>();
            assert_eq!((&offered[..], &sent_now["tool_choice"]), (names, &sent), "{choice}");
        }
    }

    #[test]
    fn tools_that_come_on_the_way() {
        let found =
            json!([{"type": "namespace", "name": "mcp__x__", "tools": [{"type": "function", "name": "f"}]}]);
        let asked = json!({"tools": [{"type": "tool_search", "execution": "client", "parameters": {"type": "object"}}, {"type": "apply_patch"}], "input": [
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "g"}]},
            {"type": "tool_search_call", "call_id": "1", "execution": "client", "arguments": {"query": "x"}},
            {"type": "tool_search_output", "call_id": "1", "tools": found},
            {"type": "apply_patch_call", "call_id": "2", "operation": {"type": "delete_file", "path": "p"}},
            {"type": "apply_patch_call_output", "call_id": "2", "status": "failed", "output": "no"},
            {"type": "web_search_call", "id": "ws", "status": "completed"}]});
        let sent = translated(&asked);
        let names = items(&sent["tools"]).map(|tool| tool["function"]["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["tool_search", "apply_patch", "g", "mcp__x__f"]);
        let messages = items(&sent["messages"]).collect::<Vec<_>>();
        assert_eq!(messages.len(), 4, "{messages:?}");
        assert_eq!(
            messages[0]["tool_calls"][0]["function"],
            json!({"name": "tool_search", "arguments": "{\"query\":\"x\"}"})
        );
        assert_eq!(messages[1]["content"], "Tools that may be called now: mcp__x__f");
        assert_eq!(messages[2]["tool_calls"][0]["function"]["name"], "apply_patch");
        assert_eq!(messages[3]["content"], "Error: no");
    }

    #[test]
    fn names_that_strict_servers_take() {
        let long = "x".repeat(70);
        let tools = json!([{"type": "function", "name": long}, {"type": "function", "name": format!("{long}y")}, {"type": "function", "name": "a.b:c"}, {"type": "function", "name": "f"}, {"type": "function", "name": "f"}]);
        let sent = translated(&json!({"tools": tools}));
        let names =
            items(&sent["tools"]).map(|tool| tool["function"]["name"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(names, [&long[..64], &format!("{}_2", &long[..62]), "a_b_c", "f"]);
    }
}
