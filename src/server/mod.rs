//! From a connection's request to the thread that answers it.
//!
//! May import everything but `start`.
//!
//! One worker accepts, the others answer. When it has accepted a request and another worker is idle, that one goes on
//! accepting and the request is answered where it is: under no load a request wakes one thread, not two. The other one is
//! woken when the request is on its way to the upstream and there is nothing to do but to wait for the answer.

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::access;
use crate::client::exchange::{BodyError, Exchange, Reply};
use crate::client::listen::{self, Acceptor, CLIENT_TIMEOUT};
use crate::client::seat;
use crate::error::ApiError;
use crate::relay::Relay;
use crate::relay::gate::{Next, Pass};
use crate::relay::life::UnderWay;
use crate::relay::shared::{Shared, Waiter};
use crate::server::crew::Crew;
use crate::server::queue::{Offer, Place, Queue};
use crate::settings::Settings;
use crate::waiting;

pub mod crew;
pub mod panel;
pub mod presence;
pub mod queue;

/// Stack of a worker: TLS handshakes and JSON need a fraction of it, and only what is used takes memory.
const WORKER_STACK_BYTES: usize = 512 * 1024;
/// Uploads that may be read, and small answers that may be written, at once.
const MAX_CREW: usize = 1024;
/// Workers that may wait for clients that have stopped reading, beside as many others.
const MAX_STAND_INS: usize = 512;
/// How often the gate's thread looks at the settings and the clients of those who wait.
const GATE_INTERVAL: Duration = Duration::from_millis(250);

/// Nobody gives up sooner than this.
const LEAVES_WITHIN: Duration = Duration::from_millis(250);

/// What a worker does next.
enum Work {
    /// Accept requests, until there is one and somebody else to go on accepting.
    Accept(Box<Acceptor>),
    Call(Call),
}

/// Accepting, while a request is being answered in the same thread that didn't have to wait so far; and who is to go on.
type Lead = (Box<Acceptor>, Arc<Place<Work>>);

/// A request on its way to the upstream.
enum Call {
    New(Box<Exchange>, UnderWay),
    /// One that has waited for the account's limit.
    Resumed(Box<dyn Waiter>, Pass, Duration),
}

/// Hands requests to threads.
struct Dispatcher {
    shared: Arc<Shared>,
    crew: Crew,
    work: Queue<Work>,
    /// `WORKERS`.
    workers: usize,
    /// Workers more than that, in the places of others that wait for their clients.
    stand_ins: AtomicUsize,
    /// Requests that run or wait for a worker.
    admitted: AtomicUsize,
    /// `WORKERS` + `QUEUE`.
    capacity: usize,
}

/// Starts all threads that serve these sockets.
pub fn start(shared: &Arc<Shared>, listeners: Vec<TcpListener>) -> io::Result<()> {
    let listen = shared.live.snapshot().settings.listen.clone();
    let dispatcher = Arc::new(Dispatcher {
        shared: Arc::clone(shared),
        crew: Crew::new("crew", MAX_CREW),
        work: Queue::default(),
        workers: listen.workers,
        stand_ins: AtomicUsize::new(0),
        admitted: AtomicUsize::new(0),
        capacity: listen.workers + listen.queue,
    });
    for number in 1..=listen.workers + listeners.len() {
        dispatcher.start_worker(number)?;
    }
    let port = listen::port(&listeners);
    presence::start(Arc::clone(&shared.life), port)?;
    let gatekeeper = Arc::clone(&dispatcher);
    thread::Builder::new().name("gate".into()).spawn(move || gatekeeper.keep_gate(port))?;
    for listener in listeners {
        let old = Arc::clone(&dispatcher);
        let acceptor =
            Acceptor::new(listener, Arc::new(move |request| old.dispatch(Exchange::new(request))))?;
        dispatcher.work.push(Work::Accept(Box::new(acceptor)));
    }
    Ok(())
}

/// Whether a path leads to the upstream.
fn needs_worker(path: &str) -> bool {
    path == "/chat/completions" || path == "/models" || path.starts_with("/models/")
}

impl Dispatcher {
    /// Accepts requests until this thread has one to forward and another one goes on accepting, at once or when it is
    /// woken: the request is answered by the thread that the connection's own has woken.
    #[inline(never)]
    fn accept(self: &Arc<Self>, mut acceptor: Box<Acceptor>) -> (Call, Option<Lead>) {
        loop {
            let (request, was_quiet) = acceptor.accept();
            // Whatever a request does to us, others are accepted after it.
            let admitted = catch_unwind(AssertUnwindSafe(|| self.admit(Exchange::new(request))));
            let Ok(Some(call)) = admitted else {
                continue;
            };
            if was_quiet {
                match self.work.offer(Work::Accept(acceptor)) {
                    Offer::Reserved(Work::Accept(mine), follower) => return (call, Some((mine, follower))),
                    Offer::Refused(Work::Accept(mine)) => acceptor = mine,
                    _ => return (call, None),
                }
            }
            self.work.push(Work::Call(call));
        }
    }

    fn dispatch(self: &Arc<Self>, exchange: Exchange) {
        if let Some(call) = self.admit(exchange) {
            self.work.push(Work::Call(call));
        }
    }

    /// Runs where requests are accepted, so it waits for nothing. What a worker has to do with it, now.
    fn admit(self: &Arc<Self>, mut exchange: Exchange) -> Option<Call> {
        if exchange.body_is_on_its_way() {
            let dispatcher = Arc::clone(self);
            self.crew.take(move || {
                if dispatcher.read_body(&mut exchange)
                    && let Some(call) = dispatcher.hand_on(exchange)
                {
                    dispatcher.work.push(Work::Call(call));
                }
            });
            return None;
        }
        self.hand_on(exchange)
    }

    fn hand_on(self: &Arc<Self>, exchange: Exchange) -> Option<Call> {
        let error = if self.shared.life.is_stopping() {
            ApiError::stopping()
        } else if !needs_worker(&exchange.path) {
            let shared = Arc::clone(&self.shared);
            self.crew.take(move || answer_here(&shared, exchange));
            return None;
        } else if self.admitted.fetch_add(1, Ordering::SeqCst) < self.capacity {
            let under_way = self.shared.life.begin(exchange.peer);
            return Some(Call::New(Box::new(exchange), under_way));
        } else {
            self.admitted.fetch_sub(1, Ordering::SeqCst);
            ApiError::queue_is_full()
        };
        self.crew.take(move || exchange.reply(Reply::from(&error)));
        None
    }

    /// Reads what is still on its way, after the checks that need no body. Whether there is something to hand on.
    fn read_body(&self, exchange: &mut Exchange) -> bool {
        let snapshot = self.shared.live.snapshot();
        let error = match check(exchange, &snapshot.settings) {
            Err(error) => error,
            Ok(()) => match exchange.read_body(snapshot.settings.max_body_bytes, &self.shared.spare) {
                Ok(()) => return true,
                Err(BodyError::TooLarge) => ApiError::body_too_large(snapshot.settings.max_body_bytes >> 20),
                Err(BodyError::Stalled) => ApiError::stalled_body(CLIENT_TIMEOUT),
                Err(BodyError::Broken) => ApiError::broken_body(),
            },
        };
        exchange.answer(Reply::from(&error));
        false
    }

    fn start_worker(self: &Arc<Self>, number: usize) -> io::Result<()> {
        let dispatcher = Arc::clone(self);
        let worker = thread::Builder::new().name(format!("worker-{number}")).stack_size(WORKER_STACK_BYTES);
        worker.spawn(move || dispatcher.work()).map(drop)
    }

    /// Has another thread take a worker's place while it waits for its client.
    fn stand_in(self: &Arc<Self>) -> bool {
        let number = self.stand_ins.fetch_add(1, Ordering::SeqCst);
        if number >= MAX_STAND_INS || self.start_worker(self.workers + number + 1).is_err() {
            self.stand_ins.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        self.admitted.fetch_sub(1, Ordering::SeqCst);
        true
    }

    fn work(self: &Arc<Self>) {
        let dispatcher = Arc::clone(self);
        seat::take(move || dispatcher.stand_in());
        let place = Place::mine();
        let mut mine = None;
        while let Some(work) = mine.take().or_else(|| self.work.next(&place, None)) {
            let (call, lead) = match work {
                Work::Accept(acceptor) => self.accept(acceptor),
                Work::Call(call) => (call, None),
            };
            let lead = lead.map(|lead| Rc::new(Cell::new(Some(lead))));
            if let Some(lead) = lead.clone() {
                waiting::put_off(move || {
                    if let Some((acceptor, follower)) = lead.take() {
                        follower.give(Work::Accept(acceptor));
                    }
                });
            }
            // A panic is that request's 500, which it sends when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| match call {
                Call::New(exchange, under_way) => forward(&self.shared, *exchange, under_way),
                Call::Resumed(relay, pass, waited) => relay.resume(pass, waited),
            }));
            waiting::forget();
            if seat::was_handed_over() {
                self.stand_ins.fetch_sub(1, Ordering::SeqCst);
                return; // its place is taken, and as it has waited for its client, another one accepts
            }
            // Nothing was to be waited for, so this thread goes on accepting.
            if let Some((acceptor, follower)) = lead.and_then(|lead| lead.take()) {
                self.work.release(follower);
                mine = Some(Work::Accept(acceptor));
            }
            self.admitted.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Gives those who wait for the account's limit back to the workers.
    fn keep_gate(&self, port: u16) {
        let shared = &self.shared;
        let rules = || {
            let settings = &shared.live.snapshot().settings;
            (settings.max_wait, settings.key.clone())
        };
        let mut leavers = presence::Leavers::new(port);
        loop {
            match shared.gate.next(GATE_INTERVAL, rules) {
                Some(Next::Go(relay, pass, waited)) => {
                    let gone = relay.is_cut_off()
                        || waited > LEAVES_WITHIN && relay.peer().is_some_and(|peer| leavers.has_left(peer));
                    if gone {
                        drop(pass); // its leave goes to the next one
                        self.abandon(relay);
                        continue;
                    }
                    self.admitted.fetch_add(1, Ordering::SeqCst);
                    self.work.push(Work::Call(Call::Resumed(relay, pass, waited)));
                }
                Some(Next::TooLate(relay, limit, waited)) => {
                    self.crew.take(move || relay.give_up(limit, waited));
                }
                None => {}
            }
            shared.spare.forget_old();
            for relay in shared.gate.remove(|relay| relay.is_cut_off()) {
                self.abandon(relay);
            }
        }
    }

    fn abandon(&self, relay: Box<dyn Waiter>) {
        self.crew.take(move || relay.abandon());
    }
}

/// 404 and 405, which need nothing but the request line.
fn check_route(exchange: &Exchange) -> Option<ApiError> {
    if access::is_preflight(exchange) {
        return None; // whatever the path: the page learns from the request itself that nothing is there
    }
    let path = exchange.path.as_str();
    let get = ["GET", "HEAD"];
    let allowed: &[&str] = match path {
        "/chat/completions" => &["POST"],
        "/" | "/health" | "/models" | "/debug" | "/debug/stats" | "/debug/calls" => &get,
        _ if path.starts_with("/models/") || path.starts_with("/debug/") => &get,
        _ => {
            return Some(ApiError::not_found());
        }
    };
    let method = exchange.method.as_str();
    if allowed.contains(&method) {
        return None;
    }
    Some(ApiError::method_not_allowed(method, allowed))
}

/// All that can be refused before the body is read; once for each request.
fn check(exchange: &mut Exchange, settings: &Settings) -> Result<(), ApiError> {
    if exchange.checked {
        return Ok(());
    }
    exchange.checked = true;
    access::check(exchange, settings)?;
    check_route(exchange).map_or(Ok(()), Err)
}

/// Everything that needs no upstream.
fn answer_here(shared: &Arc<Shared>, mut exchange: Exchange) {
    let snapshot = shared.live.snapshot();
    let reply = match check(&mut exchange, &snapshot.settings) {
        Err(error) => Reply::from(&error),
        Ok(()) if access::is_preflight(&exchange) => access::preflight(&exchange),
        Ok(()) => match exchange.path.as_str() {
            "/health" => panel::health(shared),
            "/" => panel::front_page(shared),
            _ => panel::answer(shared, &exchange, &snapshot),
        },
    };
    exchange.reply(reply);
}

/// Everything that does, on a worker.
#[inline(never)]
fn forward(shared: &Arc<Shared>, mut exchange: Exchange, under_way: UnderWay) {
    // So that the tests can see what becomes of one; not in the release build.
    #[cfg(debug_assertions)]
    assert!(exchange.header("x-test-panic").is_none(), "asked for by a test");
    let snapshot = shared.live.snapshot();
    if let Err(error) = check(&mut exchange, &snapshot.settings) {
        return exchange.reply(Reply::from(&error));
    }
    if access::is_preflight(&exchange) {
        let reply = access::preflight(&exchange);
        return exchange.reply(reply);
    }
    let limit = snapshot.settings.max_body_bytes;
    if !exchange.body_is_read() && exchange.read_body(limit, &shared.spare).is_err() {
        return exchange.reply(Reply::from(&ApiError::broken_body()));
    }
    match exchange.path.as_str() {
        "/chat/completions" => {
            if let Some(relay) = Relay::begin(shared, exchange, snapshot, under_way) {
                relay.run();
            }
        }
        "/models" => {
            waiting::begin(); // perhaps for another request's call to the upstream
            let reply = shared.models.list(&snapshot);
            exchange.reply(reply);
        }
        path => {
            waiting::begin();
            let reply = shared.models.one(&snapshot, path.trim_start_matches("/models/"));
            exchange.reply(reply);
        }
    }
}
