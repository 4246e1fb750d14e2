//! From a connection's request to the thread that answers it.
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

use crate::access;
use crate::client::{BodyError, Exchange, Reply};
use crate::crew::Crew;
use crate::error::ApiError;
use crate::forward::Relay;
use crate::gate::{Next, Pass};
use crate::life::UnderWay;
use crate::listen::{self, Acceptor, CLIENT_TIMEOUT};
use crate::panel;
use crate::presence;
use crate::proxy::Proxy;
use crate::queue::{Offer, Place, Queue};
use crate::seat;
use crate::settings::Settings;
use crate::waiting;

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
    Resumed(Box<Relay>, Pass, Duration),
}

/// Hands requests to threads.
struct Dispatcher {
    proxy: Arc<Proxy>,
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
pub fn start(proxy: &Arc<Proxy>, listeners: Vec<TcpListener>) -> io::Result<()> {
    let listen = proxy.live.snapshot().settings.listen.clone();
    let dispatcher = Arc::new(Dispatcher {
        proxy: Arc::clone(proxy),
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
    presence::start(Arc::clone(&proxy.life), port)?;
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
        let error = if self.proxy.life.is_stopping() {
            ApiError::new(503, "shutting_down", "The proxy is stopping. Start it again to go on.")
        } else if !needs_worker(&exchange.path) {
            let proxy = Arc::clone(&self.proxy);
            self.crew.take(move || answer_here(&proxy, exchange));
            return None;
        } else if self.admitted.fetch_add(1, Ordering::SeqCst) < self.capacity {
            let under_way = self.proxy.life.begin(exchange.peer);
            return Some(Call::New(Box::new(exchange), under_way));
        } else {
            self.admitted.fetch_sub(1, Ordering::SeqCst);
            let message = "All workers are busy and the queue is full: try again in a moment, or raise WORKERS or QUEUE in .env.";
            ApiError::new(503, "overloaded", message).retry_after(1)
        };
        self.crew.take(move || exchange.reply(Reply::from(&error)));
        None
    }

    /// Reads what is still on its way, after the checks that need no body. Whether there is something to hand on.
    fn read_body(&self, exchange: &mut Exchange) -> bool {
        let snapshot = self.proxy.live.snapshot();
        let error = match check(exchange, &snapshot.settings) {
            Err(error) => error,
            Ok(()) => match exchange.read_body(snapshot.settings.max_body_bytes, &self.proxy.spare) {
                Ok(()) => return true,
                Err(BodyError::TooLarge) => {
                    let limit = snapshot.settings.max_body_bytes >> 20;
                    let message = format!(
                        "The request body is larger than {limit} MB. Send less, or raise MAX_BODY_MB in .env."
                    );
                    ApiError::new(413, "body_too_large", message)
                }
                Err(BodyError::Stalled) => ApiError::new(
                    408,
                    "request_timeout",
                    format!(
                        "Nothing more of the request came for {} s. Send it again.",
                        CLIENT_TIMEOUT.as_secs()
                    ),
                ),
                Err(BodyError::Broken) => ApiError::new(
                    400,
                    "invalid_json",
                    "The request body ended early or its chunks are broken.",
                ),
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
                Call::New(exchange, under_way) => forward(&self.proxy, *exchange, under_way),
                Call::Resumed(relay, pass, waited) => relay.resume(&self.proxy, pass, waited),
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
        let proxy = &self.proxy;
        let rules = || {
            let settings = &proxy.live.snapshot().settings;
            (settings.max_wait, settings.key.clone())
        };
        let mut leavers = presence::Leavers::new(port);
        loop {
            match proxy.gate.next(GATE_INTERVAL, rules) {
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
                    let proxy = Arc::clone(proxy);
                    self.crew.take(move || relay.give_up(&proxy, limit, waited));
                }
                None => {}
            }
            proxy.spare.forget_old();
            for relay in proxy.gate.remove(|relay| relay.is_cut_off()) {
                self.abandon(relay);
            }
        }
    }

    fn abandon(&self, relay: Box<Relay>) {
        let proxy = Arc::clone(&self.proxy);
        self.crew.take(move || relay.abandon(&proxy));
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
            let message = "Nothing is here. This proxy serves POST /v1/chat/completions, GET /v1/models, GET /health and GET /debug.";
            return Some(ApiError::new(404, "not_found", message));
        }
    };
    let method = exchange.method.as_str();
    if allowed.contains(&method) {
        return None;
    }
    let allowed = allowed.join(", ");
    let message =
        format!("{} is not served here. Use {allowed}.", method.chars().take(20).collect::<String>());
    Some(ApiError::new(405, "method_not_allowed", message).with("allow", allowed))
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
fn answer_here(proxy: &Proxy, mut exchange: Exchange) {
    let snapshot = proxy.live.snapshot();
    let reply = match check(&mut exchange, &snapshot.settings) {
        Err(error) => Reply::from(&error),
        Ok(()) if access::is_preflight(&exchange) => access::preflight(&exchange),
        Ok(()) => match exchange.path.as_str() {
            "/health" => panel::health(proxy),
            "/" => panel::front_page(proxy),
            _ => panel::answer(proxy, &exchange, &snapshot),
        },
    };
    exchange.reply(reply);
}

/// Everything that does, on a worker.
#[inline(never)]
fn forward(proxy: &Proxy, mut exchange: Exchange, under_way: UnderWay) {
    // So that the tests can see what becomes of one; not in the release build.
    #[cfg(debug_assertions)]
    assert!(exchange.header("x-test-panic").is_none(), "asked for by a test");
    let snapshot = proxy.live.snapshot();
    if let Err(error) = check(&mut exchange, &snapshot.settings) {
        return exchange.reply(Reply::from(&error));
    }
    if access::is_preflight(&exchange) {
        let reply = access::preflight(&exchange);
        return exchange.reply(reply);
    }
    let limit = snapshot.settings.max_body_bytes;
    if !exchange.body_is_read() && exchange.read_body(limit, &proxy.spare).is_err() {
        let message = "The request body could not be read.";
        return exchange.reply(Reply::from(&ApiError::new(400, "invalid_json", message)));
    }
    match exchange.path.as_str() {
        "/chat/completions" => {
            if let Some(relay) = Relay::begin(proxy, exchange, snapshot, under_way) {
                relay.run(proxy);
            }
        }
        "/models" => {
            waiting::begin(); // perhaps for another request's call to the upstream
            let reply = proxy.models.list(&snapshot);
            exchange.reply(reply);
        }
        path => {
            waiting::begin();
            let reply = proxy.models.one(&snapshot, path.trim_start_matches("/models/"));
            exchange.reply(reply);
        }
    }
}
