//! From a client's connection to the thread that answers it.
//!
//! The [`poller`] hands a connection whose next head is complete to a thread of the [`pool`]. The thread checks the head,
//! reads the body, and answers; what goes to the upstream needs a place among the `WORKERS` first ([`slots`]). Then it
//! stays for a moment, as a busy client's next request comes at once, and gives the connection back; so it does where the
//! rest of a body stays away. What people look at is in [`panel`].
//!
//! May import everything but `start`.

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
use crate::client::idle::{Idle, Parked};
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

/// Threads that may wait for clients that have stopped reading, beside the `WORKERS`.
const MAX_STUCK: usize = 512;
/// Threads for what takes no time: health, refusals, bodies that come without a pause.
const SPARE_THREADS: usize = 32;
/// Threads that may stay with their connections for a moment; with more connections than that, it is no use.
const MAX_LINGERING: usize = 32;
/// How often the gate's thread looks at the settings, for those who wait, and tidies up.
const GATE_INTERVAL: Duration = Duration::from_millis(250);
/// After so many looks without a request there is nothing left to tidy up: it sleeps until the next one.
const LOOKS_WITHOUT_A_REQUEST: u32 = 320;

/// What a thread of the pool does next.
enum Job {
    /// Answer this request, and those that follow it.
    Serve(Box<Exchange>),
    /// Forward one that has its place now.
    Forward(Call),
    /// Tell one that its wait was for nothing.
    Finish(Box<dyn FnOnce() -> ConnectionFate + Send>),
}

/// A request on its way to the upstream.
enum Call {
    New(Box<Exchange>, InFlightGuard),
    /// One that has been understood, and has waited, or may have its answer already.
    Begun(Box<dyn ParkedRelay>, Wake),
}

impl Call {
    /// Its client has left, or the program stops.
    fn is_cut_off(&self) -> bool {
        match self {
            Self::New(_, in_flight) => in_flight.cancel().reason().is_some(),
            Self::Begun(relay, _) => relay.is_cancelled(),
        }
    }

    /// Ends one that is cut off.
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

/// A request that has a place, and the settings that it goes by. Else what has become of it: it is answered, refused, or
/// waits.
type Step = Result<(Call, Arc<Snapshot>), ConnectionFate>;

/// Serves.
struct Server {
    shared: Arc<Shared>,
    idle: Arc<Idle>,
    pool: Pool<(Arc<Self>, Job)>,
    slots: Slots<Call>,
    stuck: AtomicUsize,
    lingering: AtomicUsize,
    /// The gate's thread is to be woken by the next request.
    gate_sleeps: AtomicBool,
}

/// Starts all threads that serve these sockets. What they share is for whoever stops them.
pub fn start(live: Arc<Live>, calls: Calls, listeners: Vec<TcpListener>) -> io::Result<Arc<Shared>> {
    let poll = Poll::new()?;
    let idle = Arc::new(Idle::new(poll.registry())?);
    let Listen { workers, queue, .. } = live.snapshot().settings.listen;
    let port = listen::port(&listeners);
    let shared = Arc::new(Shared::new(live, calls, Arc::clone(&idle), port));
    let threads = workers + MAX_STUCK + SPARE_THREADS;
    let server = Arc::new(Server {
        shared: Arc::clone(&shared),
        idle: Arc::clone(&idle),
        pool: Pool::new(threads, |(server, job)| Server::work(&server, job)),
        slots: Slots::new(workers, queue),
        stuck: AtomicUsize::new(0),
        lingering: AtomicUsize::new(0),
        gate_sleeps: AtomicBool::new(false),
    });
    // It lives as long as the program.
    let resumes = Arc::clone(&server);
    shared.resume_by(move |relay, wake| resumes.come_back(Call::Begun(relay, wake)));
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
    /// Has a thread answer a request of which all of the head, or more of the body, has come.
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

    /// Has a thread forward the one that has a place now, if there is one.
    fn slot(self: &Arc<Self>, call: Option<Call>) {
        if let Some(call) = call {
            self.give(Job::Forward(call));
        }
    }

    /// Forwards one that has waited elsewhere, as soon as there is a place.
    fn come_back(self: &Arc<Self>, call: Call) {
        self.slot(self.slots.come_back(call));
    }

    /// Nothing more of a request's body has come for too long.
    fn give_up_waiting(self: &Arc<Self>, exchange: Box<Exchange>) {
        let error = if self.shared.in_flight.is_stopping() {
            ApiError::stopping()
        } else {
            ApiError::stalled_body(CLIENT_TIMEOUT)
        };
        let reply = self.shared.refusal(&exchange.head, &error.with("connection", "close"));
        self.give(Job::Finish(Box::new(move || exchange.reply(reply))));
    }

    /// Closes idle connections where descriptors are short of so many.
    fn make_room(&self, more: usize) {
        self.idle.make_room(self.shared.open_to_upstream(), more);
    }

    fn work(self: &Arc<Self>, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            next = match job {
                Job::Serve(exchange) => match self.answer(exchange) {
                    Ok((call, snapshot)) => self.forward(call, Some(snapshot)),
                    Err(after) => self.next_request(after, true),
                },
                // The settings may have changed while it waited.
                Job::Forward(call) => self.forward(call, None),
                Job::Finish(finish) => self.next_request(finish(), true),
            };
        }
    }

    /// Gives a connection back, unless its next request has come already; or `stays` with it for a moment before.
    #[inline(never)]
    fn next_request(&self, after: ConnectionFate, stays: bool) -> Option<Job> {
        let mut connection = match after {
            ConnectionFate::Open(connection) => connection,
            ConnectionFate::Drain(connection) => {
                self.drain(connection);
                return None;
            }
            ConnectionFate::Unsent(unsent) => {
                self.idle.park(Parked::ForRoom(unsent));
                return None;
            }
            ConnectionFate::Gone => return None,
        };
        let mut arrival = connection.next_head();
        if let (Arrival::Unfinished, true) = (&arrival, stays) {
            if self.lingering.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING {
                arrival = connection.linger();
            }
            self.lingering.fetch_sub(1, Ordering::Relaxed);
        }
        match arrival {
            Arrival::Head(head) => return Some(Job::Serve(Box::new(Exchange::new(connection, head)))),
            Arrival::Unfinished => self.idle.park(Parked::ForRequest(connection)),
            Arrival::Refused(error) => self.refuse(connection, &error),
            Arrival::End => {}
        }
        None
    }

    fn drain(&self, connection: Connection) {
        connection.socket.end();
        self.idle.park(Parked::for_end(connection));
    }

    /// Refuses what isn't a request.
    fn refuse(&self, connection: Connection, error: &ApiError) {
        let _ = connection.socket.write_now(&refusal(&connection.buffer, error));
        self.shared.refused(&refusals::asked(&connection.buffer), String::new(), "", error);
        self.drain(connection);
    }

    /// Answers a request, unless it is to be forwarded.
    // Apart, so that its stack isn't kept for as long as an answer streams; so are others here.
    #[inline(never)]
    fn answer(&self, mut exchange: Box<Exchange>) -> Step {
        let snapshot = self.shared.live.snapshot();
        match self.receive(&mut exchange, &snapshot.settings) {
            Ok(true) => {}
            Ok(false) => {
                self.idle.park(Parked::for_body(exchange));
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

    /// Checks a request, once, and reads what has come of its body. Whether it is whole.
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
        let waits = self.lingering.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING;
        let read = exchange.read_body(settings.max_body_bytes, &self.shared.spare, waits);
        self.lingering.fetch_sub(1, Ordering::Relaxed);
        read
    }

    /// What needs no upstream. `None` once the request is ready to be forwarded.
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
            Action::Translate(translated) => {
                let body = std::str::from_utf8(&exchange.body).ok()?;
                Some(Reply::json(200, translated.without_a_model(body)?))
            }
            _ => None,
        }
    }

    /// Takes a place for a request, or has it wait for one.
    fn enter(&self, exchange: Box<Exchange>, snapshot: Arc<Snapshot>) -> Step {
        if self.gate_sleeps.load(Ordering::Relaxed) {
            self.gate_sleeps.store(false, Ordering::SeqCst);
            self.shared.gate.look_again();
        }
        let in_flight = self.shared.in_flight.begin(exchange.socket().ok_or(ConnectionFate::Gone)?);
        let call = match (snapshot.settings.reuse.is_zero(), asked(&exchange)) {
            (false, Some(asked)) => begin_reusing(&self.shared, asked, exchange, &snapshot, in_flight)?,
            // While it waits, the panel shows what was asked.
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

    /// Forwards a request that has a place. What this thread does next.
    fn forward(self: &Arc<Self>, call: Call, snapshot: Option<Arc<Snapshot>>) -> Option<Job> {
        let server = Arc::clone(self);
        slot::take(move || server.give_slot_up());
        let slot_guard = SlotGuard(self);
        self.make_room(2);
        let after = match call {
            Call::New(exchange, in_flight) => {
                let snapshot = snapshot.unwrap_or_else(|| self.shared.live.snapshot());
                forward_new(&self.shared, exchange, snapshot, in_flight)
            }
            Call::Begun(relay, wake) => relay.resume(wake),
        };
        match slot_guard.leave() {
            // Whoever waits for the place has waited for longer than this connection's next request.
            Some(call) => {
                if let Some(job) = self.next_request(after, false) {
                    self.give(job);
                }
                Some(Job::Forward(call))
            }
            None => self.next_request(after, true),
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

    /// The thread waits for its client; another one goes on in its place, unless too many wait so: the rest of the threads
    /// is for others.
    fn give_slot_up(self: &Arc<Self>) -> bool {
        if self.stuck.fetch_add(1, Ordering::SeqCst) >= MAX_STUCK {
            self.stuck.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        self.slot(self.slots.leave());
        true
    }

    /// Those whose clients have left while they waited for a place needn't wait for it.
    fn abandon_those_who_left(self: &Arc<Self>) {
        for call in self.slots.take_out(Call::is_cut_off) {
            let shared = Arc::clone(&self.shared);
            self.give(Job::Finish(Box::new(move || call.abandon(&shared))));
        }
    }

    /// Gives those who wait for the account's limit back to the workers.
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
            if looks > LOOKS_WITHOUT_A_REQUEST && !shared.refusals.has_more_to_report() {
                self.gate_sleeps.store(true, Ordering::SeqCst);
                shared.gate.sleep_while(|| self.gate_sleeps.load(Ordering::SeqCst));
            }
            match shared.gate.next(GATE_INTERVAL, rules, |relay| relay.is_cancelled()) {
                Some(Next::Go(relay, pass, waited)) => {
                    self.come_back(Call::Begun(relay, Wake::Allowed(pass, waited)));
                }
                Some(Next::TooLate(relay, limit, waited)) => {
                    let wake = Wake::TooLate(limit, waited);
                    if shared.live.snapshot().settings.backups.is_empty() {
                        self.give(Job::Finish(Box::new(move || relay.resume(wake))));
                    } else {
                        self.come_back(Call::Begun(relay, wake)); // a backup may answer it
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
    /// Gives those whose pause before the next try is over back to the workers.
    fn end_pauses(self: &Arc<Self>) {
        loop {
            let relay = self.shared.pauses.next(|relay| relay.is_cancelled());
            if relay.is_cancelled() {
                self.give(Job::Finish(Box::new(move || relay.abandon())));
            } else {
                self.come_back(Call::Begun(relay, Wake::PauseOver));
            }
        }
    }
}

/// This thread has a place, which is freed whatever happens.
struct SlotGuard<'a>(&'a Arc<Server>);

impl SlotGuard<'_> {
    /// Who has the place next.
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

/// What needs the upstream.
#[inline(never)]
fn forward_new(
    shared: &Arc<Shared>,
    exchange: Box<Exchange>,
    snapshot: Arc<Snapshot>,
    in_flight: InFlightGuard,
) -> ConnectionFate {
    // So that the tests can see what becomes of one; not in the release build.
    #[cfg(debug_assertions)]
    assert!(exchange.head.header("x-test-panic").is_none(), "asked for by a test");
    let Some(asked) = asked(&exchange) else {
        let reply = tell_models(shared, &exchange, &snapshot);
        return exchange.reply(reply);
    };
    match Relay::begin(shared, asked, exchange, snapshot, in_flight) {
        Ok(relay) => relay.run(),
        Err(after) => after,
    }
}

/// A request whose answer may be there already. What has become of it, where it was.
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

/// The API that the upstream is asked in, and where the client has asked.
type Asked = (&'static dyn Dialect, Routed);

/// What a model is asked in; `None` where none is.
fn asked(exchange: &Exchange) -> Option<Asked> {
    let routed = exchange.head.route.as_ref()?;
    Some((routed.route.action.native()?, routed.clone()))
}

/// The list of models, or one of it.
#[inline(never)]
fn tell_models(shared: &Arc<Shared>, exchange: &Exchange, snapshot: &Snapshot) -> Reply {
    let Exchange { head, body, .. } = exchange;
    let told = match head.route.as_ref().map(|routed| (routed, routed.route.action)) {
        Some((_, Action::List(path, write))) => {
            Ok(shared.models.list(path, head.query.as_deref(), snapshot, write))
        }
        Some((routed, Action::Show(show))) => {
            let named = match show.named_in {
                Some(named_in) => named_in(body),
                None => Ok(routed.model(&head.path)),
            };
            named.and_then(|asked| shared.models.show(snapshot, show, &asked))
        }
        _ => Err(ApiError::internal()), // nothing else gets here
    };
    told.unwrap_or_else(|error| Reply::refusal(head, &error))
}
