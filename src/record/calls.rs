//! What debug mode records: today's figures, the recent calls, and the files for the writer thread.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Days, Local, NaiveDate};
use serde::Serialize;

use crate::error::ApiError;
use crate::json;
use crate::language::Words;
use crate::live::Snapshot;
use crate::record::call::{Call, CallJson, FromFiles, State, TooLarge};
pub use crate::record::call::{Ending, Running, Waiting};
use crate::record::day::{Counts, DayCount, DayCountJson, MAX_REFUSALS, Refusal, Tally, date_in_json};
use crate::record::disk;
use crate::record::files::{DebugFile, Files};
use crate::record::history::{self, PastCall};
use crate::record::memory::{MAX_DAYS, Memory};
use crate::record::metrics::{CallMetrics, unix_ms};
use crate::record::names::{Kind, MessageId, Name, moment, timestamp};
use crate::record::search;
use crate::record::statistics::{Hours, LastHours, Times};
use crate::sync::lock;

/// How much of a stream is kept as it came, beside the answer that it adds up to.
const MAX_EVENTS_BYTES: usize = 256 << 10;
/// How long the files are waited for when a call is opened, or words are looked for.
const FILES_PATIENCE: Duration = Duration::from_secs(10);
/// How much of the files is read when words are looked for.
const MAX_SEARCHED_BYTES: u64 = 256 << 20;

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// When the call ended.
    pub ended: SystemTime,
    /// HTTP status.
    pub status: u16,
    /// The `code` of the error, if there was one.
    pub error_code: Option<String>,
    /// Why the last attempt before the end failed.
    pub reason: Option<Words>,
}

/// `GET /debug/stats`.
#[derive(Serialize)]
struct Stats<'a> {
    #[serde(flatten)]
    today: DayCountJson<'a>,
    running: usize,
    first_token_ms: Option<u32>,
    files_not_saved: u64,
    now: String,
    now_ms: i64,
    utc_offset_minutes: i32,
    #[serde(flatten)]
    last_hours: LastHours,
}

/// `GET /debug/days`.
#[derive(Serialize)]
struct DaysList {
    days: Vec<Day>,
}

#[derive(Serialize)]
struct Day {
    date: String,
    #[serde(flatten)]
    counts: Counts,
}

/// `GET /debug/calls`.
#[derive(Serialize)]
struct CallsList<'a> {
    next: u64,
    whole: bool,
    calls: Vec<CallJson<'a>>,
    dropped: Vec<MessageId>,
}

/// `GET /debug/calls?find=`.
#[derive(Serialize)]
struct Found {
    found: Vec<MessageId>,
    complete: bool,
}

/// Calls of today and of this run.
#[derive(Debug)]
pub struct Calls {
    shared: Arc<Shared>,
    next_id: AtomicU32,
    id_step: u32,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    memory: Mutex<Memory>,
}

/// A call that is being recorded. If this is dropped before the end, an internal error is recorded.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    message_id: MessageId,
    dir: Option<Arc<Path>>,
    running: Arc<Running>,
    has_ended: bool,
}

impl Recording {
    /// Updates what is known of the call.
    pub fn update(&self, metrics: &CallMetrics, waiting: Option<Waiting>) {
        self.shared.lock().change(self.message_id, |call| {
            call.metrics.clone_from(metrics);
            call.waiting = waiting;
        });
    }

    /// Appends events of the answer.
    pub fn push_events(&self, piece: &[u8]) {
        let mut events = self.running.events();
        let room = MAX_EVENTS_BYTES - events.len();
        events.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Discards the events, because another answer begins.
    pub fn clear_events(&self) {
        self.running.events().clear();
    }

    /// Records the call's end.
    pub fn end(mut self, metrics: CallMetrics, ending: Ending) {
        self.has_ended = true;
        let events = std::mem::take(&mut *self.running.events());
        self.shared.end(self.message_id, self.dir.take(), metrics, ending, events);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.has_ended {
            let error = ApiError::new(500, "internal_error", "The proxy made a mistake.");
            let known = self.shared.lock().find(self.message_id).map(|call| call.metrics.clone());
            let metrics = CallMetrics {
                status: error.status,
                error_code: Some(error.code.to_owned()),
                ..known.unwrap_or_default()
            };
            let ending = Ending::error(&error.object(), error.status, None);
            self.shared.end(self.message_id, self.dir.take(), metrics, ending, Vec::new());
        }
    }
}

impl Calls {
    /// Creates a record without calls.
    pub fn new(files: Files) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        let version = unix_ms(SystemTime::now());
        let memory = Memory {
            today: Tally::new(Local::now().date_naive()),
            first_tokens: Times::default(),
            days: VecDeque::new(),
            counted_in: None,
            recent: VecDeque::new(),
            text_bytes: 0,
            hours: Hours::default(),
            version,
            unknown_before: version,
            dropped: VecDeque::new(),
        };
        Self {
            shared: Arc::new(Shared { files, memory: Mutex::new(memory) }),
            next_id: AtomicU32::new(random as u32),
            // An odd step visits all 2^32 numbers before one comes again.
            id_step: (random >> 32) as u32 | 1,
        }
    }

    /// Returns the handle to the writer thread.
    pub fn files(&self) -> &Files {
        &self.shared.files
    }

    /// Records that a call begins, with what is known of it already, if debug mode is on.
    pub fn begin(
        &self,
        snapshot: &Snapshot,
        request: &str,
        metrics: &CallMetrics,
        running: impl FnOnce() -> Running,
    ) -> Option<Recording> {
        if !snapshot.debug {
            return None;
        }
        let message_id = self.next_id();
        let time = Local::now();
        let request = Arc::<str>::from(request);
        let running = Arc::new(running());
        let dir = snapshot.settings.cache_dir.clone();
        if let Some(dir) = &dir {
            self.shared.files.save(DebugFile {
                dir: Arc::clone(dir),
                kind: Kind::Request,
                time,
                message_id,
                data: Arc::clone(&request),
                attempts: None,
                metrics: None,
                calls: None,
            });
        }
        let mut memory = self.shared.lock();
        memory.text_bytes += request.len();
        memory.push(Call {
            message_id,
            time,
            version: 0,
            metrics: metrics.clone(),
            waiting: None,
            state: State::Running(Arc::downgrade(&running)),
            dir: dir.clone(),
            refused: None,
            request: Some(request),
            ending: None,
            events: None,
        });
        memory.forget_old();
        drop(memory);
        Some(Recording { shared: Arc::clone(&self.shared), message_id, dir, running, has_ended: false })
    }

    /// Records, if debug mode is on, that a request was refused before it became a call: `asked` is its method and
    /// path. It leaves no file, but counts as refused.
    pub fn refused(
        &self,
        snapshot: &Snapshot,
        asked: &str,
        tool: String,
        dialect: &'static str,
        error: &ApiError,
    ) {
        if !snapshot.debug {
            return;
        }
        let time = Local::now();
        let refusal = Refusal {
            message_id: self.next_id().to_string(),
            time_ms: time.timestamp_millis(),
            asked: asked.to_owned(),
            tool,
            dialect: dialect.into(),
            status: error.status,
            error: error.json(),
        };
        let Some(call) = Call::refused(&refusal) else { return };
        let mut memory = self.shared.lock();
        let dir = snapshot.settings.cache_dir.as_ref();
        self.shared.roll_over(&mut memory, time, dir);
        memory.hours.count(time, Counts::refusal(), Some(&call.metrics));
        let since = &mut memory.today.since;
        since.counts.add(&Counts::refusal());
        if dir.is_some() {
            since.refusals.push(Arc::new(refusal));
            let too_many = since.refusals.len().saturating_sub(MAX_REFUSALS);
            since.refusals.drain(..too_many);
        }
        if let Some(dir) = dir {
            self.shared.files.save_count(dir, memory.today.clone());
        }
        memory.text_bytes += call.text_bytes();
        memory.push(call);
        memory.forget_refused();
        memory.forget_old();
    }

    fn next_id(&self) -> MessageId {
        MessageId(self.next_id.fetch_add(self.id_step, Ordering::Relaxed))
    }

    /// Cancels a call in flight. Returns whether there was one.
    pub fn cancel(&self, message_id: &str) -> bool {
        let memory = self.shared.lock();
        let call =
            MessageId::parse(message_id).and_then(|id| memory.recent.iter().find(|c| c.message_id == id));
        let running = call.and_then(Call::running);
        drop(memory);
        running.map(|running| (running.cancel)()).is_some()
    }

    /// Returns the outcome of the last call for which the upstream was asked, without those that were cancelled.
    pub fn last_outcome(&self) -> Option<Outcome> {
        let memory = self.shared.lock();
        memory.recent.iter().rev().find_map(|call| {
            let State::Ended { time, .. } = call.state else { return None };
            let CallMetrics { status, error_code, failed_tries, .. } = &call.metrics;
            let own =
                matches!(error_code.as_deref(), Some("missing_api_key" | "client_closed" | "cancelled"));
            let elsewhere =
                call.refused.is_some() || call.metrics.backup.is_some() || call.metrics.reused.is_some();
            (!own && !elsewhere).then(|| Outcome {
                ended: time.into(),
                status: *status,
                error_code: error_code.clone(),
                reason: failed_tries.last().map(|failed| failed.reason.clone()),
            })
        })
    }

    /// Answers `GET /debug/stats`.
    pub fn stats_json(&self, snapshot: &Snapshot) -> String {
        let mut memory = self.shared.lock();
        let now = Local::now();
        self.shared.roll_over(&mut memory, now, snapshot.settings.cache_dir.as_ref());
        let today = memory.today.clone();
        let running = memory.recent.iter().filter(|call| call.running().is_some()).count();
        let first_token_ms = memory.first_tokens.percentile(50);
        let last_hours = memory.hours.json(now);
        drop(memory); // nobody else waits for the disk
        json::text(&Stats {
            today: today.total(disk::PATIENCE).json(),
            running,
            first_token_ms,
            files_not_saved: self.shared.files.not_saved(),
            now: timestamp(now),
            now_ms: now.timestamp_millis(),
            utc_offset_minutes: now.offset().local_minus_utc() / 60,
            last_hours,
        })
    }

    /// Answers `GET /debug/days`: newest first.
    pub fn days_json(&self, snapshot: &Snapshot) -> String {
        let mut memory = self.shared.lock();
        let today = Local::now();
        let dir = snapshot.settings.cache_dir.clone();
        self.shared.roll_over(&mut memory, today, dir.as_ref());
        let (tally, known) = (memory.today.clone(), memory.days.clone());
        drop(memory);
        let today = today.date_naive();
        let dates = (1..MAX_DAYS).filter_map(move |ago| today.checked_sub_days(Days::new(ago)));
        let read = dir.and_then(|dir| {
            let dates = dates.clone();
            disk::read(disk::PATIENCE, move || {
                dates.filter_map(|date| DayCount::read(&dir, date)).collect::<Vec<_>>()
            })
        });
        let read = read.unwrap_or_default();
        let counts = |date: NaiveDate| {
            let day = read.iter().chain(&known).find(|day| day.date == date);
            (date, day.map_or(Counts::default(), |day| day.counts))
        };
        let days = std::iter::once((today, tally.total(disk::PATIENCE).counts)).chain(dates.map(counts));
        let days = days.map(|(date, counts)| Day { date: date_in_json(date), counts });
        json::text(&DaysList { days: days.collect() })
    }

    /// Answers `GET /debug/calls`: newest first; only what is new or has changed `since` a number that an earlier
    /// answer named.
    pub fn list_json(&self, snapshot: &Snapshot, since: Option<u64>) -> String {
        let mut memory = self.shared.lock();
        self.shared.roll_over(&mut memory, Local::now(), snapshot.settings.cache_dir.as_ref());
        let known = since.filter(|since| (memory.unknown_before..=memory.version).contains(since));
        let since = known.unwrap_or(0);
        let calls = memory.recent.iter().rev().filter(|call| call.version > since);
        let dropped = memory.dropped.iter().filter(|(version, _)| known.is_some() && *version > since);
        json::text(&CallsList {
            next: memory.version,
            whole: known.is_none(),
            calls: calls.map(Call::json).collect(),
            dropped: dropped.map(|(_, message_id)| *message_id).collect(),
        })
    }

    /// Answers `GET /debug/calls?find=`: the calls in whose prompt or answer these words stand.
    pub fn search_json(&self, words: &str) -> String {
        struct Searched {
            message_id: MessageId,
            texts: Vec<Arc<str>>,
            files: Vec<(Arc<Path>, Name)>,
        }
        let words = words.to_lowercase();
        let memory = self.shared.lock();
        let searched = memory.recent.iter().rev().map(|call| {
            let texts = call.request.iter().chain(call.ending.iter().map(Ending::data)).cloned().collect();
            let files =
                call.dir.iter().flat_map(|dir| call.names_of_missing().map(|name| (Arc::clone(dir), name)));
            Searched { message_id: call.message_id, texts, files: files.collect() }
        });
        let searched = searched.collect::<Vec<_>>();
        drop(memory);
        let mut found = HashSet::new();
        let mut elsewhere = Vec::new();
        for Searched { message_id, texts, files } in searched {
            if texts.iter().any(|text| search::finds(text, &words)) {
                found.insert(message_id);
            } else if !files.is_empty() {
                elsewhere.push((message_id, files));
            }
        }
        let mut complete = true;
        if !elsewhere.is_empty() {
            let in_files = disk::read(FILES_PATIENCE, move || {
                let (mut left, mut complete) = (MAX_SEARCHED_BYTES, true);
                let mut finds = |dir: &Path, name: &Name| {
                    let read = disk::read_file(&dir.join(name.to_string()), left);
                    complete &= !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidData);
                    let bytes = read.unwrap_or_default();
                    left -= bytes.len() as u64;
                    search::finds(&String::from_utf8_lossy(&bytes), &words)
                };
                elsewhere.retain(|(_, files)| files.iter().any(|(dir, name)| finds(dir, name)));
                (elsewhere, complete)
            });
            complete = in_files.as_ref().is_some_and(|(_, all)| *all);
            found.extend(in_files.into_iter().flat_map(|(found, _)| found).map(|(id, _)| id));
        }
        json::text(&Found { found: found.into_iter().collect(), complete })
    }

    /// Answers `GET /debug/calls/{message_id}`.
    pub fn call_json(&self, snapshot: &Snapshot, message_id: &str) -> Option<String> {
        let message_id = MessageId::parse(message_id)?;
        let memory = self.shared.lock();
        let known = memory.find(message_id).map(|call| (call.clone(), call.running()));
        drop(memory); // nobody else waits for the disk
        let Some((call, running)) = known else {
            let dir = snapshot.settings.cache_dir.clone()?;
            return disk::read(FILES_PATIENCE, move || old_call_json(&dir, message_id))?;
        };
        let names = call.names_of_missing().collect::<Vec<_>>();
        let missing = call.dir.clone().filter(|_| !names.is_empty());
        let read = missing.and_then(|dir| disk::read(FILES_PATIENCE, move || read_files(&dir, &names)));
        Some(call.opened_json(running.as_deref(), &read.unwrap_or_default()))
    }

    /// Reads the folder's calls at the start, if debug mode is on then.
    pub fn look_back(&self, snapshot: &Snapshot) {
        if snapshot.debug {
            let dir = snapshot.settings.cache_dir.as_ref();
            self.shared.roll_over(&mut self.shared.lock(), Local::now(), dir);
        }
    }
}

/// Returns the JSON of a call that isn't among the recent ones any more, from its files.
fn old_call_json(dir: &Path, message_id: MessageId) -> Option<String> {
    let names = history::names(dir).filter(|name| name.message_id == message_id).collect::<Vec<_>>();
    let ending = *names.iter().filter(|name| name.kind != Kind::Request).max()?;
    let past = history::read_metrics(dir, &ending)?;
    let request = names.iter().filter(|name| name.kind == Kind::Request).max().copied();
    let read = read_files(dir, &request.into_iter().chain([ending]).collect::<Vec<_>>());
    let begun = past.begun.or_else(|| request.map(|request| moment(request.time)));
    let call = Call::past(PastCall { begun, ..past }, dir.into());
    Some(call.opened_json(None, &read))
}

fn read_files(dir: &Path, names: &[Name]) -> FromFiles {
    let mut read = FromFiles::default();
    for name in names {
        let data = match history::read_data(dir, name) {
            Ok(data) => data.map(Arc::<str>::from),
            Err(bytes) => {
                let path = dir.join(name.to_string()).display().to_string();
                read.too_large.push(TooLarge { path, bytes });
                None
            }
        };
        match name.kind {
            Kind::Request => read.request = data,
            Kind::Response => read.ending = data.map(Ending::Response),
            Kind::Error => read.ending = data.map(Ending::Error),
        }
    }
    read
}

impl Shared {
    fn end(
        self: &Arc<Self>,
        message_id: MessageId,
        dir: Option<Arc<Path>>,
        metrics: CallMetrics,
        ending: Ending,
        events: Vec<u8>,
    ) {
        let time = Local::now();
        let (kind, data) = (ending.kind(), Arc::clone(ending.data()));
        let attempts = (!metrics.failed_tries.is_empty()).then(|| json::text(&metrics.tries_json()));
        let counts = Counts::of(kind, &metrics);
        let mut memory = self.lock();
        self.roll_over(&mut memory, time, dir.as_ref());
        memory.hours.count(time, counts, Some(&metrics));
        memory.note_first_token(counts, &metrics);
        let today = &mut memory.today.since;
        today.counts.add(&counts);
        if kind == Kind::Response {
            today.last_updated = Some(time);
        }
        let calls = Some(memory.today.clone());
        let begun_ms = memory.find(message_id).map_or(time, |call| call.time).timestamp_millis();
        let metrics_json = dir.as_ref().map(|_| metrics.file_json(begun_ms, time.timestamp_millis()));
        let more = memory.change(message_id, |call| {
            call.metrics = metrics;
            call.waiting = None;
            call.state = State::Ended { time, kind };
            call.ending = Some(ending);
            call.events = (!events.is_empty()).then(|| events.into());
            data.len() + call.events.as_ref().map_or(0, |events| events.len())
        });
        memory.text_bytes += more.unwrap_or(0);
        memory.forget_old();
        // Under the lock, so that the counts reach the file in their order.
        if let Some(dir) = dir {
            self.files.save(DebugFile {
                dir,
                kind,
                time,
                message_id,
                data,
                attempts,
                metrics: metrics_json,
                calls,
            });
        }
    }

    /// Begins a new day, or goes on from the count of a folder, if the day or the folder has changed.
    fn roll_over(self: &Arc<Self>, memory: &mut Memory, now: DateTime<Local>, dir: Option<&Arc<Path>>) {
        let Some(dir) = memory.roll_over(now, dir, &self.files) else {
            return;
        };
        let shared = Arc::clone(self);
        let earlier = Arc::clone(&memory.today.earlier);
        let look_back = move || {
            let past = history::read(&dir, now);
            let refusals = earlier.wait(FILES_PATIENCE).map(|count| count.refusals).unwrap_or_default();
            shared.lock().remember(past, &refusals, &dir, now);
        };
        // Without a thread the earlier calls aren't read.
        let _ = thread::Builder::new().name("history".into()).spawn(look_back);
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}
