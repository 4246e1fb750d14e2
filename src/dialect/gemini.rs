//! Google's Gemini API, for its SDKs and for Gemini CLI: the requests, translated to chat completions and embeddings,
//! and what needs no model. Answers are in [`super::gemini_answer`]. <https://ai.google.dev/api/generate-content>

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::chat::Chat;
use super::embeddings::Embeddings;
use super::gemini_answer::{GeminiTranslator, Kind, elements, error_object};
use super::open_calls::OpenCalls;
use super::{
    Action, Api, CHAT_MODELS, ClientRequest, Dialect, Listed, Route, Show, Translated, Translator,
    Untranslatable, messages, text, tokens,
};
use crate::error::ApiError;
use crate::json::{self, items};

const SAMPLE: &str = r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#;

/// The declaration of the API.
pub static API: Api = Api {
    name: "gemini",
    routes: &[
        Route::post("/models/{model}:generateContent", Action::Translate(&Gemini(Kind::Generate)))
            .sample(SAMPLE),
        Route::post("/models/{model}:streamGenerateContent", Action::Translate(&Gemini(Kind::Stream)))
            .sample(SAMPLE),
        Route::post("/models/{model}:countTokens", Action::Local(count_tokens)).sample(SAMPLE),
        Route::post("/models/{model}:embedContent", Action::Translate(&Gemini(Kind::Embed)))
            .sample(r#"{"content":{"parts":[{"text":"Hello"}]}}"#),
        Route::post("/models/{model}:batchEmbedContents", Action::Translate(&Gemini(Kind::BatchEmbed)))
            .sample(r#"{"requests":[{"content":{"parts":[{"text":"Hello"}]}}]}"#),
        Route::get("/models", Action::List(CHAT_MODELS, list))
            .about("Google's Gemini API (Gemini CLI): /v1beta/models/{model}:generateContent, ..."),
        Route::get("/models/{model}", Action::Show(Show { named_in: None, any_name: true, write: show })),
    ],
    bases: &["/v1beta", ""],
    shown_base: "/v1beta",
    identifying_headers: &["x-goog-api-client", "x-goog-api-key"],
    key_headers: &["x-goog-api-key"],
    key_parameter: Some("key"),
    error_body: own_error,
};

/// A method of the API that asks a model.
#[derive(Debug)]
struct Gemini(Kind);

/// Fields of `generationConfig` that chat completions have, too: Google's name and the name there.
const OPTIONS: [(&str, &str); 8] = [
    ("temperature", "temperature"),
    ("topP", "top_p"),
    ("topK", "top_k"),
    ("maxOutputTokens", "max_tokens"),
    ("stopSequences", "stop"),
    ("seed", "seed"),
    ("presencePenalty", "presence_penalty"),
    ("frequencyPenalty", "frequency_penalty"),
];

/// The result of a call that has none in the history: chat completions require one for each call.
const NO_RESULT: &str = "There is no result of this call.";

impl Translated for Gemini {
    fn native(&self) -> &'static dyn Dialect {
        match self.0 {
            Kind::Generate | Kind::Stream => &Chat,
            Kind::Embed | Kind::BatchEmbed => &Embeddings,
        }
    }

    fn translate(&self, written: &ClientRequest) -> Result<String, Untranslatable> {
        let asked = Value::Object(serde_json::from_str(&written.body)?);
        let mut request = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                request.insert(name.to_owned(), value);
            }
        };
        put("model", json!(written.model));
        if let Kind::Embed | Kind::BatchEmbed = self.0 {
            let batch = elements(get(&asked, "requests"));
            let (input, first) = match self.0 {
                Kind::Embed => (json!(texts_of(get(&asked, "content"))), &asked),
                _ => {
                    let texts = batch.iter().map(|one| texts_of(get(one, "content")));
                    (texts.collect(), batch.first().unwrap_or(&Value::Null))
                }
            };
            put("input", input);
            put("dimensions", get(first, "outputDimensionality").clone());
            return Ok(Value::Object(request).to_string());
        }
        if self.0 == Kind::Stream {
            put("stream", json!(true));
            put("stream_options", json!({"include_usage": true}));
        }
        let turns = turns(&asked);
        if !items(&turns).any(|turn| turn["role"] != "system") {
            return Err(Untranslatable::Refused(ApiError::no_contents()));
        }
        put("messages", turns);
        let (tools, choice) = tools(&asked).map_err(Untranslatable::Refused)?;
        put("tools", tools);
        put("tool_choice", choice);
        let config = get(&asked, "generationConfig");
        for (name, theirs) in OPTIONS {
            put(theirs, whole(get(config, name)));
        }
        put("n", Some(whole(get(config, "candidateCount"))).filter(|n| *n != 1).unwrap_or_default());
        put("response_format", response_format(config));
        put("reasoning", reasoning(get(config, "thinkingConfig")));
        Ok(Value::Object(request).to_string())
    }

    fn translator(&self, written: &ClientRequest) -> Box<dyn Translator> {
        let asked = json::with_only(&written.body, &["generationConfig", "generation_config"]);
        let thinking = get(get(&asked, "generationConfig"), "thinkingConfig");
        let is_sse = written.query.split('&').any(|parameter| parameter == "alt=sse");
        Box::new(GeminiTranslator::new(self.0, is_sse, get(thinking, "includeThoughts") != false))
    }
}

/// Returns a field by its name in camel case, or else in snake case: both are accepted, as by Google.
fn get<'a>(object: &'a Value, name: &str) -> &'a Value {
    match &object[name] {
        Value::Null if name.bytes().any(|b| b.is_ascii_uppercase()) => &object[snake(name)],
        value => value,
    }
}

fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Returns `5` for `5.0`, which is how Python's SDK writes integers, and for `"5"`, as JSON of Protocol Buffers may have it.
fn whole(number: &Value) -> Value {
    if let Some(number) = number.as_str().and_then(|text| text.parse::<serde_json::Number>().ok()) {
        return whole(&Value::Number(number));
    }
    match number.as_f64() {
        Some(float) if !number.is_u64() && float.fract() == 0.0 && (0.0..1e15).contains(&float) => {
            json!(float as u64)
        }
        _ => number.clone(),
    }
}

fn text_in(part: &Value) -> Option<&str> {
    part["text"].as_str().or_else(|| part.as_str()).filter(|text| !text.is_empty())
}

/// Returns the texts of a content, which may also be a plain string.
fn texts_of(content: &Value) -> String {
    if let Value::String(text) = content {
        return text.clone();
    }
    elements(get(content, "parts")).iter().filter_map(text_in).collect::<Vec<_>>().join("\n")
}

fn turns(asked: &Value) -> Value {
    let mut messages = Vec::new();
    let system = texts_of(get(asked, "systemInstruction"));
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system}));
    }
    // Turns of the same side are joined, and empty ones are dropped.
    let mut turns = Vec::<(bool, Vec<&Value>)>::new();
    for content in elements(get(asked, "contents")) {
        let is_models = content["role"] == "model";
        // A text alone is what the user says.
        let parts = if content.is_string() { elements(content) } else { elements(get(content, "parts")) };
        let parts = parts.iter();
        let parts = parts.filter(|part| get(part, "thought") != true && says_something(part));
        let parts = parts.collect::<Vec<_>>();
        match turns.last_mut() {
            _ if parts.is_empty() => {}
            Some((of_model, known)) if *of_model == is_models => known.extend(parts),
            _ => turns.push((is_models, parts)),
        }
    }
    let mut open = OpenCalls::default();
    for (number, (is_models, parts)) in turns.into_iter().enumerate() {
        if is_models {
            messages.push(models_turn(number, &parts, &mut open));
        } else {
            users_turn(&parts, &mut open, &mut messages);
        }
    }
    Value::Array(messages)
}

fn says_something(part: &Value) -> bool {
    let others = ["inlineData", "fileData", "functionCall", "functionResponse"];
    text_in(part).is_some() || others.iter().any(|kind| get(part, kind).is_object())
}

fn models_turn(number: usize, parts: &[&Value], open: &mut OpenCalls) -> Value {
    let text = parts.iter().filter_map(|part| text_in(part)).collect::<String>();
    let calls = parts.iter().map(|part| get(part, "functionCall")).filter(|call| call.is_object());
    let calls = calls.enumerate().map(|(index, call)| {
        let name = call["name"].as_str().unwrap_or_default();
        let given = call["id"].as_str().filter(|id| !id.is_empty());
        let id = given.map_or_else(|| format!("call_{number}_{index}"), str::to_owned);
        open.push(name, &id);
        let arguments = Some(&call["args"]).filter(|args| args.is_object());
        let arguments = arguments.map_or_else(|| "{}".to_owned(), Value::to_string);
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    let calls = calls.collect::<Vec<_>>();
    let mut message = json!({"role": "assistant", "content": text});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    message
}

/// Adds the results first, which belong to the calls right before them. Everything else, also in results, becomes the
/// user's message.
fn users_turn(parts: &[&Value], open: &mut OpenCalls, messages: &mut Vec<Value>) {
    let mut content = Vec::new();
    for part in parts {
        let result = get(part, "functionResponse");
        if !result.is_object() {
            content.extend(content_part(part));
            continue;
        }
        let (name, id) = (result["name"].as_str(), result["id"].as_str());
        let text = result_text(&result["response"]);
        match open.take(id, name) {
            Some(id) => messages.push(json!({"role": "tool", "tool_call_id": id, "content": text})),
            // The history has no call for this result.
            None => {
                let text = format!("{}: {text}", name.unwrap_or_default());
                content.push(json!({"type": "text", "text": text}));
            }
        }
        content.extend(elements(get(result, "parts")).iter().filter_map(content_part));
    }
    let missing = std::mem::take(open).into_ids();
    messages.extend(missing.map(|id| json!({"role": "tool", "tool_call_id": id, "content": NO_RESULT})));
    if content.is_empty() {
        return;
    }
    let content = match content.as_slice() {
        [part] if part["type"] == "text" => part["text"].clone(),
        _ => Value::Array(content),
    };
    messages.push(json!({"role": "user", "content": content}));
}

/// Returns the result of a function as text; a result that holds nothing but a text is that text.
fn result_text(response: &Value) -> String {
    let alone = response.as_object().filter(|fields| fields.len() == 1);
    let text = alone.and_then(|fields| fields.get("output").or_else(|| fields.get("result"))?.as_str());
    text.map_or_else(|| response.to_string(), str::to_owned)
}

fn content_part(part: &Value) -> Option<Value> {
    if let Some(text) = text_in(part) {
        return Some(json!({"type": "text", "text": text}));
    }
    let (inline, file) = (get(part, "inlineData"), get(part, "fileData"));
    let (holder, url) = match (inline["data"].as_str(), get(file, "fileUri").as_str()) {
        (Some(_), _) => (inline, None),
        (None, Some(url)) => (file, Some(url)),
        (None, None) => return None,
    };
    let mime = get(holder, "mimeType").as_str().unwrap_or("application/octet-stream");
    let kind = mime.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let data = standard_base64(inline["data"].as_str().unwrap_or_default());
    let url = url.map_or_else(|| format!("data:{mime};base64,{data}"), str::to_owned);
    Some(match (kind.as_str(), inline.is_object()) {
        ("image", _) => json!({"type": "image_url", "image_url": {"url": url}}),
        ("video", _) => json!({"type": "video_url", "video_url": {"url": url}}),
        ("audio", true) => {
            let format = mime.rsplit(['/', ';']).next().unwrap_or_default().trim_start_matches("x-");
            let format = if format == "mpeg" { "mp3" } else { format };
            json!({"type": "input_audio", "input_audio": {"data": data, "format": format}})
        }
        ("text", true) => {
            let text = STANDARD.decode(&data).unwrap_or_default();
            json!({"type": "text", "text": String::from_utf8_lossy(&text)})
        }
        _ => {
            let name = get(holder, "displayName").as_str().unwrap_or("file.pdf");
            json!({"type": "file", "file": {"filename": name, "file_data": url}})
        }
    })
}

/// Returns standard base64 with padding: Google accepts both alphabets, with and without padding.
fn standard_base64(data: &str) -> String {
    let signs = data.chars().filter(|c| !c.is_ascii_whitespace() && *c != '=');
    let mut standard = signs.map(|c| match c {
        '-' => '+',
        '_' => '/',
        c => c,
    });
    let mut padded = standard.by_ref().collect::<String>();
    while !padded.len().is_multiple_of(4) {
        padded.push('=');
    }
    padded
}

/// Returns the functions, and the choice among them. Google's own tools, which it runs itself, are removed; a request
/// that has no other tools is refused.
fn tools(asked: &Value) -> Result<(Value, Value), ApiError> {
    let all = elements(get(asked, "tools"));
    let declared = || all.iter().flat_map(|tool| elements(get(tool, "functionDeclarations")));
    let googles = all.iter().filter_map(Value::as_object).flat_map(|tool| tool.keys());
    let mut googles =
        googles.filter(|name| !matches!(name.as_str(), "functionDeclarations" | "function_declarations"));
    if declared().next().is_none() {
        let refused = googles.next().map(|name| ApiError::not_googles_tool(name));
        return refused.map_or(Ok((Value::Null, Value::Null)), Err);
    }
    let config = get(get(asked, "toolConfig"), "functionCallingConfig");
    let mode = config["mode"].as_str().unwrap_or_default().to_ascii_uppercase();
    let allowed = elements(get(config, "allowedFunctionNames"));
    let allowed = if mode == "ANY" { allowed } else { &[] };
    let names = allowed.iter().filter_map(Value::as_str).collect::<HashSet<_>>();
    let is_allowed = |function: &&Value| {
        allowed.is_empty() || function["name"].as_str().is_some_and(|name| names.contains(name))
    };
    let tools = declared().filter(is_allowed);
    let tools = tools.map(|function| {
        let mut declared = json!({"name": function["name"]});
        if let Some(description) = function["description"].as_str() {
            declared["description"] = json!(description);
        }
        let parameters = [get(function, "parametersJsonSchema"), get(function, "parameters")];
        let parameters = parameters.into_iter().find(|schema| schema.is_object()).map(plain_schema);
        declared["parameters"] = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        json!({"type": "function", "function": declared})
    });
    let tools = tools.collect::<Vec<_>>();
    if tools.is_empty() {
        return Ok((Value::Null, Value::Null));
    }
    let choice = match (mode.as_str(), allowed) {
        ("ANY", [name]) => json!({"type": "function", "function": {"name": name}}),
        ("ANY", _) => json!("required"),
        ("NONE", _) => json!("none"),
        ("AUTO", _) => json!("auto"),
        _ => Value::Null,
    };
    Ok((json!(tools), choice))
}

/// Returns Google's schema as JSON Schema, which it mostly is: types are in capitals, numbers are written as text, and
/// some names differ. JSON Schema stays as it is.
fn plain_schema(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else {
        return schema.clone();
    };
    let mut plain = Map::new();
    for (name, value) in fields {
        let name = match name.as_str() {
            "any_of" => "anyOf",
            "min_items" => "minItems",
            "max_items" => "maxItems",
            "min_length" => "minLength",
            "max_length" => "maxLength",
            "min_properties" => "minProperties",
            "max_properties" => "maxProperties",
            "additional_properties" => "additionalProperties",
            "nullable" | "propertyOrdering" | "property_ordering" => continue,
            name => name,
        };
        let value = match (name, value) {
            ("type", Value::String(kind)) if kind == "TYPE_UNSPECIFIED" => continue,
            ("type", Value::String(kind)) => json!(kind.to_ascii_lowercase()),
            ("format", Value::String(format)) if format == "enum" => continue,
            ("properties" | "$defs" | "definitions" | "patternProperties", Value::Object(schemas)) => {
                schemas.iter().map(|(name, schema)| (name.clone(), plain_schema(schema))).collect()
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                schemas.iter().map(plain_schema).collect()
            }
            ("items" | "additionalProperties" | "not", schema) => plain_schema(schema),
            (name, Value::String(number)) if name.starts_with("min") || name.starts_with("max") => {
                number.parse::<u64>().map_or_else(|_| value.clone(), Value::from)
            }
            (_, value) => value.clone(),
        };
        plain.insert(name.to_owned(), value);
    }
    if fields.get("nullable") == Some(&Value::Bool(true))
        && let Some(kind) = plain.get_mut("type").filter(|kind| kind.is_string())
    {
        *kind = json!([kind.take(), "null"]);
    }
    Value::Object(plain)
}

fn response_format(config: &Value) -> Value {
    let schemas = [get(config, "responseJsonSchema"), get(config, "responseSchema")];
    let schema = schemas.into_iter().find(|schema| schema.is_object());
    match (schema, get(config, "responseMimeType").as_str()) {
        (_, Some("text/plain" | "text/x.enum")) | (None, None) => Value::Null,
        (Some(schema), _) => {
            let schema = plain_schema(schema);
            json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
        }
        (None, Some("application/json")) => json!({"type": "json_object"}),
        (None, Some(_)) => Value::Null,
    }
}

fn reasoning(thinking: &Value) -> Value {
    let level = get(thinking, "thinkingLevel").as_str().map(str::to_ascii_lowercase);
    match (get(thinking, "thinkingBudget").as_f64(), level) {
        (Some(0.0), _) => json!({"enabled": false}),
        (Some(budget), _) if budget > 0.0 => json!({"max_tokens": budget as u64}),
        (_, Some(level)) if matches!(level.as_str(), "minimal" | "low" | "medium" | "high") => {
            json!({"effort": level})
        }
        _ if get(thinking, "includeThoughts") == true => json!({"enabled": true}),
        _ => Value::Null,
    }
}

/// Answers `:countTokens` without asking a model: `{"totalTokens": N}`.
fn count_tokens(body: Vec<u8>, address: &str) -> Result<String, ApiError> {
    let text = text::decode(body, &|| address.to_owned())?;
    let count = text::with_tree(&text, || count_tokens_of(&text))?;
    let count = count.map_err(|error| text::not_an_object(&text, &error, address, SAMPLE))?;
    Ok(format!(r#"{{"totalTokens":{count}}}"#))
}

fn count_tokens_of(body: &str) -> serde_json::Result<u64> {
    let asked = serde_json::from_str(body).map(Value::Object)?;
    let asked = match get(&asked, "generateContentRequest") {
        Value::Null => &asked,
        request => request,
    };
    let of_part = |part: &Value| match get(part, "inlineData")["data"].as_str() {
        Some(data) if get(get(part, "inlineData"), "mimeType") == "application/pdf" => {
            data.len() as u64 / messages::PDF_BYTES_A_TOKEN
        }
        Some(_) => messages::TOKENS_OF_AN_IMAGE,
        None => text_in(part).map_or_else(|| tokens::estimate(&part.to_string()), tokens::estimate),
    };
    let contents = elements(get(asked, "contents")).iter().chain([get(asked, "systemInstruction")]);
    let parts = contents.flat_map(|content| elements(get(content, "parts"))).map(of_part).sum::<u64>();
    let tools = elements(get(asked, "tools")).iter().map(|tool| tokens::estimate(&tool.to_string()));
    Ok(parts + tools.sum::<u64>())
}

fn list(models: &[Listed<'_>]) -> String {
    let models = models.iter().map(|model| shown(model, model.id)).collect::<Vec<_>>();
    json!({"models": models}).to_string()
}

fn show(model: &Listed<'_>, asked: &str) -> String {
    shown(model, asked).to_string()
}

fn shown(model: &Listed<'_>, name: &str) -> Value {
    let known = json::fields(model.json).unwrap_or_default();
    let provider = json::field(&known, "top_provider").map_or("", |provider| provider.value);
    let provider = serde_json::from_str::<Value>(provider).unwrap_or_default();
    let context = model.context_length.unwrap_or(4096);
    json!({
        "name": format!("models/{name}"), "version": "001", "displayName": model.name,
        "inputTokenLimit": context,
        "outputTokenLimit": provider["max_completion_tokens"].as_u64().unwrap_or(context),
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    })
}

fn own_error(error: &ApiError) -> String {
    let retry_after = error.headers.iter().find(|(name, _)| *name == "retry-after");
    let retry_after = retry_after.and_then(|(_, seconds)| seconds.parse().ok());
    error_object(error.status, &error.message, retry_after).to_string()
}
