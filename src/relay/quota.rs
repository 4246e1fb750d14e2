//! The account's free quota, which the panel shows: asked for only while somebody looks, at most once a minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::live::Snapshot;
use crate::settings::Secret;

/// How long an answer, or its absence, is good.
const CACHED_FOR: Duration = Duration::from_secs(60);
/// A description of a key is shorter than this.
const MAX_BYTES: usize = 64 * 1024;

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

/// The last answer.
#[derive(Debug, Default)]
pub struct QuotaCache {
    last: Arc<Mutex<Option<Answer>>>,
    asking: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Answer {
    since: Instant,
    key: Option<Secret>,
    quota: Option<Quota>,
}

impl QuotaCache {
    /// The quota as last told. Where that is too long ago, it is asked for meanwhile: nobody waits for it.
    pub fn current(&self, snapshot: &Arc<Snapshot>) -> Option<Quota> {
        let key = &snapshot.settings.key;
        if key.is_none() || snapshot.settings.test_mode {
            return None;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let told = last.as_ref().filter(|answer| answer.key == *key);
        let good = told.is_some_and(|answer| answer.since.elapsed() < CACHED_FOR);
        if !good && !self.asking.swap(true, Ordering::SeqCst) {
            let (last, asking, snapshot) =
                (Arc::clone(&self.last), Arc::clone(&self.asking), Arc::clone(snapshot));
            let asked = thread::Builder::new().name("quota".into()).spawn(move || {
                let answer = Answer {
                    since: Instant::now(),
                    key: snapshot.settings.key.clone(),
                    quota: ask(&snapshot),
                };
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                asking.store(false, Ordering::SeqCst);
            });
            if asked.is_err() {
                self.asking.store(false, Ordering::SeqCst);
            }
        }
        told.and_then(|answer| answer.quota)
    }
}

fn ask(snapshot: &Snapshot) -> Option<Quota> {
    let mut call = snapshot.upstream.get("/key").ok()?;
    if call.status() != 200 {
        return None;
    }
    let mut body = Vec::new();
    call.read_whole(&mut body, MAX_BYTES).ok()?.then(|| parse(&body)).flatten()
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
