//! Jobs on their way to a pool of threads.
//!
//! The thread that went idle last gets the next job: its stack is still in the cache, and the number of idle threads makes
//! no difference. A job costs one wake-up; a channel's receivers would spin and yield for a while before they sleep, which
//! is dearer the more of them are idle (14 `sched_yield` and 13 `futex` calls a request with 64 workers).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Threads that linger for the next job...
const MAX_LINGERING: usize = 8;
/// ...and how often they look.
const LOOKS: usize = 4;

/// The queue, shared by those who give jobs and those who take them.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// Jobs that found nobody idle.
    jobs: VecDeque<T>,
    /// Threads that look for another job for a moment before they go idle.
    lingering: usize,
    /// The last to go idle at the end.
    idle: Vec<Arc<Place<T>>>,
}

/// What became of a job that was offered.
#[derive(Debug)]
pub enum Offer<T> {
    /// A thread that lingers takes it.
    Taken,
    /// It is this idle thread's, and nobody else's: to be given to it, or [released](Queue::release).
    Reserved(T, Arc<Place<T>>),
    /// Nobody is idle.
    Refused(T),
}

/// Where a thread gets its jobs.
#[derive(Debug)]
pub struct Place<T> {
    thread: Thread,
    given: Mutex<Option<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { jobs: VecDeque::new(), lingering: 0, idle: Vec::new() }) }
    }
}

impl<T> Place<T> {
    /// The current thread's.
    pub fn mine() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), given: Mutex::new(None) })
    }

    /// Gives a job to this thread, which is idle and reserved for it.
    pub fn give(&self, job: T) {
        *lock(&self.given) = Some(job);
        self.thread.unpark();
    }
}

impl<T> Queue<T> {
    /// Gives a job to an idle thread, or to the next that has time. Whether one was idle.
    pub fn push(&self, job: T) -> bool {
        let mut state = self.lock();
        let lingering = state.lingering > state.jobs.len();
        let idle = if lingering { None } else { state.idle.pop() };
        match idle {
            Some(place) => {
                drop(state);
                place.give(job);
                true
            }
            None => {
                state.jobs.push_back(job);
                lingering
            }
        }
    }

    /// Finds somebody who does a job at once, but wakes nobody yet.
    pub fn offer(&self, job: T) -> Offer<T> {
        let mut state = self.lock();
        if state.lingering > state.jobs.len() {
            state.jobs.push_back(job);
            return Offer::Taken;
        }
        match state.idle.pop() {
            Some(place) => Offer::Reserved(job, place),
            None => Offer::Refused(job),
        }
    }

    /// A reserved thread is idle again.
    pub fn release(&self, place: Arc<Place<T>>) {
        let mut state = self.lock();
        match state.jobs.pop_front() {
            Some(job) => {
                drop(state);
                place.give(job);
            }
            None => state.idle.push(place),
        }
    }

    /// The next job; `None` when `patience` has passed without one.
    pub fn next(&self, place: &Arc<Place<T>>, patience: Option<Duration>) -> Option<T> {
        let mut state = self.lock();
        if let Some(job) = state.jobs.pop_front() {
            return Some(job);
        }
        if state.lingering < MAX_LINGERING {
            state.lingering += 1;
            for _ in 0..LOOKS {
                drop(state);
                thread::yield_now();
                state = self.lock();
                if let Some(job) = state.jobs.pop_front() {
                    state.lingering -= 1;
                    return Some(job);
                }
            }
            state.lingering -= 1;
        }
        state.idle.push(Arc::clone(place));
        drop(state);
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => {
                    let mut state = self.lock();
                    if let Some(at) = state.idle.iter().position(|idle| Arc::ptr_eq(idle, place)) {
                        state.idle.swap_remove(at);
                        return None;
                    }
                    drop(state);
                    thread::park(); // a job is on its way
                }
                Some(left) => thread::park_timeout(left),
            }
            if let Some(job) = lock(&place.given).take() {
                return Some(job);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_is_done_once() {
        const JOBS: usize = 10_000;
        let queue = Queue::default();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let place = Place::mine();
                    while let Some(job) = queue.next(&place, None).filter(|job| *job > 0) {
                        done.fetch_add(job, Ordering::Relaxed);
                    }
                });
            }
            for job in (1..=JOBS).chain([0; 4]) {
                queue.push(job);
            }
        });
        assert_eq!(done.into_inner(), JOBS * (JOBS + 1) / 2);
    }

    #[test]
    fn a_reserved_thread_gets_its_job_or_the_next() {
        let queue = Arc::new(Queue::default());
        let (tell, told) = crossbeam_channel::unbounded();
        let worker = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let place = Place::mine();
                while let Some(job) = queue.next(&place, None).filter(|job| *job > 0) {
                    tell.send(job).unwrap();
                }
            }
        });
        let reserve = |job| loop {
            match queue.offer(job) {
                Offer::Reserved(job, place) => return (job, place),
                Offer::Taken => assert_eq!(told.recv(), Ok(job)),
                Offer::Refused(_) => {}
            }
            thread::sleep(Duration::from_millis(1)); // lets it go idle
        };
        let (job, place) = reserve(1);
        assert!(matches!(queue.offer(9), Offer::Refused(9)), "it is taken");
        place.give(job);
        assert_eq!(told.recv(), Ok(1));
        let (_, place) = reserve(2);
        assert!(!queue.push(3), "nobody is idle");
        queue.release(place);
        assert_eq!(told.recv(), Ok(3));
        queue.release(reserve(4).1);
        queue.push(0);
        worker.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_ever() {
        let queue = Queue::default();
        let place = Place::mine();
        assert_eq!(queue.next(&place, Some(Duration::from_millis(5))), None::<u8>);
        assert!(!queue.push(1), "the thread isn't idle any more");
        assert_eq!(queue.next(&place, Some(Duration::from_secs(10))), Some(1));
    }
}
