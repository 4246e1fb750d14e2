//! The load generator: one thread, one event loop, as many connections as asked for.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::upstream::{find, now_ns};
use crate::{CHUNK_INTERVAL_MS, CHUNKS};

pub const CHAT: &str = "/v1/chat/completions";

/// The requests to send.
pub struct Load {
    connections: usize,
    /// The number of requests on all connections together; of streams, each connection has one.
    requests: usize,
    order: String,
    /// How many bytes the request's body is filled with.
    filling: usize,
    path: String,
    tools: usize,
    model: String,
}

impl Load {
    pub fn requests(answer_bytes: usize, connections: usize, requests: usize) -> Self {
        let order = format!("bench:plain:{answer_bytes}");
        Self {
            connections,
            requests,
            order,
            filling: 0,
            path: CHAT.into(),
            tools: 0,
            model: "a/b:free".into(),
        }
    }

    /// Returns the same requests for another model.
    pub fn of(self, model: &str) -> Self {
        Self { model: model.into(), ..self }
    }

    pub fn upload(bytes: usize, requests: usize) -> Self {
        Self { filling: bytes, ..Self::requests(500, 1, requests) }
    }

    /// Returns requests of an agent: their size is `bytes`, a tenth of which are the definitions of `tools`.
    pub fn agent(path: &str, bytes: usize, tools: usize, requests: usize) -> Self {
        Self { path: path.into(), tools, ..Self::upload(bytes, requests) }
    }

    pub fn streams(connections: usize, path: &str) -> Self {
        let order = format!("bench:stream:{CHUNKS}:{CHUNK_INTERVAL_MS}");
        Self { connections, requests: connections, order, path: path.into(), ..Self::requests(0, 1, 1) }
    }

    pub fn args(&self, port: u16) -> Vec<String> {
        let numbers = [port as usize, self.connections, self.requests, self.filling, self.tools];
        numbers
            .iter()
            .map(ToString::to_string)
            .chain([self.order.clone(), self.path.clone(), self.model.clone()])
            .collect()
    }

    fn request(&self) -> Vec<u8> {
        let stream = self.order.contains("stream");
        let name = if self.path.ends_with("/responses") { "input" } else { "messages" };
        let tools = self.tools_json();
        let content = "x".repeat(self.filling.saturating_sub(tools.len()));
        let body = format!(
            r#"{{"model":"{}","stream":{stream},"user":"{}",{tools}"{name}":[{{"role":"user","content":"{content}"}}]}}"#,
            self.model, self.order,
        );
        let head =
            format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n", self.path);
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// Returns the tools in the form of the path's API.
    fn tools_json(&self) -> String {
        if self.tools == 0 {
            return String::new();
        }
        let words = "What it does and when. ".repeat(self.filling / 10 / self.tools / 23);
        let schema = r#"{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}"#;
        let tool = |number| match &*self.path {
            CHAT => format!(
                r#"{{"type":"function","function":{{"name":"tool_{number}","description":"{words}","parameters":{schema}}}}}"#
            ),
            "/v1/messages" => {
                format!(r#"{{"name":"tool_{number}","description":"{words}","input_schema":{schema}}}"#)
            }
            _ => format!(
                r#"{{"type":"function","name":"tool_{number}","description":"{words}","parameters":{schema}}}"#
            ),
        };
        format!(r#""tools":[{}],"#, (0..self.tools).map(tool).collect::<Vec<_>>().join(","))
    }
}

/// The result of a load.
pub struct Report {
    /// How many requests were answered, or how many chunks arrived.
    pub done: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// The time from the request to the first chunk.
    pub first_us: f64,
}

impl Report {
    pub fn parse(text: &str) -> Self {
        let numbers = text.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<f64>>();
        let [done, per_second, p50_us, p99_us, first_us] = numbers[..] else { panic!("no report: {text}") };
        Self { done, per_second, p50_us, p99_us, first_us }
    }
}

struct Connection {
    stream: TcpStream,
    asked: Instant,
    sent: usize,
    received: Vec<u8>,
    busy: bool,
    saw_chunk: bool,
}

pub fn run(args: &[String]) {
    let number = |index: usize| args[index].parse::<usize>().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], number(0) as u16));
    let load = Load {
        connections: number(1),
        requests: number(2),
        filling: number(3),
        tools: number(4),
        order: args[5].clone(),
        path: args[6].clone(),
        model: args[7].clone(),
    };
    let request = load.request();
    let streams = load.order.contains("stream");

    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(1024);
    let mut left = load.requests;
    let mut open = 0;
    let mut times = Vec::with_capacity(load.requests);
    let mut firsts = Vec::new();
    let began = Instant::now();
    let mut connections = (0..load.connections)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            poll.registry()
                .register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)
                .unwrap();
            Connection {
                stream,
                asked: Instant::now(),
                sent: 0,
                received: Vec::new(),
                busy: false,
                saw_chunk: false,
            }
        })
        .collect::<Vec<_>>();
    for connection in &mut connections {
        if left > 0 {
            left -= 1;
            open += 1;
            connection.busy = true;
        }
    }
    let mut buffer = vec![0; 256 * 1024];
    while open > 0 {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            let connection = &mut connections[event.token().0];
            if !connection.send(&request) {
                continue;
            }
            loop {
                match connection.stream.read(&mut buffer) {
                    Ok(0) => {
                        open -= usize::from(std::mem::take(&mut connection.busy));
                        break;
                    }
                    Ok(read) => connection.received.extend_from_slice(&buffer[..read]),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => {
                        open -= usize::from(std::mem::take(&mut connection.busy));
                        break;
                    }
                }
                let ended = if streams {
                    connection.take_chunks(&mut times, &mut firsts)
                } else {
                    connection.has_answer().then(|| times.push(connection.asked.elapsed().as_nanos() as u64))
                };
                if ended.is_some() {
                    connection.received.clear();
                    connection.sent = 0;
                    if left == 0 {
                        connection.busy = false;
                        open -= 1;
                        break;
                    }
                    left -= 1;
                    connection.asked = Instant::now();
                    connection.send(&request);
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let done = times.len() as f64;
    let percentile = |times: &mut Vec<u64>, part: f64| {
        times.sort_unstable();
        times
            .get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1)))
            .map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!("{done} {} {p50} {p99} {}", done / seconds, percentile(&mut firsts, 0.5));
}

impl Connection {
    /// Sends what the connection takes. Returns whether the whole request is sent.
    fn send(&mut self, request: &[u8]) -> bool {
        if !self.busy {
            return false;
        }
        if self.sent == 0 {
            self.asked = Instant::now();
        }
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(_) => return false, // not connected yet, or full
            }
        }
        true
    }

    fn has_answer(&self) -> bool {
        let Some(end) = find(&self.received, b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(&self.received));
        let length =
            head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        self.received.len() - end - 4 >= length.unwrap_or(usize::MAX / 2)
    }

    /// Notes how long each chunk took from its sending to its arrival; `Some` at the end.
    fn take_chunks(&mut self, times: &mut Vec<u64>, firsts: &mut Vec<u64>) -> Option<()> {
        let now = now_ns();
        while let Some(mark) = find(&self.received, b"\"t\":") {
            let rest = &self.received[mark + 4..];
            let end = find(rest, b"}")?;
            let sent: u64 = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
            times.push(now.saturating_sub(sent));
            if !std::mem::replace(&mut self.saw_chunk, true) {
                firsts.push(self.asked.elapsed().as_nanos() as u64);
            }
            self.received.drain(..mark + 4 + end);
        }
        find(&self.received, b"0\r\n\r\n").map(drop)
    }
}
