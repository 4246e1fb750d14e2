//! The thread that accepts clients, owns every connection which waits for its client, reads heads without blocking on
//! any of them, and notices when the client of a request in flight leaves. The only thing it waits for is all of them
//! together.

use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

use super::Server;
use crate::client::connection::{Arrival, Connection};
use crate::client::exchange::{ConnectionFate, Exchange};
use crate::client::idle::{FIRST_TOKEN, Idle, WAKER, WaitingConnection, request_of};
use crate::client::socket::{CLIENT_TIMEOUT, Listener};
use crate::error::ApiError;
use crate::peek::Peeked;

/// How often the poller looks for requests whose clients aren't watched yet. It may take up to twice this to notice
/// that such a client has left.
const TICK: Duration = Duration::from_millis(50);
/// For how long no client is accepted when there are no descriptors and no idle connections to close.
const PAUSE: Duration = Duration::from_millis(50);
/// Clients accepted in a row on one listener; other connections are handled in between.
const MAX_ACCEPTED: usize = 64;
/// Connections closed at once when descriptors run out, as more clients are likely to come soon.
const CLOSED_AT_ONCE: usize = 8;

/// The state of the poller thread.
pub struct Poller {
    server: Arc<Server>,
    idle: Arc<Idle>,
    poll: Poll,
    listeners: Vec<Listener>,
    /// Whether each listener may have more clients than were accepted.
    pending: Vec<bool>,
    /// Until when no client is accepted.
    paused: Option<Instant>,
    /// When to look next for clients that aren't watched yet; `None` while no request is in flight.
    next_tick: Option<Instant>,
    /// The value of [`InFlight::activity`](crate::relay::in_flight::InFlight::activity) at the last tick.
    activity: u64,
}

impl Poller {
    /// Starts the poller thread.
    pub fn start(
        server: Arc<Server>,
        idle: Arc<Idle>,
        poll: Poll,
        listeners: Vec<TcpListener>,
    ) -> io::Result<()> {
        let watch = |(number, listener)| Listener::watch(listener, poll.registry(), Token(number));
        let listeners = listeners.into_iter().take(FIRST_TOKEN - 1).enumerate().map(watch);
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let pending = vec![true; listeners.len()];
        let mut poller =
            Self { server, idle, poll, listeners, pending, paused: None, next_tick: None, activity: 0 };
        thread::Builder::new().name("poller".into()).spawn(move || poller.run()).map(drop)
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                thread::sleep(PAUSE);
            }
            // A panic caused by one connection must not affect the others.
            for event in &events {
                let _ = catch_unwind(AssertUnwindSafe(|| self.handle(event)));
            }
            let _ = catch_unwind(AssertUnwindSafe(|| self.accept()));
            let _ = catch_unwind(AssertUnwindSafe(|| self.end_late()));
            self.watch_clients();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let accept =
            if self.pending.contains(&true) { Some(self.paused.unwrap_or_else(Instant::now)) } else { None };
        let next = [accept, self.next_tick, self.idle.next_deadline()].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn watch_clients(&mut self) {
        if self.next_tick.is_none_or(|tick| tick > Instant::now()) {
            return;
        }
        let in_flight = &self.server.shared.in_flight;
        let busy = in_flight.watch_clients(TICK);
        // A thread that stays with its connection begins requests without the poller, but only for less than a tick.
        let activity = in_flight.activity();
        let was_active = std::mem::replace(&mut self.activity, activity) != activity;
        if busy || was_active || !in_flight.set_polled(false) {
            in_flight.set_polled(true);
            self.next_tick = Some(Instant::now() + TICK);
        } else {
            self.next_tick = None; // the next request that begins wakes the poller
        }
    }

    /// Makes sure that the ticks go on, because requests are in flight, or will be.
    fn look_after_clients(&mut self) {
        if self.next_tick.is_none() {
            self.server.shared.in_flight.set_polled(true);
            self.next_tick = Some(Instant::now() + TICK);
        }
    }

    fn handle(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            self.look_after_clients();
            self.server.abandon_those_who_left();
            return;
        }
        if token.0 < self.listeners.len() {
            self.pending[token.0] = true;
            return;
        }
        if let Some(number) = request_of(token) {
            let gone = event.is_error() || event.is_read_closed();
            if self.server.shared.in_flight.look_at_client(number, gone) {
                self.server.shared.gate.look_again();
                self.server.shared.pauses.look_again();
                self.server.abandon_those_who_left();
            }
            return;
        }
        match self.idle.take(token) {
            Some(WaitingConnection::ForRequest(connection)) => self.read(Some(token), connection),
            Some(WaitingConnection::ForBody(exchange, _)) => self.server.serve(exchange),
            Some(WaitingConnection::Draining(connection, until)) => self.drain(token, connection, until),
            Some(WaitingConnection::ForWritable(unsent)) => match unsent.go_on() {
                ConnectionFate::Unsent(unsent) => {
                    self.idle.put_back(token, WaitingConnection::ForWritable(unsent))
                }
                fate => self.server.follow(fate),
            },
            None => {}
        }
    }

    /// Accepts all waiting clients, closing idle connections when there are no descriptors.
    fn accept(&mut self) {
        if self.paused.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.paused = None;
        for number in 0..self.listeners.len() {
            for _ in 0..MAX_ACCEPTED {
                if !self.pending[number] {
                    break;
                }
                match self.listeners[number].accept() {
                    Ok(socket) => {
                        self.server.make_room(0);
                        match socket.peek() {
                            Peeked::Nothing => {
                                self.idle.park(WaitingConnection::ForRequest(Connection::new(socket)))
                            }
                            Peeked::Bytes | Peeked::End => self.read(None, Connection::new(socket)),
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.pending[number] = false,
                    // The client reset the connection before it was accepted.
                    Err(e) if is_the_clients(&e) => {}
                    Err(_) if self.idle.close_oldest(CLOSED_AT_ONCE) => {}
                    Err(_) => {
                        self.paused = Some(Instant::now() + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    fn read(&mut self, token: Option<Token>, mut connection: Connection) {
        match (connection.read_head(), token) {
            (Arrival::Head(head), _) => {
                self.look_after_clients();
                self.server.serve(Box::new(Exchange::new(connection, head)));
            }
            (Arrival::Unfinished, Some(token)) => {
                self.idle.put_back(token, WaitingConnection::ForRequest(connection))
            }
            (Arrival::Unfinished, None) => self.idle.park(WaitingConnection::ForRequest(connection)),
            (Arrival::Refused(error), _) => self.server.refuse(connection, &error),
            (Arrival::End, _) => {}
        }
    }

    fn drain(&self, token: Token, mut connection: Connection, until: Instant) {
        if connection.discard() {
            self.idle.put_back(token, WaitingConnection::Draining(connection, until));
        }
    }

    /// Ends the connections whose deadlines have passed.
    fn end_late(&self) {
        let now = Instant::now();
        while let Some(parked) = self.idle.take_expired(now) {
            match parked {
                WaitingConnection::ForRequest(connection) => {
                    self.server.refuse(connection, &ApiError::slow_head(CLIENT_TIMEOUT));
                }
                WaitingConnection::ForBody(exchange, _) => self.server.give_up_waiting(exchange),
                WaitingConnection::Draining(..) | WaitingConnection::ForWritable(_) => {}
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
