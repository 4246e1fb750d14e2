//! Who is at work, how each can be cut off, and the end of the program.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::client::idle::Idle;
use crate::client::socket::Socket;
use crate::peek::Peeked;
use crate::sync::{lock, unpoisoned};
use crate::upstream::AbortCall;

/// Requests under way when the program is asked to stop may take this long to finish.
pub const GRACE: Duration = Duration::from_secs(10);
/// What those that were cut off then may take to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often is looked for those who tell nobody that they have finished, when the program stops.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a call to the upstream was cut off from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Nobody reads its answer any more.
    ClientLeft,
    /// The program stops.
    Stopping,
    /// Somebody has cancelled it in the panel.
    Cancelled,
}

/// Requests that have been accepted and not yet answered in full.
pub struct InFlight {
    idle: Arc<Idle>,
    stopping: AtomicBool,
    in_flight: Mutex<HashMap<u64, Arc<CancelHandle>>>,
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
pub struct CancelHandle {
    socket: Arc<Socket>,
    began: Instant,
    cut: AtomicU8,
    watched: Mutex<Watched>,
    call: Mutex<Option<AbortCall>>,
    /// Others may want its answer, too.
    shared_call: OnceLock<Weak<dyn CallSharing>>,
    /// It waits for the answer of another.
    waits_for: OnceLock<Weak<dyn CallSharing>>,
}

/// A call that several requests share. (Cancelling one of them needs to know no more of it.)
pub trait CallSharing: Send + Sync {
    /// The client of the one that makes the call has left. Whether others want the answer, so that the call goes on.
    fn is_wanted_without_its_leader(&self) -> bool;

    /// The client of one that waits for it, or reads it, has left. Nobody may be left for whom the call is made.
    fn one_has_left(&self);
}

/// What can be cut off from outside.
pub trait Cancellable {
    /// How.
    fn cancel(&self) -> &Arc<CancelHandle>;

    /// Whether it was.
    fn is_cancelled(&self) -> bool {
        self.cancel().reason().is_some()
    }
}

impl<T: Cancellable + ?Sized> Cancellable for Box<T> {
    fn cancel(&self) -> &Arc<CancelHandle> {
        (**self).cancel()
    }
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
pub struct InFlightGuard {
    in_flight: Arc<InFlight>,
    number: u64,
    cancel: Arc<CancelHandle>,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({} under way)", self.lock().len())
    }
}

impl InFlight {
    /// Nobody is at work. What clients do is told through `idle`.
    pub fn new(idle: Arc<Idle>) -> Self {
        Self {
            idle,
            stopping: AtomicBool::new(false),
            in_flight: Mutex::default(),
            begun: Arc::default(),
            changed: Condvar::new(),
            next: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            looked_after: AtomicBool::new(false),
        }
    }

    /// Whether there are hardly any descriptors left, where so many are open to the upstream, or were a moment ago.
    pub fn is_short_of_descriptors(&self, upstream: usize) -> bool {
        self.idle.is_short(upstream)
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

    /// Whether nobody is at work.
    pub fn is_idle(&self) -> bool {
        self.lock().is_empty() && Arc::strong_count(&self.begun) == 1
    }

    /// Counts a request as begun, for as long as this is kept.
    pub fn count(&self) -> Arc<()> {
        Arc::clone(&self.begun)
    }

    /// Counts a request of this client as under way.
    pub fn begin(self: &Arc<Self>, socket: &Arc<Socket>) -> InFlightGuard {
        let cancel = Arc::new(CancelHandle {
            socket: Arc::clone(socket),
            began: Instant::now(),
            cut: AtomicU8::new(0),
            watched: Mutex::new(Watched::No),
            call: Mutex::default(),
            shared_call: OnceLock::new(),
            waits_for: OnceLock::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&cancel));
        if !self.looked_after.load(Ordering::SeqCst) {
            self.idle.wake_poller();
        }
        InFlightGuard { in_flight: Arc::clone(self), number, cancel }
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
        let in_flight = self.lock();
        for (number, cancel) in in_flight.iter() {
            let mut watched = cancel.lock_watched();
            if *watched == Watched::No
                && cancel.began.elapsed() >= for_longer_than
                && self.idle.watch(&cancel.socket, *number).is_ok()
            {
                *watched = Watched::Yes;
            }
        }
        !in_flight.is_empty()
    }

    /// Something came from the client of this request, or became of it. Cuts it off where the client has left; `gone`
    /// where that is known already, also behind bytes that nobody has read. Whether it did.
    pub fn look_at_client(&self, number: u64, gone: bool) -> bool {
        let Some(cancel) = self.lock().get(&number).cloned() else {
            return false;
        };
        let left = gone || cancel.socket.peek() == Peeked::End;
        if left {
            self.cut(&cancel, CancelReason::ClientLeft);
        }
        left
    }

    /// Waits until all have finished, cutting off those that haven't within [`GRACE`].
    pub fn wait_for_all(&self) {
        if self.wait_until(Instant::now() + GRACE) {
            return;
        }
        let left = self.lock().values().cloned().collect::<Vec<_>>();
        for cancel in left {
            self.cut(&cancel, CancelReason::Stopping);
        }
        self.idle.end_bodies();
        self.wait_until(Instant::now() + LAST_WORDS);
    }

    /// Cuts a request off, also where it only pauses.
    fn cut(&self, cancel: &CancelHandle, reason: CancelReason) {
        cancel.cut(reason);
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Whether everybody has finished by then.
    fn wait_until(&self, deadline: Instant) -> bool {
        let mut in_flight = self.lock();
        while !in_flight.is_empty() || Arc::strong_count(&self.begun) > 1 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Who has only begun tells nobody of its end.
            let waited = self.changed.wait_timeout(in_flight, left.min(LOOK_AGAIN));
            in_flight = unpoisoned(waited).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<CancelHandle>>> {
        lock(&self.in_flight)
    }
}

impl InFlightGuard {
    /// How this request can be cut off.
    pub fn cancel(&self) -> &Arc<CancelHandle> {
        &self.cancel
    }

    /// Cancels this request from elsewhere, whatever it waits for.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let (in_flight, cancel) = (Arc::clone(&self.in_flight), Arc::clone(&self.cancel));
        move || {
            in_flight.cut(&cancel, CancelReason::Cancelled);
            in_flight.idle.wake_poller(); // it may wait for a place
        }
    }

    /// Pauses, but not longer than the client is there and the program goes on. Whether it was the whole time.
    pub fn pause(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut in_flight = self.in_flight.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.cancel.reason().is_some() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            let waited = self.in_flight.changed.wait_timeout(in_flight, left);
            in_flight = unpoisoned(waited).0;
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let watched = std::mem::replace(&mut *self.cancel.lock_watched(), Watched::Over);
        if watched == Watched::Yes {
            self.in_flight.idle.unwatch(&self.cancel.socket);
        }
        self.in_flight.lock().remove(&self.number);
        self.in_flight.ended.fetch_add(1, Ordering::Relaxed);
        if self.in_flight.is_stopping() {
            self.in_flight.changed.notify_all();
        }
    }
}

impl CancelHandle {
    /// From now on this call is the one to cut off.
    pub fn attach(&self, call: AbortCall) {
        *self.lock() = Some(call);
        if self.reason().is_some() {
            self.abort();
        }
    }

    /// Others may want the answer: this client's leaving alone doesn't end the call.
    pub(super) fn share(&self, shared_call: Weak<dyn CallSharing>) {
        let _ = self.shared_call.set(shared_call);
    }

    /// It waits for another's answer, whose call nobody may want any more once this client has left.
    pub(super) fn wait_for(&self, shared_call: Weak<dyn CallSharing>) {
        let _ = self.waits_for.set(Weak::clone(&shared_call));
        if self.reason() == Some(CancelReason::ClientLeft)
            && let Some(shared_call) = shared_call.upgrade()
        {
            shared_call.one_has_left();
        }
    }

    /// Whatever the request waits for at the upstream ends now, unless its client has left and others go on waiting.
    pub(super) fn cut(&self, reason: CancelReason) {
        let shared_call = self.shared_call.get().and_then(Weak::upgrade);
        if reason == CancelReason::ClientLeft
            && shared_call.is_some_and(|shared_call| shared_call.is_wanted_without_its_leader())
        {
            return;
        }
        let code = match reason {
            CancelReason::ClientLeft => 1,
            CancelReason::Stopping => 2,
            CancelReason::Cancelled => 3,
        };
        let _ = self.cut.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.abort();
        if let (CancelReason::ClientLeft, Some(shared_call)) =
            (reason, self.waits_for.get().and_then(Weak::upgrade))
        {
            shared_call.one_has_left();
        }
    }

    /// Why it was cut off, if it was.
    pub fn reason(&self) -> Option<CancelReason> {
        match self.cut.load(Ordering::SeqCst) {
            1 => Some(CancelReason::ClientLeft),
            2 => Some(CancelReason::Stopping),
            3 => Some(CancelReason::Cancelled),
            _ => None,
        }
    }

    fn abort(&self) {
        let call = self.lock().take();
        if let Some(call) = call {
            call.now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<AbortCall>> {
        lock(&self.call)
    }

    fn lock_watched(&self) -> MutexGuard<'_, Watched> {
        lock(&self.watched)
    }
}
