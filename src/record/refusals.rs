//! Requests that were refused before they became calls. A user whose tool fails must find a reason on the console, and
//! a client that repeats a request again and again must not fill it: each kind has a line a minute at most, with a
//! count.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::console::say;
use crate::error::ApiError;
use crate::language::either;
use crate::sync::lock;

/// The time between two lines of a kind.
const INTERVAL: Duration = Duration::from_secs(60);
/// Paths that browsers ask for by themselves, and Claude Code when it starts.
const IGNORED_PATHS: [&str; 4] = ["/favicon.ico", "/robots.txt", "/.well-known/", "/api/hello"];

/// Refusals by their kind.
#[derive(Debug, Default)]
pub struct Refusals {
    kinds: Mutex<Vec<Kind>>,
}

#[derive(Debug)]
struct Kind {
    code: &'static str,
    status: u16,
    said: Instant,
    /// How many have come since then, and what the last of them asked for.
    more: u64,
    last: String,
}

impl Refusals {
    /// Prints a refusal, or counts it. Returns whether it is worth being shown.
    pub fn note(&self, asked: &str, error: &ApiError) -> bool {
        if error.code == "shutting_down" || IGNORED_PATHS.iter().any(|path| asked.contains(path)) {
            return false;
        }
        let mut kinds = lock(&self.kinds);
        let now = Instant::now();
        let same = |kind: &&mut Kind| kind.code == error.code && kind.status == error.status;
        match kinds.iter_mut().find(same) {
            Some(kind) if now.duration_since(kind.said) < INTERVAL => {
                kind.more += 1;
                asked.clone_into(&mut kind.last);
                return true;
            }
            Some(kind) => {
                tell(kind);
                kind.said = now;
            }
            None => {
                kinds.push(Kind {
                    code: error.code,
                    status: error.status,
                    said: now,
                    more: 0,
                    last: String::new(),
                });
            }
        }
        drop(kinds);
        say(format_args!("{} {asked}  {}", error.status, error.in_words()));
        true
    }

    /// Returns whether any refusals were counted and not printed yet.
    pub fn has_more_to_report(&self) -> bool {
        lock(&self.kinds).iter().any(|kind| kind.more > 0)
    }

    /// Prints how many more refusals there were, of each kind whose minute is over.
    pub fn report_repeats(&self) {
        let mut kinds = lock(&self.kinds);
        for kind in kinds.iter_mut().filter(|kind| kind.more > 0 && kind.said.elapsed() >= INTERVAL) {
            tell(kind);
            kind.said = Instant::now();
        }
    }
}

fn tell(kind: &mut Kind) {
    if kind.more > 0 {
        let Kind { code, status, more, last, .. } = &kind;
        say(either(
            format_args!("{status} {code}: {more} more since then, the last: {last}"),
            format_args!("{status} {code}：此后又有 {more} 次，最后一次：{last}"),
        ));
    }
    kind.more = 0;
}

/// Returns method and path as they were sent, for a console: printable, without the query, which may hold a key.
pub fn asked(line: &[u8]) -> String {
    const MAX_CHARS: usize = 120;
    let line = line.split(|b| matches!(b, 0 | b'\r' | b'\n' | b'?')).next().unwrap_or_default();
    let mut asked = String::new();
    for (count, c) in String::from_utf8_lossy(line).trim_ascii().chars().enumerate() {
        if count == MAX_CHARS {
            let _ = write!(asked, "…");
            break;
        }
        asked.push(if c.is_control() || c == '\u{FFFD}' { '?' } else { c });
    }
    let version = asked.rfind(" HTTP/").filter(|_| asked.len() > " HTTP/1.1".len());
    asked.truncate(version.unwrap_or(asked.len()));
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_printable_and_has_no_query() {
        assert_eq!(asked(b"GET /v1/models?key=secret HTTP/1.1\r\nHost: x\r\n"), "GET /v1/models");
        assert_eq!(asked(b"PRI * HTTP/2.0\r\n\r\n"), "PRI *");
        assert_eq!(asked(b"\x16\x03\x01\x02\x00\x01"), "????");
        assert_eq!(asked(&[b'x'; 500]).chars().count(), 121);
    }
}
