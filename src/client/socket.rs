//! A client's socket: read and written by one thread at a time, watched by the poller.
//!
//! It blocks, with time limits. What differs between systems about that stands here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::client::slot;
use crate::error::is_timeout;
use crate::peek::{Peeked, peek};

/// A client that takes nothing of its answer, or sends nothing more of its request, for this long is let go.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Whoever takes less than this of an answer in a second, beyond [`CLIENT_TIMEOUT`], doesn't want it.
const LEAST_BYTES_A_SECOND: usize = 1024;
/// How long a send waits at a time. Windows can't go on with a socket whose send timed out.
const SEND_TIMEOUT: Duration = if cfg!(windows) { CLIENT_TIMEOUT } else { Duration::from_secs(1) };
/// How long a thread stays with its connection after an answer: a busy client's next request comes at once, and two
/// hand-overs are saved. The system rounds it up to its clock's tick.
const LINGER: Duration = Duration::from_millis(2);
/// Windows may lose what arrives just when a receive times out, so none is tried again there.
const LINGERS: bool = !cfg!(windows);
/// Clients that vanished without a word are noticed after about twice this.
const KEEPALIVE: Duration = Duration::from_secs(60);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Client sockets that are open; each takes one descriptor.
pub fn open_sockets() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// How a client takes an answer that the system doesn't take at once.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// When it last took something.
    took: Instant,
    bytes: usize,
}

impl Pace {
    /// From now on.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { began: now, took: now, bytes: 0 }
    }

    /// It took so much more.
    pub fn took(&mut self, bytes: usize) {
        if bytes > 0 {
            self.took = Instant::now();
            self.bytes += bytes;
        }
    }

    /// By when it must have taken more: [`CLIENT_TIMEOUT`] after the last of it, and not much more slowly than
    /// [`LEAST_BYTES_A_SECOND`] on the whole.
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
    /// A second handle for the poller, while it watches.
    #[cfg(windows)]
    watched: std::sync::Mutex<Option<mio::net::TcpStream>>,
}

/// Sets what the sockets accepted on a listener are to have: on Linux they inherit it (tcp(7), socket(7)), and six system
/// calls a connection are saved.
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

    /// The same, but [`io::ErrorKind::TimedOut`] at once unless it `waits`, and where that isn't possible.
    pub fn linger(&self, buffer: &mut [u8], waits: bool) -> io::Result<usize> {
        if (waits && LINGERS) || self.peek() != Peeked::Nothing {
            self.read(buffer)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    /// Sends all of it. While the client doesn't read, others may have this thread's place among the workers.
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
                Err(e) => return Err(e),
            }
            if Instant::now() > pace.until() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Sends what the system takes at once, and waits for nobody. How much it was.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let sent = {
            #[cfg(target_os = "linux")]
            {
                /// send(2): `MSG_DONTWAIT | MSG_NOSIGNAL`.
                const NOW: i32 = 0x40 | 0x4000;
                SockRef::from(&self.stream).send_with_flags(bytes, NOW)
            }
            #[cfg(not(target_os = "linux"))]
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

    /// Nothing more is sent.
    pub fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Has the poller told when something arrives, or the client leaves; once for each call of this. It isn't watched yet.
    pub fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.watch_for(Interest::READABLE, registry, token)
    }

    /// The same when more can be sent.
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

    /// The poller is told nothing any more.
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

/// A socket that clients connect to, accepted from without waiting.
#[derive(Debug)]
pub struct Listener {
    #[cfg(unix)]
    listener: TcpListener,
    #[cfg(windows)]
    listener: mio::net::TcpListener,
}

impl Listener {
    /// Has the poller told of clients under this token.
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

    /// The next client; [`io::ErrorKind::WouldBlock`] where there is none.
    pub fn accept(&self) -> io::Result<Socket> {
        let (stream, peer) = self.listener.accept()?;
        #[cfg(windows)]
        let stream = stream.into();
        Socket::new(stream, peer)
    }
}
