//! Connections whose clients are to send something: each costs a descriptor, some hundred bytes and what has come of its
//! request; and the registry by which the poller is told when something arrives.
//!
//! Any thread may park a connection here; only the poller takes one out. Tokens count up, so that the first in the table
//! has been idle for longest.

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

/// Tokens with this bit are those of requests under way, by their number.
const UNDER_WAY: usize = 1 << (usize::BITS - 1);
/// Tokens below this are the poller's own.
pub const FIRST_TOKEN: usize = 16;
/// Wakes the poller.
pub const WAKER: Token = Token(FIRST_TOKEN - 1);
/// How long a client whose request was refused may go on sending it. Whoever sends that long doesn't listen.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Who has connected within this is about to say something, and isn't idle.
const NEW: Duration = Duration::from_millis(100);
/// Descriptors for everything but clients and the upstream: files, pipes, the poller's own.
const OTHER_DESCRIPTORS: usize = 32;
/// For how long a want of descriptors explains what fails.
const A_MOMENT: Duration = Duration::from_secs(2);

/// A connection that waits for its client.
#[derive(Debug)]
pub enum Parked {
    /// For the next request, for as long as it likes; but for the rest of a head for [`CLIENT_TIMEOUT`] only.
    ForRequest(Connection),
    /// For more of a body, until then.
    ForBody(Box<Exchange>, Instant),
    /// That it stops sending what nobody reads, until then.
    ForEnd(Connection, Instant),
    /// That it takes more of an answer.
    ForRoom(Box<Unsent>),
}

impl Parked {
    /// More of its body is to come.
    pub fn for_body(exchange: Box<Exchange>) -> Self {
        Self::ForBody(exchange, Instant::now() + CLIENT_TIMEOUT)
    }

    /// Its request was refused.
    pub fn for_end(connection: Connection) -> Self {
        Self::ForEnd(connection, Instant::now() + DRAIN_LIMIT)
    }

    fn socket(&self) -> Option<&Socket> {
        match self {
            Self::ForRequest(connection) | Self::ForEnd(connection, _) => Some(&connection.socket),
            Self::ForBody(exchange, _) => exchange.socket().map(|socket| &**socket),
            Self::ForRoom(unsent) => Some(&unsent.connection.socket),
        }
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Self::ForRequest(connection) => connection.head_since().map(|since| since + CLIENT_TIMEOUT),
            Self::ForBody(_, until) | Self::ForEnd(_, until) => Some(*until),
            Self::ForRoom(unsent) => Some(unsent.until()),
        }
    }

    /// There is no room for it. Whoever is in the middle of a request is told so.
    fn close(self) {
        if let Self::ForBody(exchange, _) = self {
            exchange.turn_away(&ApiError::no_descriptors());
        }
    }

    fn rest(&mut self) {
        match self {
            Self::ForRequest(connection) | Self::ForEnd(connection, _) => connection.rest(),
            Self::ForBody(exchange, _) => exchange.rest(),
            Self::ForRoom(unsent) => unsent.connection.rest(),
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Idle {
    registry: Registry,
    waker: Waker,
    table: Mutex<Table>,
    /// Descriptors that the system gives us; `None` where it doesn't say.
    limit: Option<usize>,
    /// When there were too few of them.
    short: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Table {
    next: usize,
    parked: BTreeMap<usize, Parked>,
    deadlines: BTreeSet<(Instant, usize)>,
}

/// The number of the request under way for whose client a token stands; `None` where it is a parked connection's.
pub fn request_of(token: Token) -> Option<u64> {
    (token.0 & UNDER_WAY != 0).then_some((token.0 & !UNDER_WAY) as u64)
}

impl Idle {
    /// An empty table before this poller.
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
                deadlines: BTreeSet::new(),
            }),
            limit,
            short: Mutex::default(),
        })
    }

    /// Leaves a connection to the poller.
    pub fn park(&self, mut parked: Parked) {
        parked.rest();
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let unwatched = self.put_into(&mut table, Token(number), parked);
        let is_first = table.deadlines.first().is_some_and(|(_, first)| *first == number);
        drop(table);
        if is_first {
            self.wake_poller(); // it may mean to sleep for longer
        }
        unwatched.into_iter().for_each(Parked::close);
    }

    /// Has the poller look around.
    pub fn wake_poller(&self) {
        let _ = self.waker.wake();
    }

    /// Puts a connection back that was taken out and isn't done with what it waits for.
    pub fn put_back(&self, token: Token, parked: Parked) {
        let unwatched = self.put_into(&mut self.lock(), token, parked);
        unwatched.into_iter().for_each(Parked::close);
    }

    /// Gives it back where the system can't watch it.
    fn put_into(&self, table: &mut Table, token: Token, parked: Parked) -> Option<Parked> {
        let waits_for_room = matches!(parked, Parked::ForRoom(_));
        let watch = if waits_for_room { Socket::watch_for_room } else { Socket::watch };
        let is_watched = parked.socket().is_some_and(|socket| watch(socket, &self.registry, token).is_ok());
        if !is_watched {
            return Some(parked);
        }
        table.insert(token.0, parked);
        None
    }

    /// Takes a connection out on which something has arrived. Nothing is told of it any more.
    pub fn take(&self, token: Token) -> Option<Parked> {
        let parked = self.lock().remove(token.0)?;
        if let Some(socket) = parked.socket() {
            self.unwatch(socket);
        }
        Some(parked)
    }

    /// Takes out one that has waited long enough.
    pub fn take_late(&self, now: Instant) -> Option<Parked> {
        let (_, number) = *self.lock().deadlines.first().filter(|(until, _)| *until <= now)?;
        self.take(Token(number))
    }

    /// Nobody waits for more of a body any longer: the program stops.
    pub fn end_bodies(&self) {
        let mut table = self.lock();
        let table = &mut *table;
        let now = Instant::now();
        for (number, parked) in &mut table.parked {
            if let Parked::ForBody(_, until) = parked {
                table.deadlines.remove(&(*until, *number));
                *until = now;
                table.deadlines.insert((now, *number));
            }
        }
        self.wake_poller();
    }

    /// When the next one has waited long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lock().deadlines.first().map(|(until, _)| *until)
    }

    /// Has the poller told when the client of request `number` leaves.
    pub fn watch(&self, socket: &Socket, number: u64) -> io::Result<()> {
        socket.watch(&self.registry, Token(number as usize | UNDER_WAY))
    }

    /// It is told nothing of that client any more.
    pub fn unwatch(&self, socket: &Socket) {
        socket.unwatch(&self.registry);
    }

    /// Closes connections, those idle for longest first, where descriptors run short: `upstream` are open to the other
    /// side, `more` are about to be opened.
    pub fn make_room(&self, upstream: usize, more: usize) {
        let missing = self.missing(upstream, more);
        if missing > 0 {
            self.close_oldest(missing);
        }
    }

    /// How many descriptors too few there are, with some to spare.
    fn missing(&self, upstream: usize, more: usize) -> usize {
        let wanted = open_sockets() + upstream + more + OTHER_DESCRIPTORS;
        let missing = self.limit.map_or(0, |limit| wanted.saturating_sub(limit));
        if missing > 0 {
            *lock(&self.short) = Some(Instant::now());
        }
        missing
    }

    /// Whether there are hardly any descriptors left, where so many are open to the upstream, or were a moment ago: whoever
    /// asks why something failed just then comes later.
    pub fn is_short(&self, upstream: usize) -> bool {
        self.missing(upstream, 1) > 0 || lock(&self.short).is_some_and(|at| at.elapsed() < A_MOMENT)
    }

    /// Closes so many connections, those idle for longest first. Whether there was one.
    pub fn close_oldest(&self, count: usize) -> bool {
        let mut table = self.lock();
        let is_idle = |parked: &Parked| {
            parked.socket().is_some_and(|socket| socket.age() > NEW && socket.peek() != Peeked::Bytes)
        };
        let oldest = table.parked.iter().filter(|(_, parked)| is_idle(parked)).map(|(number, _)| *number);
        let oldest = oldest.take(count).collect::<Vec<_>>();
        let closed = oldest.iter().filter_map(|number| table.remove(*number)).collect::<Vec<_>>();
        drop(table); // closing takes a while
        let is_there = !closed.is_empty();
        closed.into_iter().for_each(Parked::close);
        is_there
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    fn insert(&mut self, number: usize, parked: Parked) {
        if let Some(until) = parked.until() {
            self.deadlines.insert((until, number));
        }
        self.parked.insert(number, parked);
    }

    fn remove(&mut self, number: usize) -> Option<Parked> {
        let parked = self.parked.remove(&number)?;
        if let Some(until) = parked.until() {
            self.deadlines.remove(&(until, number));
        }
        Some(parked)
    }
}
