//! What all threads share.

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

/// Names of models that are remembered as said; beyond that nobody reads the console any more.
const MAX_ANNOUNCED: usize = 10_000;

/// Each try of each call in an outage needn't say why it failed.
const OUTAGE_SAID_FOR: Duration = Duration::from_secs(60);

/// Method and path of a request, for people.
pub fn asked(head: &Head) -> String {
    refusals::asked(format!("{} {}", head.method, head.target).as_bytes())
}

type Resume = Box<dyn Fn(Box<dyn Parked>, Wake) + Send + Sync>;

/// The settings, the memory and the state of the program.
pub struct Shared {
    /// Settings as they are now.
    pub live: Arc<Live>,
    /// What debug mode remembers.
    pub calls: Calls,
    /// Who is under way.
    pub in_flight: Arc<InFlight>,
    /// Who waits for the account's limit.
    pub gate: Gate<Box<dyn Parked>>,
    /// Who pauses before the next try.
    pub pauses: Pauses<Box<dyn Parked>>,
    /// What was seen of the models.
    pub history: Arc<ModelHistory>,
    /// What was seen of the backups.
    pub backups: BackupHistory,
    /// The lists of models.
    pub models: Models,
    /// What calls say they come from: this proxy's address.
    pub site: HeaderValue,
    /// The account's free quota.
    pub quota: QuotaCache,
    /// Answers that are given again, and calls that several share.
    pub reuse: Arc<SharedCalls>,
    /// Who was turned away.
    pub refusals: Refusals,
    /// Memory for the next large request.
    pub spare: Spare,
    /// Finds a thread for one that waited.
    resume: OnceLock<Resume>,
    /// Why the upstream couldn't be reached, and when that was said.
    outage: Mutex<Option<(String, Instant)>>,
    orders: AtomicU64,
    announced: Mutex<HashSet<u64>>,
}

impl Shared {
    /// Nothing is under way yet. `port` is the one in use.
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

    /// Says how requests that waited get a thread.
    pub fn resume_by(&self, resume: impl Fn(Box<dyn Parked>, Wake) + Send + Sync + 'static) {
        let _ = self.resume.set(Box::new(resume));
    }

    /// Has a thread go on with one that waited.
    pub fn resume(&self, who: Box<dyn Parked>, wake: Wake) {
        if let Some(resume) = self.resume.get() {
            resume(who, wake);
        }
    }

    /// Says and records that this was refused, and answers so.
    pub fn refusal(&self, head: &Head, error: &ApiError) -> Reply {
        let dialect = head.route.as_ref().map_or("", |route| route.api.name);
        self.refused(&asked(head), callers::of(head), dialect, error);
        Reply::refusal(head, error)
    }

    /// Says and records that this was refused.
    pub fn refused(&self, asked: &str, tool: String, dialect: &'static str, error: &ApiError) {
        if self.refusals.note(asked, error) {
            self.calls.refused(&self.live.snapshot(), asked, tool, dialect, error);
        }
    }

    /// The address that a request was sent to, as people write it.
    pub fn address_of(&self, head: &Head) -> String {
        format!("{}{}", self.site.to_str().unwrap_or_default(), head.target)
    }

    /// Connections that are open to the upstream.
    pub fn open_to_upstream(&self) -> usize {
        crate::upstream::open_connections()
    }

    /// Whether this reason for an outage wasn't said within the last minute.
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

    /// The place in the order of requests.
    pub fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this model is asked for the first time.
    pub fn first_time_asked(&self, model: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        model.hash(&mut hasher);
        let mut announced = lock(&self.announced);
        announced.len() < MAX_ANNOUNCED && announced.insert(hasher.finish())
    }
}
