//! Looks whether something has arrived on a blocking socket, without waiting for it.

use std::io;
use std::net::TcpStream;

/// The result of [`peek`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// Bytes to read.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The other side has closed, or the connection is broken.
    End,
}

/// Looks whether something has arrived, without reading it.
pub fn peek(stream: &TcpStream) -> Peeked {
    match peek_now(stream) {
        Ok(0) => Peeked::End,
        Ok(_) => Peeked::Bytes,
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Peeked::Nothing
        }
        Err(_) => Peeked::End,
    }
}

/// `MSG_DONTWAIT` of send(2) and recv(2), which is for one call what a socket that doesn't block is for all.
#[cfg(unix)]
pub const DONT_WAIT: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0x40 } else { 0x80 };

#[cfg(unix)]
fn peek_now(stream: &TcpStream) -> io::Result<usize> {
    /// `MSG_PEEK` of recv(2).
    const PEEK: i32 = 0x02;
    let byte = &mut [std::mem::MaybeUninit::uninit()];
    socket2::SockRef::from(stream).recv_with_flags(byte, PEEK | DONT_WAIT)
}

/// For a moment the socket doesn't block others that use it either.
#[cfg(windows)]
fn peek_now(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    peeked
}
