//! One request of a client and its answer, framed as [RFC 9112](https://www.rfc-editor.org/rfc/rfc9112) has it, with
//! one write for each piece.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ureq::http::StatusCode;

use super::chunks::Chunks;
use super::connection::Connection;
use super::head::{BodyLength, Coding, Head, path_in};
use super::socket::{Pace, Socket};
use crate::body::{self, Spare};
use crate::dialect::{self, api};
use crate::error::ApiError;

/// The header field that says whether a retry could help. The SDKs of OpenAI and Anthropic heed it; without it, Claude
/// Code repeats a request after a 401 for minutes, without a word.
pub const SHOULD_RETRY: &str = "x-should-retry";

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How much of a chunked body is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// A header field of an answer.
pub type Field = (Cow<'static, str>, String);

/// A whole response.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields except those that frame the body.
    pub headers: Vec<Field>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A response with a body of this type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type".into(), content_type.to_owned())], body: body.into() }
    }

    /// A JSON response.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "application/json", body)
    }

    /// Creates a response for an error of the proxy's own, as clients of this path expect it.
    pub fn error(path: &str, error: &ApiError) -> Self {
        Self::error_with(dialect::error_body(path, error), error)
    }

    /// Creates a response for an error of the proxy's own, as the client that has sent this head expects it.
    pub fn refusal(head: &Head, error: &ApiError) -> Self {
        match &head.route {
            Some(route) => Self::error_with((route.api.error_body)(error), error),
            None => match api::of_client(|name| head.values(name).next().is_some()) {
                Some(api) => Self::error_with((api.error_body)(error), error),
                _ => Self::error(&head.path, error),
            },
        }
    }

    fn error_with(body: String, error: &ApiError) -> Self {
        let mut reply = Self::json(error.status, body);
        reply.headers.extend(error.headers.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())));
        if error.stays() {
            reply.headers.push((SHOULD_RETRY.into(), "false".into()));
        }
        reply
    }

    /// Adds a header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A request that hasn't been answered yet. If it is dropped unanswered (by a panic), it answers 500.
#[derive(Debug)]
pub struct Exchange {
    /// The head of the request.
    pub head: Box<Head>,
    /// The body, once it is read.
    pub body: Vec<u8>,
    /// Header fields that every answer to this request gets (CORS).
    pub extra_headers: Vec<Field>,
    /// Counts the request as begun for as long as it exists.
    pub begun: Option<Arc<()>>,
    /// Whether nothing of the body is left on the connection.
    body_was_read: bool,
    /// The decoder of a chunked body.
    chunks: Chunks,
    /// The connection; `None` once the request is answered.
    connection: Option<Connection>,
}

/// What becomes of a connection after an answer on it.
#[derive(Debug)]
#[must_use]
pub enum ConnectionFate {
    /// The next request may come, or has come already.
    Open(Connection),
    /// No other request may come; but what the client is still sending must be read, or the answer may be lost with it
    /// ([RFC 9112, 9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)).
    Drain(Connection),
    /// Not all of the answer could be sent at once, and no thread waits for a client that hardly reads.
    Unsent(Box<Unsent>),
    /// The connection is closed, or belongs to somebody else now.
    Gone,
}

/// The rest of an answer that the client hasn't taken yet.
#[derive(Debug)]
pub struct Unsent {
    /// The client's connection.
    pub connection: Connection,
    message: Vec<u8>,
    sent: usize,
    pace: Pace,
    framing: ResponseFraming,
    body_was_read: bool,
    /// Counts the request as begun.
    _begun: Option<Arc<()>>,
}

impl Unsent {
    /// Sends what the client takes now. Returns what becomes of the connection.
    pub fn go_on(mut self: Box<Self>) -> ConnectionFate {
        match self.connection.socket.write_now(&self.message[self.sent..]) {
            Ok(sent) => {
                self.sent += sent;
                self.pace.took(sent);
            }
            Err(_) => return ConnectionFate::Gone,
        }
        if self.sent < self.message.len() {
            return ConnectionFate::Unsent(self);
        }
        let Self { connection, framing, body_was_read, .. } = *self;
        framing.after(connection, Ok(()), body_was_read)
    }

    /// Returns how much memory the answer takes, in bytes.
    pub fn bytes_kept(&self) -> usize {
        self.message.len()
    }

    /// Returns by when the client must have taken more of the answer.
    pub fn until(&self) -> Instant {
        self.pace.until()
    }
}

impl Exchange {
    /// Creates a request whose head has been read from this connection.
    pub fn new(connection: Connection, head: Box<Head>) -> Self {
        Self {
            body_was_read: head.body == BodyLength::Bytes(0),
            head,
            body: Vec::new(),
            extra_headers: Vec::new(),
            begun: None,
            chunks: Chunks::default(),
            connection: Some(connection),
        }
    }

    /// The client's address; `None` once it is answered.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(|connection| connection.socket.peer())
    }

    /// The client's socket; `None` once it is answered.
    pub fn socket(&self) -> Option<&Arc<Socket>> {
        self.connection.as_ref().map(|connection| &connection.socket)
    }

    /// Reads what has arrived of the body, which may have at most `limit` bytes, also when decoded; a large body gets
    /// `spare`'s buffer. With `waits`, waits a moment for more. Returns whether the body is complete.
    pub fn read_body(&mut self, limit: u64, spare: &Spare, waits: bool) -> Result<bool, ApiError> {
        let Some(connection) = &mut self.connection else {
            return Ok(true);
        };
        if self.body_was_read {
            return Ok(true);
        }
        let is_whole = match self.head.body {
            BodyLength::Bytes(length) if length > limit => return Err(too_large(limit)),
            BodyLength::Bytes(length) if length <= connection.buffer.len() as u64 => {
                let rest = connection.buffer.split_off(length as usize);
                self.body = std::mem::replace(&mut connection.buffer, rest);
                true
            }
            body_length => {
                if std::mem::take(&mut self.head.expects_continue) && connection.buffer.is_empty() {
                    // Without waiting: a client that doesn't read even this waits for nothing (RFC 9110, 10.1.1).
                    let sent = connection.socket.write_now(CONTINUE).map_err(|_| ApiError::broken_body())?;
                    if 0 < sent && sent < CONTINUE.len() {
                        return Err(ApiError::broken_body());
                    }
                }
                match body_length {
                    BodyLength::Bytes(length) => {
                        read_announced(connection, &mut self.body, length as usize, spare, waits)?
                    }
                    BodyLength::Chunked => {
                        read_chunks(connection, &mut self.chunks, &mut self.body, limit, waits)?
                    }
                }
            }
        };
        self.body_was_read = is_whole;
        if is_whole && self.head.coding != Coding::Identity {
            self.body = decode(&self.body, self.head.coding, limit)?;
        }
        Ok(is_whole)
    }

    /// Sends the answer.
    pub fn reply(mut self, reply: Reply) -> ConnectionFate {
        match self.connection.take() {
            Some(connection) => self.send(connection, reply),
            None => ConnectionFate::Gone,
        }
    }

    /// Closes the connection without an answer, because the client has left.
    pub fn forget(mut self) {
        self.connection = None;
    }

    /// Refuses the request, as far as that is possible without waiting, and closes the connection.
    pub fn reject(mut self, error: &ApiError) {
        if let Some(connection) = self.connection.take() {
            let reply = Reply::refusal(&self.head, error);
            let _ = connection.socket.write_now(&message(&reply, "connection: close\r\n", self.head.no_body));
        }
    }

    /// Frees memory that isn't needed while more of the body is waited for.
    pub(super) fn rest(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.rest();
        }
    }

    fn send(&mut self, connection: Connection, mut reply: Reply) -> ConnectionFate {
        reply.headers.append(&mut self.extra_headers);
        let says_how = reply.headers.iter().any(|(name, _)| name == "connection");
        let framing = self.framing(self.body_was_read && !says_how);
        let connection_header = if says_how { "" } else { framing.connection_header() };
        let message = message(&reply, connection_header, framing.no_body);
        let (body_was_read, begun) = (self.body_was_read, self.begun.take());
        let (sent, pace) = (0, Pace::start());
        Box::new(Unsent { connection, message, sent, pace, framing, body_was_read, _begun: begun }).go_on()
    }

    fn framing(&self, keeps_alive: bool) -> ResponseFraming {
        ResponseFraming {
            no_body: self.head.no_body,
            is_1_1: self.head.is_1_1,
            keeps_alive: keeps_alive && self.head.keeps_alive,
        }
    }

    /// Begins an answer whose length isn't known yet.
    pub fn start(mut self, status: u16, headers: &[Field]) -> io::Result<Stream> {
        let Some(connection) = self.connection.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut framing = self.framing(self.body_was_read);
        // Without chunks, the end of the connection is the end of the body.
        framing.keeps_alive &= framing.is_1_1;
        let mut head = head(status, headers.iter().chain(&self.extra_headers));
        let chunked = if framing.is_1_1 { "transfer-encoding: chunked\r\n" } else { "" };
        let _ = write!(head, "{}{chunked}\r\n", framing.connection_header());
        connection.socket.write_all(&head)?;
        Ok(Stream { connection, framing, pending: Vec::new() })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let reply = Reply::refusal(&self.head, &ApiError::internal()).with("connection", "close");
            drop(self.send(connection, reply));
        }
    }
}

/// How an answer is framed, and whether another request may follow.
#[derive(Debug, Clone, Copy)]
struct ResponseFraming {
    no_body: bool,
    is_1_1: bool,
    keeps_alive: bool,
}

impl ResponseFraming {
    fn connection_header(self) -> &'static str {
        match (self.keeps_alive, self.is_1_1) {
            (true, true) => "",
            (true, false) => "connection: keep-alive\r\n",
            (false, _) => "connection: close\r\n",
        }
    }

    fn after(self, connection: Connection, sent: io::Result<()>, body_was_read: bool) -> ConnectionFate {
        match (sent, self.keeps_alive) {
            (Err(_), _) => ConnectionFate::Gone,
            (Ok(()), true) => ConnectionFate::Open(connection),
            (Ok(()), false) if body_was_read => ConnectionFate::Gone,
            (Ok(()), false) => ConnectionFate::Drain(connection),
        }
    }
}

/// The body of an answer, sent piece by piece.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    framing: ResponseFraming,
    pending: Vec<u8>,
}

impl Stream {
    /// Sends these bytes now. An error means that the client has gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() || self.framing.no_body {
            return Ok(());
        }
        self.push(bytes);
        self.flush()
    }

    /// Appends size line, data and CRLF to one buffer: one write, one packet.
    fn push(&mut self, bytes: &[u8]) {
        if self.framing.is_1_1 {
            let _ = write!(self.pending, "{:x}\r\n", bytes.len()); // a vector takes everything
        }
        self.pending.extend_from_slice(bytes);
        if self.framing.is_1_1 {
            self.pending.extend_from_slice(b"\r\n");
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self.connection.socket.write_all(&self.pending);
        self.pending.clear();
        sent
    }

    /// Sends the last piece, and ends the body.
    pub fn finish(mut self, last: &[u8]) -> ConnectionFate {
        if !self.framing.no_body && !last.is_empty() {
            self.push(last);
        }
        if !self.framing.no_body && self.framing.is_1_1 {
            self.pending.extend_from_slice(b"0\r\n\r\n");
        }
        let sent = self.flush();
        self.framing.after(self.connection, sent, true)
    }

    /// Ends the connection so that the client notices that the body isn't complete: the next chunk has no size.
    pub fn abort(mut self) {
        if self.framing.is_1_1 {
            self.pending.extend_from_slice(b"broken off\r\n");
        }
        let _ = self.flush();
    }
}

/// Reads more of a body whose length is known. Returns whether it is complete.
fn read_announced(
    connection: &mut Connection,
    body: &mut Vec<u8>,
    length: usize,
    spare: &Spare,
    waits: bool,
) -> Result<bool, ApiError> {
    let (filled, begun) = (body.len(), std::mem::take(&mut connection.buffer));
    let (mut begun, mut left) = (&begun[..], length - filled);
    if filled == 0 {
        *body = spare.take();
    }
    let ended: io::Result<bool> = body::read_on(body, filled, Some(length), length, |buffer| {
        let room = buffer.len().min(left);
        let read = match (room, begun.is_empty()) {
            (0, _) => 0,
            (_, true) => connection.socket.linger(&mut buffer[..room], waits)?,
            (_, false) => begun.read(&mut buffer[..room])?,
        };
        left -= read;
        Ok(read)
    });
    match ended {
        Ok(_) if left == 0 => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            if body.is_empty() {
                spare.keep(std::mem::take(body))
            } else {
                body.shrink_to_fit()
            }
            Ok(false)
        }
        Ok(_) | Err(_) => Err(ApiError::broken_body()),
    }
}

/// Reads more of a chunked body. Returns whether it is complete.
fn read_chunks(
    connection: &mut Connection,
    chunks: &mut Chunks,
    body: &mut Vec<u8>,
    limit: u64,
    waits: bool,
) -> Result<bool, ApiError> {
    loop {
        let taken = chunks.feed(&connection.buffer, body).map_err(|_| ApiError::broken_body())?;
        connection.buffer.drain(..taken);
        if (body.len() as u64).saturating_add(chunks.announced()) > limit {
            return Err(too_large(limit));
        }
        if chunks.is_whole() {
            return Ok(true);
        }
        match connection.read_more(READ_BYTES, |socket, buffer| socket.linger(buffer, waits)) {
            Ok(0) => return Err(ApiError::broken_body()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
            Err(_) => return Err(ApiError::broken_body()),
        }
    }
}

fn too_large(limit: u64) -> ApiError {
    ApiError::body_too_large(limit >> 20)
}

fn decode(body: &[u8], coding: Coding, limit: u64) -> Result<Vec<u8>, ApiError> {
    let decoder: Box<dyn Read + '_> = match coding {
        Coding::Identity => Box::new(body),
        Coding::Gzip => Box::new(MultiGzDecoder::new(body)),
        // RFC 9110, 8.4.1.2: "deflate" means zlib's format, but "some non-conformant implementations" send the data
        // without it. zlib's first two bytes are a multiple of 31, the first of them with 8 in its lower half
        // (RFC 1950, 2.2).
        Coding::Deflate => match body {
            [first, second, ..]
                if first & 15 == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31) =>
            {
                Box::new(ZlibDecoder::new(body))
            }
            _ => Box::new(DeflateDecoder::new(body)),
        },
    };
    let mut decoded = Vec::new();
    let read = decoder.take(limit.saturating_add(1)).read_to_end(&mut decoded);
    match read {
        Ok(length) if length as u64 > limit => Err(too_large(limit)),
        Ok(_) => Ok(decoded),
        Err(_) => Err(ApiError::undecodable_body()),
    }
}

/// Writes the status line and the header fields, without the blank line.
fn head<'a>(status: u16, fields: impl Iterator<Item = &'a Field>) -> Vec<u8> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = reason.unwrap_or("Unknown");
    let mut head = Vec::with_capacity(512);
    let date = httpdate::HttpDate::from(SystemTime::now());
    let _ = write!(head, "HTTP/1.1 {status} {reason}\r\ndate: {date}\r\n");
    for (name, value) in fields {
        // A value that comes from elsewhere must not end the line (header injection).
        let value = if !value.contains(char::is_control) {
            Cow::Borrowed(value)
        } else {
            Cow::Owned(value.replace(char::is_control, " "))
        };
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head
}

/// Writes the whole response, or only its head.
fn message(reply: &Reply, connection_header: &str, head_only: bool) -> Vec<u8> {
    let mut message = head(reply.status, reply.headers.iter());
    // RFC 9110, sections 15.3.5 and 15.4.5
    let has_body = !matches!(reply.status, 204 | 304);
    if has_body {
        let _ = write!(message, "content-length: {}\r\n", reply.body.len());
    }
    let _ = write!(message, "{connection_header}\r\n");
    if has_body && !head_only {
        message.extend_from_slice(&reply.body);
    }
    message
}

/// Writes the refusal of bytes that never became a request, of which `begin` is the beginning.
pub fn refusal(begin: &[u8], error: &ApiError) -> Vec<u8> {
    let head_only = begin.trim_ascii_start().starts_with(b"HEAD ");
    message(&Reply::error(&path_in(begin), error), "connection: close\r\n", head_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cant_end_a_header_line() {
        let head = head(200, [("x-a".into(), "1\r\nset-cookie: b".into())].iter());
        assert!(head.ends_with(b"\r\nx-a: 1  set-cookie: b\r\n"));
    }

    #[test]
    fn deflate_in_both_forms_and_within_the_limit() {
        let text = b"{\"a\":1}".repeat(100);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&text).unwrap();
        raw.write_all(&text).unwrap();
        for packed in [zlib.finish().unwrap(), raw.finish().unwrap()] {
            assert_eq!(decode(&packed, Coding::Deflate, 700).as_ref(), Ok(&text));
            assert_eq!(decode(&packed, Coding::Deflate, 699), Err(too_large(699)));
            assert_eq!(decode(&packed[..9], Coding::Deflate, 700), Err(ApiError::undecodable_body()));
        }
    }
}
