//! Section 5: debug mode.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::*;

fn data<'a>(files: &'a [(String, Value)], kind: &str) -> &'a Value {
    let found = files.iter().find(|(name, _)| name.contains(&format!("_{kind}_")));
    &found.unwrap_or_else(|| panic!("no {kind} among {files:?}")).1["data"]
}

fn count(proxy: &Proxy) -> Value {
    proxy.get("/debug/stats").json()["count"].clone()
}

fn saved_count(cache: &Path) -> Option<u64> {
    let name = fs::read_dir(cache)
        .ok()?
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with("CALLS_"))?;
    let json = serde_json::from_str::<Value>(&fs::read_to_string(name.path()).ok()?).ok()?;
    json["count"].as_u64()
}

#[test]
fn a_call_leaves_its_request_and_its_response() {
    let upstream = Upstream::saying("你好");
    let proxy = Proxy::recording(&upstream, "");
    let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"\u4f60 你"}],"n":1.0}"#;
    proxy.chat(body);
    let files = proxy.files(2);
    let (request, response) = (&files[0], &files[1]);
    for ((name, file), kind) in [(request, "REQUEST"), (response, "RESPONSE")] {
        let parts = name.strip_suffix(".json").unwrap().split('_').collect::<Vec<_>>();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 6, 3, kind.len(), 8], "{name}");
        assert_eq!(parts[3], kind);
        assert!(parts[4].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{name}");
        assert_eq!(file["type"], kind);
        assert_eq!(file["message_id"], parts[4]);
        let digits = file["timestamp"].as_str().unwrap().replace(['-', ':', 'T', '.'], "");
        assert_eq!(digits[..17], format!("{}{}{}", parts[0], parts[1], parts[2]), "{name}");
        assert_eq!(file["timestamp"].as_str().unwrap().len(), "2024-02-14T10:30:45.123456".len());
    }
    assert_eq!(request.1["message_id"], response.1["message_id"]);
    let text = fs::read_to_string(proxy.dir.join("cache").join(&request.0)).unwrap();
    assert!(text.starts_with("{\n  \"timestamp\": "), "{text}");
    assert!(
        text.contains("\"content\": \"你 你\"") && text.contains("\"n\": 1.0") && text.contains("gpt-4o"),
        "{text}"
    );
    assert_eq!(response.1["data"]["choices"][0]["message"]["content"], "你好");
}

#[test]
fn a_stream_is_put_together() {
    let upstream = Upstream::start(|_, answer| {
        answer.stream_head();
        answer.piece(": OPENROUTER PROCESSING\n\n");
        for part in [
            r#"{"role":"assistant","content":"He","reasoning":"be"}"#,
            r#"{"content":"llo","reasoning":"cause"}"#,
            r#"{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
        ] {
            answer.piece(&format!("data: {{\"id\":\"g\",\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"delta\":{part}}}]}}\n\n"));
        }
        answer.piece("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n");
        answer.piece("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n");
        answer.end();
    });
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO_STREAM);
    let files = proxy.files(2);
    let expected = json!({
        "id": "g", "model": MODEL, "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "Hello", "reasoning": "because",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    });
    assert_eq!(data(&files, "RESPONSE"), &expected);
}

#[test]
fn errors_and_refusals_leave_an_error() {
    let upstream =
        Upstream::start(|_, answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#));
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO);
    let files = proxy.files(2);
    assert_eq!(
        data(&files, "ERROR"),
        &json!({"error": {"code": 402, "message": "no credits"}, "status": 402})
    );
    assert_eq!(count(&proxy), 0);

    let without_key = format!("OPENROUTER_BASE_URL={}\nCACHE_DIR=other\n", upstream.url());
    proxy.write_env(&without_key);
    proxy.wait_for_console("OPENROUTER_API_KEY = not set");
    proxy.chat(HELLO).assert_error(401, "missing_api_key");
    eventually("two files", || (names_in(&proxy.dir.join("other")).len() == 2).then_some(()));
}

#[test]
fn stats_count_and_go_on_after_a_restart() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    let stats = proxy.get("/debug/stats").json();
    assert_eq!((&stats["count"], &stats["last_updated"]), (&json!(0), &Value::Null));
    for _ in 0..3 {
        proxy.chat(HELLO);
    }
    let stats = proxy.get("/debug/stats").json();
    assert_eq!(stats["count"], 3);
    let cache = proxy.dir.join("cache");
    eventually("the saved count", || (saved_count(&cache) == Some(3)).then_some(()));
    let today = stats["date"].as_str().unwrap();
    let text = fs::read_to_string(cache.join(format!("CALLS_{today}.json"))).unwrap();
    let expected = format!(r#"{{"date": "{today}", "count": 3, "last_updated": {}"#, stats["last_updated"]);
    assert!(text.starts_with(&expected), "{text}");

    let again = Start::from(proxy.kill()).start();
    let later = again.get("/debug/stats").json();
    assert_eq!((&later["count"], &later["last_updated"]), (&json!(3), &stats["last_updated"]));
    again.chat(HELLO);
    assert_eq!(count(&again), 4);
}

#[test]
fn without_a_cache_folder_the_count_is_kept_in_memory() {
    let proxy = Start::new().arg("--offline").file("DEBUG_MODE.txt", "").start();
    proxy.chat(HELLO);
    assert_eq!(count(&proxy), 1);
    assert_eq!(fs::read_dir(&proxy.dir).unwrap().count(), 1, "nothing is saved");
}

#[test]
fn off_means_off() {
    let upstream = Upstream::saying("hi");
    let proxy = Start::new().env_file(env(&upstream, "CACHE_DIR=cache")).start();
    proxy.chat(HELLO);
    for path in ["/debug", "/debug/stats", "/debug/calls", "/debug/calls/00000000"] {
        proxy.get(path).assert_error(403, "debug_disabled");
    }
    fs::write(proxy.dir.join("DEBUG_MODE.txt"), "").unwrap();
    assert_eq!(count(&proxy), 0, "calls made while it was off don't count");
    assert_eq!(names_in(&proxy.dir.join("cache")), Vec::<String>::new());
}

#[test]
fn a_crash_leaves_whole_files_and_the_right_count() {
    let upstream = Upstream::saying("hi");
    let mut home = Proxy::recording(&upstream, "").kill();
    for round in 0..5 {
        let proxy = Start::from(home).start();
        let before = count(&proxy).as_u64().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = proxy.connect();
                    for _ in 0..10 + round {
                        client.chat(HELLO);
                    }
                });
            }
        });
        home = proxy.kill(); // with files still queued
        let cache = home.path().join("cache");
        let names = names_in(&cache);
        for name in &names {
            let text = fs::read_to_string(cache.join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let responses = names.iter().filter(|name| name.contains("_RESPONSE_")).count() as u64;
        let again = Start::from(home).start();
        assert_eq!(count(&again), responses.max(before), "round {round}");
        home = again.kill();
        let leftovers = fs::read_dir(home.path().join("cache")).unwrap().flatten();
        let unfinished = leftovers.filter(|e| e.file_name().to_string_lossy().starts_with('.')).count();
        assert!(unfinished <= 1, "the next start clears what the last crash left");
    }
}

#[test]
#[cfg(unix)]
fn an_unwritable_folder_is_said_once_and_fails_no_request() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO);
    proxy.files(2);
    // A file where the folder was: nobody, root included, can write into it.
    fs::remove_dir_all(proxy.dir.join("cache")).unwrap();
    fs::write(proxy.dir.join("cache"), "").unwrap();
    for _ in 0..5 {
        assert_eq!(proxy.chat(HELLO).status, 200);
    }
    eventually("what is not saved", || {
        (proxy.get("/debug/stats").json()["files_not_saved"].as_u64()? >= 10).then_some(())
    });
    proxy.wait_for_console("debug files can't be saved");
    fs::remove_file(proxy.dir.join("cache")).unwrap();
    proxy.chat(HELLO);
    proxy.files(2);
    proxy.wait_for_console("can be saved again");
    assert_eq!(proxy.console().matches("debug files can't be saved").count(), 1);
}

#[test]
fn old_files_go_where_they_are_limited() {
    let upstream = Upstream::saying("hi");
    let start = Start::new().env_file(env(&upstream, "CACHE_DIR=cache\nCACHE_KEEP_DAYS=7"));
    let home = start.start().kill();
    let cache = home.path().join("cache");
    fs::create_dir_all(&cache).unwrap();
    let old = ["20200101_000000_000_REQUEST_00000000.json", "CALLS_20200101.json"];
    let kept = ["20200101_notes.json", "29990101_000000_000_REQUEST_00000000.json"];
    for name in old.iter().chain(&kept) {
        fs::write(cache.join(name), "{}").unwrap();
    }
    let _proxy = Start::from(home).start();
    eventually("the old ones to go", || old.iter().all(|name| !cache.join(name).exists()).then_some(()));
    assert!(kept.iter().all(|name| cache.join(name).exists()));
}

/// Laid out one line a bracket, 40 KB of them would be a file of 800 MB.
#[test]
fn what_is_nested_deeply_stays_small() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let answer = completion("hi").replacen('{', &format!(r#"{{"deep":{deep},"#), 1);
    let upstream = Upstream::start(move |_, to| to.json(200, &answer));
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(&format!(r#"{{"model":"{MODEL}","messages":[],"metadata":{deep}}}"#)).assert_status(200);
    let cache = proxy.dir.join("cache");
    let names = eventually("both files", || Some(names_in(&cache)).filter(|names| names.len() == 2));
    for name in names {
        let text = fs::read_to_string(cache.join(name)).unwrap();
        assert!(text.len() < 3 << 20, "{} bytes", text.len());
        assert!(text.replace(['\n', ' '], "").contains(&deep), "nothing is missing");
    }
}

/// A disk may hold anything under such a name.
#[test]
#[cfg(unix)]
fn pipes_among_the_files_hold_nobody_up() {
    let upstream = Upstream::saying("hi");
    let home = Proxy::recording(&upstream, "").kill();
    let cache = home.path().join("cache");
    fs::create_dir_all(&cache).unwrap();
    let today = chrono_today();
    for name in [format!("CALLS_{today}.json"), format!("{today}_000000_000_RESPONSE_00000001.json")] {
        let made = std::process::Command::new("mkfifo").arg(cache.join(name)).status().unwrap();
        assert!(made.success());
    }
    let proxy = Start::from(home).start();
    proxy.chat(HELLO).assert_status(200);
    let stats = proxy.get("/debug/stats").json();
    assert!(stats["count"].as_u64() >= Some(1), "{stats}");
    proxy.get("/debug/calls/00000001");
    proxy.get("/debug/days").assert_status(200);
    proxy.get("/debug/calls?find=hello").assert_status(200);
}

/// The day in local time, as the names of files have it.
fn chrono_today() -> String {
    let date = std::process::Command::new("date").arg("+%Y%m%d").output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// What a debug file of today or yesterday holds that the tests write themselves.
fn debug_file(kind: &str, id: &str, more: &str) -> String {
    format!(
        "{{\n  \"timestamp\": \"x\",\n  \"type\": \"{kind}\",\n  \"message_id\": \"{id}\",\n  \"data\": {{}},\n  \"call\": {{{more}}}\n}}\n"
    )
}

/// 01:30 comes twice at the end of summer time: the file knows which of the two it was.
#[test]
#[cfg(unix)]
fn the_hour_that_comes_twice_is_told_apart() {
    let upstream = Upstream::saying("hi");
    let home = Proxy::recording(&upstream, "").kill();
    let cache = home.path().join("cache");
    fs::create_dir_all(&cache).unwrap();
    // 1 November 2026, 01:30 in New York: at 05:30 and at 06:30 UTC.
    let second = 1_793_514_600_000_u64;
    for (id, time) in [("00000001", second - 3_600_000), ("00000002", second)] {
        let file = debug_file(
            "RESPONSE",
            id,
            &format!("\"begun_ms\": {time}, \"ended_ms\": {time}, \"status\": 200"),
        );
        fs::write(cache.join(format!("20261101_013000_000_RESPONSE_{id}.json")), file).unwrap();
    }
    let proxy = Start::from(home).environment("TZ", "America/New_York").start();
    let calls = eventually("the calls", || {
        Some(proxy.get("/debug/calls").json()["calls"].clone()).filter(|calls| calls[1].is_object())
    });
    assert_eq!([&calls[0]["time_ms"], &calls[1]["time_ms"]], [second, second - 3_600_000]);
    assert_eq!(calls[0]["timestamp"], "2026-11-01T01:30:00.000000");
}

#[test]
fn a_count_never_wraps() {
    let upstream = Upstream::saying("hi");
    let home = Proxy::recording(&upstream, "").kill();
    let cache = home.path().join("cache");
    fs::create_dir_all(&cache).unwrap();
    let text = format!(r#"{{"date": "{0}", "count": {1}, "last_updated": null}}"#, chrono_today(), u64::MAX);
    fs::write(cache.join(format!("CALLS_{}.json", chrono_today())), text).unwrap();
    let proxy = Start::from(home).start();
    proxy.chat(HELLO);
    assert_eq!(count(&proxy), u64::MAX);
}

/// Whatever a stream adds up to, its record has an end; the client gets all of it.
#[test]
fn an_endless_stream_leaves_a_record_with_an_end() {
    const PIECES: usize = 40;
    let upstream = Upstream::forgetful(|_, answer| {
        answer.stream_head();
        let piece = delta(&"x".repeat(1 << 20));
        for _ in 0..PIECES {
            answer.piece(&piece);
        }
        answer.piece(&last_delta());
        answer.piece("data: [DONE]\n\n");
        answer.end();
    });
    let proxy = Proxy::recording(&upstream, "");
    let answer = proxy.chat(HELLO_STREAM);
    assert!(answer.body.len() > PIECES << 20 && answer.text().ends_with("data: [DONE]\n\n"));
    let files = proxy.files(2);
    let said = data(&files, "RESPONSE")["choices"][0]["message"]["content"].as_str().unwrap();
    assert!((8 << 20..=16 << 20).contains(&said.len()), "{} bytes", said.len());
}
