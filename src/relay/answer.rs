//! An answer that has begun, whatever its source: the upstream, the built-in model, an earlier request, or another
//! request's call.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::shared_call::{Follower, SharedCall};
use crate::builtin;
use crate::record::answers::{AnswerHead, Kept};
use crate::upstream::{Call, Failure};

/// Header fields of the upstream that the client gets.
const RETURNED: [&str; 5] = ["content-type", "retry-after", "x-generation-id", "x-request-id", "request-id"];
const RETURNED_PREFIX: &str = "x-ratelimit-";

/// An answer that has begun, whatever its source.
pub(super) struct Answer {
    from: AnswerSource,
    /// Gathers the answer for other requests.
    shared_call: Option<Arc<SharedCall>>,
}

pub(super) enum AnswerSource {
    Upstream(Box<Call>),
    BuiltIn(builtin::Answer),
    /// The answer of an earlier request, and how much of it has been read.
    Kept(Arc<Kept>, usize),
    /// An answer that is arriving for another request.
    Follower(Follower),
}

impl Answer {
    /// Returns the answer of this source; `shared_call` gathers it for other requests.
    pub(super) fn new(from: AnswerSource, shared_call: Option<Arc<SharedCall>>) -> Self {
        Self { from, shared_call }
    }

    /// Sets the time after which nothing more is waited for.
    pub(super) fn end_by(&self, deadline: Instant) {
        if let AnswerSource::Upstream(call) = &self.from {
            call.end_by(deadline);
        }
    }

    pub(super) fn status(&self) -> u16 {
        match &self.from {
            AnswerSource::Upstream(call) => call.status(),
            AnswerSource::BuiltIn(_) | AnswerSource::Kept(..) | AnswerSource::Follower(_) => 200,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        match &self.from {
            AnswerSource::Upstream(call) => call.header(name),
            AnswerSource::BuiltIn(answer) => (name == "content-type").then(|| answer.content_type()),
            AnswerSource::Kept(kept, _) => kept.head.header(name),
            AnswerSource::Follower(follower) => follower.head.header(name),
        }
    }

    /// Reads what has arrived of the body, waiting only if nothing has; returns 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let read = match &mut self.from {
            AnswerSource::Upstream(call) => call.read(buffer),
            AnswerSource::BuiltIn(answer) => answer.read(buffer),
            AnswerSource::Kept(kept, at) => {
                let rest = &kept.body[*at..];
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                *at += length;
                Ok(length)
            }
            AnswerSource::Follower(follower) => follower.read(buffer),
        };
        if let (Some(shared_call), Ok(read)) = (&self.shared_call, &read) {
            shared_call.push(&buffer[..*read]);
        }
        read
    }

    /// Reads the body to its end, or until there is more than `limit` bytes of it. Returns whether the end came.
    pub(super) fn read_whole(&mut self, body: &mut Vec<u8>, limit: usize) -> Result<bool, Failure> {
        let announced = self.header("content-length").and_then(|length| length.parse().ok());
        crate::body::read_whole(body, announced, limit, |buffer| self.read(buffer))
    }

    /// Returns the header fields that the client gets.
    pub(super) fn returned_headers(&self) -> Vec<(Cow<'static, str>, String)> {
        let kept = |head: &AnswerHead| {
            head.headers.iter().map(|(name, value)| (Cow::Owned(name.clone()), value.clone())).collect()
        };
        let call = match &self.from {
            AnswerSource::Upstream(call) => call,
            AnswerSource::BuiltIn(answer) => {
                return vec![("content-type".into(), answer.content_type().to_owned())];
            }
            AnswerSource::Kept(answer, _) => return kept(&answer.head),
            AnswerSource::Follower(follower) => return kept(&follower.head),
        };
        let returned = |name: &str| match RETURNED.iter().find(|returned| **returned == name) {
            Some(name) => Some(Cow::Borrowed(*name)),
            None => name.starts_with(RETURNED_PREFIX).then(|| Cow::Owned(name.to_owned())),
        };
        let headers = call.headers().iter();
        headers
            .filter_map(|(name, value)| Some((returned(name.as_str())?, value.to_str().ok()?.to_owned())))
            .collect()
    }

    /// Stops gathering the answer for other requests.
    pub(super) fn is_not_shared(&mut self) {
        self.shared_call = None;
    }

    /// Returns what is kept of the answer beside its body.
    pub(super) fn head(&self, model: &str, backup: Option<&String>) -> AnswerHead {
        let headers = self.returned_headers().into_iter();
        AnswerHead {
            headers: headers.map(|(name, value)| (name.into_owned(), value)).collect(),
            model: model.to_owned(),
            backup: backup.cloned(),
        }
    }

    pub(super) fn is_event_stream(&self) -> bool {
        self.is_of_type("text/event-stream")
    }

    pub(super) fn is_audio(&self) -> bool {
        self.is_of_type("audio/") || self.is_of_type("application/octet-stream")
    }

    fn is_of_type(&self, begin: &str) -> bool {
        let content_type = self.header("content-type").unwrap_or_default();
        content_type.trim_start().get(..begin.len()).is_some_and(|t| t.eq_ignore_ascii_case(begin))
    }
}
