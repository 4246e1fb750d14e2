//! From a client's connection to the thread that answers it.
//!
//! The [`poller`] hands a connection whose next head is complete to a thread of the [`pool`]. The thread checks the
//! head, reads the body, and answers; a request for the upstream first needs one of the `WORKERS` slots ([`slots`]).
//! After the answer the thread stays with the connection for a moment, because a busy client sends its next request at
//! once, and then gives the connection back to the poller. It also gives it back when the rest of a body doesn't
//! arrive. The pages for people are in [`panel`].
//!
//! May import everything but `run`, `autostart`, `start` and `first_key`.

pub mod panel;
mod poller;
pub mod pool;
mod routes;
pub mod slots;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mio::Poll;

use crate::client::access;
use crate::client::connection::{Arrival, Connection};
use crate::client::exchange::{ConnectionFate, Exchange, Reply, refusal};
use crate::client::idle::{Idle, WaitingConnection};
use crate::client::listen;
use crate::client::slot;
use crate::client::socket::CLIENT_TIMEOUT;
use crate::dialect::{Action, Dialect, Routed};
use crate::error::ApiError;
use crate::live::{Live, Snapshot};
use crate::record::calls::{Calls, Waiting};
use crate::record::refusals;
use crate::relay::gate::Next;
use crate::relay::in_flight::InFlightGuard;
use crate::relay::parked::{Parked as ParkedRelay, Wake};
use crate::relay::reuse::{CacheControl, Reused};
use crate::relay::shared::Shared;
use crate::relay::state::Relay;
use crate::settings::{Listen, Settings};
use poller::Poller;
use pool::Pool;
use slots::{Entry, Slots};

/// Maximum number of threads that wait for clients which have stopped reading, in addition to `WORKERS`.
const MAX_BLOCKED_THREADS: usize = 512;
/// Maximum number of threads that are at work and wait for nobody: parsing, health checks, refusals. More of them would
/// only wait for a processor, and keep others from it.
const MAX_BUSY_THREADS: usize = 16;
/// Maximum number of threads that wait a moment on their connections; with more connections than that, it is no use.
const MAX_LINGERING: usize = 32;
/// How often the gate thread checks the settings, for the requests that wait, and cleans up.
const GATE_INTERVAL: Duration = Duration::from_millis(250);
/// After this many rounds without a request nothing is left to clean up, and the gate thread sleeps until the next one.
const IDLE_ROUNDS_BEFORE_SLEEP: u32 = 320;

/// The next task of a thread of the pool.
enum Job {
    /// Answer this request, and those that follow it on its connection.
    Serve(Box<Exchange>),
    /// Forward a request that has a slot now.
    Forward(Call),
    /// End a request without forwarding it, or only go on with its connection.
    Finish(Box<dyn FnOnce() -> ConnectionFate + Send>),
}

/// A request on its way to the upstream.
enum Call {
    New(Box<Exchange>, InFlightGuard),
    /// A request that has been parsed, and has waited or may have its answer already.
    Begun(Box<dyn ParkedRelay>, Wake),
}

impl Call {
    /// Returns whether the request was cancelled: its client has left, or the program stops, or somebody cancelled it
    /// in the panel.
    fn is_cut_off(&self) -> bool {
        match self {
            Self::New(_, in_flight) => in_flight.cancel().reason().is_some(),
            Self::Begun(relay, _) => relay.is_cancelled(),
        }
    }

    /// Ends a request that was cancelled.
    fn abandon(self, shared: &Arc<Shared>) -> ConnectionFate {
        match self {
            Self::New(exchange, in_flight) => match asked(&exchange) {
                Some(api) => match Relay::begin(shared, api, exchange, shared.live.snapshot(), in_flight) {
                    Ok(relay) => ParkedRelay::abandon(relay),
                    Err(after) => after,
                },
                None => {
                    exchange.forget();
                    ConnectionFate::Gone
                }
            },
            Self::Begun(relay, _) => relay.abandon(),
        }
    }
}

/// A request that has a slot, and the settings that apply to it; or, as the error, what became of its connection: the
/// request was answered or refused, or it waits.
type Step = Result<(Call, Arc<Snapshot>), ConnectionFate>;

/// The server's state, shared by its threads.
struct Server {
    shared: Arc<Shared>,
    idle: Arc<Idle>,
    pool: Pool<(Arc<Self>, Job)>,
    slots: Slots<Call>,
    stuck: AtomicUsize,
    lingering: AtomicUsize,
    /// Whether the gate thread sleeps, so that the next request has to wake it.
    gate_sleeps: AtomicBool,
}

/// Starts all threads that serve these sockets. Returns the state that they share, for whoever stops them.
pub fn start(live: Arc<Live>, calls: Calls, listeners: Vec<TcpListener>) -> io::Result<Arc<Shared>> {
    let poll = Poll::new()?;
    let idle = Arc::new(Idle::new(poll.registry())?);
    let Listen { workers, queue, .. } = live.snapshot().settings.listen;
    let port = listen::port(&listeners);
    let shared = Arc::new(Shared::new(live, calls, Arc::clone(&idle), port));
    let server = Arc::new(Server {
        shared: Arc::clone(&shared),
        idle: Arc::clone(&idle),
        pool: Pool::new(MAX_BUSY_THREADS, |(server, job)| Server::work(&server, job)),
        slots: Slots::new(workers, queue),
        stuck: AtomicUsize::new(0),
        lingering: AtomicUsize::new(0),
        gate_sleeps: AtomicBool::new(false),
    });
    // This cycle of references is never freed: the server lives as long as the program.
    let resumes = Arc::clone(&server);
    shared.resume_by(move |relay, wake| resumes.requeue(Call::Begun(relay, wake)));
    let snapshot = shared.live.snapshot();
    shared.calls.look_back(&snapshot);
    if snapshot.debug {
        shared.history.look_back(snapshot.settings.cache_dir.as_ref());
    }
    shared.models.fetch_ahead(&snapshot);
    let gatekeeper = Arc::clone(&server);
    thread::Builder::new().name("gate".into()).spawn(move || gatekeeper.keep_gate())?;
    let timekeeper = Arc::clone(&server);
    thread::Builder::new().name("pauses".into()).spawn(move || timekeeper.end_pauses())?;
    Poller::start(server, idle, poll, listeners)?;
    Ok(shared)
}

impl Server {
    /// Has a thread answer a request whose head is complete, or of whose body more has arrived.
    fn serve(self: &Arc<Self>, exchange: Box<Exchange>) {
        self.give(Job::Serve(exchange));
    }

    fn give(self: &Arc<Self>, job: Job) {
        self.pool.give((Arc::clone(self), job));
    }

    /// Has a thread go on with a connection on which an answer has been sent.
    fn follow(self: &Arc<Self>, fate: ConnectionFate) {
        if !matches!(fate, ConnectionFate::Gone) {
            self.give(Job::Finish(Box::new(move || fate)));
        }
    }

    /// Has a thread forward the request that has the freed slot now, if there is one.
    fn slot(self: &Arc<Self>, call: Option<Call>) {
        if let Some(call) = call {
            self.give(Job::Forward(call));
        }
    }

    /// Forwards a request that has waited elsewhere, as soon as a slot is free.
    fn requeue(self: &Arc<Self>, call: Call) {
        self.slot(self.slots.requeue(call));
    }

    /// Refuses a request because nothing more of its body has arrived for too long.
    fn give_up_waiting(self: &Arc<Self>, exchange: Box<Exchange>) {
        let error = if self.shared.in_flight.is_stopping() {
            ApiError::stopping()
        } else {
            ApiError::stalled_body(CLIENT_TIMEOUT)
        };
        let reply = self.shared.refusal(&exchange.head, &error.with("connection", "close"));
        self.give(Job::Finish(Box::new(move || exchange.reply(reply))));
    }

    /// Closes idle connections if `more` descriptors are not available otherwise.
    fn make_room(&self, more: usize) {
        self.idle.make_room(self.shared.open_to_upstream(), more);
    }

    fn work(self: &Arc<Self>, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            next = match job {
                Job::Serve(exchange) => match self.answer(exchange) {
                    Ok((call, snapshot)) => self.forward(call, Some(snapshot)),
                    Err(after) => self.next_request(after),
                },
                // The settings may have changed while the request waited.
                Job::Forward(call) => self.forward(call, None),
                Job::Finish(finish) => self.next_request(finish()),
            };
            // The next request of a busy connection is behind those that came meanwhile.
            if self.pool.has_waiting()
                && let Some(job) = next.take_if(|next| matches!(next, Job::Serve(_)))
            {
                self.give(job);
            }
        }
    }

    /// Gives a connection back to the poller, unless its next request has arrived already, which is returned. If no
    /// other work waits, waits a moment for that request first.
    #[inline(never)]
    fn next_request(&self, after: ConnectionFate) -> Option<Job> {
        let mut connection = match after {
            ConnectionFate::Open(connection) => connection,
            ConnectionFate::Drain(connection) => {
                self.drain(connection);
                return None;
            }
            ConnectionFate::Unsent(unsent) => {
                self.idle.park(WaitingConnection::ForWritable(unsent));
                return None;
            }
            ConnectionFate::Gone => return None,
        };
        let mut arrival = connection.next_head();
        if matches!(arrival, Arrival::Unfinished) && !self.pool.has_waiting() {
            self.linger(|waits| {
                if waits {
                    arrival = connection.linger();
                }
            });
        }
        match arrival {
            Arrival::Head(head) => return Some(Job::Serve(Box::new(Exchange::new(connection, head)))),
            Arrival::Unfinished => self.idle.park(WaitingConnection::ForRequest(connection)),
            Arrival::Refused(error) => self.refuse(connection, &error),
            Arrival::End => {}
        }
        None
    }

    fn drain(&self, connection: Connection) {
        connection.socket.end();
        self.idle.park(WaitingConnection::for_end(connection));
    }

    /// Refuses bytes that are not a valid request.
    fn refuse(&self, connection: Connection, error: &ApiError) {
        let _ = connection.socket.write_now(&refusal(&connection.buffer, error));
        self.shared.refused(&refusals::asked(&connection.buffer), String::new(), "", error);
        self.drain(connection);
    }

    /// Answers a request, or returns it if it is to be forwarded.
    // Not inlined, so that its stack frame isn't kept for as long as an answer streams; the same goes for others here.
    #[inline(never)]
    fn answer(&self, mut exchange: Box<Exchange>) -> Step {
        let snapshot = self.shared.live.snapshot();
        match self.receive(&mut exchange, &snapshot.settings) {
            Ok(true) => {}
            Ok(false) => {
                self.idle.park(WaitingConnection::for_body(exchange));
                return Err(ConnectionFate::Gone);
            }
            Err(error) => {
                let reply = self.shared.refusal(&exchange.head, &error);
                return Err(exchange.reply(reply));
            }
        }
        match self.reply_here(&mut exchange, &snapshot) {
            Some(reply) => Err(exchange.reply(reply)),
            None => self.enter(exchange, snapshot),
        }
    }

    /// Checks a request, once, and reads what has arrived of its body. Returns whether the body is complete.
    fn receive(&self, exchange: &mut Exchange, settings: &Settings) -> Result<bool, ApiError> {
        let in_flight = &self.shared.in_flight;
        if exchange.begun.is_none() {
            if in_flight.is_stopping() {
                return Err(ApiError::stopping().with("connection", "close"));
            }
            exchange.begun = Some(in_flight.count());
            access::check(exchange, settings)?;
            if exchange.head.wants_websocket {
                return Err(ApiError::no_websockets());
            }
            routes::check(exchange, settings.listen.port)?;
        }
        self.linger(|waits| exchange.read_body(settings.max_body_bytes, &self.shared.spare, waits))
    }

    /// Tells `read` whether it may wait a moment for its connection.
    fn linger<R>(&self, read: impl FnOnce(bool) -> R) -> R {
        let waits = self.lingering.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING;
        let blocking = waits.then(|| self.pool.blocking());
        let read = read(waits);
        drop(blocking);
        self.lingering.fetch_sub(1, Ordering::Relaxed);
        read
    }

    /// Answers a request that needs no upstream; `None` if the request is to be forwarded.
    fn reply_here(&self, exchange: &mut Exchange, snapshot: &Arc<Snapshot>) -> Option<Reply> {
        if access::is_preflight(exchange) {
            return Some(access::preflight(exchange));
        }
        let Some(routed) = &exchange.head.route else {
            return Some(match exchange.head.path.as_str() {
                "/health" => panel::health(&self.shared),
                "/" => panel::front_page(&self.shared),
                _ => panel::answer(&self.shared, exchange, snapshot),
            });
        };
        match routed.route.action {
            Action::Local(answer) => {
                let body = std::mem::take(&mut exchange.body);
                Some(match answer(body, &self.shared.address_of(&exchange.head)) {
                    Ok(answer) => Reply::json(200, answer),
                    Err(error) => self.shared.refusal(&exchange.head, &error),
                })
            }
            // Without a slot, unless the list has to be waited for.
            Action::List(..) | Action::Show(_) => tell_models(&self.shared, exchange, snapshot, false),
            Action::Translate(translated) => {
                let body = std::str::from_utf8(&exchange.body).ok()?;
                Some(Reply::json(200, translated.without_a_model(body)?))
            }
            _ => None,
        }
    }

    /// Takes a slot for a request, or has it wait in the queue for one.
    fn enter(&self, exchange: Box<Exchange>, snapshot: Arc<Snapshot>) -> Step {
        if self.gate_sleeps.load(Ordering::Relaxed) {
            self.gate_sleeps.store(false, Ordering::SeqCst);
            self.shared.gate.look_again();
        }
        let in_flight = self.shared.in_flight.begin(exchange.socket().ok_or(ConnectionFate::Gone)?);
        let call = match (snapshot.settings.reuse.is_zero(), asked(&exchange)) {
            (false, Some(asked)) => begin_reusing(&self.shared, asked, exchange, &snapshot, in_flight)?,
            // Begun now, so that the panel shows what was asked while the request waits.
            (true, Some(asked)) if snapshot.debug && self.slots.are_taken() => {
                let relay = Relay::begin(&self.shared, asked, exchange, Arc::clone(&snapshot), in_flight)?;
                Call::Begun(relay, Wake::Answer(None))
            }
            _ => Call::New(exchange, in_flight),
        };
        if let Call::Begun(relay, _) = &call
            && self.slots.are_taken()
        {
            relay.report(Some(Waiting::Place));
        }
        match self.slots.enter(call) {
            Entry::Admitted(call) => Ok((call, snapshot)),
            Entry::Full(Call::New(exchange, in_flight)) => {
                drop(in_flight);
                let reply = self.shared.refusal(&exchange.head, &ApiError::queue_is_full());
                Err(exchange.reply(reply))
            }
            Entry::Full(Call::Begun(relay, _)) => Err(relay.refuse(ApiError::queue_is_full())),
            Entry::Waits => Err(ConnectionFate::Gone),
        }
    }

    /// Forwards a request that has a slot. Returns the next job of this thread.
    fn forward(self: &Arc<Self>, call: Call, snapshot: Option<Arc<Snapshot>>) -> Option<Job> {
        let server = Arc::clone(self);
        slot::take(move || server.give_slot_up());
        let slot_guard = SlotGuard(self);
        let blocking = self.pool.blocking();
        self.make_room(2);
        let after = match call {
            Call::New(exchange, in_flight) => {
                let snapshot = snapshot.unwrap_or_else(|| self.shared.live.snapshot());
                forward_new(&self.shared, exchange, snapshot, in_flight)
            }
            Call::Begun(relay, wake) => relay.resume(wake),
        };
        drop(blocking);
        match slot_guard.leave() {
            // The request that gets the slot has waited for longer than this connection's next request.
            Some(call) => {
                self.follow(after);
                Some(Job::Forward(call))
            }
            None => self.next_request(after),
        }
    }

    fn leave_slot(&self) -> Option<Call> {
        if slot::leave() {
            self.slots.leave()
        } else {
            self.stuck.fetch_sub(1, Ordering::SeqCst);
            None
        }
    }

    /// Gives the slot of this thread, which waits for its client, to another request. Returns false if too many threads
    /// wait like this: the rest of the threads is for other work.
    fn give_slot_up(self: &Arc<Self>) -> bool {
        if self.stuck.fetch_add(1, Ordering::SeqCst) >= MAX_BLOCKED_THREADS {
            self.stuck.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        self.slot(self.slots.leave());
        true
    }

    /// Ends requests whose clients have left, or that were cancelled otherwise, while they waited for a slot.
    fn abandon_those_who_left(self: &Arc<Self>) {
        for call in self.slots.take_out(Call::is_cut_off) {
            let shared = Arc::clone(&self.shared);
            self.give(Job::Finish(Box::new(move || call.abandon(&shared))));
        }
    }

    /// Gives requests that wait for the account's limit back to the workers, and cleans up. Runs in the gate thread.
    fn keep_gate(self: &Arc<Self>) {
        let shared = &self.shared;
        let rules = || {
            let settings = &shared.live.snapshot().settings;
            (settings.max_wait, settings.key.clone())
        };
        let (mut activity, mut looks) = (0, 0);
        loop {
            let now = shared.in_flight.activity();
            looks = if now == activity && shared.gate.waiting() == 0 { looks + 1 } else { 0 };
            activity = now;
            if looks > IDLE_ROUNDS_BEFORE_SLEEP && !shared.refusals.has_more_to_report() {
                self.gate_sleeps.store(true, Ordering::SeqCst);
                shared.gate.sleep_while(|| self.gate_sleeps.load(Ordering::SeqCst));
            }
            match shared.gate.next(GATE_INTERVAL, rules, |relay| relay.is_cancelled()) {
                Some(Next::Go(relay, pass, waited)) => {
                    self.requeue(Call::Begun(relay, Wake::Allowed(pass, waited)));
                }
                Some(Next::TooLate(relay, limit, waited)) => {
                    let wake = Wake::TooLate(limit, waited);
                    if shared.live.snapshot().settings.backups.is_empty() {
                        self.give(Job::Finish(Box::new(move || relay.resume(wake))));
                    } else {
                        self.requeue(Call::Begun(relay, wake)); // a backup may answer it
                    }
                }
                Some(Next::Unwanted(relay)) => self.give(Job::Finish(Box::new(move || relay.abandon()))),
                None => {}
            }
            shared.spare.forget_old();
            shared.refusals.report_repeats();
            let snapshot = shared.live.snapshot();
            snapshot.upstream.close_old();
            snapshot.backups.iter().for_each(|backup| backup.close_old());
            shared.reuse.answers.tidy(snapshot.settings.reuse, shared.calls.files());
        }
    }
}

impl Server {
    /// Gives requests whose pause before the next attempt is over back to the workers.
    fn end_pauses(self: &Arc<Self>) {
        loop {
            let relay = self.shared.pauses.next(|relay| relay.is_cancelled());
            if relay.is_cancelled() {
                self.give(Job::Finish(Box::new(move || relay.abandon())));
            } else {
                self.requeue(Call::Begun(relay, Wake::PauseOver));
            }
        }
    }
}

/// The slot of this thread, which is freed whatever happens.
struct SlotGuard<'a>(&'a Arc<Server>);

impl SlotGuard<'_> {
    /// Frees the slot. Returns the request that has it next.
    fn leave(self) -> Option<Call> {
        let server = self.0;
        std::mem::forget(self);
        server.leave_slot()
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        self.0.slot(self.0.leave_slot());
    }
}

/// Forwards a request that is new: to the upstream, or to the lists of models.
#[inline(never)]
fn forward_new(
    shared: &Arc<Shared>,
    exchange: Box<Exchange>,
    snapshot: Arc<Snapshot>,
    in_flight: InFlightGuard,
) -> ConnectionFate {
    // For the tests of what a panic does to a request; not in the release build.
    #[cfg(debug_assertions)]
    assert!(exchange.head.header("x-test-panic").is_none(), "asked for by a test");
    let Some(asked) = asked(&exchange) else {
        let reply = tell_models(shared, &exchange, &snapshot, true);
        let reply = reply.unwrap_or_else(|| Reply::refusal(&exchange.head, &ApiError::internal()));
        return exchange.reply(reply);
    };
    match Relay::begin(shared, asked, exchange, snapshot, in_flight) {
        Ok(relay) => relay.run(),
        Err(after) => after,
    }
}

/// Begins a request that may get an existing answer. If it is answered, or waits for the answer of another request, the
/// error is what became of its connection.
#[inline(never)]
fn begin_reusing(
    shared: &Arc<Shared>,
    asked: Asked,
    exchange: Box<Exchange>,
    snapshot: &Arc<Snapshot>,
    in_flight: InFlightGuard,
) -> Result<Call, ConnectionFate> {
    let cache_control = CacheControl::of(&exchange.head);
    let relay = Relay::begin(shared, asked, exchange, Arc::clone(snapshot), in_flight)?;
    match relay.reuse(cache_control) {
        Reused::Call(relay, source) => Ok(Call::Begun(relay, Wake::Answer(source))),
        Reused::Done(after) => Err(after),
    }
}

/// The API in which the upstream is asked, and the route by which the client asked.
type Asked = (&'static dyn Dialect, Routed);

/// Returns the API in which a model is asked; `None` if the request asks no model.
fn asked(exchange: &Exchange) -> Option<Asked> {
    let routed = exchange.head.route.as_ref()?;
    Some((routed.route.action.native()?, routed.clone()))
}

/// Answers with the list of models, or with one model of it; `None` if the list would have to be waited for, and
/// `may_wait` is false.
#[inline(never)]
fn tell_models(
    shared: &Arc<Shared>,
    exchange: &Exchange,
    snapshot: &Snapshot,
    may_wait: bool,
) -> Option<Reply> {
    let Exchange { head, body, .. } = exchange;
    let routed = head.route.as_ref()?;
    let told = match routed.route.action {
        Action::List(path, write) => {
            Ok(shared.models.list(path, head.query.as_deref(), snapshot, may_wait, write)?)
        }
        Action::Show(show) => {
            let named = match show.named_in {
                Some(named_in) => named_in(body),
                None => Ok(routed.model(&head.path)),
            };
            match named {
                Ok(asked) => shared.models.show(snapshot, may_wait, show, &asked)?,
                Err(error) => Err(error),
            }
        }
        _ => Err(ApiError::internal()), // nothing else gets here
    };
    Some(told.unwrap_or_else(|error| Reply::refusal(head, &error)))
}
