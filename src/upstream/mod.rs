//! The upstream: its addresses, its connections, and a call to it.
//!
//! Each idle connection has a ureq agent of its own, kept in a stack: the last one used is the next one used. That
//! costs one uncontended lock a call, where ureq's shared pool walks all its connections twice, and a single call can
//! be cut off from outside ([`AbortCall`]) without touching any other.

pub mod buffers;
mod failure;
pub mod transport;

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use rustls::{ClientConfig, RootCertStore};
use ureq::http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue,
};
use ureq::http::{Method, Request, Response, Uri};
use ureq::{Agent, BodyReader};

use crate::body;
use crate::dialect;
use crate::error::LOOP_HEADER;
use crate::language::Words;
use crate::settings::{Secret, Settings};
use crate::sync::lock;
use failure::failure;
pub use failure::{Failure, FailureKind};
use transport::Deadline;

/// Opening a connection (name, TCP, TLS, proxy) may take this long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The limit for a GET, including the body: a worker waits for it.
const GET_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are closed after this; most servers close them later.
const MAX_IDLE_AGE: Duration = Duration::from_secs(55);
/// The number of connections kept for the next calls.
const MAX_IDLE: usize = 512;
/// A response head of more than this is an error.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The value of `x-title`: <https://openrouter.ai/docs/app-attribution>
const TITLE: &str = "LocalAPIProxy";
/// The header field that names the page a request comes from.
pub const REFERER: HeaderName = HeaderName::from_static("http-referer");

/// Header fields of the client that are sent upstream, the first three in place of the proxy's own.
pub const FORWARDED: [HeaderName; 6] = [
    REFERER,
    HeaderName::from_static("x-title"),
    HeaderName::from_static("x-openrouter-title"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
    HOPS,
];

/// The header field that lists the proxies of this kind which a request came by, each with an id. A proxy that finds
/// its own id in it is its own upstream.
pub const HOPS: HeaderName = HeaderName::from_static("x-local-api-proxy-hops");

/// Returns the id of this process.
fn own_hop() -> &'static str {
    static OWN: OnceLock<String> = OnceLock::new();
    OWN.get_or_init(|| format!("{:016x}", RandomState::new().hash_one(std::process::id())))
}

/// Returns whether a request with this [`HOPS`] has come from this process.
pub fn is_from_here(hops: &str) -> bool {
    hops.split(',').any(|hop| hop.trim() == own_hop())
}

/// The maximum number of header fields of a request: room for them is made once.
const MAX_HEADERS: usize = 12;

/// Everything that calls to one upstream share.
pub struct Upstream {
    /// Without a slash at its end.
    base_url: String,
    /// The URI for the requests of each dialect.
    endpoints: Vec<(&'static str, Option<Uri>)>,
    headers: HeaderMap,
    config: ureq::config::Config,
    tls: Option<Arc<ClientConfig>>,
    idle: Mutex<VecDeque<(Instant, PooledAgent)>>,
    timeout: Duration,
    /// Whether the address is this proxy's own: then no call is made.
    is_itself: bool,
}

/// An agent that holds at most one connection.
struct PooledAgent {
    agent: Agent,
    /// The number of connections that the agent is about to open: to a proxy, and through it.
    dialling: Arc<AtomicUsize>,
    /// The number of the current call, or [`ABORTED`].
    state: Arc<AtomicU64>,
    call_number: u64,
    /// The time by which the current call ends.
    deadline: Arc<Deadline>,
}

static AGENTS: AtomicUsize = AtomicUsize::new(0);

/// Returns the number of connections to the upstream; each takes one descriptor.
pub fn open_connections() -> usize {
    AGENTS.load(Ordering::Relaxed)
}

impl Drop for PooledAgent {
    fn drop(&mut self) {
        AGENTS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state of an agent after one of its calls was cut off: the agent isn't used again.
const ABORTED: u64 = u64::MAX;

/// Ends a call unless it is already over: cutting off a call just when it ends must not affect the next one.
fn end_call(state: &AtomicU64, call_number: u64, next: u64) -> bool {
    state.compare_exchange(call_number, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.base_url) // never the headers: the key is among them
    }
}

impl Upstream {
    /// Creates the upstream for OpenRouter, or what stands in its place. Nothing is sent.
    pub fn new(settings: &Settings) -> Self {
        let mut upstream = Self::at(settings, &settings.base_url, settings.key.as_ref());
        upstream.is_itself = settings.upstream_is_itself;
        // Other servers aren't told who asks.
        upstream.headers.insert(HeaderName::from_static("x-title"), HeaderValue::from_static(TITLE));
        upstream
            .headers
            .insert(HeaderName::from_static("x-openrouter-title"), HeaderValue::from_static(TITLE));
        upstream
    }

    /// Prepares what each call to this address needs.
    pub fn at(settings: &Settings, base_url: &str, key: Option<&Secret>) -> Self {
        let paths = dialect::native_dialects().map(|dialect| dialect.path());
        let endpoints = paths.map(|path| (path, format!("{base_url}{path}").parse().ok()));
        let mut headers = HeaderMap::with_capacity(MAX_HEADERS);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(HOPS, HeaderValue::from_static(own_hop()));
        let bearer = key.map(|key| format!("Bearer {}", key.expose()));
        if let Some(mut bearer) = bearer.and_then(|b| HeaderValue::try_from(b).ok()) {
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let limit = Some(settings.upstream_timeout);
        let proxy = settings.proxy(base_url);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy.map(|p| p.proxy().clone()))
            .user_agent(concat!("local-api-proxy/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(limit)
            .timeout_per_write(limit)
            .max_response_header_size(MAX_HEAD_BYTES)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(MAX_IDLE_AGE)
            .build();
        let https = |url: &str| url.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"));
        let needs_tls =
            https(base_url) || proxy.is_some_and(|p| p.proxy().protocol() == ureq::ProxyProtocol::Https);
        Self {
            base_url: base_url.to_owned(),
            endpoints: endpoints.collect(),
            headers,
            config,
            tls: needs_tls.then(|| tls_config(settings)).flatten(),
            idle: Mutex::default(),
            timeout: settings.upstream_timeout,
            is_itself: false,
        }
    }

    /// Returns whether the new settings change where or how calls are made. If they don't, the connections are kept.
    pub fn needs_new(old: &Settings, new: &Settings) -> bool {
        (&old.base_url, old.upstream_is_itself) != (&new.base_url, new.upstream_is_itself)
            || old.key != new.key
            || !Self::reaches_the_same_way(old, new)
    }

    /// Returns whether proxies, root certificates and limits are the same in both settings.
    pub fn reaches_the_same_way(old: &Settings, new: &Settings) -> bool {
        let parts = |s: &Settings| {
            let proxies = [&s.http_proxy, &s.https_proxy, &s.all_proxy].map(Clone::clone);
            (proxies, s.no_proxy.clone(), s.ssl_cert_file.clone(), s.upstream_timeout)
        };
        parts(old) == parts(new)
    }

    /// Sends a request to a dialect's endpoint and waits for the head of the response.
    ///
    /// `headers` are sent in place of the proxy's own of the same name; [`HOPS`] gets this process's id appended.
    pub fn post(
        self: &Arc<Self>,
        path: &'static str,
        query: Option<&str>,
        body: &[u8],
        headers: &[(HeaderName, HeaderValue)],
        pool_use: PoolUse<'_>,
    ) -> Result<Box<Call>, CallError> {
        let mut all = self.headers.clone();
        for (name, value) in headers {
            let hops = value.to_str().ok().filter(|_| *name == HOPS);
            let longer = hops.and_then(|hops| HeaderValue::try_from(format!("{hops}, {}", own_hop())).ok());
            all.insert(name, longer.unwrap_or_else(|| value.clone()));
        }
        let known = self.endpoints.iter().find(|(known, _)| *known == path).and_then(|(_, uri)| uri.as_ref());
        let with_query = query.and_then(|query| format!("{}{path}?{query}", self.base_url).parse().ok());
        self.call(Method::POST, with_query.as_ref().or(known), all, body, pool_use)
    }

    /// Sends a GET for a path below the base address: lists of models, the state of the key.
    pub fn get(self: &Arc<Self>, path: &str) -> Result<Box<Call>, CallError> {
        let uri = format!("{}{path}", self.base_url).parse().ok();
        let mut headers = self.headers.clone();
        headers.remove(CONTENT_TYPE);
        let once = |pool_use| self.call(Method::GET, uri.as_ref(), headers.clone(), b"", pool_use);
        match once(PoolUse::Any(&|_| ())) {
            Err(error) if error.was_stale => once(PoolUse::New(&|_| ())),
            result => result,
        }
    }

    fn call(
        self: &Arc<Self>,
        method: Method,
        uri: Option<&Uri>,
        headers: HeaderMap,
        body: &[u8],
        pool_use: PoolUse<'_>,
    ) -> Result<Box<Call>, CallError> {
        let fail = |failure, was_stale| CallError { failure, was_stale };
        if self.is_itself {
            return Err(fail(Failure::is_a_loop(), false));
        }
        let Some(uri) = uri else {
            return Err(fail(
                Failure {
                    kind: FailureKind::Unreachable,
                    reason: Words::new("the address is not valid", "地址无效"),
                },
                false,
            ));
        };
        let agent = match pool_use {
            PoolUse::Any(_) => self.idle_agent().unwrap_or_else(|| self.new_agent()),
            PoolUse::New(_) => self.new_agent(),
        };
        let (PoolUse::Any(started) | PoolUse::New(started)) = pool_use;
        started(AbortCall {
            agent: agent.agent.clone(),
            state: Arc::clone(&agent.state),
            call_number: agent.call_number,
        });
        agent.dialling.store(0, Ordering::Relaxed);
        let request = request(method, uri, headers, body);
        let sent = if body.is_empty() { run_get(&agent.agent, request) } else { agent.agent.run(request) };
        match sent {
            Ok(response) if response.headers().contains_key(LOOP_HEADER) => {
                Err(fail(Failure::is_a_loop(), false))
            }
            Ok(response) => Ok(self.answered(response, agent)),
            Err(error) => {
                let connected = agent.dialling.load(Ordering::Relaxed) == 0;
                let was_stale = match &error {
                    ureq::Error::Io(e) => e.get_ref().is_some_and(|inner| inner.is::<transport::Stale>()),
                    _ => false,
                };
                Err(fail(failure(error, uri, &self.config, self.timeout, connected), was_stale))
            }
        }
    }

    /// Creates the call for a response whose head has arrived.
    #[inline(never)]
    fn answered(self: &Arc<Self>, response: Response<ureq::Body>, agent: PooledAgent) -> Box<Call> {
        let (mut head, body) = response.into_parts();
        let body = body.into_reader();
        let body = if is_gzip(&head.headers) { decoded(&mut head.headers, body) } else { Body::Plain(body) };
        // Boxed, because it would be passed by value, each time on the stacks of hundreds of threads that then wait.
        Box::new(Call {
            head: Response::from_parts(head, ()),
            body: Some(body),
            agent: Some(agent),
            upstream: Arc::clone(self),
        })
    }

    fn new_agent(&self) -> PooledAgent {
        AGENTS.fetch_add(1, Ordering::Relaxed);
        let dialling = Arc::new(AtomicUsize::new(0));
        let deadline = Arc::<Deadline>::default();
        let connector = transport::connector(self.tls.clone(), Arc::clone(&dialling), Arc::clone(&deadline));
        let agent = Agent::with_parts(self.config.clone(), connector, transport::LateResolver::default());
        PooledAgent { agent, dialling, state: Arc::default(), call_number: 0, deadline }
    }

    fn lock_idle(&self) -> MutexGuard<'_, VecDeque<(Instant, PooledAgent)>> {
        lock(&self.idle)
    }

    fn idle_agent(&self) -> Option<PooledAgent> {
        self.lock_idle().pop_back().map(|(_, agent)| agent)
    }

    fn put_back(&self, mut agent: PooledAgent) {
        let ended = agent.call_number;
        agent.call_number += 1;
        if !end_call(&agent.state, ended, agent.call_number) {
            return; // the call was cut off
        }
        agent.deadline.reset();
        let mut idle = self.lock_idle();
        idle.push_back((Instant::now(), agent));
        let oldest = if idle.len() > MAX_IDLE { idle.pop_front() } else { None };
        drop(idle); // closing a connection needs no lock
        drop(oldest);
    }

    /// Closes connections that have been idle for so long that the other side will soon close them.
    pub fn close_old(&self) {
        let mut idle = self.lock_idle();
        let old = idle.iter().take_while(|(since, _)| since.elapsed() > MAX_IDLE_AGE).count();
        let old = idle.drain(..old).collect::<Vec<_>>();
        drop(idle);
        drop(old);
    }
}

/// Builds a request. Out of line, like the functions below, so that what a call needs before and after it takes no room
/// on the stack while it waits, as hundreds do.
#[inline(never)]
fn request<'a>(method: Method, uri: &Uri, headers: HeaderMap, body: &'a [u8]) -> Request<&'a [u8]> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    request
}

#[inline(never)]
fn run_get(agent: &Agent, request: Request<&[u8]>) -> Result<Response<ureq::Body>, ureq::Error> {
    let request = request.map(|_| ());
    agent.run(agent.configure_request(request).timeout_global(Some(GET_TIMEOUT)).build())
}

/// Returns the TLS settings, with the built-in root certificates and those of `SSL_CERT_FILE`.
fn tls_config(settings: &Settings) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(certificates) = &settings.ssl_cert_file {
        roots.add_parsable_certificates(certificates.roots.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Which connection a call may use. Before the call begins, the callback gets the handle that cuts it off.
#[derive(Clone, Copy)]
pub enum PoolUse<'a> {
    /// A connection from the pool, if there is one.
    Any(&'a dyn Fn(AbortCall)),
    /// A new connection.
    New(&'a dyn Fn(AbortCall)),
}

/// Cuts a call off from another thread: a thread that waits for its bytes gets an error at once.
#[derive(Debug)]
pub struct AbortCall {
    agent: Agent,
    state: Arc<AtomicU64>,
    call_number: u64,
}

impl AbortCall {
    /// Closes the connection, unless the call is over.
    pub fn now(self) {
        if end_call(&self.state, self.call_number, ABORTED) {
            self.agent.shutdown();
        }
    }
}

/// The error of a call without an answer.
#[derive(Debug)]
pub struct CallError {
    /// What went wrong.
    pub failure: Failure,
    /// Whether the connection came from the pool and ended before a byte of the answer: it was probably closed already.
    pub was_stale: bool,
}

enum Body {
    Plain(BodyReader<'static>),
    /// The body from an upstream that compresses although it was asked not to. ureq could decompress it, but prepares
    /// for that with 43 KB of each thread's stack.
    Gzip(Box<GzDecoder<BodyReader<'static>>>),
}

fn is_gzip(headers: &HeaderMap) -> bool {
    let gzip = |value: &HeaderValue| {
        [b"gzip".as_slice(), b"x-gzip"].iter().any(|name| value.as_bytes().eq_ignore_ascii_case(name))
    };
    headers.get(CONTENT_ENCODING).is_some_and(gzip)
}

#[cold]
#[inline(never)]
fn decoded(headers: &mut HeaderMap, body: BodyReader<'static>) -> Body {
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    Body::Gzip(Box::new(GzDecoder::new(body)))
}

/// A call whose answer has begun. Dropped before the end of the body, it closes the connection, and the upstream stops.
pub struct Call {
    head: Response<()>,
    body: Option<Body>,
    agent: Option<PooledAgent>,
    upstream: Arc<Upstream>,
}

impl Call {
    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    /// Returns the value of a header field, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name)?.to_str().ok()
    }

    /// Returns all header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// Sets the time after which nothing more is waited for; reaching it counts as silence.
    pub fn end_by(&self, deadline: Instant) {
        if let Some(agent) = &self.agent {
            agent.deadline.set(Some(deadline));
        }
    }

    /// Reads what has arrived of the body, waiting only if nothing has; returns 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(body) = &mut self.body else {
            return Ok(0);
        };
        if let Some(agent) = &self.agent {
            agent.deadline.wait_for_body();
        }
        let read = match body {
            Body::Plain(body) => body.read(buffer),
            Body::Gzip(body) => match body.read(buffer) {
                Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                    let reason = Words::new("its compressed answer is damaged", "它压缩的回答已损坏");
                    return Err(Failure::broke_off(reason));
                }
                read => read,
            },
        };
        let Upstream { config, timeout, .. } = &*self.upstream;
        read.map_err(|e| {
            let failure = failure(ureq::Error::from(e), &Uri::default(), config, *timeout, true);
            match failure.kind {
                FailureKind::Silent(_) => failure,
                _ => Failure::broke_off(failure.reason),
            }
        })
    }
}

impl Call {
    /// Reads the body to its end, or until there is more than `limit` bytes of it. Returns whether the end came.
    pub fn read_whole(&mut self, body: &mut Vec<u8>, limit: usize) -> Result<bool, Failure> {
        let announced = self.header("content-length").and_then(|length| length.parse().ok());
        body::read_whole(body, announced, limit, |buffer| self.read(buffer))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Dropping the body first lets the agent take its connection back, or close it when the body wasn't read.
        self.body = None;
        if let Some(agent) = self.agent.take() {
            self.upstream.put_back(agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use super::*;

    /// Answers this many requests, all on one connection.
    fn serve_on_one_connection(listener: &TcpListener, requests: usize) {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(&stream).lines();
        for _ in 0..requests {
            lines.by_ref().map(Result::unwrap).find(String::is_empty).unwrap();
            (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        }
    }

    #[test]
    fn a_call_cut_off_after_its_end_leaves_the_next_one_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || serve_on_one_connection(&listener, 2));
        let upstream = Arc::new(Upstream::new(&Settings {
            base_url,
            upstream_timeout: Duration::from_secs(30),
            ..Settings::default()
        }));
        let late = Mutex::new(None);
        let call = |started: &dyn Fn(AbortCall)| {
            let uri = format!("{}/models", upstream.base_url).parse().ok();
            let pool_use = PoolUse::Any(started);
            let mut call = upstream.call(Method::GET, uri.as_ref(), HeaderMap::new(), b"", pool_use).unwrap();
            assert!(call.read_whole(&mut Vec::new(), 100).unwrap());
        };
        call(&|abort| *late.lock().unwrap() = Some(abort));
        late.lock().unwrap().take().unwrap().now();
        call(&|_| ());
        server.join().unwrap();
    }
}
