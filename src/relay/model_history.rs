//! What was seen of the free models: which one answered what, which failed, which rest, and which one a conversation
//! belongs to. It is kept in memory; where debug mode saves files, the figures of each model survive a restart.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::Utc;
use crossbeam_channel::bounded;

use super::best::{self, Candidate, NEVER_SEEN};
use super::model::Model;
use super::model_stats::{MAX_NAME_BYTES, ModelStats, StatsTable};
use crate::console::say;
use crate::dialect::Needs;
use crate::dialect::free_models::{ROUTER, is_free};
use crate::language::either;
use crate::record::files::Files;
use crate::sync::lock;

/// The name of the file in `CACHE_DIR`.
const FILE: &str = ".local-api-proxy-models.json";
/// The maximum length of the file; a longer one wasn't written by this program.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// How long the start of the program waits for the file.
const FILE_PATIENCE: Duration = Duration::from_millis(50);
/// How long a model that has answered is worth trying.
const GOOD_FOR: Duration = Duration::from_secs(10 * 60);
/// The number of models that are remembered for the same needs.
const MAX_GOOD: usize = 8;
/// A conversation leaves its model after this many calls in a row in which the model has failed.
const TOO_MANY_FAILURES: u8 = 2;
/// The number of conversations that are remembered.
const MAX_CONVERSATIONS: usize = 10_000;

/// What was seen of models and conversations.
#[derive(Debug, Default)]
pub struct ModelHistory {
    state: Mutex<State>,
    /// Whether the file is about to be written.
    is_queued: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    stats: StatsTable,
    /// The folder whose file has been read.
    read_from: Option<Arc<Path>>,
    /// The models that have answered, by what was needed, the latest last.
    good: HashMap<Wanted, VecDeque<(Arc<str>, Instant)>>,
    /// The model that each conversation belongs to, by the marks of the conversation.
    conversations: HashMap<u64, Affinity>,
    /// The best model for each set of needs.
    first_choices: HashMap<Needs, Arc<str>>,
}

/// The model that a conversation belongs to.
#[derive(Debug)]
struct Affinity {
    model: Arc<str>,
    /// The number of calls in a row, up to the last one, in which the model has failed.
    failures: u8,
    since: Seconds,
}

/// Seconds since the clock was first read: small, because thousands of times are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seconds(u32);

impl Seconds {
    fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        Self(START.get_or_init(Instant::now).elapsed().as_secs() as u32)
    }

    fn elapsed(self) -> Duration {
        Duration::from_secs(Self::now().0.saturating_sub(self.0).into())
    }
}

/// What a model is wanted for: the dialect, and what the model must be able to do.
pub type Wanted = (&'static str, Needs);

impl ModelHistory {
    /// Records that a model has answered.
    pub fn answered(&self, model: &str, wanted: Wanted, first_token: Option<Duration>) {
        if !is_one_model(model) {
            return;
        }
        let mut state = self.lock();
        let Some(model) = state.stats.name_of(model) else {
            return;
        };
        if let Some(stats) = state.stats.of(&model) {
            stats.answered(first_token);
        }
        let good = state.good.entry(wanted).or_default();
        good.retain(|(known, _)| *known != model);
        good.push_back((model, Instant::now()));
        if good.len() > MAX_GOOD {
            good.pop_front();
        }
    }

    /// Returns until when a model isn't asked, if it rests.
    pub fn rests_until(&self, model: &str) -> Option<SystemTime> {
        let state = self.lock();
        let seen = state.stats.get(model)?;
        seen.rests_until.filter(|_| seen.rests())
    }

    /// Records that a model has failed, and isn't asked for `rest`.
    pub fn failed(&self, model: &str, rest: Option<Duration>) {
        if model == ROUTER {
            return;
        }
        let mut state = self.lock();
        if let Some(stats) = state.stats.of(model) {
            stats.failed();
            if let Some(rest) = rest {
                stats.rest(rest);
            }
        }
        for good in state.good.values_mut() {
            good.retain(|(known, _)| &**known != model);
        }
    }

    /// Records that a model no longer exists, and isn't asked for `rest`. Returns whether that is news.
    pub fn retired(&self, model: &str, rest: Duration) -> bool {
        let mut state = self.lock();
        for good in state.good.values_mut() {
            good.retain(|(known, _)| &**known != model);
        }
        state.stats.of(model).is_none_or(|stats| stats.retire(rest))
    }

    /// Returns whether a model has answered anything within the last ten minutes, and hasn't failed since.
    pub fn has_answered_lately(&self, model: &str) -> bool {
        let state = self.lock();
        let answered = |(known, since): &(Arc<str>, Instant)| **known == *model && since.elapsed() < GOOD_FOR;
        state.good.values().flatten().any(answered)
    }

    /// Returns whether a model isn't to be asked now.
    pub fn rests(&self, model: &str) -> bool {
        self.lock().stats.get(model).is_some_and(ModelStats::rests)
    }

    /// Returns the models that can do what is needed now, the best one first.
    pub fn in_order<'a>(&self, models: &'a [Arc<Model>], needs: Needs) -> Vec<Candidate<'a>> {
        let state = self.lock();
        let now = SystemTime::now();
        let seen = |id: &str| state.stats.get(id).map_or(NEVER_SEEN, |stats| stats.seen(now));
        best::in_order(models, needs, Utc::now().date_naive(), seen)
    }

    /// Returns the model that last answered a request with the same needs, hasn't failed since, and isn't one of
    /// `not_these`.
    pub fn good(&self, wanted: Wanted, not_these: impl Fn(&str) -> bool) -> Option<String> {
        let state = self.lock();
        let fits = |(model, since): &&(Arc<str>, Instant)| {
            let rests = state.stats.get(model).is_some_and(ModelStats::rests);
            since.elapsed() < GOOD_FOR && !rests && !not_these(model)
        };
        state.good.get(&wanted)?.iter().rev().find(fits).map(|(model, _)| model.to_string())
    }

    /// Returns the model that a conversation belongs to, by the marks of its beginnings, longest first; and whether
    /// that model has failed in the last call of the conversation.
    pub fn conversation(
        &self,
        marks: impl IntoIterator<Item = u64>,
        kept_for: Duration,
    ) -> Option<(String, bool)> {
        let state = self.lock();
        let found = marks.into_iter().find_map(|mark| state.conversations.get(&mark))?;
        let is_kept = found.since.elapsed() < kept_for && found.failures < TOO_MANY_FAILURES;
        is_kept.then(|| (found.model.to_string(), found.failures > 0))
    }

    /// Records that the model of a conversation has failed in a call without a complete answer.
    pub fn own_failed(&self, marks: impl IntoIterator<Item = u64>) {
        let mut state = self.lock();
        let found = marks.into_iter().find(|mark| state.conversations.contains_key(mark));
        if let Some(belongs) = found.and_then(|mark| state.conversations.get_mut(&mark)) {
            belongs.failures = belongs.failures.saturating_add(1);
        }
    }

    /// Sets the model that a conversation belongs to from now on.
    pub fn assign_conversation(&self, mark: u64, model: &str, has_failed: bool) {
        if !is_one_model(model) {
            return;
        }
        let mut state = self.lock();
        if state.conversations.len() >= MAX_CONVERSATIONS && !state.conversations.contains_key(&mark) {
            // The older half is forgotten: once in thousands of conversations.
            let mut times = state.conversations.values().map(|belongs| belongs.since).collect::<Vec<_>>();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            state.conversations.retain(|_, belongs| belongs.since > middle);
        }
        if let Some(model) = state.stats.name_of(model) {
            state
                .conversations
                .insert(mark, Affinity { model, failures: has_failed.into(), since: Seconds::now() });
        }
    }

    /// Records the model that is asked first for these needs. Returns the one before if it was another; `Some(None)` if
    /// there was none.
    pub fn first_choice(&self, needs: Needs, first: &str) -> Option<Option<Arc<str>>> {
        let mut state = self.lock();
        if state.first_choices.get(&needs).is_some_and(|known| **known == *first) {
            return None;
        }
        Some(state.first_choices.insert(needs, first.into()))
    }

    /// Returns what was seen of a model.
    pub fn of(&self, model: &str) -> Option<ModelStats> {
        self.lock().stats.get(model).cloned()
    }

    /// Returns what was seen of each model.
    pub fn models(&self) -> HashMap<Arc<str>, ModelStats> {
        self.lock().stats.all().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The file, where debug mode saves one.
impl ModelHistory {
    /// Reads what an earlier run has saved, without waiting long for it.
    pub fn look_back(self: &Arc<Self>, dir: Option<&Arc<Path>>) {
        let Some(dir) = dir.cloned() else {
            return;
        };
        let history = Arc::clone(self);
        let (done, read) = bounded(1);
        let look_back = move || {
            history.read(&dir);
            let _ = done.send(());
        };
        if thread::Builder::new().name("history".into()).spawn(look_back).is_ok() {
            let _ = read.recv_timeout(FILE_PATIENCE);
        }
    }

    /// Has what is known of the models written to the file soon.
    pub fn save(self: &Arc<Self>, dir: &Arc<Path>, files: &Files) {
        if self.is_queued.swap(true, Ordering::Relaxed) {
            return;
        }
        let (history, dir) = (Arc::clone(self), Arc::clone(dir));
        let path = dir.join(FILE);
        let text = move || {
            history.is_queued.store(false, Ordering::Relaxed);
            history.read(&dir); // else it would be overwritten unread
            history.lock().stats.to_json()
        };
        files.save_soon(path, Box::new(text));
    }

    /// Reads a folder's file, once. What has been seen since it was written takes precedence.
    fn read(&self, dir: &Arc<Path>) {
        if self.lock().read_from.replace(Arc::clone(dir)).as_ref() == Some(dir) {
            return;
        }
        let path = dir.join(FILE);
        let length = match fs::symlink_metadata(&path) {
            Ok(file) if file.is_file() => file.len(),
            _ => return,
        };
        let json = if length <= MAX_FILE_BYTES { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        if !self.lock().stats.add_json(&json) {
            let path = path.display();
            say(either(
                format_args!("{path} can't be read: what was known of the models is forgotten"),
                format_args!("无法读取 {path}：之前对各模型的了解已丢失"),
            ));
        }
    }
}

/// Returns whether a request can be sent to this model itself, free of charge.
fn is_one_model(id: &str) -> bool {
    id != ROUTER && is_free(id) && id.len() <= MAX_NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = ("chat", Needs { tools: true, images: false, structured: false });
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_answered_last_is_good_until_it_fails() {
        let known = ModelHistory::default();
        let none = |_: &str| false;
        assert_eq!(known.good(WANTED, none), None);
        for model in ["a:free", "b:free", ROUTER, "paid"] {
            known.answered(model, WANTED, Some(Duration::from_millis(5)));
        }
        assert_eq!(known.good(WANTED, none).as_deref(), Some("b:free"));
        assert_eq!(known.good(WANTED, |model| model == "b:free").as_deref(), Some("a:free"));
        assert_eq!(known.good(("chat", Needs::default()), none), None, "other needs");
        known.failed("b:free", None);
        assert_eq!(known.good(WANTED, none).as_deref(), Some("a:free"));
        known.failed("a:free", Some(LONG));
        assert!(known.rests("a:free") && !known.rests("b:free"));
        assert_eq!(known.good(WANTED, none), None);
        let seen = &known.models()["b:free"];
        assert_eq!((seen.calls, seen.answered, seen.first_token()), (2, 1, Some(Duration::from_millis(5))));
    }

    #[test]
    fn a_retired_model_is_news_once() {
        let known = ModelHistory::default();
        assert!(known.retired("a:free", LONG) && !known.retired("a:free", LONG));
        assert!(known.rests("a:free"));
    }

    #[test]
    fn a_conversation_belongs_to_a_model_for_a_while() {
        let history = ModelHistory::default();
        history.assign_conversation(1, "a:free", false);
        assert_eq!(history.conversation([3, 1], LONG), Some(("a:free".into(), false)));
        assert_eq!(history.conversation([1], Duration::ZERO), None);
        assert_eq!(history.conversation([2], LONG), None);
        history.assign_conversation(1, ROUTER, false);
        assert_eq!(history.conversation([1], LONG), Some(("a:free".into(), false)), "the router is no model");
    }

    #[test]
    fn a_conversation_leaves_a_model_that_fails_twice_in_a_row() {
        let history = ModelHistory::default();
        history.assign_conversation(1, "a:free", false);
        history.own_failed([9, 1]);
        assert_eq!(history.conversation([9, 1], LONG), Some(("a:free".into(), true)));
        history.assign_conversation(2, "a:free", true);
        history.own_failed([2, 1]);
        assert_eq!(history.conversation([2, 1], LONG), None);
        history.assign_conversation(3, "a:free", false);
        assert_eq!(history.conversation([3, 2, 1], LONG), Some(("a:free".into(), false)));
    }

    #[test]
    fn no_more_than_so_much_is_remembered() {
        let known = ModelHistory::default();
        for number in 0..30_000_u64 {
            known.assign_conversation(number, "a:free", false);
            known.answered(&format!("model-{number}:free"), WANTED, Some(LONG));
        }
        let state = known.lock();
        assert!(state.conversations.len() <= MAX_CONVERSATIONS && state.conversations.contains_key(&29_999));
        assert!(state.stats.all().len() <= 1000 && state.good[&WANTED].len() <= MAX_GOOD);
    }
}
