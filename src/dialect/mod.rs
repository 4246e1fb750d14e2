//! What a request and an answer mean in the API that the client speaks: one file an API, named in [`ALL`] and nowhere else.
//! However long it gets: all that is particular to an API stands together, with its tests.
//!
//! Beside them what they share: the body of a request, the free-model rule and the names of models ([`request`], [`free_models`],
//! [`model_name`]), events
//! ([`sse`]), errors ([`errors`]) and the pieces of structured answers ([`merge`]).
//!
//! May import leaves only.

pub mod api;
pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod errors;
mod files;
pub mod free_models;
pub mod merge;
pub mod messages;
pub mod model_name;
pub mod ollama;
pub mod request;
pub mod rerank;
pub mod responses;
pub mod speech;
pub mod sse;
pub mod text;
pub mod tokens;

use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::json::Field;
use request::Edits;

pub use api::{Action, Api, Named, Route, Routed, Show, StandIn, error_body};

/// Every API. Of those that have the same route, the first serves whoever doesn't say which one is meant.
pub static ALL: [&Api; 8] = [
    &chat::API,
    &responses::API,
    &messages::API,
    &completions::API,
    &embeddings::API,
    &rerank::API,
    &speech::API,
    &ollama::API,
];

/// Where the upstream lists the models that chat.
pub const CHAT_MODELS: &str = "/models";

/// What the upstream can be asked in.
pub fn natives() -> impl Iterator<Item = &'static dyn Dialect> {
    let actions = ALL.into_iter().flat_map(|api| api.routes).map(|route| route.action);
    actions.filter_map(|action| if let Action::Ask(dialect) = action { Some(dialect) } else { None })
}

/// What is translated to it.
pub fn translated() -> impl Iterator<Item = &'static dyn Translated> {
    let actions = ALL.into_iter().flat_map(|api| api.routes).map(|route| route.action);
    actions.filter_map(|action| if let Action::Translate(other) = action { Some(other) } else { None })
}

/// The kinds of models of which none stands in for another.
pub fn named_kinds() -> impl Iterator<Item = Named> {
    natives()
        .filter_map(|dialect| if let StandIn::Named(named) = dialect.stand_in() { Some(named) } else { None })
}

/// What a request and an answer mean in an API that the upstream knows.
pub trait Dialect: Sync {
    /// Where the upstream has it.
    fn path(&self) -> &'static str;

    /// Takes away what costs money beside what costs money in every API: tools and their choice, other lists of models.
    /// Whether the request carries a file, or could.
    fn make_free(&self, fields: &[Field<'_>], edits: &mut Edits) -> bool;

    /// What a model must be able to do to serve this.
    fn needs(&self, fields: &[Field<'_>]) -> Needs;

    /// The name of the field that holds the conversation so far, an array that grows from turn to turn.
    fn turns(&self) -> Option<&'static str> {
        None
    }

    /// Whether it goes on with a conversation that the server is to have kept: none does.
    fn wants_a_kept_conversation(&self, _: &[Field<'_>]) -> bool {
        false
    }

    /// Whether the query of the request's target means something to the upstream.
    fn forwards_query(&self) -> bool {
        false
    }

    /// Whether a request may name other models as `fallbacks`, too.
    fn has_fallbacks(&self) -> bool {
        false
    }

    /// What stands in for a model that may not be asked.
    fn stand_in(&self) -> StandIn {
        StandIn::Model
    }

    /// Whether its answers aren't JSON but bytes that nobody here can read.
    fn answers_in_bytes(&self) -> bool {
        false
    }

    /// What a plain answer says about itself.
    fn read_answer(&self, body: &str) -> AnswerSummary;

    /// Reads a stream; puts the whole answer together from it where that is wanted.
    fn reader(&self, assemble: bool) -> Box<dyn Reader>;
}

/// What a request means in an API that is translated to another one.
pub trait Translated: Sync {
    /// The API that the upstream is asked in.
    fn native(&self) -> &'static dyn Dialect;

    /// The answer to a body that asks nothing of a model.
    fn without_a_model(&self, _: &str) -> Option<String> {
        None
    }

    /// The body as the upstream is to get it, but for the free-model rule.
    fn translate(&self, written: &Written) -> Result<String, Untranslatable>;

    /// Tells the answer to this request.
    fn translator(&self, written: &Written) -> Box<dyn Translator>;
}

/// A request as its client wrote it.
#[derive(Debug, Default)]
pub struct Written {
    /// The model that stands in the path.
    pub model: String,
    /// The query.
    pub query: String,
    /// The body.
    pub body: String,
}

/// Why a request can't be translated.
#[derive(Debug)]
pub enum Untranslatable {
    /// The body is no JSON object.
    NotAnObject(serde_json::Error),
    /// It asks for what isn't there.
    Refused(ApiError),
}

impl From<serde_json::Error> for Untranslatable {
    fn from(error: serde_json::Error) -> Self {
        Self::NotAnObject(error)
    }
}

/// Tells an answer in another API than it came in.
pub trait Translator: Send {
    /// The type of a stream.
    fn content_type(&self) -> &'static str;

    /// What is told of the data of one event.
    fn event(&mut self, data: &str) -> String;

    /// What ends a stream that is whole.
    fn end(&mut self) -> String;

    /// The whole of a plain answer.
    fn answer(&mut self, body: &str) -> String;

    /// What ends a stream that was broken off.
    fn broken_off(&self, error: &ApiError) -> String;

    /// The body of an upstream's error.
    fn error_body(&self, body: &str) -> String;
}

/// Reads a stream event by event.
pub trait Reader {
    /// Takes the data of one event. `None` is one that is no text or too long to be looked at.
    fn read(&mut self, data: Option<&str>);

    /// What was learned so far.
    fn summary(&self) -> &AnswerSummary;

    /// The event that ends a stream which was broken off: `event:` and `data:` lines with the blank line behind them.
    fn broken_off(&self, error: &ApiError) -> String;

    /// The whole answer, as far as it has come; `None` where nothing has, or it wasn't wanted.
    fn answer(self: Box<Self>) -> Option<Value>;
}

/// What was learned of an answer so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AnswerSummary {
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// Something has come that the reader is for: text, reasoning, a refusal, a tool call.
    pub has_content: bool,
    /// It was ended by a limit or a filter: nothing may be all that was asked for.
    pub cut_short: bool,
    /// The model has said that it is done: the stream may end here.
    pub finished: bool,
    /// The stream has said that it is over.
    pub done: bool,
    /// An error has come, as its own text.
    pub error: Option<String>,
    /// It is in no shape that is known, or isn't done as it says itself: not ours to judge, and not to be given again.
    pub doubtful: bool,
}

impl AnswerSummary {
    /// Whether the client should have what there is: no other try would do better.
    pub fn is_an_answer(&self) -> bool {
        self.has_content || self.cut_short
    }

    /// What a plain answer in no known shape says: nothing that could be understood.
    fn unknown() -> Self {
        Self { has_content: true, doubtful: true, ..Self::default() }
    }
}

/// Tokens as the upstream counted them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Of the request.
    #[serde(default, alias = "input_tokens")]
    pub prompt_tokens: Option<u64>,
    /// Of the answer.
    #[serde(default, alias = "output_tokens")]
    pub completion_tokens: Option<u64>,
}

/// What a model must be able to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Needs {
    /// Call tools.
    pub tools: bool,
    /// See images.
    pub images: bool,
    /// Answer in a given structure.
    pub structured: bool,
}

/// A model as the lists of the APIs describe it.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// What a request names it by.
    pub id: &'a str,
    /// What people call it.
    pub name: &'a str,
    /// Tokens that request and answer may have together.
    pub context_length: Option<u64>,
    /// What it can do.
    pub can: Needs,
    /// Seconds since 1970.
    pub created: u64,
    /// The object as the upstream wrote it, with what OpenAI's clients need beside.
    pub json: &'a str,
}

/// An event without a name, as chat completions send them.
pub fn data_event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// An event with its name, which is also its `type`.
pub fn named_event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

/// The field's value, if it holds something.
fn given<'a>(fields: &[Field<'a>], name: &str) -> Option<&'a str> {
    let value = crate::json::field(fields, name)?.value;
    (!is_nothing(value)).then_some(value)
}

/// `null` and everything empty.
fn is_nothing(value: &str) -> bool {
    matches!(value, "null" | "\"\"" | "[]" | "{}")
}

/// Whether this text stands in there, or could behind an escape.
fn may_mention(text: &str, needle: &str) -> bool {
    mentions(text, needle) || hides_words(text)
}

/// At the speed of memory: bodies can have megabytes.
fn mentions(text: &str, needle: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), needle.as_bytes()).is_some()
}

/// Whether JSON writes one of ASCII's characters in a way that it needn't.
fn hides_words(text: &str) -> bool {
    let text = text.as_bytes();
    let mut escapes = memchr::memchr_iter(b'\\', text).map(|at| &text[at + 1..]);
    escapes.any(|behind| behind.starts_with(b"u00") || behind.starts_with(b"/"))
}
