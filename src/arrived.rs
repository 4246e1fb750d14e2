//! Whether something has arrived on a socket that blocks, without waiting for it.

use std::io;
use std::net::TcpStream;

/// What a look at a socket found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// Bytes to read.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The other side has closed, or the connection is broken.
    End,
}

/// Looks.
pub fn arrived(stream: &TcpStream) -> Arrived {
    match peek(stream) {
        Ok(0) => Arrived::End,
        Ok(_) => Arrived::Bytes,
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Arrived::Nothing
        }
        Err(_) => Arrived::End,
    }
}

#[cfg(target_os = "linux")]
fn peek(stream: &TcpStream) -> io::Result<usize> {
    /// recv(2): `MSG_PEEK | MSG_DONTWAIT`. One call in place of three.
    const PEEK_NOW: i32 = 0x02 | 0x40;
    socket2::SockRef::from(stream).recv_with_flags(&mut [std::mem::MaybeUninit::uninit()], PEEK_NOW)
}

#[cfg(not(target_os = "linux"))]
fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    peeked
}
