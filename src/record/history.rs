//! What `CACHE_DIR` holds of calls that memory knows nothing of: those of earlier runs, and those that were too large to
//! be kept.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Local};
use serde_json::Value;

use super::files::CALL_KEY;
use super::metrics::{CallMetrics, FailedTry};
use super::names::{Kind, MessageId, Name};
use crate::json;

/// The figures stand within this much of a file's end: reading them costs as much for a large call as for a small one.
const TAIL_BYTES: u64 = 64 * 1024;

/// A call as its files tell it.
#[derive(Debug)]
pub struct PastCall {
    /// The same in both of its files.
    pub message_id: MessageId,
    /// When it began.
    pub begun: DateTime<Local>,
    /// When it ended, and whether with a RESPONSE or an ERROR.
    pub ended: (DateTime<Local>, Kind),
    /// What its second file says of it.
    pub metrics: CallMetrics,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Past {
    /// The newest calls, oldest first.
    pub calls: Vec<PastCall>,
    /// The calls of today, each by when it ended, and whether it was answered.
    pub today: Vec<(DateTime<Local>, bool)>,
}

/// Reads what was there `before` a moment: at most `limit` calls.
pub fn read(dir: &Path, before: DateTime<Local>, limit: usize) -> Past {
    let mut past = Past::default();
    let mut newest = BinaryHeap::with_capacity(limit + 1);
    for name in names(dir).filter(|name| name.kind != Kind::Request && name.time < before) {
        if name.time.date_naive() == before.date_naive() {
            past.today.push((name.time, name.kind == Kind::Response));
        }
        newest.push(Reverse((name.time, name.message_id.0, name.kind)));
        if newest.len() > limit {
            newest.pop();
        }
    }
    let mut begun = HashMap::<u32, DateTime<Local>>::new();
    let wanted = newest.iter().map(|Reverse((ended, id, _))| (*id, *ended)).collect::<HashMap<_, _>>();
    for name in names(dir).filter(|name| name.kind == Kind::Request) {
        // An id may come again after four thousand million others.
        let id = name.message_id.0;
        if wanted.get(&id).is_some_and(|ended| name.time <= *ended) {
            let time = begun.entry(id).or_insert(name.time);
            *time = name.time.max(*time);
        }
    }
    let newest_first = newest.into_sorted_vec(); // by `Reverse`
    past.calls = newest_first
        .into_iter()
        .rev()
        .filter_map(|Reverse((ended, id, kind))| {
            let message_id = MessageId(id);
            let name = Name { time: ended, kind, message_id };
            let metrics = read_figures(&dir.join(name.to_string()), kind)?;
            let begun = begun.get(&id).copied().unwrap_or(ended);
            Some(PastCall { message_id, begun, ended: (ended, kind), metrics })
        })
        .collect();
    past
}

/// The `data` of a file, as it stands there.
pub fn read_data(dir: &Path, name: &Name) -> Option<String> {
    let text = fs::read_to_string(dir.join(name.to_string())).ok()?;
    let fields = json::fields(&text).ok()?;
    json::field(&fields, "data").map(|data| data.value.to_owned())
}

fn names(dir: &Path) -> impl Iterator<Item = Name> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Name::parse(entry.file_name().to_str()?))
}

/// What a call's second file says at its end. Files of earlier versions say less.
fn read_figures(path: &Path, kind: Kind) -> Option<CallMetrics> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    // A key of the file itself: what is in its data stands further in.
    let after = |key: &str| {
        let at = tail.rfind(&format!("\n  \"{key}\": "))?;
        let value = &tail[at..].split_once(": ")?.1;
        let mut values = serde_json::Deserializer::from_str(value).into_iter::<Value>();
        values.next()?.ok()
    };
    let call = after(CALL_KEY).unwrap_or_default();
    let attempts = after("attempts").unwrap_or_default();
    let text = |name: &str| call[name].as_str().map(str::to_owned);
    let time = |value: &Value| value.as_f64().and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    let tried = |tried: &Value| {
        Some(FailedTry {
            model: tried["model"].as_str()?.to_owned(),
            reason: tried["failed"].as_str()?.to_owned(),
            at: time(&tried["after_ms"])?,
        })
    };
    let status = match kind {
        Kind::Response => 200,
        _ => after("data").and_then(|data| data["status"].as_u64()).unwrap_or(0) as u16,
    };
    Some(CallMetrics {
        dialect: text("dialect").unwrap_or_default().into(),
        path: text("path").unwrap_or_default().into(),
        backup: text("backup"),
        reused: call["reused"].as_u64().map(Duration::from_secs),
        status: call["status"].as_u64().map_or(status, |status| status as u16),
        asked: text("asked"),
        model: text("model").unwrap_or_default(),
        stream: call["stream"].as_bool().unwrap_or(false),
        failed_tries: attempts.as_array().into_iter().flatten().filter_map(tried).collect(),
        waited: time(&call["waited_ms"]).unwrap_or_default(),
        first_token: time(&call["first_token_ms"]),
        total: time(&call["total_ms"]).unwrap_or_default(),
        prompt_tokens: call["prompt_tokens"].as_u64(),
        completion_tokens: call["completion_tokens"].as_u64(),
        error_code: text("error_code"),
    })
}
