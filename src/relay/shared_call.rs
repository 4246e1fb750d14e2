//! Answers again: a request that is the same as one answered before costs no call, and one that is the same as another
//! under way shares its answer.
//!
//! The first of several is their [`Leader`]: it makes the call, and what comes of it is gathered in a [`SharedCall`]. The others
//! are parked without a thread until that has turned out to be an answer, and then read it from its beginning, each at
//! its own pace. A kept answer and a shared one are sources like the upstream: what is told of them, recorded and sent is
//! all the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::Relay;
use super::in_flight::{CancelHandle, CancelReason};
use super::shared::Shared;
use crate::client::exchange::ConnectionFate;
use crate::client::head::Head;
use crate::dialect::{Translator, Written};
use crate::error::ApiError;
use crate::live::Snapshot;
use crate::record::answers::{AnswerHead, Answers, Kept, Key, MAX_ANSWER_BYTES};
use crate::record::calls::Waiting;
use crate::upstream::{Failure, Trouble};

/// Requests that may share one answer before it begins.
const MAX_PARKED: usize = 1000;
/// A shared answer that grows beyond this is no longer shared.
const MAX_SHARED_BYTES: usize = 16 << 20;
/// How often whoever reads a shared answer looks whether its own client is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What is kept, and what is under way.
#[derive(Default)]
pub struct Reuse {
    /// Those of before.
    pub answers: Answers,
    shared_calls: Mutex<HashMap<Key, Arc<SharedCall>>>,
    /// Finds a thread for one that was parked.
    resume: OnceLock<Resume>,
}

type Resume = Box<dyn Fn(Parked) + Send + Sync>;
/// Boxed as they come and go.
type Parked = Box<Relay>;

impl fmt::Debug for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reuse({:?})", self.answers)
    }
}

impl Reuse {
    /// Says how parked requests get a thread.
    pub fn resume_by(&self, resume: impl Fn(Box<Relay>) + Send + Sync + 'static) {
        let _ = self.resume.set(Box::new(resume));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<SharedCall>>> {
        self.shared_calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request says about being answered from what is there already (RFC 9111, 5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheControl {
    /// Nothing: any answer will do.
    Any,
    /// `no-cache`: a fresh one, which is kept.
    Fresh,
    /// `no-store`: a fresh one, which isn't.
    Unkept,
}

impl CacheControl {
    /// As the request's head says.
    pub fn of(head: &Head) -> Self {
        match (head.lists("cache-control", "no-store"), head.lists("cache-control", "no-cache")) {
            (true, _) => Self::Unkept,
            (_, true) => Self::Fresh,
            _ => Self::Any,
        }
    }
}

/// An answer that is coming in, for all who wait for it.
pub struct SharedCall {
    state: Mutex<SharedCallState>,
    changed: Condvar,
    /// Of the request that makes the call.
    cancel: Arc<CancelHandle>,
}

#[derive(Default)]
struct SharedCallState {
    phase: Phase,
    head: Option<AnswerHead>,
    /// As it comes from the upstream.
    bytes: Vec<u8>,
    parked: Vec<Parked>,
    readers: usize,
    /// The client of the one that makes the call has left.
    leader_left: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come that is known to be an answer.
    #[default]
    Waiting,
    /// It is an answer.
    Begun,
    /// All of it.
    Whole,
    /// There won't be (any more of) it.
    Failed,
}

impl fmt::Debug for SharedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "Flight({:?}, {} bytes, {} readers)", state.phase, state.bytes.len(), state.readers)
    }
}

impl SharedCall {
    fn lock(&self) -> MutexGuard<'_, SharedCallState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another try has begun.
    pub(super) fn restart(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Waiting {
            state.bytes.clear();
        }
    }

    /// More of the answer, or of what may become one.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.phase == Phase::Failed {
            return;
        }
        let limit =
            if state.readers > 0 || !state.parked.is_empty() { MAX_SHARED_BYTES } else { MAX_ANSWER_BYTES };
        if state.bytes.len() + bytes.len() > limit {
            state.phase = Phase::Failed; // too long to be kept, and for those who might come yet
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

    /// The client of the one that makes the call has left. Whether others want the answer, so that the call goes on.
    pub(super) fn is_wanted_without_its_leader(&self) -> bool {
        let mut state = self.lock();
        let wanted = state.is_wanted();
        state.leader_left |= wanted;
        wanted
    }

    /// The client of one that waits for it, or reads it, has left. Nobody may be left for whom the call is made.
    pub(super) fn one_has_left(&self) {
        let state = self.lock();
        let unwanted = state.leader_left && !state.is_wanted();
        drop(state);
        if unwanted {
            self.cancel.cut(CancelReason::ClientLeft);
        }
    }
}

impl SharedCallState {
    /// Whether anybody beside the one that makes the call is still there for the answer.
    fn is_wanted(&self) -> bool {
        self.readers > 0 || self.parked.iter().any(|relay| relay.in_flight.cancel().reason().is_none())
    }

    /// A place for one more reader, if there is something to read.
    fn ride(&mut self, shared_call: &Arc<SharedCall>, cancel: &Arc<CancelHandle>) -> Option<Source> {
        let head = self.head.clone().filter(|_| self.phase != Phase::Failed)?;
        self.readers += 1;
        let (shared_call, cancel) = (Arc::clone(shared_call), Arc::clone(cancel));
        Some(Source::Follower(Follower { shared_call, cancel, at: 0, head }))
    }
}

/// Held by the request that makes the call; dropped before the end, it fails.
pub(super) struct Leader {
    shared: Arc<Shared>,
    key: Key,
    shared_call: Arc<SharedCall>,
    /// Others may join.
    is_known: bool,
    /// As it is told in another API.
    told: Option<String>,
    cache_control: CacheControl,
}

impl Leader {
    /// For what is read.
    pub(super) fn shared_call(&self) -> &Arc<SharedCall> {
        &self.shared_call
    }

    /// More is told in another API than the upstream's.
    pub(super) fn add_translated(&mut self, text: &[u8]) {
        let told = self.told.get_or_insert_default();
        if told.len() + text.len() <= MAX_ANSWER_BYTES {
            told.push_str(&String::from_utf8_lossy(text));
        }
    }

    /// What comes is an answer: those who wait for it may read.
    pub(super) fn begin(&self, head: AnswerHead) {
        let mut state = self.shared_call.lock();
        if state.phase != Phase::Waiting {
            return;
        }
        state.phase = Phase::Begun;
        state.head = Some(head);
        let mut parked = std::mem::take(&mut state.parked);
        for relay in &mut parked {
            relay.source = state.ride(&self.shared_call, relay.in_flight.cancel());
        }
        drop(state);
        self.resume(parked);
    }

    /// The answer is whole, and kept for the next.
    pub(super) fn end(self, snapshot: &Snapshot) {
        let settings = &snapshot.settings;
        let mut state = self.shared_call.lock();
        if state.phase != Phase::Begun {
            return;
        }
        state.phase = Phase::Whole;
        let kept = match (&state.head, self.cache_control) {
            (Some(head), CacheControl::Any | CacheControl::Fresh)
                if state.bytes.len() <= MAX_ANSWER_BYTES =>
            {
                Some(Kept {
                    time: SystemTime::now(),
                    head: head.clone(),
                    body: state.bytes.clone(),
                    told: self.told.clone(),
                })
            }
            _ => None,
        };
        drop(state);
        let secrets = [&settings.key, &settings.proxy_api_key].into_iter().flatten();
        let tells = |kept: &Kept| {
            let headers = kept.head.headers.iter().map(|(_, value)| value.as_bytes());
            let texts = headers.chain([&kept.body[..], kept.told.as_deref().unwrap_or_default().as_bytes()]);
            let tell = |text| {
                let mut secrets = secrets.clone();
                secrets.any(|secret| memchr::memmem::find(text, secret.expose().as_bytes()).is_some())
            };
            texts.into_iter().any(tell)
        };
        if let Some(kept) = kept.filter(|kept| !tells(kept)) {
            let (answers, files) = (&self.shared.reuse.answers, self.shared.calls.files());
            answers.put(self.key, Arc::new(kept), settings.cache_dir.as_ref(), files);
        }
    }

    fn resume(&self, parked: Vec<Parked>) {
        if let Some(resume) = self.shared.reuse.resume.get() {
            parked.into_iter().for_each(resume);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.is_known {
            let mut shared_calls = self.shared.reuse.lock();
            if shared_calls
                .get(&self.key)
                .is_some_and(|shared_call| Arc::ptr_eq(shared_call, &self.shared_call))
            {
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
        self.resume(parked);
    }
}

/// Reads a shared answer from its beginning.
pub(super) struct Follower {
    shared_call: Arc<SharedCall>,
    /// Of the request that reads.
    cancel: Arc<CancelHandle>,
    at: usize,
    pub(super) head: AnswerHead,
}

impl Follower {
    /// Reads on, waiting for more; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let broken = |reason: &str| Err(Failure::Broken(Trouble::BrokeOff, reason.into()));
        let mut state = self.shared_call.lock();
        loop {
            if self.cancel.reason().is_some() {
                return broken("it was cut off");
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
                Phase::Failed => return broken("the call that it shares was broken off"),
                Phase::Waiting | Phase::Begun => {}
            }
            let waited = self.shared_call.changed.wait_timeout(state, LOOK_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared_call.lock().readers -= 1;
        self.shared_call.one_has_left();
    }
}

/// Where an answer comes from, in place of the upstream.
pub(super) enum Source {
    Kept(Arc<Kept>),
    Follower(Follower),
}

impl Source {
    fn head(&self) -> &AnswerHead {
        match self {
            Self::Kept(kept) => &kept.head,
            Self::Follower(ride) => &ride.head,
        }
    }

    fn age(&self) -> Duration {
        match self {
            Self::Kept(kept) => kept.age(),
            Self::Follower(_) => Duration::ZERO,
        }
    }
}

/// Tells a kept answer as it was told before.
pub(super) struct Replay {
    told: String,
    /// Knows what kind of stream it is.
    translator: Box<dyn Translator>,
}

impl Replay {
    pub(super) fn new(told: String, translator: Box<dyn Translator>) -> Self {
        Self { told, translator }
    }
}

impl Translator for Replay {
    fn content_type(&self) -> &'static str {
        self.translator.content_type()
    }

    fn event(&mut self, _data: &str) -> String {
        std::mem::take(&mut self.told)
    }

    fn end(&mut self) -> String {
        std::mem::take(&mut self.told)
    }

    fn answer(&mut self, _body: &str) -> String {
        std::mem::take(&mut self.told)
    }

    fn broken_off(&self, error: &ApiError) -> String {
        self.translator.broken_off(error)
    }

    fn error_body(&self, body: &str) -> String {
        self.translator.error_body(body)
    }
}

/// What has become of a request for which there may be an answer already.
pub enum Reused {
    /// It is answered, or waits for the answer of another.
    Done(ConnectionFate),
    /// It needs a place.
    Call(Box<Relay>),
}

impl Relay {
    /// Answers with what is kept, or waits for the same answer as another, or goes on as the first of its kind.
    pub fn reuse(mut self: Box<Self>, cache_control: CacheControl) -> Reused {
        let shared = Arc::clone(&self.shared);
        let snapshot = Arc::clone(&self.snapshot);
        let settings = &snapshot.settings;
        let key = self.key();
        if cache_control == CacheControl::Any {
            let max_age = settings.reuse;
            let kept =
                shared.reuse.answers.get(&key, max_age, settings.cache_dir.as_ref(), shared.calls.files());
            if let Some(kept) = kept {
                return self.reuse_kept(kept);
            }
        }
        let shared_call = Arc::new(SharedCall {
            state: Mutex::default(),
            changed: Condvar::new(),
            cancel: Arc::clone(self.in_flight.cancel()),
        });
        let mut leader = Leader {
            shared: Arc::clone(&shared),
            key,
            shared_call,
            is_known: false,
            told: None,
            cache_control,
        };
        if cache_control == CacheControl::Any {
            let mut shared_calls = shared.reuse.lock();
            match shared_calls.entry(key) {
                Entry::Occupied(other) => return self.join_call(other.get()),
                Entry::Vacant(place) => {
                    // Another may have come to its end since the first look: its answer is kept before it goes from here.
                    if let Some(kept) = shared.reuse.answers.get_in_memory(&key, settings.reuse) {
                        drop(shared_calls);
                        return self.reuse_kept(kept);
                    }
                    place.insert(Arc::clone(&leader.shared_call));
                }
            }
            leader.is_known = true;
        }
        self.in_flight.cancel().share(&leader.shared_call);
        self.leader = Some(leader);
        Reused::Call(self)
    }

    fn reuse_kept(self: Box<Self>, kept: Arc<Kept>) -> Reused {
        match self.answer_with(Source::Kept(kept)) {
            Ok(after) => Reused::Done(after),
            Err(relay) => Reused::Call(relay),
        }
    }

    fn join_call(mut self: Box<Self>, shared_call: &Arc<SharedCall>) -> Reused {
        let mut state = shared_call.lock();
        if state.phase == Phase::Waiting && state.parked.len() < MAX_PARKED {
            let cancel = Arc::clone(self.in_flight.cancel());
            self.report(Some(Waiting::Another));
            state.parked.push(self);
            drop(state);
            cancel.wait_for(shared_call);
            return Reused::Done(ConnectionFate::Gone);
        }
        self.source = state.ride(shared_call, self.in_flight.cancel());
        Reused::Call(self)
    }

    /// Gives an answer that is there. The request itself, where it turns out to be none.
    pub(super) fn answer_with(mut self: Box<Self>, source: Source) -> Result<ConnectionFate, Box<Self>> {
        let AnswerHead { model, backup, .. } = source.head().clone();
        self.metrics.model.clone_from(&model);
        self.metrics.backup = backup;
        self.metrics.reused = Some(source.age());
        self.source = Some(source);
        match self.attempt(&model, &mut None) {
            Ok(served) => Ok(self.finish(served)),
            Err(_) => {
                self.metrics.backup = None;
                self.metrics.reused = None;
                Err(self)
            }
        }
    }

    /// What makes another request the same: all that the upstream would get, and how the answer is told.
    fn key(&self) -> Key {
        let settings = &self.snapshot.settings;
        let body = self.request.body(&self.request.model);
        let nothing = Written::default();
        let written = self.translated.as_ref().map_or(&nothing, |(_, written)| written);
        let path = self.route.shown();
        let mut parts = vec![
            path.as_bytes(),
            if settings.test_mode { b"" } else { settings.base_url.as_bytes() },
            self.query.as_deref().unwrap_or_default().as_bytes(),
            written.model.as_bytes(),
            written.query.as_bytes(),
            written.body.as_bytes(),
            &body,
        ];
        for (name, value) in self.headers.iter().filter(|(name, _)| name.as_str().starts_with("anthropic-")) {
            parts.extend([name.as_str().as_bytes(), value.as_bytes()]);
        }
        Key::of(parts)
    }
}
