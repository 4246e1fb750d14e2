//! What the upstream says of the account, for the panel: its free quota, or that the key isn't accepted. It is asked at
//! the first look at the panel, after each 429 and on a new day (UTC); in between, the calls made are counted. As long
//! as nobody looks, the upstream isn't asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::language::Words;
use crate::live::Snapshot;
use crate::settings::Secret;
use crate::sync::lock;
use crate::upstream::Upstream;

/// If the upstream refused the key or gave no answer, it is asked again after this.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// A look at the panel after this long counts as the first one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// The maximum length of the description of a key.
const MAX_BYTES: usize = 64 * 1024;
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Requests to free models today: <https://openrouter.ai/docs/api/reference/limits>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Quota {
    /// Requests allowed a day.
    pub limit: u64,
    /// Requests left today.
    pub remaining: u64,
    /// Requests made today.
    pub used: u64,
}

/// The result of asking the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The key is accepted; its quota, if the upstream tells one.
    Taken(Option<Quota>),
    /// The key is refused: 401.
    Refused,
    /// There was no answer, for this reason.
    Unreachable(Words),
    /// The answer says nothing about the key.
    Unknown,
}

/// The last answer, and the number of calls sent since.
#[derive(Debug, Default)]
pub struct QuotaCache {
    state: Arc<Mutex<State>>,
    asking: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Answer>,
    /// The number of calls sent since the upstream was asked.
    sent: u64,
    /// Whether a 429 has come since then.
    rejected: bool,
    looked_at: Option<SystemTime>,
}

#[derive(Debug, Clone)]
struct Answer {
    asked_at: SystemTime,
    key: Option<Secret>,
    base_url: String,
    account: Account,
}

impl QuotaCache {
    /// Notes that a call to a free model is sent.
    pub fn sent(&self) {
        self.lock().sent += 1;
    }

    /// Notes that a call came back with a 429: less may be left than was thought.
    pub fn rejected(&self) {
        self.lock().rejected = true;
    }

    /// Returns the account as last told, with the calls since then counted, and when it was told. If there may be
    /// something new, the upstream is asked in the background: the caller doesn't wait for it.
    pub fn current(&self, snapshot: &Arc<Snapshot>) -> Option<(Account, SystemTime)> {
        let settings = &snapshot.settings;
        if settings.key.is_none() || settings.test_mode {
            return None;
        }
        let now = SystemTime::now();
        let mut state = self.lock();
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let new_look = state.looked_at.replace(now).is_none_or(|last| since(last) > FORGOTTEN_AFTER);
        let told =
            state.last.clone().filter(|last| last.key == settings.key && last.base_url == settings.base_url);
        let good = told.as_ref().is_some_and(|answer| match answer.account {
            Account::Taken(_) => day_of(answer.asked_at) == day_of(now) && !state.rejected && !new_look,
            Account::Unknown => since(answer.asked_at) < FORGOTTEN_AFTER,
            Account::Refused | Account::Unreachable(_) => since(answer.asked_at) < TRY_AGAIN_AFTER,
        });
        let sent = state.sent;
        drop(state);
        if !good && !self.asking.swap(true, Ordering::SeqCst) {
            self.ask(Arc::clone(snapshot), now);
        }
        let Answer { mut account, asked_at, .. } = told?;
        if let Account::Taken(Some(quota)) = &mut account {
            quota.remaining = quota.remaining.saturating_sub(sent);
            quota.used = quota.used.saturating_add(sent);
        }
        Some((account, asked_at))
    }

    fn ask(&self, snapshot: Arc<Snapshot>, now: SystemTime) {
        let mut state = self.lock();
        state.rejected = false;
        // Calls that are sent from here on may not be counted in the answer.
        let sent_before = state.sent;
        drop(state);
        let (state, asking) = (Arc::clone(&self.state), Arc::clone(&self.asking));
        let asked = thread::Builder::new().name("quota".into()).spawn(move || {
            let account = ask(&snapshot.upstream);
            let (key, base_url) = (snapshot.settings.key.clone(), snapshot.settings.base_url.clone());
            let mut state = lock(&state);
            state.last = Some(Answer { asked_at: now, key, base_url, account });
            state.sent -= sent_before;
            drop(state);
            asking.store(false, Ordering::SeqCst);
        });
        if asked.is_err() {
            self.asking.store(false, Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Returns the number of a day; OpenRouter counts days in UTC.
fn day_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY_SECONDS
}

/// Asks this upstream about the key that it is called with, and waits for the answer.
pub fn ask(upstream: &Arc<Upstream>) -> Account {
    let mut call = match upstream.get("/key") {
        Ok(call) => call,
        Err(error) => return Account::Unreachable(error.failure.reason),
    };
    match call.status() {
        200 => {}
        401 => return Account::Refused,
        _ => return Account::Unknown,
    }
    let mut body = Vec::new();
    match call.read_whole(&mut body, MAX_BYTES) {
        Ok(true) => Account::Taken(parse(&body)),
        _ => Account::Unknown,
    }
}

fn parse(body: &[u8]) -> Option<Quota> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        free_model_daily_requests: Option<Quota>,
    }
    serde_json::from_slice::<Body>(body).ok()?.data.free_model_daily_requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_or_not() {
        let told =
            br#"{"data":{"label":"x","free_model_daily_requests":{"limit":50,"remaining":38,"used":12}}}"#;
        assert_eq!(parse(told), Some(Quota { limit: 50, remaining: 38, used: 12 }));
        assert_eq!(parse(br#"{"data":{"label":"x"}}"#), None);
        assert_eq!(parse(b"<html>"), None);
    }
}
