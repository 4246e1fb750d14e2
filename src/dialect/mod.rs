//! The meaning of a request and an answer in the API that the client speaks: one file for each API, listed in [`ALL`]
//! and nowhere else. Everything particular to an API stays together with its tests, however long the file gets.
//!
//! The other files hold what the APIs share: the body of a request, the free-model rule and the names of models
//! ([`request`], [`free_models`], [`model_name`]), events ([`sse`]), errors ([`errors`]) and the assembly of streamed
//! answers ([`merge`]).
//!
//! May import leaves only.

mod anthropic_error;
pub mod api;
pub mod chat;
mod chat_conversation;
mod chat_parts;
pub mod completions;
pub mod edits;
pub mod embeddings;
pub mod errors;
mod files;
pub mod free_models;
pub mod gemini;
mod gemini_answer;
pub mod merge;
pub mod messages;
pub mod messages_as_chat;
pub mod model_name;
pub mod ollama;
mod open_calls;
pub mod request;
pub mod rerank;
pub mod responses;
pub mod responses_as_chat;
mod responses_from_chat;
mod responses_tools;
pub mod speech;
pub mod sse;
pub mod text;
pub mod tokens;
#[cfg(test)]
mod work;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::json::{self, Field};
use edits::Edits;

pub use api::{Action, Api, Named, Route, Routed, Show, StandIn, error_body};

/// Every API. Of APIs with the same route, the first serves clients that don't say which one they mean.
pub static ALL: &[&Api] = &[
    &chat::API,
    &responses::API,
    &messages::API,
    &completions::API,
    &embeddings::API,
    &rerank::API,
    &speech::API,
    &ollama::API,
    &gemini::API,
];

/// The path at which the upstream lists the chat models.
pub const CHAT_MODELS: &str = "/models";

/// Returns the APIs that the upstream itself speaks.
pub fn native_dialects() -> impl Iterator<Item = &'static dyn Dialect> {
    let actions = ALL.iter().flat_map(|api| api.routes).map(|route| route.action);
    actions.filter_map(|action| if let Action::Ask(dialect) = action { Some(dialect) } else { None })
}

/// Returns the APIs that are translated to one that the upstream speaks.
pub fn translated() -> impl Iterator<Item = &'static dyn Translated> {
    let actions = ALL.iter().flat_map(|api| api.routes).map(|route| route.action);
    actions.filter_map(|action| if let Action::Translate(other) = action { Some(other) } else { None })
}

/// Returns the kinds of models that can't stand in for each other.
pub fn named_kinds() -> impl Iterator<Item = Named> {
    native_dialects()
        .filter_map(|dialect| if let StandIn::Named(named) = dialect.stand_in() { Some(named) } else { None })
}

/// The meaning of a request and an answer in an API that the upstream speaks.
pub trait Dialect: Sync {
    /// Returns the path at which the upstream serves the API.
    fn path(&self) -> &'static str;

    /// Removes what costs money in this API only, such as its tools and the choice among them; [`free_models`] removes
    /// what costs money in every API. Returns whether the request carries a file, or may carry one.
    fn make_free(&self, _: &[Field<'_>], _: &mut Edits) -> bool {
        false
    }

    /// Returns what a model must be able to do to serve the request.
    fn needs(&self, _: &[Field<'_>]) -> Needs {
        Needs::default()
    }

    /// Returns the name of the field that holds the conversation so far, an array that grows from turn to turn.
    fn turns(&self) -> Option<&'static str> {
        None
    }

    /// Whether the request continues a conversation which the server should have kept. None is kept: it is refused.
    fn wants_a_kept_conversation(&self, _: &[Field<'_>]) -> bool {
        false
    }

    /// Whether the query of the request's target means something to the upstream.
    fn forwards_query(&self) -> bool {
        false
    }

    /// Whether a request may also name other models, as `fallbacks`.
    fn has_fallbacks(&self) -> bool {
        false
    }

    /// Whether the upstream itself tries other models if a request names them as `models`.
    fn takes_several_models(&self) -> bool {
        false
    }

    /// Returns what replaces a model that may not be asked.
    fn stand_in(&self) -> StandIn {
        StandIn::Model
    }

    /// Whether the answers are bytes that the proxy can't read, instead of JSON.
    fn answers_in_bytes(&self) -> bool {
        false
    }

    /// Returns a field's value for servers other than OpenRouter; `None` if only OpenRouter knows the field.
    fn elsewhere<'a>(&self, field: &Field<'a>) -> Option<Cow<'a, str>> {
        request::elsewhere(field)
    }

    /// Returns the translation to chat completions, for servers that don't know this API.
    fn as_chat(&self) -> Option<&'static dyn Translated> {
        None
    }

    /// Whether the body of a 404 is an error of this API about a model, and not about the path.
    fn names_a_model(&self, _: &str) -> bool {
        false
    }

    /// Returns the name of the array in a plain answer that holds the results.
    fn results(&self) -> &'static str {
        "data"
    }

    /// Whether an element of this array is a result.
    fn is_a_result(&self, _: &str) -> bool {
        true
    }

    /// Summarizes a plain answer (one that isn't streamed) to a request with these needs.
    fn read_answer(&self, body: &str, _: Needs) -> AnswerSummary {
        AnswerSummary::of_results(body, self.results(), |result| self.is_a_result(result))
    }

    /// Returns a reader for a stream that answers a request with these needs; with `assemble` it also puts the whole
    /// answer together. The default, for APIs without streams, reads an unexpected stream like one of chat completions.
    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        Box::new(chat::ChatReader::new("list", assemble, needs))
    }
}

/// The meaning of a request in an API that is translated to another one.
pub trait Translated: Sync {
    /// Returns the API that the upstream is asked in.
    fn native(&self) -> &'static dyn Dialect;

    /// Returns the answer to a body that asks nothing of a model; `None` for any other body.
    fn without_a_model(&self, _: &str) -> Option<String> {
        None
    }

    /// Returns the body for the upstream; the free-model rule is applied to it later.
    fn translate(&self, written: &ClientRequest) -> Result<String, Untranslatable>;

    /// Returns the translator for the answer to this request.
    fn translator(&self, written: &ClientRequest) -> Box<dyn Translator>;
}

/// A request as the client wrote it.
#[derive(Debug, Default)]
pub struct ClientRequest {
    /// The model named in the path.
    pub model: String,
    /// The query.
    pub query: String,
    /// The body.
    pub body: String,
}

/// Why a request can't be translated.
#[derive(Debug)]
pub enum Untranslatable {
    /// The body isn't a JSON object.
    NotAnObject(serde_json::Error),
    /// The request asks for something that isn't available.
    Refused(ApiError),
}

impl From<serde_json::Error> for Untranslatable {
    fn from(error: serde_json::Error) -> Self {
        Self::NotAnObject(error)
    }
}

/// Translates an answer from the upstream's API to the client's.
pub trait Translator: Send {
    /// Returns the content type of a stream.
    fn content_type(&self) -> &'static str;

    /// Translates the data of one event.
    fn event(&mut self, data: &str) -> String;

    /// Returns what ends a complete stream.
    fn end(&mut self) -> String;

    /// Translates a plain answer.
    fn answer(&mut self, body: &str) -> String;

    /// Returns what ends a stream that was broken off.
    fn broken_off(&self, error: &ApiError) -> String;

    /// Translates the body of an upstream's error.
    fn error_body(&self, error: &UpstreamError<'_>) -> String;
}

/// An error of an upstream.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamError<'a> {
    /// The status of the response, or the one that the error names.
    pub status: u16,
    /// How long to wait, in seconds.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: &'a str,
}

impl<'a> UpstreamError<'a> {
    /// Returns an error that came in a successful response.
    pub fn in_a_success(body: &'a str) -> Self {
        Self { status: 502, retry_after: None, body }
    }
}

/// Reads a stream event by event.
pub trait Reader {
    /// Reads the data of one event; `None` stands for data that isn't UTF-8 or was too long to be kept.
    fn read(&mut self, data: Option<&str>);

    /// Returns what has been learned so far.
    fn summary(&self) -> &AnswerSummary;

    /// Returns the event that ends a stream which was broken off: `event:` and `data:` lines and the blank line after
    /// them.
    fn broken_off(&self, error: &ApiError) -> String;

    /// Returns the whole answer as far as it has come; `None` if nothing has come, or if it wasn't to be assembled.
    fn answer(self: Box<Self>) -> Option<Value>;
}

/// What has been learned of an answer so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AnswerSummary {
    /// The model that answered.
    pub model: Option<String>,
    /// The tokens of the request and of the answer.
    pub usage: Usage,
    /// Whether the answer has text, a refusal, audio or a tool call.
    pub has_content: bool,
    /// Whether the answer has reasoning.
    pub has_reasoning: bool,
    /// Whether a limit or a filter ended the answer; then it counts as an answer even without content.
    pub cut_short: bool,
    /// Whether the model has said that it is done: the stream may end here.
    pub finished: bool,
    /// Whether the stream has said that it is over.
    pub done: bool,
    /// The error that has come, as the upstream wrote it.
    pub error: Option<String>,
    /// Whether the answer itself says that it isn't complete: it must not be given to other clients.
    pub in_progress: bool,
    /// Whether no SDK could read this as an answer.
    pub unreadable: bool,
    /// What makes the content useless to the client, if anything does.
    pub flaw: Option<Flaw>,
    /// The beginning of the text, as long as it could become a tool call written as text.
    pub opening: TextPrefix,
}

/// A reason why content isn't what the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A tool call is written as text.
    CallAsText,
    /// The arguments of a tool call aren't JSON.
    BrokenArguments,
    /// The client asked for JSON, and there is none.
    NoJson,
}

impl AnswerSummary {
    /// Whether a plain answer has content, or was cut short before it had any.
    pub fn is_an_answer(&self) -> bool {
        !self.unreadable && (self.has_content || self.cut_short)
    }

    /// Whether a stream has said enough to know what kind of answer it is.
    pub fn says_something(&self) -> bool {
        let is_decided = self.flaw.is_some() || !self.opening.is_undecided();
        self.has_reasoning || self.cut_short || (self.has_content && is_decided)
    }

    /// Summarizes a plain answer whose results are in the array `name`.
    fn of_results(body: &str, name: &str, is_a_result: impl Fn(&str) -> bool) -> Self {
        let Ok(fields) = json::fields(body) else {
            return Self::unreadable();
        };
        let value = |name| json::field(&fields, name).map(|field| field.value);
        let results = value(name).and_then(json::elements);
        let error = value("error").filter(|error| !is_nothing(error));
        Self {
            model: value("model").and_then(json::string).map(Cow::into_owned),
            usage: value("usage").and_then(|usage| serde_json::from_str(usage).ok()).unwrap_or_default(),
            unreadable: results.is_none() && error.is_none(),
            has_content: results.is_some_and(|all| !all.is_empty() && all.into_iter().all(is_a_result)),
            error: error.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Returns the summary of a plain answer in an unknown shape.
    fn unreadable() -> Self {
        Self { unreadable: true, ..Self::default() }
    }

    /// Takes more of the answer's text into account, for a request that offers tools.
    fn read_opening(&mut self, text: &str) {
        if self.opening.add(text) {
            self.flaw = Some(Flaw::CallAsText);
        }
    }

    /// Takes content that isn't text into account: the text before it can't become a tool call any more.
    fn read_other_content(&mut self) {
        self.has_content = true;
        self.opening.is_over = true;
    }
}

/// The beginning of an answer's text, as long as it could become a tool call written as text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TextPrefix {
    text: String,
    /// Whether any text has come, even if it was only blanks before the beginning.
    has_begun: bool,
    is_over: bool,
}

/// How models begin a tool call in their text if their server doesn't recognize it as a call.
const CALLS_AS_TEXT: [&str; 4] = ["<tool_call>", "<function=", "[TOOL_CALLS]", "<|tool_call"];

impl TextPrefix {
    /// Adds text; returns whether it has turned out to be a tool call.
    fn add(&mut self, text: &str) -> bool {
        if self.is_over {
            return false;
        }
        self.has_begun |= !text.is_empty();
        let longest = CALLS_AS_TEXT.iter().map(|call| call.len()).max().unwrap_or_default();
        let text = if self.text.is_empty() { text.trim_start() } else { text };
        self.text.extend(text.chars().take(longest));
        let is_call = CALLS_AS_TEXT.iter().any(|call| self.text.starts_with(call));
        self.is_over = is_call || !CALLS_AS_TEXT.iter().any(|call| call.starts_with(self.text.as_str()));
        is_call
    }

    /// Whether it takes more characters to decide.
    fn is_undecided(&self) -> bool {
        !self.is_over && self.has_begun
    }
}

/// Returns the flaw of a plain answer that has this text and no tool call.
fn flaw_of(text: &str, needs: Needs) -> Option<Flaw> {
    let begins_a_call = || CALLS_AS_TEXT.iter().any(|call| text.trim_start().starts_with(call));
    if needs.tools && begins_a_call() {
        return Some(Flaw::CallAsText);
    }
    (needs.structured && !json::contains_json(text)).then_some(Flaw::NoJson)
}

/// Whether the arguments of a tool call can be parsed; an empty text stands for no arguments.
fn are_arguments(text: &str) -> bool {
    text.trim().is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Tokens as the upstream counted them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens of the request.
    #[serde(default, alias = "input_tokens")]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    #[serde(default, alias = "output_tokens")]
    pub completion_tokens: Option<u64>,
}

/// What a model must be able to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Needs {
    /// Calling tools.
    pub tools: bool,
    /// Seeing images.
    pub images: bool,
    /// Answering in a given structure.
    pub structured: bool,
}

/// A model as the lists of the APIs describe it.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The name that requests use.
    pub id: &'a str,
    /// The name shown to people.
    pub name: &'a str,
    /// The largest number of tokens of request and answer together.
    pub context_length: Option<u64>,
    /// What the model can do.
    pub can: Needs,
    /// Seconds since 1970.
    pub created: u64,
    /// The object as the upstream wrote it, completed with the fields that OpenAI's clients need.
    pub json: &'a str,
}

/// Returns an event without a name, as in streams of chat completions.
pub fn data_event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// Returns an event with a name, which is also its `type`.
pub fn named_event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

/// Returns the field's value unless it is `null` or empty.
fn given<'a>(fields: &[Field<'a>], name: &str) -> Option<&'a str> {
    let value = json::field(fields, name)?.value;
    (!is_nothing(value)).then_some(value)
}

/// Whether a JSON value is `null` or empty.
fn is_nothing(value: &str) -> bool {
    matches!(value, "null" | "\"\"" | "[]" | "{}")
}

/// Whether the JSON text contains `needle`, or could contain it in an escaped form.
fn may_mention(text: &str, needle: &str) -> bool {
    mentions(text, needle) || has_needless_escapes(text)
}

/// Whether the text contains `needle`. This runs at the speed of memory, as bodies can have megabytes.
fn mentions(text: &str, needle: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), needle.as_bytes()).is_some()
}

/// Whether the JSON escapes ASCII characters that need no escape.
fn has_needless_escapes(text: &str) -> bool {
    let text = text.as_bytes();
    let mut escapes = memchr::memchr_iter(b'\\', text).map(|at| &text[at + 1..]);
    escapes.any(|behind| behind.starts_with(b"u00") || behind.starts_with(b"/"))
}
