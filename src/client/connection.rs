//! A client's connection: its socket, and the bytes that have been read from it and not used yet.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::head::{Head, Scan};
use super::socket::Socket;
use crate::error::ApiError;

/// How much is read at first; a larger head is read in steps that double.
const FIRST_READ_BYTES: usize = 4 * 1024;
const MAX_READ_BYTES: usize = 64 * 1024;

/// A connection, between two requests or with one.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Arc<Socket>,
    /// The bytes that have been read and not used.
    pub buffer: Vec<u8>,
    scan: Scan,
    /// Since when a head has been arriving.
    head_since: Option<Instant>,
}

/// What has arrived of the next request.
#[derive(Debug)]
pub enum Arrival {
    /// The complete head.
    Head(Box<Head>),
    /// The head isn't complete yet.
    Unfinished,
    /// The connection ended, without another request.
    End,
    /// Bytes that can't be understood as a request, or could be two. They are still in the buffer.
    Refused(Box<ApiError>),
}

impl Connection {
    /// Creates a connection from which nothing has been read yet.
    pub fn new(socket: Socket) -> Self {
        Self { socket: Arc::new(socket), buffer: Vec::new(), scan: Scan::default(), head_since: None }
    }

    /// Returns since when a head has been arriving; `None` between two requests.
    pub fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// Looks for the next head in what has been read already.
    pub fn next_head(&mut self) -> Arrival {
        if self.buffer.is_empty() {
            return Arrival::Unfinished;
        }
        match self.scan.find_end(&self.buffer) {
            Ok(None) => {
                self.head_since.get_or_insert_with(Instant::now);
                Arrival::Unfinished
            }
            // A copy, because the head is kept for as long as the answer is waited for, and the buffer has room for
            // more.
            Ok(Some(length)) => match Head::parse(self.buffer[..length].to_vec()) {
                Ok(head) => {
                    self.buffer = self.buffer.split_off(length);
                    self.scan = Scan::default();
                    self.head_since = None;
                    Arrival::Head(Box::new(head))
                }
                Err(error) => Arrival::Refused(Box::new(error)),
            },
            Err(error) => Arrival::Refused(Box::new(error)),
        }
    }

    /// Reads once what has arrived, and looks for the next head.
    pub fn read_head(&mut self) -> Arrival {
        self.read_head_with(Socket::read)
    }

    /// Like [`Connection::read_head`], but waits a moment, because a busy client's next request comes at once.
    pub fn linger(&mut self) -> Arrival {
        self.read_head_with(|socket, buffer| socket.linger(buffer, true))
    }

    fn read_head_with(&mut self, read: fn(&Socket, &mut [u8]) -> io::Result<usize>) -> Arrival {
        match self.read_more(self.buffer.len().clamp(FIRST_READ_BYTES, MAX_READ_BYTES), read) {
            Ok(0) if self.buffer.trim_ascii_start().is_empty() => Arrival::End,
            Ok(0) => {
                let error = ApiError::bad_request("The head of the request ended early.", "请求头提前结束");
                Arrival::Refused(Box::new(error))
            }
            Ok(_) => self.next_head(),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Arrival::Unfinished,
            Err(_) => Arrival::End,
        }
    }

    /// Reads once, up to `most` bytes, and appends them to the buffer. Returns how many they were.
    pub(super) fn read_more(
        &mut self,
        most: usize,
        read: impl FnOnce(&Socket, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + most, 0);
        let read = read(&self.socket, &mut self.buffer[filled..]);
        self.buffer.truncate(filled + read.as_ref().map_or(0, |read| *read));
        read
    }

    /// Reads and discards what has arrived; `false` at the end of the connection.
    pub fn discard(&mut self) -> bool {
        self.buffer = Vec::new();
        match self.socket.read(&mut [0; MAX_READ_BYTES]) {
            Ok(read) => read > 0,
            Err(e) => e.kind() == io::ErrorKind::TimedOut,
        }
    }

    /// Frees memory that isn't needed while nothing is going on.
    pub fn rest(&mut self) {
        self.buffer.shrink_to_fit();
    }
}
