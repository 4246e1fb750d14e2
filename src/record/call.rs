//! One call as the panel shows it: its figures, the request and the answer, and what it waits for while it is in
//! flight.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::SystemTime;

use chrono::{DateTime, Local};
use serde_json::Value;

use crate::dialect::sse::Events;
use crate::dialect::{Dialect, Needs};
use crate::error::ApiError;
use crate::json::quoted;
use crate::record::history::PastCall;
use crate::record::metrics::{CallMetrics, attempts_json, unix_ms};
use crate::record::names::{Kind, MessageId, Name, timestamp};
use crate::sync::lock;

/// How a call ended, with the JSON that its second file holds as `data`.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With an answer.
    Response(Arc<str>),
    /// With an error: `{"error": …, "status": …}`.
    Error(Arc<str>),
}

impl Ending {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Response(_) => Kind::Response,
            Self::Error(_) => Kind::Error,
        }
    }

    pub(super) fn data(&self) -> &Arc<str> {
        match self {
            Self::Response(data) | Self::Error(data) => data,
        }
    }
}

/// What a call in flight waits for, other than its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The end of the account's limit, where it is known.
    Limit(Option<SystemTime>),
    /// A slot among the `WORKERS`.
    Place,
    /// A pause before the next attempt, which is over then.
    Pause(SystemTime),
    /// The answer of another call with the same request.
    Another,
}

impl Waiting {
    pub(super) fn json(self) -> String {
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

/// A call in flight: what its figures don't contain.
pub struct Running {
    /// The API in which the upstream is asked.
    pub(super) native: &'static dyn Dialect,
    pub(super) cancel: Box<dyn Fn() + Send + Sync>,
    /// The stream so far, or its beginning.
    pub(super) events: Mutex<Vec<u8>>,
}

impl Running {
    /// Creates a call whose answer comes in this API, with the way to cancel it.
    pub fn new(native: &'static dyn Dialect, cancel: impl Fn() + Send + Sync + 'static) -> Self {
        Self { native, cancel: Box::new(cancel), events: Mutex::default() }
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.events)
    }

    /// Returns what has arrived of the answer so far, put together.
    pub(super) fn answer_so_far(&self) -> Option<String> {
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
pub(super) struct Call {
    pub(super) message_id: MessageId,
    pub(super) time: DateTime<Local>,
    /// The number of its last change, in the order of all changes.
    pub(super) version: u64,
    pub(super) metrics: CallMetrics,
    pub(super) waiting: Option<Waiting>,
    pub(super) state: State,
    /// The folder of its files.
    pub(super) dir: Option<Arc<Path>>,
    /// The method and path of a request that was refused.
    pub(super) refused: Option<Box<str>>,
    pub(super) request: Option<Arc<str>>,
    pub(super) ending: Option<Ending>,
    /// The stream as it came, or its beginning.
    pub(super) events: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) enum State {
    Running(Weak<Running>),
    Ended { time: DateTime<Local>, kind: Kind },
}

impl Call {
    /// Creates a call that ended before this run, or so long ago that only its files are left.
    pub(super) fn past(call: PastCall, dir: Arc<Path>) -> Self {
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

    pub(super) fn refused(
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

    /// Returns the entry of a refused request in the day's count.
    pub(super) fn refusal_json(&self, error: &ApiError) -> String {
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

    pub(super) fn read_refusal(refusal: &Value) -> Option<Self> {
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

    pub(super) fn running(&self) -> Option<Arc<Running>> {
        match &self.state {
            State::Running(running) => running.upgrade(),
            State::Ended { .. } => None,
        }
    }

    /// Returns the names of the files for what memory doesn't hold.
    pub(super) fn names_of_missing(&self) -> impl Iterator<Item = Name> {
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

    pub(super) fn text_bytes(&self) -> usize {
        let ending = self.ending.as_ref().map_or(0, |ending| ending.data().len());
        let events = self.events.as_ref().map_or(0, |events| events.len());
        self.request.as_ref().map_or(0, |r| r.len()) + ending + events
    }

    pub(super) fn push_fields(&self, json: &mut String) {
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
