//! What all threads share.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::body::Spare;
use crate::calls::Calls;
use crate::forward::Relay;
use crate::gate::Gate;
use crate::life::Life;
use crate::live::Live;
use crate::models::Models;
use crate::quota::QuotaCache;

/// Names of models that are remembered as said; beyond that nobody reads the console any more.
const MAX_ANNOUNCED: usize = 10_000;

/// The settings, the memory and the state of the program.
#[derive(Debug)]
pub struct Proxy {
    /// Settings as they are now.
    pub live: Arc<Live>,
    /// What debug mode remembers.
    pub calls: Calls,
    /// Who is under way.
    pub life: Arc<Life>,
    /// Who waits for the account's limit.
    pub gate: Gate<Box<Relay>>,
    /// The list of models.
    pub models: Models,
    /// The account's free quota.
    pub quota: QuotaCache,
    /// Memory for the next large request.
    pub spare: Spare,
    orders: AtomicU64,
    announced: Mutex<HashSet<u64>>,
}

impl Proxy {
    /// Nothing is under way yet.
    pub fn new(live: Arc<Live>, calls: Calls) -> Self {
        Self {
            live,
            calls,
            life: Arc::default(),
            gate: Gate::default(),
            models: Models::default(),
            quota: QuotaCache::default(),
            spare: Spare::default(),
            orders: AtomicU64::new(0),
            announced: Mutex::default(),
        }
    }

    /// The place in the order of requests.
    pub fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this model is asked for the first time.
    pub fn first_time_asked(&self, model: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        model.hash(&mut hasher);
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.len() < MAX_ANNOUNCED && announced.insert(hasher.finish())
    }
}
