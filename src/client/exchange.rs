//! One request of a client and the way back to it: what tiny_http leaves to us of HTTP/1.1.
//!
//! tiny_http's own responses gather 8 KiB before they send anything, so everything that is not a refusal is written
//! through its raw writer, framed here ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)), one write a piece.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Cursor, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tiny_http::{Method, Request, Response, StatusCode};

use crate::body::{self, Spare};
use crate::client::listen::{CLIENT_TIMEOUT, SEND_TIMEOUT};
use crate::client::seat;
use crate::error::ApiError;
use crate::waiting;

/// tiny_http keeps bodies up to this size in memory before it hands a request out; longer ones are still on their way.
const READ_AHEAD_BYTES: usize = 1024;

/// A whole response.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields but for those that frame the body.
    pub headers: Vec<(Cow<'static, str>, String)>,
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

    /// The same with one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl From<&ApiError> for Reply {
    fn from(error: &ApiError) -> Self {
        let mut reply = Self::json(error.status, error.body());
        reply.headers.extend(error.headers.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())));
        reply
    }
}

/// A request that hasn't been answered yet. Dropped so (by a panic), it answers 500.
pub struct Exchange {
    /// The method; `HEAD` counts as `GET` until the answer is written.
    pub method: Method,
    /// The target without query, prefix and trailing slash, e.g. `/chat/completions`.
    pub path: String,
    /// The host that an absolute-form target names.
    pub target_host: Option<String>,
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// The body, once it is read.
    pub body: Vec<u8>,
    /// Header fields that go with any answer (CORS).
    pub extra_headers: Vec<(&'static str, String)>,
    /// It has passed the checks that come before its body is read.
    pub checked: bool,
    framing: Framing,
    /// Nothing of the body is left on the connection.
    body_was_read: bool,
    way_back: WayBack,
}

#[derive(Debug, Clone, Copy)]
struct Framing {
    /// `HEAD`: a head only.
    no_body: bool,
    /// HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
    chunks: bool,
}

enum WayBack {
    /// The body may still be on its way.
    Request(Box<Request>),
    Answered,
}

/// What is wrong with a body that can't be read.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than `MAX_BODY_MB` allows.
    TooLarge,
    /// It ended early, or its chunks are broken.
    Broken,
    /// Nothing more of it came for [`CLIENT_TIMEOUT`].
    Stalled,
}

impl Exchange {
    /// Takes a request over from tiny_http.
    pub fn new(request: Request) -> Self {
        let (target_host, path) = split_target(request.url());
        let framing = Framing {
            no_body: *request.method() == Method::Head,
            chunks: *request.http_version() >= tiny_http::HTTPVersion(1, 1),
        };
        Self {
            method: if framing.no_body { Method::Get } else { request.method().clone() },
            path,
            target_host,
            peer: request.remote_addr().copied(),
            body: Vec::new(),
            extra_headers: Vec::new(),
            checked: false,
            framing,
            body_was_read: false,
            way_back: WayBack::Request(Box::new(request)),
        }
    }

    /// The first header field of this name.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All header fields of this name.
    pub fn headers<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named =
            move |header: &&tiny_http::Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
        self.all_headers().iter().filter(named).map(|header| header.value.as_str())
    }

    fn all_headers(&self) -> &[tiny_http::Header] {
        match &self.way_back {
            WayBack::Request(request) => request.headers(),
            WayBack::Answered => &[],
        }
    }

    /// Whether this is HTTP/1.1 or later, which must name its host.
    pub fn must_name_host(&self) -> bool {
        self.framing.chunks
    }

    /// Whether reading the body may have to wait for the client.
    pub fn body_is_on_its_way(&self) -> bool {
        match &self.way_back {
            WayBack::Request(request) => match self.declared_length() {
                Some(length) => length > READ_AHEAD_BYTES || self.header("expect").is_some(),
                None => request.body_length().is_some() || self.header("transfer-encoding").is_some(),
            },
            WayBack::Answered => false,
        }
    }

    /// Whether the body has been read.
    pub fn body_is_read(&self) -> bool {
        self.body_was_read
    }

    /// Refuses what could be understood in two ways, as a server behind or before us might
    /// ([RFC 9112, 6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3)).
    pub fn check_framing(&self) -> Result<(), ApiError> {
        let refuse = |message: &str| Err(ApiError::bad_request(message));
        // Another reader may take a bare CR or LF for the end of the line (RFC 9110, 5.5).
        let control = |b: &u8| b.is_ascii_control() && *b != b'\t';
        if self.all_headers().iter().any(|header| header.value.as_str().as_bytes().iter().any(control)) {
            return refuse("A header has control characters in it.");
        }
        let mut lengths = self.headers("content-length");
        let mut encodings = self.headers("transfer-encoding");
        let first = lengths.next();
        if first.is_some_and(|length| {
            length.is_empty()
                || !length.bytes().all(|b| b.is_ascii_digit())
                || length.parse::<usize>().is_err()
        }) {
            return refuse("Content-Length is not a number of bytes.");
        }
        if lengths.any(|length| Some(length) != first) {
            return refuse("The request has two different Content-Length headers.");
        }
        match (encodings.next(), encodings.next()) {
            (None, _) => {}
            (Some(_), _) if first.is_some() => {
                return refuse(
                    "The request has both Content-Length and Transfer-Encoding: send one of them.",
                );
            }
            (Some(encoding), None) if encoding.eq_ignore_ascii_case("chunked") => {}
            _ => return refuse("Transfer-Encoding can only be chunked."),
        }
        let mut hosts = self.headers("host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.must_name_host() => refuse("The request has no Host header."),
            (Some(_), Some(_)) => refuse("The request has two Host headers."),
            _ => Ok(()),
        }
    }

    fn declared_length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }

    /// Reads the body, of which at most `limit` bytes are taken; a large one into `spare`'s buffer.
    pub fn read_body(&mut self, limit: u64, spare: &Spare) -> Result<(), BodyError> {
        let declared = self.declared_length();
        if declared.is_some_and(|length| length as u64 > limit) {
            return Err(BodyError::TooLarge);
        }
        let chunked = self.header("transfer-encoding").is_some();
        let WayBack::Request(request) = &mut self.way_back else {
            return Ok(());
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut body = match declared.is_some_and(|length| length <= READ_AHEAD_BYTES) {
            true => Vec::new(),
            false => spare.take(),
        };
        let reader = request.as_reader();
        let ended = body::read_whole(&mut body, declared, limit, |buffer| {
            loop {
                match reader.read(buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    read => return read,
                }
            }
        });
        if ended.as_ref().is_ok_and(|ended| !ended) {
            return Err(BodyError::TooLarge);
        }
        if ended.as_ref().is_err_and(timed_out) {
            return Err(BodyError::Stalled);
        }
        let whole = ended.is_ok() && (chunked || body.len() == declared.unwrap_or(0));
        self.body = body;
        self.body_was_read = whole;
        if whole { Ok(()) } else { Err(BodyError::Broken) }
    }

    /// Answers.
    pub fn reply(mut self, reply: Reply) {
        self.answer(reply);
    }

    /// Answers; a second answer is nobody's.
    pub fn answer(&mut self, reply: Reply) {
        // A client that has gone needs no answer.
        let _ = self.send(reply);
    }

    fn send(&mut self, mut reply: Reply) -> io::Result<()> {
        let extra = std::mem::take(&mut self.extra_headers);
        reply.headers.extend(extra.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)));
        let unread = self.body_is_unread();
        match std::mem::replace(&mut self.way_back, WayBack::Answered) {
            WayBack::Answered => Ok(()),
            WayBack::Request(request) if unread => refuse_unread(*request, reply),
            WayBack::Request(request) => {
                write_whole(&mut *request.into_writer(), &reply, self.framing.no_body)
            }
        }
    }

    /// tiny_http reads what is left of a body before it gives its writer away; a refusal mustn't wait for that.
    fn body_is_unread(&self) -> bool {
        !self.body_was_read && self.body_is_on_its_way()
    }

    /// Begins an answer whose end isn't known yet.
    pub fn start(mut self, status: u16, headers: &[(Cow<'static, str>, String)]) -> io::Result<Stream> {
        let writer = match std::mem::replace(&mut self.way_back, WayBack::Answered) {
            WayBack::Request(request) => request.into_writer(),
            WayBack::Answered => return Err(io::ErrorKind::NotConnected.into()),
        };
        let extra = std::mem::take(&mut self.extra_headers);
        let extra = extra.iter().map(|(name, value)| (*name, value.as_str()));
        let mut head = head(status, headers.iter().map(|(n, v)| (n.as_ref(), v.as_str())).chain(extra));
        head.push_str(if self.framing.chunks { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
        let mut stream = Stream { writer, framing: self.framing, pending: head.into_bytes() };
        stream.flush()?;
        Ok(stream)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !matches!(self.way_back, WayBack::Answered) {
            let error = ApiError::internal();
            let _ = self.send(Reply::from(&error));
        }
    }
}

/// The body of an answer, sent piece by piece.
pub struct Stream {
    writer: Box<dyn Write + Send>,
    framing: Framing,
    pending: Vec<u8>,
}

impl Stream {
    /// Sends these bytes now. An error means that the client has gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() || self.framing.no_body {
            return Ok(());
        }
        // Size line, data and CRLF in one buffer, one write, one packet.
        if self.framing.chunks {
            let _ = write!(self.pending, "{:x}\r\n", bytes.len());
        }
        self.pending.extend_from_slice(bytes);
        if self.framing.chunks {
            self.pending.extend_from_slice(b"\r\n");
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = send_all(&mut *self.writer, &self.pending);
        self.pending.clear();
        sent
    }

    /// Ends the body.
    pub fn finish(mut self) -> io::Result<()> {
        if self.framing.chunks && !self.framing.no_body {
            self.pending.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush()
    }

    /// Ends the body so that the client notices that it isn't whole: the next chunk has no size.
    pub fn abort(mut self) {
        if self.framing.chunks {
            self.pending.extend_from_slice(b"broken off\r\n");
        }
        let _ = self.flush();
    }
}

/// Refuses a request whose body nobody has read, before the client has sent all of it. tiny_http then reads and
/// forgets the rest, in this thread.
fn refuse_unread(request: Request, mut reply: Reply) -> io::Result<()> {
    if !can_be_dropped(request.body_length().unwrap_or(0)) {
        // `upgrade` is the one way to the writer that doesn't let go of the body; what it sends first is skipped by
        // every client. Forgotten, the connection stays half open until the program ends: rare, and harmless beside
        // the alternative.
        let mut stream = request.upgrade("none", Response::empty(100));
        reply.headers.push(("connection".into(), "close".into()));
        let sent = write_whole(&mut stream, &reply, false);
        std::mem::forget(stream);
        return sent;
    }
    let headers = reply.headers.iter();
    let headers = headers.filter_map(|(n, v)| tiny_http::Header::from_bytes(n.as_bytes(), v.as_bytes()).ok());
    let length = reply.body.len();
    let response = Response::new(
        StatusCode(reply.status),
        headers.collect(),
        Cursor::new(reply.body),
        Some(length),
        None,
    );
    request.respond(response.with_chunked_threshold(usize::MAX))
}

/// tiny_http allocates what is left of an unread body when it lets go of it ([tiny-http#290]): address space that
/// nobody touches, but one that can't be had would end the process. Twice as much, as others do the same just now.
///
/// [tiny-http#290]: https://github.com/tiny-http/tiny-http/pull/290
fn can_be_dropped(unread_bytes: usize) -> bool {
    let mut room = Vec::<u8>::new();
    let reserved = room.try_reserve_exact(unread_bytes.saturating_mul(2)).is_ok();
    std::hint::black_box(room); // or the compiler takes it for granted
    reserved
}

fn write_whole(writer: &mut dyn Write, reply: &Reply, no_body: bool) -> io::Result<()> {
    let mut head = head(reply.status, reply.headers.iter().map(|(n, v)| (n.as_ref(), v.as_str())));
    if reply.status != 204 {
        let _ = write!(head, "content-length: {}\r\n", reply.body.len());
    }
    head.push_str("\r\n");
    let mut message = head.into_bytes();
    if !no_body {
        message.extend_from_slice(&reply.body);
    }
    send_all(writer, &message)
}

/// Sends, and lets others have this thread's place among the workers while the client doesn't read.
fn send_all(writer: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    waiting::begin();
    let mut waited = Duration::ZERO;
    loop {
        let sent = match bytes.is_empty() {
            true => writer.flush().map(|()| 0),
            false => writer.write(bytes),
        };
        match sent {
            Ok(0) if bytes.is_empty() => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                bytes = &bytes[sent..];
                waited = Duration::ZERO;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if timed_out(&e) && waited + SEND_TIMEOUT < CLIENT_TIMEOUT => {
                waited += SEND_TIMEOUT;
                seat::hand_over();
            }
            Err(e) => return Err(e),
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Status line and header fields, without the blank line.
fn head<'a>(status: u16, headers: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let reason = StatusCode(status).default_reason_phrase();
    let mut head = String::with_capacity(512);
    let date = httpdate::fmt_http_date(SystemTime::now());
    let _ = write!(head, "HTTP/1.1 {status} {reason}\r\ndate: {date}\r\n");
    for (name, value) in headers {
        // What others wrote can't end a line here (header injection).
        let value = value.chars().map(|c| if c.is_control() { ' ' } else { c });
        head.push_str(name);
        head.push_str(": ");
        head.extend(value);
        head.push_str("\r\n");
    }
    head
}

/// Host of an absolute-form target, and the path that decides what a request is for. Nothing is decoded: no endpoint
/// needs it, and `/%2e/` and the like are then simply unknown.
fn split_target(target: &str) -> (Option<String>, String) {
    let (host, path) = match target.split_once("://") {
        Some((scheme, rest)) if matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(rest[..end].to_owned()), &rest[end..])
        }
        _ => (None, target),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // `/v1/…`, `/api/v1/…` and the bare path mean the same.
    let bare =
        path.strip_prefix("/api").filter(|rest| *rest == "/v1" || rest.starts_with("/v1/")).unwrap_or(path);
    let bare =
        bare.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(bare);
    let bare = bare.strip_suffix('/').filter(|rest| !rest.ends_with('/')).unwrap_or(bare);
    (host, if bare.is_empty() { "/".into() } else { bare.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_written_any_of_the_usual_ways() {
        let path = |target: &str| split_target(target).1;
        for target in [
            "/v1/models",
            "/api/v1/models",
            "/models",
            "/v1/models/",
            "/models?x=1",
            "http://h:5000/v1/models",
        ] {
            assert_eq!(path(target), "/models", "{target}");
        }
        for target in ["/", "/v1", "/v1/", "/api/v1", "http://h", ""] {
            assert_eq!(path(target), "/", "{target}");
        }
        for target in ["//debug", "/%2e/debug", "/debug//", "/v1models", "/api/debug", "/debug/../debug"] {
            assert_ne!(path(target), "/debug", "{target}");
        }
        assert_eq!(split_target("http://evil.com/debug").0.as_deref(), Some("evil.com"));
    }

    #[test]
    fn values_cant_end_a_header_line() {
        let head = head(200, [("x-a", "1\r\nset-cookie: b")].into_iter());
        assert!(head.ends_with("x-a: 1  set-cookie: b\r\n"), "{head}");
    }
}
