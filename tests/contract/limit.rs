//! Section 3: the account's own limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::*;

/// OpenRouter's own 429, as it stands in the body.
fn limited(reset_ms: u128) -> String {
    format!(
        r#"{{"error":{{"message":"Rate limit exceeded: free-models-per-min. ","code":429,"metadata":{{"headers":{{"X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset_ms}"}}}}}}}}"#
    )
}

/// Calls let through and rejected, by window.
type Windows = Arc<Mutex<HashMap<u128, (u32, u32)>>>;

/// An upstream that lets 20 calls a window through.
fn twenty_a_window(window: Duration) -> (Upstream, Windows) {
    let windows = Windows::default();
    let seen = Arc::clone(&windows);
    let began = now_ms();
    let upstream = Upstream::start(move |request, answer| {
        let number = (now_ms() - began) / window.as_millis();
        let rejected = {
            let mut windows = seen.lock().unwrap();
            let (passed, rejected) = windows.entry(number).or_default();
            if *passed < 20 {
                *passed += 1;
                false
            } else {
                *rejected += 1;
                true
            }
        };
        if rejected {
            answer.json(429, &limited(began + (number + 1) * window.as_millis()))
        } else {
            answer.fitting(request, "hi")
        }
    });
    (upstream, windows)
}

#[test]
fn a_batch_of_a_hundred_takes_longer_and_succeeds() {
    let (upstream, windows) = twenty_a_window(Duration::from_secs(2));
    let proxy = Proxy::recording(&upstream, "WORKERS=10\nQUEUE=10");
    thread::scope(|scope| {
        let clients = (0..10).map(|_| {
            scope.spawn(|| {
                let mut client = proxy.connect();
                for number in 0..10 {
                    let body = if number % 2 == 0 { HELLO } else { HELLO_STREAM };
                    let response = client.chat(body);
                    assert_eq!(response.status, 200, "{response:?}");
                }
            })
        });
        let clients = clients.collect::<Vec<_>>();
        while !clients.iter().all(|client| client.is_finished()) {
            assert_eq!(proxy.get("/health").status, 200);
            assert_eq!(proxy.get("/debug/calls").status, 200);
            thread::sleep(Duration::from_millis(50));
        }
    });
    let windows = windows.lock().unwrap();
    // The first to meet the limit aren't alone: nobody waits before one is known. After that one finds out; where the
    // machine is busy a few more are on their way then. It isn't all ten.
    let first = windows.keys().min();
    let known = windows.iter().filter(|(window, _)| Some(*window) != first);
    assert!(
        known.clone().count() > 0 && known.clone().all(|(_, (_, rejected))| *rejected <= 4),
        "{windows:?}"
    );
    assert_eq!(windows.values().map(|(passed, _)| passed).sum::<u32>(), 100);
    proxy.wait_for_console("the account's limit is reached until");
}

const OTHER_ACCOUNT: &str = "sk-or-v1-of-another-account";

/// An upstream whose limit is reached for all but another account.
fn all_used_up(reset: u128) -> Upstream {
    let other = format!("Bearer {OTHER_ACCOUNT}");
    Upstream::start(move |request, answer| {
        if request.header("authorization") == Some(&other) {
            answer.fitting(request, "hi")
        } else {
            answer.json(429, &limited(reset))
        }
    })
}

/// Opens the gate for those who wait.
fn change_account(proxy: &Proxy, upstream: &Upstream, settings: &str) {
    proxy.write_env(&env(upstream, settings).replace(KEY, OTHER_ACCOUNT));
}

/// More than there are workers: those who wait hold none, and nobody is told that all are busy.
#[test]
fn three_hundred_wait_without_a_503() {
    let upstream = all_used_up(now_ms() + 60_000);
    let proxy = Proxy::before(&upstream, "WORKERS=64");
    let waiting = |count| (proxy.get("/health").json()["waiting"] == count).then_some(());
    let mut clients = (0..300).map(|_| proxy.connect()).collect::<Vec<_>>();
    clients[0].send_chat(HELLO);
    eventually("the limit to be met", || waiting(1));
    clients[1..].iter_mut().for_each(|client| client.send_chat(HELLO));
    eventually("all to wait", || waiting(300));
    assert_eq!(upstream.calls(), 1, "calls were spent on finding out");
    change_account(&proxy, &upstream, "WORKERS=64");
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn the_first_to_come_is_the_first_to_go_on() {
    let upstream = all_used_up(now_ms() + 60_000);
    // One worker: of two, the system may stop one while the other overtakes it. It may still be at the one before when the
    // next comes: that one queues.
    let settings = "WORKERS=1\nQUEUE=1";
    let proxy = Proxy::before(&upstream, settings);
    let mut clients = (0..30).map(|_| proxy.connect()).collect::<Vec<_>>();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_chat(&format!(r#"{{"model":"a:free","number":{number}}}"#));
        eventually("its turn", || (proxy.get("/health").json()["waiting"] == number + 1).then_some(()));
    }
    change_account(&proxy, &upstream, settings);
    clients.iter_mut().for_each(|client| client.response().assert_status(200));
    let order =
        upstream.received()[1..].iter().map(|r| r.json()["number"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(order, (0..30).collect::<Vec<_>>());
}

#[test]
fn a_days_limit_is_said_at_once_and_costs_no_call() {
    let upstream = all_used_up(now_ms() + 3 * 3_600_000);
    let proxy = Proxy::recording(&upstream, "");
    for _ in 0..3 {
        let refused = proxy.chat(HELLO);
        refused.assert_error(429, "rate_limit_exceeded");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        let seconds = refused.header("retry-after").unwrap().parse::<u64>().unwrap();
        assert!((10_700..=10_800).contains(&seconds), "{seconds}");
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        let time = message.split("until ").nth(1).unwrap();
        assert!(time.as_bytes()[2] == b':' && time[..2].parse::<u8>().is_ok(), "{message}");
    }
    assert_eq!(upstream.calls(), 1);
    assert_eq!(proxy.files(6).len(), 6, "each leaves REQUEST and ERROR");

    change_account(&proxy, &upstream, "CACHE_DIR=cache");
    assert_eq!(proxy.chat(HELLO).status, 200, "a changed key opens the gate");
}

#[test]
fn the_limit_may_stand_in_the_head() {
    let upstream = Upstream::start(|_, answer| {
        let reset = now_ms() + 3_600_000;
        let headers =
            format!("x-ratelimit-limit: 50\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n");
        answer.respond(429, &headers, "{}");
    });
    let proxy = Proxy::before(&upstream, "");
    for _ in 0..2 {
        proxy.chat(HELLO).assert_error(429, "rate_limit_exceeded");
    }
    assert_eq!(upstream.calls(), 1);
}

/// Comments may have gone out before it, and the head is a 200 already.
#[test]
fn the_limit_may_come_inside_of_a_200() {
    let stream = delta("hi") + &last_delta() + "data: [DONE]\n\n";
    let streamed = format!(": OPENROUTER PROCESSING\n\n{stream}");
    for (body, expected) in [(HELLO, completion("hi")), (HELLO_STREAM, streamed)] {
        let reset = OnceLock::new();
        let upstream = Upstream::start(move |request, answer| {
            // The first call meets it.
            let reset = *reset.get_or_init(|| now_ms() + 1500);
            match (now_ms() < reset, request.streams()) {
                (true, true) => {
                    answer.stream_head();
                    answer.piece(": OPENROUTER PROCESSING\n\n");
                    answer.piece(&format!("data: {}\n\n", limited(reset)));
                    answer.end();
                }
                (true, false) => answer.json(200, &limited(reset)),
                (false, _) => answer.fitting(request, "hi"),
            }
        });
        let proxy = Proxy::before(&upstream, "RETRIES=0");
        let mut first = proxy.connect();
        first.send_chat(body);
        proxy.wait_for_console("limit is reached");
        assert_eq!(proxy.chat(HELLO).text(), completion("hi"));
        assert_eq!(first.response().text(), expected);
        assert_eq!(upstream.calls(), 3, "one found out, and both went on when it was over");
    }
}

#[test]
fn settings_change_for_those_who_wait() {
    let upstream = all_used_up(now_ms() + 60_000);
    let began = Instant::now();
    let proxy = Proxy::before(&upstream, "");
    let mut first = proxy.connect();
    first.send_chat(HELLO);
    proxy.wait_for_console("limit is reached");
    proxy.write_env(&env(&upstream, "MAX_WAIT=0"));
    first.response().assert_error(429, "rate_limit_exceeded");

    let mut second = proxy.connect();
    proxy.write_env(&env(&upstream, ""));
    second.send_chat(HELLO);
    eventually("its wait", || (proxy.get("/health").json()["waiting"] == 1).then_some(()));
    change_account(&proxy, &upstream, "");
    assert_eq!(second.response().status, 200);
    assert!(began.elapsed() < Duration::from_secs(55), "neither waited for the limit's end");
}

#[test]
fn a_client_that_gave_up_costs_no_call() {
    let upstream = all_used_up(now_ms() + 60_000);
    let proxy = Proxy::before(&upstream, "");
    let waiting = || proxy.get("/health").json()["waiting"].as_u64();
    let mut stays = proxy.connect();
    stays.send_chat(HELLO);
    proxy.wait_for_console("limit is reached");
    let mut leaving = proxy.connect();
    leaving.send_chat(r#"{"model":"leaving:free"}"#);
    eventually("both to wait", || (waiting() == Some(2)).then_some(()));
    drop(leaving);
    eventually("one to be missed", || (waiting() == Some(1)).then_some(()));
    change_account(&proxy, &upstream, "");
    assert_eq!(stays.response().status, 200);
    assert!(!upstream.received().iter().any(|r| r.body.contains("leaving")));
}

#[test]
fn paid_models_do_not_wait_for_the_free_ones() {
    let reset = now_ms() + 60_000;
    let upstream = Upstream::start(move |request, answer| {
        if request.body.contains(":free") { answer.json(429, &limited(reset)) } else { answer.say("hi") }
    });
    let proxy = Proxy::before(&upstream, "ALLOW_PAID_MODELS=true\nMAX_WAIT=0");
    proxy.chat(HELLO).assert_error(429, "rate_limit_exceeded");
    assert_eq!(proxy.chat(r#"{"model":"openai/gpt-4o"}"#).status, 200);
}
