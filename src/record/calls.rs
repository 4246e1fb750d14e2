//! Debug mode's memory: today's count, the recent calls, and what is handed to the writer thread for each of them.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Local, TimeDelta, Timelike};

use crate::error::ApiError;
use crate::json::quoted;
use crate::live::Snapshot;
use crate::record::day::Tally;
use crate::record::files::{DebugFile, Files};
use crate::record::history::{self, Past};
use crate::record::metrics::{CallMetrics, attempts_json};
use crate::record::names::{Kind, MessageId, Name, timestamp};

/// Calls that the panel can show.
const MAX_CALLS: usize = 1000;
/// Of these, so many may be refusals.
const MAX_REFUSED: usize = 100;
/// What they asked and were answered, together; of older ones only the figures are kept.
const MAX_TEXT_BYTES: usize = 32 << 20;

/// Of one stream, this much is kept as it came, beside the answer that it adds up to.
pub const MAX_EVENTS_BYTES: usize = 256 << 10;
/// Only of the newest calls: a stream is ten times as long as what it adds up to.
const MAX_CALLS_WITH_EVENTS: usize = 50;
/// Hours of which the calls are counted.
const MAX_HOURS: usize = 24;
/// How long whoever asks for the count waits for the disk.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// How a call ended, with the JSON that its second file holds as `data`.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With an answer.
    Response(Arc<str>),
    /// With an error: `{"error": …, "status": …}`.
    Error(Arc<str>),
}

#[derive(Debug)]
struct Call {
    message_id: MessageId,
    time: DateTime<Local>,
    /// `None` while the call is under way.
    metrics: Option<CallMetrics>,
    /// When it ended, and how its second file is called.
    ended: Option<(DateTime<Local>, Kind)>,
    /// Where its files are.
    dir: Option<Arc<Path>>,
    /// What was turned away: its method and path.
    refused: Option<Box<str>>,
    request: Option<Arc<str>>,
    ending: Option<Ending>,
    /// A stream as it came, or its beginning.
    events: Option<Box<str>>,
}

/// Calls of today and of this run.
#[derive(Debug)]
pub struct Calls {
    files: Files,
    memory: Arc<Mutex<Memory>>,
    next_id: AtomicU32,
    id_step: u32,
}

#[derive(Debug)]
struct Memory {
    today: Tally,
    /// The folder that `today` goes on from; `None` until the first look.
    counted_in: Option<Option<Arc<Path>>>,
    recent: VecDeque<Call>,
    text_bytes: usize,
    errors_today: u64,
    failed_tries_today: u64,
    /// Calls that weren't made.
    reused_today: u64,
    /// The newest last.
    hours: VecDeque<Hour>,
}

#[derive(Debug)]
struct Hour {
    begin: DateTime<Local>,
    ok: u64,
    errors: u64,
}

/// A call that is being recorded.
#[derive(Debug)]
pub struct Recording {
    message_id: MessageId,
    dir: Option<Arc<Path>>,
}

impl Calls {
    /// No calls yet.
    pub fn new(files: Files) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        let today = Tally::new(Local::now().date_naive());
        Self {
            files,
            memory: Arc::new(Mutex::new(Memory {
                today,
                counted_in: None,
                recent: VecDeque::new(),
                text_bytes: 0,
                errors_today: 0,
                failed_tries_today: 0,
                reused_today: 0,
                hours: VecDeque::new(),
            })),
            next_id: AtomicU32::new(random as u32),
            // An odd step visits all 2^32 numbers before one comes again.
            id_step: (random >> 32) as u32 | 1,
        }
    }

    /// Where the files go.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Records that a call begins, if debug mode is on.
    pub fn begin(&self, snapshot: &Snapshot, request: &str) -> Option<Recording> {
        if !snapshot.debug {
            return None;
        }
        let message_id = self.next_id();
        let time = Local::now();
        let request = Arc::<str>::from(request);
        let dir = snapshot.settings.cache_dir.clone();
        if let Some(dir) = &dir {
            self.files.save(DebugFile {
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
        let mut memory = self.lock();
        memory.text_bytes += request.len();
        memory.recent.push_back(Call {
            message_id,
            time,
            metrics: None,
            ended: None,
            dir: dir.clone(),
            refused: None,
            request: Some(request),
            ending: None,
            events: None,
        });
        memory.forget_old();
        Some(Recording { message_id, dir })
    }

    /// Records, if debug mode is on, that something was turned away before it became a call: `asked` is its method and
    /// path. It leaves no file, and isn't counted.
    pub fn refused(&self, snapshot: &Snapshot, asked: &str, dialect: &'static str, error: &ApiError) {
        if !snapshot.debug {
            return;
        }
        let metrics = CallMetrics {
            dialect: dialect.into(),
            status: error.status,
            error_code: Some(error.code.to_owned()),
            ..CallMetrics::default()
        };
        let ending = format!(r#"{{"error":{},"status":{}}}"#, error.object(), error.status);
        let mut memory = self.lock();
        memory.text_bytes += ending.len();
        memory.recent.push_back(Call {
            message_id: self.next_id(),
            time: Local::now(),
            metrics: Some(metrics),
            ended: None,
            dir: None,
            refused: Some(asked.into()),
            request: None,
            ending: Some(Ending::Error(ending.into())),
            events: None,
        });
        memory.forget_refused();
        memory.forget_old();
    }

    fn next_id(&self) -> MessageId {
        MessageId(self.next_id.fetch_add(self.id_step, Ordering::Relaxed))
    }

    /// Records how it ended.
    pub fn end(&self, recording: Recording, metrics: CallMetrics, ending: Ending, events: &[u8]) {
        let events = (!events.is_empty()).then(|| String::from_utf8_lossy(events).into());
        let Recording { message_id, dir } = recording;
        let time = Local::now();
        let attempts = (!metrics.failed_tries.is_empty()).then(|| attempts_json(&metrics));
        let (kind, data) = match &ending {
            Ending::Response(data) => (Kind::Response, Arc::clone(data)),
            Ending::Error(data) => (Kind::Error, Arc::clone(data)),
        };
        let figures_json = dir.as_ref().map(|_| format!("{{{}}}", metrics.json(true)));
        let mut memory = self.lock();
        self.turn_to(&mut memory, time, dir.as_ref());
        memory.reused_today += u64::from(metrics.reused.is_some());
        memory.failed_tries_today += metrics.failed_tries.len() as u64;
        let calls = match kind {
            Kind::Response => {
                memory.count_hour(time, true);
                memory.today.since += 1;
                memory.today.last_updated = Some(time);
                Some(memory.today.clone())
            }
            _ => {
                memory.count_hour(time, false);
                memory.errors_today += 1;
                None
            }
        };
        let mut newest_first = memory.recent.iter_mut().rev().enumerate();
        if let Some((age, call)) = newest_first.find(|(_, call)| call.message_id == message_id) {
            call.metrics = Some(metrics);
            call.ended = Some((time, kind));
            call.ending = Some(ending);
            call.events = events.filter(|_| age < MAX_CALLS_WITH_EVENTS);
            let more = data.len() + call.events.as_ref().map_or(0, |events| events.len());
            memory.text_bytes += more;
        }
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
                metrics: figures_json,
                calls,
            });
        }
    }

    /// `GET /debug/stats`.
    pub fn stats_json(&self, snapshot: &Snapshot) -> String {
        let mut memory = self.lock();
        let now = Local::now();
        self.turn_to(&mut memory, now, snapshot.settings.cache_dir.as_ref());
        let today = memory.today.clone();
        let (errors, failed_tries, reused) =
            (memory.errors_today, memory.failed_tries_today, memory.reused_today);
        let hours = memory.hours.iter().map(|hour| {
            let (begin, ms) = (quoted(&timestamp(hour.begin)), hour.begin.timestamp_millis());
            format!(r#"{{"begin": {begin}, "begin_ms": {ms}, "ok": {}, "errors": {}}}"#, hour.ok, hour.errors)
        });
        let hours = hours.collect::<Vec<_>>().join(", ");
        drop(memory); // nobody else waits for the disk
        format!(
            r#"{{{}, "errors": {errors}, "failed_tries": {failed_tries}, "reused": {reused}, "files_not_saved": {}, "now_ms": {}, "utc_offset_minutes": {}, "hours": [{hours}]}}"#,
            today.total(DISK_PATIENCE).fields(),
            self.files.not_saved(),
            now.timestamp_millis(),
            now.offset().local_minus_utc() / 60
        )
    }

    /// `GET /debug/calls`: newest first.
    pub fn list_json(&self, snapshot: &Snapshot) -> String {
        let mut memory = self.lock();
        self.turn_to(&mut memory, Local::now(), snapshot.settings.cache_dir.as_ref());
        let mut list = String::with_capacity(64 + memory.recent.len() * 256);
        list.push_str(r#"{"calls":["#);
        for (index, call) in memory.recent.iter().rev().enumerate() {
            list.push_str(if index == 0 { "{" } else { ",{" });
            call.push_fields(&mut list);
            list.push('}');
        }
        list.push_str("]}");
        list
    }

    /// `GET /debug/calls/{message_id}`.
    pub fn call_json(&self, message_id: &str) -> Option<String> {
        let message_id = MessageId::parse(message_id)?;
        let memory = self.lock();
        let call = memory.recent.iter().find(|call| call.message_id == message_id)?;
        let mut json = String::from("{");
        call.push_fields(&mut json);
        let (mut request, mut ending) = (call.request.clone(), call.ending.clone());
        let events = call.events.as_deref().map(quoted);
        let (begun, ended, dir) = (call.time, call.ended, call.dir.clone());
        drop(memory); // nobody else waits for the disk
        // What doesn't fit in memory is in the files.
        if let Some(dir) = dir {
            let data = |time, kind| history::read_data(&dir, &Name { time, kind, message_id });
            if request.is_none() {
                request = data(begun, Kind::Request).map(Arc::from);
            }
            if let (None, Some((time, kind))) = (&ending, ended) {
                let data = data(time, kind).map(Arc::from);
                ending = data.map(if kind == Kind::Response { Ending::Response } else { Ending::Error });
            }
        }
        let _ = write!(json, r#","request":{}"#, request.as_deref().unwrap_or("null"));
        match ending {
            Some(Ending::Response(data)) => {
                let _ = write!(json, r#","response":{data}"#);
            }
            Some(Ending::Error(data)) => {
                let error = crate::json::fields(&data).unwrap_or_default();
                for field in error.iter().filter(|field| field.name != "status") {
                    let _ = write!(json, ",{}:{}", field.raw_name, field.value);
                }
            }
            None => {}
        }
        if let Some(events) = events {
            let _ = write!(json, r#","events":{events}"#);
        }
        json.push('}');
        Some(json)
    }

    /// Looks into the folder at the start, if debug mode is on then.
    pub fn look_back(&self, snapshot: &Snapshot) {
        if snapshot.debug {
            self.turn_to(&mut self.lock(), Local::now(), snapshot.settings.cache_dir.as_ref());
        }
    }

    /// Begins a new day, or goes on with what a folder knows, where one of them is new.
    fn turn_to(&self, memory: &mut Memory, now: DateTime<Local>, dir: Option<&Arc<Path>>) {
        let Some(dir) = memory.turn_to(now, dir, &self.files) else {
            return;
        };
        let memory = Arc::clone(&self.memory);
        let look_back = move || {
            let past = history::read(&dir, now, MAX_CALLS);
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.remember(past, &dir, now);
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
        let new_day = self.today.date != date;
        if new_day {
            self.errors_today = 0;
            self.failed_tries_today = 0;
            self.reused_today = 0;
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

    /// Counts a call in the hour in which it ended.
    fn count_hour(&mut self, time: DateTime<Local>, ok: bool) {
        let seconds = i64::from(time.minute()) * 60 + i64::from(time.second());
        let begin = time - TimeDelta::seconds(seconds) - TimeDelta::nanoseconds(time.nanosecond().into());
        // Nearly always the last one.
        let at = self.hours.iter().rposition(|hour| hour.begin <= begin);
        let hour = match at {
            Some(at) if self.hours[at].begin == begin => &mut self.hours[at],
            _ => {
                let at = at.map_or(0, |at| at + 1);
                self.hours.insert(at, Hour { begin, ok: 0, errors: 0 });
                &mut self.hours[at]
            }
        };
        if ok {
            hour.ok += 1
        } else {
            hour.errors += 1
        }
        if self.hours.len() > MAX_HOURS {
            self.hours.pop_front();
        }
    }

    /// Takes in what a folder knew of before `now`.
    fn remember(&mut self, past: Past, dir: &Arc<Path>, now: DateTime<Local>) {
        if self.today.date == now.date_naive() {
            for (time, ok) in past.today {
                self.count_hour(time, ok);
                self.errors_today += u64::from(!ok);
            }
        }
        let known = self.recent.iter().map(|call| call.message_id.0).collect::<HashSet<_>>();
        let unknown = past.calls.into_iter().filter(|call| !known.contains(&call.message_id.0));
        for call in unknown {
            if call.ended.0.date_naive() == self.today.date {
                self.reused_today += u64::from(call.metrics.reused.is_some());
                self.failed_tries_today += call.metrics.failed_tries.len() as u64;
            }
            self.recent.push_back(Call {
                message_id: call.message_id,
                time: call.begun,
                metrics: Some(call.metrics),
                ended: Some(call.ended),
                dir: Some(Arc::clone(dir)),
                refused: None,
                request: None,
                ending: None,
                events: None,
            });
        }
        self.recent.make_contiguous().sort_by_key(|call| call.time);
        self.forget_old();
    }

    /// However many are turned away, calls remain to be seen.
    fn forget_refused(&mut self) {
        let refused = |call: &Call| call.refused.is_some();
        if self.recent.iter().filter(|call| refused(call)).count() > MAX_REFUSED
            && let Some(oldest) = self.recent.iter().position(refused)
            && let Some(call) = self.recent.remove(oldest)
        {
            self.text_bytes -= call.text_bytes();
        }
    }

    fn forget_old(&mut self) {
        while self.recent.len() > MAX_CALLS {
            if let Some(call) = self.recent.pop_front() {
                self.text_bytes -= call.text_bytes();
            }
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
    fn text_bytes(&self) -> usize {
        let ending = self.ending.as_ref().map_or(0, |ending| match ending {
            Ending::Response(data) | Ending::Error(data) => data.len(),
        });
        let events = self.events.as_ref().map_or(0, |events| events.len());
        self.request.as_ref().map_or(0, |r| r.len()) + ending + events
    }

    fn push_fields(&self, json: &mut String) {
        let none = CallMetrics::default();
        let (ended, metrics) = (self.metrics.is_some(), self.metrics.as_ref().unwrap_or(&none));
        let refused = self.refused.as_deref().map_or("null".into(), quoted);
        let _ = write!(
            json,
            r#""message_id":"{}","timestamp":{},"time_ms":{},"refused":{refused},{},"attempts":{},"tries":{}"#,
            self.message_id,
            quoted(&timestamp(self.time)),
            self.time.timestamp_millis(),
            metrics.json(ended),
            metrics.failed_tries.len() + 1,
            attempts_json(metrics)
        );
    }
}
