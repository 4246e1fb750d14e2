//! A client's socket: read and written by one thread at a time, watched by the poller.
//!
//! The socket blocks, with timeouts. What differs between systems in that is handled here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::client::slot;
use crate::error::is_timeout;
use crate::peek::{Peeked, peek};

/// A client that takes nothing of its answer, or sends nothing more of its request, for this long is disconnected.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes less than this of an answer in a second, beyond [`CLIENT_TIMEOUT`], is disconnected as well.
const LEAST_BYTES_A_SECOND: usize = 1024;
/// How long one send waits. Windows can't go on with a socket whose send timed out.
const SEND_TIMEOUT: Duration = if cfg!(windows) { CLIENT_TIMEOUT } else { Duration::from_secs(1) };
/// How long a thread stays with its connection after an answer: a busy client's next request comes at once, and two
/// hand-overs are saved. The system rounds it up to a tick of its clock.
const LINGER: Duration = Duration::from_millis(2);
/// Whether threads stay like that. Windows may lose what arrives just when a receive times out, so none may time out
/// there.
const LINGERS: bool = !cfg!(windows);
/// Clients that vanished without closing their connections are noticed after about twice this.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A look at a socket takes less than this.
const A_LOOK: Duration = Duration::from_millis(1);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Returns the number of open client sockets; each takes one descriptor.
pub fn open_sockets() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Measures how fast a client takes an answer that the system doesn't take at once.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// When the client last took something.
    took: Instant,
    bytes: usize,
}

impl Pace {
    /// Starts measuring now.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { began: now, took: now, bytes: 0 }
    }

    /// Notes that the client took this many bytes more.
    pub fn took(&mut self, bytes: usize) {
        if bytes > 0 {
            self.took = Instant::now();
            self.bytes += bytes;
        }
    }

    /// Returns by when the client must have taken more: [`CLIENT_TIMEOUT`] after it last did, and not much more slowly
    /// than [`LEAST_BYTES_A_SECOND`] on the whole.
    pub fn until(&self) -> Instant {
        let slowest = Duration::from_secs((self.bytes / LEAST_BYTES_A_SECOND) as u64);
        self.took.min(self.began + slowest) + CLIENT_TIMEOUT
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    peer: SocketAddr,
    accepted: Instant,
    /// A second handle for the poller, while it watches the socket.
    #[cfg(windows)]
    watched: std::sync::Mutex<Option<mio::net::TcpStream>>,
}

/// Sets the options of client sockets. Set on a listener, on Linux the accepted sockets inherit them (tcp(7),
/// socket(7)), which saves six system calls a connection.
pub fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.set_read_timeout(Some(if LINGERS { LINGER } else { CLIENT_TIMEOUT }))?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))
}

impl Socket {
    fn new(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        if !cfg!(target_os = "linux") {
            stream.set_nonblocking(false)?;
            prepare(&SockRef::from(&stream))?;
        }
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            stream,
            peer,
            accepted: Instant::now(),
            #[cfg(windows)]
            watched: std::sync::Mutex::default(),
        })
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// For how long the client has been connected.
    pub fn age(&self) -> Duration {
        self.accepted.elapsed()
    }

    /// Whether something has arrived, without waiting for it.
    pub fn peek(&self) -> Peeked {
        peek(&self.stream)
    }

    /// Reads what has arrived, waiting a moment for it; [`io::ErrorKind::TimedOut`] after that.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.stream).read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) => return Err(io::ErrorKind::TimedOut.into()),
                read => return read,
            }
        }
    }

    /// Like [`Socket::read`], but without `waits`, or where waiting isn't possible, [`io::ErrorKind::TimedOut`] comes
    /// at once.
    pub fn linger(&self, buffer: &mut [u8], waits: bool) -> io::Result<usize> {
        if (waits && LINGERS) || self.peek() != Peeked::Nothing {
            self.read(buffer)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    /// Sends all bytes. While the client doesn't read, another request may get this thread's slot.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = match (&self.stream).write(bytes) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(sent) => &bytes[sent..],
            Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::Interrupted => bytes,
            Err(e) => return Err(e),
        };
        let mut pace = Pace::start();
        while !rest.is_empty() {
            match (&self.stream).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    rest = &rest[sent..];
                    pace.took(sent);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) && cfg!(not(windows)) => slot::give_up(),
                // Another thread looks at the socket (`peek`); a send that takes too long is `TimedOut` on Windows.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(A_LOOK),
                Err(e) => return Err(e),
            }
            if Instant::now() > pace.until() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Sends what the system takes at once, without waiting. Returns how many bytes it took.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let sent = {
            #[cfg(unix)]
            {
                // Rust's runtime ignores SIGPIPE.
                SockRef::from(&self.stream).send_with_flags(bytes, crate::peek::DONT_WAIT)
            }
            #[cfg(windows)]
            {
                self.stream.set_nonblocking(true)?;
                let sent = (&self.stream).write(bytes);
                self.stream.set_nonblocking(false)?;
                sent
            }
        };
        match sent {
            Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::Interrupted => Ok(0),
            sent => sent,
        }
    }

    /// Ends the sending side.
    pub fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Has the poller told, once, when something arrives or the client leaves. The socket must not be watched already.
    pub fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.watch_for(Interest::READABLE, registry, token)
    }

    /// Like [`Socket::watch`], but for the moment when more can be sent.
    pub fn watch_for_room(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.watch_for(Interest::WRITABLE, registry, token)
    }

    fn watch_for(&self, interest: Interest, registry: &Registry, token: Token) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            let mut source = mio::unix::SourceFd(&self.stream.as_raw_fd());
            registry.register(&mut source, token, interest)
        }
        #[cfg(windows)]
        {
            let mut second = mio::net::TcpStream::from_std(self.stream.try_clone()?);
            registry.register(&mut second, token, interest)?;
            *self.lock_watched() = Some(second);
            Ok(())
        }
    }

    /// Stops what [`Socket::watch`] began.
    pub fn unwatch(&self, registry: &Registry) {
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            let _ = registry.deregister(&mut mio::unix::SourceFd(&self.stream.as_raw_fd()));
        }
        #[cfg(windows)]
        if let Some(mut second) = self.lock_watched().take() {
            let _ = registry.deregister(&mut second);
        }
    }

    #[cfg(windows)]
    fn lock_watched(&self) -> std::sync::MutexGuard<'_, Option<mio::net::TcpStream>> {
        crate::sync::lock(&self.watched)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that clients connect to; accepting doesn't block.
#[derive(Debug)]
pub struct Listener {
    #[cfg(unix)]
    listener: TcpListener,
    #[cfg(windows)]
    listener: mio::net::TcpListener,
}

impl Listener {
    /// Has the poller told of new clients, under this token.
    pub fn watch(listener: TcpListener, registry: &Registry, token: Token) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            let fd = listener.as_raw_fd();
            registry.register(&mut mio::unix::SourceFd(&fd), token, Interest::READABLE)?;
        }
        #[cfg(windows)]
        let listener = {
            let mut listener = mio::net::TcpListener::from_std(listener);
            registry.register(&mut listener, token, Interest::READABLE)?;
            listener
        };
        Ok(Self { listener })
    }

    /// Accepts the next client; [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn accept(&self) -> io::Result<Socket> {
        let (stream, peer) = self.listener.accept()?;
        #[cfg(windows)]
        let stream = stream.into();
        Socket::new(stream, peer)
    }
}
