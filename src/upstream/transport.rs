//! Connections to the upstream, below ureq: one send for a request's head and body, one probe for a pooled connection,
//! TLS with a company's root certificates beside the built-in ones, and all of this through a proxy, too.

use std::fmt;
use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, ShutdownHandle,
    SocksConnector, Transport, TransportAdapter,
};
use ureq::{Error, Timeout, http::Uri};

use super::buffers::GrowingBuffers;
use super::failure::UnknownName;
use crate::error::{is_about_descriptors, is_timeout};
use crate::peek::{Peeked, peek};
use crate::sync::lock;

/// A head of at most this many bytes is held until the body follows, so that both leave in one packet.
const HELD_BYTES: usize = 16 * 1024;

/// Firewalls forget idle connections, but not sooner than this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// Returns a connector that opens the connections of one agent.
pub fn connector(
    tls: Option<Arc<ClientConfig>>,
    dialling: Arc<AtomicUsize>,
    deadline: Arc<Deadline>,
) -> impl Connector {
    let done = Done { dialling: Arc::clone(&dialling), deadline };
    Begin(dialling).chain(ViaProxy).chain(Dial).chain(Tls(tls)).chain(done)
}

/// What comes between two bytes of a body, or behind it, is chunk sizes and trailers: so many pieces of them may take any
/// time.
const FREE_PIECES: u32 = 8;
/// The most pieces altogether, and how long those beyond the first ones may go on.
const MAX_PIECES: u32 = 1000;
const FRAMING_LIMIT: Duration = Duration::from_secs(5);

/// The time at which waiting for an answer ends, whatever still comes.
#[derive(Debug, Default)]
pub struct Deadline(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    by: Option<Instant>,
    /// How often input was waited for since the last byte of the body, and since when; `None` before the body.
    for_body: Option<(u32, Instant)>,
}

impl Deadline {
    /// Sets the time after which nothing more is waited for; `None` removes it.
    pub fn set(&self, by: Option<Instant>) {
        lock(&self.0).by = by;
    }

    /// Begins to wait for more of the body.
    pub fn wait_for_body(&self) {
        let mut waits = lock(&self.0);
        let since = waits.for_body.map_or_else(Instant::now, |(_, since)| since);
        waits.for_body = Some((0, since));
    }

    /// Forgets the call that has ended.
    pub fn reset(&self) {
        *lock(&self.0) = Waits::default();
    }

    /// Returns how long may be waited for more input.
    fn left(&self) -> Option<Duration> {
        let mut waits = lock(&self.0);
        let by = waits.by;
        if let Some((pieces, since)) = &mut waits.for_body {
            *pieces += 1;
            if *pieces == FREE_PIECES {
                *since = Instant::now();
            }
            if *pieces > MAX_PIECES || *pieces > FREE_PIECES && since.elapsed() > FRAMING_LIMIT {
                return Some(Duration::ZERO);
            }
        }
        by.map(|by| by.saturating_duration_since(Instant::now()))
    }
}

/// A connection on which waiting ends at a deadline.
#[derive(Debug)]
struct Bounded<T> {
    inner: T,
    deadline: Arc<Deadline>,
}

impl<T: Transport> Transport for Bounded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        match self.deadline.left() {
            None => self.inner.await_input(timeout),
            Some(left) if left.is_zero() => Err(Error::Timeout(Timeout::PerRead)),
            Some(left) if left < *timeout.after => self.inner.await_input(NextTimeout {
                after: left.into(),
                reason: Timeout::PerRead,
                ..timeout
            }),
            Some(_) => self.inner.await_input(timeout),
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Leaves name look-ups to [`Dial`]: they are made when a connection is opened, not for each request.
#[derive(Debug, Default)]
pub struct LateResolver(DefaultResolver);

impl Resolver for LateResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        // Proxies are looked up by their connectors, and SOCKS proxies may need the target's address.
        match config.proxy() {
            Some(_) => look_up(uri, config, timeout),
            None => Ok(self.0.empty()),
        }
    }
}

/// Counts the connections that are about to be opened: an error meanwhile is one of connecting.
#[derive(Debug)]
struct Begin(Arc<AtomicUsize>);

impl Connector for Begin {
    type Out = ();

    fn connect(&self, _: &ConnectionDetails, _: Option<()>) -> Result<Option<()>, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }
}

/// Notes that one of these connections is open.
#[derive(Debug)]
struct Done {
    dialling: Arc<AtomicUsize>,
    deadline: Arc<Deadline>,
}

impl<In: Transport> Connector<In> for Done {
    type Out = Bounded<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        self.dialling.fetch_sub(1, Ordering::Relaxed);
        Ok(chained.map(|inner| Bounded { inner, deadline: Arc::clone(&self.deadline) }))
    }
}

/// Opens connections to or through the proxy, if there is one.
#[derive(Debug)]
struct ViaProxy;

impl Connector for ViaProxy {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        match details.config.proxy() {
            Some(_) => Self::to_proxy(details),
            None => Ok(None),
        }
    }
}

impl ViaProxy {
    /// Out of line, because it takes 7 KB of stack, which every worker's would have if it were inlined.
    #[inline(never)]
    fn to_proxy(details: &ConnectionDetails) -> Result<Option<Box<dyn Transport>>, Error> {
        let connector = ().chain(SocksConnector::default()).chain(ConnectProxyConnector::default());
        Ok(connector.connect(details, None)?.map(Transport::boxed))
    }
}

/// Opens TCP connections if no proxy did.
#[derive(Debug)]
struct Dial;

// The transport is boxed, because the connectors of a chain pass it on by value, each time on the stack.
impl<In: Transport> Connector<In> for Dial {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(chained.boxed()));
        }
        let stream = match (details.addrs.is_empty(), literal_address(details.uri)) {
            (true, Some(address)) => connect_to_any(&[address], *details.timeout.after),
            (true, None) => {
                let addresses = look_up(details.uri, details.config, details.timeout)?;
                connect_to_any(&addresses, *details.timeout.after)
            }
            (false, _) => connect_to_any(&details.addrs, *details.timeout.after),
        };
        let tcp = Tcp {
            stream: Arc::new(stream?),
            buffers: GrowingBuffers::default(),
            held: Vec::new(),
            may_hold: true,
            may_be_stale: false,
            idle_since: None,
            receives: 0,
            write_failed: false,
            read_timeout: None,
            write_timeout: None,
        };
        tcp.stream.set_nodelay(true)?;
        let socket: Weak<TcpStream> = Arc::downgrade(&tcp.stream);
        (details.register_shutdown)(socket as Weak<dyn ShutdownHandle>)?;
        Ok(Some(tcp.boxed()))
    }
}

/// Returns the address of a host that is written as an IP address: looking it up would make ureq start a thread.
fn literal_address(uri: &Uri) -> Option<SocketAddr> {
    let ip = uri.host()?.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
    let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some(SocketAddr::new(ip, uri.port_u16().unwrap_or(default_port)))
}

/// Looks up the addresses of a host. A failure has a type of its own, since the system's errors differ too much.
fn look_up(
    uri: &Uri,
    config: &ureq::config::Config,
    timeout: NextTimeout,
) -> Result<ResolvedSocketAddrs, Error> {
    let found = DefaultResolver::default().resolve(uri, config, timeout);
    let host = || uri.host().unwrap_or_default().to_owned();
    found.map_err(|error| match error {
        Error::Io(error) if is_about_descriptors(&error) => Error::Io(error),
        Error::Io(_) | Error::HostNotFound => Error::Io(io::Error::other(UnknownName { host: host() })),
        other => other,
    })
}

/// Tries the addresses in turn, each with an equal share of the time that is left.
fn connect_to_any(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Error> {
    let start = Instant::now();
    let mut last = Error::HostNotFound;
    for (tried, address) in addresses.iter().enumerate() {
        let left = limit.saturating_sub(start.elapsed());
        let share = left / (addresses.len() - tried) as u32;
        if share.is_zero() {
            return Err(Error::Timeout(Timeout::Connect));
        }
        match TcpStream::connect_timeout(address, share) {
            // On Linux, std takes a refused connection for an open one if it looks between the error and the hang-up.
            Ok(stream) => match stream.take_error() {
                Ok(None) => return Ok(stream),
                Ok(Some(e)) | Err(e) => last = Error::Io(e),
            },
            Err(e) if e.kind() == io::ErrorKind::TimedOut => last = Error::Timeout(Timeout::Connect),
            Err(e) => last = Error::Io(e),
        }
    }
    Err(last)
}

/// The error of a pooled connection that the upstream had closed before it got the request.
#[derive(Debug)]
pub struct Stale;

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pooled connection was closed")
    }
}

impl std::error::Error for Stale {}

/// A TCP connection.
struct Tcp {
    stream: Arc<TcpStream>,
    buffers: GrowingBuffers,
    /// Output that is held until more follows.
    held: Vec<u8>,
    /// Whether nothing was sent since the last input: what comes now is the beginning of a request.
    may_hold: bool,
    /// Whether the connection has been idle since it was last probed.
    may_be_stale: bool,
    /// Since when the connection was idle, if it has served a request before and nothing has come of the current
    /// answer.
    idle_since: Option<Instant>,
    /// How often the answer to the current request has been waited for.
    receives: u32,
    /// Whether the upstream closed its side while a request was being sent; it may have answered why.
    write_failed: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tcp({:?})", self.stream.peer_addr().ok())
    }
}

/// Sets a timeout of the socket only when it changes, because each change costs a system call.
fn limit(
    timeout: NextTimeout,
    set: &mut Option<Duration>,
    apply: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> io::Result<()> {
    let wanted = timeout.not_zero().map(|limit| *limit);
    if wanted != *set {
        apply(wanted)?;
        *set = wanted;
    }
    Ok(())
}

/// Writes all of two buffers in as few packets as possible.
fn write_both(mut stream: &TcpStream, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
    while !first.is_empty() {
        let written = match stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let of_first = written.min(first.len());
        first = &first[of_first..];
        second = &second[written - of_first..];
    }
    stream.write_all(second)
}

impl Tcp {
    fn send_held_and(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        limit(timeout, &mut self.write_timeout, |t| self.stream.set_write_timeout(t))?;
        let output = match amount {
            0 => &[][..],
            _ => &self.buffers.output()[..amount],
        };
        let sent = write_both(&self.stream, &self.held, output);
        self.held.clear();
        if amount > 0 && amount == self.buffers.output().len() {
            self.buffers.output_was_full();
        }
        match sent {
            Ok(()) => Ok(()),
            Err(e) if is_timeout(&e) => Err(Error::Timeout(timeout.reason)),
            // An upstream that refuses a large body (413) answers and closes before it has read it all: the answer can
            // still be read. If there is none, reading reports that.
            Err(e) if matches!(e.kind(), BrokenPipe | ConnectionReset | NotConnected) => {
                self.write_failed = true;
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Tcp {
    /// Tells an upstream that closed an idle connection, just when a request was sent on it, from one that read the
    /// request and then closed: only the first may be asked again without counting it as a call.
    ///
    /// A side that closes first and gets data afterwards answers with a reset; one that has read everything just ends.
    /// A reset alone comes from a firewall that has forgotten a connection, or from a server that gave up.
    fn was_closed_while_idle(&self, ended: bool) -> bool {
        let Some(idle_since) = self.idle_since else {
            return false;
        };
        if self.write_failed || !cfg!(target_os = "linux") {
            return true;
        }
        if !ended {
            return idle_since.elapsed() > FORGOTTEN_AFTER;
        }
        // The reset may come a round trip after the end of the stream.
        (0..20).any(|_| {
            let reset = matches!(self.stream.take_error(), Ok(Some(_)));
            if !reset {
                std::thread::sleep(Duration::from_millis(5));
            }
            reset
        })
    }
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.write_failed {
            return Ok(());
        }
        if self.may_hold && amount <= HELD_BYTES {
            self.may_hold = false;
            self.held.extend_from_slice(&self.buffers.output()[..amount]);
            return Ok(());
        }
        self.may_hold = false;
        self.send_held_and(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if !self.held.is_empty() {
            self.send_held_and(0, timeout)?;
        }
        self.may_hold = true;
        self.may_be_stale = false;
        let timeout = timeout.for_read();
        limit(timeout, &mut self.read_timeout, |t| self.stream.set_read_timeout(t))?;
        // For the rest of an answer that has begun: an upstream that sends small pieces with Nagle's algorithm waits
        // for an acknowledgement, which Linux delays by 40 ms on connections that are sent on as well (tcp(7),
        // TCP_QUICKACK). Set once, the option makes Linux treat the connection as one-way until the next request.
        #[cfg(target_os = "linux")]
        if self.receives == 1 {
            let _ = socket2::SockRef::from(&*self.stream).set_tcp_quickack(true);
        }
        self.receives = self.receives.saturating_add(1);
        let input = self.buffers.input_append_buf();
        let received = loop {
            match (&*self.stream).read(input) {
                Ok(received) => break received,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) => return Err(Error::Timeout(timeout.reason)),
                Err(_) if self.was_closed_while_idle(false) => {
                    return Err(Error::Io(io::Error::other(Stale)));
                }
                // ureq takes a reset for the end of a body that has no length, which it isn't.
                Err(e) => return Err(Error::Io(io::Error::other(e))),
            }
        };
        if received == 0 && self.was_closed_while_idle(true) {
            return Err(Error::Io(io::Error::other(Stale)));
        }
        self.idle_since = None;
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    /// ureq calls this when a request is done and again when the next one begins; only the second call can find out
    /// more than the empty input buffer tells already.
    fn is_open(&mut self) -> bool {
        if self.write_failed {
            return false;
        }
        if !self.may_be_stale {
            self.may_be_stale = true;
            self.receives = 0;
            self.idle_since = Some(Instant::now());
            self.buffers.shrink();
            return true;
        }
        peek(&self.stream) == Peeked::Nothing
    }
}

/// Wraps a connection in TLS if the address asks for it, even one to an `https://` proxy.
#[derive(Debug)]
struct Tls(Option<Arc<ClientConfig>>);

impl<In: Transport> Connector<In> for Tls {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(chained) = chained else {
            return Ok(None);
        };
        if !details.needs_tls() {
            return Ok(Some(chained.boxed()));
        }
        let config = self.0.clone().ok_or(Error::TlsRequired)?;
        handshake(config, details, chained.boxed()).map(Some)
    }
}

/// Out of line, for the same reason as [`ViaProxy::to_proxy`].
#[inline(never)]
fn handshake(
    config: Arc<ClientConfig>,
    details: &ConnectionDetails,
    socket: Box<dyn Transport>,
) -> Result<Box<dyn Transport>, Error> {
    let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Tls("not a host name"))?;
    let connection = ClientConnection::new(config, name).map_err(|e| Error::Other(e.into()))?;
    let mut socket = TransportAdapter::new(socket, details.current_time.clone());
    socket.set_timeout(details.timeout);
    let mut stream = StreamOwned { conn: connection, sock: socket };
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(TlsWire { stream, buffers: GrowingBuffers::default(), is_reused: false, is_answered: false }.boxed())
}

/// A TLS connection over any other connection.
struct TlsWire {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: GrowingBuffers,
    /// Whether the connection has served a request before.
    is_reused: bool,
    /// Whether something of the answer to the current request has come.
    is_answered: bool,
}

impl fmt::Debug for TlsWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.stream.sock.inner())
    }
}

impl Transport for TlsWire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        if amount == self.buffers.output().len() {
            self.buffers.output_was_full();
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let received = self.stream.read(self.buffers.input_append_buf())?;
        // The upstream's `close_notify` was on its way when the request was sent: the request hasn't been read.
        if received == 0 && self.is_reused && !self.is_answered {
            return Err(Error::Io(io::Error::other(Stale)));
        }
        self.is_answered = true;
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    /// Bytes that were decrypted but not asked for would be taken for the next request's answer; the end of the session
    /// doesn't show on the socket alone.
    fn is_open(&mut self) -> bool {
        let has_nothing = matches!(
            self.stream.conn.reader().fill_buf(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock
        );
        (self.is_reused, self.is_answered) = (true, false);
        has_nothing && self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
