//! One try: the call, and what failed about it before any part of an answer went to the client.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Relay;
use super::finish::Served;
use super::gate::Pass;
use super::in_flight::CancelHandle;
use super::patience::{self, Verdict};
use super::shared_call::{Follower, Replay, SharedCall, Source};
use crate::builtin;
use crate::client::exchange::Reply;
use crate::dialect::errors;
use crate::dialect::free_models::is_free;
use crate::error::{ApiError, EMPTY, UNKNOWN_NAME, reason_in_words};
use crate::record::answers::{AnswerHead, Kept};
use crate::upstream::{Call, CallError, Failure, PoolUse, Trouble};

/// A plain answer up to this size is looked at before anything of it goes to the client; longer ones can't be errors.
pub(super) const MAX_HELD_BYTES: usize = 8 << 20;

/// How long a call waits for a connection where too many are open, and how often it looks.
const DESCRIPTORS_WAIT: Duration = Duration::from_secs(10);
const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(50);

/// Headers of the upstream that the client gets.
const RETURNED: [&str; 5] = ["content-type", "retry-after", "x-generation-id", "x-request-id", "request-id"];
const RETURNED_PREFIX: &str = "x-ratelimit-";

/// A try that failed before any part of an answer went to the client.
pub(super) struct FailedAttempt {
    /// In words, for panel, files and clients.
    pub(super) reason: String,
    /// For the console.
    pub(super) said: String,
    pub(super) verdict: Verdict,
    pub(super) answer: FailedAnswer,
    /// The status that the upstream gave or named; `None` where it gave no answer.
    pub(super) status: Option<u16>,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl FailedAttempt {
    /// Boxed: it is passed on by value through the frames of threads that may wait for long.
    #[inline(never)]
    pub(super) fn new(reason: &str, verdict: Verdict, answer: FailedAnswer) -> Box<Self> {
        Box::new(Self {
            reason: reason.trim_end().to_owned(),
            said: reason_in_words(reason.trim_end()).into_owned(),
            verdict,
            answer,
            status: None,
            retry_after: None,
        })
    }

    /// The same with what the upstream said beside.
    fn told(mut self: Box<Self>, status: u16, answer: &Answer) -> Box<Self> {
        self.status = Some(status);
        self.retry_after = patience::retry_after(&|name| answer.header(name).map(str::to_owned));
        self
    }
}

/// What the client gets if this was the last try.
pub(super) enum FailedAnswer {
    /// The upstream's own error, with the status it has or names.
    Upstream(Reply),
    /// The beginning of a stream, as it came; the data of its error, and the status that this names.
    Event { bytes: Vec<u8>, data: String, status: u16 },
    /// It gave no answer.
    Own(ApiError),
}

/// An answer that has begun, wherever it comes from.
pub(super) struct Answer {
    from: From,
    /// Gathers it for others.
    shared_call: Option<Arc<SharedCall>>,
}

enum From {
    Upstream(Box<Call>),
    BuiltIn(builtin::Answer),
    /// One of before, and how much of it has been read.
    Kept(Arc<Kept>, usize),
    /// One that is coming in for another.
    Follower(Follower),
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        match &self.from {
            From::Upstream(call) => call.status(),
            From::BuiltIn(_) | From::Kept(..) | From::Follower(_) => 200,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        match &self.from {
            From::Upstream(call) => call.header(name),
            From::BuiltIn(answer) => (name == "content-type").then(|| answer.content_type()),
            From::Kept(kept, _) => kept.head.header(name),
            From::Follower(ride) => ride.head.header(name),
        }
    }

    /// Reads what has arrived of the body, waiting only if nothing has; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let read = match &mut self.from {
            From::Upstream(call) => call.read(buffer),
            From::BuiltIn(answer) => answer.read(buffer),
            From::Kept(kept, at) => {
                let rest = &kept.body[*at..];
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                *at += length;
                Ok(length)
            }
            From::Follower(ride) => ride.read(buffer),
        };
        if let (Some(shared_call), Ok(read)) = (&self.shared_call, &read) {
            shared_call.push(&buffer[..*read]);
        }
        read
    }

    /// Reads the body to its end, or until there is more than `limit` bytes of it. Whether the end came.
    pub(super) fn read_whole(&mut self, body: &mut Vec<u8>, limit: usize) -> Result<bool, Failure> {
        let announced = self.header("content-length").and_then(|length| length.parse().ok());
        crate::body::read_whole(body, announced, limit, |buffer| self.read(buffer))
    }

    /// Those headers that the client gets.
    pub(super) fn returned_headers(&self) -> Vec<(Cow<'static, str>, String)> {
        let kept = |head: &AnswerHead| {
            head.headers.iter().map(|(name, value)| (Cow::Owned(name.clone()), value.clone())).collect()
        };
        let call = match &self.from {
            From::Upstream(call) => call,
            From::BuiltIn(answer) => return vec![("content-type".into(), answer.content_type().to_owned())],
            From::Kept(answer, _) => return kept(&answer.head),
            From::Follower(ride) => return kept(&ride.head),
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

    /// Nobody else wants it.
    pub(super) fn is_not_shared(&mut self) {
        self.shared_call = None;
    }

    /// What is said of it beside its body.
    pub(super) fn head(&self, model: &str, backup: Option<&String>) -> AnswerHead {
        let headers = self.returned_headers().into_iter();
        AnswerHead {
            headers: headers.map(|(name, value)| (name.into_owned(), value)).collect(),
            model: model.to_owned(),
            backup: backup.cloned(),
        }
    }

    fn is_event_stream(&self) -> bool {
        self.is_of_type("text/event-stream")
    }

    fn is_sound(&self) -> bool {
        self.is_of_type("audio/") || self.is_of_type("application/octet-stream")
    }

    fn is_of_type(&self, begin: &str) -> bool {
        let content_type = self.header("content-type").unwrap_or_default();
        content_type.trim_start().get(..begin.len()).is_some_and(|t| t.eq_ignore_ascii_case(begin))
    }
}

impl Relay {
    /// One call to the upstream.
    pub(super) fn attempt(
        &mut self,
        model: &str,
        pass: &mut Option<Pass>,
    ) -> Result<Served, Box<FailedAttempt>> {
        self.translator =
            self.translated.as_ref().map(|(translated, written)| translated.translator(written));
        let from = match self.source.is_some() || self.snapshot.settings.test_mode {
            true => self.take_local(),
            false => From::Upstream(self.call(model)?),
        };
        let judged = self.judge(from, model, pass);
        if self.backup.is_none() && judged.as_ref().is_err_and(|failed| failed.status == Some(429)) {
            self.shared.quota.rejected();
        }
        judged
    }

    /// An answer that is there already, or the built-in model's.
    // Apart, like what follows: a call needs no stack for it.
    #[inline(never)]
    fn take_local(&mut self) -> From {
        match self.source.take() {
            Some(Source::Kept(kept)) => {
                if let (Some(translator), Some(told)) = (self.translator.take(), &kept.told) {
                    self.translator = Some(Box::new(Replay::new(told.clone(), translator)));
                }
                From::Kept(kept, 0)
            }
            Some(Source::Follower(ride)) => From::Follower(ride),
            None => {
                let cancel = Arc::clone(self.in_flight.cancel());
                let is_cut_off = move || cancel.reason().is_some();
                From::BuiltIn(builtin::answer(self.dialect, &self.request, is_cut_off))
            }
        }
    }

    #[inline(never)]
    fn judge(
        &mut self,
        from: From,
        model: &str,
        pass: &mut Option<Pass>,
    ) -> Result<Served, Box<FailedAttempt>> {
        let shared_call = self.leader.as_ref().map(|leader| Arc::clone(leader.shared_call()));
        if let Some(shared_call) = &shared_call {
            shared_call.restart();
        }
        let mut answer = Answer { from, shared_call };
        let status = answer.status();
        let compressed =
            answer.header("content-encoding").is_some_and(|c| !c.eq_ignore_ascii_case("identity"));
        if compressed {
            return Err(unreadable("its answer is compressed, although it was asked not to"));
        }
        if !(200..300).contains(&status) {
            return Err(read_error(answer));
        }
        // The limit would have come in place of this head; how long the answer takes is no concern of those who wait.
        if let Some(pass) = pass.take() {
            pass.passed();
        }
        match answer.is_event_stream() {
            true => self.relay_stream(answer, model),
            false if self.dialect.answers_in_bytes() && answer.is_sound() => {
                self.relay_bytes(&mut answer, model)
            }
            false => self.relay_plain(&mut answer, model),
        }
    }

    /// Sends the request. A pooled connection that turns out to be closed is replaced at once.
    #[inline(never)]
    fn call(&mut self, model: &str) -> Result<Box<Call>, Box<FailedAttempt>> {
        let cancel: &CancelHandle = self.in_flight.cancel();
        let attach = |abort| cancel.attach(abort);
        let (body, upstream, headers);
        match self.present_backup() {
            None => {
                self.calls_made += 1;
                if is_free(model) {
                    self.shared.quota.sent();
                }
                body = self.request.body(model);
                upstream = &self.snapshot.upstream;
                headers = Cow::Borrowed(&self.headers[..]);
            }
            Some((_, backup)) => {
                body = Cow::Owned(self.request.body_elsewhere(model));
                upstream = backup;
                // Others are told nothing of who asks.
                let theirs = self.headers.iter().filter(|(name, _)| name.as_str().starts_with("anthropic-"));
                headers = Cow::Owned(theirs.cloned().collect());
            }
        }
        let (path, query) = (self.dialect.path(), self.query.as_deref());
        let send = |line| upstream.post(path, query, &body, &headers, line);
        let deadline = Instant::now() + DESCRIPTORS_WAIT;
        loop {
            let called = match send(PoolUse::Any(&attach)) {
                Err(CallError { was_stale: true, .. }) if cancel.reason().is_none() => {
                    send(PoolUse::New(&attach))
                }
                result => result,
            };
            match called {
                // Others end, and leave their connections to the next.
                Err(CallError { failure, .. })
                    if self.is_about_descriptors(&failure)
                        && Instant::now() < deadline
                        && self.in_flight.pause(DESCRIPTORS_PAUSE) => {}
                called => return called.map_err(|error| no_answer(&error.failure)),
            }
        }
    }
}

impl Relay {
    /// Whether a call failed only because too many connections are open. Looking a name up takes descriptors, too, and
    /// says nothing of it.
    fn is_about_descriptors(&self, failure: &Failure) -> bool {
        let is_short = || self.shared.in_flight.is_short_of_descriptors(self.shared.open_to_upstream());
        match failure {
            Failure::Broken(Trouble::NoDescriptors, _) => true,
            Failure::Broken(Trouble::Unreachable, reason) => reason == UNKNOWN_NAME && is_short(),
            _ => false,
        }
    }
}

/// An error of the upstream's, whole.
#[inline(never)]
fn read_error(mut answer: Answer) -> Box<FailedAttempt> {
    let status = answer.status();
    let mut body = Vec::new();
    // What is missing of an error's body is no second error.
    let _ = answer.read_whole(&mut body, MAX_HELD_BYTES);
    let text = String::from_utf8_lossy(&body);
    let verdict = judge(&answer, status, &text);
    let error = errors::object(&text).unwrap_or_default();
    let reason = format!("{status} {}", errors::message(&error));
    let reply = Reply { status, headers: answer.returned_headers(), body };
    FailedAttempt::new(&reason, verdict, FailedAnswer::Upstream(reply)).told(status, &answer)
}

fn judge(answer: &Answer, status: u16, body: &str) -> Verdict {
    patience::judge(status, &|name| answer.header(name).map(str::to_owned), body)
}

/// An error that came in a 200, as its whole body or its first event. `failed` makes what the client gets of the status
/// that the error names.
pub(super) fn error_in_a_200(
    answer: &Answer,
    error: &str,
    text: &str,
    failed: impl FnOnce(u16) -> FailedAnswer,
) -> Box<FailedAttempt> {
    let status = errors::status(error).unwrap_or(502);
    let reason = format!("200 with an error: {status} {}", errors::message(error));
    let verdict = judge(answer, status, text);
    FailedAttempt::new(&reason, verdict, failed(status)).told(status, answer)
}

pub(super) fn no_answer(failure: &Failure) -> Box<FailedAttempt> {
    let (error, verdict) = match failure {
        Failure::Silent(_) => (broke_off(failure), Verdict::PassOn),
        Failure::Broken(Trouble::Unreachable, reason) => {
            (ApiError::unreachable(reason), Verdict::TryAgain(None))
        }
        Failure::Broken(Trouble::BrokeOff, _) => (broke_off(failure), Verdict::TryAgain(None)),
        Failure::Broken(Trouble::NoDescriptors, _) => (ApiError::no_descriptors(), Verdict::PassOn),
    };
    FailedAttempt::new(&failure.to_string(), verdict, FailedAnswer::Own(error))
}

pub(super) fn broke_off(failure: &Failure) -> ApiError {
    match failure {
        Failure::Silent(limit) => ApiError::silent(*limit),
        Failure::Broken(_, reason) => ApiError::broke_off(reason),
    }
}

pub(super) fn unreadable(reason: &str) -> Box<FailedAttempt> {
    FailedAttempt::new(reason, Verdict::PassOn, FailedAnswer::Own(ApiError::unusable(reason)))
}

pub(super) fn empty_answer() -> Box<FailedAttempt> {
    let answer = FailedAnswer::Own(ApiError::empty_answer());
    FailedAttempt::new(EMPTY, Verdict::TryAgain(None), answer)
}
