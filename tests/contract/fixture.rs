#![allow(dead_code, reason = "two test suites share it, and neither uses all of it")]
//! A proxy in a folder of its own, an upstream that does what a test says, and a client that shows every byte.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes this long, unless it hangs.
pub const GUARD: Duration = Duration::from_secs(30);
pub const KEY: &str = "sk-or-v1-0123456789abcdef-wxyz";

/// Waits until `found` gives something.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < GUARD, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub struct Proxy {
    child: Child,
    pub port: u16,
    home: Option<tempfile::TempDir>,
    pub dir: PathBuf,
    console: Arc<Mutex<String>>,
}

/// How a proxy is started.
pub struct Start {
    home: tempfile::TempDir,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    /// What a shell does before it becomes the proxy.
    before: Option<String>,
    small_disk: Option<(PathBuf, String)>,
}

impl Start {
    pub fn new() -> Self {
        Self::from(tempfile::tempdir().unwrap())
    }

    /// With a hard limit of open descriptors, which a shell sets.
    pub fn with_descriptor_limit(mut self, limit: usize) -> Self {
        self.before = Some(format!("ulimit -n {limit}"));
        self
    }

    /// As nohup(1) starts programs.
    pub fn ignoring_hangups(mut self) -> Self {
        self.before = Some("trap '' HUP".into());
        self
    }

    pub fn env_file(self, text: impl AsRef<[u8]>) -> Self {
        self.file(".env", text)
    }

    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.home.path().join(name), text).unwrap();
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn command(&self) -> Command {
        // The fault suite can be pointed at another build.
        let other = std::env::var("LOCAL_API_PROXY_EXE").ok();
        let executable = other.as_deref().unwrap_or(env!("CARGO_BIN_EXE_local-api-proxy"));
        let mut command = match &self.small_disk {
            Some(_) => Command::new("unshare"),
            None => Command::new(if self.before.is_some() { "sh" } else { executable }),
        };
        if let Some((folder, size)) = &self.small_disk {
            let mount = format!("mount -t tmpfs -o size={size} none '{}'", folder.display());
            let script = format!("{mount} && exec \"$0\" \"$@\"");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, executable]);
        }
        if let Some(before) = &self.before {
            command.args(["-c", &format!("{before} && exec \"$0\" \"$@\""), executable]);
        }
        command.arg("--dir").arg(self.home.path()).args(&self.args);
        command.env_clear().envs(self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        for needed in ["PATH", "SYSTEMROOT"] {
            if let Some(value) = std::env::var_os(needed) {
                command.env(needed, value);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What it says where it doesn't start.
    pub fn refused(&self) -> String {
        let mut child = self.command().spawn().unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() && began.elapsed() < GUARD {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill(); // if it started after all
        let output = child.wait_with_output().unwrap();
        // 2 where the command line is wrong.
        assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes a folder in the home folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    /// Starts it with a disk of this size at a folder, which the proxy alone sees; `None` where that isn't allowed.
    pub fn with_small_disk(mut self, folder: &str, size: &str) -> Option<Proxy> {
        let allowed = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            return None;
        }
        self.small_disk = Some((self.home.path().join(folder), size.into()));
        Some(self.start())
    }

    /// Starts it on a free port and waits until it has said where it listens.
    pub fn start(mut self) -> Proxy {
        if !self.args.iter().any(|arg| arg == "--port") {
            self.args.extend(["--port".into(), "0".into()]);
        }
        let mut child = self.command().spawn().unwrap();
        let console = Arc::new(Mutex::new(String::new()));
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut port = None;
        let mut line = String::new();
        while port.is_none() && out.read_line(&mut line).unwrap() > 0 {
            let address = line.trim().strip_prefix("address").or_else(|| line.trim().strip_prefix("地址"));
            port = address.and_then(|url| {
                let url = url.trim().strip_suffix("/v1")?;
                url.rsplit_once(':')?.1.parse().ok()
            });
            console.lock().unwrap().push_str(&line);
            line.clear();
        }
        let Some(port) = port else {
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("it doesn't start: {}{error}", console.lock().unwrap());
        };
        let sink = Arc::clone(&console);
        thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|read| read > 0) {
                sink.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let dir = self.home.path().to_owned();
        Proxy { child, port, home: Some(self.home), dir, console }
    }
}

/// What the system says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub resident_kib: usize,
    pub peak_kib: usize,
    pub threads: usize,
    pub descriptors: usize,
}

impl Proxy {
    /// A proxy before this upstream, with more lines of `.env`.
    pub fn before(upstream: &Upstream, more: &str) -> Self {
        let looks = upstream.key_looks();
        let proxy = Start::new().env_file(env(upstream, more)).start();
        upstream.wait_for_key_look(looks);
        proxy
    }

    /// The same in debug mode, with its files in `cache`.
    pub fn recording(upstream: &Upstream, more: &str) -> Self {
        let text = env(upstream, &format!("CACHE_DIR=cache\n{more}"));
        let looks = upstream.key_looks();
        let proxy = Start::new().env_file(text).file("DEBUG_MODE.txt", "").start();
        upstream.wait_for_key_look(looks);
        proxy
    }

    pub fn write_env(&self, text: &str) {
        std::fs::write(self.dir.join(".env"), text).unwrap();
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.port)
    }

    pub fn get(&self, path: &str) -> Response {
        self.connect().exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    pub fn chat(&self, body: &str) -> Response {
        self.connect().chat(body)
    }

    pub fn post(&self, path: &str, body: &str) -> Response {
        self.connect().post(path, body)
    }

    /// Waits until a request succeeds: some may fail while there are no descriptors.
    pub fn wait_until_it_serves(&self) {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{HELLO}",
            HELLO.len()
        );
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            stream.write_all(request.as_bytes())?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            std::io::Result::Ok(status.ends_with(b" 200"))
        };
        eventually("an answer", || ask().unwrap_or(false).then_some(()));
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Linux only.
    pub fn usage(&self) -> Usage {
        let process = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Usage {
            resident_kib: field("VmRSS:"),
            peak_kib: field("VmHWM:"),
            threads: field("Threads:"),
            descriptors: std::fs::read_dir(format!("{process}/fd")).unwrap().count(),
        }
    }

    /// Processor time so far, in hundredths of a second. Linux only.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name, in parentheses, may hold blanks; utime and stime are the 14th and 15th field of proc_pid_stat(5).
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    pub fn console(&self) -> String {
        self.console.lock().unwrap().clone()
    }

    pub fn wait_for_console(&self, text: &str) {
        eventually(&format!("{text:?} on the console"), || self.console().contains(text).then_some(()));
    }

    /// Files of `cache`, in the order of their times, once there are so many.
    pub fn files(&self, count: usize) -> Vec<(String, Value)> {
        let cache = self.dir.join("cache");
        let names = eventually(&format!("{count} files in {cache:?}"), || {
            let names = names_in(&cache);
            (names.len() >= count).then_some(names)
        });
        let read = |name: String| {
            let text = std::fs::read_to_string(cache.join(&name)).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
            (name, json)
        };
        let mut files = names.into_iter().map(read).collect::<Vec<_>>();
        // Names tell milliseconds, of which a call takes less; the day's count has no time.
        files.sort_by_key(|(_, json)| json["timestamp"].as_str().unwrap_or("~").to_owned());
        files
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end and gives its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("the end of the proxy", || self.child.try_wait().unwrap()).code()
    }

    /// Stops it at once and gives its folder, for another start.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.home.take().unwrap()
    }
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names =
        names.filter(|name| !name.starts_with('.') && !name.starts_with("CALLS")).collect::<Vec<_>>();
    names.sort();
    names
}

impl From<tempfile::TempDir> for Start {
    fn from(home: tempfile::TempDir) -> Self {
        Self { home, args: Vec::new(), environment: Vec::new(), before: None, small_disk: None }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- console of the proxy:\n{}", self.console());
        }
    }
}

pub fn env(upstream: &Upstream, more: &str) -> String {
    format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL={}\n{more}\n", upstream.url())
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub fn assert_status(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
    }

    /// Fails unless this is an error of the proxy's own with this status and code.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{error}");
        assert!(error["type"].is_string() && error["param"].is_null(), "{error}");
        assert_eq!(self.header("content-type"), Some("application/json"));
    }
}

/// A client's connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends what the other side takes.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub fn send_chat(&mut self, body: &str) {
        self.send_post("/v1/chat/completions", body);
    }

    pub fn send_post(&mut self, path: &str, body: &str) {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        self.send(head + body);
    }

    pub fn post(&mut self, path: &str, body: &str) -> Response {
        self.send_post(path, body);
        self.response()
    }

    pub fn chat(&mut self, body: &str) -> Response {
        self.send_chat(body);
        self.response()
    }

    pub fn exchange(&mut self, request: &str) -> Response {
        self.send(request);
        self.response()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Status and headers.
    pub fn head(&mut self) -> Response {
        let status = self.line();
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.unwrap_or_else(|| panic!("no status line: {status:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
        Response { status: code, headers, body: Vec::new() }
    }

    /// The next chunk as it was sent; `None` at the end of the body.
    pub fn chunk(&mut self) -> Option<String> {
        self.raw_chunk().map(|chunk| String::from_utf8(chunk).unwrap())
    }

    pub fn raw_chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line();
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Chunks until `text` has come.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            read.push_str(&self.chunk().unwrap_or_else(|| panic!("ended before {text:?}: {read:?}")));
        }
        read
    }

    pub fn read_head_and_until(&mut self, text: &str) -> String {
        assert_eq!(self.head().status, 200);
        self.read_until(text)
    }

    pub fn rest_of_chunks(&mut self) -> String {
        std::iter::from_fn(|| self.chunk()).collect()
    }

    pub fn response(&mut self) -> Response {
        let mut response = self.head();
        while response.status == 100 {
            response = self.head();
        }
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = std::iter::from_fn(|| self.raw_chunk()).flatten().collect();
        } else if let Some(length) = response.header("content-length") {
            response.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut response.body).unwrap();
        } else if response.status != 204 {
            self.stream.read_to_end(&mut response.body).unwrap();
        }
        response
    }

    /// Closes it with a reset, so that nothing that was sent need arrive.
    pub fn reset(self) {
        socket2::SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// What comes until the connection ends, or the body of an answer that means to end it.
    pub fn read_answer(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = self.stream.read(&mut piece) {
            bytes.extend_from_slice(&piece[..read]);
            if bytes.ends_with(b"}}") && bytes.windows(17).any(|window| window == b"connection: close") {
                break;
            }
        }
        bytes
    }

    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    pub fn wait_longer(&self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).unwrap();
    }

    pub fn try_shutdown_write(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    pub fn shutdown_write(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }
}

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// From 1, over all connections.
    pub number: usize,
    /// From 1.
    pub connection: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn streams(&self) -> bool {
        self.body.contains(r#""stream":true"#)
    }
}

/// The upstream's side of one request.
pub struct Answer<'a> {
    stream: &'a mut dyn ReadWrite,
    then: Then,
}

/// What becomes of the upstream's connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
    Reset,
    CloseUnread,
    /// It was none that a test knows of.
    Unseen,
    /// TLS says that it ends, and the connection below is left to the other side.
    NotifyOnly,
}

pub trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

impl Answer<'_> {
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may be gone: that is what some tests are about.
        let _ = self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush());
    }

    /// The same, and whether the other side still takes it.
    pub fn try_raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    pub fn respond(&mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        self.raw(format!("HTTP/1.1 {status} Some\r\ncontent-length: {length}\r\n{headers}\r\n{body}"));
    }

    pub fn json(&mut self, status: u16, body: &str) {
        self.respond(status, "content-type: application/json\r\n", body);
    }

    /// A plain answer that says `text`.
    pub fn say(&mut self, text: &str) {
        self.json(200, &completion(text));
    }

    pub fn stream_head(&mut self) {
        self.raw("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    }

    pub fn piece(&mut self, text: &str) {
        self.raw(format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// Whether the other side took it.
    pub fn try_piece(&mut self, text: &str) -> bool {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).is_ok()
    }

    pub fn end(&mut self) {
        self.raw("0\r\n\r\n");
    }

    /// A whole stream that says `text`, word by word.
    pub fn stream(&mut self, text: &str) {
        self.stream_head();
        for word in text.split_inclusive(' ') {
            self.piece(&delta(word));
        }
        self.piece(&last_delta());
        self.piece("data: [DONE]\n\n");
        self.end();
    }

    /// Plain or streamed, as it was asked for.
    pub fn fitting(&mut self, request: &Received, text: &str) {
        if request.streams() { self.stream(text) } else { self.say(text) }
    }

    /// Ends the connection after this answer.
    pub fn close(&mut self) {
        self.then = Then::Close;
    }

    /// Keeps the connection after this answer, and closes it when the next request comes, without reading that.
    pub fn close_unread(&mut self) {
        self.then = Then::CloseUnread;
    }

    /// Says that nothing more comes, as TLS can, and leaves the connection below to the other side.
    pub fn notify_only(&mut self) {
        self.then = Then::NotifyOnly;
    }

    /// Ends the connection after this answer with a reset.
    pub fn reset(&mut self) {
        self.then = Then::Reset;
    }

    /// Whether the other side closes the connection, waited for.
    pub fn sees_close(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

pub const MODEL: &str = "some/model:free";

pub fn completion(text: &str) -> String {
    let text = Value::from(text);
    format!(
        r#"{{"id":"gen-1","object":"chat.completion","created":1,"model":"{MODEL}","choices":[{{"index":0,"message":{{"role":"assistant","content":{text}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}}}"#
    )
}

pub fn delta(text: &str) -> String {
    let text = Value::from(text);
    format!(
        r#"data: {{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"{MODEL}","choices":[{{"index":0,"delta":{{"role":"assistant","content":{text}}},"finish_reason":null}}]}}"#
    ) + "\n\n"
}

pub fn last_delta() -> String {
    format!(
        r#"data: {{"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"{MODEL}","choices":[{{"index":0,"delta":{{"content":""}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
    ) + "\n\n"
}

pub const HELLO: &str = r#"{"model":"some/model:free","messages":[{"role":"user","content":"hello"}]}"#;
pub const HELLO_STREAM: &str =
    r#"{"model":"some/model:free","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;

type Script = dyn Fn(&Received, &mut Answer<'_>) + Send + Sync;

pub struct Upstream {
    port: u16,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
    changed: Condvar,
    connections: AtomicUsize,
    closed: AtomicUsize,
    notified: AtomicUsize,
    forgets: AtomicBool,
    /// What each start asks of the key is a call like others.
    shows_key_checks: AtomicBool,
    key_looks: Mutex<usize>,
    key_looked: Condvar,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Upstream {
    pub fn start(script: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static) -> Self {
        Self::listen(script, None)
    }

    /// One that answers whatever is asked with `text`.
    pub fn saying(text: &'static str) -> Self {
        Self::start(move |request, answer| answer.fitting(request, text))
    }

    /// One that keeps no record of what it got.
    pub fn forgetful(script: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static) -> Self {
        let upstream = Self::listen(script, None);
        upstream.shared.forgets.store(true, Ordering::Relaxed);
        upstream
    }

    /// Has the script answer what is asked of the key, which else is a 404 that no test sees.
    pub fn with_key_checks(self) -> Self {
        self.shared.shows_key_checks.store(true, Ordering::Relaxed);
        self
    }

    pub fn with_tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self::listen(script, Some(Arc::new(config)))
    }

    fn listen(
        script: impl Fn(&Received, &mut Answer<'_>) + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            script: Box::new(script),
            received: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            notified: AtomicUsize::new(0),
            forgets: AtomicBool::new(false),
            shows_key_checks: AtomicBool::new(false),
            key_looks: Mutex::default(),
            key_looked: Condvar::new(),
            tls,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, scheme, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("{}://localhost:{}/api/v1", self.scheme, self.port)
    }

    /// What it got so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    pub fn last(&self) -> Received {
        self.received().pop().expect("the upstream got no request")
    }

    /// Waits until it has closed so many connections.
    pub fn wait_for_closed(&self, count: usize) {
        eventually("connections to be closed", || {
            (self.shared.closed.load(Ordering::SeqCst) >= count).then_some(())
        });
    }

    /// Waits until it has said of so many TLS connections that they end.
    pub fn wait_for_notified(&self, count: usize) {
        eventually("connections to be ended by TLS", || {
            (self.shared.notified.load(Ordering::SeqCst) >= count).then_some(())
        });
    }

    /// How often it was asked for the key's state, without a test having a look at it.
    fn key_looks(&self) -> usize {
        *self.shared.key_looks.lock().unwrap()
    }

    /// A proxy looks at its key when it starts. Later than a test's requests, that could take their pooled connection.
    /// Some have settings by which it asks another upstream, or none.
    fn wait_for_key_look(&self, before: usize) {
        let looks = self.shared.key_looks.lock().unwrap();
        let wanted = !self.shared.shows_key_checks.load(Ordering::Relaxed);
        let limit = Duration::from_secs(u64::from(wanted));
        drop(self.shared.key_looked.wait_timeout_while(looks, limit, |looks| *looks == before));
    }

    /// Waits until it has got so many requests.
    pub fn wait_for(&self, count: usize) {
        let received = self.shared.received.lock().unwrap();
        let enough = self.shared.changed.wait_timeout_while(received, GUARD, |r| r.len() < count);
        assert!(!enough.unwrap().1.timed_out(), "the upstream got {} of {count} requests", self.calls());
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let socket = stream.try_clone().unwrap();
        let then = match &self.tls {
            None => self.answer_all(stream),
            Some(config) => {
                let tls = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, stream);
                let then = self.answer_all(&mut stream);
                if matches!(then, Then::Close | Then::NotifyOnly) {
                    stream.conn.send_close_notify();
                    let _ = stream.conn.write_tls(&mut stream.sock);
                    self.notified.fetch_add(1, Ordering::SeqCst);
                }
                then
            }
        };
        match then {
            Then::Unseen => return,
            // A process that another test starts meanwhile has a copy of the socket until it runs: closing alone ends nothing.
            Then::Keep | Then::Close => drop(socket.shutdown(Shutdown::Write)),
            Then::NotifyOnly => while (&socket).read(&mut [0; 64]).is_ok_and(|read| read > 0) {},
            Then::Reset => socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(),
            Then::CloseUnread => {
                let _ = socket.peek(&mut [0]);
                let _ = socket.shutdown(Shutdown::Write); // the end comes before the reset, as where it was idle
            }
        }
        drop(socket);
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    /// Until one of the answers ends the connection, or the other side does.
    fn answer_all(&self, stream: impl ReadWrite) -> Then {
        let mut reader = BufReader::new(stream);
        let mut connection = None;
        while let Some(mut request) = read_request(&mut reader) {
            if request.path.ends_with("/key") && !self.shows_key_checks.load(Ordering::Relaxed) {
                let mut answer = Answer { stream: reader.get_mut(), then: Then::Keep };
                answer.respond(404, "connection: close\r\n", "{}");
                *self.key_looks.lock().unwrap() += 1;
                self.key_looked.notify_all();
                return Then::Unseen;
            }
            request.connection =
                *connection.get_or_insert_with(|| self.connections.fetch_add(1, Ordering::SeqCst) + 1);
            {
                let mut received = self.received.lock().unwrap();
                request.number = received.len() + 1;
                if !self.forgets.load(Ordering::Relaxed) {
                    received.push(request.clone());
                }
                self.changed.notify_all();
            }
            let mut answer = Answer { stream: reader.get_mut(), then: Then::Keep };
            (self.script)(&request, &mut answer);
            if answer.then != Then::Keep {
                return answer.then;
            }
        }
        Then::Close
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (_method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Received { path, headers, body: String::new(), number: 0, connection: 0 };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

/// Milliseconds since 1970, as `X-RateLimit-Reset` counts.
pub fn now_ms() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis()
}
