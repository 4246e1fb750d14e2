//! The sockets that clients connect to, and tiny_http on them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tiny_http::{Request, Server};

use crate::language::either;
use crate::settings::Listen;

/// Connections that may wait to be accepted; std's 128 makes some of a burst of 500 wait for a second.
const BACKLOG: i32 = 4096;
/// A client that takes nothing of its answer for this long has stopped reading: it is let go.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a send waits at a time. Windows can't go on with a socket whose send timed out.
pub const SEND_TIMEOUT: Duration = if cfg!(windows) { CLIENT_TIMEOUT } else { Duration::from_secs(1) };
/// Clients that vanished without a word are noticed after about twice this.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often the thread pool is looked after when nothing new is seen.
const NUDGE_WHEN_IDLE: Duration = Duration::from_secs(1);
/// Nudges of the first round after a new client was seen; twice as many in each round that shows more new clients.
const FIRST_NUDGES: usize = 2;
const MOST_NUDGES: usize = 8;
/// After a round that shows nobody new, one more after this is the last.
const NUDGE_INTERVAL: Duration = Duration::from_millis(8);
const NUDGE_HELD: Duration = Duration::from_millis(2);
const NUDGE_SLOTS: usize = 4096;
/// How often the accept loop looks for another request before it sleeps.
const LOOKS: usize = 4;
/// Descriptors that must be free before accepting goes on after it failed.
const SPARE_DESCRIPTORS: usize = 8;
/// How often is looked whether they are.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(50);

/// Why listening failed.
#[derive(Debug)]
pub enum ListenError {
    /// Something listens there already.
    Taken(SocketAddr),
    /// Anything else.
    Other(SocketAddr, io::Error),
    /// `HOST` names nothing.
    UnknownHost(String),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(address) => {
                let port = address.port();
                f.write_str(&either(
                    format!(
                        "port {port} is taken by another program. Choose another with PORT in .env or --port"
                    ),
                    format!("端口 {port} 已被其他程序占用。请在 .env 中用 PORT 或用 --port 选择另一个"),
                ))?;
                if cfg!(target_os = "macos") && address.port() == 5000 {
                    f.write_str(
                        " (on macOS it is AirPlay Receiver's: System Settings, General, AirDrop & Handoff)",
                    )?;
                }
                f.write_str(".")
            }
            Self::Other(address, e) if e.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "listening on {address} is not allowed. Choose a port above 1023 with PORT in .env or --port."
                )
            }
            Self::Other(address, e) if e.kind() == io::ErrorKind::AddrNotAvailable => {
                write!(f, "{} is not an address of this machine. Check HOST in .env or --host.", address.ip())
            }
            Self::Other(address, e) => {
                write!(f, "can't listen on {address}: {e}. Check HOST and PORT in .env.")
            }
            Self::UnknownHost(host) => {
                write!(f, "{host} is not a name that this machine knows. Check HOST in .env or --host.")
            }
        }
    }
}

/// Opens the sockets for `HOST` and `PORT`; `localhost` has one for IPv4 and one for IPv6.
pub fn bind(listen: &Listen) -> Result<Vec<TcpListener>, ListenError> {
    if !listen.host.eq_ignore_ascii_case("localhost") {
        let unknown = || ListenError::UnknownHost(listen.host.clone());
        let addresses = (listen.host.as_str(), listen.port).to_socket_addrs().map_err(|_| unknown())?;
        let listeners = addresses.map(bind_to).collect::<Result<Vec<_>, _>>()?;
        return if listeners.is_empty() { Err(unknown()) } else { Ok(listeners) };
    }
    let v4 = bind_to((Ipv4Addr::LOCALHOST, listen.port).into());
    // Both have the same port, also where the system chose it.
    let port = match &v4 {
        Ok(listener) => listener.local_addr().map_or(listen.port, |address| address.port()),
        Err(_) => listen.port,
    };
    let v6 = bind_to((Ipv6Addr::LOCALHOST, port).into());
    match (v4, v6) {
        (Err(taken @ ListenError::Taken(_)), _) | (_, Err(taken @ ListenError::Taken(_))) => Err(taken),
        // A machine without one of the two families.
        (Ok(v4), v6) => Ok(std::iter::once(v4).chain(v6).collect()),
        (Err(_), Ok(v6)) => Ok(vec![v6]),
        (Err(error), Err(_)) => Err(error),
    }
}

fn bind_to(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open(address).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Other(address, e),
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `::` alone takes IPv4 clients too; `::1` must not collide with 127.0.0.1.
        socket.set_only_v6(address.ip() != IpAddr::from(Ipv6Addr::UNSPECIFIED))?;
    }
    // Elsewhere than on Windows this only forgives the last run's closed connections.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Accepted sockets inherit these; tiny_http gives no other way to set them. A receive timeout also ends `accept`
    // when nobody comes for so long, and tiny_http's server with it: `Nudge` comes every second.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_read_timeout(Some(CLIENT_TIMEOUT));
    let _ = socket.set_write_timeout(Some(SEND_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Gets connections out of a trap in tiny_http's thread pool.
///
/// Its `TaskPool::spawn` leaves a new connection to the idle threads as long as it counts one; but a thread that was
/// given a connection counts as idle until it has woken up. Of a burst, some connections so wait for a thread that never
/// comes, unless one that serves another connection becomes free. A connection of our own, opened and closed, makes it
/// free: its thread takes the next waiting one.
struct Nudge {
    /// The last client seen in each slot, to tell new connections from known ones.
    clients: Vec<AtomicU32>,
    wake: Sender<()>,
}

impl Nudge {
    fn start(listener: &TcpListener) -> io::Result<Self> {
        let address = own_address(listener)?;
        let (wake, woken) = bounded(1);
        let nudging = move || {
            loop {
                match woken.recv_timeout(NUDGE_WHEN_IDLE) {
                    Ok(()) => {
                        let (mut count, mut last) = (FIRST_NUDGES, false);
                        loop {
                            nudge(address, count);
                            match (woken.try_recv(), last) {
                                (Ok(()), _) => (count, last) = ((count * 2).min(MOST_NUDGES), false),
                                (Err(_), true) => break,
                                (Err(_), false) => {
                                    last = true;
                                    thread::sleep(NUDGE_INTERVAL);
                                }
                            }
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => nudge(address, 1),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        thread::Builder::new().name("nudge".into()).spawn(nudging)?;
        NUDGES.lock().unwrap_or_else(PoisonError::into_inner).push(wake.clone());
        let clients = std::iter::repeat_with(AtomicU32::default).take(NUDGE_SLOTS).collect();
        Ok(Self { clients, wake })
    }

    fn saw(&self, peer: Option<&SocketAddr>) {
        let Some(peer) = peer else { return };
        let port = peer.port();
        let slot = &self.clients[port as usize % NUDGE_SLOTS];
        if slot.swap(port.into(), Ordering::Relaxed) != u32::from(port) {
            let _ = self.wake.try_send(());
        }
    }
}

fn nudge(address: SocketAddr, count: usize) {
    let connect = |_| {
        let stream = TcpStream::connect_timeout(&address, NUDGE_INTERVAL * 10).ok()?;
        // Closed by a reset it leaves nothing behind (no TIME_WAIT).
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
        Some(stream)
    };
    let streams = (0..count).map(connect).collect::<Vec<_>>();
    // Windows reports a reset before `accept` as its error.
    thread::sleep(NUDGE_HELD);
    drop(streams);
}

/// Where nudges are asked for, one for each listener.
static NUDGES: Mutex<Vec<Sender<()>>> = Mutex::new(Vec::new());

/// Of a thread that died of a connection, others may be left without one.
///
/// To be called by the panic hook.
pub fn pool_lost_a_thread() {
    for wake in NUDGES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = wake.try_send(());
    }
}

/// How often [`check_servers`] was called.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Servers whose accept thread may need a successor.
static SERVERS: Mutex<Vec<Weak<Server>>> = Mutex::new(Vec::new());

/// Wakes the accept loops: tiny_http's own thread may have died of a panic, which leaves no message for them.
///
/// To be called by the panic hook for the other panics of threads that aren't ours.
pub fn check_servers() {
    PANICS.fetch_add(1, Ordering::SeqCst);
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    servers.retain(|server| server.upgrade().inspect(|server| server.unblock()).is_some());
}

/// One listener's accept loop, in whichever thread runs it.
///
/// tiny_http stops accepting at the first error of `accept` (no descriptors left, say). The socket is ours: a new server
/// takes its place on it, while the old one's connections are served to their end.
pub struct Acceptor {
    listener: TcpListener,
    server: Option<Arc<Server>>,
    /// [`PANICS`] when the server began.
    panics: usize,
    nudge: Arc<Nudge>,
    /// What becomes of the requests of a server that has been replaced.
    old: Arc<dyn Fn(Request) + Send + Sync>,
}

impl Acceptor {
    /// Nothing is accepted before the first request is asked for. `old` gets what comes on connections that were accepted
    /// before an accident.
    pub fn new(listener: TcpListener, old: Arc<dyn Fn(Request) + Send + Sync>) -> io::Result<Self> {
        let nudge = Arc::new(Nudge::start(&listener)?);
        Ok(Self { listener, server: None, panics: 0, nudge, old })
    }

    /// Waits for the next request. Whether it had to be waited for.
    pub fn accept(&mut self) -> (Request, bool) {
        loop {
            let Some(server) = &self.server else {
                self.start();
                continue;
            };
            if let Some(next) = next_request(server, self.panics) {
                self.nudge.saw(next.0.remote_addr());
                return next;
            }
            self.retire();
        }
    }

    fn start(&mut self) {
        wait_for_descriptors(&self.listener);
        self.panics = PANICS.load(Ordering::SeqCst);
        let Some(server) = self.listener.try_clone().ok().and_then(new_server) else {
            return thread::sleep(RECOVERY_INTERVAL);
        };
        let server = Arc::new(server);
        SERVERS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&server));
        // It may have died before `check_servers` knew of it. Which one died, nobody tells: one server too many does
        // no harm, one too few is the end.
        self.server = Some(server);
    }

    /// The server has stopped accepting; it still has connections.
    fn retire(&mut self) {
        let Some(server) = self.server.take() else { return };
        let (nudge, old) = (Arc::clone(&self.nudge), Arc::clone(&self.old));
        let outlive = move || {
            loop {
                if let Ok(request) = server.recv() {
                    nudge.saw(request.remote_addr());
                    old(request);
                }
            }
        };
        // Without a thread more to be had they stay unserved; new connections don't.
        let _ = thread::Builder::new().name("accept-old".into()).spawn(outlive);
    }
}

/// On Linux threads have the name of the one that starts them, unless they choose another: tiny_http's are "http".
fn new_server(listener: TcpListener) -> Option<Server> {
    let start = move || Server::from_listener(listener, None).ok();
    thread::Builder::new().name("http".into()).spawn(start).ok()?.join().ok()?
}

/// Where we reach our own listener.
fn own_address(listener: &TcpListener) -> io::Result<SocketAddr> {
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

/// Looks a few times before it sleeps: under load the next request is there by then, and a wake-up is saved. `None` when
/// the server may have stopped accepting.
fn next_request(server: &Server, panics: usize) -> Option<(Request, bool)> {
    for _ in 0..LOOKS {
        match server.try_recv() {
            Ok(Some(request)) => return Some((request, false)),
            Ok(None) => thread::yield_now(),
            Err(_) => return None,
        }
    }
    // `try_recv` swallows what `unblock` sends.
    match PANICS.load(Ordering::SeqCst) == panics {
        true => Some((server.recv().ok()?, true)),
        false => None,
    }
}

fn wait_for_descriptors(listener: &TcpListener) {
    loop {
        let spare = (0..SPARE_DESCRIPTORS).map(|_| listener.try_clone()).collect::<Result<Vec<_>, _>>();
        if spare.is_ok() {
            return;
        }
        drop(spare);
        thread::sleep(RECOVERY_INTERVAL);
    }
}

/// The address to tell people, with the port that the system chose where it was free to.
pub fn port(listeners: &[TcpListener]) -> u16 {
    let address = listeners.first().and_then(|listener| listener.local_addr().ok());
    address.map_or(0, |address| address.port())
}
