//! Clients that take connections and give nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::*;
use crate::{ALLOCATORS_MOOD_KIB, assert_serves};

/// After this a client that neither sends nor reads is let go.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Those idle for longest make room for those that come, and for the calls to the upstream.
#[test]
fn connections_beyond_the_limit_of_descriptors() {
    let upstream = Upstream::saying("hi");
    let proxy = Start::new().env_file(env(&upstream, "")).with_descriptor_limit(256).start();
    for _ in 0..3 {
        let idle = (0..200).map(|_| proxy.connect()).collect::<Vec<_>>();
        let mut clients = (0..20).map(|_| proxy.connect()).collect::<Vec<_>>();
        clients.iter_mut().for_each(|client| client.send_chat(HELLO));
        clients.iter_mut().for_each(|client| client.response().assert_status(200));
        let more = (0..400).map(|_| proxy.connect()).collect::<Vec<_>>();
        assert_serves(&proxy);
        // Those that came last are still there.
        for mut client in more.into_iter().rev().take(100) {
            client.exchange("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").assert_status(200);
        }
        drop(idle);
    }
    let used = proxy.cpu_ticks();
    let idle = (0..400).map(|_| proxy.connect()).collect::<Vec<_>>();
    thread::sleep(Duration::from_secs(1)); // this is what is tried here
    assert!(proxy.cpu_ticks() - used < 50, "it doesn't go round and round in search of a descriptor");
    drop(idle);
    assert_serves(&proxy);
}

/// A request whose body stays away.
fn stalled_upload(proxy: &Proxy, framing: &str, begun: &str) -> Connection {
    let mut client = proxy.connect();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
    client.send(head + begun);
    client
}

/// Neither a thread nor memory for what is only announced.
#[test]
fn uploads_that_stall_cost_next_to_nothing() {
    const CLIENTS: usize = 1000;
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    rlimit::increase_nofile_limit(16_384).unwrap();
    assert_serves(&proxy);
    let before = proxy.usage();
    let ways = [
        ("Content-Length: 5000000", ""),
        ("Content-Length: 50000000", "{"),
        ("Transfer-Encoding: chunked", "5\r\n{\"a\":"),
        ("Transfer-Encoding: chunked", ""),
    ];
    let mut stalled = (0..CLIENTS)
        .map(|number| ways[number % ways.len()])
        .map(|(framing, begun)| stalled_upload(&proxy, framing, begun))
        .collect::<Vec<_>>();
    // Those that came before are waited for by now.
    assert_serves(&proxy);
    let during = eventually("threads to be free again", || {
        let usage = proxy.usage();
        (usage.threads < before.threads + 100).then_some(usage)
    });
    println!("{before:?}\n{during:?}");
    assert!(during.resident_kib < before.resident_kib + 50 * CLIENTS, "{before:?} {during:?}");
    // A body that comes a moment after its head, and a large one.
    let mut late = stalled_upload(&proxy, &format!("Content-Length: {}", HELLO.len()), "");
    assert_serves(&proxy);
    late.send(HELLO);
    late.response().assert_status(200);
    let large = HELLO.replace("hello", &"x".repeat(3_000_000));
    proxy.chat(&large).assert_status(200);
    // One of them goes on after all.
    let mut last = stalled.pop().unwrap();
    last.send(format!("{:x}\r\n{HELLO}\r\n0\r\n\r\n", HELLO.len()));
    last.response().assert_status(200);
    drop(stalled);
    eventually("their descriptors to be closed", || (proxy.usage().descriptors < 100).then_some(()));
    assert_serves(&proxy);
}

#[test]
fn uploads_that_stall_make_room_for_others() {
    let upstream = Upstream::saying("hi");
    let proxy = Start::new().env_file(env(&upstream, "")).with_descriptor_limit(256).start();
    let stall = |_| stalled_upload(&proxy, "Content-Length: 100", "{");
    let mut stalled = (0..240).map(stall).collect::<Vec<_>>();
    for _ in 0..10 {
        stalled.extend((0..20).map(stall));
        assert_serves(&proxy);
        proxy.connect().chat(HELLO).assert_status(200);
    }
    // The first ones were told so.
    stalled[0].response().assert_error(503, "overloaded");
}

/// More calls at once than there are descriptors for: they take turns.
#[test]
fn calls_wait_for_descriptors() {
    let upstream = Upstream::start(|request, answer| {
        thread::sleep(Duration::from_millis(50));
        answer.fitting(request, "hi");
    });
    let proxy = Start::new().env_file(env(&upstream, "RETRIES=0")).with_descriptor_limit(128).start();
    for _ in 0..3 {
        let ask = |_| {
            let mut client = proxy.connect();
            client.send_chat(HELLO);
            client
        };
        let mut clients = (0..80).map(ask).collect::<Vec<_>>();
        clients.iter_mut().for_each(|client| client.response().assert_status(200));
    }
    assert_serves(&proxy);
}

#[test]
fn five_thousand_idle_connections_cost_a_descriptor_each() {
    const CLIENTS: usize = 5000;
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    rlimit::increase_nofile_limit(16_384).unwrap();
    // Each has had an answer, and keeps its connection.
    let connect = || {
        let mut client = proxy.connect();
        client.exchange("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").assert_status(200);
        client
    };
    let settle = |threads: usize| {
        eventually("threads and descriptors to go", || {
            let usage = proxy.usage();
            (usage.descriptors < 64 && usage.threads <= threads).then_some(usage)
        })
    };
    assert_serves(&proxy);
    let at_first = proxy.usage();
    drop((0..CLIENTS).map(|_| connect()).collect::<Vec<_>>());
    let before = settle(at_first.threads);
    let idle = (0..CLIENTS).map(|_| connect()).collect::<Vec<_>>();
    let during = proxy.usage();
    assert!(during.descriptors <= before.descriptors + CLIENTS + 8, "{during:?}");
    assert!(during.threads <= before.threads + 50, "{during:?}");
    assert!(during.resident_kib <= before.resident_kib + 2 * CLIENTS, "{during:?}");
    drop(idle);
    let after = settle(before.threads);
    println!("{before:?}\n{during:?}\n{after:?}");
    assert!(after.resident_kib <= before.resident_kib + ALLOCATORS_MOOD_KIB, "{before:?} {after:?}");
    assert_serves(&proxy);
}

/// Nothing of it can be seen on the client's connection: it is seen that the upstream's is closed.
#[test]
fn a_client_that_leaves_is_noticed_among_a_thousand_others() {
    let upstream = Upstream::start(|request, answer| {
        if !request.body.contains("wait") {
            return answer.fitting(request, "hi");
        }
        if request.streams() {
            answer.stream_head();
        }
        assert!(answer.sees_close(), "nobody told it that the client left");
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "");
    rlimit::increase_nofile_limit(8192).unwrap();
    let others = (0..1000).map(|_| proxy.connect()).collect::<Vec<_>>();
    let mut noticed_after = Vec::new();
    for number in 1..=20 {
        let mut client = proxy.connect();
        client.send_chat(&if number % 2 == 0 { HELLO } else { HELLO_STREAM }.replace("hello", "wait"));
        upstream.wait_for(number);
        let left = Instant::now();
        drop(client);
        upstream.wait_for_closed(number);
        noticed_after.push(left.elapsed());
    }
    println!("noticed after {:?} at most", noticed_after.iter().max());
    assert_eq!(upstream.calls(), 20, "none was tried again");
    assert_serves(&proxy);
    drop(others);
}

#[test]
#[ignore = "takes longer than the time that a head may take"]
fn heads_that_take_too_long_are_refused() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let mut slow = (0..50).map(|_| proxy.connect()).collect::<Vec<_>>();
    // Half of them go on sending, so that they are never silent.
    slow.iter_mut().for_each(|client| client.send("POST /v1/chat/completions HTTP/1.1\r\nX-Slow: "));
    let began = Instant::now();
    while began.elapsed() < CLIENT_TIMEOUT + Duration::from_secs(2) {
        slow.iter_mut().step_by(2).for_each(|client| drop(client.try_send(b"x")));
        assert_serves(&proxy);
        thread::sleep(Duration::from_millis(500));
    }
    for client in &mut slow {
        client.response().assert_error(408, "bad_request");
    }
    drop(slow);
    assert_serves(&proxy);
    eventually("their descriptors to be closed", || (proxy.usage().descriptors < 50).then_some(()));
}

/// `PRI` is how HTTP/2 begins without being asked for (RFC 9113, section 3.4).
#[test]
fn six_thousand_clients_of_http_2_leave_nothing_behind() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let knock = || {
        let mut client = proxy.connect();
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.response().assert_error(505, "bad_request");
    };
    (0..100).for_each(|_| knock());
    assert_serves(&proxy);
    let before = proxy.usage();
    (0..6000).for_each(|_| knock());
    let after = eventually("threads and descriptors to be as before", || {
        let now = proxy.usage();
        (now.threads <= before.threads && now.descriptors <= before.descriptors).then_some(now)
    });
    println!("{before:?}\n{after:?}");
    assert!(after.resident_kib <= before.resident_kib + ALLOCATORS_MOOD_KIB, "{before:?} {after:?}");
    assert_serves(&proxy);
}

#[test]
fn two_thousand_connections_that_send_nothing() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    rlimit::increase_nofile_limit(8192).unwrap();
    let silent = (0..2000).map(|_| proxy.connect()).collect::<Vec<_>>();
    assert_serves(&proxy);
    println!("{:?}", proxy.usage());
    drop(silent);
    assert_serves(&proxy);
    eventually("their descriptors to be closed", || (proxy.usage().descriptors < 100).then_some(()));
}

#[test]
fn a_thousand_connections_opened_and_reset() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    for number in 0..1000 {
        let mut client = proxy.connect();
        match number % 3 {
            0 => {}
            1 => client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: loc"),
            _ => client.send_chat(HELLO_STREAM),
        }
        client.reset();
    }
    assert_serves(&proxy);
}

#[test]
#[ignore = "takes longer than the time after which a client is let go"]
fn clients_that_stop_in_the_middle_of_an_upload_are_let_go() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "WORKERS=64");
    let stop = |_| {
        let mut client = proxy.connect();
        client
            .send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{");
        client
    };
    let began = Instant::now();
    let stuck = (0..64).map(stop).collect::<Vec<_>>();
    assert_serves(&proxy);
    for mut client in stuck {
        client.wait_longer(CLIENT_TIMEOUT * 2);
        client.head().assert_status(408);
    }
    println!("all let go after {:?}", began.elapsed());
    assert_serves(&proxy);
}

#[test]
#[ignore = "takes longer than the time after which a client is let go"]
fn clients_that_stop_reading_a_stream_keep_no_worker_and_are_let_go() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static LET_GO: AtomicUsize = AtomicUsize::new(0);
    let upstream = Upstream::start(|request, answer| {
        if !request.body.contains("much") {
            return answer.fitting(request, "hi");
        }
        answer.stream_head();
        let piece = delta(&"x".repeat(60_000));
        let mut takes = true;
        while takes && !STOP.load(Ordering::Relaxed) {
            takes = answer.try_piece(&piece);
            TAKEN.fetch_add(1, Ordering::Relaxed);
        }
        LET_GO.fetch_add(1, Ordering::Relaxed);
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "WORKERS=64\nQUEUE=1");
    let much = HELLO_STREAM.replace("hello", "much");
    let stop = |_| {
        let mut client = proxy.connect();
        client.send_chat(&much);
        client.head().assert_status(200);
        client
    };
    let began = Instant::now();
    let stuck = (0..64).map(stop).collect::<Vec<_>>();
    upstream.wait_for(64);
    // Their workers are stuck as soon as all buffers on the way are full: no more is taken.
    eventually("all to be stuck", || {
        let taken = TAKEN.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(500));
        (TAKEN.load(Ordering::Relaxed) == taken).then_some(())
    });
    assert_serves(&proxy);
    assert_eq!(LET_GO.load(Ordering::Relaxed), 0, "others are served while these are stuck, not afterwards");
    println!("others served after {:?} of {:?}", began.elapsed(), proxy.usage());
    while LET_GO.load(Ordering::Relaxed) < 64 {
        assert!(began.elapsed() < CLIENT_TIMEOUT * 3, "waited in vain for them to be let go");
        thread::sleep(Duration::from_millis(50));
    }
    println!("all let go after {:?}", began.elapsed());
    for mut client in stuck {
        // What was on its way is read; then there is no more, and no end of the body either.
        let rest = client.read_to_end();
        assert!(!rest.ends_with(b"0\r\n\r\n"));
    }
    STOP.store(true, Ordering::Relaxed);
    assert_serves(&proxy);
    eventually("the workers to be as many as before", || (proxy.usage().threads < 64 + 30).then_some(()));
}

/// Whatever they ask, and however many: what is there is sent as far as they take it, no thread waits for the rest, and
/// a flood of them starts no more threads than can be of use.
#[test]
fn clients_that_ask_and_hardly_read_hold_no_thread() {
    const MOST_THREADS: usize = 100;
    let upstream = Upstream::start(|request, answer| {
        if request.body.is_empty() {
            return answer.json(200, r#"{"data":[{"id":"some/model:free","context_length":8000}]}"#);
        }
        answer.fitting(request, &"much ".repeat(100_000))
    });
    let proxy = Start::new().env_file(env(&upstream, "WORKERS=4")).file("DEBUG_MODE.txt", "").start();
    proxy.get("/v1/models").assert_status(200);
    let (idle, mut most) = (proxy.usage().threads, 0);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(25);
    let chat = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{HELLO}",
        HELLO.len()
    );
    let upload = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let kinds = [
        get("/debug/words.js"),
        get("/v1/models"),
        get("/v1/models/openrouter/free"),
        get("/v1beta/models"),
        get("/api/tags"),
        get("/nothing"),
        get("/health") + upload,
        chat,
    ];
    let mut clients = Vec::new();
    for (kind, request) in kinds.iter().enumerate() {
        for _ in 0..if kind == kinds.len() - 1 { 30 } else { 80 } {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], proxy.port)).into()).unwrap();
            let mut stream = std::net::TcpStream::from(socket);
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            clients.push(stream);
            most = most.max(proxy.usage().threads);
        }
    }
    upstream.wait_for(1 + 30);
    proxy.get("/health").assert_status(200);
    proxy.chat(HELLO).assert_status(200);
    most = most.max(proxy.usage().threads);
    assert!(most < MOST_THREADS, "{most} threads");
    // Those that were needed for a moment end soon.
    eventually("the threads to end", || (proxy.usage().threads < idle + 20).then_some(()));
    drop(clients);
    assert_serves(&proxy);
}
