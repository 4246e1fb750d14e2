//! Who is still there: clients that leave while their answer is being waited for.
//!
//! tiny_http doesn't let us at its sockets, and nothing is being written that could fail. The system knows, though: in
//! its table of connections (on Linux proc(5), `/proc/net/tcp`; on Windows `GetExtendedTcpTable`) those of a client that
//! closed its side are in CLOSE_WAIT or gone. Elsewhere a leaving is seen at the next write.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::relay::life::{Cut, Life};

/// How often is looked while somebody waits.
const INTERVAL: Duration = Duration::from_millis(250);

/// Many connections make for a long table: the thread rests this many times as long as a look took...
const REST: u32 = 100;
/// ...and not longer than this.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// For how long a look at the table is good enough for more than one client, at least...
const GOOD_FOR: Duration = Duration::from_millis(100);
/// ...and in multiples of what it took: a long table must not hold up a batch that waits for its turn.
const GOOD_FOR_LOOKS: u32 = 10;

/// Starts the thread that cuts off what nobody waits for any more.
pub fn start(life: Arc<Life>, port: u16) -> io::Result<()> {
    if !cfg!(any(target_os = "linux", windows)) {
        return Ok(());
    }
    let look = move || {
        let mut waited_before = HashSet::new();
        let mut missing_before = HashSet::new();
        let mut pause = INTERVAL;
        loop {
            thread::sleep(pause);
            let began = Instant::now();
            let mut clients = life.clients();
            let waiting = clients.iter().map(|(peer, _)| *peer).collect::<HashSet<_>>();
            // Most calls end between two looks, and what streams finds out by itself: a look at the table is for those
            // seen twice that got nothing in between.
            clients.retain(|(peer, cutter)| !cutter.was_served() && waited_before.contains(peer));
            let mut missing = HashSet::new();
            let v6 = clients.iter().any(|(peer, _)| peer.is_ipv6());
            if !clients.is_empty()
                && let Some(table) = Table::read(port, v6)
            {
                for (peer, cutter) in clients {
                    match table.state(peer) {
                        State::Present => {}
                        State::Missing if !missing_before.contains(&peer) => drop(missing.insert(peer)),
                        State::Left | State::Missing => life.cut(&cutter, Cut::ClientLeft),
                    }
                }
            }
            waited_before = waiting;
            missing_before = missing;
            pause = (began.elapsed() * REST).clamp(INTERVAL, MAX_PAUSE);
        }
    };
    thread::Builder::new().name("presence".into()).spawn(look).map(drop)
}

/// Answers for many clients in a row, with one look at the table.
#[derive(Debug)]
pub struct Leavers {
    port: u16,
    last: Option<Look>,
}

#[derive(Debug)]
struct Look {
    began: Instant,
    took: Duration,
    v6: bool,
    table: Table,
}

impl Leavers {
    /// Of clients of this port.
    pub fn new(port: u16) -> Self {
        Self { port, last: None }
    }

    /// Whether a client has closed its connection, as far as the system tells.
    pub fn has_left(&mut self, peer: SocketAddr) -> bool {
        let v6 = peer.is_ipv6();
        let good =
            |look: &Look| look.v6 >= v6 && look.began.elapsed() < GOOD_FOR.max(look.took * GOOD_FOR_LOOKS);
        let mut looks = 0;
        if !self.last.as_ref().is_some_and(good) {
            self.look(v6);
            looks += 1;
        }
        // To be seen twice, and in looks made for it: it may be newer than the last one.
        while self.state(peer) == Some(State::Missing) && looks < 2 {
            self.look(v6);
            looks += 1;
        }
        self.state(peer).is_some_and(|state| state != State::Present)
    }

    fn look(&mut self, v6: bool) {
        let began = Instant::now();
        let table = Table::read(self.port, v6);
        self.last = table.map(|table| Look { began, took: began.elapsed(), v6, table });
    }

    fn state(&self, peer: SocketAddr) -> Option<State> {
        self.last.as_ref().map(|look| look.table.state(peer))
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Present,
    Left,
    /// Gone, or skipped: the table changes while it is read, so this is to be seen twice.
    Missing,
}

/// Connections to our port, by the client's address; whether both sides are open.
#[derive(Debug)]
struct Table(HashMap<SocketAddr, bool>);

impl Table {
    /// Those of IPv6 only where they matter. `None` when the system doesn't tell.
    fn read(port: u16, v6: bool) -> Option<Self> {
        connections(port, v6).map(Self)
    }

    fn state(&self, peer: SocketAddr) -> State {
        match self.0.get(&canonical(peer)) {
            Some(true) => State::Present,
            Some(false) => State::Left,
            None => State::Missing,
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(target_os = "linux")]
fn connections(port: u16, v6: bool) -> Option<HashMap<SocketAddr, bool>> {
    let v4 = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let v6 = v6.then(|| std::fs::read_to_string("/proc/net/tcp6").ok()).flatten().unwrap_or_default();
    Some(v4.lines().chain(v6.lines()).filter_map(|row| connection(row, port)).collect())
}

/// `sl local_address rem_address st …`, addresses as the hexadecimal of their 32-bit words in the machine's byte order.
#[cfg(target_os = "linux")]
fn connection(row: &str, port: u16) -> Option<(SocketAddr, bool)> {
    const ESTABLISHED: &str = "01";
    let mut columns = row.split_ascii_whitespace().skip(1);
    let (local, peer, state) = (columns.next()?, columns.next()?, columns.next()?);
    if parse_address(local)?.port() != port {
        return None;
    }
    Some((canonical(parse_address(peer)?), state == ESTABLISHED))
}

#[cfg(target_os = "linux")]
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words =
        ip.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes = words.collect::<Option<Vec<_>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<_>>();
    let port = u16::from_str_radix(port, 16).ok()?;
    if let Ok(v4) = <[u8; 4]>::try_from(&bytes[..]) {
        return Some((v4, port).into());
    }
    Some((<[u8; 16]>::try_from(&bytes[..]).ok()?, port).into())
}

#[cfg(windows)]
fn connections(port: u16, v6: bool) -> Option<HashMap<SocketAddr, bool>> {
    use netsock::{family::AddressFamilyFlags, protocol::ProtocolFlags, socket::SocketInfo, state::TcpState};
    let ours = |socket: SocketInfo| {
        let tcp = socket.tcp_info().filter(|tcp| tcp.local_port == port)?;
        let peer = SocketAddr::new(tcp.remote_addr, tcp.remote_port);
        Some((canonical(peer), tcp.state == TcpState::Established))
    };
    let v4 = netsock::iter_sockets_without_processes(ProtocolFlags::TCP).ok()?;
    let mut connections = v4.flatten().filter_map(ours).collect::<HashMap<_, _>>();
    // Comes with the names of all processes, which take some milliseconds.
    if v6 {
        let v6 = netsock::iter_sockets(AddressFamilyFlags::IPV6, ProtocolFlags::TCP).ok()?;
        connections.extend(v6.flatten().filter_map(ours));
    }
    Some(connections)
}

#[cfg(not(any(target_os = "linux", windows)))]
fn connections(_port: u16, _v6: bool) -> Option<HashMap<SocketAddr, bool>> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn a_client_that_closed_its_side_is_not_present() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_server, peer) = listener.accept().unwrap();
            let mut leavers = Leavers::new(port);
            assert!(!leavers.has_left(peer));
            client.shutdown(Shutdown::Write).unwrap();
            while !leavers.has_left(peer) {
                thread::yield_now();
            }
        }
    }
}
