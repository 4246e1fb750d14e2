//! Section 6: what the panel is made of. What it shows is tried in a browser.

use crate::fixture::*;

#[test]
fn the_page_comes_out_of_the_executable_under_a_strict_policy() {
    let proxy = Start::new().arg("--offline").file("DEBUG_MODE.txt", "").start();
    let page = proxy.get("/debug");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let mut total = page.body.len();
    let mut files = vec!["panel.css".to_owned(), "panel.js".to_owned()];
    let mut at = 0;
    while at < files.len() {
        let file = proxy.get(&format!("/debug/{}", files[at]));
        assert_eq!(file.status, 200, "{}", files[at]);
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for import in file.text().split("from \"./").skip(1) {
            let name = import.split('"').next().unwrap().to_owned();
            if !files.contains(&name) {
                files.push(name);
            }
        }
        for text in [page.text(), file.text()] {
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !outside.contains("https://") && !outside.contains("http://"),
                "{}: nothing from the network",
                files[at]
            );
        }
        total += file.body.len();
        at += 1;
    }
    assert!(total <= 60 * 1024, "{total} bytes in all");
    assert!(!page.text().contains("style=") && !page.text().contains("onclick"));
}

#[test]
fn the_calls_and_one_call_whole() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 => answer.say("one"),
        2 => answer.stream("two words"),
        _ => answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#),
    });
    let proxy = Proxy::recording(&upstream, "");
    for body in [r#"{"model":"gpt-4o","messages":[]}"#, HELLO_STREAM, HELLO] {
        proxy.chat(body);
    }
    let list = proxy.get("/debug/calls").json();
    let calls = list["calls"].as_array().unwrap();
    let statuses = calls.iter().map(|call| call["status"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(statuses, [402, 200, 200], "newest first");
    let (plain, streamed) = (&calls[2], &calls[1]);
    assert_eq!((&plain["asked"], &plain["model"]), (&"gpt-4o".into(), &MODEL.into()));
    assert_eq!((&plain["stream"], &streamed["stream"]), (&false.into(), &true.into()));
    assert_eq!((&plain["prompt_tokens"], &plain["completion_tokens"]), (&3.into(), &2.into()));
    assert!(streamed["first_token_ms"].as_f64().unwrap() <= streamed["total_ms"].as_f64().unwrap());
    assert!(plain["first_token_ms"].is_null());

    let whole = |call: &serde_json::Value| {
        proxy.get(&format!("/debug/calls/{}", call["message_id"].as_str().unwrap())).json()
    };
    assert_eq!(whole(plain)["request"]["model"], "gpt-4o");
    assert_eq!(whole(plain)["response"]["choices"][0]["message"]["content"], "one");
    assert_eq!(whole(streamed)["response"]["choices"][0]["message"]["content"], "two words");
    assert_eq!(whole(&calls[0])["error"]["message"], "no credits");
    proxy.get("/debug/calls/ffffffff").assert_error(404, "not_found");
}

#[test]
fn only_the_newest_thousand_are_kept() {
    let proxy = Start::new().arg("--offline").file("DEBUG_MODE.txt", "").start();
    let mut client = proxy.connect();
    for number in 0..1010 {
        client.chat(&format!(r#"{{"model":"m{number}:free","messages":[]}}"#));
    }
    let list = proxy.get("/debug/calls").json();
    let calls = list["calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1000);
    assert_eq!((&calls[0]["asked"], &calls[999]["asked"]), (&"m1009:free".into(), &"m10:free".into()));
}

/// They are what takes up memory.
#[test]
fn streams_as_they_came_are_kept_of_the_newest_fifty() {
    let upstream = Upstream::saying("two words");
    let proxy = Proxy::recording(&upstream, "");
    let mut client = proxy.connect();
    for _ in 0..52 {
        client.chat(HELLO_STREAM);
    }
    let list = proxy.get("/debug/calls").json();
    for (age, call) in list["calls"].as_array().unwrap().iter().enumerate() {
        let call = proxy.get(&format!("/debug/calls/{}", call["message_id"].as_str().unwrap())).json();
        assert_eq!(call["response"]["choices"][0]["message"]["content"], "two words", "{age}");
        assert_eq!(call["events"].is_string(), age < 50, "{age}");
    }
}

#[test]
fn the_quota_is_asked_for_only_while_somebody_looks() {
    let upstream = Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/key" => answer
            .json(200, r#"{"data":{"free_model_daily_requests":{"limit":50,"remaining":38,"used":12}}}"#),
        _ => answer.say("hi"),
    });
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO);
    assert_eq!(upstream.calls(), 1);
    let quota = eventually("the quota", || {
        Some(proxy.get("/debug/state").json()["quota"].clone()).filter(|q| !q.is_null())
    });
    assert_eq!(quota["remaining"], 38);
    for _ in 0..5 {
        proxy.get("/debug/state");
    }
    assert_eq!(upstream.calls(), 2, "at most once a minute");
    assert_eq!(upstream.last().path, "/api/v1/key");

    let without = Upstream::start(|_, answer| answer.json(404, "{}"));
    let proxy = Proxy::recording(&without, "");
    proxy.get("/debug/state");
    without.wait_for(1);
    assert_eq!(proxy.get("/debug/state").json()["quota"], serde_json::Value::Null);
}

#[test]
fn the_settings_in_force_with_the_key_masked() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "MODEL=a/b:free");
    let settings = proxy.get("/debug/settings").json();
    let value = |name: &str| {
        let found = settings["settings"].as_array().unwrap().iter().find(|s| s["name"] == name);
        found.unwrap_or_else(|| panic!("{name}"))["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(value("OPENROUTER_API_KEY"), "...wxyz");
    assert_eq!(value("MODEL"), "a/b:free");
    assert_eq!(value("WORKERS"), "256");
}
