//! Connections that wait for their clients, each of which costs a descriptor, some hundred bytes and what has arrived
//! of its request; and the registry by which the poller is told when something arrives.
//!
//! Any thread may park a connection here; only the poller takes one out to go on with it. Tokens count up, so that the
//! first connection in the table has been idle for longest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mio::{Registry, Token, Waker};

use super::connection::Connection;
use super::exchange::{Exchange, Unsent};
use super::socket::{CLIENT_TIMEOUT, Socket, open_sockets};
use crate::error::ApiError;
use crate::peek::Peeked;
use crate::sync::lock;

/// Tokens with this bit stand for the clients of requests in flight, by number.
const UNDER_WAY: usize = 1 << (usize::BITS - 1);
/// Tokens below this belong to the poller itself.
pub const FIRST_TOKEN: usize = 16;
/// The token of the event that wakes the poller.
pub const WAKER: Token = Token(FIRST_TOKEN - 1);
/// How long a client whose request was refused may go on sending it. A client that sends for that long doesn't listen.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// A client that connected within this time is about to send something, and doesn't count as idle.
const NEW: Duration = Duration::from_millis(100);
/// Descriptors for everything but clients and the upstream: files, pipes, the poller's own.
const OTHER_DESCRIPTORS: usize = 32;
/// How much of the answers that wait for their clients is kept; beyond it, the one that waits longest is cut off.
const MAX_UNSENT_BYTES: usize = 256 * 1024 * 1024;
/// For how long after a shortage of descriptors a failure is put down to it.
const A_MOMENT: Duration = Duration::from_secs(2);

/// A connection that waits for its client.
#[derive(Debug)]
pub enum WaitingConnection {
    /// Waits for the next request, without a limit; but for the rest of a head only for [`CLIENT_TIMEOUT`].
    ForRequest(Connection),
    /// Waits for more of a body, until the given time.
    ForBody(Box<Exchange>, Instant),
    /// Waits until the client stops sending what nobody reads, at most until the given time.
    Draining(Connection, Instant),
    /// Waits until the client takes more of an answer.
    ForWritable(Box<Unsent>),
}

impl WaitingConnection {
    /// Parks a request until more of its body arrives.
    pub fn for_body(exchange: Box<Exchange>) -> Self {
        Self::ForBody(exchange, Instant::now() + CLIENT_TIMEOUT)
    }

    /// Parks a connection whose request was refused.
    pub fn for_end(connection: Connection) -> Self {
        Self::Draining(connection, Instant::now() + DRAIN_LIMIT)
    }

    fn socket(&self) -> Option<&Socket> {
        match self {
            Self::ForRequest(connection) | Self::Draining(connection, _) => Some(&connection.socket),
            Self::ForBody(exchange, _) => exchange.socket().map(|socket| &**socket),
            Self::ForWritable(unsent) => Some(&unsent.connection.socket),
        }
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Self::ForRequest(connection) => connection.head_since().map(|since| since + CLIENT_TIMEOUT),
            Self::ForBody(_, until) | Self::Draining(_, until) => Some(*until),
            Self::ForWritable(unsent) => Some(unsent.until()),
        }
    }

    /// Closes the connection to free its descriptor. A client in the middle of a request is told so.
    fn close(self) {
        if let Self::ForBody(exchange, _) = self {
            exchange.reject(&ApiError::no_descriptors());
        }
    }

    fn unsent_bytes(&self) -> usize {
        match self {
            Self::ForWritable(unsent) => unsent.bytes_kept(),
            _ => 0,
        }
    }

    fn rest(&mut self) {
        match self {
            Self::ForRequest(connection) | Self::Draining(connection, _) => connection.rest(),
            Self::ForBody(exchange, _) => exchange.rest(),
            Self::ForWritable(unsent) => unsent.connection.rest(),
        }
    }
}

/// The table of parked connections.
#[derive(Debug)]
pub struct Idle {
    registry: Registry,
    waker: Waker,
    table: Mutex<Table>,
    /// The system's limit of descriptors; `None` where the system doesn't tell it.
    limit: Option<usize>,
    /// When descriptors ran short last.
    short: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Table {
    next: usize,
    parked: BTreeMap<usize, WaitingConnection>,
    /// How much of answers is kept.
    unsent_bytes: usize,
    deadlines: BTreeSet<(Instant, usize)>,
}

/// Returns the number of the request in flight that a token stands for; `None` if it stands for a parked connection.
pub fn request_of(token: Token) -> Option<u64> {
    (token.0 & UNDER_WAY != 0).then_some((token.0 & !UNDER_WAY) as u64)
}

impl Idle {
    /// Creates an empty table, whose connections this poller watches.
    pub fn new(registry: &Registry) -> io::Result<Self> {
        #[cfg(unix)]
        let limit = rlimit::getrlimit(rlimit::Resource::NOFILE).ok().map(|(soft, _)| soft as usize);
        #[cfg(not(unix))]
        let limit = None;
        Ok(Self {
            registry: registry.try_clone()?,
            waker: Waker::new(registry, WAKER)?,
            table: Mutex::new(Table {
                next: FIRST_TOKEN,
                parked: BTreeMap::new(),
                unsent_bytes: 0,
                deadlines: BTreeSet::new(),
            }),
            limit,
            short: Mutex::default(),
        })
    }

    /// Leaves a connection to the poller.
    pub fn park(&self, mut parked: WaitingConnection) {
        parked.rest();
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let unwatched = self.put_into(&mut table, Token(number), parked);
        let is_first = table.deadlines.first().is_some_and(|(_, first)| *first == number);
        let surplus = if table.unsent_bytes > MAX_UNSENT_BYTES { table.take_longest_unsent() } else { None };
        drop(table);
        if is_first {
            self.wake_poller(); // the poller may have meant to sleep for longer
        }
        unwatched.into_iter().chain(surplus).for_each(WaitingConnection::close);
    }

    /// Wakes the poller.
    pub fn wake_poller(&self) {
        let _ = self.waker.wake();
    }

    /// Puts back a connection that was taken out and has to wait longer.
    pub fn put_back(&self, token: Token, parked: WaitingConnection) {
        let unwatched = self.put_into(&mut self.lock(), token, parked);
        unwatched.into_iter().for_each(WaitingConnection::close);
    }

    /// Returns the connection if the system can't watch it.
    fn put_into(
        &self,
        table: &mut Table,
        token: Token,
        parked: WaitingConnection,
    ) -> Option<WaitingConnection> {
        let waits_for_room = matches!(parked, WaitingConnection::ForWritable(_));
        let watch = if waits_for_room { Socket::watch_for_room } else { Socket::watch };
        let is_watched = parked.socket().is_some_and(|socket| watch(socket, &self.registry, token).is_ok());
        if !is_watched {
            return Some(parked);
        }
        table.insert(token.0, parked);
        None
    }

    /// Takes out a connection on which something has arrived, and stops watching it.
    pub fn take(&self, token: Token) -> Option<WaitingConnection> {
        let parked = self.lock().remove(token.0)?;
        if let Some(socket) = parked.socket() {
            self.unwatch(socket);
        }
        Some(parked)
    }

    /// Takes out a connection whose deadline has passed, if there is one.
    pub fn take_expired(&self, now: Instant) -> Option<WaitingConnection> {
        let (_, number) = *self.lock().deadlines.first().filter(|(until, _)| *until <= now)?;
        self.take(Token(number))
    }

    /// Makes every request that waits for more of its body wait no longer, because the program stops.
    pub fn end_bodies(&self) {
        let mut table = self.lock();
        let table = &mut *table;
        let now = Instant::now();
        for (number, parked) in &mut table.parked {
            if let WaitingConnection::ForBody(_, until) = parked {
                table.deadlines.remove(&(*until, *number));
                *until = now;
                table.deadlines.insert((now, *number));
            }
        }
        self.wake_poller();
    }

    /// Returns the earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lock().deadlines.first().map(|(until, _)| *until)
    }

    /// Watches the client of request `number`, so that the poller is told when it leaves.
    pub fn watch(&self, socket: &Socket, number: u64) -> io::Result<()> {
        socket.watch(&self.registry, Token(number as usize | UNDER_WAY))
    }

    /// Stops watching this client.
    pub fn unwatch(&self, socket: &Socket) {
        socket.unwatch(&self.registry);
    }

    /// Closes connections, those idle for longest first, if descriptors run short: `upstream` are open to the upstream,
    /// `more` are about to be opened.
    pub fn make_room(&self, upstream: usize, more: usize) {
        let missing = self.missing(upstream, more);
        if missing > 0 {
            self.close_oldest(missing);
        }
    }

    /// Returns how many descriptors are missing, counting some to spare.
    fn missing(&self, upstream: usize, more: usize) -> usize {
        let wanted = open_sockets() + upstream + more + OTHER_DESCRIPTORS;
        let missing = self.limit.map_or(0, |limit| wanted.saturating_sub(limit));
        if missing > 0 {
            *lock(&self.short) = Some(Instant::now());
        }
        missing
    }

    /// Returns whether there are hardly any descriptors left, or were a moment ago; `upstream` are open to the
    /// upstream. The past counts because callers ask only after something has failed.
    pub fn is_short(&self, upstream: usize) -> bool {
        self.missing(upstream, 1) > 0 || lock(&self.short).is_some_and(|at| at.elapsed() < A_MOMENT)
    }

    /// Closes up to `count` connections, those idle for longest first. Returns whether there was one.
    pub fn close_oldest(&self, count: usize) -> bool {
        let mut table = self.lock();
        let is_idle = |parked: &WaitingConnection| {
            parked.socket().is_some_and(|socket| socket.age() > NEW && socket.peek() != Peeked::Bytes)
        };
        let oldest = table.parked.iter().filter(|(_, parked)| is_idle(parked)).map(|(number, _)| *number);
        let oldest = oldest.take(count).collect::<Vec<_>>();
        let closed = oldest.iter().filter_map(|number| table.remove(*number)).collect::<Vec<_>>();
        drop(table); // closing takes a while
        let is_there = !closed.is_empty();
        closed.into_iter().for_each(WaitingConnection::close);
        is_there
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    fn insert(&mut self, number: usize, parked: WaitingConnection) {
        if let Some(until) = parked.until() {
            self.deadlines.insert((until, number));
        }
        self.unsent_bytes += parked.unsent_bytes();
        self.parked.insert(number, parked);
    }

    fn take_longest_unsent(&mut self) -> Option<WaitingConnection> {
        let number = *self.parked.iter().find(|(_, parked)| parked.unsent_bytes() > 0)?.0;
        self.remove(number)
    }

    fn remove(&mut self, number: usize) -> Option<WaitingConnection> {
        let parked = self.parked.remove(&number)?;
        self.unsent_bytes -= parked.unsent_bytes();
        if let Some(until) = parked.until() {
            self.deadlines.remove(&(until, number));
        }
        Some(parked)
    }
}
