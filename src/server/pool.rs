//! A pool of threads: one is started when there is a job and no thread is idle, and ends after being idle for a while.
//!
//! The thread that became idle last gets the next job: its stack is still in the CPU's cache, and the number of idle
//! threads makes no difference. A flood of short jobs starts only a fixed number of threads, as more of them would do
//! the same work in the same time; threads that wait for somebody outside ([`Pool::blocking`]) come on top of it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::console::say;
use crate::language::either;
use crate::sync::{lock, unpoisoned};

/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_secs(10);
/// The size of a thread's stack. TLS handshakes and JSON need a fraction of it, and only what is used takes memory.
const STACK_BYTES: usize = 512 * 1024;

/// A pool of threads that all do the same work.
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    work: Box<dyn Fn(T) + Send + Sync>,
    /// The maximum number of threads, not counting those that are blocked.
    max: usize,
    /// The number of threads that wait for somebody outside.
    blocked: AtomicUsize,
    /// The length of [`State::jobs`].
    waiting: AtomicUsize,
}

struct State<T> {
    /// Jobs for which no thread was idle.
    jobs: VecDeque<T>,
    /// Idle threads, the one that became idle last at the end.
    idle: Vec<Arc<Mailbox<T>>>,
    threads: usize,
    /// How many threads have been started so far: the number in the name of the last one.
    named: usize,
    /// Whether the console has said that the system gives no more threads.
    shortage_reported: bool,
}

/// The place where an idle thread receives its next job.
struct Mailbox<T> {
    given: Mutex<Option<T>>,
    came: Condvar,
}

impl<T: Send + 'static> Pool<T> {
    /// Creates a pool without threads, which starts at most `max`, and one more for each that is blocked. Each job is
    /// passed to `work`.
    pub fn new(max: usize, work: impl Fn(T) + Send + Sync + 'static) -> Self {
        let state =
            State { jobs: VecDeque::new(), idle: Vec::new(), threads: 0, named: 0, shortage_reported: false };
        let (blocked, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                work: Box::new(work),
                max,
                blocked,
                waiting,
            }),
        }
    }

    /// Has `job` done as soon as a thread is idle or can be started, after those that came before it.
    pub fn give(&self, job: T) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        self.shared.employ(state);
    }

    /// Returns whether a job waits for a thread.
    pub fn has_waiting(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > 0
    }

    /// Has this thread of the pool, which may wait for somebody outside, replaced by another until the guard is
    /// dropped.
    pub fn blocking(&self) -> Blocking<'_> {
        self.shared.blocked.fetch_add(1, Ordering::SeqCst);
        // Either `employ` sees that one more is blocked, or the job that it left waiting is seen here.
        if self.shared.waiting.load(Ordering::SeqCst) > 0 {
            self.shared.employ(self.shared.lock());
        }
        Blocking(&self.shared.blocked)
    }
}

/// A thread of the pool that waits for somebody outside.
#[must_use]
pub struct Blocking<'a>(&'a AtomicUsize);

impl Drop for Blocking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Gives the first job to an idle thread, or starts one for it, if the limit allows that.
    fn employ(self: &Arc<Self>, mut state: MutexGuard<'_, State<T>>) {
        self.waiting.store(state.jobs.len(), Ordering::SeqCst);
        let idle_or_blocked = state.idle.len() + self.blocked.load(Ordering::SeqCst);
        if state.threads.saturating_sub(idle_or_blocked) >= self.max {
            return;
        }
        if let Some(place) = state.idle.pop() {
            if let Some(job) = self.first_job(&mut state) {
                drop(state);
                place.give(job);
            } else {
                state.idle.push(place);
            }
            return;
        }
        if state.jobs.is_empty() {
            return;
        }
        state.threads += 1;
        state.named += 1;
        let name = format!("worker-{}", state.named);
        drop(state);
        let shared = Arc::clone(self);
        let started = thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || shared.run());
        if let Err(error) = started {
            let mut state = self.lock();
            state.threads -= 1; // the job waits for another thread
            if !std::mem::replace(&mut state.shortage_reported, true) {
                say(either(
                    format_args!(
                        "the system gives no more threads ({error}): requests wait for those there are"
                    ),
                    format_args!("系统无法再创建线程（{error}）：请求需等待现有线程"),
                ));
            }
        }
    }

    fn first_job(&self, state: &mut State<T>) -> Option<T> {
        let job = state.jobs.pop_front();
        self.waiting.store(state.jobs.len(), Ordering::SeqCst);
        job
    }

    fn run(&self) {
        let place = Arc::new(Mailbox { given: Mutex::new(None), came: Condvar::new() });
        while let Some(job) = self.next(&place) {
            // A panic ends only this job: its request answers by itself when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.work)(job)));
        }
    }

    /// Waits for the next job; `None` if the thread is to end because none came for too long.
    fn next(&self, place: &Arc<Mailbox<T>>) -> Option<T> {
        let mut state = self.lock();
        if let Some(job) = self.first_job(&mut state) {
            return Some(job);
        }
        state.idle.push(Arc::clone(place));
        drop(state);
        let given = place.came.wait_timeout_while(lock(&place.given), IDLE, |given| given.is_none());
        if let Some(job) = unpoisoned(given).0.take() {
            return Some(job);
        }
        let mut state = self.lock();
        // If this thread isn't in the list of idle threads any more, a job is on its way to it. The last thread stays:
        // the system may refuse a new one when it is needed.
        if state.threads > 1
            && let Some(at) = state.idle.iter().position(|idle| Arc::ptr_eq(idle, place))
        {
            state.idle.swap_remove(at);
            state.threads -= 1;
            return None;
        }
        drop(state);
        let given = place.came.wait_while(lock(&place.given), |given| given.is_none());
        unpoisoned(given).take()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

impl<T> Mailbox<T> {
    fn give(&self, job: T) {
        *lock(&self.given) = Some(job);
        self.came.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{bounded, unbounded};

    #[test]
    fn every_job_is_done_once() {
        const JOBS: usize = 10_000;
        let (done, doing) = unbounded();
        let pool = Pool::new(4, move |job: usize| done.send(job).unwrap());
        (0..JOBS).for_each(|job| pool.give(job));
        let mut jobs = doing.iter().take(JOBS).collect::<Vec<_>>();
        jobs.sort_unstable();
        assert!(jobs.into_iter().eq(0..JOBS));
    }

    #[test]
    fn threads_start_when_they_are_needed_and_never_more() {
        let (go_on, waits) = bounded::<()>(0);
        let (begun, begins) = unbounded();
        let pool = Pool::new(3, move |job: usize| {
            begun.send((job, thread::current().id())).unwrap();
            waits.recv().unwrap();
        });
        (0..4).for_each(|job| pool.give(job));
        let first = begins.iter().take(3).map(|(_, thread)| thread).collect::<Vec<_>>();
        assert!(begins.try_recv().is_err(), "all three are busy");
        assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
        go_on.send(()).unwrap();
        let (_, fourth) = begins.recv().unwrap();
        assert!(first.contains(&fourth));
        (0..3).for_each(|_| go_on.send(()).unwrap());
    }

    #[test]
    fn a_blocked_thread_is_replaced_also_for_a_job_that_waits_already() {
        let (go_on, waits) = bounded::<()>(0);
        let (begun, begins) = unbounded();
        let pool = Arc::new_cyclic(|weak: &std::sync::Weak<Pool<bool>>| {
            let pool = weak.clone();
            Pool::new(1, move |blocks: bool| {
                begun.send(blocks).unwrap();
                waits.recv().unwrap();
                let pool = pool.upgrade().unwrap();
                let _blocking = blocks.then(|| pool.blocking());
                waits.recv().unwrap();
            })
        });
        [true, false, false].into_iter().for_each(|job| pool.give(job));
        assert_eq!(begins.recv(), Ok(true));
        assert!(begins.try_recv().is_err() && pool.has_waiting(), "the only thread is busy");
        go_on.send(()).unwrap();
        assert_eq!(begins.recv(), Ok(false));
        assert!(begins.try_recv().is_err(), "one is blocked, one busy");
        (0..3).for_each(|_| go_on.send(()).unwrap());
        assert_eq!(begins.recv(), Ok(false));
        (0..2).for_each(|_| go_on.send(()).unwrap());
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let (done, doing) = unbounded();
        let pool = Pool::new(1, move |job: usize| {
            assert!(job != 0, "asked for");
            done.send(job).unwrap();
        });
        pool.give(0);
        pool.give(1);
        assert_eq!(doing.recv(), Ok(1));
    }
}
