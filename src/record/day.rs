//! The day's count: the calls that its folder contained when this run first looked, and those since.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::disk;
use super::history;
use super::metrics::CallMetrics;
use super::names::{Kind, Name, count_name, moment, timestamp};
use crate::json::{self, items};
use crate::sync::{lock, unpoisoned};

/// The maximum length of a day's count with its refusals.
const MAX_COUNT_BYTES: u64 = 1 << 20;
/// How many refusals of a day are kept, the newest ones.
pub(super) const MAX_REFUSALS: usize = 100;
/// How many files that a crash has left uncounted are read.
const MAX_UNCOUNTED: usize = 1000;
/// The status of a call whose client left, or that somebody cancelled.
const CANCELLED_STATUS: u16 = 499;

/// The figures of a day, or of an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that left a RESPONSE file.
    pub answered: u64,
    /// Calls that ended with an error.
    pub errors: u64,
    /// Calls that nobody waited for any more: the client left, or somebody cancelled the call.
    pub cancelled: u64,
    /// Requests that were refused before they became calls.
    pub refused: u64,
    /// Calls that got a kept answer, so that the upstream wasn't asked.
    pub reused: u64,
    /// Attempts that failed and were followed by others.
    pub failed_tries: u64,
    /// Tokens of requests.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
}

impl Counts {
    /// Returns the figures of one call that has ended.
    pub fn of(kind: Kind, metrics: &CallMetrics) -> Self {
        let cancelled = kind != Kind::Response && metrics.status == CANCELLED_STATUS;
        Self {
            cancelled: cancelled.into(),
            errors: (kind != Kind::Response && !cancelled).into(),
            reused: metrics.reused.is_some().into(),
            failed_tries: metrics.failed_tries.len() as u64,
            prompt_tokens: metrics.prompt_tokens.unwrap_or(0),
            completion_tokens: metrics.completion_tokens.unwrap_or(0),
            ..Self::of_kind(kind)
        }
    }

    /// Returns the figures of a call of which only the kind of its second file is known.
    pub fn of_kind(kind: Kind) -> Self {
        let answered = kind == Kind::Response;
        Self { answered: answered.into(), errors: (!answered).into(), ..Self::default() }
    }

    /// Returns the figures of one refused request.
    pub fn refusal() -> Self {
        Self { refused: 1, ..Self::default() }
    }

    /// Returns the number of all calls, refused requests included.
    pub fn calls(&self) -> u64 {
        let Self { answered, errors, cancelled, refused, .. } = *self;
        answered.saturating_add(errors).saturating_add(cancelled).saturating_add(refused)
    }

    /// Adds other figures; those of a damaged file can't overflow.
    pub fn add(&mut self, more: &Self) {
        let others = more.all();
        for ((_, figure), (_, more)) in self.all_mut().into_iter().zip(others) {
            *figure = figure.saturating_add(more);
        }
    }

    fn all(&self) -> [(&'static str, u64); 8] {
        let mut copy = *self;
        copy.all_mut().map(|(name, figure)| (name, *figure))
    }

    fn all_mut(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("answered", &mut self.answered),
            ("errors", &mut self.errors),
            ("cancelled", &mut self.cancelled),
            ("refused", &mut self.refused),
            ("reused", &mut self.reused),
            ("failed_tries", &mut self.failed_tries),
            ("prompt_tokens", &mut self.prompt_tokens),
            ("completion_tokens", &mut self.completion_tokens),
        ]
    }

    fn read(object: &Value) -> Self {
        let mut counts = Self::default();
        for (name, figure) in counts.all_mut() {
            *figure = object[name].as_u64().unwrap_or(0);
        }
        counts
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.all())
    }
}

/// A refused request, as the day's file keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// An id like those of calls, but without files of that name.
    pub message_id: String,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// The method and path of the request.
    pub asked: String,
    /// The tool that sent it.
    #[serde(default)]
    pub tool: String,
    /// The API that the path belongs to.
    #[serde(default)]
    pub dialect: Cow<'static, str>,
    /// HTTP status.
    pub status: u16,
    /// The `error` object of the response.
    pub error: Value,
}

/// The contents of `CALLS_YYYYMMDD.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct DayCount {
    /// The day, in local time.
    pub date: NaiveDate,
    /// The day's figures; `count` in the file is `answered`.
    pub counts: Counts,
    /// When the last answered call ended.
    pub last_updated: Option<DateTime<Local>>,
    /// The newest refused requests.
    pub refusals: Vec<Arc<Refusal>>,
}

/// The JSON form of [`DayCount`].
#[derive(Debug, Serialize)]
pub struct DayCountJson<'a> {
    date: String,
    count: u64,
    last_updated: Option<String>,
    #[serde(flatten)]
    counts: Counts,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    refusals: &'a [Arc<Refusal>],
}

impl DayCount {
    /// Creates the count of a day without calls.
    pub fn none(date: NaiveDate) -> Self {
        Self { date, counts: Counts::default(), last_updated: None, refusals: Vec::new() }
    }

    /// Returns the counts, without the refused requests.
    pub fn json(&self) -> DayCountJson<'_> {
        DayCountJson {
            date: date_in_json(self.date),
            count: self.counts.answered,
            last_updated: self.last_updated.map(timestamp),
            counts: self.counts,
            refusals: &[],
        }
    }

    /// Returns the contents of the file.
    pub(super) fn text(&self) -> String {
        let count = DayCountJson { refusals: &self.refusals, ..self.json() };
        json::on_one_line(&json::text(&count))
    }

    /// Reads the day's file, as far as it can be read.
    pub(super) fn read(dir: &Path, date: NaiveDate) -> Option<Self> {
        let file = disk::read_file(&dir.join(count_name(date)), MAX_COUNT_BYTES).ok()?;
        let saved = serde_json::from_slice::<Value>(&file).ok()?;
        let time = saved["last_updated"].as_str();
        let time = time.and_then(|t| NaiveDateTime::parse_from_str(t, "%Y-%m-%dT%H:%M:%S%.f").ok());
        let answered = saved["count"].as_u64().unwrap_or(0);
        let refusals = items(&saved["refusals"]).filter_map(|r| Refusal::deserialize(r).ok().map(Arc::new));
        Some(Self {
            date,
            counts: Counts { answered, ..Counts::read(&saved) },
            last_updated: time.map(moment),
            refusals: refusals.take(MAX_REFUSALS).collect(),
        })
    }
}

/// Formats a date as `YYYYMMDD`.
pub(super) fn date_in_json(date: NaiveDate) -> String {
    date.format("%Y%m%d").to_string()
}

/// The day's calls: those that the folder contained when this run first looked, and those since.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The calls since then.
    pub since: DayCount,
    /// The calls before.
    pub earlier: Arc<Earlier>,
}

impl Tally {
    /// Creates the tally of a day without calls so far.
    pub fn new(date: NaiveDate) -> Self {
        Self { since: DayCount::none(date), earlier: Earlier::known(DayCount::none(date)) }
    }

    /// Returns the count of all calls. Waits up to `patience` for the disk; what it hasn't read by then isn't counted.
    pub fn total(&self, patience: Duration) -> DayCount {
        let mut total = self.since.clone();
        if let Some(earlier) = self.earlier.wait(patience) {
            total.counts.add(&earlier.counts);
            total.last_updated = total.last_updated.or(earlier.last_updated);
            let skipped = (earlier.refusals.len() + total.refusals.len()).saturating_sub(MAX_REFUSALS);
            let refusals = earlier.refusals.into_iter().chain(total.refusals);
            total.refusals = refusals.skip(skipped).collect();
        }
        total
    }
}

/// A day's count that the writer thread reads from a folder, so that a slow disk holds nobody else up.
#[derive(Debug, Default)]
pub struct Earlier {
    count: Mutex<Option<DayCount>>,
    read: Condvar,
}

impl Earlier {
    fn known(count: DayCount) -> Arc<Self> {
        Arc::new(Self { count: Mutex::new(Some(count)), read: Condvar::new() })
    }

    pub(super) fn set(&self, count: DayCount) {
        *lock(&self.count) = Some(count);
        self.read.notify_all();
    }

    pub(super) fn wait(&self, limit: Duration) -> Option<DayCount> {
        let count = lock(&self.count);
        let waited = self.read.wait_timeout_while(count, limit, |count| count.is_none());
        unpoisoned(waited).0.clone()
    }
}

/// Counts a day's calls by the files. A crash may have come between a call's end and the count, and somebody may have
/// removed files: the larger number is right.
pub(super) fn count_on_disk(dir: &Path, date: NaiveDate) -> DayCount {
    let mut count = DayCount::read(dir, date).unwrap_or_else(|| DayCount::none(date));
    let of_the_day = |name: &Name| name.kind != Kind::Request && name.time.date() == date;
    let mut names = history::names(dir).filter(of_the_day).collect::<Vec<_>>();
    names.sort_unstable();
    let Counts { answered, errors, cancelled, .. } = count.counts;
    for (kind, counted) in [(Kind::Response, answered), (Kind::Error, errors.saturating_add(cancelled))] {
        let names = names.iter().filter(|name| name.kind == kind).collect::<Vec<_>>();
        let uncounted = names.iter().skip(usize::try_from(counted).unwrap_or(usize::MAX));
        for (number, name) in uncounted.rev().enumerate() {
            let metrics = (number < MAX_UNCOUNTED).then(|| history::read_metrics(dir, name)).flatten();
            let counts =
                metrics.as_ref().map_or(Counts::of_kind(kind), |call| Counts::of(kind, &call.metrics));
            count.counts.add(&counts);
            if kind == Kind::Response {
                count.last_updated = count.last_updated.max(metrics.map(|call| call.ended));
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let date = NaiveDate::from_ymd_opt(2024, 2, 14).unwrap();
        let path = dir.path().join(count_name(date));
        let counts = Counts { answered: 42, cancelled: 1, refused: 2, prompt_tokens: 7, ..Counts::default() };
        let refusal = Refusal {
            message_id: "0000000a".into(),
            time_ms: 1,
            asked: "GET /x".into(),
            tool: "curl".into(),
            dialect: "".into(),
            status: 404,
            error: Value::Null,
        };
        let count = DayCount { date, counts, last_updated: None, refusals: vec![Arc::new(refusal)] };
        std::fs::write(&path, count.text()).unwrap();
        assert_eq!(DayCount::read(dir.path(), date), Some(count));
        std::fs::write(&path, r#"{"date": "20240214", "count": 18446744073709551615, "last_updated": null}"#)
            .unwrap();
        let mut tally = Tally::new(date);
        tally.earlier = Earlier::known(count_on_disk(dir.path(), date));
        tally.since.counts.add(&Counts { answered: 3, ..Counts::default() });
        assert_eq!(tally.total(Duration::ZERO).counts.answered, u64::MAX, "it doesn't wrap");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(DayCount::read(dir.path(), date), None);
    }
}
