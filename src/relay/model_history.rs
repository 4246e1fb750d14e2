//! What was seen of the free models: which one answered what, which failed, which rest, and which one a conversation
//! belongs to. Kept in memory only; a fresh start knows nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::dialect::Needs;
use crate::dialect::free_models::{ROUTER, is_free};

/// A retired model isn't asked for so long.
const RETIRED_FOR: Duration = Duration::from_secs(60 * 60);
/// One whose provider says 429 isn't, where it doesn't say for how long.
const RESTS_FOR: Duration = Duration::from_secs(60);
/// What answered is worth trying for so long.
const GOOD_FOR: Duration = Duration::from_secs(10 * 60);
/// Models that are remembered for the same needs.
const MAX_GOOD: usize = 8;
/// Models that figures are kept of; an upstream may name any number.
const MAX_MODELS: usize = 1000;
/// Clients make names up.
const MAX_NAME_BYTES: usize = 200;
/// Of the beginning and of the end of a turn.
const HASHED_BYTES: usize = 4096;
/// Times to the first token of which a model's median is taken.
const MAX_TIMES: usize = 31;
/// Conversations that are remembered.
const MAX_CONVERSATIONS: usize = 10_000;

/// What is known.
#[derive(Debug, Default)]
pub struct ModelHistory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    models: HashMap<Arc<str>, ModelStats>,
    /// Models that answered, by what was needed, the last one last.
    good: HashMap<Wanted, VecDeque<(Arc<str>, Instant)>>,
    /// The model that each belongs to, and since when.
    conversations: HashMap<u64, (Arc<str>, Seconds)>,
    /// Backups that rest.
    backups: HashMap<String, SystemTime>,
}

/// Since the first look at the clock: thousands of times are kept.
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

/// What a model was asked for: the dialect, and what it must be able to do.
pub type Wanted = (&'static str, Needs);

/// What was seen of a model.
#[derive(Debug, Default, Clone)]
pub struct ModelStats {
    /// Calls to it.
    pub calls: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Until when it isn't asked.
    pub rests_until: Option<SystemTime>,
    /// It is said to be there no more.
    pub retired: bool,
    /// In milliseconds.
    first_tokens: VecDeque<u32>,
}

impl ModelStats {
    /// The median time to the first token of the last answers.
    pub fn first_token(&self) -> Option<Duration> {
        let mut times = self.first_tokens.iter().copied().collect::<Vec<_>>();
        times.sort_unstable();
        times.get(times.len() / 2).map(|ms| Duration::from_millis((*ms).into()))
    }

    /// Whether it isn't to be asked now.
    pub fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| until > SystemTime::now())
    }
}

impl ModelHistory {
    /// A model has answered.
    pub fn answered(&self, model: &str, wanted: Wanted, first_token: Option<Duration>) {
        if !is_one_model(model) {
            return;
        }
        let mut state = self.lock();
        if let Some(seen) = state.seen(model) {
            seen.calls += 1;
            seen.answered += 1;
            seen.rests_until = None;
            seen.retired = false;
            if let Some(first_token) = first_token {
                seen.first_tokens.truncate(MAX_TIMES - 1);
                seen.first_tokens.push_front(first_token.as_millis() as u32);
            }
        }
        let Some(model) = state.name_of(model) else {
            return;
        };
        let good = state.good.entry(wanted).or_default();
        good.retain(|(known, _)| *known != model);
        good.push_back((model, Instant::now()));
        if good.len() > MAX_GOOD {
            good.pop_front();
        }
    }

    /// Until when a model isn't asked, where it rests.
    pub fn rests_until(&self, model: &str) -> Option<SystemTime> {
        let state = self.lock();
        let seen = state.models.get(model)?;
        seen.rests_until.filter(|_| seen.rests())
    }

    /// A model has failed; where its provider says for how long it wants to be left alone, `rest`.
    pub fn failed(&self, model: &str, rest: Option<Option<Duration>>) {
        if model == ROUTER {
            return;
        }
        let mut state = self.lock();
        if let Some(seen) = state.seen(model) {
            seen.calls += 1;
            if let Some(named) = rest {
                seen.rests_until = SystemTime::now().checked_add(named.unwrap_or(RESTS_FOR));
            }
        }
        for good in state.good.values_mut() {
            good.retain(|(known, _)| &**known != model);
        }
    }

    /// A model is there no more. Whether that is news.
    pub fn retired(&self, model: &str) -> bool {
        let mut state = self.lock();
        let Some(seen) = state.seen(model) else {
            return true;
        };
        let known = seen.retired && seen.rests();
        seen.retired = true;
        seen.rests_until = SystemTime::now().checked_add(RETIRED_FOR);
        !known
    }

    /// Whether a model isn't to be asked now.
    pub fn rests(&self, model: &str) -> bool {
        self.lock().models.get(model).is_some_and(ModelStats::rests)
    }

    /// The model that last answered a request with the same needs, and hasn't failed since.
    pub fn good(&self, wanted: Wanted, not_these: impl Fn(&str) -> bool) -> Option<String> {
        let state = self.lock();
        let fits = |(model, since): &&(Arc<str>, Instant)| {
            let rests = state.models.get(model).is_some_and(ModelStats::rests);
            since.elapsed() < GOOD_FOR && !rests && !not_these(model)
        };
        state.good.get(&wanted)?.iter().rev().find(fits).map(|(model, _)| model.to_string())
    }

    /// The model that a conversation belongs to, by the marks of its beginnings, longest first.
    pub fn conversation(&self, marks: impl IntoIterator<Item = u64>, kept_for: Duration) -> Option<String> {
        let state = self.lock();
        let found = marks.into_iter().find_map(|mark| state.conversations.get(&mark))?;
        (found.1.elapsed() < kept_for).then(|| found.0.to_string())
    }

    /// From now on a conversation belongs to this model.
    pub fn converse(&self, mark: u64, model: &str) {
        if !is_one_model(model) {
            return;
        }
        let mut state = self.lock();
        if state.conversations.len() >= MAX_CONVERSATIONS && !state.conversations.contains_key(&mark) {
            // The older half goes: once in thousands of conversations.
            let mut times = state.conversations.values().map(|(_, since)| *since).collect::<Vec<_>>();
            times.sort_unstable();
            let middle = times[times.len() / 2];
            state.conversations.retain(|_, (_, since)| *since > middle);
        }
        if let Some(model) = state.name_of(model) {
            state.conversations.insert(mark, (model, Seconds::now()));
        }
    }

    /// A backup isn't asked for a while.
    pub fn backup_rests(&self, name: &str, named: Option<Duration>) {
        if let Some(until) = SystemTime::now().checked_add(named.unwrap_or(RESTS_FOR)) {
            self.lock().backups.insert(name.to_owned(), until);
        }
    }

    /// Until when a backup isn't asked.
    pub fn backup_rests_until(&self, name: &str) -> Option<SystemTime> {
        self.lock().backups.get(name).copied().filter(|until| *until > SystemTime::now())
    }

    /// What was seen of each model.
    pub fn models(&self) -> HashMap<Arc<str>, ModelStats> {
        self.lock().models.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `None` when too many are known already, or it is no name of a model.
    fn seen(&mut self, model: &str) -> Option<&mut ModelStats> {
        if model.len() > MAX_NAME_BYTES {
            return None;
        }
        if !self.models.contains_key(model) {
            if self.models.len() >= MAX_MODELS {
                return None;
            }
            self.models.insert(model.into(), ModelStats::default());
        }
        self.models.get_mut(model)
    }

    /// The name as all hold it together.
    fn name_of(&mut self, model: &str) -> Option<Arc<str>> {
        self.seen(model)?;
        self.models.get_key_value(model).map(|(name, _)| Arc::clone(name))
    }
}

/// Whether a request can be sent to this model alone, and for nothing.
fn is_one_model(id: &str) -> bool {
    id != ROUTER && is_free(id) && id.len() <= MAX_NAME_BYTES
}

/// A mark for each beginning of a conversation: after its first turn, its first two, and so on.
pub fn marks(dialect: &'static str, turns: &[&str]) -> Vec<u64> {
    let mut hasher = DefaultHasher::new();
    dialect.hash(&mut hasher);
    let mark = |turn: &&str| {
        match memchr::memmem::find(turn.as_bytes(), b"cache_control") {
            // Claude Code marks the last turn only, so that the same turn looks different in the next request.
            Some(_) => {
                let mut turn = serde_json::from_str::<Value>(turn).unwrap_or_default();
                forget_cache_control(&mut turn);
                hash_turn(&turn.to_string(), &mut hasher);
            }
            None => hash_turn(turn, &mut hasher),
        }
        hasher.finish()
    };
    turns.iter().map(mark).collect()
}

/// A long turn is known by its length, its beginning and its end: hashing megabytes of images would cost as much as
/// sending them, and all that depends on it is which model is asked first.
fn hash_turn(turn: &str, hasher: &mut DefaultHasher) {
    let turn = turn.as_bytes();
    turn.len().hash(hasher);
    match turn.len() > 2 * HASHED_BYTES {
        true => (&turn[..HASHED_BYTES], &turn[turn.len() - HASHED_BYTES..]).hash(hasher),
        false => turn.hash(hasher),
    }
}

fn forget_cache_control(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.shift_remove("cache_control");
            object.values_mut().for_each(forget_cache_control);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_cache_control),
        _ => {}
    }
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
        known.failed("a:free", Some(Some(LONG)));
        assert!(known.rests("a:free") && !known.rests("b:free"));
        assert_eq!(known.good(WANTED, none), None);
        let seen = &known.models()["b:free"];
        assert_eq!((seen.calls, seen.answered, seen.first_token()), (2, 1, Some(Duration::from_millis(5))));
    }

    #[test]
    fn a_retired_model_is_news_once() {
        let known = ModelHistory::default();
        assert!(known.retired("a:free") && !known.retired("a:free"));
        assert!(known.rests("a:free"));
    }

    #[test]
    fn a_conversation_goes_on_where_its_beginning_is_the_same() {
        let known = ModelHistory::default();
        let first = marks("chat", &["{1}"]);
        known.converse(first[0], "a:free");
        let longer = marks("chat", &["{1}", "{2}", "{3}"]);
        let beginnings = |marks: &[u64]| marks.iter().rev().skip(1).copied().collect::<Vec<_>>();
        assert_eq!(known.conversation(beginnings(&longer), LONG).as_deref(), Some("a:free"));
        assert_eq!(known.conversation(beginnings(&longer), Duration::ZERO), None);
        assert_eq!(known.conversation(beginnings(&first), LONG), None, "nothing has gone before");
        assert_eq!(known.conversation(beginnings(&marks("chat", &["{0}", "{2}", "{3}"])), LONG), None);
        assert_eq!(known.conversation(beginnings(&marks("messages", &["{1}", "{2}"])), LONG), None);
        let marked = marks("chat", &[r#"{"a":[{"b":1,"cache_control":{}}]}"#, "{2}"]);
        assert_eq!(marked[1], marks("chat", &[r#"{"a":[{"b":1}]}"#, "{2}"])[1]);
    }

    #[test]
    fn no_more_than_so_much_is_remembered() {
        let known = ModelHistory::default();
        for number in 0..30_000_u64 {
            known.converse(number, "a:free");
            known.answered(&format!("model-{number}:free"), WANTED, Some(LONG));
        }
        let state = known.lock();
        assert!(state.conversations.len() <= MAX_CONVERSATIONS && state.conversations.contains_key(&29_999));
        assert!(state.models.len() <= MAX_MODELS && state.good[&WANTED].len() <= MAX_GOOD);
    }
}
