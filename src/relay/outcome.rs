//! What passes between the steps of a request: how a try failed, how a call ended, what is still to be sent.

use std::time::Duration;

use super::gate::Limit;
use crate::client::exchange::Reply;
use crate::dialect::errors::ModelFault;
use crate::error::ApiError;
use crate::language::Words;

/// What to do about a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No other try can help.
    PassOn,
    /// OpenRouter can't, whatever is tried there; a backup could.
    BackupsOnly,
    /// Try again, after this pause if the upstream named one.
    TryAgain(Option<Duration>),
    /// Another model, or another provider of the router's, could serve it at once.
    NextModel(Option<ModelFault>),
    /// The account's limit is reached.
    AccountLimit(Limit),
}

/// A try that failed before any part of an answer went to the client.
pub struct FailedAttempt {
    /// In words, for panel, files and clients.
    pub reason: String,
    /// For the console.
    pub said: String,
    /// What follows.
    pub verdict: Verdict,
    /// What the client gets if this was the last try.
    pub answer: FailedAnswer,
    /// The status that the upstream gave or named; `None` where it gave no answer.
    pub status: Option<u16>,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// A provider said so, not OpenRouter itself.
    pub is_the_providers: bool,
    /// The model that gave the answer, where the answer says so.
    pub by: Option<String>,
}

impl FailedAttempt {
    /// Boxed: it is passed on by value through the frames of threads that may wait for long.
    #[inline(never)]
    pub fn new(reason: Words, verdict: Verdict, answer: FailedAnswer) -> Box<Self> {
        Box::new(Self {
            reason: reason.english.trim_end().to_owned(),
            said: reason.here().trim_end().to_owned(),
            verdict,
            answer,
            status: None,
            retry_after: None,
            is_the_providers: false,
            by: None,
        })
    }
}

/// What the client gets if this was the last try.
pub enum FailedAnswer {
    /// The upstream's own error, with the status it has or names.
    Upstream(Reply),
    /// The beginning of a stream, as it came; the data of its error, and the status that this names.
    Event {
        /// As it came.
        bytes: Vec<u8>,
        /// Of the event with the error.
        data: String,
        /// That it names.
        status: u16,
    },
    /// An answer that is none of what was asked for, but can be read: better than nothing.
    Readable(Box<ReadableAnswer>),
    /// It gave no answer.
    Own(ApiError),
}

/// A plain answer that is kept for the case that nothing better comes.
pub struct ReadableAnswer {
    /// As the client gets it.
    pub reply: Reply,
    /// Its JSON, where it is recorded.
    pub recorded: Option<String>,
}

/// What is still to be sent when everything else is done: whoever has the end of an answer finds it recorded.
#[derive(Default)]
pub enum FinalWrite {
    /// Nothing.
    #[default]
    Nothing,
    /// A whole answer.
    Reply(Reply),
    /// The last event of a stream.
    Event(Vec<u8>),
}

/// How a call came to its end, once something of its answer has gone out.
pub enum Served {
    /// In full. The answer's JSON, where it was recorded.
    Whole(Option<String>),
    /// With an error in the middle of it, and what had come before.
    BrokenOff {
        /// The error object.
        error: String,
        /// That it has or names.
        status: u16,
        /// For the console.
        said: String,
        /// What had come before, where it was recorded.
        partial: Option<String>,
    },
    /// The client left; what had come so far.
    ClientLeft(Option<String>),
}
