//! What was seen of each model: how often it has answered lately, how soon, and until when it isn't asked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::best::Seen;

/// The time after which what was seen counts for half.
const HALVED_AFTER_S: f64 = 15.0 * 60.0;
/// The number of answered calls that every model is credited with before its first.
const TRUST: f64 = 2.0;
/// The longest rest, whatever a header says.
const LONGEST_REST: Duration = Duration::from_secs(24 * 60 * 60);
/// The number of models whose figures are kept; clients and upstreams may name any number.
const MAX_MODELS: usize = 1000;
/// The maximum length of a model's name; clients make names up.
pub const MAX_NAME_BYTES: usize = 200;
/// The number of times to the first token of which a model's median is taken.
const MAX_TIMES: usize = 31;

/// What was seen of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelStats {
    /// The number of calls to the model.
    pub calls: u64,
    /// The number of calls that were answered.
    pub answered: u64,
    /// Until when the model isn't asked.
    pub rests_until: Option<SystemTime>,
    /// Whether the model is said to exist no longer.
    pub retired: bool,
    /// Calls and answers as of `last_seen`; older ones count less and less.
    recent: [f64; 2],
    /// When the last call to the model was counted.
    last_seen: SystemTime,
    /// Times to the first token in milliseconds, the newest first.
    first_tokens: VecDeque<u32>,
    /// The median of these times.
    median: Option<u32>,
}

impl Default for ModelStats {
    fn default() -> Self {
        Self {
            calls: 0,
            answered: 0,
            rests_until: None,
            retired: false,
            recent: [0.0; 2],
            last_seen: SystemTime::UNIX_EPOCH,
            first_tokens: VecDeque::new(),
            median: None,
        }
    }
}

impl ModelStats {
    /// Records that the model has answered.
    pub fn answered(&mut self, first_token: Option<Duration>) {
        self.count(true);
        self.rests_until = None;
        self.retired = false;
        if let Some(first_token) = first_token {
            self.first_tokens.truncate(MAX_TIMES - 1);
            self.first_tokens.push_front(u32::try_from(first_token.as_millis()).unwrap_or(u32::MAX));
            let mut times = self.first_tokens.iter().copied().collect::<Vec<_>>();
            times.sort_unstable();
            self.median = times.get(times.len() / 2).copied();
        }
    }

    /// Records that the model has failed.
    pub fn failed(&mut self) {
        self.count(false);
    }

    /// Keeps the model from being asked for this long.
    pub fn rest(&mut self, time: Duration) {
        self.rests_until = SystemTime::now().checked_add(time.min(LONGEST_REST));
    }

    /// Records that the model no longer exists, and isn't asked for this long. Returns whether that is news.
    pub fn retire(&mut self, time: Duration) -> bool {
        let known = self.retired && self.rests();
        self.retired = true;
        self.rest(time);
        !known
    }

    /// Returns the median time to the first token of the last answers.
    pub fn first_token(&self) -> Option<Duration> {
        self.median.map(|ms| Duration::from_millis(ms.into()))
    }

    /// Returns whether the model isn't to be asked now.
    pub fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| until > SystemTime::now())
    }

    /// Returns the share of calls that the model answers.
    pub fn share(&self, now: SystemTime) -> f64 {
        let [calls, answered] = self.recent_at(now);
        (answered + TRUST) / (calls + TRUST)
    }

    /// Returns what the choice of the best model depends on.
    pub fn seen(&self, now: SystemTime) -> Seen {
        let rests = self.rests_until.is_some_and(|until| until > now);
        Seen { share: self.share(now), first_token: self.first_token(), rests }
    }

    fn count(&mut self, answered: bool) {
        let now = SystemTime::now();
        let [calls, answers] = self.recent_at(now);
        self.recent = [calls + 1.0, answers + f64::from(u8::from(answered))];
        self.last_seen = now;
        self.calls = self.calls.saturating_add(1);
        self.answered = self.answered.saturating_add(answered.into());
    }

    fn recent_at(&self, now: SystemTime) -> [f64; 2] {
        let age = now.duration_since(self.last_seen).unwrap_or_default(); // a clock may have been set back
        let left = (-age.as_secs_f64() / HALVED_AFTER_S).exp2();
        self.recent.map(|count| count * left)
    }

    /// Orders models by how much would be lost with their figures: least with one that never answered, then with one
    /// that doesn't rest, then with the one that was seen longest ago.
    fn usefulness(&self) -> impl Ord {
        (self.answered > 0, self.rests(), self.last_seen)
    }
}

/// What was seen of all models; of more than a thousand, the least useful are dropped.
#[derive(Debug, Default)]
pub struct StatsTable {
    models: HashMap<Arc<str>, ModelStats>,
}

impl StatsTable {
    /// Returns the figures of a model, new ones if it has none; `None` if its name is too long to be one.
    pub fn of(&mut self, model: &str) -> Option<&mut ModelStats> {
        if model.len() > MAX_NAME_BYTES {
            return None;
        }
        if !self.models.contains_key(model) {
            self.make_room();
            self.models.insert(model.into(), ModelStats::default());
        }
        self.models.get_mut(model)
    }

    /// Returns what is known of a model.
    pub fn get(&self, model: &str) -> Option<&ModelStats> {
        self.models.get(model)
    }

    /// Returns the copy of a model's name that all share.
    pub fn name_of(&mut self, model: &str) -> Option<Arc<str>> {
        self.of(model)?;
        self.models.get_key_value(model).map(|(name, _)| Arc::clone(name))
    }

    /// Returns the figures of all models.
    pub fn all(&self) -> &HashMap<Arc<str>, ModelStats> {
        &self.models
    }

    /// Writes the figures as JSON, for a file.
    pub fn to_json(&self) -> String {
        let models = self.models.iter().map(|(name, stats)| (&**name, stats)).collect::<HashMap<_, _>>();
        serde_json::to_string(&models).unwrap_or_default()
    }

    /// Adds the figures of an older file for models that haven't been seen since. Returns whether the file could be
    /// read.
    pub fn add_json(&mut self, json: &[u8]) -> bool {
        let Ok(saved) = serde_json::from_slice::<HashMap<String, ModelStats>>(json) else {
            return false;
        };
        let longest = SystemTime::now().checked_add(LONGEST_REST);
        for (model, mut stats) in saved.into_iter().take(MAX_MODELS) {
            let is_known = model.len() > MAX_NAME_BYTES || self.models.contains_key(&*model);
            if is_known
                || self.models.len() >= MAX_MODELS
                || !stats.recent.iter().all(|count| (0.0..1e9).contains(count))
            {
                continue;
            }
            stats.rests_until = stats.rests_until.min(longest);
            stats.first_tokens.truncate(MAX_TIMES);
            self.models.insert(model.into(), stats);
        }
        true
    }

    fn make_room(&mut self) {
        if self.models.len() >= MAX_MODELS {
            let least = self.models.iter().min_by_key(|(_, stats)| stats.usefulness());
            if let Some(least) = least.map(|(name, _)| Arc::clone(name)) {
                self.models.remove(&least);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_counts_half_after_a_quarter_of_an_hour() {
        let mut stats = ModelStats::default();
        assert_eq!(stats.share(SystemTime::now()), 1.0, "never seen");
        for _ in 0..4 {
            stats.failed();
        }
        stats.answered(None);
        let now = stats.last_seen;
        let about = |a: f64, b: f64| assert!((a - b).abs() < 0.01, "{a} is not about {b}");
        about(stats.share(now), 3.0 / 7.0);
        about(stats.share(now + Duration::from_secs(15 * 60)), 2.5 / 4.5);
        about(stats.share(now + Duration::from_secs(30 * 60)), 2.25 / 3.25);
        about(stats.share(now + Duration::from_secs(24 * 60 * 60)), 1.0);
        about(stats.share(now - Duration::from_secs(60 * 60)), 3.0 / 7.0);
    }

    #[test]
    fn nothing_rests_for_longer_than_a_day() {
        let mut stats = ModelStats::default();
        stats.rest(Duration::MAX);
        assert!(stats.rests() && stats.rests_until < SystemTime::now().checked_add(LONGEST_REST * 2));
        stats.rest(Duration::ZERO);
        assert!(!stats.rests());
        assert!(stats.retire(Duration::from_secs(60)) && !stats.retire(Duration::from_secs(60)));
    }

    #[test]
    fn made_up_names_dont_stop_the_learning() {
        let mut table = StatsTable::default();
        table.of("good:free").unwrap().answered(Some(Duration::from_millis(5)));
        for number in 0..1100 {
            table.of(&format!("made/up-{number}:free")).unwrap().failed();
        }
        table.of("new:free").unwrap().failed();
        assert_eq!(table.models.len(), MAX_MODELS);
        assert_eq!((table.models["good:free"].answered, table.models["new:free"].calls), (1, 1));
        assert!(table.of(&"x".repeat(MAX_NAME_BYTES + 1)).is_none());
    }

    #[test]
    fn a_file_brings_back_what_was_known() {
        let mut before = StatsTable::default();
        before.of("a:free").unwrap().answered(Some(Duration::from_millis(700)));
        before.of("b:free").unwrap().failed();
        before.of("b:free").unwrap().rest(Duration::from_secs(60));
        let mut after = StatsTable::default();
        after.of("a:free").unwrap().failed();
        assert!(after.add_json(before.to_json().as_bytes()));
        assert_eq!((after.models["a:free"].calls, after.models["a:free"].answered), (1, 0), "seen since");
        assert!(after.models["b:free"].rests() && after.models["b:free"].calls == 1);
        let mut empty = StatsTable::default();
        assert!(empty.add_json(before.to_json().as_bytes()));
        assert_eq!(empty.models["a:free"].first_token(), Some(Duration::from_millis(700)));
        for bad in ["", "[]", "{\"a:free\":{}}", "{\"a:free\":7}", "\u{1}"] {
            assert!(!empty.add_json(bad.as_bytes()), "{bad}");
        }
    }
}
