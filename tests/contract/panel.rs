//! Section 6: what the panel is made of. What it shows is tried in a browser.

use serde_json::Value;

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

/// What a restart forgets is in the files; so is what memory is too small for.
#[test]
fn calls_and_hours_are_there_again_after_a_restart() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 => answer.json(503, r#"{"error":{"code":503,"message":"busy"}}"#),
        2 => answer.say("one"),
        3 => answer.stream("two words"),
        _ => answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#),
    });
    let proxy = Proxy::recording(&upstream, "");
    for body in [r#"{"model":"gpt-4o","messages":[]}"#, HELLO_STREAM, HELLO] {
        proxy.chat(body);
    }
    let calls = |proxy: &Proxy| proxy.get("/debug/calls").json()["calls"].clone();
    let before = calls(&proxy);
    let hours = proxy.get("/debug/stats").json()["hours"].clone();
    let whole = |proxy: &Proxy, call: &Value| {
        proxy.get(&format!("/debug/calls/{}", call["message_id"].as_str().unwrap())).json()
    };
    let wholes = before.as_array().unwrap().iter().map(|call| whole(&proxy, call)).collect::<Vec<_>>();
    proxy.files(6);
    let dir = proxy.kill();
    let proxy = Start::from(dir).start();
    eventually("the calls to be read", || {
        (calls(&proxy).as_array().unwrap().len() == wholes.len()).then_some(())
    });
    // The names of the files are as exact as a millisecond.
    let without_time = |mut call: Value| {
        let fields = call.as_object_mut().unwrap();
        fields.remove("events");
        let timestamp = fields["timestamp"].as_str().unwrap()[..23].to_owned();
        fields.insert("timestamp".into(), timestamp.into());
        call
    };
    for (call, whole_before) in calls(&proxy).as_array().unwrap().iter().zip(wholes) {
        assert_eq!(without_time(whole(&proxy, call)), without_time(whole_before));
    }
    assert_eq!(proxy.get("/debug/stats").json()["hours"], hours);
    assert_eq!(proxy.get("/debug/stats").json()["errors"], 1);
    // They don't come twice, and new ones are before them.
    proxy.chat(HELLO);
    let now = calls(&proxy);
    assert_eq!(now.as_array().unwrap().len(), 4);
    assert_eq!(now[1]["message_id"], before[0]["message_id"]);
}

#[test]
fn a_call_too_large_for_memory_opens_from_its_files() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    let large = format!(r#"{{"model":"{MODEL}","messages":[],"x":"{}"}}"#, "y".repeat(33 << 20));
    assert_eq!(proxy.chat(&large).status, 200);
    proxy.chat(HELLO);
    proxy.files(4);
    let list = proxy.get("/debug/calls").json();
    let call = proxy.get(&format!("/debug/calls/{}", list["calls"][1]["message_id"].as_str().unwrap()));
    let call = call.json();
    assert_eq!(call["request"]["x"].as_str().unwrap().len(), 33 << 20);
    assert_eq!(call["response"]["choices"][0]["message"]["content"], "hi");
}

/// Somebody whose tool fails looks here.
#[test]
fn refused_calls_are_among_them() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO);
    for (request, asked, status) in [
        (
            "POST /v1/v1/chat/completions?key=secret HTTP/1.1\r\nHost: localhost\r\n",
            "POST /v1/v1/chat/completions",
            404,
        ),
        ("PUT /v1/models HTTP/1.1\r\nHost: localhost\r\n", "PUT /v1/models", 405),
        ("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n", "GET /v1/models", 403),
        (
            "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n",
            "GET /v1/models",
            403,
        ),
        ("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n", "POST /v1/messages", 400),
        ("PRI * HTTP/2.0\r\n", "PRI *", 505),
    ] {
        let body = if status == 400 { "x" } else { "" };
        let answer = proxy.connect().exchange(&format!("{request}\r\n{body}"));
        assert_eq!(answer.status, status, "{request}");
        let newest = proxy.get("/debug/calls").json()["calls"][0].clone();
        assert_eq!((&newest["refused"], &newest["status"]), (&asked.into(), &status.into()));
        let whole = proxy.get(&format!("/debug/calls/{}", newest["message_id"].as_str().unwrap())).json();
        assert!(whole["error"]["message"].is_string());
        proxy.wait_for_console(&format!("{status} {asked}"));
    }
    assert!(!proxy.console().contains("secret"));
    // Many of a kind are one line, and leave room for calls.
    for _ in 0..150 {
        proxy.get("/nowhere");
    }
    let list = proxy.get("/debug/calls").json();
    let calls = list["calls"].as_array().unwrap();
    assert!(calls.iter().any(|call| call["status"] == 200), "the call is still there");
    assert!(!proxy.console().contains("/nowhere"), "a line a minute");
    assert_eq!(names_in(&proxy.dir.join("cache")).iter().filter(|n| n.contains("_ERROR_")).count(), 0);
}

#[test]
fn the_models_and_what_was_seen_of_them() {
    let upstream = Upstream::start(|request, answer| {
        if request.path.ends_with("/embeddings/models") {
            return answer.json(200, r#"{"data":[{"id":"embed/one:free","context_length":512}]}"#);
        }
        if request.path.ends_with("/embeddings") {
            return answer.json(200, r#"{"data":[{"embedding":[1.5]}],"model":"embed/one:free"}"#);
        }
        if request.body.is_empty() {
            return answer.json(
                200,
                r#"{"data":[{"id":"some/model:free","name":"Some Model","context_length":32000,"supported_parameters":["tools"],"architecture":{"input_modalities":["text","image"]}},{"id":"quiet/one:free"},{"id":"paid/one"}]}"#,
            );
        }
        match request.body.contains("busy/one") {
            true => {
                answer.raw("HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n")
            }
            false => answer.fitting(request, "hi"),
        }
    });
    let proxy = Proxy::before(&upstream, "BACKUPS=ollama\nOLLAMA_MODEL=llama3.2");
    std::fs::write(proxy.dir.join("DEBUG_MODE.txt"), "").unwrap();
    assert_eq!((proxy.chat(HELLO).status, proxy.chat(HELLO_STREAM).status), (200, 200));
    proxy.chat(r#"{"model":"busy/one:free","messages":[]}"#);
    proxy.post("/v1/embeddings", r#"{"model":"embed/one:free","input":"x"}"#).assert_status(200);
    let page = proxy.get("/debug/models").json();
    let of = |id: &str| {
        let models = page["models"].as_array().unwrap();
        models.iter().find(|model| model["id"] == id).unwrap_or_else(|| panic!("{id} in {page}")).clone()
    };
    assert_eq!(page["models"][0]["id"], "openrouter/free");
    let some = of("some/model:free");
    assert_eq!((&some["name"], &some["context_length"]), (&"Some Model".into(), &32000.into()));
    assert_eq!([&some["tools"], &some["images"], &some["structured"]], [true, true, false]);
    assert!(some["calls"].as_u64() >= Some(2) && some["answered"].as_u64() >= Some(2), "{some}");
    assert!(some["first_token_ms"].is_u64() && some["rests_until_ms"].is_null());
    assert_eq!(of("quiet/one:free")["calls"], 0);
    let busy = of("busy/one:free");
    assert_eq!((&busy["listed"], &busy["answered"]), (&false.into(), &0.into()));
    assert!(busy["rests_until_ms"].as_u64() > proxy.get("/debug/stats").json()["now_ms"].as_u64());
    assert!(!page.to_string().contains("paid/one"));
    let embedding = of("embed/one:free");
    assert_eq!((&embedding["listed"], &embedding["context_length"]), (&true.into(), &512.into()));
    assert_eq!((&embedding["setting"], &some["setting"]), (&"EMBEDDING_MODEL".into(), &"MODEL".into()));
    assert_eq!(page["backups"][0]["name"], "ollama");
    assert_eq!(page["backups"][0]["model"], "llama3.2");
}
