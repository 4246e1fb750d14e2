//! The names of debug files, and how times are written in them.

use std::fmt;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, TimeDelta};
use serde::{Serialize, Serializer};

const TIME_IN_NAME: &str = "YYYYMMDD_HHMMSS_mmm";

/// The key of a call's second file that holds what the panel shows of the call.
pub const CALL_KEY: &str = "call";

/// What a debug file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What the client sent.
    Request,
    /// The answer.
    Response,
    /// The error that came instead of an answer.
    Error,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Request, Self::Response, Self::Error];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Request => "REQUEST",
            Self::Response => "RESPONSE",
            Self::Error => "ERROR",
        }
    }
}

/// A file's name, `YYYYMMDD_HHMMSS_mmm_TYPE_ID.json`, in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The time as the clock on the wall showed it, to the millisecond if it was read from a name. Which of two hours
    /// of the same name it was, at the end of summer time, only the file can tell.
    pub time: NaiveDateTime,
    /// What the file is about.
    pub kind: Kind,
    /// The id, the same in both files of a call.
    pub message_id: MessageId,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.format("%Y%m%d_%H%M%S_%3f");
        write!(f, "{time}_{}_{}.json", self.kind.name(), self.message_id)
    }
}

impl Name {
    /// Parses a name; `None` if it isn't that of a debug file.
    pub fn parse(name: &str) -> Option<Self> {
        let (time, rest) = name.strip_suffix(".json")?.split_at_checked(TIME_IN_NAME.len())?;
        let (kind, id) = rest.strip_prefix('_')?.split_once('_')?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let shaped = time.bytes().zip(TIME_IN_NAME.bytes()).all(|(b, shape)| match shape {
            b'_' => b == b'_',
            _ => b.is_ascii_digit(),
        });
        let time = NaiveDateTime::parse_from_str(time, "%Y%m%d_%H%M%S_%3f").ok().filter(|_| shaped)?;
        Some(Self { time, kind, message_id: MessageId::parse(id)? })
    }
}

/// The id that the files of a call share: 8 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u32);

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl MessageId {
    /// Parses an id in the form in which it is written, and in no other.
    pub fn parse(text: &str) -> Option<Self> {
        let id = u32::from_str_radix(text, 16).map(Self).ok()?;
        (id.to_string() == text).then_some(id)
    }
}

/// Returns local time to the microsecond, as in `2024-02-14T10:30:45.123456`.
pub fn timestamp(time: DateTime<Local>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

/// Returns the moment at which a clock on the wall showed this time: the first of two at the end of summer time, and
/// for a time that its beginning leaves out, the moment behind the gap.
pub(super) fn moment(time: NaiveDateTime) -> DateTime<Local> {
    let local = |time: NaiveDateTime| time.and_local_timezone(Local).earliest();
    local(time).or_else(|| local(time + TimeDelta::hours(1))).unwrap_or_else(|| time.and_utc().into())
}

/// Returns `CALLS_YYYYMMDD.json`.
pub(super) fn count_name(date: NaiveDate) -> String {
    format!("CALLS_{}.json", date.format("%Y%m%d"))
}

/// Returns the day in the name of a file that this program made; `None` for all others.
pub(super) fn date_in_name(name: &str) -> Option<NaiveDate> {
    let Some(count) = name.strip_prefix("CALLS_") else {
        return Name::parse(name).map(|name| name.time.date());
    };
    let date = count.strip_suffix(".json")?;
    let digits = date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
    NaiveDate::parse_from_str(date, "%Y%m%d").ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_have_a_date() {
        let date = NaiveDate::from_ymd_opt(2024, 2, 14);
        assert_eq!(date_in_name("20240214_103045_123_REQUEST_a1b2c3d4.json"), date);
        assert_eq!(date_in_name("CALLS_20240214.json"), date);
        for other in [
            "20240214_notes.json",
            "20240214_103045_123_REQUEST_a1b2c3d4.txt",
            "CALLS_2024.json",
            "20241314_103045_123_ERROR_a1b2c3d4.json",
        ] {
            assert_eq!(date_in_name(other), None, "{other}");
        }
    }
}
