//! What a request and an answer mean in the API that the client speaks: one file an API, named in [`ALL`] and nowhere else.
//! However long it gets: all that is particular to an API stands together, with its tests.
//!
//! Beside them what they share: the body of a request, the free-model rule and the names of models ([`request`], [`free_models`],
//! [`model_name`]), events
//! ([`sse`]), errors ([`errors`]) and the pieces of structured answers ([`merge`]).
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

/// Every API. Of those that have the same route, the first serves whoever doesn't say which one is meant.
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

/// Where the upstream lists the models that chat.
pub const CHAT_MODELS: &str = "/models";

/// What the upstream can be asked in.
pub fn natives() -> impl Iterator<Item = &'static dyn Dialect> {
    let actions = ALL.iter().flat_map(|api| api.routes).map(|route| route.action);
    actions.filter_map(|action| if let Action::Ask(dialect) = action { Some(dialect) } else { None })
}

/// What is translated to it.
pub fn translated() -> impl Iterator<Item = &'static dyn Translated> {
    let actions = ALL.iter().flat_map(|api| api.routes).map(|route| route.action);
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
    fn make_free(&self, _: &[Field<'_>], _: &mut Edits) -> bool {
        false
    }

    /// What a model must be able to do to serve this.
    fn needs(&self, _: &[Field<'_>]) -> Needs {
        Needs::default()
    }

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

    /// Whether the upstream itself goes on with other models, where a request names them as `models`.
    fn takes_several_models(&self) -> bool {
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

    /// A field's value as other servers than OpenRouter get it; `None` where only OpenRouter knows the field.
    fn elsewhere<'a>(&self, field: &Field<'a>) -> Option<Cow<'a, str>> {
        request::elsewhere(field)
    }

    /// How it is told to servers that don't know it, in chat completions.
    fn as_chat(&self) -> Option<&'static dyn Translated> {
        None
    }

    /// Whether the body of a 404 is an error of this API about a model, and not about the path.
    fn names_a_model(&self, _: &str) -> bool {
        false
    }

    /// The field of a plain answer that holds what was asked for, an array.
    fn results(&self) -> &'static str {
        "data"
    }

    /// Whether an element of that array is what was asked for.
    fn is_a_result(&self, _: &str) -> bool {
        true
    }

    /// What a plain answer to a request with these needs says about itself.
    fn read_answer(&self, body: &str, _: Needs) -> AnswerSummary {
        AnswerSummary::of_results(body, self.results(), |result| self.is_a_result(result))
    }

    /// Reads a stream that answers a request with these needs; puts the whole answer together from it where that is wanted.
    /// What came as a stream where there is none would be told as chat's.
    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        Box::new(chat::ChatReader::new("list", assemble, needs))
    }
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
    fn error_body(&self, error: &UpstreamError<'_>) -> String;
}

/// An error as an upstream told it.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamError<'a> {
    /// Its status, or the one that it names.
    pub status: u16,
    /// How long to wait, in seconds.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: &'a str,
}

impl<'a> UpstreamError<'a> {
    /// One that came as a success.
    pub fn in_a_success(body: &'a str) -> Self {
        Self { status: 502, retry_after: None, body }
    }
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
    /// There is text, a refusal, audio or a tool call in it.
    pub has_content: bool,
    /// There is reasoning in it.
    pub has_reasoning: bool,
    /// It was ended by a limit or a filter: nothing may be all that was asked for.
    pub cut_short: bool,
    /// The model has said that it is done: the stream may end here.
    pub finished: bool,
    /// The stream has said that it is over.
    pub done: bool,
    /// An error has come, as its own text.
    pub error: Option<String>,
    /// It isn't done, as it says itself: not to be given again.
    pub in_progress: bool,
    /// No SDK could read it as an answer.
    pub unreadable: bool,
    /// Something about the content makes it useless to whoever asked.
    pub flaw: Option<Flaw>,
    /// How its text begins, for as long as that could become a tool call written as text.
    pub opening: Opening,
}

/// Content that is none of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A tool call that is written as text.
    CallAsText,
    /// The arguments of a tool call aren't JSON.
    BrokenArguments,
    /// JSON was asked for, and there is none.
    NoJson,
}

impl AnswerSummary {
    /// Whether a plain answer has in it what it was asked for.
    pub fn is_an_answer(&self) -> bool {
        !self.unreadable && (self.has_content || self.cut_short)
    }

    /// Whether a stream has said something by which it is known what it is.
    pub fn says_something(&self) -> bool {
        let is_decided = self.flaw.is_some() || !self.opening.is_undecided();
        self.has_reasoning || self.cut_short || (self.has_content && is_decided)
    }

    /// What a plain answer says whose results stand in the array `name`.
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

    /// What a plain answer in no known shape says.
    fn unreadable() -> Self {
        Self { unreadable: true, ..Self::default() }
    }

    /// Takes more of the answer's text into account, for a request that offers tools.
    fn read_opening(&mut self, text: &str) {
        if self.opening.add(text) {
            self.flaw = Some(Flaw::CallAsText);
        }
    }

    /// Takes content into account that is no text: what was said before it is no call any more.
    fn read_other_content(&mut self) {
        self.has_content = true;
        self.opening.is_over = true;
    }
}

/// The beginning of an answer's text, for as long as it could become a tool call that is written as text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Opening {
    text: String,
    /// Blanks may stand before it, also as an event of their own.
    has_begun: bool,
    is_over: bool,
}

/// How models write a tool call where their server doesn't know it for one.
const CALLS_AS_TEXT: [&str; 4] = ["<tool_call>", "<function=", "[TOOL_CALLS]", "<|tool_call"];

impl Opening {
    /// Adds text. Whether it has turned out to be a tool call.
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

    /// Whether the next characters decide.
    fn is_undecided(&self) -> bool {
        !self.is_over && self.has_begun
    }
}

/// The flaw of a plain answer with this text, where there is no tool call in it.
fn flaw_of(text: &str, needs: Needs) -> Option<Flaw> {
    let begins_a_call = || CALLS_AS_TEXT.iter().any(|call| text.trim_start().starts_with(call));
    if needs.tools && begins_a_call() {
        return Some(Flaw::CallAsText);
    }
    (needs.structured && !json::stands_in(text)).then_some(Flaw::NoJson)
}

/// Whether the arguments of a tool call can be read: empty ones are none.
fn are_arguments(text: &str) -> bool {
    text.trim().is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
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
    let value = json::field(fields, name)?.value;
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
