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

#[cfg(target_os = "linux")]
fn peek_now(stream: &TcpStream) -> io::Result<usize> {
    /// recv(2): `MSG_PEEK | MSG_DONTWAIT`. One call in place of three.
    const PEEK_NOW: i32 = 0x02 | 0x40;
    socket2::SockRef::from(stream).recv_with_flags(&mut [std::mem::MaybeUninit::uninit()], PEEK_NOW)
}

#[cfg(not(target_os = "linux"))]
fn peek_now(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    peeked
}
