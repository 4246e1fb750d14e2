//! What the upstream says of the account, for the panel: its free quota, or that the key isn't taken. Asked at the first
//! look, after each 429 and on a new day (UTC), and counted down in between: nobody asks while nobody looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::live::Snapshot;
use crate::settings::Secret;
use crate::sync::lock;
use crate::upstream::Upstream;

/// Where there was no answer, it is asked again after this.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// Whoever looks after so long a time looks for the first time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// A description of a key is shorter than this.
const MAX_BYTES: usize = 64 * 1024;
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Requests to free models today: <https://openrouter.ai/docs/api/reference/limits>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Quota {
    /// A day.
    pub limit: u64,
    /// Left of it.
    pub remaining: u64,
    /// Used of it.
    pub used: u64,
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The key is taken; its quota, where the upstream tells one.
    Taken(Option<Quota>),
    /// 401.
    Refused,
    /// No answer, for this reason.
    Unreachable(String),
    /// An answer that says nothing.
    Unknown,
}

/// The last answer, and what has been sent since.
#[derive(Debug, Default)]
pub struct QuotaCache {
    state: Arc<Mutex<State>>,
    asking: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Answer>,
    /// Calls sent since it was asked.
    sent: u64,
    /// A 429 has come since then.
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
    /// A call to a free model goes out.
    pub fn sent(&self) {
        self.lock().sent += 1;
    }

    /// It came back with a 429: what is left is not what was thought.
    pub fn rejected(&self) {
        self.lock().rejected = true;
    }

    /// The account as last told, counted on, and when it was told. Where there may be something new, it is asked for
    /// meanwhile: nobody waits for it.
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
        // What goes out from here on may not be in the answer.
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

/// OpenRouter counts its days in UTC.
fn day_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY_SECONDS
}

/// What this upstream says of the key that it is called with; waited for.
pub fn ask(upstream: &Arc<Upstream>) -> Account {
    let mut call = match upstream.get("/key") {
        Ok(call) => call,
        Err(error) => return Account::Unreachable(error.failure.to_string()),
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
