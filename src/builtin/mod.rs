//! The built-in model of `--offline`: no network, no key, no intelligence, but the forms of answers that clients ask
//! for, so that a tool can be tried before there is a key. There is one file for each API that the model answers in
//! ([`RESPONDERS`]); an API that is translated to one of these needs no file.
//!
//! May import `upstream`, `dialect` and leaves.

mod chat;
mod completions;
mod embeddings;
mod example;
mod messages;
mod responses;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::dialect::chat::text_of;
use crate::dialect::request::Request;
use crate::dialect::{data_event, named_event};
use crate::error::ApiError;
use crate::upstream::Failure;
use example::fitting;

/// The pause between two chunks of a stream.
const PAUSE: Duration = Duration::from_millis(15);
/// How many characters of the question the answer repeats.
const QUOTED_CHARS: usize = 100;

/// The name of the built-in model.
pub const NAME: &str = "local-api-proxy/built-in:free";
const INTRODUCTION: &str = "This is the built-in test model of local-api-proxy: it needs no network and no key, and it is no real AI.";

/// How the model answers in one API: a function that reads the question, and one that writes the answer as one piece or
/// as the events of a stream.
type Responder = (fn(&Value) -> Question, fn(&Said, bool) -> Vec<String>);

/// The voices by the upstream's path of their API.
const RESPONDERS: [(&str, Responder); 5] = [
    ("/chat/completions", (chat::question, chat::tell)),
    ("/completions", (completions::question, completions::tell)),
    ("/responses", (responses::question, responses::tell)),
    ("/messages", (messages::question, messages::tell)),
    ("/embeddings", (embeddings::question, embeddings::tell)),
];

fn responder(dialect: &dyn Dialect) -> Option<Responder> {
    RESPONDERS.iter().find(|(path, _)| *path == dialect.path()).map(|(_, responder)| *responder)
}

/// Returns the error for requests in an API that the built-in model can't imitate, `None` for the others.
pub fn refusal(dialect: &dyn Dialect) -> Option<ApiError> {
    responder(dialect).is_none().then(ApiError::not_offline)
}

/// An answer of the built-in model, sent at the pace of a fast model.
pub struct Answer {
    streams: bool,
    /// The pieces still to be sent, in reverse order: the next one is the last.
    pieces: Vec<String>,
    begun: bool,
    /// The bytes of the last piece that didn't fit into the buffer.
    rest: Vec<u8>,
    is_cut_off: Box<dyn Fn() -> bool + Send>,
}

impl Answer {
    /// Returns the content type that an upstream would send.
    pub fn content_type(&self) -> &'static str {
        if self.streams { "text/event-stream" } else { "application/json" }
    }

    /// Reads the next bytes of the answer into the buffer; returns 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if self.rest.is_empty() {
            let Some(piece) = self.pieces.pop() else {
                return Ok(0);
            };
            if std::mem::replace(&mut self.begun, true) {
                thread::sleep(PAUSE);
            }
            if (self.is_cut_off)() {
                return Err(Failure::aborted());
            }
            self.rest = piece.into_bytes();
        }
        let read = self.rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&self.rest[..read]);
        self.rest.drain(..read);
        Ok(read)
    }
}

/// Answers a request in the API of `dialect`, until `is_cut_off` returns true. In an API that the model can't imitate
/// ([`refusal`]) the answer is empty.
pub fn answer(
    dialect: &dyn Dialect,
    request: &Request,
    is_cut_off: impl Fn() -> bool + Send + 'static,
) -> Answer {
    let asked = serde_json::from_str::<Value>(request.as_written()).unwrap_or_default();
    let tell = |(question, tell): Responder| tell(&reply_to(&question(&asked)), request.stream);
    let mut pieces = responder(dialect).map(tell).unwrap_or_default();
    pieces.reverse();
    let streams = request.stream && pieces.len() > 1;
    Answer { streams, pieces, begun: false, rest: Vec::new(), is_cut_off: Box::new(is_cut_off) }
}

fn reply_to(question: &Question) -> Said {
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let call = tool_to_call(question)
        .map(|(name, schema)| (name.clone(), fitting(schema)))
        .map(|(name, arguments)| (name, if arguments.is_object() { arguments } else { json!({}) }));
    let text = match (&question.format, &call) {
        (_, Some((name, _))) => format!("{INTRODUCTION} It calls {name}, as it was asked to."),
        (Format::Schema(schema), None) => fitting(schema).to_string(),
        (Format::Object, None) => json!({"answer": INTRODUCTION}).to_string(),
        (Format::Text, None) => format!("{INTRODUCTION} You said: {}", quoted(&question.text)),
    };
    let tokens = (question.words, text.split_whitespace().count().max(1));
    let vectors = question.inputs.iter().map(|input| vector(input)).collect();
    Said { model: NAME, created, text, call, tokens, vectors, base64: question.base64 }
}

/// A question in a form common to all APIs.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Question {
    /// The text of the last message.
    pub text: String,
    /// The number of words in the whole conversation, as the token count of the request.
    pub words: usize,
    /// The tools that the model may call: the name and the JSON schema of the arguments.
    pub tools: Vec<(String, Value)>,
    /// What the client says about calling tools.
    pub choice: Choice,
    /// Whether the last message is the result of a tool.
    pub tool_has_answered: bool,
    /// The structure that the answer must have.
    pub format: Format,
    /// The inputs, each of which gets an answer (embeddings).
    pub inputs: Vec<String>,
    /// Whether the client wants the numbers in base64 (embeddings).
    pub base64: bool,
}

/// Which tool the model has to call.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Whichever the model likes, or none.
    #[default]
    Free,
    /// No tool.
    None,
    /// Any tool, but at least one.
    Any,
    /// The tool with this name.
    Named(String),
}

/// The structure of an answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum Format {
    /// Text.
    #[default]
    Text,
    /// Any JSON object.
    Object,
    /// JSON that fits this schema.
    Schema(Value),
}

/// An answer in a form common to all APIs.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Said {
    /// The name of the model.
    pub model: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The text of the answer.
    pub text: String,
    /// The tool call in the answer: the tool's name and the arguments.
    pub call: Option<(String, Value)>,
    /// The tokens of the request and of the answer.
    pub tokens: (usize, usize),
    /// The embeddings, one for each input.
    pub vectors: Vec<Vec<f32>>,
    /// Whether the embeddings are written in base64.
    pub base64: bool,
}

/// Counts the words of any JSON value, the built-in model's substitute for tokens.
fn words(value: &Value) -> usize {
    value.to_string().split_whitespace().count().max(1)
}

/// Returns the beginning of a question as a sentence: on one line and without characters that editors would take for
/// code or an edit.
fn quoted(text: &str) -> String {
    let plain = text
        .chars()
        .filter(|c| c.is_alphanumeric() || c.is_whitespace() || ".,;:!?'()-，。；：！？、（）".contains(*c));
    let plain = plain.collect::<String>();
    let mut sentence = String::new();
    for word in plain.split_whitespace() {
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(word);
    }
    match sentence.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &sentence[..end]),
        None => sentence,
    }
}

/// Returns the tool to call: the one that the client demands, or one that the text names. After the result of a tool it
/// calls none.
fn tool_to_call(question: &Question) -> Option<&(String, Value)> {
    if question.tool_has_answered {
        return None;
    }
    let is_word = |at: usize, name: &str| {
        let beside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        beside(question.text[..at].chars().next_back())
            && beside(question.text[at + name.len()..].chars().next())
    };
    let is_named = |(name, _): &&(String, Value)| {
        question.text.match_indices(name.as_str()).any(|(at, _)| is_word(at, name))
    };
    match &question.choice {
        Choice::None => None,
        Choice::Named(name) => question.tools.iter().find(|(known, _)| known == name),
        Choice::Any => question.tools.iter().find(is_named).or_else(|| question.tools.first()),
        Choice::Free => question.tools.iter().find(is_named),
    }
}

/// Returns numbers that are the same for the same text and have no other meaning.
fn vector(input: &str) -> Vec<f32> {
    const DIMENSIONS: u64 = 8;
    let number = |dimension: u64| {
        let mut hasher = DefaultHasher::new();
        (dimension, input).hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..DIMENSIONS).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_is() {
        let said = reply_to(&Question { text: "hello".into(), ..Question::default() });
        assert!(said.text.contains("built-in test model") && said.text.ends_with("hello"), "{}", said.text);
        let edit = "main.py\n```\nprint(1)\n```\n<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>> REPLACE\n";
        let said = reply_to(&Question { text: edit.into(), ..Question::default() });
        assert!(said.text.ends_with("main.py print(1) SEARCH old new REPLACE"), "{}", said.text);
    }

    #[test]
    fn tools_are_called_by_name_or_by_choice() {
        let schema = json!({"type": "object", "required": ["days"], "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
        let ask = |text: &str, choice: Choice, tool_has_answered: bool| {
            let tools = vec![("get".to_owned(), json!({})), ("get_weather".to_owned(), schema.clone())];
            let question =
                Question { text: text.into(), tools, choice, tool_has_answered, ..Question::default() };
            reply_to(&question).call
        };
        let (name, arguments) = ask("call get_weather now", Choice::Free, false).unwrap();
        assert_eq!((name.as_str(), &arguments["days"]), ("get_weather", &json!(1)));
        assert!(arguments.get("city").is_none(), "it isn't required");
        assert_eq!(ask("forget it", Choice::Free, false), None);
        assert_eq!(ask("x", Choice::Any, false).unwrap().0, "get");
        assert_eq!(ask("x", Choice::Named("get_weather".into()), false).unwrap().0, "get_weather");
        assert_eq!(ask("get_weather", Choice::None, false), None);
        assert_eq!(ask("get_weather", Choice::Free, true), None, "it has answered");
    }
}
