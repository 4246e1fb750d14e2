//! What a request and an answer mean in the API that the client speaks: one file an API, named in [`ALL`] and nowhere else.
//! However long it gets: all that is particular to an API stands together, with its tests.
//!
//! Beside them what they share: the body of a request, the free-model rule and the names of models ([`request`], [`free_models`],
//! [`model_name`]), events
//! ([`sse`]), errors ([`errors`]) and the pieces of structured answers ([`merge`]).
//!
//! May import leaves only.

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
pub mod responses;
pub mod sse;
pub mod text;
pub mod tokens;

use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::json::Field;
use request::Edits;

/// Every API, by its path.
pub const ALL: [&dyn Dialect; 5] = [
    &chat::Chat,
    &responses::Responses,
    &messages::Messages,
    &completions::Completions,
    &embeddings::Embeddings,
];

/// APIs that no upstream knows: translated to one of [`ALL`] and back.
pub const TRANSLATED: [&dyn Translated; 4] =
    [&ollama::CHAT, &ollama::GENERATE, &ollama::EMBED, &ollama::EMBEDDINGS];

/// The face of a path such as `/api/chat`.
pub fn translated_of(path: &str) -> Option<&'static dyn Translated> {
    TRANSLATED.into_iter().find(|translated| translated.path() == path)
}

/// The dialect of a path such as `/chat/completions`.
pub fn of(path: &str) -> Option<&'static dyn Dialect> {
    ALL.into_iter().find(|dialect| dialect.path() == path)
}

/// The body of an error of our own, as the tools that use this path expect it.
pub fn error_body(path: &str, error: &ApiError) -> String {
    // Also of what stands below it, and where somebody has written `/v1` twice.
    let meant = |dialect: &&&dyn Dialect| {
        let below = path.strip_prefix(dialect.path()).is_some_and(|rest| rest.starts_with('/'));
        below || path.ends_with(dialect.path())
    };
    match ALL.iter().find(meant) {
        _ if path.starts_with("/api/") => ollama::error_body(error),
        Some(dialect) => dialect.error_body(error),
        None => error.body(),
    }
}

/// One API: all that is particular to it.
pub trait Dialect: Sync {
    /// What the panel calls it.
    fn name(&self) -> &'static str;

    /// Where clients ask for it, and where the upstream has it, both below `/v1`.
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

    /// Whether another model's answer is as good: not where its numbers would mean something else.
    fn any_model_will_do(&self) -> bool {
        true
    }

    /// What a plain answer says about itself.
    fn read_answer(&self, body: &str) -> AnswerSummary;

    /// Reads a stream; puts the whole answer together from it where that is wanted.
    fn reader(&self, assemble: bool) -> Box<dyn Reader>;

    /// An error of our own.
    fn error_body(&self, error: &ApiError) -> String {
        error.body()
    }

    /// What the built-in model is asked.
    fn question(&self, request: &Value) -> Question;

    /// The built-in model's answer: the plain one, or the events of the stream.
    fn tell(&self, said: &Said, streams: bool) -> Vec<String>;
}

/// An API that is translated to another one: all that is particular to it.
pub trait Translated: Sync {
    /// What the panel calls it.
    fn name(&self) -> &'static str;

    /// Where clients ask for it.
    fn path(&self) -> &'static str;

    /// The API that the upstream is asked in.
    fn native(&self) -> &'static dyn Dialect;

    /// The answer where nothing is asked of a model.
    fn without_a_model(&self, body: &str) -> Option<String>;

    /// The body as the upstream is to get it, but for the free-model rule.
    fn translate(&self, body: &str) -> Result<String, serde_json::Error>;

    /// Tells the answer to the request with this body.
    fn translator(&self, body: &str) -> Box<dyn Translator>;

    /// An error of our own.
    fn error_body(&self, error: &ApiError) -> String;
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

/// What the built-in model is asked, whatever the API.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Question {
    /// What was said last.
    pub text: String,
    /// All that was said, for counting.
    pub words: usize,
    /// Tools that it may call: name and JSON schema of the arguments.
    pub tools: Vec<(String, Value)>,
    /// What the client says about calling them.
    pub choice: Choice,
    /// What was said last is the result of a tool.
    pub tool_has_answered: bool,
    /// The structure that the answer must have.
    pub format: Format,
    /// How many answers are wanted, where there can be several (embeddings).
    pub inputs: Vec<String>,
    /// The numbers are wanted in base64 (embeddings).
    pub base64: bool,
}

/// Which tool is to be called.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Whichever the model likes, or none.
    #[default]
    Free,
    /// None.
    None,
    /// Any, but one.
    Any,
    /// This one.
    Named(String),
}

/// The structure of an answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum Format {
    /// Text.
    #[default]
    Text,
    /// Some JSON object.
    Object,
    /// JSON of this schema.
    Schema(Value),
}

/// What the built-in model says.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Said {
    /// Its name.
    pub model: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The text.
    pub text: String,
    /// A tool that it calls: name and arguments.
    pub call: Option<(String, Value)>,
    /// Tokens of request and answer.
    pub tokens: (usize, usize),
    /// Numbers, one list for each input (embeddings).
    pub vectors: Vec<Vec<f32>>,
    /// The numbers in base64.
    pub base64: bool,
}

/// An event without a name, as chat completions send them.
fn data_event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// An event with its name, which is also its `type`.
fn named_event(data: &Value) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_one_dialect_and_its_own_errors() {
        for dialect in ALL {
            assert_eq!(of(dialect.path()).map(|found| found.name()), Some(dialect.name()));
        }
        let error = ApiError::stopping();
        assert!(error_body("/messages/count_tokens", &error).contains(r#""type":"error""#));
        assert_eq!(error_body("/nowhere", &error), error.body());
    }
}
