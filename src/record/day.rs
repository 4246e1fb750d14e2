//! The day's count: what its folder knew when this run first looked, and what has come since.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime};

use super::names::{Kind, Name, count_name, timestamp};
use crate::json;

/// `CALLS_YYYYMMDD.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCount {
    /// The day, in local time.
    pub date: NaiveDate,
    /// Calls that left a RESPONSE.
    pub count: u64,
    /// When the last of them ended.
    pub last_updated: Option<DateTime<Local>>,
}

impl DayCount {
    /// `"date": …, "count": …, "last_updated": …`
    pub fn fields(&self) -> String {
        let last = self.last_updated.map_or("null".into(), |t| json::quoted(&timestamp(t)));
        let date = self.date.format("%Y%m%d");
        format!(r#""date": "{date}", "count": {}, "last_updated": {last}"#, self.count)
    }
}

/// The day's calls: those that the folder knew of when this run first looked, and those since.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The day, in local time.
    pub date: NaiveDate,
    /// Calls that left a RESPONSE since then.
    pub since: u64,
    /// When the last of them ended.
    pub last_updated: Option<DateTime<Local>>,
    /// What was there before.
    pub earlier: Arc<Earlier>,
}

impl Tally {
    /// A day without calls so far.
    pub fn new(date: NaiveDate) -> Self {
        let earlier = Earlier::known(DayCount { date, count: 0, last_updated: None });
        Self { date, since: 0, last_updated: None, earlier }
    }

    /// All of them. The disk gets `patience` to say what it knew; what it hasn't said by then isn't counted.
    pub fn total(&self, patience: Duration) -> DayCount {
        let earlier = self.earlier.wait(patience);
        let (count, last) = earlier.map_or((0, None), |earlier| (earlier.count, earlier.last_updated));
        DayCount { date: self.date, count: count + self.since, last_updated: self.last_updated.or(last) }
    }
}

/// A day's count that the writer thread reads from a folder, so that a slow disk is nobody else's concern.
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
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) = Some(count);
        self.read.notify_all();
    }

    fn wait(&self, limit: Duration) -> Option<DayCount> {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.read.wait_timeout_while(count, limit, |count| count.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// The day's count as the files have it. A crash may have come between a RESPONSE and the count, and somebody may have
/// removed RESPONSEs: the larger number is right.
pub(super) fn count_on_disk(dir: &Path, date: NaiveDate) -> DayCount {
    let none = DayCount { date, count: 0, last_updated: None };
    let saved = fs::read_to_string(dir.join(count_name(date))).ok();
    let saved =
        saved.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()).unwrap_or_default();
    let time = saved["last_updated"]
        .as_str()
        .and_then(|t| NaiveDateTime::parse_from_str(t, "%Y-%m-%dT%H:%M:%S%.f").ok());
    let time = time.and_then(|t| t.and_local_timezone(Local).earliest());
    let saved = DayCount { count: saved["count"].as_u64().unwrap_or(0), last_updated: time, ..none };
    let mut count = 0;
    let mut last = None;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_str().and_then(Name::parse);
        if let Some(name) = name.filter(|n| n.kind == Kind::Response && n.time.date_naive() == date) {
            count += 1;
            last = last.max(Some(name.time));
        }
    }
    if count <= saved.count {
        return saved;
    }
    DayCount { date, count, last_updated: last.or(saved.last_updated) }
}
