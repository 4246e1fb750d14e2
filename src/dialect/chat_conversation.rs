//! A conversation of another API, rewritten as the messages of a chat completion in the form that strict servers
//! accept: one system message, at the beginning; turns that alternate; the results of calls right after them; no fields
//! except those that each message must have.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use crate::object::object;

/// The result of a call that has none.
const NO_RESULT: &str = "(The call was not carried out.)";
/// The text of a result that consists of pictures.
const SEE_BELOW: &str = "(See below.)";
/// The longest name of a tool that servers accept; they also refuse all characters but letters, digits, `_` and `-`.
const MAX_NAME_CHARS: usize = 64;
/// The most entries that `stop` may have.
pub(super) const MAX_STOPS: usize = 4;

/// The result of a tool call.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    text: String,
    /// The parts that a tool's message can't hold.
    pictures: Vec<Value>,
}

impl Outcome {
    /// Creates a result from the parts of a message.
    pub(super) fn new(parts: Vec<Value>, failed: bool) -> Self {
        let is_text = |part: &Value| part["type"] == "text";
        let (texts, pictures): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_text);
        let text = joined(&texts, "\n");
        let text = match (text.is_empty() && !pictures.is_empty(), failed) {
            (true, _) => SEE_BELOW.to_owned(),
            (false, true) => format!("Error: {text}"),
            (false, false) => text,
        };
        Self { text, pictures }
    }
}

/// The conversation so far.
#[derive(Debug)]
pub(super) struct Conversation {
    system: Vec<Value>,
    messages: Vec<Value>,
    /// The parts of the user's turn that isn't over.
    user: Vec<Value>,
    /// The parts of the model's turn that isn't over.
    said: Vec<Value>,
    calls: Vec<Value>,
    /// The results of all calls, in the order of the conversation; each is taken out when it is used.
    outcomes: Vec<Option<Outcome>>,
    /// The places in `outcomes` that belong to a call, by its id.
    by_call: HashMap<String, VecDeque<usize>>,
    /// How many results the conversation has passed.
    passed: usize,
}

impl Conversation {
    /// Starts a conversation. `outcomes` are the results in all of it, each with the id of its call.
    pub(super) fn new(outcomes: Vec<(String, Outcome)>) -> Self {
        let mut by_call = HashMap::<_, VecDeque<_>>::new();
        let outcomes = outcomes.into_iter().enumerate().map(|(number, (id, outcome))| {
            by_call.entry(id).or_default().push_back(number);
            Some(outcome)
        });
        Self {
            outcomes: outcomes.collect(),
            by_call,
            system: Vec::new(),
            messages: Vec::new(),
            user: Vec::new(),
            said: Vec::new(),
            calls: Vec::new(),
            passed: 0,
        }
    }

    /// Adds instructions, wherever they stand: many servers accept them at the beginning only.
    pub(super) fn instruct(&mut self, parts: Vec<Value>) {
        self.system.extend(parts);
    }

    /// Adds what the user says.
    pub(super) fn ask(&mut self, parts: Vec<Value>) {
        self.end_answer();
        self.user.extend(parts);
    }

    /// Adds what the model says.
    pub(super) fn answer(&mut self, parts: Vec<Value>) {
        self.end_question();
        self.said.extend(parts);
    }

    /// Adds a tool call of the model.
    pub(super) fn call(&mut self, id: &str, name: &str, arguments: &str) {
        self.end_question();
        let function = object! {"name": name, "arguments": arguments};
        self.calls.push(object! {"id": id, "type": "function", "function": function});
    }

    /// Marks the place of the next result. A result whose call isn't known becomes part of the user's turn.
    pub(super) fn outcome(&mut self) {
        self.end_answer();
        let outcome = self.outcomes.get_mut(self.passed).and_then(Option::take);
        self.passed += 1;
        if let Some(outcome) = outcome {
            self.user.push(text(format!("Result of a tool: {}", outcome.text)));
            self.user.extend(outcome.pictures);
        }
    }

    /// Returns the messages as they go upstream.
    pub(super) fn finish(mut self) -> Value {
        self.end_answer();
        self.end_question();
        let system = joined(&self.system, "\n\n");
        let system = (!system.is_empty()).then(|| object! {"role": "system", "content": system});
        system.into_iter().chain(self.messages).collect()
    }

    fn end_question(&mut self) {
        if !self.user.is_empty() {
            let parts = std::mem::take(&mut self.user);
            self.messages.push(object! {"role": "user", "content": content(parts)});
        }
    }

    fn end_answer(&mut self) {
        let (said, calls) = (std::mem::take(&mut self.said), std::mem::take(&mut self.calls));
        if said.is_empty() && calls.is_empty() {
            return;
        }
        let said = joined(&said, "\n\n");
        let mut message = object! {"role": "assistant", "content": &said};
        if calls.is_empty() {
            self.messages.push(message);
            return;
        }
        if said.is_empty() {
            message["content"] = Value::Null;
        }
        let outcomes = calls.iter().map(|call| {
            let numbers = self.by_call.get_mut(call["id"].as_str().unwrap_or_default());
            let number = numbers.and_then(VecDeque::pop_front);
            number.and_then(|number| self.outcomes.get_mut(number)?.take())
        });
        let outcomes = outcomes.collect::<Vec<_>>();
        message["tool_calls"] = Value::from(calls.as_slice());
        self.messages.push(message);
        for (call, outcome) in calls.iter().zip(outcomes) {
            let outcome =
                outcome.unwrap_or_else(|| Outcome { text: NO_RESULT.to_owned(), pictures: Vec::new() });
            self.messages
                .push(object! {"role": "tool", "tool_call_id": &call["id"], "content": outcome.text});
            if !outcome.pictures.is_empty() {
                let name = call["function"]["name"].as_str().unwrap_or_default();
                self.user.push(text(format!("From the result of {name}:")));
                self.user.extend(outcome.pictures);
            }
        }
    }
}

/// Returns a part of a message that is text.
pub(super) fn text(text: impl Into<String>) -> Value {
    object! {"type": "text", "text": text.into()}
}

/// Returns a part that is a picture, given by its address or as `data:`.
pub(super) fn picture(url: impl Into<String>) -> Value {
    object! {"type": "image_url", "image_url": object! {"url": url.into()}}
}

/// Returns a part that is a document in base64.
pub(super) fn document(name: &str, media_type: &str, data: &str) -> Value {
    let data =
        if data.starts_with("data:") { data.to_owned() } else { format!("data:{media_type};base64,{data}") };
    object! {"type": "file", "file": object! {"filename": name, "file_data": data}}
}

/// Returns the content of a message. A single text is written without parts, which not all servers know.
fn content(mut parts: Vec<Value>) -> Value {
    match parts.as_mut_slice() {
        [part] if part["type"] == "text" => part["text"].take(),
        _ => Value::Array(parts),
    }
}

fn joined(parts: &[Value], separator: &str) -> String {
    parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(separator)
}

/// Returns a function for the model to call.
pub(super) fn function(name: &str, description: &str, parameters: &Value) -> Value {
    let mut function = object! {"name": name};
    if !description.is_empty() {
        function["description"] = Value::from(description);
    }
    function["parameters"] = if parameters.is_object() {
        parameters.clone()
    } else {
        object! {"type": "object", "properties": object! {}}
    };
    object! {"type": "function", "function": function}
}

/// Returns the choice of this function.
pub(super) fn chosen(name: &str) -> Value {
    object! {"type": "function", "function": object! {"name": name}}
}

/// Returns the `response_format` for this structure.
pub(super) fn schema(name: Option<&str>, description: &Value, schema: &Value, strict: &Value) -> Value {
    let mut format = object! {"name": name.unwrap_or("answer"), "schema": schema};
    if description.is_string() {
        format["description"] = description.clone();
    }
    if strict.is_boolean() {
        format["strict"] = strict.clone();
    }
    object! {"type": "json_schema", "json_schema": format}
}

/// Starts a request with the fields that both APIs write alike, and asks for the token counts at the end of a stream.
pub(super) fn begin_request(asked: &Value, also: &[&str]) -> Map<String, Value> {
    let mut request = Map::new();
    for name in ["model", "stream", "temperature", "top_p"].iter().chain(also) {
        if !asked[*name].is_null() {
            request.insert((*name).to_owned(), asked[*name].clone());
        }
    }
    if asked["stream"] == true {
        request.insert("stream_options".into(), object! {"include_usage": true});
    }
    request
}

/// The names of tools in the chat, and the client's names for them.
#[derive(Debug)]
pub(super) struct ToolNames<T> {
    /// The names in the chat, by the client's names.
    sent: HashMap<String, String>,
    /// The tools, by their names in the chat.
    known: HashMap<String, T>,
}

impl<T> Default for ToolNames<T> {
    fn default() -> Self {
        Self { sent: HashMap::new(), known: HashMap::new() }
    }
}

impl<T> ToolNames<T> {
    /// Adds a tool that the client knows as `key`, and returns a name for it that is as close to `wanted` as possible;
    /// `None` if the tool already has a name.
    pub(super) fn add(&mut self, key: &str, wanted: &str, tool: T) -> Option<String> {
        if self.sent.contains_key(key) {
            return None;
        }
        let mut name = allowed(wanted);
        let mut number = self.known.len();
        while name.is_empty() || self.known.contains_key(&name) {
            number += 1;
            let end = format!("_{number}");
            name.truncate(MAX_NAME_CHARS - end.len());
            name.push_str(&end);
        }
        self.sent.insert(key.to_owned(), name.clone());
        self.known.insert(name.clone(), tool);
        Some(name)
    }

    /// Returns the name of a tool in the chat, if the tool has been added.
    pub(super) fn sent(&self, key: &str) -> Option<&str> {
        self.sent.get(key).map(String::as_str)
    }

    /// Returns the name of a tool in the history, which may not be offered any more.
    pub(super) fn called(&self, key: &str, wanted: &str) -> String {
        self.sent(key).map_or_else(|| allowed(wanted), str::to_owned)
    }

    /// Returns the tool that has this name in the chat.
    pub(super) fn tool(&self, name: &str) -> Option<&T> {
        self.known.get(name)
    }
}

fn allowed(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().take(MAX_NAME_CHARS).map(allowed).collect()
}
