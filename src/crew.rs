//! Threads for what may take as long as a client likes: reading an upload, answering behind a pipelined request. They
//! come when they are needed and go when they aren't, so that no client can keep a worker from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// An idle thread ends after this.
const IDLE: Duration = Duration::from_secs(10);
/// Enough for requests and answers, which live on the heap.
const STACK_BYTES: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Debug)]
pub struct Crew {
    name: &'static str,
    max: usize,
    jobs: Sender<Job>,
    receiver: Receiver<Job>,
    /// Threads, and jobs that none of them has finished.
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    threads: AtomicUsize,
    unfinished: AtomicUsize,
}

impl Crew {
    /// No threads yet, and never more than `max`.
    pub fn new(name: &'static str, max: usize) -> Self {
        let (jobs, receiver) = unbounded();
        Self { name, max, jobs, receiver, state: Arc::default() }
    }

    /// Has a job done as soon as a thread is free or can be made.
    pub fn take(&self, job: impl FnOnce() + Send + 'static) {
        let unfinished = self.state.unfinished.fetch_add(1, Ordering::SeqCst) + 1;
        let threads = self.state.threads.load(Ordering::SeqCst);
        if unfinished > threads && threads < self.max {
            self.hire();
        }
        let _ = self.jobs.send(Box::new(job));
    }

    fn hire(&self) {
        let (jobs, state) = (self.receiver.clone(), Arc::clone(&self.state));
        state.threads.fetch_add(1, Ordering::SeqCst);
        let work = move || {
            loop {
                match jobs.recv_timeout(IDLE) {
                    Ok(job) => {
                        // A panic is that job's; its request answers by itself when it is dropped.
                        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                        state.unfinished.fetch_sub(1, Ordering::SeqCst);
                    }
                    Err(_) => {
                        state.threads.fetch_sub(1, Ordering::SeqCst);
                        // A job that came just now saw this thread as free.
                        match jobs.try_recv() {
                            Ok(job) => {
                                state.threads.fetch_add(1, Ordering::SeqCst);
                                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                                state.unfinished.fetch_sub(1, Ordering::SeqCst);
                            }
                            Err(_) => return,
                        }
                    }
                }
            }
        };
        if thread::Builder::new().name(self.name.into()).stack_size(STACK_BYTES).spawn(work).is_err() {
            self.state.threads.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
