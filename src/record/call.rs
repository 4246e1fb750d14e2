//! One call as the panel shows it: its figures, the request and the answer, and what it waits for while it is in
//! flight.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::SystemTime;

use chrono::{DateTime, Local};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::dialect::sse::Events;
use crate::dialect::{Dialect, Needs};
use crate::json::{self, raw};
use crate::record::changes::Change;
use crate::record::day::Refusal;
use crate::record::history::PastCall;
use crate::record::metrics::{CallMetrics, FailedTryJson, MetricsJson, unix_ms};
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

    /// An ending with this error object, and with the part of the answer that had arrived; both are JSON.
    pub fn error(error: &str, status: u16, partial: Option<&str>) -> Self {
        let data = ErrorData { error: raw(error), status, partial: partial.map(raw) };
        Self::Error(json::text(&data).into())
    }
}

/// The `data` of an `ERROR` file.
#[derive(Serialize, Deserialize)]
struct ErrorData<'a> {
    #[serde(borrow)]
    error: &'a RawValue,
    status: u16,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    partial: Option<&'a RawValue>,
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

/// The JSON form of [`Waiting`].
#[derive(Serialize)]
struct WaitingJson {
    r#for: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
}

impl Waiting {
    fn json(self) -> WaitingJson {
        let (reason, until) = match self {
            Self::Limit(until) => ("limit", until),
            Self::Place => ("place", None),
            Self::Pause(until) => ("pause", Some(until)),
            Self::Another => ("another", None),
        };
        WaitingJson {
            r#for: reason,
            until: until.map(|until| timestamp(until.into())),
            until_ms: until.map(unix_ms),
        }
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

#[derive(Debug, Clone)]
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

#[derive(Debug, Clone)]
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

    /// A refused request; `None` if its time or id, read from a damaged file, is invalid.
    pub(super) fn refused(refusal: &Refusal) -> Option<Self> {
        let time = DateTime::from_timestamp_millis(refusal.time_ms)?.with_timezone(&Local);
        let metrics = CallMetrics {
            tool: refusal.tool.clone(),
            dialect: refusal.dialect.clone(),
            status: refusal.status,
            error_code: refusal.error["code"].as_str().map(str::to_owned),
            ..CallMetrics::default()
        };
        Some(Self {
            message_id: MessageId::parse(&refusal.message_id)?,
            time,
            version: 0,
            metrics,
            waiting: None,
            state: State::Ended { time, kind: Kind::Error },
            dir: None,
            refused: Some(refusal.asked.as_str().into()),
            request: None,
            ending: Some(Ending::error(&refusal.error.to_string(), refusal.status, None)),
            events: None,
        })
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

    /// Returns the call's entry in the list of calls.
    pub(super) fn json(&self) -> CallJson<'_> {
        let ended = match self.state {
            State::Ended { time, .. } => Some(time),
            State::Running(_) => None,
        };
        CallJson {
            message_id: self.message_id,
            timestamp: timestamp(self.time),
            time_ms: self.time.timestamp_millis(),
            ended_ms: ended.map(|time| time.timestamp_millis()),
            refused: self.refused.as_deref(),
            waiting: self.waiting.map(Waiting::json),
            metrics: self.metrics.json(ended.is_some()),
            tries: self.metrics.tries_json(),
        }
    }

    /// Returns everything about the call: what memory holds, else what was `read` from its files. `running` is given while
    /// the call is in flight.
    pub(super) fn opened_json(&self, running: Option<&Running>, read: &FromFiles) -> String {
        let partial = running.and_then(Running::answer_so_far);
        let events = running.map(|running| running.events().clone());
        let events = events.as_deref().or(self.events.as_deref()).unwrap_or_default();
        let (mut response, mut error) = (None, None);
        match self.ending.as_ref().or(read.ending.as_ref()) {
            Some(Ending::Response(data)) => response = Some(raw(data)),
            Some(Ending::Error(data)) => error = serde_json::from_str::<ErrorData<'_>>(data).ok(),
            None => {}
        }
        json::text(&OpenedCall {
            call: self.json(),
            changes: &self.metrics.changes,
            too_large: &read.too_large,
            request: self.request.as_ref().or(read.request.as_ref()).map(|request| raw(request)),
            response,
            error: error.as_ref().map(|data| data.error),
            partial: partial.as_deref().map(raw).or(error.and_then(|data| data.partial)),
            events: Some(String::from_utf8_lossy(events)).filter(|events| !events.is_empty()),
        })
    }
}

/// The parts of a call that were read from its files.
#[derive(Debug, Default)]
pub(super) struct FromFiles {
    pub(super) request: Option<Arc<str>>,
    pub(super) ending: Option<Ending>,
    pub(super) too_large: Vec<TooLarge>,
}

/// A file that is too large to be shown in the panel.
#[derive(Debug, Serialize)]
pub(super) struct TooLarge {
    pub(super) path: String,
    pub(super) bytes: u64,
}

/// A call's entry in the list of calls.
#[derive(Serialize)]
pub(super) struct CallJson<'a> {
    message_id: MessageId,
    timestamp: String,
    time_ms: i64,
    ended_ms: Option<i64>,
    refused: Option<&'a str>,
    waiting: Option<WaitingJson>,
    #[serde(flatten)]
    metrics: MetricsJson<'a>,
    tries: Vec<FailedTryJson<'a>>,
}

/// A call with its bodies, as the panel opens it.
#[derive(Serialize)]
struct OpenedCall<'a> {
    #[serde(flatten)]
    call: CallJson<'a>,
    changes: &'a [Change],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    too_large: &'a [TooLarge],
    request: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Cow<'a, str>>,
}
