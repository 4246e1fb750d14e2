//! The upstream: one thread, one event loop. The body of a request says how to answer: `bench:plain:BYTES` or
//! `bench:stream:CHUNKS:INTERVAL_MS`, whose chunks contain the time when they were sent, in the API of the path.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// How much of the request's body is still to come.
    body_left: usize,
    order: Order,
    stream_of: &'static Stream,
}

/// The parts of a stream in one API.
struct Stream {
    opening: &'static str,
    /// What is written before and behind the time at which the chunk is sent.
    chunk: [&'static str; 2],
    end: &'static str,
}

const CHAT: Stream = Stream {
    opening: "",
    chunk: [
        r#"data: {"model":"a/b:free","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}],"t":"#,
        "}\n\n",
    ],
    end: "data: [DONE]\n\n",
};

const RESPONSES: Stream = Stream {
    opening: concat!(
        "event: response.created\n",
        r#"data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","#,
        r#""model":"a/b:free","status":"in_progress","output":[]}}"#,
        "\n\nevent: response.output_item.added\n",
        r#"data: {"type":"response.output_item.added","sequence_number":1,"output_index":0,"#,
        r#""item":{"id":"msg_1","type":"message","role":"assistant","status":"in_progress","content":[]}}"#,
        "\n\n",
    ),
    chunk: [
        concat!(
            "event: response.output_text.delta\n",
            r#"data: {"type":"response.output_text.delta","sequence_number":2,"item_id":"msg_1","output_index":0,"#,
            r#""content_index":0,"delta":"word ","t":"#,
        ),
        "}\n\n",
    ],
    end: concat!(
        "event: response.completed\n",
        r#"data: {"type":"response.completed","sequence_number":3,"response":{"id":"resp_1","object":"response","#,
        r#""model":"a/b:free","status":"completed","output":[]}}"#,
        "\n\n",
    ),
};

const MESSAGES: Stream = Stream {
    opening: concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","#,
        r#""model":"a/b:free","content":[],"stop_reason":null,"usage":{"input_tokens":3,"output_tokens":0}}}"#,
        "\n\nevent: content_block_start\n",
        r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        "\n\n",
    ),
    chunk: [
        concat!(
            "event: content_block_delta\n",
            r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "},"t":"#,
        ),
        "}\n\n",
    ],
    end: "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
};

#[derive(Clone, Copy)]
enum Order {
    Nothing,
    /// The list of models.
    List,
    Plain(usize),
    Stream {
        left: usize,
        interval: Duration,
    },
}

/// Returns the list of models, as many as there were in August 2026.
fn models() -> String {
    let model = |number: usize| {
        format!(
            r#"{{"id":"vendor/model-{number}:free","context_length":131072,"architecture":{{"input_modalities":["text"],"output_modalities":["text"]}},"supported_parameters":["tools"],"benchmarks":{{"artificial_analysis":{{"intelligence_index":{},"agentic_index":null}}}}}}"#,
            50 - 3 * number
        )
    };
    format!(r#"{{"data":[{}]}}"#, (0..14).map(model).collect::<Vec<_>>().join(","))
}

/// Nanoseconds since 1970: the same clock in all processes.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

pub fn run() {
    let mut poll = Poll::new().unwrap();
    let mut listener = listener();
    println!("{}", listener.local_addr().unwrap().port());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(1024);
    let mut clients = HashMap::<usize, Client>::new();
    let mut due = BinaryHeap::<Reverse<(Instant, usize)>>::new();
    let mut next = 1;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let timeout = due.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        // epoll counts in milliseconds; what is due in less than one is due now.
        poll.poll(
            &mut events,
            timeout.map(|t| if t < Duration::from_millis(1) { Duration::ZERO } else { t }),
        )
        .unwrap();
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true).unwrap();
                    poll.registry()
                        .register(&mut stream, Token(next), Interest::READABLE | Interest::WRITABLE)
                        .unwrap();
                    let client = Client {
                        stream,
                        received: Vec::new(),
                        unsent: Vec::new(),
                        body_left: 0,
                        order: Order::Nothing,
                        stream_of: &CHAT,
                    };
                    clients.insert(next, client);
                    next += 1;
                }
                continue;
            }
            let number = event.token().0;
            let Some(client) = clients.get_mut(&number) else { continue };
            let alive =
                client.read(&mut buffer, |interval| due.push(Reverse((Instant::now() + interval, number))));
            if !alive || client.flush().is_err() {
                clients.remove(&number);
            }
        }
        let now = Instant::now();
        while due.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, number))) = due.pop() else { break };
            let Some(client) = clients.get_mut(&number) else { continue };
            if let Order::Stream { left, interval } = client.order {
                client.chunk(left);
                match left {
                    1 => client.order = Order::Nothing,
                    _ => {
                        client.order = Order::Stream { left: left - 1, interval };
                        due.push(Reverse((at + interval, number)));
                    }
                }
                if client.flush().is_err() {
                    clients.remove(&number);
                }
            }
        }
    }
}

fn listener() -> TcpListener {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpListener::from_std(socket.into())
}

impl Client {
    /// Reads what has arrived. Returns whether the connection is still open.
    fn read(&mut self, buffer: &mut [u8], mut start: impl FnMut(Duration)) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(read) => self.take(&buffer[..read], &mut start),
                Err(e) => return e.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], start: &mut impl FnMut(Duration)) {
        if self.body_left > 0 {
            let body = self.body_left.min(bytes.len());
            self.body_left -= body;
            bytes = &bytes[body..];
            if self.body_left > 0 {
                return;
            }
            self.answer(start);
        }
        self.received.extend_from_slice(bytes);
        let Some(end) = find(&self.received, b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
        let length =
            head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        self.stream_of = match head.split(' ').nth(1) {
            Some(path) if path.ends_with("/responses") => &RESPONSES,
            Some(path) if path.ends_with("/messages") => &MESSAGES,
            _ => &CHAT,
        };
        let body = &self.received[end + 4..];
        let Some(marker) = find(body, b"bench:") else {
            if length == 0 {
                self.order = Order::List;
                self.received.clear();
                self.answer(start);
            }
            return; // the marker is still to come
        };
        let marker = String::from_utf8_lossy(&body[marker..body.len().min(marker + 60)]);
        let marker = marker.split('"').next().unwrap();
        let numbers = marker.split(':').filter_map(|part| part.parse().ok()).collect::<Vec<usize>>();
        self.order = match numbers[..] {
            [bytes] => Order::Plain(bytes),
            [left, interval] => Order::Stream { left, interval: Duration::from_millis(interval as u64) },
            _ => Order::Nothing,
        };
        self.body_left = length - body.len();
        self.received.clear();
        if self.body_left == 0 {
            self.answer(start);
        }
    }

    fn answer(&mut self, start: &mut impl FnMut(Duration)) {
        match self.order {
            Order::Nothing => {}
            Order::List => {
                let list = models();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
                write!(self.unsent, "{head}Content-Length: {}\r\n\r\n{list}", list.len()).unwrap();
                self.order = Order::Nothing;
            }
            Order::Plain(bytes) => {
                // One answer that is valid in each of the three APIs.
                let frame = concat!(
                    r#"{"model":"vendor/model-0:free","type":"message","role":"assistant","#,
                    r#""content":[{"type":"text","text":"hi"}],"#,
                    r#""output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"#,
                    r#""choices":[{"message":{"content":"hi"}}]}"#,
                );
                let (begin, end) = frame.split_at(frame.len() - 5);
                let filling = "x".repeat(bytes.saturating_sub(frame.len()));
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
                let length = frame.len() + filling.len();
                write!(self.unsent, "{head}Content-Length: {length}\r\n\r\n{begin}{filling}{end}").unwrap();
                self.order = Order::Nothing;
            }
            Order::Stream { interval, .. } => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                self.unsent.extend_from_slice(head.as_bytes());
                let opening = self.stream_of.opening;
                if !opening.is_empty() {
                    self.send_chunk(opening);
                }
                start(interval);
            }
        }
    }

    fn chunk(&mut self, left: usize) {
        let Stream { chunk: [before, behind], end, .. } = self.stream_of;
        self.send_chunk(&format!("{before}{}{behind}", now_ns()));
        if left == 1 {
            self.send_chunk(end);
            self.unsent.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn send_chunk(&mut self, text: &str) {
        write!(self.unsent, "{:x}\r\n{text}\r\n", text.len()).unwrap();
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

pub fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}
