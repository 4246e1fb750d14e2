//! Parses the head of a request, and refuses one that could be read in two ways
//! ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)).

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::ops::Range;

use httparse::{Error, Header, ParserConfig, Request};
use memchr::{memchr, memchr2};
use ureq::http::Method;

use crate::dialect::api::{self, Routed};
use crate::error::ApiError;

/// A larger head is refused with 431.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// More header fields than this are refused with 431.
pub const MAX_FIELDS: usize = 200;
/// A longer target is refused with 414.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;
/// A longer word isn't a method.
const MAX_METHOD_BYTES: usize = 32;

/// The head of a request: what it says before its body.
#[derive(Debug)]
pub struct Head {
    /// The method; `HEAD` counts as `GET` until the answer is written.
    pub method: Method,
    /// The target without query, prefix, doubled and trailing slashes, e.g. `/chat/completions`.
    pub path: String,
    /// The target's query, without its `?`.
    pub query: Option<String>,
    /// The route of the path, if there is one.
    pub route: Option<Routed>,
    /// The target as it was sent.
    pub target: String,
    /// The host that an absolute-form target names.
    pub target_host: Option<String>,
    /// Whether the method was `HEAD`: the answer is a head only.
    pub no_body: bool,
    /// Whether the version is HTTP/1.1. HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
    pub is_1_1: bool,
    /// Whether the connection may serve another request after this one.
    pub keeps_alive: bool,
    /// Whether the client waits for an answer to `Expect: 100-continue`.
    pub expects_continue: bool,
    /// Where the body ends.
    pub body: BodyLength,
    /// How the body is encoded.
    pub coding: Coding,
    /// Whether the client asks for a WebSocket.
    pub wants_websocket: bool,
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// The name and value of a header field, as ranges in the head.
#[derive(Debug, Clone)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

/// Where a body ends: [RFC 9112, 6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// After this many bytes; 0 if the head says nothing.
    Bytes(u64),
    /// After the last chunk.
    Chunked,
}

/// The `Content-Encoding` of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// None.
    Identity,
    /// `gzip`.
    Gzip,
    /// `deflate`: zlib's format, or raw data without it, as some clients send it.
    Deflate,
}

/// The search for the end of the head in what has arrived so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scan {
    /// The head doesn't end before this position.
    scanned: usize,
    /// Whether the request line has been checked.
    line_checked: bool,
}

impl Scan {
    /// Returns the length of the head, once it is complete. Bytes that can't become a valid head are refused as soon as
    /// that is seen: a client that speaks another protocol isn't kept waiting.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, ApiError> {
        let start = blank_lines(bytes); // RFC 9112, 2.2
        if bytes.get(start).is_some_and(|first| !is_token(*first) && !b"\r\n".contains(first)) {
            return Err(ApiError::not_http());
        }
        let mut at = self.scanned.max(start);
        while let Some(found) = memchr2(b'\r', b'\n', &bytes[at..]) {
            let line_end = at + found;
            match (bytes[line_end], bytes.get(line_end + 1)) {
                (b'\r', Some(b'\n')) => {}
                (b'\r', None) => {
                    self.scanned = line_end;
                    return Ok(None);
                }
                _ => {
                    return Err(ApiError::bad_request(
                        "A line of the head doesn't end with CR and LF.",
                        "请求头的行没有以 CR LF 结尾",
                    ));
                }
            }
            if !self.line_checked {
                check_request_line(&bytes[start..line_end])?;
                self.line_checked = true;
            } else if bytes[..line_end].ends_with(b"\r\n") {
                return if line_end + 2 > MAX_HEAD_BYTES + start {
                    Err(ApiError::head_too_large())
                } else {
                    Ok(Some(line_end + 2))
                };
            }
            at = line_end + 2;
        }
        self.scanned = bytes.len();
        let length = bytes.len() - start;
        if !self.line_checked && length > MAX_TARGET_BYTES + MAX_METHOD_BYTES + " HTTP/1.1\r".len() + 1 {
            return Err(match memchr(b' ', &bytes[start..start + MAX_METHOD_BYTES]) {
                Some(_) => ApiError::target_too_long(),
                None => ApiError::not_http(),
            });
        }
        if length > MAX_HEAD_BYTES {
            return Err(ApiError::head_too_large());
        }
        Ok(None)
    }
}

/// Returns the length of the blank lines before a request: clients may send one after their last request's body.
fn blank_lines(bytes: &[u8]) -> usize {
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") && at < 8 {
        at += 2;
    }
    at
}

fn check_request_line(line: &[u8]) -> Result<(), ApiError> {
    let bad = || {
        ApiError::bad_request(
            "The request line is not «METHOD /path HTTP/1.1».",
            "请求行不是“方法 /路径 HTTP/1.1”的形式",
        )
    };
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    if method.is_empty() || method.len() > MAX_METHOD_BYTES || !method.iter().copied().all(is_token) {
        return Err(bad());
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(ApiError::target_too_long());
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(ApiError::unknown_version());
        }
        _ => return Err(bad()),
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        return Err(ApiError::bad_request(
            "The target of the request has characters that no address has.",
            "请求的地址中有不允许的字符",
        ));
    }
    Ok(())
}

/// `tchar` of [RFC 9110, 5.6.2](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2).
pub(super) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

impl Head {
    /// Parses a complete head.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ApiError> {
        let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
        let mut request = Request::new(&mut []);
        let parsed =
            ParserConfig::default().parse_request_with_uninit_headers(&mut request, &bytes, &mut fields);
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(Error::TooManyHeaders) => return Err(ApiError::head_too_large()),
            Ok(_) | Err(_) => {
                return Err(ApiError::bad_request(
                    "The head has a line that is no header field.",
                    "请求头中有一行不是字段",
                ));
            }
        }
        let bad = ApiError::bad_request;
        let place = |part: &[u8]| {
            let start = part.as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + part.len()
        };
        let fields = request.headers.iter();
        let fields = fields.map(|f| Field { name: place(f.name.as_bytes()), value: place(f.value) });
        let fields = fields.collect::<Vec<_>>();
        // Method and target have been checked with the request line.
        let method = request.method.unwrap_or_default();
        let target = request.path.unwrap_or_default().to_owned();
        let is_1_1 = request.version == Some(1);
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| bad("The method is no word.", "请求方法不是单词"))?;
        let split = split_target(&target, &method).ok_or_else(|| {
            bad(
                "The target of the request is neither a path nor an address.",
                "请求的地址既不是路径，也不是网址",
            )
        })?;
        let no_body = method == Method::HEAD;
        let mut head = Self {
            method: if no_body { Method::GET } else { method },
            path: split.path,
            route: None,
            query: split.query,
            target_host: split.host,
            target,
            no_body,
            is_1_1,
            keeps_alive: false,
            expects_continue: false,
            body: BodyLength::Bytes(0),
            coding: Coding::Identity,
            wants_websocket: false,
            bytes,
            fields,
        };
        head.route = api::route(head.method.as_str(), &head.path, |name| head.values(name).next().is_some());
        head.body = head.body_length()?;
        head.check_host()?;
        head.keeps_alive = if is_1_1 {
            !head.lists("connection", "close")
        } else {
            head.lists("connection", "keep-alive") && !head.lists("connection", "close")
        };
        head.expects_continue = head.expectation()?;
        head.coding = head.content_coding()?;
        // RFC 9110, 7.8: HTTP/1.0 has no upgrades.
        let upgrades = is_1_1 && head.lists("connection", "upgrade");
        head.wants_websocket = upgrades && head.lists("upgrade", "websocket");
        Ok(head)
    }

    /// The first header field of this name (lower case), as text: what is not UTF-8 in it is shown as U+FFFD.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values(name).next().map(String::from_utf8_lossy)
    }

    /// The names of all header fields, as they were sent.
    pub fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.fields.iter().map(|field| String::from_utf8_lossy(&self.bytes[field.name.clone()]))
    }

    /// All header fields of this name (lower case), as text.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.values(name).map(String::from_utf8_lossy)
    }

    /// All header fields of this name (lower case), byte for byte.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named =
            move |field: &&Field| self.bytes[field.name.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| &self.bytes[field.value.clone()])
    }

    /// Whether a header whose value is a list holds this word.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let is_word = |element: &[u8]| element.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
        self.values(name).any(|value| value.split(|b| *b == b',').any(is_word))
    }

    fn body_length(&self) -> Result<BodyLength, ApiError> {
        let bad = ApiError::bad_request;
        let mut lengths = self.values("content-length");
        let length = match lengths.next() {
            None => None,
            Some(digits) => {
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(bad("Content-Length is not a number of bytes.", "Content-Length 不是字节数"));
                }
                if lengths.any(|other| other != digits) {
                    return Err(bad(
                        "The request has two different Content-Length headers.",
                        "请求有两个不同的 Content-Length",
                    ));
                }
                let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
                Some(number.ok_or_else(|| {
                    bad("Content-Length is larger than anything can be.", "Content-Length 过大")
                })?)
            }
        };
        let mut encodings = self.values("transfer-encoding");
        match (encodings.next(), encodings.next(), length) {
            (None, _, length) => Ok(BodyLength::Bytes(length.unwrap_or(0))),
            (Some(_), _, Some(_)) => Err(bad(
                "The request has both Content-Length and Transfer-Encoding: send one of them.",
                "请求同时有 Content-Length 和 Transfer-Encoding：只能有一个",
            )),
            (Some(_), _, None) if !self.is_1_1 => {
                Err(bad("HTTP/1.0 has no Transfer-Encoding.", "HTTP/1.0 没有 Transfer-Encoding"))
            }
            (Some(encoding), None, None) if encoding.eq_ignore_ascii_case(b"chunked") => {
                Ok(BodyLength::Chunked)
            }
            _ => Err(bad("Transfer-Encoding can only be chunked.", "Transfer-Encoding 只能是 chunked")),
        }
    }

    fn check_host(&self) -> Result<(), ApiError> {
        let mut hosts = self.values("host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.is_1_1 => {
                Err(ApiError::bad_request("The request has no Host header.", "请求没有 Host 头"))
            }
            (Some(_), Some(_)) => {
                Err(ApiError::bad_request("The request has two Host headers.", "请求有两个 Host 头"))
            }
            (Some(host), None) if !is_host(host) => {
                Err(ApiError::bad_request("The Host header is invalid.", "Host 头无效"))
            }
            _ => Ok(()),
        }
    }

    fn expectation(&self) -> Result<bool, ApiError> {
        let mut expected = false;
        for value in self.values("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(ApiError::unknown_expectation());
            }
            expected = self.is_1_1;
        }
        Ok(expected)
    }

    fn content_coding(&self) -> Result<Coding, ApiError> {
        let mut coding = Coding::Identity;
        for value in self.values("content-encoding") {
            let named = match value.to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                b"gzip" | b"x-gzip" => Coding::Gzip,
                b"deflate" => Coding::Deflate,
                _ => return Err(ApiError::unknown_encoding()),
            };
            if coding != Coding::Identity {
                return Err(ApiError::unknown_encoding());
            }
            coding = named;
        }
        Ok(coding)
    }
}

/// Returns the path that the beginning of a head names, whatever is wrong with the rest.
pub(super) fn path_in(begin: &[u8]) -> String {
    let mut words = begin.trim_ascii_start().split(|b| b" \r\n".contains(b));
    let method = words.next().and_then(|method| Method::from_bytes(method).ok());
    let target = words.next().and_then(|target| std::str::from_utf8(target).ok());
    let split = method.zip(target).and_then(|(method, target)| split_target(target, &method));
    split.map(|split| split.path).unwrap_or_default()
}

/// Whether this is a `uri-host [":" port]` of [RFC 9110, 7.2](https://www.rfc-editor.org/rfc/rfc9110#section-7.2).
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let (is_name, port) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => (address.parse::<Ipv6Addr>().is_ok(), port),
        Some(None) => (false, ""),
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b);
            (!name.is_empty() && name.bytes().all(plain), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    is_name && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// The parts of a target.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: Option<String>,
    path: String,
    query: Option<String>,
}

/// Splits an origin-form, an absolute-form, or the `*` of `OPTIONS`. Nothing is decoded: no endpoint needs that, and
/// `/%2e/` and the like are then simply unknown.
fn split_target(target: &str, method: &Method) -> Option<Target> {
    let (host, rest) = match target.split_once("://") {
        Some((scheme, rest)) if matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let host = &rest[..end];
            if !is_host(host.as_bytes()) {
                return None;
            }
            (Some(host.to_owned()), &rest[end..])
        }
        _ if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) => (None, target),
        _ => return None,
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    Some(Target { host, path: bare_path(path), query })
}

/// Removes prefix and superfluous slashes: `/v1/…`, `/api/v1/…`, `/openai/v1/…` and the bare path mean the same.
fn bare_path(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        plain.push('/');
        plain.push_str(part);
    }
    let is_prefix = |prefix: &&str| {
        plain.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(prefix) = ["/v1", "/api/v1", "/openai/v1"].iter().find(|prefix| is_prefix(prefix)) {
        plain.drain(..prefix.len());
    }
    if plain.is_empty() {
        plain.push('/');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> String {
        split_target(target, &Method::GET).unwrap().path
    }

    #[test]
    fn base_urls_written_any_of_the_usual_ways() {
        for target in [
            "/v1/models",
            "/api/v1/models",
            "/openai/v1/models",
            "/models",
            "/v1/models/",
            "/models?x=1",
            "http://h:5000/v1/models",
            "//v1/models",
            "/v1//models//",
            "//api//v1//models",
        ] {
            assert_eq!(path(target), "/models", "{target}");
        }
        for target in ["/", "/v1", "/v1/", "/api/v1", "http://h", "//"] {
            assert_eq!(path(target), "/", "{target}");
        }
        for target in ["/%2e/debug", "/v1models", "/api/debug", "/debug/../debug", "/v1/v1/debug"] {
            assert_ne!(path(target), "/debug", "{target}");
        }
        assert_eq!(path("/v1/models//openrouter/free"), "/models/openrouter/free");
        let absolute = split_target("http://evil.com/debug?a=/b", &Method::GET).unwrap();
        assert_eq!((absolute.host.as_deref(), absolute.query.as_deref()), (Some("evil.com"), Some("a=/b")));
        for bad in ["*", "debug", "evil.com:443", "ftp://h/", "http://", "http://u@h/"] {
            assert_eq!(split_target(bad, &Method::GET), None, "{bad}");
        }
    }

    #[test]
    fn a_head_is_found_whole_however_it_arrives() {
        let head = b"\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-A: \xe4\xbd\xa0\r\n\r\n";
        let bytes = [&head[..], b"body"].concat();
        for size in [1, 2, 7, 1000] {
            let mut scan = Scan::default();
            let mut end = None;
            for peek in (1..=bytes.len()).step_by(size).chain([bytes.len()]) {
                end = scan.find_end(&bytes[..peek]).unwrap();
                if end.is_some() {
                    break;
                }
            }
            assert_eq!(end, Some(head.len()), "{size} at a time");
        }
        let head = Head::parse(head.to_vec()).unwrap();
        assert_eq!((head.path.as_str(), head.header("x-a").as_deref()), ("/models", Some("你")));
        assert!(head.keeps_alive && head.body == BodyLength::Bytes(0));
    }
}
