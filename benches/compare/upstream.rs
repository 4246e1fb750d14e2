//! The upstream: one thread, one event loop. What it answers stands in the body: `bench:plain:BYTES` or
//! `bench:stream:CHUNKS:INTERVAL_MS`, whose chunks say when they were sent.

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
    /// Of the request that is being received: what is still to come of its body.
    body_left: usize,
    order: Order,
}

#[derive(Clone, Copy)]
enum Order {
    Nothing,
    Plain(usize),
    Stream { left: usize, interval: Duration },
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
        // epoll counts in milliseconds; what is due in less is due now.
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
    /// Whether the connection goes on.
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
        let body = &self.received[end + 4..];
        let Some(marker) = find(body, b"bench:") else {
            if length == 0 {
                self.order = Order::Plain(2);
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
            Order::Plain(bytes) => {
                let frame = r#"{"choices":[{"message":{"content":""}}]}"#;
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
                start(interval);
            }
        }
    }

    fn chunk(&mut self, left: usize) {
        let event = format!(
            "data: {{\"model\":\"a/b:free\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word \"}},\"finish_reason\":null}}],\"t\":{}}}\n\n",
            now_ns()
        );
        write!(self.unsent, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        if left == 1 {
            self.unsent.extend_from_slice(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
        }
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
