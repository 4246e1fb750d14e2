//! Debug mode's memory: today's figures, the recent calls, and what is handed to the writer thread for each of them.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Days, Local, NaiveDate, TimeDelta};
use serde_json::Value;

use crate::dialect::sse::Events;
use crate::dialect::{Dialect, Needs};
use crate::error::ApiError;
use crate::json::quoted;
use crate::live::Snapshot;
use crate::record::changes::changes_json;
use crate::record::day::{DayCount, Figures, MAX_REFUSALS, Tally};
use crate::record::disk;
use crate::record::files::{DebugFile, Files};
use crate::record::history::{self, Past, PastCall};
use crate::record::metrics::{CallMetrics, attempts_json, unix_ms};
use crate::record::names::{Kind, MessageId, Name, moment, timestamp};
use crate::record::search;
use crate::record::statistics::{Hours, Times};

/// Calls that the panel can show.
const MAX_CALLS: usize = 1000;
/// What they asked and were answered, together; of older ones only the figures are kept.
const MAX_TEXT_BYTES: usize = 32 << 20;
/// Of one stream, this much is kept as it came, beside the answer that it adds up to.
const MAX_EVENTS_BYTES: usize = 256 << 10;
/// Only of the newest calls: a stream is ten times as long as what it adds up to.
const MAX_CALLS_WITH_EVENTS: usize = 50;
/// Calls that went are told to those who ask what is new, so many of them.
const MAX_DROPPED: usize = 2 * MAX_CALLS;
/// Days that `/debug/days` tells, today among them.
const MAX_DAYS: u64 = 30;
/// How long whoever opens a call waits for its files, and whoever looks for words.
const FILES_PATIENCE: Duration = Duration::from_secs(10);
/// What is read of files where words are looked for.
const MAX_SEARCHED_BYTES: u64 = 256 << 20;

/// How a call ended, with the JSON that its second file holds as `data`.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With an answer.
    Response(Arc<str>),
    /// With an error: `{"error": …, "status": …}`.
    Error(Arc<str>),
}

impl Ending {
    fn kind(&self) -> Kind {
        match self {
            Self::Response(_) => Kind::Response,
            Self::Error(_) => Kind::Error,
        }
    }

    fn data(&self) -> &Arc<str> {
        match self {
            Self::Response(data) | Self::Error(data) => data,
        }
    }
}

/// What a call under way waits for, beside an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The end of the account's limit, where it is known.
    Limit(Option<SystemTime>),
    /// A place among the `WORKERS`.
    Place,
    /// A pause before the next try, which is over then.
    Pause(SystemTime),
    /// The answer of another call, which was asked the same.
    Another,
}

impl Waiting {
    fn json(self) -> String {
        let (reason, until) = match self {
            Self::Limit(until) => ("limit", until),
            Self::Place => ("place", None),
            Self::Pause(until) => ("pause", Some(until)),
            Self::Another => ("another", None),
        };
        let until = until.map(|until| {
            let text = quoted(&timestamp(until.into()));
            format!(r#","until":{text},"until_ms":{}"#, unix_ms(until))
        });
        format!(r#"{{"for":"{reason}"{}}}"#, until.unwrap_or_default())
    }
}

/// A call under way, as far as it isn't told by its figures.
pub struct Running {
    /// The API that the upstream is asked in.
    native: &'static dyn Dialect,
    cancel: Box<dyn Fn() + Send + Sync>,
    /// A stream as it comes, or its beginning.
    events: Mutex<Vec<u8>>,
}

impl Running {
    /// A call whose answer comes in this API, and how it is cancelled.
    pub fn new(native: &'static dyn Dialect, cancel: impl Fn() + Send + Sync + 'static) -> Self {
        Self { native, cancel: Box::new(cancel), events: Mutex::default() }
    }

    fn events(&self) -> MutexGuard<'_, Vec<u8>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come of the answer so far, put together.
    fn answer_so_far(&self) -> Option<String> {
        let events = self.events().clone();
        let mut reader = self.native.reader(true, Needs::default());
        Events::default().feed(&events, |data| reader.read(data));
        reader.answer().map(|answer| answer.to_string())
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({} bytes)", self.events().len())
    }
}

#[derive(Debug)]
struct Call {
    message_id: MessageId,
    time: DateTime<Local>,
    /// When it was last changed, in the order of all changes.
    version: u64,
    metrics: CallMetrics,
    waiting: Option<Waiting>,
    state: State,
    /// Where its files are.
    dir: Option<Arc<Path>>,
    /// What was turned away: its method and path.
    refused: Option<Box<str>>,
    request: Option<Arc<str>>,
    ending: Option<Ending>,
    /// A stream as it came, or its beginning.
    events: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum State {
    Running(Weak<Running>),
    Ended { time: DateTime<Local>, kind: Kind },
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// When.
    pub ended: SystemTime,
    /// HTTP status.
    pub status: u16,
    /// `code` of its error.
    pub error_code: Option<String>,
    /// Why the last try before the end failed.
    pub reason: Option<String>,
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

#[derive(Debug)]
struct Memory {
    today: Tally,
    /// Times to the first token, of today.
    first_tokens: Times,
    /// Days that are over, the newest last; where there is no folder that knows of them.
    days: VecDeque<DayCount>,
    /// The folder that `today` goes on from; `None` until the first look.
    counted_in: Option<Option<Arc<Path>>>,
    recent: VecDeque<Call>,
    text_bytes: usize,
    hours: Hours,
    /// The last change. Greater than any of an earlier run.
    version: u64,
    /// Those of earlier runs, and those before which it isn't known any more what was dropped.
    unknown_before: u64,
    /// Calls that are no longer among the recent ones, each with the change that this was.
    dropped: VecDeque<(u64, MessageId)>,
}

/// A call that is being recorded. Dropped before its end, it has ended with a fault of ours.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    message_id: MessageId,
    dir: Option<Arc<Path>>,
    running: Arc<Running>,
    has_ended: bool,
}

impl Recording {
    /// What is known of the call now.
    pub fn update(&self, metrics: &CallMetrics, waiting: Option<Waiting>) {
        self.shared.lock().change(self.message_id, |call| {
            call.metrics.clone_from(metrics);
            call.waiting = waiting;
        });
    }

    /// More of the answer's events has come.
    pub fn push_events(&self, piece: &[u8]) {
        let mut events = self.running.events();
        let room = MAX_EVENTS_BYTES - events.len();
        events.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// Another answer begins.
    pub fn clear_events(&self) {
        self.running.events().clear();
    }

    /// It has ended so.
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
            let ending = format!(r#"{{"error":{},"status":{}}}"#, error.object(), error.status);
            self.shared.end(
                self.message_id,
                self.dir.take(),
                metrics,
                Ending::Error(ending.into()),
                Vec::new(),
            );
        }
    }
}

impl Calls {
    /// No calls yet.
    pub fn new(files: Files) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        let version = unix_ms(SystemTime::now()) as u64;
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

    /// Where the files go.
    pub fn files(&self) -> &Files {
        &self.shared.files
    }

    /// Records that a call begins, if debug mode is on; with what is known of it already.
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

    /// Records, if debug mode is on, that something was turned away before it became a call: `asked` is its method and
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
        let metrics = CallMetrics {
            tool,
            dialect: dialect.into(),
            status: error.status,
            error_code: Some(error.code.to_owned()),
            ..CallMetrics::default()
        };
        let ending = format!(r#"{{"error":{},"status":{}}}"#, error.object(), error.status);
        let call = Call::refused(self.next_id(), time, asked, metrics, Some(ending));
        let mut memory = self.shared.lock();
        let dir = snapshot.settings.cache_dir.as_ref();
        self.shared.turn_to(&mut memory, time, dir);
        memory.hours.count(time, Figures::refusal(), Some(&call.metrics));
        let since = &mut memory.today.since;
        since.figures.add(&Figures::refusal());
        if dir.is_some() {
            since.refusals.push(call.refusal_json(error).into());
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

    /// Cancels a call that is under way. Whether it was.
    pub fn cancel(&self, message_id: &str) -> bool {
        let memory = self.shared.lock();
        let call =
            MessageId::parse(message_id).and_then(|id| memory.recent.iter().find(|c| c.message_id == id));
        let running = call.and_then(Call::running);
        drop(memory);
        running.map(|running| (running.cancel)()).is_some()
    }

    /// How the last call ended that the upstream was asked for.
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

    /// `GET /debug/stats`.
    pub fn stats_json(&self, snapshot: &Snapshot) -> String {
        let mut memory = self.shared.lock();
        let now = Local::now();
        self.shared.turn_to(&mut memory, now, snapshot.settings.cache_dir.as_ref());
        let today = memory.today.clone();
        let running = memory.recent.iter().filter(|call| call.running().is_some()).count();
        let first_token = memory.first_tokens.percentile(50);
        let hours = memory.hours.fields(now);
        drop(memory); // nobody else waits for the disk
        format!(
            r#"{{{}, "running": {running}, "first_token_ms": {first_token}, "files_not_saved": {}, "now": {}, "now_ms": {}, "utc_offset_minutes": {}, {hours}}}"#,
            today.total(disk::PATIENCE).fields(),
            self.shared.files.not_saved(),
            quoted(&timestamp(now)),
            now.timestamp_millis(),
            now.offset().local_minus_utc() / 60
        )
    }

    /// `GET /debug/days`: newest first.
    pub fn days_json(&self, snapshot: &Snapshot) -> String {
        let mut memory = self.shared.lock();
        let today = Local::now();
        let dir = snapshot.settings.cache_dir.clone();
        self.shared.turn_to(&mut memory, today, dir.as_ref());
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
        let figures = |date: NaiveDate| {
            let day = read.iter().chain(&known).find(|day| day.date == date);
            (date, day.map_or(Figures::default(), |day| day.figures))
        };
        let days = std::iter::once((today, tally.total(disk::PATIENCE).figures)).chain(dates.map(figures));
        let days = days.map(|(date, figures)| {
            format!(r#"{{"date": "{}", {}}}"#, date.format("%Y%m%d"), figures.fields())
        });
        format!(r#"{{"days": [{}]}}"#, days.collect::<Vec<_>>().join(", "))
    }

    /// `GET /debug/calls`: newest first; only what is new or has changed `since` a number that an earlier answer named.
    pub fn list_json(&self, snapshot: &Snapshot, since: Option<u64>) -> String {
        let mut memory = self.shared.lock();
        self.shared.turn_to(&mut memory, Local::now(), snapshot.settings.cache_dir.as_ref());
        let known = since.filter(|since| (memory.unknown_before..=memory.version).contains(since));
        let mut list = String::with_capacity(4096);
        let _ = write!(list, r#"{{"next":{},"whole":{},"calls":["#, memory.version, known.is_none());
        let since = known.unwrap_or(0);
        let mut separator = "";
        for call in memory.recent.iter().rev().filter(|call| call.version > since) {
            list.push_str(separator);
            list.push('{');
            call.push_fields(&mut list);
            list.push('}');
            separator = ",";
        }
        let dropped = memory.dropped.iter().filter(|(version, _)| known.is_some() && *version > since);
        let dropped = dropped.map(|(_, message_id)| format!(r#""{message_id}""#));
        let _ = write!(list, r#"],"dropped":[{}]}}"#, dropped.collect::<Vec<_>>().join(","));
        list
    }

    /// `GET /debug/calls?find=`: those in whose prompt or answer these words stand.
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
        let found = found.iter().map(|id| format!(r#""{id}""#)).collect::<Vec<_>>().join(",");
        format!(r#"{{"found":[{found}],"complete":{complete}}}"#)
    }

    /// `GET /debug/calls/{message_id}`.
    pub fn call_json(&self, snapshot: &Snapshot, message_id: &str) -> Option<String> {
        let message_id = MessageId::parse(message_id)?;
        let memory = self.shared.lock();
        let Some(call) = memory.recent.iter().find(|call| call.message_id == message_id) else {
            drop(memory);
            let dir = snapshot.settings.cache_dir.clone()?;
            return disk::read(FILES_PATIENCE, move || old_call_json(&dir, message_id))?;
        };
        let mut json = String::from("{");
        call.push_fields(&mut json);
        let _ = write!(json, r#","changes":{}"#, changes_json(&call.metrics.changes));
        let (mut request, mut ending) = (call.request.clone(), call.ending.clone());
        let running = call.running();
        let events = call.events.clone();
        let (dir, names) = (call.dir.clone(), call.names_of_missing().collect::<Vec<_>>());
        drop(memory); // nobody else waits for the disk
        if let Some(running) = running {
            let events = running.events().clone();
            push_events(&mut json, &events);
            if let Some(partial) = running.answer_so_far() {
                let _ = write!(json, r#","partial":{partial}"#);
            }
        }
        // What doesn't fit in memory is in the files.
        if let Some(dir) = dir.filter(|_| !names.is_empty()) {
            let read = disk::read(FILES_PATIENCE, move || read_missing(&dir, &names)).unwrap_or_default();
            request = request.or(read.request);
            ending = ending.or(read.ending);
            push_too_large(&mut json, &read.too_large);
        }
        push_bodies(&mut json, request.as_deref(), ending.as_ref());
        push_events(&mut json, events.as_deref().unwrap_or_default());
        json.push('}');
        Some(json)
    }

    /// Looks into the folder at the start, if debug mode is on then.
    pub fn look_back(&self, snapshot: &Snapshot) {
        if snapshot.debug {
            let dir = snapshot.settings.cache_dir.as_ref();
            self.shared.turn_to(&mut self.shared.lock(), Local::now(), dir);
        }
    }
}

/// A call that isn't among the recent ones any more, from its files.
fn old_call_json(dir: &Path, message_id: MessageId) -> Option<String> {
    let names = history::names(dir).filter(|name| name.message_id == message_id).collect::<Vec<_>>();
    let ending = *names.iter().filter(|name| name.kind != Kind::Request).max()?;
    let past = history::read_figures(dir, &ending)?;
    let request = names.iter().filter(|name| name.kind == Kind::Request).max().copied();
    let read = read_missing(dir, &request.into_iter().chain([ending]).collect::<Vec<_>>());
    let begun = past.begun.or_else(|| request.map(|request| moment(request.time)));
    let call = Call::past(PastCall { begun, ..past }, dir.into());
    let mut json = String::from("{");
    call.push_fields(&mut json);
    let _ = write!(json, r#","changes":{}"#, changes_json(&call.metrics.changes));
    push_too_large(&mut json, &read.too_large);
    push_bodies(&mut json, read.request.as_deref(), read.ending.as_ref());
    json.push('}');
    Some(json)
}

#[derive(Default)]
struct Read {
    request: Option<Arc<str>>,
    ending: Option<Ending>,
    /// Files that are too large to be opened here, with their lengths.
    too_large: Vec<(String, u64)>,
}

fn read_missing(dir: &Path, names: &[Name]) -> Read {
    let mut read = Read::default();
    for name in names {
        let data = match history::read_data(dir, name) {
            Ok(data) => data.map(Arc::<str>::from),
            Err(length) => {
                read.too_large.push((dir.join(name.to_string()).display().to_string(), length));
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

fn push_too_large(json: &mut String, files: &[(String, u64)]) {
    if files.is_empty() {
        return;
    }
    let files = files.iter().map(|(path, bytes)| format!(r#"{{"path":{},"bytes":{bytes}}}"#, quoted(path)));
    let _ = write!(json, r#","too_large":[{}]"#, files.collect::<Vec<_>>().join(","));
}

fn push_bodies(json: &mut String, request: Option<&str>, ending: Option<&Ending>) {
    let _ = write!(json, r#","request":{}"#, request.unwrap_or("null"));
    match ending {
        Some(Ending::Response(data)) => {
            let _ = write!(json, r#","response":{data}"#);
        }
        Some(Ending::Error(data)) => {
            let error = crate::json::fields(data).unwrap_or_default();
            for field in error.iter().filter(|field| field.name != "status") {
                let _ = write!(json, ",{}:{}", field.raw_name, field.value);
            }
        }
        None => {}
    }
}

fn push_events(json: &mut String, events: &[u8]) {
    if !events.is_empty() {
        let _ = write!(json, r#","events":{}"#, quoted(&String::from_utf8_lossy(events)));
    }
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
        let attempts = (!metrics.failed_tries.is_empty()).then(|| attempts_json(&metrics));
        let figures = Figures::of(kind, &metrics);
        let mut memory = self.lock();
        self.turn_to(&mut memory, time, dir.as_ref());
        memory.hours.count(time, figures, Some(&metrics));
        memory.note_first_token(figures, &metrics);
        let today = &mut memory.today.since;
        today.figures.add(&figures);
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

    /// Begins a new day, or goes on with what a folder knows, where one of them is new.
    fn turn_to(self: &Arc<Self>, memory: &mut Memory, now: DateTime<Local>, dir: Option<&Arc<Path>>) {
        let Some(dir) = memory.turn_to(now, dir, &self.files) else {
            return;
        };
        let shared = Arc::clone(self);
        let earlier = Arc::clone(&memory.today.earlier);
        let look_back = move || {
            let past = history::read(&dir, now);
            let refusals = earlier.wait(FILES_PATIENCE).map(|count| count.refusals).unwrap_or_default();
            shared.lock().remember(past, &refusals, &dir, now);
        };
        // Without a thread the past stays where it is.
        let _ = thread::Builder::new().name("history".into()).spawn(look_back);
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Begins a new day, or a new folder's count, where one has begun. A folder that wasn't looked at before.
    fn turn_to(&mut self, now: DateTime<Local>, dir: Option<&Arc<Path>>, files: &Files) -> Option<Arc<Path>> {
        let date = now.date_naive();
        let new_day = self.today.since.date != date;
        if new_day {
            self.first_tokens = Times::default();
            self.days.push_back(self.today.total(Duration::ZERO));
            if self.days.len() as u64 >= MAX_DAYS {
                self.days.pop_front();
            }
        }
        let same_folder = self.counted_in.as_ref().is_some_and(|counted| counted.as_ref() == dir);
        if same_folder && !new_day {
            return None;
        }
        // A folder that wasn't looked at before may know of calls of an earlier run.
        match dir {
            Some(dir) => self.today = Tally { earlier: files.count(dir, date), ..Tally::new(date) },
            None if new_day => self.today = Tally::new(date),
            None => {}
        }
        self.counted_in = Some(dir.cloned());
        dir.filter(|_| !same_folder).cloned()
    }

    fn note_first_token(&mut self, figures: Figures, metrics: &CallMetrics) {
        if let Some(first) = metrics.first_token.filter(|_| figures.answered > 0 && figures.reused == 0) {
            self.first_tokens.push(first.as_millis() as u32);
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn push(&mut self, mut call: Call) {
        call.version = self.next_version();
        self.recent.push_back(call);
    }

    fn find(&self, message_id: MessageId) -> Option<&Call> {
        self.recent.iter().rev().find(|call| call.message_id == message_id)
    }

    /// Changes a call that is still there.
    fn change<T>(&mut self, message_id: MessageId, change: impl FnOnce(&mut Call) -> T) -> Option<T> {
        let version = self.next_version();
        let call = self.recent.iter_mut().rev().find(|call| call.message_id == message_id)?;
        call.version = version;
        Some(change(call))
    }

    /// Takes in what a folder knew of before `now`.
    fn remember(&mut self, past: Past, refusals: &[Arc<str>], dir: &Arc<Path>, now: DateTime<Local>) {
        let known = self.recent.iter().map(|call| call.message_id).collect::<HashSet<_>>();
        let today = now.date_naive();
        for name in past.older {
            self.hours.count(moment(name.time), Figures::of_kind(name.kind), None);
        }
        let mut calls = Vec::new();
        for call in past.calls.into_iter().filter(|call| !known.contains(&call.ending.message_id)) {
            let figures = Figures::of(call.ending.kind, &call.metrics);
            if now - call.ended < TimeDelta::hours(25) {
                self.hours.count(call.ended, figures, Some(&call.metrics));
            }
            if call.ended.date_naive() == today && self.today.since.date == today {
                self.note_first_token(figures, &call.metrics);
            }
            calls.push(Call::past(call, Arc::clone(dir)));
        }
        for refusal in refusals {
            let refusal = serde_json::from_str::<Value>(refusal).ok().and_then(|r| Call::read_refusal(&r));
            if let Some(call) = refusal.filter(|call| !known.contains(&call.message_id)) {
                self.hours.count(call.time, Figures::refusal(), Some(&call.metrics));
                self.text_bytes += call.text_bytes();
                calls.push(call);
            }
        }
        calls.sort_by_key(|call| call.time);
        let older = calls.len().saturating_sub(MAX_CALLS);
        calls.drain(..older);
        calls.into_iter().for_each(|call| self.push(call));
        self.recent.make_contiguous().sort_by_key(|call| call.time);
        self.forget_old();
    }

    /// However many are turned away, calls remain to be seen.
    fn forget_refused(&mut self) {
        let refused = |call: &Call| call.refused.is_some();
        if self.recent.iter().filter(|call| refused(call)).count() > MAX_REFUSALS
            && let Some(oldest) = self.recent.iter().position(refused)
        {
            self.drop_call(oldest);
        }
    }

    fn drop_call(&mut self, at: usize) {
        if let Some(call) = self.recent.remove(at) {
            self.text_bytes -= call.text_bytes();
            let version = self.next_version();
            self.dropped.push_back((version, call.message_id));
        }
        if self.dropped.len() > MAX_DROPPED
            && let Some((version, _)) = self.dropped.pop_front()
        {
            self.unknown_before = version;
        }
    }

    fn forget_old(&mut self) {
        while self.recent.len() > MAX_CALLS {
            self.drop_call(0);
        }
        if let Some(call) = self.recent.iter_mut().rev().nth(MAX_CALLS_WITH_EVENTS)
            && let Some(events) = call.events.take()
        {
            self.text_bytes -= events.len();
        }
        for call in &mut self.recent {
            if self.text_bytes <= MAX_TEXT_BYTES {
                return;
            }
            self.text_bytes -= call.text_bytes();
            call.request = None;
            call.ending = None;
            call.events = None;
        }
    }
}

impl Call {
    /// One that has ended before this run, or so long ago that only its files know of it.
    fn past(call: PastCall, dir: Arc<Path>) -> Self {
        Self {
            message_id: call.ending.message_id,
            time: call.begun.unwrap_or(call.ended),
            version: 0,
            metrics: call.metrics,
            waiting: None,
            state: State::Ended { time: call.ended, kind: call.ending.kind },
            dir: Some(dir),
            refused: None,
            request: None,
            ending: None,
            events: None,
        }
    }

    fn refused(
        message_id: MessageId,
        time: DateTime<Local>,
        asked: &str,
        metrics: CallMetrics,
        ending: Option<String>,
    ) -> Self {
        Self {
            message_id,
            time,
            version: 0,
            metrics,
            waiting: None,
            state: State::Ended { time, kind: Kind::Error },
            dir: None,
            refused: Some(asked.into()),
            request: None,
            ending: ending.map(|ending| Ending::Error(ending.into())),
            events: None,
        }
    }

    /// What the day's count says of one that was turned away.
    fn refusal_json(&self, error: &ApiError) -> String {
        format!(
            r#"{{"message_id": "{}", "time_ms": {}, "asked": {}, "tool": {}, "dialect": {}, "status": {}, "error": {}}}"#,
            self.message_id,
            self.time.timestamp_millis(),
            quoted(self.refused.as_deref().unwrap_or_default()),
            quoted(&self.metrics.tool),
            quoted(&self.metrics.dialect),
            error.status,
            error.object()
        )
    }

    fn read_refusal(refusal: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let time = DateTime::from_timestamp_millis(refusal["time_ms"].as_i64()?)?.with_timezone(&Local);
        let status = refusal["status"].as_u64()?;
        let metrics = CallMetrics {
            tool: text(&refusal["tool"]).unwrap_or_default(),
            dialect: text(&refusal["dialect"]).unwrap_or_default().into(),
            status: status as u16,
            error_code: text(&refusal["error"]["code"]),
            ..CallMetrics::default()
        };
        let ending = format!(r#"{{"error":{},"status":{status}}}"#, refusal["error"]);
        let message_id = MessageId::parse(refusal["message_id"].as_str()?)?;
        Some(Self::refused(message_id, time, refusal["asked"].as_str()?, metrics, Some(ending)))
    }

    fn running(&self) -> Option<Arc<Running>> {
        match &self.state {
            State::Running(running) => running.upgrade(),
            State::Ended { .. } => None,
        }
    }

    /// The files of what memory doesn't hold.
    fn names_of_missing(&self) -> impl Iterator<Item = Name> {
        let name = |time: DateTime<Local>, kind| Name {
            time: time.naive_local(),
            kind,
            message_id: self.message_id,
        };
        let ending = match self.state {
            State::Ended { time, kind } if self.ending.is_none() => Some(name(time, kind)),
            _ => None,
        };
        let has_files = self.dir.is_some();
        let request = self.request.is_none().then(|| name(self.time, Kind::Request));
        [request, ending].into_iter().flatten().filter(move |_| has_files)
    }

    fn text_bytes(&self) -> usize {
        let ending = self.ending.as_ref().map_or(0, |ending| ending.data().len());
        let events = self.events.as_ref().map_or(0, |events| events.len());
        self.request.as_ref().map_or(0, |r| r.len()) + ending + events
    }

    fn push_fields(&self, json: &mut String) {
        let metrics = &self.metrics;
        let ended = match self.state {
            State::Ended { time, .. } => Some(time),
            State::Running(_) => None,
        };
        let refused = self.refused.as_deref().map_or("null".into(), quoted);
        let ended_ms = ended.map_or("null".into(), |time| time.timestamp_millis().to_string());
        let waiting = self.waiting.map_or("null".into(), Waiting::json);
        let _ = write!(
            json,
            r#""message_id":"{}","timestamp":{},"time_ms":{},"ended_ms":{ended_ms},"refused":{refused},"waiting":{waiting},{},"attempts":{},"tries":{}"#,
            self.message_id,
            quoted(&timestamp(self.time)),
            self.time.timestamp_millis(),
            metrics.json(ended.is_some()),
            metrics.failed_tries.len() + 1,
            attempts_json(metrics)
        );
    }
}
