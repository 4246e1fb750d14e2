//! One attempt: the call, and why it failed if no part of an answer has gone to the client.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::HeaderName;

use super::answer::{Answer, AnswerSource};
use super::gate::Permit;
use super::in_flight::CancelHandle;
use super::outcome::{FailedAnswer, FailedAttempt, Served, Verdict};
use super::patience;
use super::shared_call::{Replay, Source};
use super::state::Relay;
use crate::builtin;
use crate::client::exchange::Reply;
use crate::dialect::errors::Diagnosis;
use crate::dialect::free_models::{ROUTER, is_free};
use crate::dialect::{AnswerSummary, Flaw};
use crate::error::ApiError;
use crate::language::Words;
use crate::upstream::{Call, CallError, Failure, FailureKind, HOPS, PoolUse};

/// The body of an error is read up to this size.
const MAX_ERROR_BYTES: usize = 8 << 20;

/// How long a call waits for a descriptor where too many connections are open, and how often it tries again.
const DESCRIPTORS_WAIT: Duration = Duration::from_secs(10);
const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(50);

impl Relay {
    /// Makes one call to the upstream, or takes a local answer, and judges what comes.
    pub(super) fn attempt(
        &mut self,
        model: &str,
        permit: &mut Option<Permit>,
    ) -> Result<Served, Box<FailedAttempt>> {
        self.client.translator =
            self.translated().map(|(translated, written)| translated.translator(written));
        let from = if self.sharing.source.is_some() || self.snapshot.settings.test_mode {
            self.take_local()
        } else {
            AnswerSource::Upstream(self.call(model)?)
        };
        let judged = self.judge(from, model, permit);
        let is_rejected = judged.as_ref().is_err_and(|failed| failed.status == Some(429));
        if self.tries.backup.is_none() && is_rejected {
            self.shared.quota.rejected();
        }
        judged
    }

    /// Returns an answer that exists already, or the built-in model's.
    // Out of line, like the functions below, so that it takes no stack while a call waits.
    #[inline(never)]
    fn take_local(&mut self) -> AnswerSource {
        match self.sharing.source.take() {
            Some(Source::Kept(kept)) => {
                if let (Some(translator), Some(told)) = (self.client.translator.take(), &kept.told) {
                    self.client.translator = Some(Box::new(Replay::new(told.clone(), translator)));
                }
                AnswerSource::Kept(kept, 0)
            }
            Some(Source::Follower(follower)) => AnswerSource::Follower(follower),
            None => {
                let cancel = Arc::clone(self.in_flight.cancel());
                let is_cut_off = move || cancel.reason().is_some();
                AnswerSource::BuiltIn(builtin::answer(self.asked.dialect, &self.asked.request, is_cut_off))
            }
        }
    }

    #[inline(never)]
    fn judge(
        &mut self,
        from: AnswerSource,
        model: &str,
        permit: &mut Option<Permit>,
    ) -> Result<Served, Box<FailedAttempt>> {
        let shared_call = self.sharing.leader.as_ref().map(|leader| Arc::clone(leader.shared_call()));
        if let Some(shared_call) = &shared_call {
            shared_call.restart();
        }
        let mut answer = Answer::new(from, shared_call);
        let status = answer.status();
        let compressed =
            answer.header("content-encoding").is_some_and(|c| !c.eq_ignore_ascii_case("identity"));
        if compressed {
            return Err(unusable(
                "its answer is compressed, although it was asked not to",
                "回答被压缩了，尽管已要求不压缩",
            ));
        }
        if status < 200 {
            return Err(unusable("it wants to speak another protocol", "对方要换用另一种协议"));
        }
        if !(200..300).contains(&status) {
            return Err(read_error(answer, model));
        }
        // The limit would have come in place of this head: the requests that wait for this one needn't wait for its
        // whole answer.
        if let Some(permit) = permit.take() {
            permit.passed();
        }
        let wants_events = self.client.translator.is_none() || self.asked.request.stream;
        if answer.is_event_stream() && wants_events {
            self.relay_stream(answer, model)
        } else if self.dialect().answers_in_bytes() && answer.is_audio() {
            self.relay_bytes(&mut answer, model)
        } else {
            self.relay_plain(&mut answer, model)
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
                self.tries.calls_made += 1;
                if is_free(model) {
                    self.shared.quota.sent();
                }
                body = self.body_of_the_call(model);
                upstream = &self.snapshot.upstream;
                headers = Cow::Borrowed(&self.asked.headers[..]);
            }
            Some((_, backup)) => {
                body = match &self.tries.in_chat {
                    Some(in_chat) => Cow::Borrowed(in_chat.body.as_bytes()),
                    None => Cow::Owned(
                        self.asked.request.body_for_other_servers(self.dialect(), model).into_bytes(),
                    ),
                };
                upstream = backup;
                // Other servers learn nothing about the client.
                let is_known = |name: &HeaderName| {
                    *name == HOPS || name.as_str().starts_with("anthropic-") && self.tries.in_chat.is_none()
                };
                let theirs = self.asked.headers.iter().filter(|(name, _)| is_known(name));
                headers = Cow::Owned(theirs.cloned().collect());
            }
        }
        let query = self.asked.query.as_deref().filter(|_| self.tries.in_chat.is_none());
        let path = self.dialect().path();
        let send = |pool_use| upstream.post(path, query, &body, &headers, pool_use);
        let deadline = Instant::now() + DESCRIPTORS_WAIT;
        loop {
            let called = match send(PoolUse::Any(&attach)) {
                Err(CallError { was_stale: true, .. }) if cancel.reason().is_none() => {
                    send(PoolUse::New(&attach))
                }
                result => result,
            };
            match called {
                // Other calls end, and free their descriptors for the next ones.
                Err(CallError { failure, .. })
                    if self.is_about_descriptors(&failure)
                        && Instant::now() < deadline
                        && self.in_flight.pause(DESCRIPTORS_PAUSE) => {}
                called => return called.map_err(|error| no_answer(&error.failure)),
            }
        }
    }

    /// Returns whether a call failed only because too many connections are open. Looking up a name takes descriptors,
    /// too, but its error doesn't say that they were missing.
    fn is_about_descriptors(&self, failure: &Failure) -> bool {
        let is_short = || self.shared.in_flight.is_short_of_descriptors(self.shared.open_to_upstream());
        match failure.kind {
            FailureKind::NoDescriptors => true,
            FailureKind::UnknownName => is_short(),
            _ => false,
        }
    }

    /// Returns whether nobody else is asked if this attempt fails: then an answer that can be read is better than none.
    pub(super) fn is_last_resort(&self) -> bool {
        let is_local = self.record.metrics.reused.is_some() || self.snapshot.settings.test_mode;
        let is_last = match self.tries.backup {
            Some(_) => self.tries.is_last_backup,
            None => self.snapshot.settings.backups.is_empty() && !self.may_try_again(),
        };
        is_local || is_last
    }

    /// Returns what makes a readable answer useless, if anything does.
    pub(super) fn flaw_of(&self, summary: &AnswerSummary) -> Option<Words> {
        let flaw = match summary.flaw {
            Some(Flaw::CallAsText) => Some(Words::new("a tool call written as text", "工具调用写成了文字")),
            Some(Flaw::BrokenArguments) => {
                Some(Words::new("a tool call whose arguments are no JSON", "工具调用的参数不是 JSON"))
            }
            // An answer that was cut short may have had its JSON later.
            Some(Flaw::NoJson) if !summary.cut_short => {
                Some(Words::new("no JSON, although that was asked for", "要求的是 JSON，回答里却没有"))
            }
            Some(Flaw::NoJson) | None => None,
        };
        if flaw.is_some() {
            return flaw;
        }
        let model = summary.model.as_deref()?;
        let is_wanted = self.asked.request.asked.as_deref() == Some(model)
            || self.tries.backup.is_some()
            || !self.any_model_will_do();
        (!is_wanted && !self.shared.models.chats(model))
            .then(|| Words::new("it is from a model that isn't for chatting", "回答来自不能对话的模型"))
    }
}

/// Reads an error of the upstream to its end.
#[inline(never)]
fn read_error(mut answer: Answer, model: &str) -> Box<FailedAttempt> {
    let status = answer.status();
    let mut body = Vec::new();
    // An error whose body is incomplete isn't reported as a second error.
    let _ = answer.read_whole(&mut body, MAX_ERROR_BYTES);
    let text = String::from_utf8_lossy(&body);
    let diagnosis = diagnose(&answer, status, &text);
    let reason = format!("{status} {}", diagnosis.message);
    let reply = Reply { status, headers: answer.returned_headers(), body };
    let mut failed = failed(&reason, &diagnosis, model, FailedAnswer::Upstream(reply));
    if status < 400 {
        failed.verdict = Verdict::PassOn; // redirects aren't followed
    }
    failed
}

fn diagnose(answer: &Answer, status: u16, text: &str) -> Diagnosis {
    Diagnosis::read(status, &|name| answer.header(name).map(str::to_owned), text)
}

fn failed(reason: &str, diagnosis: &Diagnosis, model: &str, answer: FailedAnswer) -> Box<FailedAttempt> {
    let mut failed = FailedAttempt::new(reason.into(), patience::judge(diagnosis, model), answer);
    failed.status = Some(diagnosis.status);
    failed.retry_after = diagnosis.retry_after;
    failed.is_the_providers = diagnosis.is_the_providers;
    if model == ROUTER {
        failed.by.clone_from(&diagnosis.model);
    }
    failed
}

/// Returns the failure for an error that came in a 200, as its whole body or its first event. `client_gets` makes the
/// client's response from the status that the error names.
pub(super) fn error_in_a_200(
    answer: &Answer,
    text: &str,
    model: &str,
    client_gets: impl FnOnce(u16) -> FailedAnswer,
) -> Box<FailedAttempt> {
    let diagnosis = diagnose(answer, 200, text);
    let reason = format!("200 with an error: {} {}", diagnosis.status, diagnosis.message);
    failed(&reason, &diagnosis, model, client_gets(diagnosis.status))
}

pub(super) fn no_answer(failure: &Failure) -> Box<FailedAttempt> {
    let (error, verdict) = match failure.kind {
        FailureKind::Unreachable | FailureKind::UnknownName | FailureKind::Tls => {
            let is_about_tls = failure.kind == FailureKind::Tls;
            (ApiError::unreachable(&failure.reason, is_about_tls), Verdict::TryAgain(None))
        }
        FailureKind::BrokeOff => (broke_off(failure), Verdict::TryAgain(None)),
        FailureKind::Silent(_) => (broke_off(failure), Verdict::PassOn),
        FailureKind::NoDescriptors => (ApiError::no_descriptors(), Verdict::PassOn),
        FailureKind::Loop => (ApiError::loop_detected(), Verdict::PassOn),
    };
    FailedAttempt::new(failure.reason.clone(), verdict, FailedAnswer::Own(error))
}

pub(super) fn broke_off(failure: &Failure) -> ApiError {
    match failure.kind {
        FailureKind::Silent(limit) => ApiError::silent(limit),
        _ => ApiError::broke_off(&failure.reason),
    }
}

/// Returns the failure for an answer that is useless this time.
pub(super) fn no_real_answer(reason: Words) -> Box<FailedAttempt> {
    let answer = FailedAnswer::Own(ApiError::unusable(&reason));
    FailedAttempt::new(reason, Verdict::TryAgain(None), answer)
}

/// Returns the failure for an answer that would be useless again.
pub(super) fn unusable(english: &'static str, chinese: &'static str) -> Box<FailedAttempt> {
    let reason = Words::new(english, chinese);
    let answer = FailedAnswer::Own(ApiError::unusable(&reason));
    FailedAttempt::new(reason, Verdict::PassOn, answer)
}

pub(super) fn empty_answer() -> Box<FailedAttempt> {
    let answer = FailedAnswer::Own(ApiError::empty_answer());
    FailedAttempt::new(Words::new("an empty answer", "回答是空的"), Verdict::TryAgain(None), answer)
}
