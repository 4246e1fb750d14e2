//! Section 3: answers again (`REUSE_ANSWERS`).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::fixture::*;

/// An upstream that says which call it answers.
fn counting() -> Upstream {
    Upstream::start(|request, answer| {
        if request.body.is_empty() {
            return answer.json(200, r#"{"data":[]}"#);
        }
        let said = format!("answer {}", request.number);
        if request.streams() { answer.stream(&said) } else { answer.say(&said) }
    })
}

fn ask(number: usize, stream: bool) -> String {
    let content = format!(r#"{{"role":"user","content":"number {number}"}}"#);
    format!(r#"{{"model":"{MODEL}","stream":{stream},"messages":[{content}]}}"#)
}

/// Lets the upstream go on when the test says so.
#[derive(Clone, Default)]
struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Signal {
    fn give(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |given| !*given).unwrap());
    }
}

#[test]
fn a_batch_run_twice_costs_its_calls_once_also_across_a_restart() {
    let upstream = counting();
    let settings = "REUSE_ANSWERS=10\nCACHE_DIR=cache";
    let proxy = Proxy::before(&upstream, settings);
    let run = |proxy: &Proxy| {
        let mut client = proxy.connect();
        (0..100).map(|number| client.chat(&ask(number, number % 2 == 0))).collect::<Vec<_>>()
    };
    let first = run(&proxy);
    assert_eq!(upstream.calls(), 100);
    assert!(first.iter().all(|response| response.header("x-proxy-reused").is_none()));
    let again = |proxy: &Proxy| {
        for (response, first) in run(proxy).iter().zip(&first) {
            assert_eq!((response.status, response.text()), (200, first.text()));
            assert_eq!(response.header("content-type"), first.header("content-type"));
            assert!(response.header("x-proxy-reused").unwrap().parse::<u64>().unwrap() < 60, "{response:?}");
        }
    };
    again(&proxy);
    let files = || names_in(&proxy.dir.join("cache/answers")).len();
    eventually("all to be on the disk", || (files() == 100).then_some(()));
    let proxy = Start::from(proxy.kill()).start();
    again(&proxy);
    assert_eq!(upstream.calls(), 100);
    // Nothing of a request, and no key, is in them.
    for name in names_in(&proxy.dir.join("cache/answers")) {
        let text = fs::read_to_string(proxy.dir.join("cache/answers").join(name)).unwrap();
        assert!(text.contains("answer ") && !text.contains("number ") && !text.contains(KEY), "{text}");
    }
}

#[test]
fn what_differs_is_another_request() {
    let upstream = counting();
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10");
    let same = ask(1, false);
    proxy.chat(&same);
    let responses = same.replace("messages", "input");
    let others = [
        same.replace("number 1", "number  1"),
        same.replace(",\"messages\"", ", \"messages\""),
        same.replace("{\"model\"", "{\"seed\":1,\"model\""),
        same.replace(MODEL, "other/model:free"),
        ask(1, true),
    ];
    for other in &others {
        assert_eq!(proxy.chat(other).header("x-proxy-reused"), None, "{other}");
    }
    for path in ["/v1/completions", "/v1/responses"] {
        assert_eq!(proxy.post(path, &responses).header("x-proxy-reused"), None, "{path}");
    }
    let with = |header: &str| {
        let length = same.len();
        proxy.connect().exchange(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{header}\r\n{same}"
        ))
    };
    assert_eq!(with("anthropic-beta: a\r\n").header("x-proxy-reused"), None);
    assert!(proxy.chat(&same).header("x-proxy-reused").is_some());
    // Whatever the way, what reaches the upstream would be the same.
    assert!(proxy.post("/chat/completions", &same).header("x-proxy-reused").is_some());
    let paid = same.replace(MODEL, "openai/gpt-4o");
    proxy.chat(&paid);
    let reused = proxy.chat(&same.replace(MODEL, "openai/gpt-4o-mini"));
    assert!(reused.header("x-proxy-reused").is_some());
    assert_eq!(reused.header("x-proxy-model"), Some("openai/gpt-4o-mini -> openrouter/free"));
}

#[test]
fn a_request_can_ask_for_a_fresh_answer() {
    let upstream = counting();
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10");
    let body = ask(1, false);
    let with = |header: &str| {
        let length = body.len();
        let response = proxy.connect().exchange(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{header}\r\n{body}"
        ));
        response.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(with(""), "answer 1");
    assert_eq!(with(""), "answer 1");
    assert_eq!(with("Cache-Control: no-store\r\n"), "answer 2");
    assert_eq!(with(""), "answer 1", "the fresh one wasn't kept");
    assert_eq!(with("Cache-Control: max-age=5, no-cache\r\n"), "answer 3");
    assert_eq!(with(""), "answer 3", "it took the place of the first");
    assert_eq!(upstream.calls(), 3);
}

#[test]
fn it_is_live_and_off_at_first() {
    let upstream = counting();
    let proxy = Proxy::before(&upstream, "");
    proxy.chat(HELLO);
    proxy.chat(HELLO);
    assert_eq!(upstream.calls(), 2);
    proxy.write_env(&env(&upstream, "REUSE_ANSWERS=1"));
    proxy.chat(HELLO);
    assert!(proxy.chat(HELLO).header("x-proxy-reused").is_some());
    assert_eq!(upstream.calls(), 3);
    proxy.write_env(&env(&upstream, ""));
    assert_eq!(proxy.chat(HELLO).header("x-proxy-reused"), None);
    proxy.write_env(&env(&upstream, "REUSE_ANSWERS=none"));
    proxy.wait_for_console("REUSE_ANSWERS must be minutes from 0 to 43200");
}

/// Nothing but whole answers are kept.
#[test]
fn failures_are_never_kept() {
    let upstream = Upstream::start(|request, answer| match request.json()["case"].as_str().unwrap() {
        "refused" => answer.json(402, r#"{"error":{"code":402,"message":"no"}}"#),
        "empty" => answer.say(""),
        "error in a 200" => answer.json(200, r#"{"error":{"code":400,"message":"no"}}"#),
        "cut" => {
            answer.stream_head();
            answer.piece(&delta("begun"));
            answer.close();
        }
        "error event" => {
            answer.stream_head();
            answer.piece(&delta("begun"));
            answer.piece("data: {\"error\":{\"code\":500,\"message\":\"no\"},\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n");
            answer.end();
        }
        "large" => answer.say(Box::leak("x".repeat(1 << 20).into_boxed_str())),
        "tells the key" => answer.say(KEY),
        "tells the key in its head" => {
            answer.respond(
                200,
                &format!("content-type: application/json\r\nx-request-id: {KEY}\r\n"),
                &completion("hi"),
            );
        }
        "no byte" => answer.json(200, ""),
        "cut JSON" => answer.json(200, &completion("hi")[..20]),
        "HTML" => answer.respond(200, "content-type: text/html\r\n", "<html>hi</html>"),
        "206" => answer.json(206, &completion("hi")),
        "no content" => answer.raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "a choice that failed" => {
            answer.json(200, r#"{"choices":[{"message":{"content":"begun"},"finish_reason":"error"}]}"#)
        }
        "a streamed choice that failed" => {
            answer.stream_head();
            answer.piece(&delta("begun"));
            answer.piece(
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\ndata: [DONE]\n\n",
            );
            answer.end();
        }
        other => panic!("{other}"),
    });
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10\nRETRIES=0\nCACHE_DIR=cache");
    for case in [
        "refused",
        "empty",
        "error in a 200",
        "cut",
        "error event",
        "large",
        "tells the key",
        "tells the key in its head",
        "no byte",
        "cut JSON",
        "HTML",
        "206",
        "no content",
        "a choice that failed",
        "a streamed choice that failed",
    ] {
        let streams = matches!(case, "cut" | "error event" | "a streamed choice that failed");
        let body = format!(r#"{{"model":"{MODEL}","stream":{streams},"case":"{case}"}}"#);
        let before = upstream.calls();
        for _ in 0..2 {
            assert_eq!(proxy.chat(&body).header("x-proxy-reused"), None, "{case}");
        }
        assert_eq!(upstream.calls(), before + 2, "{case}");
    }
    assert_eq!(names_in(&proxy.dir.join("cache/answers")), Vec::<String>::new());
}

#[test]
fn ten_streams_at_once_are_one_call_whoever_leaves() {
    let (begin, end) = (Signal::default(), Signal::default());
    let upstream = {
        let (begin, end) = (begin.clone(), end.clone());
        Upstream::start(move |_, answer| {
            answer.stream_head();
            answer.piece(": OPENROUTER PROCESSING\n\n");
            begin.wait();
            answer.piece(&delta("first "));
            end.wait();
            answer.piece(&delta("last"));
            answer.piece(&last_delta());
            answer.piece("data: [DONE]\n\n");
            answer.end();
        })
    };
    let proxy = Proxy::recording(&upstream, "REUSE_ANSWERS=10\nWORKERS=20");
    let body = ask(1, true);
    let mut clients = (0..9).map(|_| proxy.connect()).collect::<Vec<_>>();
    clients.iter_mut().for_each(|client| client.send_chat(&body));
    let under_way = || proxy.get("/debug/calls").json()["calls"].as_array().unwrap().len();
    eventually("all to be there", || (under_way() == 9).then_some(()));
    begin.give();
    let first_words = |client: &mut Connection| {
        let reused = client.head().header("x-proxy-reused").is_some();
        client.read_until("first ");
        reused
    };
    let mut reused = clients.iter_mut().map(first_words).collect::<Vec<_>>();
    // One that comes late gets it from the beginning.
    let mut late = proxy.connect();
    late.send_chat(&body);
    reused.push(first_words(&mut late));
    clients.push(late);
    // The one that made the call leaves, and another.
    let made_the_call = reused.iter().position(|reused| !reused).unwrap();
    assert_eq!(reused.iter().filter(|reused| !**reused).count(), 1);
    for number in [made_the_call, (made_the_call + 1) % 9] {
        clients[number] = proxy.connect();
    }
    eventually("their leaving to be seen", || {
        let calls = proxy.get("/debug/calls").json();
        let left = calls["calls"].as_array().unwrap().iter().filter(|call| call["status"] == 499).count();
        (left >= 1).then_some(()) // the one that made the call stays for the others
    });
    end.give();
    for (number, client) in clients.iter_mut().enumerate() {
        if number != made_the_call && number != (made_the_call + 1) % 9 {
            let rest = client.rest_of_chunks();
            assert!(rest.contains("last") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
        }
    }
    assert_eq!(upstream.calls(), 1);
    // What it brought is there for the next.
    let next = proxy.chat(&body);
    assert!(next.header("x-proxy-reused").is_some());
    assert!(next.text().contains("first ") && next.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(upstream.calls(), 1);
}

#[test]
fn when_all_have_left_the_call_ends_and_nothing_is_kept() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 => {
            answer.stream_head();
            answer.piece(&delta("first "));
            assert!(answer.sees_close());
        }
        _ => answer.fitting(request, "whole"),
    });
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10");
    let body = ask(1, true);
    let mut clients = (0..3).map(|_| proxy.connect()).collect::<Vec<_>>();
    for client in &mut clients {
        client.send_chat(&body);
        client.read_head_and_until("first ");
    }
    drop(clients);
    upstream.wait_for_closed(1);
    eventually("another call to be made", || {
        let response = proxy.chat(&body);
        (response.header("x-proxy-reused").is_none()).then_some(())
    });
}

/// Nothing has come yet for which anybody could wait.
#[test]
fn when_all_leave_before_it_begins_the_call_ends_and_is_not_made_again() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("number 1") {
            assert!(answer.sees_close());
            answer.close();
        } else {
            answer.fitting(request, "hi")
        }
    });
    let proxy = Proxy::recording(&upstream, "REUSE_ANSWERS=10\nWORKERS=1");
    for (calls, stream) in [(1, false), (2, true)] {
        let before = proxy.get("/debug/calls").json()["calls"].as_array().unwrap().len();
        let mut clients = (0..3).map(|_| proxy.connect()).collect::<Vec<_>>();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_chat(&ask(1, stream));
            upstream.wait_for(calls * 2 - 1);
            let known = || proxy.get("/debug/calls").json()["calls"].as_array().unwrap().len();
            eventually("it to be there", || (known() == before + number + 1).then_some(()));
        }
        drop(clients);
        upstream.wait_for_closed(calls);
        assert_eq!(upstream.calls(), calls * 2 - 1);
        assert_eq!(proxy.chat(&ask(2, stream)).status, 200, "the only worker is free");
    }
}

/// Also at the very moment at which its client has heard of the failure.
#[test]
fn nobody_joins_a_stream_that_has_failed() {
    let upstream = Upstream::start(|request, answer| {
        answer.stream_head();
        answer.piece(&delta("begun"));
        if request.number % 2 == 0 {
            answer.piece("data: {\"error\":{\"code\":500,\"message\":\"no\"},\"choices\":[]}\n\n");
        }
        answer.end();
    });
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10\nRETRIES=0");
    let mut client = proxy.connect();
    for number in 1..=200 {
        client.chat(&ask(1, true));
        assert_eq!(upstream.calls(), number);
    }
}

#[test]
fn when_the_shared_call_fails_each_goes_its_own_way() {
    let fail = Signal::default();
    let failing = fail.clone();
    let upstream = Upstream::start(move |request, answer| match request.number {
        1 => {
            failing.wait();
            answer.json(400, r#"{"error":{"code":400,"message":"no"}}"#);
        }
        _ => answer.fitting(request, "own"),
    });
    let proxy = Proxy::recording(&upstream, "REUSE_ANSWERS=10\nWORKERS=2\nQUEUE=0");
    let body = ask(1, false);
    let mut clients = (0..4).map(|_| proxy.connect()).collect::<Vec<_>>();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_chat(&body);
        upstream.wait_for(1);
        // They wait without a worker.
        let under_way = || proxy.get("/debug/calls").json()["calls"].as_array().unwrap().len();
        eventually("it to be there", || (under_way() == number + 1).then_some(()));
    }
    assert_eq!(proxy.chat(&ask(2, false)).status, 200, "a worker is free");
    fail.give();
    let statuses = clients.iter_mut().map(|client| client.response().status).collect::<Vec<_>>();
    assert_eq!(statuses, [400, 200, 200, 200]);
    assert_eq!(upstream.calls(), 5);
}

/// One worker, which the one that waits for the limit has given back: those who share its answer don't take it away.
#[test]
fn sharing_takes_no_worker_from_the_one_that_makes_the_call() {
    let limited = AtomicBool::new(true);
    let upstream = Upstream::start(move |request, answer| {
        if limited.swap(false, Ordering::SeqCst) {
            let reset =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 700;
            answer.json(
            429,
            &format!(
                r#"{{"error":{{"message":"x","code":429,"metadata":{{"headers":{{"X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}"}}}}}}}}"#
            ),
        );
        } else {
            answer.fitting(request, "hi")
        }
    });
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10\nWORKERS=1\nQUEUE=9");
    let body = ask(1, false);
    let mut clients = (0..5).map(|_| proxy.connect()).collect::<Vec<_>>();
    clients.iter_mut().for_each(|client| client.send_chat(&body));
    clients.iter_mut().for_each(|client| client.response().assert_status(200));
    assert_eq!(upstream.calls(), 2);
}

#[test]
fn a_damaged_file_is_a_fresh_call_said_once() {
    let upstream = counting();
    let settings = "REUSE_ANSWERS=10\nCACHE_DIR=cache";
    let mut proxy = Proxy::before(&upstream, settings);
    for number in 0..3 {
        proxy.chat(&ask(number, false));
    }
    let folder = proxy.dir.join("cache/answers");
    eventually("the files", || (names_in(&folder).len() == 3).then_some(()));
    for (number, name) in names_in(&folder).iter().enumerate() {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let damaged = match number {
            0 => text[..text.len() / 2].to_owned(),
            1 => text.replace("application/json", "application/jsox"),
            _ => "rubbish".into(),
        };
        assert_ne!(damaged, text);
        fs::write(folder.join(name), damaged).unwrap();
    }
    proxy = Start::from(proxy.kill()).start();
    for number in 0..3 {
        let response = proxy.chat(&ask(number, false));
        assert_eq!((response.status, response.header("x-proxy-reused")), (200, None));
    }
    assert_eq!(upstream.calls(), 6);
    proxy.wait_for_console("is damaged");
    assert_eq!(proxy.console().matches("is damaged").count(), 1);
    assert!(proxy.chat(&ask(0, false)).header("x-proxy-reused").is_some());
}

/// A kept answer's file, as if it had come at another time.
fn move_in_time(file: &std::path::Path, ms: i64) {
    let text = fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    let (line, body) = rest.split_once('\n').unwrap();
    let mut line = serde_json::from_str::<serde_json::Value>(line).unwrap();
    line["time_ms"] = (line["time_ms"].as_i64().unwrap() + ms).into();
    let rest = format!("{line}\n{body}");
    let digest = ring::digest::digest(&ring::digest::SHA256, rest.as_bytes());
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fs::write(file, format!("{hex}\n{rest}")).unwrap();
}

#[test]
fn an_answer_is_given_again_for_as_long_as_the_setting_says() {
    const HOUR_MS: i64 = 3_600_000;
    let upstream = counting();
    let mut proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10\nCACHE_DIR=cache");
    for (shift, minutes, reused) in
        [(-HOUR_MS, 59, false), (0, 10, true), (-HOUR_MS, 61, true), (2 * HOUR_MS, 61, false)]
    {
        // There is one file, of the latest call.
        proxy.chat(&ask(1, false));
        let folder = proxy.dir.join("cache/answers");
        let name = eventually("the file", || names_in(&folder).pop());
        // Stopped in order: what it wrote last is there.
        proxy.signal("TERM");
        proxy.wait();
        let start = Start::from(proxy.kill());
        move_in_time(&folder.join(name), shift);
        proxy = start.env_file(env(&upstream, &format!("REUSE_ANSWERS={minutes}\nCACHE_DIR=cache"))).start();
        let response = proxy.chat(&ask(1, false));
        assert_eq!(response.header("x-proxy-reused").is_some(), reused, "{shift} {minutes}: {response:?}");
    }
}

#[test]
fn every_api_has_it_but_lists_and_counts() {
    let upstream = Upstream::start(|request, answer| match (request.path.as_str(), request.streams()) {
        (path, _) if path.ends_with("/embeddings") => {
            answer.json(200, r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"a/e:free"}"#);
        }
        (_, true) => answer.stream("said once"),
        _ => answer.say("said once"),
    });
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10");
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    for (path, body) in [
        ("/v1/embeddings", r#"{"model":"a/e:free","input":"x"}"#.to_owned()),
        ("/api/chat", format!(r#"{{"model":"a/b:free",{messages}}}"#)),
        ("/api/chat", format!(r#"{{"model":"a/b:free","stream":false,{messages}}}"#)),
        ("/api/generate", r#"{"model":"a/b:free","prompt":"x"}"#.to_owned()),
        ("/api/embed", r#"{"model":"a/e:free","input":"x"}"#.to_owned()),
    ] {
        let before = upstream.calls();
        let first = proxy.post(path, &body);
        let again = proxy.post(path, &body);
        assert_eq!((first.status, again.status), (200, 200), "{path} {first:?}");
        assert_eq!(first.text(), again.text(), "{path}");
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert!(again.header("x-proxy-reused").is_some(), "{path}");
        assert_eq!(upstream.calls(), before + 1, "{path}");
    }
    for _ in 0..2 {
        let count = proxy.post("/v1/messages/count_tokens", &format!("{{{messages}}}"));
        assert_eq!((count.status, count.header("x-proxy-reused")), (200, None));
        assert_eq!(proxy.get("/v1/models").header("x-proxy-reused"), None);
    }
}

#[test]
fn the_panel_marks_them_and_counts_what_was_saved() {
    let upstream = counting();
    let proxy = Proxy::recording(&upstream, "REUSE_ANSWERS=10");
    for _ in 0..3 {
        proxy.chat(&ask(1, true));
    }
    let calls = proxy.get("/debug/calls").json();
    let reused =
        calls["calls"].as_array().unwrap().iter().map(|call| call["reused"].is_u64()).collect::<Vec<_>>();
    assert_eq!(reused, [true, true, false]);
    assert_eq!(proxy.get("/debug/stats").json()["reused"], 2);
    assert_eq!(proxy.get("/debug/stats").json()["count"], 3);
    let id = calls["calls"][0]["message_id"].as_str().unwrap();
    let whole = proxy.get(&format!("/debug/calls/{id}")).json();
    assert_eq!(whole["response"]["choices"][0]["message"]["content"], "answer 1");
}

/// Answers of a megabyte fill what there is room for: the first of them go, from memory and from the disk.
#[test]
fn no_more_than_64_mb_are_kept() {
    let upstream = Upstream::start(|_, answer| answer.say(Box::leak("x".repeat(900 << 10).into_boxed_str())));
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=10\nCACHE_DIR=cache");
    thread::scope(|scope| {
        for thread in 0..2 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut client = proxy.connect();
                for number in 0..50 {
                    assert_eq!(client.chat(&ask(thread * 50 + number, false)).status, 200);
                }
            });
        }
    });
    let folder = proxy.dir.join("cache/answers");
    let sizes = || {
        let entries = fs::read_dir(&folder).unwrap().flatten();
        entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect::<Vec<_>>()
    };
    eventually("the oldest to go", || {
        let sizes = sizes();
        (sizes.len() > 60 && sizes.iter().sum::<u64>() <= 64 << 20).then_some(())
    });
    let is_kept = |number| proxy.chat(&ask(number, false)).header("x-proxy-reused").is_some();
    assert!((25..50).rev().all(|number| is_kept(number) && is_kept(number + 50)), "the last are there");
    assert!(!is_kept(0), "the first is not");
}
