//! Ollama's API, for tools that know nothing else: translated to chat completions and back, line by line. Both
//! directions are in this one file, as each mirrors the other.
//! <https://github.com/ollama/ollama/blob/main/docs/api.md>

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::chat::{Chat, arguments_of, call_as_text, text_of, thought_in};
use super::embeddings::Embeddings;
use super::merge::{MemoryBudget, merge};
use super::model_name::BEST;
use super::open_calls::OpenCalls;
use super::{
    Action, Api, CHAT_MODELS, ClientRequest, Dialect, Listed, Route, Show, Translated, Translator,
    Untranslatable, UpstreamError, errors,
};
use crate::error::ApiError;
use crate::json::{self, SurrogateJoiner, items};

/// The version of Ollama that the proxy reports: `codex --oss` asks for at least 0.13.4.
const VERSION: &str = r#"{"version":"0.14.0"}"#;

/// The declaration of the API.
pub static API: Api = Api {
    name: "ollama",
    routes: &[
        Route::post("/api/chat", Action::Translate(&Ollama(Kind::Chat)))
            .sample(r#"{"messages":[{"role":"user","content":"Hello"}]}"#),
        Route::post("/api/generate", Action::Translate(&Ollama(Kind::Generate)))
            .sample(r#"{"prompt":"Hello"}"#),
        Route::post("/api/embed", Action::Translate(&Ollama(Kind::Embed))).sample(r#"{"input":"Hello"}"#),
        // The older endpoint, for one text at a time.
        Route::post("/api/embeddings", Action::Translate(&Ollama(Kind::Embeddings)))
            .sample(r#"{"prompt":"Hello"}"#),
        Route::get("/api/tags", Action::List(CHAT_MODELS, tags))
            .about("Ollama's API: /api/chat, /api/generate, /api/embed, ..."),
        Route::post(
            "/api/show",
            Action::Show(Show { named_in: Some(shown_model), any_name: true, write: show }),
        ),
        Route::get("/api/version", Action::Local(|_, _| Ok(VERSION.into()))),
        // No model is ever loaded here.
        Route::get("/api/ps", Action::Local(|_, _| Ok(r#"{"models":[]}"#.into()))),
        // Every model counts as present: any model will do.
        Route::post("/api/pull", Action::Local(|_, _| Ok("{\"status\":\"success\"}\n".into()))),
        // Ollama offers to do this to models on its disk.
        Route::post("/api/push", Action::Refuse(ApiError::not_ollamas_disk)),
        Route::post("/api/create", Action::Refuse(ApiError::not_ollamas_disk)),
        Route::post("/api/copy", Action::Refuse(ApiError::not_ollamas_disk)),
        Route { method: "DELETE", ..Route::post("/api/delete", Action::Refuse(ApiError::not_ollamas_disk)) },
    ],
    shown_base: "",
    error_body,
    ..Api::DEFAULT
};

/// An endpoint of the API that asks a model.
#[derive(Debug)]
struct Ollama(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Generate,
    Embed,
    Embeddings,
}

/// Options that chat completions have, too: Ollama's name and the name there. All others are ignored.
const OPTIONS: [(&str, &str); 10] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("repeat_penalty", "repetition_penalty"),
    ("num_predict", "max_tokens"),
];

impl Translated for Ollama {
    fn native(&self) -> &'static dyn Dialect {
        match self.0 {
            Kind::Chat | Kind::Generate => &Chat,
            Kind::Embed | Kind::Embeddings => &Embeddings,
        }
    }

    fn without_a_model(&self, body: &str) -> Option<String> {
        let fields = json::fields(body).ok()?;
        let nothing = |name: &str| match json::field(&fields, name) {
            Some(field) => matches!(field.value, "null" | r#""""#) || is_empty_list(field.value),
            None => true,
        };
        let nothing_asked = match self.0 {
            Kind::Chat => nothing("messages"),
            Kind::Generate => nothing("prompt") && nothing("images"),
            Kind::Embed | Kind::Embeddings => false,
        };
        // "If an empty prompt is provided, the model will be loaded into memory", says Ollama's documentation; or it is
        // unloaded.
        let asked = json::with_only(body, &["model", "keep_alive"]);
        let reason = if asked["keep_alive"] == 0 { "unload" } else { "load" };
        let mut answer = json!({
            "model": asked["model"], "created_at": now(), "done": true, "done_reason": reason,
        });
        match self.0 {
            Kind::Chat => answer["message"] = json!({"role": "assistant", "content": ""}),
            _ => answer["response"] = json!(""),
        }
        nothing_asked.then(|| format!("{answer}\n"))
    }

    fn translate(&self, written: &ClientRequest) -> Result<String, Untranslatable> {
        let asked = Value::Object(serde_json::from_str(&written.body)?);
        let mut request = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                request.insert(name.to_owned(), value);
            }
        };
        put("model", model(&asked["model"]));
        if matches!(self.0, Kind::Embed | Kind::Embeddings) {
            let input = if self.0 == Kind::Embed { &asked["input"] } else { &asked["prompt"] };
            put("input", input.clone());
            put("dimensions", asked["dimensions"].clone());
            return Ok(Value::Object(request).to_string());
        }
        let streams = asked["stream"] != false;
        put("stream", json!(streams));
        if streams {
            put("stream_options", json!({"include_usage": true}));
        }
        put("messages", self.messages(&asked));
        put(
            "tools",
            asked["tools"].as_array().filter(|tools| !tools.is_empty()).map_or(Value::Null, |t| json!(t)),
        );
        put("response_format", response_format(&asked["format"]));
        put("reasoning", reasoning(&asked["think"]));
        for (name, theirs) in OPTIONS {
            let value = &asked["options"][name];
            let unbounded = name == "num_predict" && value.as_f64().is_some_and(|number| number < 0.0);
            if !unbounded {
                put(theirs, value.clone());
            }
        }
        Ok(Value::Object(request).to_string())
    }

    fn translator(&self, written: &ClientRequest) -> Box<dyn Translator> {
        let asked = json::with_only(&written.body, &["model"]);
        Box::new(OllamaTranslator {
            kind: self.0,
            model: asked["model"].as_str().unwrap_or_default().to_owned(),
            began: Instant::now(),
            first_token: None,
            calls: Map::new(),
            room: MemoryBudget::default(),
            finish: None,
            usage: Value::Null,
            halves: SurrogateJoiner::default(),
        })
    }
}

fn is_empty_list(written: &str) -> bool {
    let inside = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

/// Returns the model without the tag that Ollama's clients add; names that are nobody's but Ollama's keep it.
fn model(asked: &Value) -> Value {
    let name = asked.as_str().and_then(|name| name.strip_suffix(":latest"));
    name.filter(|name| *name == BEST || name.contains('/')).map_or_else(|| asked.clone(), Value::from)
}

/// Returns an error as `{"error": "text"}`.
fn error_body(error: &ApiError) -> String {
    json!({"error": error.message}).to_string()
}

impl Ollama {
    fn messages(&self, asked: &Value) -> Value {
        if self.0 == Kind::Generate {
            let system = asked["system"].as_str().filter(|system| !system.is_empty());
            let system = system.map(|system| json!({"role": "system", "content": system}));
            let prompt = json!({"role": "user", "content": content(&asked["prompt"], &asked["images"])});
            return system.into_iter().chain([prompt]).collect();
        }
        // Ollama's results of tools name the tool; chat completions require the call.
        let mut open = OpenCalls::default();
        let messages = items(&asked["messages"]).enumerate();
        let translated = messages.map(|(number, message)| {
            let mut translated = json!({
                "role": message["role"],
                "content": content(&message["content"], &message["images"]),
            });
            if let Some(thinking) = message["thinking"].as_str().filter(|thinking| !thinking.is_empty()) {
                translated["reasoning"] = json!(thinking);
            }
            let calls = items(&message["tool_calls"]).enumerate();
            let calls = calls.map(|(index, call)| {
                let id = call["id"].as_str().map_or_else(|| format!("call_{number}_{index}"), str::to_owned);
                let function = &call["function"];
                let name = function["name"].as_str().unwrap_or_default();
                open.push(name, &id);
                let arguments = match &function["arguments"] {
                    Value::String(text) => text.clone(),
                    Value::Null => "{}".to_owned(),
                    arguments => arguments.to_string(),
                };
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
            });
            let calls = calls.collect::<Vec<_>>();
            if !calls.is_empty() {
                translated["tool_calls"] = json!(calls);
            }
            if message["role"] == "tool" {
                let name = message["tool_name"].as_str().or(message["name"].as_str());
                let call = open.take(None, name);
                let given = message["tool_call_id"].as_str().map(str::to_owned);
                translated["tool_call_id"] = json!(given.or(call).unwrap_or_default());
            }
            translated
        });
        translated.collect()
    }
}

/// Returns a text, or a text with images, which come without their type.
fn content(text: &Value, images: &Value) -> Value {
    let images = images.as_array().map(Vec::as_slice).unwrap_or_default();
    if images.is_empty() {
        return text.clone();
    }
    let images = images.iter().filter_map(Value::as_str).map(|image| {
        let kind = match image.get(..4) {
            Some("/9j/") => "jpeg",
            Some("R0lG") => "gif",
            Some("UklG") => "webp",
            _ => "png",
        };
        let url = if image.starts_with("data:") {
            image.to_owned()
        } else {
            format!("data:image/{kind};base64,{image}")
        };
        json!({"type": "image_url", "image_url": {"url": url}})
    });
    let text =
        text.as_str().filter(|text| !text.is_empty()).map(|text| json!({"type": "text", "text": text}));
    text.into_iter().chain(images).collect()
}

fn response_format(format: &Value) -> Value {
    match format {
        Value::String(json) if json == "json" => json!({"type": "json_object"}),
        Value::Object(_) => {
            json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": format}})
        }
        _ => Value::Null,
    }
}

fn reasoning(think: &Value) -> Value {
    match think {
        Value::Bool(think) => json!({"enabled": think}),
        Value::String(effort) => json!({"effort": effort}),
        _ => Value::Null,
    }
}

struct OllamaTranslator {
    kind: Kind,
    /// The model as the client named it.
    model: String,
    began: Instant,
    first_token: Option<Duration>,
    /// The tool calls so far, as `tool_calls`: their arguments come in pieces that aren't JSON.
    calls: Map<String, Value>,
    room: MemoryBudget,
    finish: Option<String>,
    usage: Value,
    halves: SurrogateJoiner,
}

impl Translator for OllamaTranslator {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn event(&mut self, data: &str) -> String {
        let Some(chunk) = self.halves.parse(data) else {
            return String::new(); // `[DONE]`
        };
        let choice = &chunk["choices"][0];
        let error = [&chunk["error"], &choice["error"]].into_iter().find(|error| !error.is_null());
        if error.is_some() || choice["finish_reason"] == "error" {
            let message = error.map(|error| errors::message(&error.to_string())).unwrap_or_default();
            let message = if message.is_empty() { "The model ended with an error." } else { &message };
            return format!("{}\n", json!({"error": message}));
        }
        if !chunk["usage"].is_null() {
            self.usage = chunk["usage"].clone();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
        }
        let calls = &choice["delta"]["tool_calls"];
        if calls.is_array() {
            merge(&mut self.calls, "tool_calls".into(), calls.clone(), &mut self.room);
        }
        let (said, thought) = (text_of(&choice["delta"]["content"]), thought_in(&choice["delta"]));
        if said.is_empty() && thought.is_empty() {
            return String::new();
        }
        self.first_token.get_or_insert_with(|| self.began.elapsed());
        self.line(&said, &thought, &Value::Null)
    }

    fn end(&mut self) -> String {
        let (calls, text) = tool_calls(&self.calls.remove("tool_calls").unwrap_or_default());
        let is_empty = calls.is_null() && text.is_empty();
        let before = if is_empty { String::new() } else { self.line(&text, "", &calls) };
        let mut last = self.frame("", "", &Value::Null);
        self.finish_up(&mut last);
        format!("{before}{last}\n")
    }

    fn answer(&mut self, body: &str) -> String {
        let Some(answer) = self.halves.parse(body) else {
            return self.error_body(&UpstreamError::in_a_success(body));
        };
        self.usage = answer["usage"].clone();
        if matches!(self.kind, Kind::Embed | Kind::Embeddings) {
            let mut data = answer["data"].as_array().cloned().unwrap_or_default();
            data.sort_by_key(|one| one["index"].as_u64());
            let mut vectors = data.iter().map(|one| &one["embedding"]);
            return match self.kind {
                Kind::Embeddings => json!({"embedding": vectors.next()}),
                _ => json!({
                    "model": self.model, "embeddings": vectors.collect::<Vec<_>>(),
                    "total_duration": nanos(self.began.elapsed()), "load_duration": 0,
                    "prompt_eval_count": self.usage["prompt_tokens"],
                }),
            }
            .to_string();
        }
        let choice = &answer["choices"][0];
        self.finish = choice["finish_reason"].as_str().map(str::to_owned);
        let message = &choice["message"];
        let (calls, text) = tool_calls(&message["tool_calls"]);
        let mut told = self.frame(&(text_of(&message["content"]) + &text), &thought_in(message), &calls);
        self.finish_up(&mut told);
        told.to_string()
    }

    fn broken_off(&self, error: &ApiError) -> String {
        format!("{}\n", error_body(error))
    }

    fn error_body(&self, error: &UpstreamError<'_>) -> String {
        json!({"error": errors::in_words(error.status, error.body)}).to_string()
    }
}

impl OllamaTranslator {
    fn frame(&self, text: &str, thinking: &str, calls: &Value) -> Value {
        let mut frame = json!({"model": self.model, "created_at": now()});
        if self.kind == Kind::Generate {
            frame["response"] = json!(text);
            if !thinking.is_empty() {
                frame["thinking"] = json!(thinking);
            }
        } else {
            let mut message = json!({"role": "assistant", "content": text});
            if !thinking.is_empty() {
                message["thinking"] = json!(thinking);
            }
            if !calls.is_null() {
                message["tool_calls"] = calls.clone();
            }
            frame["message"] = message;
        }
        frame["done"] = json!(false);
        frame
    }

    fn line(&self, text: &str, thinking: &str, calls: &Value) -> String {
        format!("{}\n", self.frame(text, thinking, calls))
    }

    /// Adds the fields that only the last line has.
    fn finish_up(&self, last: &mut Value) {
        let total = self.began.elapsed();
        let before = self.first_token.unwrap_or(total);
        last["done"] = json!(true);
        last["done_reason"] = json!(if self.finish.as_deref() == Some("length") { "length" } else { "stop" });
        last["total_duration"] = nanos(total);
        last["load_duration"] = json!(0);
        last["prompt_eval_count"] = json!(self.usage["prompt_tokens"].as_u64().unwrap_or(0));
        last["prompt_eval_duration"] = nanos(before);
        last["eval_count"] = json!(self.usage["completion_tokens"].as_u64().unwrap_or(0));
        last["eval_duration"] = nanos(total.saturating_sub(before));
        if self.kind == Kind::Generate {
            last["context"] = json!([]);
        }
    }
}

/// Returns the calls with arguments that are objects, `null` if there are none; and all others as text, which no client
/// runs by mistake.
fn tool_calls(calls: &Value) -> (Value, String) {
    let (whole, broken) = items(calls).partition::<Vec<_>, _>(|call| call_as_text(call).is_none());
    let text = broken.into_iter().filter_map(call_as_text).collect();
    let calls = whole.into_iter().enumerate().map(|(index, call)| {
        let function = &call["function"];
        json!({"id": call["id"], "function": {"index": index, "name": function["name"], "arguments": arguments_of(call)}})
    });
    let calls = calls.collect::<Vec<_>>();
    (if calls.is_empty() { Value::Null } else { json!(calls) }, text)
}

fn nanos(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn now() -> String {
    DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn tags(models: &[Listed<'_>]) -> String {
    let tags = models.iter().map(Listed::tag).collect::<Vec<_>>();
    json!({"models": tags}).to_string()
}

fn show(model: &Listed<'_>, _: &str) -> String {
    model.show().to_string()
}

impl Listed<'_> {
    /// Returns an entry of `GET /api/tags`.
    fn tag(&self) -> Value {
        let mut hasher = DefaultHasher::new();
        self.id.hash(&mut hasher);
        let digest = format!("{:016x}", hasher.finish()).repeat(4);
        json!({
            "name": self.id, "model": self.id, "modified_at": self.modified_at(), "size": 0, "digest": digest,
            "details": self.details(), "capabilities": self.capabilities(),
        })
    }

    /// Returns the answer to `POST /api/show`.
    fn show(&self) -> Value {
        let family = self.family();
        let context = self.context_length.unwrap_or(4096);
        let mut info = json!({
            "general.architecture": family, "general.basename": self.name, "general.type": "model",
        });
        info[format!("{family}.context_length")] = json!(context);
        json!({
            "license": "", "modelfile": "", "parameters": "", "template": "", "modified_at": self.modified_at(),
            "details": self.details(), "model_info": info, "capabilities": self.capabilities(),
        })
    }

    fn family(&self) -> &str {
        self.id.split('/').next().filter(|family| !family.is_empty()).unwrap_or("openrouter")
    }

    fn details(&self) -> Value {
        let family = self.family();
        json!({
            "parent_model": "", "format": "gguf", "family": family, "families": [family], "parameter_size": "",
            "quantization_level": "", "context_length": self.context_length,
        })
    }

    fn capabilities(&self) -> Vec<&'static str> {
        let also = [(self.can.tools, "tools"), (self.can.images, "vision")];
        std::iter::once("completion")
            .chain(also.into_iter().filter(|(can, _)| *can).map(|(_, name)| name))
            .collect()
    }

    fn modified_at(&self) -> String {
        let time = DateTime::from_timestamp(self.created as i64, 0).unwrap_or_default();
        time.to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

/// Reads the name of the model that `POST /api/show` asks for.
fn shown_model(body: &[u8]) -> Result<String, ApiError> {
    let text =
        std::str::from_utf8(body).map_err(|_| ApiError::invalid_json("not UTF-8", "不是 UTF-8 编码"))?;
    let fields = json::fields(text);
    let fields = fields.map_err(|error| {
        ApiError::invalid_json(&format!("not a JSON object: {error}"), &format!("不是 JSON 对象（{error}）"))
    })?;
    let named = |name| Some(json::string(json::field(&fields, name)?.value)?.into_owned());
    Ok(named("model").or_else(|| named("name")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: &str) -> ClientRequest {
        ClientRequest { body: body.to_owned(), ..ClientRequest::default() }
    }

    fn translated(translated: &Ollama, body: Value) -> Value {
        serde_json::from_str(&translated.translate(&written(&body.to_string())).unwrap()).unwrap()
    }

    #[test]
    fn a_chat_becomes_a_chat_completion() {
        let tools = json!([{"type": "function", "function": {"name": "weather"}}]);
        let asked = json!({
            "model": "llama3.2", "tools": tools, "think": "high", "keep_alive": "5m", "format": {"type": "object"},
            "options": {"temperature": 0.5, "num_predict": 7, "num_ctx": 4096, "stop": ["x"], "repeat_penalty": 1.1},
            "messages": [
                {"role": "user", "content": "look", "images": ["/9j/abc", "data:image/gif;base64,x"]},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                    {"function": {"name": "a", "arguments": {"x": 1}}}, {"function": {"name": "b", "arguments": {}}}]},
                {"role": "tool", "tool_name": "b", "content": "B"},
                {"role": "tool", "content": "A"},
            ],
        });
        let expected = json!({
            "model": "llama3.2", "stream": true, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/abc"}},
                    {"type": "image_url", "image_url": {"url": "data:image/gif;base64,x"}}]},
                {"role": "assistant", "content": "", "reasoning": "hm", "tool_calls": [
                    {"id": "call_1_0", "type": "function", "function": {"name": "a", "arguments": "{\"x\":1}"}},
                    {"id": "call_1_1", "type": "function", "function": {"name": "b", "arguments": "{}"}}]},
                {"role": "tool", "content": "B", "tool_call_id": "call_1_1"},
                {"role": "tool", "content": "A", "tool_call_id": "call_1_0"},
            ],
            "tools": tools,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": {"type": "object"}}},
            "reasoning": {"effort": "high"},
            "temperature": 0.5, "stop": ["x"], "repetition_penalty": 1.1, "max_tokens": 7,
        });
        assert_eq!(translated(&Ollama(Kind::Chat), asked), expected);
        let generate = json!({"model": "m", "system": "s", "prompt": "p", "stream": false, "think": false, "options": {"num_predict": -1}});
        assert_eq!(
            translated(&Ollama(Kind::Generate), generate),
            json!({"model": "m", "stream": false, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}], "reasoning": {"enabled": false}})
        );
        assert_eq!(
            translated(&Ollama(Kind::Embed), json!({"model": "m", "input": ["a"]})),
            json!({"model": "m", "input": ["a"]})
        );
        assert!(
            Ollama(Kind::Chat).translate(&written("[]")).is_err()
                && Ollama(Kind::Chat).translate(&written("{")).is_err()
        );
    }

    #[test]
    fn nothing_asked_costs_no_call() {
        for (translated, body, reason) in [
            (&Ollama(Kind::Chat), r#"{"model":"m"}"#, Some("load")),
            (&Ollama(Kind::Chat), r#"{"model":"m","messages":[],"keep_alive":0}"#, Some("unload")),
            (&Ollama(Kind::Generate), r#"{"model":"m","prompt":""}"#, Some("load")),
            (&Ollama(Kind::Generate), r#"{"model":"m","prompt":"x"}"#, None),
            (&Ollama(Kind::Chat), r#"{"messages":[{}]}"#, None),
            (&Ollama(Kind::Embed), r#"{}"#, None),
        ] {
            let answer =
                translated.without_a_model(body).map(|text| serde_json::from_str::<Value>(&text).unwrap());
            assert_eq!(answer.as_ref().and_then(|answer| answer["done_reason"].as_str()), reason, "{body}");
        }
    }

    #[test]
    fn chunks_become_lines() {
        let mut translator = Ollama(Kind::Chat).translator(&written(r#"{"model":"llama3.2"}"#));
        let mut told = String::new();
        for chunk in [
            r#"{"choices":[{"delta":{"role":"assistant","content":"","reasoning":"hm"}}]}"#,
            r#"{"choices":[{"delta":{"content":"hi"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":"tool_calls"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            "[DONE]",
        ] {
            told.push_str(&translator.event(chunk));
        }
        told.push_str(&translator.end());
        let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
        assert_eq!(lines.len(), 4, "{told}");
        assert_eq!(
            (&lines[0]["message"]["thinking"], &lines[1]["message"]["content"]),
            (&json!("hm"), &json!("hi"))
        );
        assert_eq!(
            lines[2]["message"]["tool_calls"][0]["function"],
            json!({"index": 0, "name": "f", "arguments": {"a": 1}})
        );
        let last = &lines[3];
        assert_eq!(
            (&last["done"], &last["done_reason"], &last["eval_count"]),
            (&json!(true), &json!("stop"), &json!(4))
        );
        assert!(last["total_duration"].is_u64() && lines.iter().all(|line| line["model"] == "llama3.2"));
    }

    #[test]
    fn whole_answers_and_errors() {
        let mut translator = Ollama(Kind::Generate).translator(&written(r#"{"model":"m"}"#));
        let answer = translator.answer(r#"{"choices":[{"message":{"content":"hi","reasoning":"hm"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#);
        let answer = serde_json::from_str::<Value>(&answer).unwrap();
        assert_eq!(
            (&answer["response"], &answer["thinking"], &answer["done_reason"]),
            (&json!("hi"), &json!("hm"), &json!("length"))
        );
        let vectors = Ollama(Kind::Embed)
            .translator(&written("{}"))
            .answer(r#"{"data":[{"embedding":[1.5]},{"embedding":[2]}],"usage":{"prompt_tokens":3}}"#);
        let vectors = serde_json::from_str::<Value>(&vectors).unwrap();
        assert_eq!(
            (&vectors["embeddings"], &vectors["prompt_eval_count"]),
            (&json!([[1.5], [2]]), &json!(3))
        );
        for (body, expected) in [
            (r#"{"error":{"message":"no","code":402}}"#, "no"),
            (
                r#"{"choices":[{"error":{"message":"the provider died"},"finish_reason":"error"}]}"#,
                "the provider died",
            ),
            (
                r#"{"error":{"message":"Provider returned error","metadata":{"provider_name":"x","raw":"too hot"}}}"#,
                "Provider returned error: too hot",
            ),
            ("<html>", "<html>"),
            ("", "The upstream answered with status 502, and without a word."),
        ] {
            assert_eq!(errors::in_words(502, body), expected, "{body}");
        }
        assert_eq!(
            translator.event(r#"{"error":{"code":502,"message":"gone"},"choices":[]}"#),
            "{\"error\":\"gone\"}\n"
        );
    }

    #[test]
    fn a_model_is_listed_and_shown() {
        let can = super::super::Needs { tools: true, images: true, structured: false };
        let listed = Listed {
            id: "some/model:free",
            name: "Some Model",
            context_length: Some(131_072),
            can,
            created: 0,
            json: "{}",
        };
        let shown = listed.show();
        assert_eq!(shown["model_info"]["some.context_length"], 131_072);
        assert_eq!(shown["capabilities"], json!(["completion", "tools", "vision"]));
        assert_eq!(
            (&listed.tag()["name"], &listed.tag()["model"]),
            (&json!("some/model:free"), &json!("some/model:free"))
        );
        assert_eq!(listed.tag()["digest"].as_str().unwrap().len(), 64);
    }
}
