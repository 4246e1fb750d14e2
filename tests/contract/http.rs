//! HTTP/1.1 as clients write it, well and badly: what is refused and how, and what is served all the same.
//!
//! The malformed requests are those that <https://github.com/MDA2AV/Http11Probe> sends, in our own words and with our
//! answers: where RFC 9110 and 9112 leave a choice, what two readers might understand differently is refused. Bodies
//! are whole and right wherever they can be, so that a reader who lets the fault pass answers 200.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::fixture::*;

/// What is sent and asked for in the tables is of this length.
const _: () = assert!(HELLO.len() == 74 && HELLO.len() == 0x4a);
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// RFC 9113, 3.4, with the empty SETTINGS that follow at once.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Status and code of a refusal.
type Refusal = (u16, &'static str);
const BAD: Refusal = (400, "bad_request");
/// The head was fine; what follows isn't.
const BROKEN: Refusal = (400, "invalid_json");
const TOO_LARGE: Refusal = (413, "body_too_large");
const NOT_OURS: Refusal = (505, "bad_request");

/// A name, what is sent, and what is right.
type Case<T> = (&'static str, Vec<u8>, T);

/// A request with this line.
fn line(line: impl AsRef<[u8]>) -> Vec<u8> {
    [line.as_ref(), b"\r\nHost: localhost\r\n\r\n"].concat()
}

/// A `GET` of this target.
fn target(target: impl AsRef<[u8]>) -> Vec<u8> {
    line([b"GET ", target.as_ref(), b" HTTP/1.1"].concat())
}

/// A `GET` with these lines beside `Host`.
fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    get([b"Host: localhost\r\n", fields.as_ref()].concat())
}

/// A `GET` with these lines alone.
fn get(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /health HTTP/1.1\r\n", fields.as_ref(), b"\r\n"].concat()
}

fn post(fields: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let line = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
    [line, fields.as_ref(), b"\r\n", body.as_ref()].concat()
}

/// A whole and right one with these lines more.
fn post_with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    post([b"Content-Length: 74\r\n", fields.as_ref()].concat(), HELLO)
}

/// With this body, whatever it is for.
fn with_body(method_and_target: &str, body: &str) -> Vec<u8> {
    let head = line(format!("{method_and_target} HTTP/1.1\r\nContent-Length: {}", body.len()));
    [&head[..], body.as_bytes()].concat()
}

/// With a body that this has been done to.
fn encoded(coding: &str, body: Vec<u8>) -> Vec<u8> {
    post(format!("Content-Encoding: {coding}\r\nContent-Length: {}\r\n", body.len()), body)
}

fn gzip(body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// With these lines before a body in one chunk.
fn chunked_as(fields: impl AsRef<[u8]>) -> Vec<u8> {
    post(fields, format!("4a\r\n{HELLO}\r\n0\r\n\r\n"))
}

fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// With this `Content-Length`.
fn length(value: &str) -> Vec<u8> {
    post(format!("Content-Length: {value}\r\n"), HELLO)
}

/// With this `Transfer-Encoding`.
fn coding(value: &str) -> Vec<u8> {
    chunked_as(format!("Transfer-Encoding: {value}\r\n"))
}

/// One chunk under this line.
fn chunk(size: &str) -> Vec<u8> {
    chunked(format!("{size}\r\n{HELLO}\r\n0\r\n\r\n"))
}

/// Behind one right chunk.
fn last_chunk(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    chunked([format!("4a\r\n{HELLO}\r\n").as_bytes(), bytes.as_ref()].concat())
}

fn offline() -> Proxy {
    Start::new().arg("--offline").start()
}

/// Sends as much as is taken: a refusal may come before that is all.
fn ask(proxy: &Proxy, request: &[u8]) -> Connection {
    let mut client = proxy.connect();
    let _ = client.try_send(request);
    client
}

fn answer_to(request: &[u8], client: &mut Connection) -> Response {
    if request.starts_with(b"HEAD ") { client.head() } else { client.response() }
}

/// Whether the answer has this connection option (RFC 9110, 7.6.1).
fn has_option(answer: &Response, option: &str) -> bool {
    let mut fields = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    fields.any(|(_, value)| value.split(',').any(|o| o.trim().eq_ignore_ascii_case(option)))
}

/// What still comes until the connection ends.
#[track_caller]
fn rest(client: &mut Connection) -> String {
    let began = Instant::now();
    let bytes = client.read_to_end();
    assert!(began.elapsed() < GUARD, "the connection stays open");
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_ends(client: &mut Connection) {
    assert_eq!(rest(client), "");
}

/// Nothing of the last request is left on the connection.
#[track_caller]
fn assert_goes_on(client: &mut Connection) {
    assert_eq!(client.exchange(HEALTH).json()["status"], "ok");
}

/// One answer, which says why, and then the end.
#[track_caller]
fn assert_refused(client: &mut Connection, (status, code): Refusal) -> Response {
    let answer = client.response();
    answer.assert_error(status, code);
    assert!(has_option(&answer, "close"), "{answer:?}");
    assert_ends(client);
    answer
}

/// The connection ends where the answer says so, and serves the next request where it doesn't.
#[track_caller]
fn assert_word_is_kept(client: &mut Connection, answer: &Response) {
    if has_option(answer, "close") { assert_ends(client) } else { assert_goes_on(client) }
}

/// Tries all cases, so that one doesn't hide the others, and names those that fail. After each of them somebody else is
/// served.
fn try_all<T: Copy>(proxy: &Proxy, cases: &[Case<T>], attempt: impl Fn(&[u8], T)) {
    let mut failed = Vec::new();
    for (name, request, right) in cases {
        let began = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| {
            attempt(request, *right);
            proxy.get("/health").assert_status(200);
        }));
        let Err(panic) = tried else { continue };
        let said = panic.downcast_ref::<String>().map_or("failed", String::as_str);
        failed.push(format!("{name}: {said}"));
        if began.elapsed() >= GUARD {
            break; // others would hang, too
        }
    }
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), cases.len());
    assert_eq!(proxy.chat(HELLO).status, 200);
}

fn refuses(cases: &[Case<Refusal>]) {
    let proxy = offline();
    try_all(&proxy, cases, |request, refusal| {
        assert_refused(&mut ask(&proxy, request), refusal);
    });
}

/// Each keeps its connection.
fn serves(cases: &[Case<u16>]) {
    let proxy = offline();
    try_all(&proxy, cases, |request, status| {
        let mut client = ask(&proxy, request);
        let answer = answer_to(request, &mut client);
        answer.assert_status(status);
        assert!(!has_option(&answer, "close"), "{answer:?}");
        assert_goes_on(&mut client);
    });
}

/// Whichever status it is, the answer is whole, and what follows on the connection is as it says.
fn answers(cases: &[Case<&[u16]>]) {
    let proxy = offline();
    try_all(&proxy, cases, |request, statuses| {
        let mut client = ask(&proxy, request);
        let answer = answer_to(request, &mut client);
        assert!(statuses.contains(&answer.status), "{answer:?}");
        if answer.status >= 400 && !request.starts_with(b"HEAD ") {
            let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
            answer.assert_error(answer.status, &code);
        }
        assert_word_is_kept(&mut client, &answer);
    });
}

#[test]
fn request_lines_that_are_none() {
    refuses(&[
        ("no target", line("GET HTTP/1.1"), BAD),
        ("an empty target", line("GET  HTTP/1.1"), BAD),
        ("no method", line("/health HTTP/1.1"), BAD),
        ("a method alone", line("GET"), BAD),
        ("two blanks before the target", line("GET  /health HTTP/1.1"), BAD),
        ("two blanks before the version", line("GET /health  HTTP/1.1"), BAD),
        ("a blank at the beginning", line(" GET /health HTTP/1.1"), BAD),
        ("a blank at the end", line("GET /health HTTP/1.1 "), BAD),
        ("a word too many", line("GET /health HTTP/1.1 HTTP/1.1"), BAD),
        ("a tab before the target", line("GET\t/health HTTP/1.1"), BAD),
        ("a tab before the version", line("GET /health\tHTTP/1.1"), BAD),
        ("a blank in the target", line("GET /v1/mod els HTTP/1.1"), BAD),
        ("blanks alone", line("   "), BAD),
        ("a method that is no token", line("G@T /health HTTP/1.1"), BAD),
        ("a method in brackets", line("(GET) /health HTTP/1.1"), BAD),
        ("a method with a colon", line("GET: /health HTTP/1.1"), BAD),
        ("a method beyond ASCII", line(b"G\xc3\x89T /health HTTP/1.1"), BAD),
        ("a method with a NUL", line("GE\0T /health HTTP/1.1"), BAD),
        ("a status line", line("HTTP/1.1 200 OK"), BAD),
        // Each begins with a byte that no request does: there is no end of a head to wait for.
        ("bytes of no meaning", b"\x00\x01\x02\xff\xfe\xfd\x80\x81\r\n\r\n".to_vec(), BAD),
        ("a TLS greeting", b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03".to_vec(), BAD),
        ("a SOCKS greeting", b"\x05\x01\x00".to_vec(), BAD),
    ]);
}

/// RFC 9112, 2.3: one digit, a point, one digit, and the name in capitals.
#[test]
fn versions_that_are_none_or_not_ours() {
    refuses(&[
        ("none, as HTTP/0.9 has it", line("GET /health"), BAD),
        ("none behind a blank", line("GET /health "), BAD),
        ("lower case", line("GET /health http/1.1"), BAD),
        ("mixed case", line("GET /health Http/1.1"), BAD),
        ("no minor version", line("GET /health HTTP/1"), BAD),
        ("no digit behind the point", line("GET /health HTTP/1."), BAD),
        ("no digit before the point", line("GET /health HTTP/.1"), BAD),
        ("no digits", line("GET /health HTTP/a.b"), BAD),
        ("a zero before the major version", line("GET /health HTTP/01.1"), BAD),
        ("a zero before the minor version", line("GET /health HTTP/1.01"), BAD),
        ("two digits of a version to come", line("GET /health HTTP/11.1"), BAD),
        ("two minor digits", line("GET /health HTTP/1.10"), BAD),
        ("a comma for the point", line("GET /health HTTP/1,1"), BAD),
        ("a blank behind the slash", line("GET /health HTTP/ 1.1"), BAD),
        ("a blank before the slash", line("GET /health HTTP /1.1"), BAD),
        ("a blank behind the point", line("GET /health HTTP/1. 1"), BAD),
        ("no slash", line("GET /health HTTP1.1"), BAD),
        ("a minus", line("GET /health HTTP/-1.1"), BAD),
        ("letters behind it", line("GET /health HTTP/1.1x"), BAD),
        ("another protocol", line("GET /health HTTPS/1.1"), BAD),
        ("RTSP", line("GET /health RTSP/1.0"), BAD),
        ("0.9, spelt out", line("GET /health HTTP/0.9"), NOT_OURS),
        ("0.0", line("GET /health HTTP/0.0"), NOT_OURS),
        ("1.2", line("GET /health HTTP/1.2"), NOT_OURS),
        ("1.9", line("GET /health HTTP/1.9"), NOT_OURS),
        ("2.0", line("GET /health HTTP/2.0"), NOT_OURS),
        ("3.0", line("GET /health HTTP/3.0"), NOT_OURS),
        ("9.9", line("GET /health HTTP/9.9"), NOT_OURS),
        ("2.0 without a host", b"GET /health HTTP/2.0\r\n\r\n".to_vec(), NOT_OURS),
        ("2.0 with a body", line("POST /v1/chat/completions HTTP/2.0\r\nContent-Length: 74"), NOT_OURS),
        ("the preface of HTTP/2", PREFACE.to_vec(), NOT_OURS),
    ]);
}

#[test]
fn targets_that_are_none() {
    refuses(&[
        ("a path without a slash", target("health"), BAD),
        ("a query alone", target("?x=1"), BAD),
        ("a star for GET", target("*"), BAD),
        ("a star for POST", line("POST * HTTP/1.1"), BAD),
        ("two stars for OPTIONS", line("OPTIONS ** HTTP/1.1"), BAD),
        ("a word for OPTIONS", line("OPTIONS health HTTP/1.1"), BAD),
        ("a host and a port", target("localhost:80"), BAD),
        ("another scheme", target("ftp://localhost/health"), BAD),
        ("no host behind the scheme", target("http:///health"), BAD),
        ("one slash behind the scheme", target("http:/health"), BAD),
        ("a port of letters", target("http://localhost:http/health"), BAD),
        // RFC 9112, 3.2: it stays with the client.
        ("a fragment", target("/health#top"), BAD),
        ("an empty fragment", target("/health#"), BAD),
        ("a fragment behind a query", target("/health?x=1#top"), BAD),
        ("a fragment of a whole URL", target("http://localhost/health#top"), BAD),
        ("a NUL", target("/health\0"), BAD),
        ("a NUL in the query", target("/health?\0"), BAD),
        ("a control character", target("/hea\x01lth"), BAD),
        ("an escape", target("/health?\x1b[2J"), BAD),
        ("a vertical tab", target("/health\x0b"), BAD),
        ("a DEL", target("/health\x7f"), BAD),
        ("a bare CR", target("/health\rx"), BAD),
        ("a bare LF", target("/health\nx"), BAD),
        ("UTF-8", target("/v1/models/模型"), BAD),
        ("UTF-8 in the query", target("/health?é"), BAD),
        ("Latin-1", target(b"/health?\xe9"), BAD),
        // RFC 3629, 3: a slash in two bytes, for those who decode carelessly.
        ("overlong UTF-8", target(b"/\xc0\xaf../health"), BAD),
    ]);
}

/// RFC 9112, 2.2 lets a reader take a bare LF for the end of a line; another one doesn't, so nobody can be sure.
#[test]
fn line_ends_that_are_none() {
    refuses(&[
        ("LF behind the request line", b"GET /health HTTP/1.1\nHost: localhost\r\n\r\n".to_vec(), BAD),
        ("LF behind a field", b"GET /health HTTP/1.1\r\nHost: localhost\n\r\n".to_vec(), BAD),
        ("LF behind the last of two fields", with("X-Title: a\n"), BAD),
        ("LF as the blank line", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\n".to_vec(), BAD),
        ("LF everywhere", b"GET /health HTTP/1.1\nHost: localhost\n\n".to_vec(), BAD),
        ("LF in a value", post_with("X-Title: a\nX-Other: b\r\n"), BAD),
        ("LF that ends a value early", post_with("X-Title: a\n\r\n"), BAD),
        ("LF before the request line", [b"\n", HEALTH.as_bytes()].concat(), BAD),
        ("CR before the request line", [b"\r", HEALTH.as_bytes()].concat(), BAD),
        ("CR everywhere", b"GET /health HTTP/1.1\rHost: localhost\r\r".to_vec(), BAD),
        ("CR behind a field", b"GET /health HTTP/1.1\r\nHost: localhost\rX-Title: a\r\n\r\n".to_vec(), BAD),
        (
            "CR twice behind the request line",
            b"GET /health HTTP/1.1\r\r\nHost: localhost\r\n\r\n".to_vec(),
            BAD,
        ),
        ("CR twice behind a field", with("X-Title: a\r\r\n"), BAD),
        ("CR in a value", post_with("X-Title: a\rb\r\n"), BAD),
        ("CR that hides a field", post_with("X-Title: a\rTransfer-Encoding: chunked\r\n"), BAD),
        ("LF before CR", with("X-Title: a\n\r"), BAD),
    ]);
}

#[test]
fn header_fields_that_are_none() {
    refuses(&[
        // RFC 9112, 5.1.
        ("a blank before the colon", with("X-Title : a\r\n"), BAD),
        ("a tab before the colon", with("X-Title\t: a\r\n"), BAD),
        ("a blank before the colon of Host", get("Host : localhost\r\n"), BAD),
        ("a blank before the colon of Content-Length", post("Content-Length : 74\r\n", HELLO), BAD),
        ("a tab before the colon of Content-Length", post("Content-Length\t: 74\r\n", HELLO), BAD),
        ("a blank before the colon of Transfer-Encoding", chunked_as("Transfer-Encoding : chunked\r\n"), BAD),
        // RFC 9112, 5.2: obsolete.
        ("a fold with a blank", with("X-Title: a\r\n b\r\n"), BAD),
        ("a fold with a tab", with("X-Title: a\r\n\tb\r\n"), BAD),
        ("a fold of nothing", with("X-Title: a\r\n \r\n"), BAD),
        ("a fold before any field", get(" Host: localhost\r\n"), BAD),
        ("a tab before the first field", get("\tHost: localhost\r\n"), BAD),
        ("a field hidden behind blanks", get(" X-Title: a\r\nHost: localhost\r\n"), BAD),
        ("a folded Host", get("Host:\r\n localhost\r\n"), BAD),
        ("a folded Transfer-Encoding", chunked_as("Transfer-Encoding:\r\n chunked\r\n"), BAD),
        ("a folded Content-Length", post("Content-Length:\r\n 74\r\n", HELLO), BAD),
        // RFC 9110, 5.1: a name is a token.
        ("no name", with(": a\r\n"), BAD),
        ("a colon alone", with(":\r\n"), BAD),
        ("no colon", with("X-Title a\r\n"), BAD),
        ("a word alone", with("X-Title\r\n"), BAD),
        ("a blank in the name", with("X Title: a\r\n"), BAD),
        ("a tab in the name", post("Content\tLength: 74\r\n", HELLO), BAD),
        ("brackets in the name", with("X[Title]: a\r\n"), BAD),
        ("a slash in the name", with("X/Title: a\r\n"), BAD),
        ("quotes in the name", with("\"X-Title\": a\r\n"), BAD),
        ("an at sign in the name", with("X@Title: a\r\n"), BAD),
        ("UTF-8 in the name", with("X-标题: a\r\n"), BAD),
        ("Latin-1 in the name", with(b"X-T\xeftle: a\r\n"), BAD),
        ("a NUL in the name", with("X-\0Title: a\r\n"), BAD),
        ("a control character in the name", with("X-\x01Title: a\r\n"), BAD),
        ("a DEL in the name", with("X-Title\x7f: a\r\n"), BAD),
        // RFC 9110, 5.5.
        ("a NUL in the value", with("X-Title: a\0b\r\n"), BAD),
        ("a NUL as the value", with("X-Title: \0\r\n"), BAD),
        ("a control character in the value", with("X-Title: a\x01b\r\n"), BAD),
        ("a backspace in the value", with("X-Title: a\x08b\r\n"), BAD),
        ("a vertical tab in the value", with("X-Title: a\x0bb\r\n"), BAD),
        ("a form feed in the value", with("X-Title: a\x0cb\r\n"), BAD),
        ("an escape in the value", with("X-Title: \x1b[31m\r\n"), BAD),
        ("a DEL in the value", with("X-Title: a\x7fb\r\n"), BAD),
        ("a NUL in a cookie", with("Cookie: a=\0\r\n"), BAD),
        ("a control character in a cookie", with("Cookie: a=\x02; b=2\r\n"), BAD),
        ("a NUL in the key", with("Authorization: Bearer a\0b\r\n"), BAD),
    ]);
}

/// RFC 9112, 3.2.
#[test]
fn hosts_that_are_none() {
    refuses(&[
        ("none", get(""), BAD),
        ("none, but another field", get("X-Host: localhost\r\n"), BAD),
        (
            "none, with a body",
            b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            BAD,
        ),
        ("none beside a whole URL", b"GET http://localhost/health HTTP/1.1\r\n\r\n".to_vec(), BAD),
        ("two", get("Host: localhost\r\nHost: 127.0.0.1\r\n"), BAD),
        ("the same twice", get("Host: localhost\r\nHost: localhost\r\n"), BAD),
        ("twice with a field between", get("Host: localhost\r\nX-Title: a\r\nhost: localhost\r\n"), BAD),
        (
            "two in HTTP/1.0",
            b"GET /health HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_vec(),
            BAD,
        ),
        ("one and an empty one", get("Host: localhost\r\nHost:\r\n"), BAD),
        ("two in a list", get("Host: localhost, localhost\r\n"), BAD),
        ("an empty one", get("Host:\r\n"), BAD),
        ("a port alone", get("Host: :5000\r\n"), BAD),
        ("a user", get("Host: user@localhost\r\n"), BAD),
        ("a user with a password", get("Host: user:secret@localhost\r\n"), BAD),
        ("a path", get("Host: localhost/health\r\n"), BAD),
        ("a slash", get("Host: localhost/\r\n"), BAD),
        ("a query", get("Host: localhost?x=1\r\n"), BAD),
        ("a fragment", get("Host: localhost#top\r\n"), BAD),
        ("a backslash", get("Host: localhost\\x\r\n"), BAD),
        ("a URL", get("Host: http://localhost\r\n"), BAD),
        ("a blank in it", get("Host: local host\r\n"), BAD),
        ("a tab in it", get("Host: local\thost\r\n"), BAD),
        ("a port of letters", get("Host: localhost:http\r\n"), BAD),
        ("a negative port", get("Host: localhost:-1\r\n"), BAD),
        ("two ports", get("Host: localhost:5000:5000\r\n"), BAD),
        ("a bracket that is left open", get("Host: [::1\r\n"), BAD),
        ("a bracket that was never opened", get("Host: ::1]\r\n"), BAD),
        ("letters behind the bracket", get("Host: [::1]x\r\n"), BAD),
        ("no address in the brackets", get("Host: [localhost]\r\n"), BAD),
        ("quotes", get("Host: \"localhost\"\r\n"), BAD),
        ("UTF-8", get("Host: löcalhost\r\n"), BAD),
        ("a NUL", get("Host: localhost\0\r\n"), BAD),
    ]);
}

/// RFC 9110, 8.6: digits and nothing else.
#[test]
fn lengths_that_are_none() {
    let smuggled = format!("{HELLO}{HEALTH}");
    refuses(&[
        ("a word", length("many"), BAD),
        ("a plus", length("+74"), BAD),
        ("a minus", length("-74"), BAD),
        ("minus zero", post("Content-Length: -0\r\n", ""), BAD),
        ("nothing", post("Content-Length:\r\n", ""), BAD),
        ("blanks", post("Content-Length:   \r\n", ""), BAD),
        ("hexadecimal", length("0x4a"), BAD),
        ("hexadecimal digits", length("4a"), BAD),
        ("octal", length("0o112"), BAD),
        ("binary", length("0b1001010"), BAD),
        ("an underscore", length("7_4"), BAD),
        ("a blank inside", length("7 4"), BAD),
        ("a tab inside", length("7\t4"), BAD),
        ("a vertical tab before it", length("\x0b74"), BAD),
        ("a NUL behind it", length("74\0"), BAD),
        ("a point", length("74.0"), BAD),
        ("an exponent", length("74e0"), BAD),
        ("a unit", length("74B"), BAD),
        ("a parameter", length("74;x"), BAD),
        ("quotes", length("\"74\""), BAD),
        ("digits of another script", length("７４"), BAD),
        ("a list of the same", length("74, 74"), BAD),
        ("a list of three", length("74, 74, 74"), BAD),
        ("a list of different ones", length("74, 0"), BAD),
        ("a comma behind it", length("74,"), BAD),
        ("two different ones", length("74\r\nContent-Length: 0"), BAD),
        ("two different ones, the shorter first", length("0\r\nContent-Length: 74"), BAD),
        ("a right one and a wrong one", length("74\r\nContent-Length: x"), BAD),
        (
            "a request behind the shorter of two",
            post("Content-Length: 74\r\nContent-Length: 115\r\n", smuggled),
            BAD,
        ),
        ("more than 64 bits", length("18446744073709551690"), BAD), // 74 when it wraps
        ("a hundred digits", length(&"9".repeat(100)), BAD),
        ("of a GET", with("Content-Length: +0\r\n"), BAD),
        ("of a GET, twice", with("Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}"), BAD),
        ("in HTTP/1.0", b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 0x2\r\n\r\n{}".to_vec(), BAD),
        ("more than anybody sends", post("Content-Length: 999999999\r\n", ""), TOO_LARGE),
        ("more than there is", length("9223372036854775807"), TOO_LARGE),
    ]);
}

/// RFC 9112, 6.1 and 6.3. Nobody sends us others, and what isn't understood has no known end.
#[test]
fn transfer_encodings_other_than_chunked() {
    let chunks = format!("4a\r\n{HELLO}\r\n0\r\n\r\n");
    // To some the body ends before the second request, to others it doesn't.
    let both = |length: &str, coding: &str| {
        let fields = format!("Content-Length: {length}\r\nTransfer-Encoding: {coding}\r\n");
        post(fields, format!("0\r\n\r\n{HEALTH}"))
    };
    let old = |fields: &str| {
        let head = "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost";
        format!("{head}\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{chunks}").into_bytes()
    };
    refuses(&[
        ("an unknown one", coding("xchunked"), BAD),
        ("gzip", coding("gzip"), BAD),
        ("gzip before chunked", coding("gzip, chunked"), BAD),
        ("gzip behind chunked", coding("chunked, gzip"), BAD),
        ("identity", post("Transfer-Encoding: identity\r\n", HELLO), BAD),
        ("identity before chunked", coding("identity, chunked"), BAD),
        ("identity behind chunked", coding("chunked, identity"), BAD),
        ("chunked twice", coding("chunked, chunked"), BAD),
        ("chunked in two fields", coding("chunked\r\nTransfer-Encoding: chunked"), BAD),
        ("two fields that differ", coding("chunked\r\nTransfer-Encoding: identity"), BAD),
        ("an empty second field", coding("chunked\r\nTransfer-Encoding:"), BAD),
        ("nothing", coding(""), BAD),
        ("blanks", coding(" "), BAD),
        ("a comma", coding(","), BAD),
        ("a comma before it", coding(", chunked"), BAD),
        ("a comma behind it", coding("chunked,"), BAD),
        ("a parameter", coding("chunked;x"), BAD),
        ("a parameter with a value", coding("chunked; x=1"), BAD),
        ("quotes", coding("\"chunked\""), BAD),
        ("a blank inside", coding("chun ked"), BAD),
        ("a vertical tab before it", coding("\x0bchunked"), BAD),
        ("a vertical tab behind it", coding("chunked\x0b"), BAD),
        ("a form feed before it", coding("\x0cchunked"), BAD),
        ("a NUL behind it", coding("chunked\0"), BAD),
        ("a no-break blank behind it", chunked_as(b"Transfer-Encoding: chunked\xa0\r\n"), BAD),
        ("a length", both("46", "chunked"), BAD),
        ("a length of the empty chunk", both("5", "chunked"), BAD),
        ("a length of nothing", both("0", "chunked"), BAD),
        ("a length behind it", post("Transfer-Encoding: chunked\r\nContent-Length: 85\r\n", &chunks), BAD),
        ("a length that is none", both("x", "chunked"), BAD),
        ("a length with a plus", both("+5", "chunked"), BAD),
        ("a length, and it in capitals", both("5", "CHUNKED"), BAD),
        ("a length, and a comma before it", both("5", ", chunked"), BAD),
        ("a length, and a blank behind it", both("5", "chunked "), BAD),
        ("a length, and a fold", both("5", "\r\n chunked"), BAD),
        ("a length, and two fields", both("5", "chunked\r\nTransfer-Encoding: identity"), BAD),
        ("a length, and identity", both("46", "identity"), BAD),
        ("a length, and an unknown one", both("46", "xchunked"), BAD),
        ("a length of a GET", with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"), BAD),
        ("a fold for OPTIONS", line("OPTIONS * HTTP/1.1\r\nTransfer-Encoding:\r\n chunked"), BAD),
        ("HTTP/1.0", old(""), BAD),
        ("HTTP/1.0 that stays", old("Connection: keep-alive\r\n"), BAD),
        ("HTTP/1.0 with a length", old("Content-Length: 85\r\n"), BAD),
    ]);
}

/// RFC 9112, 7.1.
#[test]
fn chunks_that_are_broken() {
    refuses(&[
        ("a size that is none", chunk("zz"), BROKEN),
        ("no size", chunk(""), BROKEN),
        ("a size with a prefix", chunk("0x4a"), BROKEN),
        ("a size with an h", chunk("4ah"), BROKEN),
        ("a plus", chunk("+4a"), BROKEN),
        ("a minus", chunk("-4a"), BROKEN),
        ("an underscore", chunk("4_a"), BROKEN),
        ("a point", chunk("4a.0"), BROKEN),
        ("a blank before the size", chunk(" 4a"), BROKEN),
        ("a tab before the size", chunk("\t4a"), BROKEN),
        ("a blank inside the size", chunk("4 a"), BROKEN),
        ("a NUL behind the size", chunk("4a\0"), BROKEN),
        ("a size of 65 bits", chunk("1000000000000004a"), BROKEN), // the right one when it wraps
        ("a size of 17 digits", chunk("fffffffffffffffff"), BROKEN),
        ("a size of 100 digits", chunk(&"f".repeat(100)), BROKEN),
        ("a size in quotes", chunk("\"4a\""), BROKEN),
        ("two sizes", chunk("4a, 4a"), BROKEN),
        ("a NUL in an extension", chunk("4a;x=\0"), BROKEN),
        ("a control character in an extension", chunk("4a;x=\x01"), BROKEN),
        ("a bare CR in an extension", chunk("4a;x\ry"), BROKEN),
        ("a bare LF in an extension", chunk("4a;x\ny"), BROKEN),
        ("a bare LF behind an extension", chunked(format!("4a;x\n{HELLO}\r\n0\r\n\r\n")), BROKEN),
        ("a bare LF behind the size", chunked(format!("4a\n{HELLO}\r\n0\r\n\r\n")), BROKEN),
        ("a bare CR behind the size", chunked(format!("4a\r{HELLO}\r\n0\r\n\r\n")), BROKEN),
        ("CR twice behind the size", chunked(format!("4a\r\r\n{HELLO}\r\n0\r\n\r\n")), BROKEN),
        ("a bare LF behind the data", chunked(format!("4a\r\n{HELLO}\n0\r\n\r\n")), BROKEN),
        ("a bare CR behind the data", chunked(format!("4a\r\n{HELLO}\r0\r\n\r\n")), BROKEN),
        ("nothing behind the data", chunked(format!("4a\r\n{HELLO}0\r\n\r\n")), BROKEN),
        ("two bytes that are no line's end", chunked(format!("4a\r\n{HELLO}XX0\r\n\r\n")), BROKEN),
        ("more data than was said", chunked(format!("4a\r\n{HELLO}  \r\n0\r\n\r\n")), BROKEN),
        ("less data than was said", chunked(format!("4c\r\n{HELLO}\r\n0\r\n\r\n")), BROKEN),
        ("a second size that is none", last_chunk("zz\r\n \r\n0\r\n\r\n"), BROKEN),
        ("a bare LF behind the last size", last_chunk("0\n\r\n"), BROKEN),
        ("a bare LF as the last line", last_chunk("0\r\n\n"), BROKEN),
        ("bare LFs at the end", last_chunk("0\n\n"), BROKEN),
        ("a bare LF behind a trailer", last_chunk("0\r\nX-Sum: 1\n\r\n"), BROKEN),
        ("a bare CR at the end", last_chunk("0\r\n\r\r\n"), BROKEN),
        ("something else than the last line", last_chunk(format!("0\r\n{HEALTH}")), BROKEN),
    ]);
}

/// RFC 9110, 4.1 and 5.4; RFC 6585, 5.
#[test]
fn heads_that_are_too_large() {
    const LONG_TARGET: Refusal = (414, "bad_request");
    const LARGE_HEAD: Refusal = (431, "bad_request");
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>();
    let long = |length: usize| "x".repeat(length);
    refuses(&[
        ("a path of 17 KB", target(format!("/{}", long(17 << 10))), LONG_TARGET),
        ("a query of 17 KB", target(format!("/health?{}", long(17 << 10))), LONG_TARGET),
        ("a whole URL of 17 KB", target(format!("http://localhost/{}", long(17 << 10))), LONG_TARGET),
        ("a path of 50 KB", target(format!("/{}", long(50 << 10))), LONG_TARGET),
        ("a value of 65 KB", with(format!("X-Title: {}\r\n", long(65 << 10))), LARGE_HEAD),
        ("a value of 100 KB", with(format!("X-Title: {}\r\n", long(100 << 10))), LARGE_HEAD),
        ("a cookie of 100 KB", with(format!("Cookie: a={}\r\n", long(100 << 10))), LARGE_HEAD),
        ("a name of 100 KB", with(format!("{}: a\r\n", long(100 << 10))), LARGE_HEAD),
        ("many values, 80 KB in all", with(format!("X-Title: {}\r\n", long(800)).repeat(100)), LARGE_HEAD),
        ("201 fields", with(fields(200)), LARGE_HEAD),
        ("250 fields", with(fields(250)), LARGE_HEAD),
        ("250 fields of a POST", post_with(fields(250)), LARGE_HEAD),
        ("10,000 fields", with(fields(10_000)), LARGE_HEAD),
    ]);
    serves(&[
        ("a query of 15 KB", target(format!("/health?{}", long(15 << 10))), 200),
        ("a value of 60 KB", with(format!("X-Title: {}\r\n", long(60 << 10))), 200),
        ("a name of 30 KB", with(format!("{}: a\r\n", long(30 << 10))), 200),
        ("199 fields", with(fields(198)), 200),
        ("many cookies", with(format!("Cookie: {}\r\n", "name=value; ".repeat(1000))), 200),
    ]);
    answers(&[
        // It reads like a target as soon as there is a blank, and like a large head until then.
        ("a path of 100 KB", target(format!("/{}", long(100 << 10))), &[414, 431]),
        ("a method of 100 KB", line(format!("{} /health HTTP/1.1", long(100 << 10))), &[400, 405, 431, 501]),
        ("a method of 1,000 letters", line(format!("{} /health HTTP/1.1", long(1000))), &[400, 405, 501]),
        ("a version of 100 KB", line(format!("GET /health HTTP/1.{}", long(100 << 10))), &[400, 414, 431]),
        ("an extension of 100 KB", chunk(&format!("4a;{}", long(100 << 10))), &[400, 413, 431]),
        (
            "100 KB of trailers",
            last_chunk(format!("0\r\n{}\r\n", "X-Sum: 1\r\n".repeat(10_000))),
            &[400, 413, 431],
        ),
        ("a size behind 100 KB of zeros", chunk(&format!("{}4a", "0".repeat(100 << 10))), &[400, 413, 431]),
    ]);
}

/// RFC 9112, 9.6: closed with a reset, which is what happens where something is left unread, a connection takes the
/// answer with it before a client on Windows has read it.
#[test]
fn refusals_arrive_while_the_client_is_still_sending() {
    let proxy = offline();
    let much = "x".repeat(200 << 10);
    for (name, request, status) in [
        ("a large head", with(format!("X-Title: {much}\r\n")), "431"),
        ("a long target", target(format!("/{much}")), "4"),
        ("a large body", post("Content-Length: 999999999\r\n", &much), "413"),
        ("a body behind a wrong head", post("X Title: a\r\nContent-Length: 204800\r\n", &much), "400"),
        ("a body behind an unknown path", with_body("POST /nowhere", &much), "404"),
        ("chunks that are none", chunked(&much), "400"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let sent = stream.write_all(&request);
        let mut answer = vec![0; 9 + status.len()];
        stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("{name}: {e}, {sent:?}"));
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{name}");
        proxy.get("/health").assert_status(200);
        assert!(sent.is_ok() && stream.take_error().unwrap().is_none(), "{name}: it was reset, {sent:?}");
    }
}

#[test]
fn expectations_and_encodings_that_nobody_meets() {
    const EXPECTED: Refusal = (417, "bad_request");
    const ENCODED: Refusal = (415, "bad_request");
    refuses(&[
        // RFC 9110, 10.1.1.
        ("another expectation", post_with("Expect: 200-ok\r\n"), EXPECTED),
        ("another expectation of a GET", with("Expect: 200-ok\r\n"), EXPECTED),
        ("another one beside the known one", post_with("Expect: 100-continue, 200-ok\r\n"), EXPECTED),
        ("nearly the known one", post_with("Expect: 100-continued\r\n"), EXPECTED),
        // RFC 9110, 8.4.
        ("Brotli", post_with("Content-Encoding: br\r\n"), ENCODED),
        ("Zstandard", post_with("Content-Encoding: zstd\r\n"), ENCODED),
        ("compress", post_with("Content-Encoding: compress\r\n"), ENCODED),
        ("a name of no meaning", post_with("Content-Encoding: nonsense\r\n"), ENCODED),
        ("an unknown one behind gzip", post_with("Content-Encoding: gzip, br\r\n"), ENCODED),
        ("an unknown one before gzip", post_with("Content-Encoding: br, gzip\r\n"), ENCODED),
        (
            "an unknown one in a field of its own",
            post_with("Content-Encoding: gzip\r\nContent-Encoding: br\r\n"),
            ENCODED,
        ),
        (
            "an unknown one of chunks",
            chunked_as("Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n"),
            ENCODED,
        ),
    ]);
}

/// RFC 9110, 7.8: nobody has to change over, and only WebSocket clients can do nothing else.
#[test]
fn upgrades() {
    const UPGRADE: Refusal = (426, "upgrade_unsupported");
    let sockets =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let h2c =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let upgrade =
        |path: &str, more: &str| line(format!("GET {path} HTTP/1.1\r\n{more}{}", sockets.trim_end()));
    let cases: &[Case<Refusal>] = &[
        ("of the front page", upgrade("/", "Connection: Upgrade\r\n"), UPGRADE),
        ("of the API", upgrade("/v1/chat/completions", "Connection: Upgrade\r\n"), UPGRADE),
        (
            "of the realtime API, which isn't there",
            upgrade("/v1/realtime?model=x", "Connection: Upgrade\r\n"),
            UPGRADE,
        ),
        ("of a path that takes GET", upgrade("/health", "Connection: Upgrade\r\n"), UPGRADE),
        ("in a list", upgrade("/v1/realtime", "Connection: keep-alive, Upgrade\r\n"), UPGRADE),
        ("in other letters", with("connection: upgrade\r\nupgrade: WebSocket\r\n"), UPGRADE),
        ("in a POST", post_with(format!("Connection: Upgrade\r\n{sockets}")), UPGRADE),
        (
            "of a version to come",
            with("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99\r\n"),
            UPGRADE,
        ),
    ];
    let proxy = offline();
    try_all(&proxy, cases, |request, refusal| {
        let answer = assert_refused(&mut ask(&proxy, request), refusal);
        assert!(answer.header("upgrade").is_some(), "{answer:?}"); // RFC 9110, 15.5.22
    });
    serves(&[
        ("WebSocket without the connection option", with(sockets), 200),
        ("WebSocket with another option", with(format!("Connection: keep-alive\r\n{sockets}")), 200),
        ("HTTP/2 as curl asks for it", with(h2c), 200),
        ("HTTP/2 as Java asks for it", post_with(h2c), 200),
        ("TLS", with("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"), 200),
        ("a protocol of no meaning", with("Connection: Upgrade\r\nUpgrade: totally-made-up/1.0\r\n"), 200),
        ("nothing", with("Connection: Upgrade\r\n"), 200),
    ]);
    // RFC 9110, 7.8: in HTTP/1.0 it isn't even seen.
    let old = format!("GET /health HTTP/1.0\r\nHost: localhost\r\nConnection: Upgrade\r\n{sockets}\r\n");
    proxy.connect().exchange(&old).assert_status(200);
}

/// RFC 9110, 9.1: methods know upper and lower case.
#[test]
fn methods_that_are_not_served() {
    const METHOD: Refusal = (405, "method_not_allowed");
    const PATH: Refusal = (404, "not_found");
    let cases: &[Case<Refusal>] = &[
        ("PUT", line("PUT /health HTTP/1.1"), METHOD),
        ("DELETE", line("DELETE /v1/models HTTP/1.1"), METHOD),
        ("PATCH with a body", with_body("PATCH /health", HELLO), METHOD),
        ("TRACE", line("TRACE /health HTTP/1.1\r\nCookie: secret"), METHOD),
        ("TRACE with a body", with_body("TRACE /health", "secret"), METHOD),
        ("GET where POST is meant", line("GET /v1/chat/completions HTTP/1.1"), METHOD),
        ("POST where GET is meant", with_body("POST /v1/models", HELLO), METHOD),
        ("an unknown one", line("FOO /health HTTP/1.1"), METHOD),
        ("an unknown one with signs", line("M-SEARCH /health HTTP/1.1"), METHOD),
        ("all signs of a token", line("!#$%&'*+-.^_`|~09 /health HTTP/1.1"), METHOD),
        ("lower case", line("get /health HTTP/1.1"), METHOD),
        ("mixed case", with_body("Post /v1/chat/completions", HELLO), METHOD),
        ("an unknown path", target("/nowhere"), PATH),
        ("an unknown path and method", line("FOO /nowhere HTTP/1.1"), PATH),
        ("an encoded path", target("/%68ealth"), PATH),
        ("a path with dots", target("/v1/../health"), PATH),
        ("a path with an encoded dot", target("/%2e/health"), PATH),
        ("a path with an encoded slash", target("/v1%2fmodels"), PATH),
    ];
    let proxy = offline();
    try_all(&proxy, cases, |request, (status, code)| {
        let mut client = ask(&proxy, request);
        let answer = client.response();
        answer.assert_error(status, code);
        assert_eq!(answer.header("allow").is_some(), status == 405, "{answer:?}");
        assert!(!answer.text().contains("secret"), "{answer:?}");
        assert_word_is_kept(&mut client, &answer);
    });
}

/// What may be read in two ways without harm.
#[test]
fn requests_of_which_two_answers_are_right() {
    answers(&[
        ("a length twice", post("Content-Length: 74\r\nContent-Length: 74\r\n", HELLO), &[200, 400]),
        ("a length in two ways", post("Content-Length: 74\r\nContent-Length: 074\r\n", HELLO), &[200, 400]),
        ("zeros before a length", length("0074"), &[200, 400]),
        ("a length of two zeros", post("Content-Length: 00\r\n", ""), &[400]),
        ("a length of 64 bits", length("18446744073709551615"), &[400, 413]),
        ("a field that isn't Content-Length", post_with("Content_Length: 5\r\n"), &[200, 400]),
        ("a field that isn't Transfer-Encoding", post_with("Transfer_Encoding: chunked\r\n"), &[200, 400]),
        ("no length at all", post("", ""), &[400]),
        ("a length of zero", post("Content-Length: 0\r\n", ""), &[400]),
        ("no chunk but the last", chunked("0\r\n\r\n"), &[400]),
        ("a GET with a body", with_body("GET /health", "hello"), &[200, 400]),
        ("a GET with a request as its body", with_body("GET /health", HEALTH), &[200, 400]),
        ("a HEAD with a body", with_body("HEAD /health", "hello"), &[200, 400]),
        ("OPTIONS with a body", with_body("OPTIONS *", "hello"), &[204, 400]),
        // The next request would make it whole.
        (
            "a GET with half a request as its body",
            with_body("GET /health", "GET /nowhere HTTP/1.1\r\nX-Rest: "),
            &[200, 400],
        ),
        (
            "a HEAD with a length and chunks",
            line("HEAD /health HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"),
            &[400],
        ),
        ("a GET with chunks", with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"), &[200, 400]),
        ("a blank behind a chunk's size", chunk("4a "), &[200, 400]),
        ("blanks around an extension", chunk("4a ; x = y"), &[200, 400]),
        ("a semicolon alone", chunk("4a;"), &[200, 400]),
        ("an extension that is no token", chunk("4a;x[=y"), &[200, 400]),
        ("a chunk of 64 bits", chunk("ffffffffffffffff"), &[400, 413]),
        ("a trailer without a colon", last_chunk("0\r\nX-Sum\r\n\r\n"), &[200, 400]),
        ("a trailer that is a length", last_chunk("0\r\nContent-Length: 9\r\n\r\n"), &[200, 400]),
        ("a trailer that is a coding", last_chunk("0\r\nTransfer-Encoding: chunked\r\n\r\n"), &[200, 400]),
        ("a trailer that is a host", last_chunk("0\r\nHost: evil.example\r\n\r\n"), &[200, 400]),
        ("a trailer that is a key", last_chunk("0\r\nAuthorization: Bearer x\r\n\r\n"), &[200, 400]),
        ("a trailer that is a type", last_chunk("0\r\nContent-Type: text/evil\r\n\r\n"), &[200, 400]),
        ("another own name in the URL", target("http://127.0.0.1/health"), &[200, 400]),
        ("a foreign name in the URL", target("http://evil.example/health"), &[400, 403]),
        (
            "a foreign Host beside an own URL",
            b"GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
            &[400, 403],
        ),
        ("a user in the URL", target("http://user:secret@localhost/health"), &[400, 403]),
        (
            "a user behind whom a foreign name hides",
            target("http://localhost@evil.example/health"),
            &[400, 403],
        ),
        ("a port that is none", get("Host: localhost:99999\r\n"), &[200, 400]),
        ("a backslash", target("/v1\\models"), &[400, 404]),
        ("an encoded NUL", target("/health%00"), &[400, 404]),
        ("an encoded line end", target("/health%0d%0aX-Evil:%201"), &[400, 404]),
        ("overlong UTF-8, encoded", target("/%c0%af"), &[400, 404]),
        ("half an encoded byte", target("/health%2"), &[400, 404]),
        ("an encoded byte that is none", target("/health%zz"), &[400, 404]),
        ("CONNECT", line("CONNECT localhost:443 HTTP/1.1"), &[400, 405]),
        ("CONNECT to somebody else", line("CONNECT example.com:443 HTTP/1.1"), &[400, 405]),
        ("CONNECT without a port", line("CONNECT localhost HTTP/1.1"), &[400, 405]),
        ("CONNECT with an empty port", line("CONNECT localhost: HTTP/1.1"), &[400, 405]),
        ("CONNECT of a path", line("CONNECT /health HTTP/1.1"), &[400, 405]),
        ("gzip by its old name", encoded("x-gzip", gzip(HELLO)), &[200, 415]),
        ("a range too many", with("Range: bytes=0-,0-,0-,0-,0-,0-\r\n"), &[200, 416]),
        (
            "two types",
            post_with("Content-Type: application/json\r\nContent-Type: text/plain\r\n"),
            &[200, 400, 415],
        ),
        ("another type", post_with("Content-Type: text/plain\r\n"), &[200, 415]),
    ]);
}

/// What nobody should stumble over.
#[test]
fn requests_that_are_served() {
    serves(&[
        ("an empty line before it", [b"\r\n", HEALTH.as_bytes()].concat(), 200),
        ("two empty lines before it", [b"\r\n\r\n", HEALTH.as_bytes()].concat(), 200),
        ("an empty line before a POST", [b"\r\n", &post_with("")[..]].concat(), 200),
        ("OPTIONS of everything", line("OPTIONS * HTTP/1.1"), 204),
        ("OPTIONS of a path", line("OPTIONS /v1/chat/completions HTTP/1.1"), 204),
        ("HEAD", line("HEAD /health HTTP/1.1"), 200),
        ("HEAD of what takes an upstream", line("HEAD /v1/models HTTP/1.1"), 200),
        ("a whole URL", target("http://localhost/health"), 200),
        (
            "a whole URL with the port",
            b"GET http://localhost:5000/health HTTP/1.1\r\nHost: localhost:5000\r\n\r\n".to_vec(),
            200,
        ),
        ("a whole URL in capitals", target("HTTP://LOCALHOST/health"), 200),
        ("a whole URL without a path", target("http://localhost"), 200),
        ("a whole URL with a query alone", target("http://localhost?x=1"), 200),
        (
            "a whole URL, asked of a proxy",
            line("GET http://localhost/health HTTP/1.1\r\nProxy-Connection: keep-alive"),
            200,
        ),
        ("a query", target("/health?x=1&y=%20&z"), 200),
        ("an empty query", target("/health?"), 200),
        ("a question in the query", target("/health?a?b/c:d@e"), 200),
        ("a slash too many at the end", target("/v1/models/"), 200),
        ("a slash too many inside", target("/v1//models"), 200),
        ("slashes too many", target("//v1///models//"), 200),
        ("slashes too many in a whole URL", target("http://localhost//v1//models"), 200),
        ("slashes too many for a POST", with_body("POST //v1//chat/completions", HELLO), 200),
        ("a slash too many at the end for a POST", with_body("POST /v1/chat/completions/", HELLO), 200),
        ("a port", get("Host: localhost:5000\r\n"), 200),
        ("an empty port", get("Host: localhost:\r\n"), 200),
        ("Host in capitals", get("HOST: LOCALHOST\r\n"), 200),
        ("a point behind the host", get("Host: localhost.\r\n"), 200),
        ("an IPv6 host", get("Host: [::1]:5000\r\n"), 200),
        ("Host as the last field", get("Accept: */*\r\nUser-Agent: x\r\nHost: localhost\r\n"), 200),
        ("no blank behind the colon", get("Host:localhost\r\n"), 200),
        ("blanks around values", get("Host:   localhost  \r\nX-Title:\t a \t\r\n"), 200),
        ("a tab before a value", get("Host:\tlocalhost\r\n"), 200),
        ("a tab inside a value", with("X-Title: a\tb\r\n"), 200),
        ("an empty value", with("X-Title:\r\nX-Other: \r\n"), 200),
        ("every sign that a name may have", with("!#$%&'*+-.^_`|~09aZ: a\r\n"), 200),
        (
            "every sign that a value may have",
            with((' '..='~').fold("X-Title: ".to_owned(), |all, c| all + &c.to_string()) + "\r\n"),
            200,
        ),
        ("a name of one letter", with("X: a\r\n"), 200),
        ("a field many times", with("X-Title: a\r\n".repeat(50)), 200),
        ("a value in UTF-8", with("X-Title: 标题 é\r\n"), 200),
        ("a value in Latin-1", with(b"X-Title: caf\xe9\r\n"), 200),
        ("a value in GBK", with(b"X-Title: \xb1\xea\xcc\xe2\r\n"), 200),
        ("a blank behind a length", length("74 "), 200),
        ("blanks before a length", length("    74"), 200),
        ("a tab before a length", length("\t74"), 200),
        ("a length in capitals", post("CONTENT-LENGTH: 74\r\n", HELLO), 200),
        ("Chunked", coding("Chunked"), 200),
        ("CHUNKED", chunked_as("TRANSFER-ENCODING: CHUNKED\r\n"), 200),
        ("chunked without a blank", chunked_as("transfer-encoding:chunked\r\n"), 200),
        ("a blank behind chunked", coding("chunked "), 200),
        ("a tab before chunked", coding("\tchunked"), 200),
        ("a size in capitals", chunk("4A"), 200),
        ("zeros before a size", chunk("000000000000000000004a"), 200),
        ("an extension", chunk("4a;x"), 200),
        ("an extension with a value", chunk("4a;x=y;z=1"), 200),
        ("an extension in quotes", chunk("4a;x=\"a; b\\\"c\""), 200),
        ("an extension of the last chunk", last_chunk("0;x=y\r\n\r\n"), 200),
        ("zeros as the last chunk", last_chunk("000\r\n\r\n"), 200),
        ("a trailer", last_chunk("0\r\nX-Sum: 1\r\n\r\n"), 200),
        ("two trailers", last_chunk("0\r\nX-Sum: 1\r\nX-Time:\t2 \r\n\r\n"), 200),
        (
            "chunks of one byte",
            chunked(HELLO.chars().map(|c| format!("1\r\n{c}\r\n")).collect::<String>() + "0\r\n\r\n"),
            200,
        ),
        ("an empty line behind the body", [&post_with("")[..], b"\r\n"].concat(), 200),
        ("a length of zero for OPTIONS", with_body("OPTIONS *", ""), 204),
        (
            "keep-alive, which goes without saying",
            with("Connection: Keep-Alive\r\nKeep-Alive: timeout=5, max=1000\r\n"),
            200,
        ),
        ("an empty connection option", with("Connection:\r\n"), 200),
        (
            "connection options in two fields",
            with("Connection: keep-alive\r\nConnection: x-title\r\nX-Title: a\r\n"),
            200,
        ),
        ("an option that only begins like close", with("Connection: closed, not-close\r\n"), 200),
        ("trailers announced", with("TE: trailers\r\nConnection: TE\r\n"), 200),
        ("expected without a body", with("Expect: 100-continue\r\n"), 200),
        ("cookies of no meaning", with(b"Cookie: ;;; =x; a==b; \xe5 \r\n"), 200),
        ("a range that is none", with("Range: bytes=abc-xyz\r\n"), 200),
        ("conditions", with("If-None-Match: *, W/\"x\", y\r\nIf-Modified-Since: yesterday\r\n"), 200),
        (
            "nothing that is served is wanted",
            with("Accept: application/x-nothing\r\nAccept-Encoding: *;q=0\r\n"),
            200,
        ),
        ("no encoding", post_with("Content-Encoding: identity\r\n"), 200),
        ("gzip in capitals", encoded("GZIP", gzip(HELLO)), 200),
    ]);
}

/// The header fields of well-known clients, beside `Host` and `Content-Length`.
#[test]
fn clients_that_there_are() {
    let key = "Authorization: Bearer sk-anything\r\nContent-Type: application/json\r\n";
    serves(&[
        ("curl", post_with(format!("User-Agent: curl/8.5.0\r\nAccept: */*\r\n{key}")), 200),
        (
            "the OpenAI SDK for Python",
            post_with(format!(
                "Accept: application/json\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
                 Connection: keep-alive\r\n{key}User-Agent: OpenAI/Python 2.8.1\r\nX-Stainless-Arch: x64\r\n\
                 X-Stainless-Async: false\r\n\
                 X-Stainless-Lang: python\r\nX-Stainless-OS: Linux\r\nX-Stainless-Raw-Response: true\r\n\
                 x-stainless-read-timeout: 600\r\nx-stainless-retry-count: 0\r\n"
            )),
            200,
        ),
        (
            "fetch of Node",
            post_with(format!(
                "connection: keep-alive\r\naccept: application/json\r\naccept-language: *\r\n\
                 sec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\n{}",
                key.to_lowercase()
            )),
            200,
        ),
        (
            "HttpClient of .NET, which sends chunks",
            chunked_as(
                "Transfer-Encoding: chunked\r\nContent-Type: application/json; charset=utf-8\r\n\
                 traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n",
            ),
            200,
        ),
        (
            "net/http of Go",
            post_with(format!("User-Agent: Go-http-client/1.1\r\n{key}Accept-Encoding: gzip\r\n")),
            200,
        ),
        (
            "OkHttp",
            post_with(
                "Content-Type: application/json; charset=utf-8\r\nConnection: Keep-Alive\r\n\
                 Accept-Encoding: gzip\r\nUser-Agent: okhttp/4.12.0\r\n",
            ),
            200,
        ),
        (
            "wget",
            with(
                "User-Agent: Wget/1.21.4\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\
                 Connection: Keep-Alive\r\n",
            ),
            200,
        ),
        (
            "a Chinese Chrome",
            with(
                "Connection: keep-alive\r\nCache-Control: max-age=0\r\nDNT: 1\r\n\
                 Upgrade-Insecure-Requests: 1\r\n\
                 sec-ch-ua: \"Chromium\";v=\"141\", \"Not?A_Brand\";v=\"8\"\r\n\
                 sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Windows\"\r\nAccept: text/html,*/*;q=0.8\r\n\
                 Sec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
                 Accept-Language: zh-CN,zh;q=0.9\r\nPriority: u=0, i\r\n",
            ),
            200,
        ),
        (
            "nginx before us",
            post_with(format!(
                "X-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n{key}"
            )),
            200,
        ),
    ]);
}

#[test]
fn what_arrives_at_the_upstream() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let sent = serde_json::from_str::<serde_json::Value>(HELLO).unwrap();
    let cases: &[Case<u16>] = &[
        ("as it is", post_with("X-Title: 我的应用 é\r\n"), 200),
        ("without an encoding", post_with("X-Title: 我的应用 é\r\nContent-Encoding: identity\r\n"), 200),
        (
            "in chunks",
            post(
                "x-title:我的应用 é  \r\ntransfer-encoding: Chunked\r\n",
                format!("1;x=y\r\n{}\r\n49\r\n{}\r\n0\r\nX-Title: late\r\n\r\n", &HELLO[..1], &HELLO[1..]),
            ),
            200,
        ),
    ];
    try_all(&proxy, cases, |request, status| {
        let mut client = ask(&proxy, request);
        client.response().assert_status(status);
        let received = upstream.last();
        assert_eq!(received.json()["messages"], sent["messages"]);
        assert_eq!(received.header("x-title"), Some("我的应用 é"), "byte for byte");
        assert_eq!(received.header("content-encoding"), None);
        assert_goes_on(&mut client);
    });
}

#[test]
fn bodies_that_are_compressed() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MAX_BODY_MB=1");
    let sent = serde_json::from_str::<serde_json::Value>(HELLO).unwrap();
    // RFC 9110, 8.4.1.2 means zlib; some clients never knew.
    let zlib = |body: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let raw = |body: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let packed = gzip(HELLO);
    let (first, rest) = packed.split_at(11);
    let size = |part: &[u8]| format!("{:x}\r\n", part.len()).into_bytes();
    let chunks = [&size(first), first, b"\r\n", &size(rest), rest, b"\r\n0\r\n\r\n"].concat();
    let cases: &[Case<u16>] = &[
        ("gzip", encoded("gzip", packed.clone()), 200),
        ("gzip in other letters", encoded("GZip", packed.clone()), 200),
        ("gzip in chunks", post("Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", chunks), 200),
        ("deflate", encoded("deflate", zlib(HELLO.as_bytes())), 200),
        ("deflate without its frame", encoded("deflate", raw(HELLO.as_bytes())), 200),
        ("identity", encoded("identity", HELLO.into()), 200),
        (
            "gzip of what just fits",
            encoded("gzip", gzip(HELLO.to_owned() + &" ".repeat((1 << 20) - HELLO.len()))),
            200,
        ),
    ];
    try_all(&proxy, cases, |request, status| {
        let mut client = ask(&proxy, request);
        client.response().assert_status(status);
        let received = upstream.last();
        assert_eq!(received.json()["messages"], sent["messages"]);
        assert_eq!(received.header("content-encoding"), None);
        assert_goes_on(&mut client);
    });

    let calls = upstream.calls();
    let damaged = |at: usize| {
        let mut body = packed.clone();
        body[at] ^= 0x55;
        body
    };
    let end = packed.len();
    let much = vec![b' '; (1 << 20) + 1];
    let cases: &[Case<Refusal>] = &[
        ("gzip of more than fits", encoded("gzip", gzip(&much)), TOO_LARGE),
        ("deflate of more than fits", encoded("deflate", zlib(&much)), TOO_LARGE),
        ("deflate without its frame of more than fits", encoded("deflate", raw(&much)), TOO_LARGE),
        ("gzip of 8 times as much", encoded("gzip", gzip(much.repeat(8))), TOO_LARGE),
        ("no gzip", encoded("gzip", HELLO.into()), BROKEN),
        ("no deflate", encoded("deflate", HELLO.into()), BROKEN),
        ("gzip of nothing", encoded("gzip", gzip("")), BROKEN),
        ("gzip without a byte", encoded("gzip", Vec::new()), BROKEN),
        ("gzip without its end", encoded("gzip", packed[..end - 9].into()), BROKEN),
        ("gzip without half its checksum", encoded("gzip", packed[..end - 6].into()), BROKEN),
        ("gzip with another magic number", encoded("gzip", damaged(1)), BROKEN),
        ("gzip with a damaged byte", encoded("gzip", damaged(10)), BROKEN),
        ("gzip with another checksum", encoded("gzip", damaged(end - 7)), BROKEN),
        ("gzip with another length", encoded("gzip", damaged(end - 2)), BROKEN),
        ("deflate that is gzip", encoded("deflate", packed.clone()), BROKEN),
        ("gzip that is deflate", encoded("gzip", zlib(HELLO.as_bytes())), BROKEN),
        ("deflate without its end", encoded("deflate", zlib(HELLO.as_bytes())[..40].into()), BROKEN),
    ];
    try_all(&proxy, cases, |request, (status, code)| {
        let mut client = ask(&proxy, request);
        let answer = client.response();
        answer.assert_error(status, code);
        assert_eq!(upstream.calls(), calls, "it is not forwarded");
        assert_word_is_kept(&mut client, &answer);
    });
}

/// RFC 9112, 9.3.2.
#[test]
fn requests_that_do_not_wait_for_answers() {
    let proxy = offline();
    let is_health = |answer: &Response| answer.json()["status"] == "ok";
    let is_chat = |answer: &Response| answer.json()["choices"].is_array();
    let is_list = |answer: &Response| answer.json()["object"] == "list";
    let models = target("/v1/models");
    let health = HEALTH.as_bytes();

    let mut client = ask(&proxy, &[health, &post_with(""), &models].concat());
    assert!(is_health(&client.response()) && is_chat(&client.response()) && is_list(&client.response()));
    let in_chunks = coding("chunked");
    client.send([&in_chunks[..], health, &in_chunks, &in_chunks, b"\r\n", &models].concat());
    assert!(is_chat(&client.response()) && is_health(&client.response()) && is_chat(&client.response()));
    assert!(is_chat(&client.response()) && is_list(&client.response()));
    let stream = with_body("POST /v1/chat/completions", HELLO_STREAM);
    client.send([&stream[..], health, &stream, health].concat());
    for _ in 0..2 {
        assert!(client.response().text().ends_with("data: [DONE]\n\n"));
        assert!(is_health(&client.response()));
    }
    client.send(HEALTH.repeat(100));
    (0..100).for_each(|_| assert!(is_health(&client.response())));

    // An error of the second is the end of them all.
    client.send([health, &with("X Title: a\r\n"), health].concat());
    assert!(is_health(&client.response()));
    assert_refused(&mut client, BAD);
    // One of a whole body isn't.
    let mut client = ask(&proxy, &[&with_body("POST /v1/chat/completions", "no"), health].concat());
    let answer = client.response();
    answer.assert_error(400, "invalid_json");
    if has_option(&answer, "close") {
        assert_ends(&mut client)
    } else {
        assert!(is_health(&client.response()))
    }
}

#[test]
fn requests_that_come_byte_by_byte() {
    let proxy = offline();
    let mut client = proxy.connect();
    for request in [HEALTH.into(), post_with("X-Title: 标题\r\n"), coding("Chunked"), chunk("4a;x=\"y\"")] {
        for (at, byte) in request.iter().enumerate() {
            if at == 10 {
                proxy.get("/health").assert_status(200); // nobody has to wait for it
            }
            client.send([*byte]);
        }
        client.response().assert_status(200);
    }
    // A fault is seen as soon as in one piece.
    let _ = with("X-Title : a\r\n").iter().try_for_each(|byte| client.try_send(&[*byte]));
    assert_refused(&mut client, BAD);
}

/// RFC 9112, 9.3 and appendix C.2.2; RFC 9110, 10.1.1.
#[test]
fn http_1_0() {
    let proxy = offline();
    let ask = |head: &str, body: &str| ask(&proxy, format!("{head}\r\n\r\n{body}").as_bytes());
    let post = "POST /v1/chat/completions HTTP/1.0";
    for head in [
        "GET /health HTTP/1.0",
        "GET /health HTTP/1.0\r\nHost: localhost",
        "GET / HTTP/1.0\r\nConnection: close",
    ] {
        let mut client = ask(head, "");
        client.response().assert_status(200);
        assert_ends(&mut client);
    }
    let mut client = ask("HEAD /health HTTP/1.0", "");
    client.head().assert_status(200);
    assert_ends(&mut client);

    for fields in ["", "\r\nExpect: 100-continue", "\r\nHost: localhost\r\nTE: trailers"] {
        let mut client = ask(&format!("{post}\r\nContent-Length: 74{fields}"), "");
        proxy.get("/health").assert_status(200); // others come in between
        client.send(HELLO);
        let head = client.head();
        head.assert_status(200); // and not 100
        assert_eq!(head.header("transfer-encoding"), None, "it knows no chunks");
        assert!(rest(&mut client).contains("hello"));
    }
    let mut client = ask(&format!("{post}\r\nContent-Length: {}", HELLO_STREAM.len()), HELLO_STREAM);
    let answer = client.response();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.text().ends_with("data: [DONE]\n\n"));

    for option in ["keep-alive", "Keep-Alive"] {
        let mut client = ask(&format!("GET /health HTTP/1.0\r\nConnection: {option}"), "");
        let answer = client.response();
        answer.assert_status(200);
        if has_option(&answer, "keep-alive") { assert_goes_on(&mut client) } else { assert_ends(&mut client) }
    }
}

/// RFC 9112, 9.6.
#[test]
fn connections_end_when_they_are_asked_to() {
    let length = HELLO_STREAM.len();
    let cases: &[Case<u16>] = &[
        ("a GET", with("Connection: close\r\n"), 200),
        ("in capitals", with("CONNECTION: CLOSE\r\n"), 200),
        ("in a list", with("Connection: TE, close\r\n"), 200),
        ("in a list without blanks", with("Connection: close,TE\r\n"), 200),
        ("in a second field", with("Connection: TE\r\nConnection: close\r\n"), 200),
        ("beside the opposite", with("Connection: keep-alive, close\r\n"), 200),
        ("a HEAD", line("HEAD /health HTTP/1.1\r\nConnection: close"), 200),
        ("a POST", post_with("Connection: close\r\n"), 200),
        ("chunks", chunked_as("Connection: close\r\nTransfer-Encoding: chunked\r\n"), 200),
        ("a stream", post(format!("Connection: close\r\nContent-Length: {length}\r\n"), HELLO_STREAM), 200),
        ("an unknown path", line("GET /nowhere HTTP/1.1\r\nConnection: close"), 404),
    ];
    let proxy = offline();
    try_all(&proxy, cases, |request, status| {
        // What comes behind it is nobody's.
        let mut client = ask(&proxy, &[request, HEALTH.as_bytes()].concat());
        let answer = answer_to(request, &mut client);
        answer.assert_status(status);
        assert!(has_option(&answer, "close"), "{answer:?}");
        assert_ends(&mut client);
    });
}

/// RFC 9110, 10.1.1: some send a body only when they are told to.
#[test]
fn clients_that_wait_to_be_told_to_go_on() {
    let proxy = offline();
    let mut client = proxy.connect();
    for expectation in ["100-continue", "100-Continue"] {
        client.send(post(format!("Content-Length: 74\r\nExpect: {expectation}\r\n"), ""));
        client.head().assert_status(100);
        client.send(HELLO);
        client.response().assert_status(200);
    }
    client.send(post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", ""));
    client.head().assert_status(100);
    client.send(format!("4a\r\n{HELLO}\r\n0\r\n\r\n"));
    client.response().assert_status(200);
    // Told or not, who doesn't wait is understood.
    client.send([&post_with("Expect: 100-continue\r\n")[..], HEALTH.as_bytes()].concat());
    client.response().assert_status(200);
    assert_eq!(client.response().json()["status"], "ok");

    // The refusal is the first that they hear, and saves them the body.
    let expecting = |method_and_path: &str, fields: &str| {
        let more = "Content-Length: 74\r\nExpect: 100-continue";
        line(format!("{method_and_path} HTTP/1.1\r\n{fields}{more}"))
    };
    let chat = "POST /v1/chat/completions";
    let cases: &[Case<Refusal>] = &[
        ("too large", post("Content-Length: 999999999\r\nExpect: 100-continue\r\n", ""), TOO_LARGE),
        ("an unknown encoding", expecting(chat, "Content-Encoding: br\r\n"), (415, "bad_request")),
        (
            "an upgrade",
            expecting(chat, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            (426, "upgrade_unsupported"),
        ),
        ("another page", expecting(chat, "Origin: https://evil.example\r\n"), (403, "forbidden_origin")),
        ("an unknown path", expecting("POST /nowhere", ""), (404, "not_found")),
        ("a method that isn't served", expecting("POST /health", ""), (405, "method_not_allowed")),
        ("two lengths", expecting(chat, "Content-Length: 5\r\n"), BAD),
        ("a length and chunks", expecting(chat, "Transfer-Encoding: chunked\r\n"), BAD),
    ];
    try_all(&proxy, cases, |request, (status, code)| {
        let mut client = ask(&proxy, request);
        let mut answer = client.head();
        answer.assert_status(status); // and not 100
        let length = answer.header("content-length").unwrap().parse::<usize>().unwrap();
        answer.body = rest(&mut client).into_bytes();
        assert_eq!(answer.body.len(), length);
        answer.assert_error(status, code);
        assert!(has_option(&answer, "close"), "{answer:?}");
    });
}

/// RFC 9112, 8: what isn't whole isn't acted on.
#[test]
fn requests_that_end_too_early() {
    let proxy = offline();
    let cut = |request: Vec<u8>, bytes: usize| request[..request.len() - bytes].to_vec();
    let cases: &[Case<Refusal>] = &[
        ("a body without its last byte", cut(post_with(""), 1), BROKEN),
        ("no body", cut(post_with(""), 74), BROKEN),
        ("a chunk without its last byte", cut(last_chunk(""), 3), BROKEN),
        ("a chunk without its line's end", cut(last_chunk(""), 2), BROKEN),
        ("a chunk without half its line's end", cut(last_chunk(""), 1), BROKEN),
        ("no last chunk", last_chunk(""), BROKEN),
        ("a size without its line's end", last_chunk("0"), BROKEN),
        ("no last line", last_chunk("0\r\n"), BROKEN),
        ("half a last line", last_chunk("0\r\n\r"), BROKEN),
        ("no line behind a trailer", last_chunk("0\r\nX-Sum: 1\r\n"), BROKEN),
        ("no chunk", chunked(""), BROKEN),
    ];
    try_all(&proxy, cases, |request, refusal| {
        let mut client = ask(&proxy, request);
        client.shutdown_write();
        assert_refused(&mut client, refusal);
    });
    let cases: &[Case<&str>] = &[
        ("nothing", Vec::new(), ""),
        ("an empty line", b"\r\n".to_vec(), ""),
        ("half an empty line", b"\r".to_vec(), ""),
        ("a letter", b"G".to_vec(), "HTTP/1.1 400 "),
        ("half a request line", b"GET /health HT".to_vec(), "HTTP/1.1 400 "),
        ("a request line", b"GET /health HTTP/1.1\r\n".to_vec(), "HTTP/1.1 400 "),
        ("half a field", b"GET /health HTTP/1.1\r\nHost: loc".to_vec(), "HTTP/1.1 400 "),
        ("no blank line", cut(HEALTH.into(), 2), "HTTP/1.1 400 "),
        ("half a blank line", cut(HEALTH.into(), 1), "HTTP/1.1 400 "),
    ];
    try_all(&proxy, cases, |request, expected| {
        let mut client = ask(&proxy, request);
        client.shutdown_write();
        let said = rest(&mut client);
        assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{said}");
    });
}

/// RFC 9110, 6.6.1, 8.6 and 9.3.7.
#[test]
fn what_answers_carry() {
    let proxy = offline();
    let requests = [
        with(""),
        target("/nowhere"),
        line("PUT /health HTTP/1.1"),
        with("X Title: a\r\n"),
        PREFACE.into(),
        post_with(""),
    ];
    for request in requests {
        let answer = ask(&proxy, &request).response();
        let date = answer.header("date").unwrap_or_else(|| panic!("{answer:?}"));
        assert!(httpdate::parse_http_date(date).is_ok() && date.ends_with(" GMT"), "{date}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let lengths = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        assert_eq!(lengths.count(), 1, "{answer:?}");
    }
    let options = ask(&proxy, &line("OPTIONS * HTTP/1.1")).response();
    options.assert_status(204);
    assert!(options.header("allow").is_some_and(|methods| methods.contains("POST")));
    assert_eq!(options.header("content-length"), None, "204 has no body");
    assert_eq!(options.header("transfer-encoding"), None);
}

/// xorshift64*: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) as usize % limit
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }
}

/// A right request, some places of which have become wrong.
fn spoilt(random: &mut Random) -> Vec<u8> {
    const WRONG: [&[u8]; 24] = [
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"/",
        b"#",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"\xe6\xa0\x87",
        b"HTTP/1.1",
        b"Host: x\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Upgrade: websocket\r\n",
        b"99999999999999999999",
    ];
    let mut request = match random.below(6) {
        0 => return (0..random.below(600)).map(|_| random.below(256) as u8).collect(),
        1 => HEALTH.into(),
        2 => target("http://localhost/v1/models?x=1"),
        3 => post_with("X-Title: a\r\n"),
        4 => coding("chunked"),
        _ => encoded("gzip", gzip(HELLO)),
    };
    for _ in 0..1 + random.below(3) {
        if request.len() < 2 {
            break;
        }
        let at = random.below(request.len());
        match random.below(4) {
            0 => request[at] = random.below(256) as u8,
            1 => drop(request.remove(at)),
            2 => drop(request.splice(at..at, random.pick(&WRONG).iter().copied())),
            _ => request.truncate(at + 1),
        }
    }
    request
}

#[test]
fn a_thousand_heads_of_chance() {
    let proxy = offline();
    let mut random = Random(20_260_101);
    for number in 0..1000 {
        let request = spoilt(&mut random);
        let shown = || format!("{number}: {:?}", String::from_utf8_lossy(&request));
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        // The answer may come, and the connection end, before all of it is sent.
        let _ = stream.write_all(&request).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        assert!(ended.is_ok(), "{ended:?} of {}", shown());
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 "), "{said} for {}", shown());
        assert!(!said.contains("HTTP/1.1 500"), "{said} for {}", shown());
        if number % 100 == 0 {
            assert_eq!(proxy.chat(HELLO).status, 200, "after {}", shown());
        }
    }
    assert_eq!(proxy.chat(HELLO).status, 200);
    assert!(!proxy.console().contains("internal error"));
}
