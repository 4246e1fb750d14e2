//! A stream on its way, in each dialect.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::*;

/// The upstream makes an event only when the client has the one before it.
#[test]
fn an_event_is_there_before_the_next_one_is_made_in_every_dialect() {
    in_every_dialect(|dialect| {
        let (ask, asked) = channel::<()>();
        let asked = Mutex::new(asked);
        let later = [&dialect.saying[1..], dialect.ending, &[COMMENT, DONE]].concat();
        let sent = later.clone();
        let upstream = Upstream::start(move |_, answer| {
            let asked = asked.lock().unwrap();
            answer.events(&[COMMENT]);
            asked.recv().unwrap();
            // What says nothing yet is held until something is said.
            dialect.opening.iter().for_each(|event| answer.piece(event));
            for event in dialect.saying[..1].iter().chain(&sent) {
                answer.piece(event);
                asked.recv().unwrap();
            }
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        let mut client = proxy.connect();
        client.send_post(dialect.path, &dialect.request("hello", true));
        let head = client.head();
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(head.header(name), Some(value), "{}", dialect.name);
        }
        assert_eq!(client.chunk().as_deref(), Some(COMMENT), "{}: comments are not held", dialect.name);
        ask.send(()).unwrap();
        let first = dialect.opening.concat() + dialect.saying[0];
        assert_eq!(client.read_until(dialect.saying[0]), first, "{}", dialect.name);
        for event in later {
            ask.send(()).unwrap();
            assert_eq!(client.chunk().as_deref(), Some(event), "{}", dialect.name);
        }
        ask.send(()).unwrap();
        assert_eq!(client.chunk(), None, "{}", dialect.name);
    });
}

/// Bytes that are no whole event are handed on, too, however they are cut.
#[test]
fn pieces_of_any_size_arrive_as_they_were_in_every_dialect() {
    in_every_dialect(|dialect| {
        // A text of several bytes a character, line ends of both kinds, and a field that nobody knows.
        let said = dialect.saying.concat().replace("said", "你好");
        let crlf = said.replace("\n", "\r\n");
        let all = dialect.opening.concat()
            + &said
            + &crlf
            + "id: 7\nretry: 10\n\n"
            + &dialect.ending.concat()
            + DONE;
        let bytes = all.clone().into_bytes();
        let upstream = Upstream::start(move |request, answer| {
            answer.stream_head();
            for piece in bytes.chunks([1, 7, 1000, 100_000][request.number - 1]) {
                answer.raw(format!("{:x}\r\n", piece.len()));
                answer.raw(piece);
                answer.raw("\r\n");
            }
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        for _ in 0..4 {
            let response = proxy.post(dialect.path, &dialect.request("hello", true));
            assert_eq!((response.status, response.text()), (200, all.as_str()), "{}", dialect.name);
        }
        assert_eq!(upstream.calls(), 4);
    });
}

/// So that free quota isn't burnt on an answer that nobody reads.
#[test]
fn a_client_that_leaves_closes_the_upstream_connection_in_every_dialect() {
    in_every_dialect(|dialect| {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let upstream = Upstream::start(move |request, answer| {
            match request.number {
                1 => {}
                2 => answer.events(&[&[COMMENT], dialect.opening].concat()),
                _ => answer.events(&[dialect.opening, &dialect.saying[..2]].concat()),
            }
            tell.lock().unwrap().send(answer.sees_close()).unwrap();
            answer.close();
        });
        let proxy = Proxy::before(&upstream, "");
        for (number, wait_for) in [(1, None), (2, Some(COMMENT)), (3, Some(dialect.saying[1]))] {
            let mut client = proxy.connect();
            client.send_post(dialect.path, &dialect.request("hello", true));
            upstream.wait_for(number);
            if let Some(text) = wait_for {
                client.read_head_and_until(text);
            }
            drop(client);
            assert!(told.recv_timeout(GUARD).unwrap(), "{}, {number}", dialect.name);
        }
        assert_eq!(upstream.calls(), 3, "{}: nobody asks again for one who has left", dialect.name);
    });
}

/// Also where its request took a while to arrive, and nobody else asks for anything meanwhile.
#[test]
fn a_client_that_leaves_after_a_slow_upload_is_noticed_in_every_dialect() {
    in_every_dialect(|dialect| {
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let upstream = Upstream::start(move |_, answer| {
            answer.events(&[dialect.opening, &dialect.saying[..2]].concat());
            tell.lock().unwrap().send(answer.sees_close()).unwrap();
            answer.close();
        });
        let proxy = Proxy::before(&upstream, "");
        let body = dialect.request("hello", true);
        let mut client = proxy.connect();
        client.send(format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            dialect.path,
            body.len()
        ));
        thread::sleep(Duration::from_millis(300)); // this is what is tried here
        client.send(body);
        client.read_head_and_until(dialect.saying[1]);
        drop(client);
        let left = told.recv_timeout(Duration::from_secs(10));
        assert!(left.is_ok_and(|left| left), "{}: the upstream goes on for nobody", dialect.name);
    });
}

/// `UPSTREAM_TIMEOUT`, before the first byte, before anything was said, and midway.
#[test]
fn silence_is_an_error_in_every_dialects_own_words() {
    thread::scope(|scope| {
        for dialect in DIALECTS {
            scope.spawn(move || {
                let upstream = Upstream::start(move |request, answer| {
                    match subject(request) {
                        "nothing" => {}
                        "head" => answer.stream_head(),
                        "opening" => answer.events(dialect.opening),
                        "comment" => answer.events(&[COMMENT]),
                        _ => answer.events(&[dialect.opening, &dialect.saying[..2]].concat()),
                    }
                    answer.sees_close();
                    answer.close();
                });
                let proxy = Proxy::before(&upstream, "UPSTREAM_TIMEOUT=1");
                let ask = |case: &str, streamed| {
                    let body = (dialect.request)(MODEL, &format!("«{case}»"), streamed);
                    proxy.post(dialect.path, &body)
                };
                thread::scope(|scope| {
                    for (case, streamed) in
                        [("nothing", false), ("nothing", true), ("head", true), ("opening", true)]
                    {
                        scope.spawn(move || {
                            let response = ask(case, streamed);
                            let name = format!("{} {case}, streamed {streamed}: {response:?}", dialect.name);
                            assert_eq!(response.status, 504, "{name}");
                            (dialect.assert_error)(&response.json(), 504, Some("upstream_timeout"));
                        });
                    }
                    for (case, expected) in [
                        ("comment", COMMENT.to_owned()),
                        ("midway", [dialect.opening, &dialect.saying[..2]].concat().concat()),
                    ] {
                        scope.spawn(move || {
                            let response = ask(case, true);
                            let name = format!("{} {case}", dialect.name);
                            assert_eq!(response.status, 200, "{name}");
                            assert_broken_off(dialect, response.text(), &expected, &name);
                        });
                    }
                });
                assert_eq!(upstream.calls(), 6, "{}: silence is not tried again", dialect.name);
            });
        }
    });
}

/// Not every upstream streams whenever it is asked to.
#[test]
fn a_plain_answer_to_a_streamed_request_is_none_in_any_dialect() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| match request.number {
            1 | 3.. => answer.json(200, dialect.plain),
            _ => answer.good(dialect, request),
        });
        let proxy = Proxy::before(&upstream, "RETRIES=1");
        let response = proxy.post(dialect.path, &dialect.request("hello", true));
        assert_eq!((response.status, response.text()), (200, &*dialect.good(true)), "{}", dialect.name);
        let response = proxy.post(dialect.path, &dialect.request("hello", true));
        assert_eq!(response.status, 502, "{}: no SDK reads it as a stream", dialect.name);
        assert_eq!(upstream.calls(), 4, "{}", dialect.name);
    });
}
