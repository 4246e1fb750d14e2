//! The types passed between the steps of a request: how an attempt failed, how a call ended, what is still to be sent.

use std::time::Duration;

use super::gate::Limit;
use crate::client::exchange::Reply;
use crate::dialect::errors::ModelFault;
use crate::error::ApiError;
use crate::language::Words;

/// What to do about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No other attempt can help.
    PassOn,
    /// No attempt at OpenRouter can help; a backup could.
    BackupsOnly,
    /// Try again, after this pause if the upstream named one.
    TryAgain(Option<Duration>),
    /// Another model, or another of the router's providers, could serve the request at once.
    NextModel(Option<ModelFault>),
    /// The account's limit is reached.
    AccountLimit(Limit),
}

/// An attempt that failed before any part of an answer went to the client.
pub struct FailedAttempt {
    /// The reason.
    pub reason: Words,
    /// What to do next.
    pub verdict: Verdict,
    /// What the client gets if this was the last attempt.
    pub answer: FailedAnswer,
    /// The status that the upstream sent or its error named; `None` if it gave no answer.
    pub status: Option<u16>,
    /// How long the upstream wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the error comes from a provider, not from OpenRouter itself.
    pub is_the_providers: bool,
    /// The model that gave the answer, if the answer names it.
    pub by: Option<String>,
}

impl FailedAttempt {
    /// Creates a failed attempt; boxed, because it is passed by value through the stack frames of threads that may wait
    /// for long.
    #[inline(never)]
    pub fn new(reason: Words, verdict: Verdict, answer: FailedAnswer) -> Box<Self> {
        Box::new(Self {
            reason: Words::new(reason.english.trim_end().to_owned(), reason.chinese.trim_end().to_owned()),
            verdict,
            answer,
            status: None,
            retry_after: None,
            is_the_providers: false,
            by: None,
        })
    }
}

/// What the client gets if this was the last attempt.
pub enum FailedAnswer {
    /// The upstream's own error, with the status that it has or names.
    Upstream(Reply),
    /// The beginning of a stream that holds an error.
    Event {
        /// The beginning of the stream, as it came.
        bytes: Vec<u8>,
        /// The data of the event with the error.
        data: String,
        /// The status that the error names.
        status: u16,
    },
    /// An answer that isn't what was asked for but can be read: better than nothing.
    Readable(Box<ReadableAnswer>),
    /// One of the proxy's own errors.
    Own(ApiError),
}

/// A plain answer that is kept in case nothing better comes.
pub struct ReadableAnswer {
    /// The response that the client gets.
    pub reply: Reply,
    /// The JSON of the answer, if it is recorded.
    pub recorded: Option<String>,
}

/// What is sent last, after everything else is done: a client that has the whole answer finds it recorded.
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

/// How a request ended; only its [`FinalWrite`] is still to be sent.
pub enum Served {
    /// With a complete answer; its JSON, if it was recorded.
    Whole(Option<String>),
    /// With an error, perhaps in the middle of an answer.
    BrokenOff {
        /// The error object.
        error: String,
        /// The status that the error has or names.
        status: u16,
        /// The message, for the console.
        said: String,
        /// What had come before the error, if it was recorded.
        partial: Option<String>,
    },
    /// The client left; what had come so far, if it was recorded.
    ClientLeft(Option<String>),
}
