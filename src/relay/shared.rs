//! The state that all threads share.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::backup_history::BackupHistory;
use super::gate::Gate;
use super::in_flight::InFlight;
use super::model_history::ModelHistory;
use super::models::Models;
use super::parked::{Parked, Wake};
use super::pauses::Pauses;
use super::quota::QuotaCache;
use super::shared_call::SharedCalls;
use ureq::http::HeaderValue;

use crate::body::Spare;
use crate::client::exchange::Reply;
use crate::client::head::Head;
use crate::client::idle::Idle;
use crate::error::ApiError;
use crate::live::Live;
use crate::record::callers;
use crate::record::calls::Calls;
use crate::record::refusals::{self, Refusals};
use crate::sync::lock;

/// The number of models that are announced once each; beyond that nobody reads the console any more.
const MAX_ANNOUNCED: usize = 10_000;

/// How long the reason for an outage isn't repeated on the console: not every attempt of every call needs to say it.
const OUTAGE_SAID_FOR: Duration = Duration::from_secs(60);

/// Returns the method and path of a request, as shown to people.
pub fn asked(head: &Head) -> String {
    refusals::asked(format!("{} {}", head.method, head.target).as_bytes())
}

type Resume = Box<dyn Fn(Box<dyn Parked>, Wake) + Send + Sync>;

/// The settings, the records and the state of the program.
pub struct Shared {
    /// The settings as they are now.
    pub live: Arc<Live>,
    /// The calls that debug mode records.
    pub calls: Calls,
    /// The requests in flight.
    pub in_flight: Arc<InFlight>,
    /// The account's limit, and the requests that wait for it.
    pub gate: Gate<Box<dyn Parked>>,
    /// The requests that pause before their next attempt.
    pub pauses: Pauses<Box<dyn Parked>>,
    /// What was seen of the models.
    pub history: Arc<ModelHistory>,
    /// What was seen of the backups.
    pub backups: BackupHistory,
    /// The lists of models.
    pub models: Models,
    /// The `http-referer` of each call: this proxy's address.
    pub site: HeaderValue,
    /// The account's free quota.
    pub quota: QuotaCache,
    /// Answers that are reused, and calls that several requests share.
    pub reuse: Arc<SharedCalls>,
    /// The requests that were refused.
    pub refusals: Refusals,
    /// A buffer for the next large request.
    pub spare: Spare,
    /// Finds a thread for a request that has waited.
    resume: OnceLock<Resume>,
    /// Why the upstream couldn't be reached, and when that was printed.
    outage: Mutex<Option<(String, Instant)>>,
    orders: AtomicU64,
    announced: Mutex<HashSet<u64>>,
}

impl Shared {
    /// Creates the state of a program without any request; `port` is the port in use.
    pub fn new(live: Arc<Live>, calls: Calls, idle: Arc<Idle>, port: u16) -> Self {
        Self {
            live,
            calls,
            in_flight: Arc::new(InFlight::new(idle)),
            gate: Gate::default(),
            pauses: Pauses::default(),
            history: Arc::default(),
            backups: BackupHistory::default(),
            models: Models::default(),
            site: HeaderValue::try_from(format!("http://localhost:{port}"))
                .unwrap_or(HeaderValue::from_static("http://localhost")),
            quota: QuotaCache::default(),
            reuse: Arc::default(),
            resume: OnceLock::new(),
            refusals: Refusals::default(),
            spare: Spare::default(),
            outage: Mutex::default(),
            orders: AtomicU64::new(0),
            announced: Mutex::default(),
        }
    }

    /// Sets how requests that have waited get a thread.
    pub fn resume_by(&self, resume: impl Fn(Box<dyn Parked>, Wake) + Send + Sync + 'static) {
        let _ = self.resume.set(Box::new(resume));
    }

    /// Has a thread resume a request that has waited.
    pub fn resume(&self, who: Box<dyn Parked>, wake: Wake) {
        if let Some(resume) = self.resume.get() {
            resume(who, wake);
        }
    }

    /// Prints and records that a request was refused, and returns the response that says so.
    pub fn refusal(&self, head: &Head, error: &ApiError) -> Reply {
        // A browser learns from the first refusal that it has to ask its user for the key.
        let is_challenge = error.headers.iter().any(|(name, _)| *name == "www-authenticate")
            && head.header("authorization").is_none();
        if !is_challenge {
            let dialect = head.route.as_ref().map_or("", |route| route.api.name);
            self.refused(&asked(head), callers::of(head), dialect, error);
        }
        Reply::refusal(head, error)
    }

    /// Prints and records that a request was refused.
    pub fn refused(&self, asked: &str, tool: String, dialect: &'static str, error: &ApiError) {
        if self.refusals.note(asked, error) {
            self.calls.refused(&self.live.snapshot(), asked, tool, dialect, error);
        }
    }

    /// Returns the address that a request was sent to, as people write it: without its query, which may hold a key.
    pub fn address_of(&self, head: &Head) -> String {
        let path = head.target.split('?').next().unwrap_or_default();
        format!("{}{path}", self.site.to_str().unwrap_or_default())
    }

    /// Returns the number of open connections to the upstream.
    pub fn open_to_upstream(&self) -> usize {
        crate::upstream::open_connections()
    }

    /// Returns whether this reason for an outage wasn't printed within the last minute.
    pub fn is_news(&self, outage: &str) -> bool {
        let mut said = lock(&self.outage);
        let is_old =
            |(known, since): &(String, Instant)| known == outage && since.elapsed() < OUTAGE_SAID_FOR;
        if said.as_ref().is_some_and(is_old) {
            return false;
        }
        *said = Some((outage.to_owned(), Instant::now()));
        true
    }

    /// Returns the next number in the order of requests.
    pub fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns whether this model is asked for the first time.
    pub fn first_time_asked(&self, model: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        model.hash(&mut hasher);
        let mut announced = lock(&self.announced);
        announced.len() < MAX_ANNOUNCED && announced.insert(hasher.finish())
    }
}
