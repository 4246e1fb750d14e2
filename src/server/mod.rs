//! From a client's connection to the thread that answers it.
//!
//! The [`poller`] hands a connection whose next head is complete to a thread of the [`pool`]. The thread checks the head,
//! reads the body, and answers; what goes to the upstream needs a place among the `WORKERS` first ([`seats`]). Then it
//! stays for a moment, as a busy client's next request comes at once, and gives the connection back; so it does where the
//! rest of a body stays away. What people look at is in [`panel`].
//!
//! May import everything but `start`.

pub mod panel;
mod poller;
pub mod pool;
mod routes;
pub mod seats;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use mio::Poll;

use crate::client::access;
use crate::client::connection::{Arrival, Connection};
use crate::client::exchange::{After, BodyError, Exchange, Reply, refusal};
use crate::client::idle::{Idle, Parked};
use crate::client::listen;
use crate::client::seat;
use crate::client::socket::CLIENT_TIMEOUT;
use crate::dialect::{self, messages, ollama};
use crate::error::ApiError;
use crate::live::{Live, Snapshot};
use crate::record::calls::Calls;
use crate::record::refusals;
use crate::relay::gate::{Limit, Next, Pass};
use crate::relay::life::UnderWay;
use crate::relay::reuse::{Reused, Wish};
use crate::relay::shared::{Shared, Waiter};
use crate::relay::{Api, Relay};
use crate::settings::{Listen, Settings};
use poller::Poller;
use pool::Pool;
use seats::{Entry, Seats};

/// Threads that may wait for clients that have stopped reading, beside the `WORKERS`.
const MAX_STUCK: usize = 512;
/// Threads for what takes no time: health, refusals, bodies that come without a pause.
const SPARE_THREADS: usize = 32;
/// Threads that may stay with their connections for a moment; with more connections than that, it is no use.
const MAX_LINGERING: usize = 32;
/// How often the gate's thread looks at the settings.
const GATE_INTERVAL: Duration = Duration::from_millis(250);

/// What a thread of the pool does next.
enum Job {
    /// Answer this request, and those that follow it.
    Serve(Box<Exchange>),
    /// Forward one that has its place now.
    Seated(Call),
    /// Tell one that its wait was for nothing.
    Tell(Box<dyn FnOnce() -> After + Send>),
}

/// A request on its way to the upstream.
enum Call {
    New(Box<Exchange>, UnderWay),
    /// One that has been understood, and may have its answer already.
    Begun(Box<dyn Waiter>),
    /// One that has waited for the account's limit.
    Resumed(Box<dyn Waiter>, Pass, Duration),
    /// One for which that lasts too long: a backup may answer it.
    TooLate(Box<dyn Waiter>, Limit, Duration),
}

impl Call {
    /// Its client has left, or the program stops.
    fn is_cut_off(&self) -> bool {
        match self {
            Self::New(_, under_way) => under_way.cutter().reason().is_some(),
            Self::Begun(relay) | Self::Resumed(relay, ..) | Self::TooLate(relay, ..) => relay.is_cut_off(),
        }
    }

    /// Ends one that is cut off.
    fn abandon(self, shared: &Arc<Shared>) -> After {
        match self {
            Self::New(exchange, under_way) => match Api::of(&exchange.head.path) {
                Some(api) => match Relay::begin(shared, api, exchange, shared.live.snapshot(), under_way) {
                    Ok(relay) => relay.abandon(),
                    Err(after) => after,
                },
                None => {
                    exchange.forget();
                    After::Gone
                }
            },
            Self::Begun(relay) | Self::Resumed(relay, ..) | Self::TooLate(relay, ..) => relay.abandon(),
        }
    }
}

/// What has become of a request that a thread looked at.
enum Step {
    /// It has a place, and goes to the upstream.
    Forward(Call, Arc<Snapshot>),
    /// It is answered, refused, or waits for a place.
    Done(After),
}

/// Serves.
struct Server {
    shared: Arc<Shared>,
    idle: Arc<Idle>,
    pool: Pool<Job>,
    seats: Seats<Call>,
    stuck: AtomicUsize,
    lingering: AtomicUsize,
    /// For the threads of the pool, which outlive nobody.
    this: Weak<Self>,
}

/// Starts all threads that serve these sockets. What they share is for whoever stops them.
pub fn start(live: Arc<Live>, calls: Calls, listeners: Vec<TcpListener>) -> io::Result<Arc<Shared>> {
    let poll = Poll::new()?;
    let idle = Arc::new(Idle::new(poll.registry())?);
    let Listen { workers, queue, .. } = live.snapshot().settings.listen;
    let port = listen::port(&listeners);
    let shared = Arc::new(Shared::new(live, calls, Arc::clone(&idle), port));
    let server = Arc::new_cyclic(|this: &Weak<Server>| {
        let at_work = Weak::clone(this);
        let work = move |job| {
            if let Some(server) = at_work.upgrade() {
                server.work(job);
            }
        };
        Server {
            shared: Arc::clone(&shared),
            idle: Arc::clone(&idle),
            pool: Pool::new(workers + MAX_STUCK + SPARE_THREADS, work),
            seats: Seats::new(workers, queue),
            stuck: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            this: Weak::clone(this),
        }
    });
    let resumes = Arc::downgrade(&server);
    shared.reuse.resume_by(move |relay| {
        if let Some(server) = resumes.upgrade() {
            server.resume(relay);
        }
    });
    shared.calls.look_back(&shared.live.snapshot());
    let gatekeeper = Arc::clone(&server);
    thread::Builder::new().name("gate".into()).spawn(move || gatekeeper.keep_gate())?;
    Poller::start(server, idle, poll, listeners)?;
    Ok(shared)
}

impl Server {
    /// Has a thread answer a request of which all of the head, or more of the body, has come.
    fn serve(&self, exchange: Box<Exchange>) {
        self.pool.give(Job::Serve(exchange));
    }

    /// Nothing more of a request's body has come for too long.
    fn give_up_waiting(&self, exchange: Box<Exchange>) {
        let error = match self.shared.life.is_stopping() {
            true => ApiError::stopping(),
            false => ApiError::stalled_body(CLIENT_TIMEOUT),
        };
        let reply = self.shared.refusal(&exchange.head, &error.with("connection", "close"));
        self.pool.give(Job::Tell(Box::new(move || exchange.reply(reply))));
    }

    /// Closes idle connections where descriptors are short of so many.
    fn make_room(&self, more: usize) {
        self.idle.make_room(self.shared.open_to_upstream(), more);
    }

    fn work(&self, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            next = match job {
                Job::Serve(exchange) => match self.answer(exchange) {
                    Step::Forward(call, snapshot) => self.forward(call, Some(snapshot)),
                    Step::Done(after) => self.stay(after),
                },
                // The settings may have changed while it waited.
                Job::Seated(call) => self.forward(call, None),
                Job::Tell(tell) => self.stay(tell()),
            };
        }
    }

    /// Stays with a connection for its next request, or gives it back.
    fn stay(&self, after: After) -> Option<Job> {
        self.next_request(after, Connection::linger)
    }

    /// Gives a connection back, unless its next request has come already.
    fn give_back(&self, after: After) {
        if let Some(job) = self.next_request(after, |_| Arrival::Unfinished) {
            self.pool.give(job);
        }
    }

    #[inline(never)]
    fn next_request(&self, after: After, linger: fn(&mut Connection) -> Arrival) -> Option<Job> {
        let mut connection = match after {
            After::Open(connection) => connection,
            After::Drain(connection) => {
                self.drain(connection);
                return None;
            }
            After::Gone => return None,
        };
        let mut arrival = connection.next_head();
        if let Arrival::Unfinished = arrival {
            if self.lingering.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING {
                arrival = linger(&mut connection);
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
        connection.socket.write_now(&refusal(&connection.buffer, error));
        self.shared.refused(&refusals::asked(&connection.buffer), "", error);
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
                return Step::Done(After::Gone);
            }
            Err(error) => {
                let reply = self.shared.refusal(&exchange.head, &error);
                return Step::Done(exchange.reply(reply));
            }
        }
        match self.reply_here(&mut exchange, &snapshot) {
            Some(reply) => Step::Done(exchange.reply(reply)),
            None => self.enter(exchange, snapshot),
        }
    }

    /// Checks a request, once, and reads what has come of its body. Whether it is whole.
    fn receive(&self, exchange: &mut Exchange, settings: &Settings) -> Result<bool, ApiError> {
        let life = &self.shared.life;
        if exchange.begun.is_none() {
            if life.is_stopping() {
                return Err(ApiError::stopping().with("connection", "close"));
            }
            exchange.begun = Some(life.count());
            check(exchange, settings)?;
            routes::check(exchange, settings.listen.port)?;
        }
        let waits = self.lingering.fetch_add(1, Ordering::Relaxed) < MAX_LINGERING;
        let read = exchange.read_body(settings.max_body_bytes, &self.shared.spare, waits);
        self.lingering.fetch_sub(1, Ordering::Relaxed);
        read.map_err(|error| match error {
            BodyError::TooLarge => ApiError::body_too_large(settings.max_body_bytes >> 20),
            BodyError::Broken => ApiError::broken_body(),
            BodyError::Undecodable => ApiError::undecodable_body(),
        })
    }

    /// What needs no upstream. `None` once the request is ready to be forwarded.
    fn reply_here(&self, exchange: &mut Exchange, snapshot: &Arc<Snapshot>) -> Option<Reply> {
        if access::is_preflight(exchange) {
            return Some(access::preflight(exchange));
        }
        match exchange.head.path.as_str() {
            "/health" => Some(panel::health(&self.shared)),
            "/" => Some(panel::front_page(&self.shared)),
            messages::COUNT_PATH => Some(self.count_tokens(exchange)),
            "/api/version" => Some(Reply::json(200, ollama::VERSION)),
            "/api/ps" => Some(Reply::json(200, ollama::RUNNING)),
            path if routes::needs_worker(path) => without_a_model(path, &exchange.body),
            _ => Some(panel::answer(&self.shared, exchange, snapshot)),
        }
    }

    fn count_tokens(&self, exchange: &mut Exchange) -> Reply {
        let body = std::mem::take(&mut exchange.body);
        match messages::count_tokens(body, &self.shared.address_of(&exchange.head)) {
            Ok(count) => Reply::json(200, count),
            Err(error) => self.shared.refusal(&exchange.head, &error),
        }
    }

    /// Takes a place for a request, or has it wait for one.
    fn enter(&self, exchange: Box<Exchange>, snapshot: Arc<Snapshot>) -> Step {
        let Some(socket) = exchange.socket() else {
            return Step::Done(After::Gone);
        };
        let under_way = self.shared.life.begin(socket);
        let call = match (snapshot.settings.reuse.is_zero(), Api::of(&exchange.head.path)) {
            (false, Some(api)) => match begin_reusing(&self.shared, api, exchange, &snapshot, under_way) {
                Ok(relay) => Call::Begun(relay),
                Err(after) => return Step::Done(after),
            },
            _ => Call::New(exchange, under_way),
        };
        match self.seats.enter(call) {
            Entry::Seated(call) => Step::Forward(call, snapshot),
            Entry::Waits => Step::Done(After::Gone),
            Entry::Full(Call::New(exchange, under_way)) => {
                drop(under_way);
                let reply = self.shared.refusal(&exchange.head, &ApiError::queue_is_full());
                Step::Done(exchange.reply(reply))
            }
            Entry::Full(Call::Begun(relay)) => Step::Done(relay.refuse(ApiError::queue_is_full())),
            Entry::Full(Call::Resumed(..) | Call::TooLate(..)) => Step::Done(After::Gone),
        }
    }

    /// Forwards a request that has a place. What this thread does next.
    fn forward(&self, call: Call, snapshot: Option<Arc<Snapshot>>) -> Option<Job> {
        let this = Weak::clone(&self.this);
        seat::take(move || this.upgrade().is_some_and(|server| server.give_seat_up()));
        let seated = Seated(self);
        self.make_room(2);
        let after = match call {
            Call::New(exchange, under_way) => {
                let snapshot = snapshot.unwrap_or_else(|| self.shared.live.snapshot());
                forward_new(&self.shared, exchange, snapshot, under_way)
            }
            Call::Begun(relay) => relay.join(),
            Call::Resumed(relay, pass, waited) => relay.resume(pass, waited),
            Call::TooLate(relay, limit, waited) => relay.give_up(limit, waited),
        };
        match seated.leave() {
            // Whoever waits for the place has waited for longer than this connection's next request.
            Some(call) => {
                self.give_back(after);
                Some(Job::Seated(call))
            }
            None => self.stay(after),
        }
    }

    fn leave_seat(&self) -> Option<Call> {
        match seat::leave() {
            true => self.seats.leave(),
            false => {
                self.stuck.fetch_sub(1, Ordering::SeqCst);
                None
            }
        }
    }

    /// The thread waits for its client; another one goes on in its place, unless too many wait so: the rest of the threads
    /// is for others.
    fn give_seat_up(&self) -> bool {
        if self.stuck.fetch_add(1, Ordering::SeqCst) >= MAX_STUCK {
            self.stuck.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if let Some(call) = self.seats.leave() {
            self.pool.give(Job::Seated(call));
        }
        true
    }

    /// A request that was parked goes on.
    fn resume(&self, relay: Box<dyn Waiter>) {
        if let Some(call) = self.seats.come_back(Call::Begun(relay)) {
            self.pool.give(Job::Seated(call));
        }
    }

    /// Those whose clients have left while they waited for a place needn't wait for it.
    fn tell_those_who_left(&self) {
        for call in self.seats.take_out(Call::is_cut_off) {
            let shared = Arc::clone(&self.shared);
            self.pool.give(Job::Tell(Box::new(move || call.abandon(&shared))));
        }
    }

    /// Gives those who wait for the account's limit back to the workers.
    fn keep_gate(&self) {
        let shared = &self.shared;
        let rules = || {
            let settings = &shared.live.snapshot().settings;
            (settings.max_wait, settings.key.clone())
        };
        loop {
            match shared.gate.next(GATE_INTERVAL, rules, |relay| relay.is_cut_off()) {
                Some(Next::Go(relay, pass, waited)) => {
                    if let Some(call) = self.seats.come_back(Call::Resumed(relay, pass, waited)) {
                        self.pool.give(Job::Seated(call));
                    }
                }
                Some(Next::TooLate(relay, limit, waited)) => {
                    let tells_only = shared.live.snapshot().settings.backups.is_empty();
                    if tells_only {
                        self.pool.give(Job::Tell(Box::new(move || relay.give_up(limit, waited))));
                    } else if let Some(call) = self.seats.come_back(Call::TooLate(relay, limit, waited)) {
                        self.pool.give(Job::Seated(call));
                    }
                }
                Some(Next::Unwanted(relay)) => self.pool.give(Job::Tell(Box::new(move || relay.abandon()))),
                None => {}
            }
            shared.spare.forget_old();
            shared.refusals.tell_of_more();
            let snapshot = shared.live.snapshot();
            snapshot.upstream.close_old();
            snapshot.backups.iter().for_each(|backup| backup.close_old());
            shared.reuse.answers.tidy(snapshot.settings.reuse, shared.calls.files());
        }
    }
}

/// This thread has a place, which is freed whatever happens.
struct Seated<'a>(&'a Server);

impl Seated<'_> {
    /// Who has the place next.
    fn leave(self) -> Option<Call> {
        let server = self.0;
        std::mem::forget(self);
        server.leave_seat()
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.0.leave_seat() {
            self.0.pool.give(Job::Seated(call));
        }
    }
}

/// All that can be refused before the body is read.
fn check(exchange: &mut Exchange, settings: &Settings) -> Result<(), ApiError> {
    access::check(exchange, settings)?;
    match exchange.head.wants_websocket {
        true => Err(ApiError::no_websockets()),
        false => Ok(()),
    }
}

/// What needs the upstream.
#[inline(never)]
fn forward_new(
    shared: &Arc<Shared>,
    exchange: Box<Exchange>,
    snapshot: Arc<Snapshot>,
    under_way: UnderWay,
) -> After {
    // So that the tests can see what becomes of one; not in the release build.
    #[cfg(debug_assertions)]
    assert!(exchange.head.header("x-test-panic").is_none(), "asked for by a test");
    let Some(api) = Api::of(&exchange.head.path) else {
        return list_models(shared, *exchange, &snapshot);
    };
    match Relay::begin(shared, api, exchange, snapshot, under_way) {
        Ok(relay) => relay.run(),
        Err(after) => after,
    }
}

/// A request whose answer may be there already. What has become of it, where it was.
#[inline(never)]
fn begin_reusing(
    shared: &Arc<Shared>,
    api: Api,
    exchange: Box<Exchange>,
    snapshot: &Arc<Snapshot>,
    under_way: UnderWay,
) -> Result<Box<Relay>, After> {
    let wish = Wish::of(&exchange.head);
    let relay = Relay::begin(shared, api, exchange, Arc::clone(snapshot), under_way)?;
    match relay.reuse(wish) {
        Reused::Call(relay) => Ok(relay),
        Reused::Done(after) => Err(after),
    }
}

/// The answer where nothing is asked of a model.
fn without_a_model(path: &str, body: &[u8]) -> Option<Reply> {
    let answer = dialect::face_of(path)?.without_a_model(std::str::from_utf8(body).ok()?)?;
    Some(Reply::json(200, answer))
}

#[inline(never)]
fn list_models(shared: &Arc<Shared>, exchange: Exchange, snapshot: &Snapshot) -> After {
    let anthropic = exchange.head.header("anthropic-version").is_some();
    let path = exchange.head.path.as_str();
    let reply = match (path, path.strip_prefix("/models/")) {
        ("/api/tags", _) => shared.models.tags(snapshot),
        ("/api/show", _) => shared.models.show(snapshot, &exchange.body),
        (_, None) => shared.models.list(snapshot, anthropic),
        (_, Some(id)) => shared.models.one(snapshot, id, anthropic),
    };
    exchange.reply(reply)
}
