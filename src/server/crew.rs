//! Threads for what may take as long as a client likes: reading an upload, answering behind a pipelined request. They
//! come when they are needed and go when they aren't, so that no client can keep a worker from the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::server::queue::{Place, Queue};

/// An idle thread ends after this.
const IDLE: Duration = Duration::from_secs(10);
/// Enough for requests and answers, which live on the heap.
const STACK_BYTES: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads.
pub struct Crew {
    name: &'static str,
    max: usize,
    jobs: Arc<Queue<Job>>,
    threads: Arc<AtomicUsize>,
}

impl Crew {
    /// No threads yet, and never more than `max`.
    pub fn new(name: &'static str, max: usize) -> Self {
        Self { name, max, jobs: Arc::default(), threads: Arc::default() }
    }

    /// Has a job done as soon as a thread is free or can be made.
    pub fn take(&self, job: impl FnOnce() + Send + 'static) {
        if !self.jobs.push(Box::new(job)) && self.threads.load(Ordering::SeqCst) < self.max {
            self.hire();
        }
    }

    fn hire(&self) {
        let (jobs, threads) = (Arc::clone(&self.jobs), Arc::clone(&self.threads));
        threads.fetch_add(1, Ordering::SeqCst);
        let work = move || {
            let place = Place::mine();
            while let Some(job) = jobs.next(&place, Some(IDLE)) {
                // A panic is that job's; its request answers by itself when it is dropped.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
            threads.fetch_sub(1, Ordering::SeqCst);
        };
        if thread::Builder::new().name(self.name.into()).stack_size(STACK_BYTES).spawn(work).is_err() {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
