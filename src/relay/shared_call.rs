//! Calls that several requests share.
//!
//! The first of several identical requests is their [`Leader`]: it makes the call, and a [`SharedCall`] gathers the
//! answer. The others ([`Follower`]) are parked without a thread until the response has turned out to be an answer, and
//! then read it from its beginning, each at its own pace. A kept answer and a shared one are sources like the upstream:
//! reading, recording and sending them works the same.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime};

use super::in_flight::{CallSharing, CancelHandle, CancelReason, Cancellable};
use crate::dialect::{Translator, UpstreamError};
use crate::error::ApiError;
use crate::language::Words;
use crate::record::answers::{AnswerHead, Answers, Kept, Key, MAX_ANSWER_BYTES};
use crate::record::files::Files;
use crate::secrets;
use crate::settings::Settings;
use crate::sync::{lock, unpoisoned};
use crate::upstream::Failure;

/// The number of requests that may wait for one shared answer to begin.
const MAX_PARKED: usize = 1000;
/// A shared answer that grows beyond this is no longer shared.
const MAX_SHARED_BYTES: usize = 16 << 20;
/// How often a reader of a shared answer checks whether its own request has been cancelled.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A request that waits for another request's answer.
pub trait Waiter: Cancellable + Send {
    /// Resumes the request: with the answer, or without one.
    fn wake(self: Box<Self>, source: Option<Source>);
}

/// The kept answers, and the calls in flight.
#[derive(Default)]
pub struct SharedCalls {
    /// The answers of earlier requests.
    pub answers: Answers,
    in_flight: Mutex<HashMap<Key, Arc<SharedCall>>>,
}

impl fmt::Debug for SharedCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedCalls({:?})", self.answers)
    }
}

/// What [`SharedCalls::find`] finds for a request.
pub(super) enum Found {
    /// A kept answer.
    Kept(Arc<Kept>),
    /// Another request's call, which is in flight.
    Call(Arc<SharedCall>),
    /// Nothing: the request makes the call itself.
    Lead(Leader),
}

impl SharedCalls {
    /// Looks for an answer that is at most `max_age` old, or a call in flight; `look_up` also searches the disk.
    pub(super) fn find(
        self: &Arc<Self>,
        key: Key,
        max_age: Duration,
        cancel: &Arc<CancelHandle>,
        look_up: impl FnOnce(&Answers) -> Option<Arc<Kept>>,
    ) -> Found {
        if let Some(kept) = look_up(&self.answers) {
            return Found::Kept(kept);
        }
        let mut in_flight = self.lock();
        match in_flight.entry(key) {
            Entry::Occupied(other) => Found::Call(Arc::clone(other.get())),
            Entry::Vacant(place) => {
                // The other call may have ended since the first look: its answer is kept before the call is removed
                // from this map.
                if let Some(kept) = self.answers.get_in_memory(&key, max_age) {
                    return Found::Kept(kept);
                }
                let mut leader = self.lead(key, cancel);
                place.insert(Arc::clone(&leader.shared_call));
                leader.is_known = true;
                Found::Lead(leader)
            }
        }
    }

    /// Makes the caller the leader of a call that no other request joins.
    pub(super) fn lead(self: &Arc<Self>, key: Key, cancel: &Arc<CancelHandle>) -> Leader {
        let shared_call = Arc::new(SharedCall {
            state: Mutex::default(),
            changed: Condvar::new(),
            cancel: Arc::clone(cancel),
        });
        Leader { calls: Arc::clone(self), key, shared_call, is_known: false, is_kept: true, translated: None }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<SharedCall>>> {
        lock(&self.in_flight)
    }
}

/// An answer that is arriving, for all requests that wait for it.
pub struct SharedCall {
    state: Mutex<SharedCallState>,
    changed: Condvar,
    /// The handle of the request that makes the call.
    cancel: Arc<CancelHandle>,
}

#[derive(Default)]
struct SharedCallState {
    phase: Phase,
    head: Option<AnswerHead>,
    /// The body so far, as it comes from the upstream.
    bytes: Vec<u8>,
    parked: Vec<Box<dyn Waiter>>,
    readers: usize,
    /// Whether the client of the leading request has left while others want the answer.
    leader_left: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet that is known to be an answer.
    #[default]
    Waiting,
    /// The response has turned out to be an answer.
    Begun,
    /// The answer is complete.
    Whole,
    /// No answer will come, or no more of it.
    Failed,
}

impl fmt::Debug for SharedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "SharedCall({:?}, {} bytes, {} readers)", state.phase, state.bytes.len(), state.readers)
    }
}

impl SharedCall {
    fn lock(&self) -> MutexGuard<'_, SharedCallState> {
        lock(&self.state)
    }

    /// Discards the bytes of the attempt before, unless they have turned out to be an answer.
    pub(super) fn restart(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Waiting {
            state.bytes.clear();
        }
    }

    /// Adds more of the answer, or of what may become one.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.phase == Phase::Failed {
            return;
        }
        let limit =
            if state.readers > 0 || !state.parked.is_empty() { MAX_SHARED_BYTES } else { MAX_ANSWER_BYTES };
        if state.bytes.len() + bytes.len() > limit {
            state.phase = Phase::Failed; // too long to keep or to share
            state.bytes = Vec::new();
        } else {
            state.bytes.extend_from_slice(bytes);
        }
        let heard = state.readers > 0;
        drop(state);
        if heard {
            self.changed.notify_all();
        }
    }

    /// Parks a request that waits for the answer. Gives it back if the answer has begun or too many requests wait.
    pub(super) fn park<W: Waiter + 'static>(self: &Arc<Self>, waiter: Box<W>) -> Option<Box<W>> {
        let mut state = self.lock();
        if state.phase != Phase::Waiting || state.parked.len() >= MAX_PARKED {
            return Some(waiter);
        }
        let cancel = Arc::clone(waiter.cancel());
        state.parked.push(waiter);
        drop(state);
        cancel.wait_for(Arc::downgrade(self) as Weak<dyn CallSharing>);
        None
    }

    /// Adds one more reader, if there is something to read.
    pub(super) fn follow(self: &Arc<Self>, cancel: &Arc<CancelHandle>) -> Option<Source> {
        self.lock().follow(self, cancel)
    }
}

impl CallSharing for SharedCall {
    fn is_wanted_without_its_leader(&self) -> bool {
        let mut state = self.lock();
        let wanted = state.is_wanted();
        state.leader_left |= wanted;
        wanted
    }

    fn follower_left(&self) {
        let state = self.lock();
        let unwanted = state.leader_left && !state.is_wanted();
        drop(state);
        if unwanted {
            self.cancel.cut(CancelReason::ClientLeft);
        }
    }
}

impl SharedCallState {
    /// Returns whether any request beside the leader still wants the answer.
    fn is_wanted(&self) -> bool {
        self.readers > 0 || self.parked.iter().any(|waiter| !waiter.is_cancelled())
    }

    /// Adds one more reader, if there is something to read.
    fn follow(&mut self, shared_call: &Arc<SharedCall>, cancel: &Arc<CancelHandle>) -> Option<Source> {
        let head = self.head.clone().filter(|_| self.phase != Phase::Failed)?;
        self.readers += 1;
        let (shared_call, cancel) = (Arc::clone(shared_call), Arc::clone(cancel));
        Some(Source::Follower(Follower { shared_call, cancel, at: 0, head }))
    }
}

/// Held by the request that makes the call. Dropped before [`Leader::end`], it makes the shared call fail.
pub(super) struct Leader {
    calls: Arc<SharedCalls>,
    key: Key,
    shared_call: Arc<SharedCall>,
    /// Whether other requests may join.
    is_known: bool,
    /// Whether the answer may be reused later.
    is_kept: bool,
    /// The answer in the API that the client speaks, where that isn't the upstream's.
    translated: Option<String>,
}

impl Leader {
    /// Returns the shared call that gathers the answer.
    pub(super) fn shared_call(&self) -> &Arc<SharedCall> {
        &self.shared_call
    }

    /// Doesn't keep the answer for later requests: the client doesn't want it.
    pub(super) fn keep_nothing(&mut self) {
        self.is_kept = false;
    }

    /// Adds more of the answer in an API other than the upstream's.
    pub(super) fn add_translated(&mut self, text: &[u8]) {
        let translated = self.translated.get_or_insert_default();
        if translated.len() + text.len() <= MAX_ANSWER_BYTES {
            translated.push_str(&String::from_utf8_lossy(text));
        } else {
            self.is_kept = false; // a part of the translation is no use
        }
    }

    /// Marks the response as an answer, and wakes the requests that wait for it.
    pub(super) fn begin(&self, head: AnswerHead) {
        let mut state = self.shared_call.lock();
        if state.phase != Phase::Waiting {
            return;
        }
        state.phase = Phase::Begun;
        state.head = Some(head);
        let parked = std::mem::take(&mut state.parked).into_iter();
        let parked = parked.map(|waiter| (state.follow(&self.shared_call, waiter.cancel()), waiter));
        let parked = parked.collect::<Vec<_>>();
        drop(state);
        parked.into_iter().for_each(|(source, waiter)| waiter.wake(source));
    }

    /// Marks the answer as complete, and keeps it for later requests unless it contains a secret.
    pub(super) fn end(self, settings: &Settings, files: &Files) {
        let mut state = self.shared_call.lock();
        if state.phase != Phase::Begun {
            return;
        }
        state.phase = Phase::Whole;
        let is_kept = self.is_kept && state.bytes.len() <= MAX_ANSWER_BYTES;
        let kept = state.head.as_ref().filter(|_| is_kept).map(|head| Kept {
            time: SystemTime::now(),
            head: head.clone(),
            body: state.bytes.clone(),
            told: self.translated.clone(),
        });
        drop(state);
        let tells_a_secret = |kept: &Kept| {
            let headers = kept.head.headers.iter().map(|(_, value)| value.as_str());
            let body = String::from_utf8_lossy(&kept.body);
            let texts = headers.chain([&*body, kept.told.as_deref().unwrap_or_default()]);
            let mut texts = texts.map(|text| matches!(secrets::hidden(text), Cow::Owned(_)));
            texts.any(|hides| hides)
        };
        if let Some(kept) = kept.filter(|kept| !tells_a_secret(kept)) {
            self.calls.answers.put(self.key, Arc::new(kept), settings.cache_dir.as_ref(), files);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.is_known {
            let mut shared_calls = self.calls.lock();
            let mine = |shared_call: &Arc<SharedCall>| Arc::ptr_eq(shared_call, &self.shared_call);
            if shared_calls.get(&self.key).is_some_and(mine) {
                shared_calls.remove(&self.key);
            }
        }
        let mut state = self.shared_call.lock();
        if state.phase != Phase::Whole {
            state.phase = Phase::Failed;
        }
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        self.shared_call.changed.notify_all();
        parked.into_iter().for_each(|waiter| waiter.wake(None));
    }
}

/// A reader of a shared answer, from its beginning.
pub struct Follower {
    shared_call: Arc<SharedCall>,
    /// The handle of the request that reads.
    cancel: Arc<CancelHandle>,
    at: usize,
    pub(super) head: AnswerHead,
}

impl Follower {
    /// Reads on, waiting for more; returns 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut state = self.shared_call.lock();
        loop {
            if self.cancel.reason().is_some() {
                return Err(Failure::aborted());
            }
            let rest = state.bytes.get(self.at..).unwrap_or_default();
            if !rest.is_empty() {
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.at += length;
                return Ok(length);
            }
            match state.phase {
                Phase::Whole => return Ok(0),
                Phase::Failed => {
                    let reason = Words::new("the call that it shares was broken off", "共用的调用已中断");
                    return Err(Failure::broke_off(reason));
                }
                Phase::Waiting | Phase::Begun => {}
            }
            let waited = self.shared_call.changed.wait_timeout(state, LOOK_INTERVAL);
            state = unpoisoned(waited).0;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared_call.lock().readers -= 1;
        self.shared_call.follower_left();
    }
}

/// Where an answer comes from, if not from the upstream.
pub enum Source {
    /// An answer of an earlier request.
    Kept(Arc<Kept>),
    /// An answer that is arriving for another request.
    Follower(Follower),
}

impl Source {
    pub(super) fn head(&self) -> &AnswerHead {
        match self {
            Self::Kept(kept) => &kept.head,
            Self::Follower(follower) => &follower.head,
        }
    }

    pub(super) fn age(&self) -> Duration {
        match self {
            Self::Kept(kept) => kept.age(),
            Self::Follower(_) => Duration::ZERO,
        }
    }
}

/// Repeats the translation that was kept with an answer.
pub(super) struct Replay {
    translated: String,
    /// Knows the content type of the stream and the form of errors.
    translator: Box<dyn Translator>,
}

impl Replay {
    pub(super) fn new(translated: String, translator: Box<dyn Translator>) -> Self {
        Self { translated, translator }
    }
}

impl Translator for Replay {
    fn content_type(&self) -> &'static str {
        self.translator.content_type()
    }

    fn event(&mut self, _data: &str) -> String {
        std::mem::take(&mut self.translated)
    }

    fn end(&mut self) -> String {
        std::mem::take(&mut self.translated)
    }

    fn answer(&mut self, _body: &str) -> String {
        std::mem::take(&mut self.translated)
    }

    fn broken_off(&self, error: &ApiError) -> String {
        self.translator.broken_off(error)
    }

    fn error_body(&self, error: &UpstreamError<'_>) -> String {
        self.translator.error_body(error)
    }
}
