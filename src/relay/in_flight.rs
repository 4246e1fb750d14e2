//! The requests in flight, how each can be cancelled, and how the program waits for them when it stops.

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

/// How long requests in flight may take to finish when the program is asked to stop.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long requests that are cancelled after that may take to say so to their clients.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How often the stopping program checks for requests that end without notifying it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a call to the upstream was cancelled from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Nobody reads its answer any more.
    ClientLeft,
    /// The program is stopping.
    Stopping,
    /// Somebody has cancelled it in the panel.
    Cancelled,
}

/// Requests that have been accepted and not yet answered in full.
pub struct InFlight {
    idle: Arc<Idle>,
    stopping: AtomicBool,
    in_flight: Mutex<HashMap<u64, Arc<CancelHandle>>>,
    /// Each request holds a clone from its head on until it is in flight or answered: the reference count tells how
    /// many do.
    begun: Arc<()>,
    changed: Condvar,
    next: AtomicU64,
    ended: AtomicU64,
    /// Whether the poller checks the requests in flight every now and then; if it doesn't, a new request must wake it.
    is_polled: AtomicBool,
}

/// The handle by which one request is cancelled.
#[derive(Debug)]
pub struct CancelHandle {
    socket: Arc<Socket>,
    began: Instant,
    cut: AtomicU8,
    watched: Mutex<Watched>,
    call: Mutex<Option<AbortCall>>,
    /// The call that this request makes, if others may want its answer, too.
    shared_call: OnceLock<Weak<dyn CallSharing>>,
    /// The call of another request whose answer this one waits for.
    waits_for: OnceLock<Weak<dyn CallSharing>>,
}

/// A call that several requests share, as far as cancelling one of them needs to know it.
pub trait CallSharing: Send + Sync {
    /// Notes that the client of the leading request has left. Returns whether others want the answer, so that the call
    /// goes on.
    fn is_wanted_without_its_leader(&self) -> bool;

    /// Notes that the client of a request that waits for the answer, or reads it, has left: perhaps nobody wants it any
    /// more.
    fn follower_left(&self);
}

/// A request that can be cancelled from outside.
pub trait Cancellable {
    /// Returns the handle by which the request is cancelled.
    fn cancel(&self) -> &Arc<CancelHandle>;

    /// Returns whether the request was cancelled.
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
    /// Not yet: most requests end before that would pay off.
    No,
    Yes,
    /// No longer: the socket may serve another request.
    Over,
}

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: Arc<InFlight>,
    number: u64,
    cancel: Arc<CancelHandle>,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({} requests)", self.lock().len())
    }
}

impl InFlight {
    /// Creates the state without any request. Clients are watched through `idle`.
    pub fn new(idle: Arc<Idle>) -> Self {
        Self {
            idle,
            stopping: AtomicBool::new(false),
            in_flight: Mutex::default(),
            begun: Arc::default(),
            changed: Condvar::new(),
            next: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            is_polled: AtomicBool::new(false),
        }
    }

    /// Returns whether hardly any descriptors are left, or were a moment ago, with `upstream` connections open to the
    /// upstream.
    pub fn is_short_of_descriptors(&self, upstream: usize) -> bool {
        self.idle.is_short(upstream)
    }

    /// Returns whether the program was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Keeps new requests from being begun from now on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Returns whether no request has begun or is in flight.
    pub fn is_idle(&self) -> bool {
        self.lock().is_empty() && Arc::strong_count(&self.begun) == 1
    }

    /// Counts a request as begun for as long as the returned value is kept.
    pub fn count(&self) -> Arc<()> {
        Arc::clone(&self.begun)
    }

    /// Counts a request of this client as in flight.
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
        if !self.is_polled.load(Ordering::SeqCst) {
            self.idle.wake_poller();
        }
        InFlightGuard { in_flight: Arc::clone(self), number, cancel }
    }

    /// Returns a number that grows whenever a request begins or ends.
    pub fn activity(&self) -> u64 {
        self.next.load(Ordering::Relaxed) + self.ended.load(Ordering::Relaxed)
    }

    /// Sets whether the poller checks the requests in flight from now on. Returns whether it stops and none is in
    /// flight.
    pub fn set_polled(&self, looks: bool) -> bool {
        self.is_polled.store(looks, Ordering::SeqCst);
        !looks && self.lock().is_empty()
    }

    /// Has the poller told when a client leaves whose request has been in flight for this long. Returns whether any
    /// request is in flight.
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

    /// Handles an event on the socket of this request's client: cancels the request if the client has left. `gone` says
    /// that it is known to have left, perhaps behind bytes that nobody has read. Returns whether it has left.
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

    /// Waits until all requests have finished, and cancels those that haven't within [`GRACE`].
    pub fn wait_for_all(&self) {
        if self.wait_until(Instant::now() + GRACE) {
            return;
        }
        let left = self.lock().values().cloned().collect::<Vec<_>>();
        for cancel in left {
            self.cut(&cancel, CancelReason::Stopping);
        }
        self.idle.end_bodies();
        self.wait_until(Instant::now() + CANCEL_GRACE);
    }

    /// Cancels a request, even one that only pauses.
    fn cut(&self, cancel: &CancelHandle, reason: CancelReason) {
        cancel.cut(reason);
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits until all requests have finished. Returns false if they haven't by then.
    fn wait_until(&self, deadline: Instant) -> bool {
        let mut in_flight = self.lock();
        while !in_flight.is_empty() || Arc::strong_count(&self.begun) > 1 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // A request that has only begun notifies nobody when it ends.
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
    /// Returns the handle by which this request is cancelled.
    pub fn cancel(&self) -> &Arc<CancelHandle> {
        &self.cancel
    }

    /// Returns a function that cancels this request from elsewhere, whatever it waits for.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let (in_flight, cancel) = (Arc::clone(&self.in_flight), Arc::clone(&self.cancel));
        move || {
            in_flight.cut(&cancel, CancelReason::Cancelled);
            in_flight.idle.wake_poller(); // it may wait for a slot
        }
    }

    /// Pauses until the time is over or the request is cancelled. Returns whether the whole time has passed.
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
    /// Makes this call the one that is aborted when the request is cancelled.
    pub fn attach(&self, call: AbortCall) {
        *self.lock() = Some(call);
        if self.reason().is_some() {
            self.abort();
        }
    }

    /// Notes that others may want the answer: that this client leaves doesn't end the call by itself.
    pub(super) fn share(&self, shared_call: Weak<dyn CallSharing>) {
        let _ = self.shared_call.set(shared_call);
    }

    /// Notes that this request waits for another's answer; perhaps nobody wants that call any more once this client has
    /// left.
    pub(super) fn wait_for(&self, shared_call: Weak<dyn CallSharing>) {
        let _ = self.waits_for.set(Weak::clone(&shared_call));
        if self.reason() == Some(CancelReason::ClientLeft)
            && let Some(shared_call) = shared_call.upgrade()
        {
            shared_call.follower_left();
        }
    }

    /// Cancels the request: its call to the upstream ends now, unless only its client has left and others wait for the
    /// answer.
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
            shared_call.follower_left();
        }
    }

    /// Returns why the request was cancelled, if it was.
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
