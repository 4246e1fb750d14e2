//! Who is at work, how each can be cut off, and the end of the program.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::reuse::Flight;
use crate::arrived::Arrived;
use crate::client::idle::Idle;
use crate::client::socket::Socket;
use crate::upstream::HangUp;

/// Requests under way when the program is asked to stop may take this long to finish.
pub const GRACE: Duration = Duration::from_secs(10);
/// What those that were cut off then may take to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often is looked for those who tell nobody that they have finished, when the program stops.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a call to the upstream was cut off from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nobody reads its answer any more.
    ClientLeft,
    /// The program stops.
    Stopping,
}

/// Requests that have been accepted and not yet answered in full.
pub struct Life {
    idle: Arc<Idle>,
    stopping: AtomicBool,
    under_way: Mutex<HashMap<u64, Arc<Cutter>>>,
    /// Shared by each request from its head on, until it is under way or answered.
    begun: Arc<()>,
    changed: Condvar,
    next: AtomicU64,
    ended: AtomicU64,
    /// The poller looks after those under way every now and then; else it is to be woken.
    looked_after: AtomicBool,
}

/// How one request can be cut off.
#[derive(Debug)]
pub struct Cutter {
    socket: Arc<Socket>,
    began: Instant,
    cut: AtomicU8,
    watched: Mutex<Watched>,
    call: Mutex<Option<HangUp>>,
    /// Others may want its answer, too.
    flight: OnceLock<Weak<Flight>>,
    /// It waits for the answer of another.
    waits_for: OnceLock<Weak<Flight>>,
}

/// Whether the poller is told when the client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// Not yet: most requests are over before that would pay.
    No,
    Yes,
    /// Not any more: the socket may serve another request.
    Over,
}

/// Counts as under way until dropped.
#[derive(Debug)]
pub struct UnderWay {
    life: Arc<Life>,
    number: u64,
    cutter: Arc<Cutter>,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({} under way)", self.lock().len())
    }
}

impl Life {
    /// Nobody is at work. What clients do is told through `idle`.
    pub fn new(idle: Arc<Idle>) -> Self {
        Self {
            idle,
            stopping: AtomicBool::new(false),
            under_way: Mutex::default(),
            begun: Arc::default(),
            changed: Condvar::new(),
            next: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            looked_after: AtomicBool::new(false),
        }
    }

    /// Whether there are hardly any descriptors left, where so many are open to the upstream.
    pub fn is_short_of_descriptors(&self, upstream: usize) -> bool {
        self.idle.missing(upstream, 1) > 0
    }

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

    /// Counts a request as begun, for as long as this is kept.
    pub fn count(&self) -> Arc<()> {
        Arc::clone(&self.begun)
    }

    /// Counts a request of this client as under way.
    pub fn begin(self: &Arc<Self>, socket: &Arc<Socket>) -> UnderWay {
        let cutter = Arc::new(Cutter {
            socket: Arc::clone(socket),
            began: Instant::now(),
            cut: AtomicU8::new(0),
            watched: Mutex::new(Watched::No),
            call: Mutex::default(),
            flight: OnceLock::new(),
            waits_for: OnceLock::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&cutter));
        if !self.looked_after.load(Ordering::SeqCst) {
            self.idle.wake_poller();
        }
        UnderWay { life: Arc::clone(self), number, cutter }
    }

    /// Counts up with everything that begins or ends.
    pub fn activity(&self) -> u64 {
        self.next.load(Ordering::Relaxed) + self.ended.load(Ordering::Relaxed)
    }

    /// Whether the poller looks after those under way from now on; where it says no, whether there are none.
    pub fn look_after(&self, looks: bool) -> bool {
        self.looked_after.store(looks, Ordering::SeqCst);
        !looks && self.lock().is_empty()
    }

    /// Has the poller told of the clients of those that have been under way for this long. Whether any are under way.
    pub fn watch_clients(&self, for_longer_than: Duration) -> bool {
        let under_way = self.lock();
        for (number, cutter) in under_way.iter() {
            let mut watched = cutter.lock_watched();
            if *watched == Watched::No
                && cutter.began.elapsed() >= for_longer_than
                && self.idle.watch(&cutter.socket, *number).is_ok()
            {
                *watched = Watched::Yes;
            }
        }
        !under_way.is_empty()
    }

    /// Something came from the client of this request, or became of it. Cuts it off where the client has left; `gone`
    /// where that is known already, also behind bytes that nobody has read. Whether it did.
    pub fn look_at_client(&self, number: u64, gone: bool) -> bool {
        let Some(cutter) = self.lock().get(&number).cloned() else {
            return false;
        };
        let left = gone || cutter.socket.arrived() == Arrived::End;
        if left {
            self.cut(&cutter, Cut::ClientLeft);
        }
        left
    }

    /// Waits until all have finished, cutting off those that haven't within [`GRACE`].
    pub fn wait_for_all(&self) {
        if self.wait_until(Instant::now() + GRACE) {
            return;
        }
        let left = self.lock().values().cloned().collect::<Vec<_>>();
        for cutter in left {
            self.cut(&cutter, Cut::Stopping);
        }
        self.idle.end_bodies();
        self.wait_until(Instant::now() + LAST_WORDS);
    }

    /// Cuts a request off, also where it only pauses.
    fn cut(&self, cutter: &Cutter, reason: Cut) {
        cutter.cut(reason);
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Whether everybody has finished by then.
    fn wait_until(&self, deadline: Instant) -> bool {
        let mut under_way = self.lock();
        while !under_way.is_empty() || Arc::strong_count(&self.begun) > 1 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Who has only begun tells nobody of its end.
            let waited = self.changed.wait_timeout(under_way, left.min(LOOK_AGAIN));
            under_way = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
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
        let watched = std::mem::replace(&mut *self.cutter.lock_watched(), Watched::Over);
        if watched == Watched::Yes {
            self.life.idle.unwatch(&self.cutter.socket);
        }
        self.life.lock().remove(&self.number);
        self.life.ended.fetch_add(1, Ordering::Relaxed);
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

    /// Others may want the answer: this client's leaving alone doesn't end the call.
    pub(super) fn share(&self, flight: &Arc<Flight>) {
        let _ = self.flight.set(Arc::downgrade(flight));
    }

    /// It waits for another's answer, whose call nobody may want any more once this client has left.
    pub(super) fn wait_for(&self, flight: &Arc<Flight>) {
        let _ = self.waits_for.set(Arc::downgrade(flight));
        if self.reason() == Some(Cut::ClientLeft) {
            flight.one_has_left();
        }
    }

    /// Whatever the request waits for at the upstream ends now, unless its client has left and others go on waiting.
    pub(super) fn cut(&self, reason: Cut) {
        let flight = self.flight.get().and_then(Weak::upgrade);
        if reason == Cut::ClientLeft && flight.is_some_and(|flight| flight.is_wanted_without_its_lead()) {
            return;
        }
        let code = match reason {
            Cut::ClientLeft => 1,
            Cut::Stopping => 2,
        };
        let _ = self.cut.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.hang_up();
        if let (Cut::ClientLeft, Some(flight)) = (reason, self.waits_for.get().and_then(Weak::upgrade)) {
            flight.one_has_left();
        }
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

    fn lock_watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
