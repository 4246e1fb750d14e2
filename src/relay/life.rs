//! The end of the program, and who is still at work when it comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::upstream::HangUp;
use crate::waiting;

/// Requests under way when the program is asked to stop may take this long to finish.
pub const GRACE: Duration = Duration::from_secs(10);
/// What those that were cut off then may take to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a call to the upstream was cut off from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nobody reads its answer any more.
    ClientLeft,
    /// The program stops.
    Stopping,
}

/// Requests that have been accepted and not yet answered in full.
#[derive(Debug, Default)]
pub struct Life {
    stopping: AtomicBool,
    under_way: Mutex<HashMap<u64, Arc<Cutter>>>,
    changed: Condvar,
    next: AtomicU64,
}

/// How one request can be cut off.
#[derive(Debug, Default)]
pub struct Cutter {
    peer: Option<SocketAddr>,
    cut: AtomicU8,
    /// Something was sent to the client since [`Cutter::was_served`] was last asked.
    served: AtomicBool,
    call: Mutex<Option<HangUp>>,
}

/// Counts as under way until dropped.
#[derive(Debug)]
pub struct UnderWay {
    life: Arc<Life>,
    number: u64,
    cutter: Arc<Cutter>,
}

impl Life {
    /// Whether the program is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// From now on nothing new is begun.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Counts a request of this client as under way.
    pub fn begin(self: &Arc<Self>, peer: Option<SocketAddr>) -> UnderWay {
        let cutter = Arc::new(Cutter { peer, ..Cutter::default() });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&cutter));
        UnderWay { life: Arc::clone(self), number, cutter }
    }

    /// Waits until all have finished, cutting off those that haven't within [`GRACE`].
    pub fn wait_for_all(&self) {
        let deadline = Instant::now() + GRACE;
        let left = self.wait_until(deadline);
        if left.is_empty() {
            return;
        }
        for cutter in left {
            self.cut(&cutter, Cut::Stopping);
        }
        self.wait_until(Instant::now() + LAST_WORDS);
    }

    /// Cuts a request off, also where it only pauses.
    pub fn cut(&self, cutter: &Cutter, reason: Cut) {
        cutter.cut(reason);
        drop(self.lock());
        self.changed.notify_all();
    }

    fn wait_until(&self, deadline: Instant) -> Vec<Arc<Cutter>> {
        let mut under_way = self.lock();
        while !under_way.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return under_way.values().cloned().collect();
            }
            let waited = self.changed.wait_timeout(under_way, left);
            under_way = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Vec::new()
    }

    /// The requests whose upstream is being waited for, with their clients.
    pub fn clients(&self) -> Vec<(SocketAddr, Arc<Cutter>)> {
        let under_way = self.lock();
        let known = under_way.values().filter_map(|cutter| Some((cutter.peer?, Arc::clone(cutter))));
        known.collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Cutter>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// How this request can be cut off.
    pub fn cutter(&self) -> &Arc<Cutter> {
        &self.cutter
    }

    /// Pauses, but not longer than the client is there and the program goes on. Whether it was the whole time.
    pub fn pause(&self, duration: Duration) -> bool {
        waiting::begin();
        let deadline = Instant::now() + duration;
        let mut under_way = self.life.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.cutter.reason().is_some() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            let waited = self.life.changed.wait_timeout(under_way, left);
            under_way = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.life.lock().remove(&self.number);
        if self.life.is_stopping() {
            self.life.changed.notify_all();
        }
    }
}

impl Cutter {
    /// From now on this call is the one to cut off.
    pub fn attach(&self, call: HangUp) {
        *self.lock() = Some(call);
        if self.reason().is_some() {
            self.hang_up();
        }
    }

    /// Whatever the request waits for at the upstream ends now.
    fn cut(&self, reason: Cut) {
        let code = match reason {
            Cut::ClientLeft => 1,
            Cut::Stopping => 2,
        };
        let _ = self.cut.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.hang_up();
    }

    /// Something has just been sent to the client: one that has left shows at the next write.
    pub fn serve(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Whether something was sent to the client since this was last asked.
    pub fn was_served(&self) -> bool {
        self.served.swap(false, Ordering::Relaxed)
    }

    /// Why it was cut off, if it was.
    pub fn reason(&self) -> Option<Cut> {
        match self.cut.load(Ordering::SeqCst) {
            1 => Some(Cut::ClientLeft),
            2 => Some(Cut::Stopping),
            _ => None,
        }
    }

    fn hang_up(&self) {
        let call = self.lock().take();
        if let Some(call) = call {
            call.now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HangUp>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
