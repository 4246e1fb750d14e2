//! Reads the calls in `CACHE_DIR` that memory doesn't hold: those of earlier runs, and those that were too large to be
//! kept.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, NaiveDateTime, TimeDelta};
use serde_json::Value;

use super::changes::read_changes;
use super::disk;
use super::metrics::{CallMetrics, FailedTry};
use super::names::{CALL_KEY, Kind, Name, moment};
use crate::json;
use crate::language::Words;

/// The figures are within this distance of a file's end: nearly always, and always. Reading them therefore costs as
/// much for a large call as for a small one.
const TAIL_BYTES: [u64; 2] = [4 * 1024, 64 * 1024];
/// A larger file isn't opened: twice the largest body that is accepted by default.
pub const MAX_OPENED_BYTES: u64 = 128 << 20;
/// How many calls have their figures read, the newest ones.
const MAX_READ: usize = 5000;

/// A call as recorded in its files.
#[derive(Debug)]
pub struct PastCall {
    /// The name of the call's second file: a RESPONSE or an ERROR.
    pub ending: Name,
    /// When the call began, if that is known.
    pub begun: Option<DateTime<Local>>,
    /// When the call ended.
    pub ended: DateTime<Local>,
    /// The figures in the second file.
    pub metrics: CallMetrics,
}

/// The calls in a folder.
#[derive(Debug, Default)]
pub struct Past {
    /// The newest calls, oldest first.
    pub calls: Vec<PastCall>,
    /// Older calls of the last 24 hours, of which nothing but the name is known.
    pub older: Vec<Name>,
}

/// Reads the calls that ended `before` a moment.
pub fn read(dir: &Path, before: DateTime<Local>) -> Past {
    // At the end of summer time, a later moment has an earlier local time in its name.
    let latest = before.naive_local() + TimeDelta::hours(2);
    let day_before = before.naive_local() - TimeDelta::hours(25);
    let mut past = Past::default();
    let mut newest = BinaryHeap::with_capacity(MAX_READ + 1);
    for name in names(dir).filter(|name| name.kind != Kind::Request && name.time < latest) {
        newest.push(Reverse(name));
        if newest.len() > MAX_READ
            && let Some(Reverse(oldest)) = newest.pop()
            && oldest.time >= day_before
        {
            past.older.push(oldest);
        }
    }
    let mut requests = HashMap::<_, Name>::new();
    let wanted = newest.iter().map(|Reverse(name)| (name.message_id, name.time)).collect::<HashMap<_, _>>();
    for name in names(dir).filter(|name| name.kind == Kind::Request) {
        // An id may be used again after four thousand million others.
        let came_before = |ended: &NaiveDateTime| name.time <= *ended + TimeDelta::hours(2);
        if wanted.get(&name.message_id).is_some_and(came_before) {
            let known = requests.entry(name.message_id).or_insert(name);
            *known = name.max(*known);
        }
    }
    let newest_first = newest.into_sorted_vec(); // by `Reverse`
    let calls = newest_first.into_iter().rev().filter_map(|Reverse(name)| {
        let call = read_metrics(dir, &name)?;
        let begun = call.begun.or_else(|| Some(moment(requests.get(&name.message_id)?.time)));
        (call.ended < before).then_some(PastCall { begun, ..call })
    });
    past.calls = calls.collect();
    past
}

/// Returns the `data` of a file as written there. If the file is too large to be opened, the error is its length.
pub fn read_data(dir: &Path, name: &Name) -> Result<Option<String>, u64> {
    let path = dir.join(name.to_string());
    let length = fs::metadata(&path).map_or(0, |file| file.len());
    if length > MAX_OPENED_BYTES {
        return Err(length);
    }
    let text = disk::read_file(&path, MAX_OPENED_BYTES).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let data = |text: &String| {
        let fields = json::fields(text).ok()?;
        json::field(&fields, "data").map(|data| data.value.to_owned())
    };
    Ok(text.as_ref().and_then(data))
}

/// Lists the debug files of a folder.
pub(super) fn names(dir: &Path) -> impl Iterator<Item = Name> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Name::parse(entry.file_name().to_str()?))
}

/// Reads the figures at the end of a call's second file. Files of earlier versions have fewer of them.
pub(super) fn read_metrics(dir: &Path, name: &Name) -> Option<PastCall> {
    let path = dir.join(name.to_string());
    let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let mut file = File::open(&path).ok()?;
    let mut tail = String::new();
    for length in TAIL_BYTES {
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(length))).ok()?;
        let mut bytes = Vec::new();
        (&mut file).take(length).read_to_end(&mut bytes).ok()?;
        tail = String::from_utf8_lossy(&bytes).into_owned();
        if tail.contains(&key(CALL_KEY)) {
            break;
        }
    }
    Some(parse_metrics(&tail, *name))
}

/// Returns how a key of the file itself is written: keys in its data are indented further.
fn key(name: &str) -> String {
    format!("\n  \"{name}\": ")
}

fn parse_metrics(tail: &str, ending: Name) -> PastCall {
    let after = |name: &str| {
        let at = tail.rfind(&key(name))?;
        let value = tail[at..].split_once(": ")?.1;
        let mut values = serde_json::Deserializer::from_str(value).into_iter::<Value>();
        values.next()?.ok()
    };
    let call = after(CALL_KEY).unwrap_or_default();
    let attempts = after("attempts").unwrap_or_default();
    let text = |name: &str| call[name].as_str().map(str::to_owned);
    let time = |value: &Value| value.as_f64().and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    let moment_of = |name: &str| {
        let time = DateTime::from_timestamp_millis(call[name].as_i64()?)?;
        Some(time.with_timezone(&Local))
    };
    let tried = |tried: &Value| {
        let until = tried["rests_until_ms"].as_u64().map(Duration::from_millis);
        Some(FailedTry {
            model: tried["model"].as_str()?.to_owned(),
            reason: Words::new(
                tried["failed"].as_str()?.to_owned(),
                tried["failed_in_chinese"].as_str().or(tried["failed"].as_str())?.to_owned(),
            ),
            at: time(&tried["after_ms"])?,
            rests_until: until.and_then(|until| SystemTime::UNIX_EPOCH.checked_add(until)),
        })
    };
    let status = match ending.kind {
        Kind::Response => 200,
        _ => after("data").and_then(|data| data["status"].as_u64()).unwrap_or(0) as u16,
    };
    let failed_tries = attempts.as_array().into_iter().flatten().filter_map(tried).collect::<Vec<_>>();
    let metrics = CallMetrics {
        tool: text("tool").unwrap_or_default(),
        first_words: text("first_words").unwrap_or_default(),
        changes: read_changes(&call["changes"]),
        dialect: text("dialect").unwrap_or_default().into(),
        path: text("path").unwrap_or_default().into(),
        backup: text("backup"),
        reused: call["reused"].as_u64().map(Duration::from_secs),
        status: call["status"].as_u64().map_or(status, |status| status as u16),
        asked: text("asked"),
        model: text("model").unwrap_or_default(),
        stream: call["stream"].as_bool().unwrap_or(false),
        all_failed: call["attempts"].as_u64().is_some_and(|made| made == failed_tries.len() as u64),
        failed_tries,
        waited: time(&call["waited_ms"]).unwrap_or_default(),
        first_token: time(&call["first_token_ms"]),
        total: time(&call["total_ms"]).unwrap_or_default(),
        prompt_tokens: call["prompt_tokens"].as_u64(),
        completion_tokens: call["completion_tokens"].as_u64(),
        error_code: text("error_code"),
    };
    let ended = moment_of("ended_ms").unwrap_or_else(|| moment(ending.time));
    PastCall { ending, begun: moment_of("begun_ms"), ended, metrics }
}
