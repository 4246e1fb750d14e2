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
        for import in file.text().split("from\"./").skip(1) {
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
    assert!(total <= 90 * 1024, "{total} bytes in all");
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
    })
    .with_key_checks();
    let proxy = Proxy::recording(&upstream, "");
    proxy.wait_for_console("accepts the key ...wxyz; 38 of 50 free calls are left today");
    proxy.chat(HELLO);
    assert_eq!(upstream.calls(), 2);
    let quota = eventually("the quota", || {
        Some(proxy.get("/debug/state").json()["quota"].clone()).filter(|q| !q.is_null())
    });
    assert_eq!(quota["remaining"], 38);
    for _ in 0..5 {
        proxy.get("/debug/state");
    }
    assert_eq!(upstream.calls(), 3, "nothing is new");
    assert_eq!(upstream.last().path, "/api/v1/key");

    let without = Upstream::start(|_, answer| answer.json(404, "{}")).with_key_checks();
    let proxy = Proxy::recording(&without, "");
    proxy.get("/debug/state");
    without.wait_for(2);
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
    let after = |proxy: &Proxy, name: &str| {
        let settings = proxy.get("/debug/settings").json()["settings"].clone();
        let found = settings.as_array().unwrap().iter().find(|s| s["name"] == name).cloned();
        found.unwrap()["after_restart"].clone()
    };
    assert_eq!((after(&proxy, "WORKERS"), after(&proxy, "PORT")), (Value::Null, Value::Null));
    proxy.write_env(&env(&upstream, "WORKERS=7\nRETRIES=1"));
    eventually("what a restart will bring", || (after(&proxy, "WORKERS") == "7").then_some(()));
    assert_eq!(after(&proxy, "RETRIES"), Value::Null, "that counts already");
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
                r#"{"data":[{"id":"some/model:free","name":"Some Model","context_length":32000,"supported_parameters":["tools"],"architecture":{"input_modalities":["text","image"]}},{"id":"quiet/one:free","expiration_date":"2026-01-31"},{"id":"paid/one"}]}"#,
            );
        }
        if request.body.contains("busy/one") {
            answer.raw("HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n")
        } else {
            answer.fitting(request, "hi")
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
    assert_eq!((&of("quiet/one:free")["calls"], &of("quiet/one:free")["expired"]), (&0.into(), &true.into()));
    assert_eq!(some["expired"], false);
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

fn calls_of(proxy: &Proxy) -> Vec<Value> {
    proxy.get("/debug/calls").json()["calls"].as_array().unwrap().clone()
}

fn whole(proxy: &Proxy, call: &Value) -> Value {
    proxy.get(&format!("/debug/calls/{}", call["message_id"].as_str().unwrap())).json()
}

fn figures(of: &Value) -> [u64; 4] {
    ["answered", "errors", "cancelled", "refused"].map(|name| of[name].as_u64().unwrap())
}

/// Nothing but the day's file knows of what was turned away.
fn until_refusals_are_saved(proxy: &Proxy) {
    let cache = proxy.dir.join("cache");
    eventually("the day's count", || {
        let mut names = std::fs::read_dir(&cache).ok()?.flatten();
        let day = names.find(|entry| entry.file_name().to_string_lossy().starts_with("CALLS_"))?;
        std::fs::read_to_string(day.path()).ok()?.contains("\"refusals\"").then_some(())
    });
}

/// What is counted is counted once: the figures, the hours, the days and the table say the same, also after a restart.
#[test]
fn the_figures_agree() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 | 2 => answer.say("hi"),
        3 => answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#),
        _ => assert!(answer.sees_close()),
    });
    let proxy = Proxy::recording(&upstream, "");
    for _ in 0..3 {
        proxy.chat(HELLO);
    }
    let mut leaving = proxy.connect();
    leaving.send_chat(HELLO);
    upstream.wait_for(4);
    drop(leaving);
    proxy.get("/v1/v1/models");
    proxy.get("/debug/nothing");
    let expected = [2, 1, 1, 1];
    let check = |proxy: &Proxy| {
        let stats = proxy.get("/debug/stats").json();
        if figures(&stats) != expected {
            return None;
        }
        let calls = calls_of(proxy);
        let of = |test: &dyn Fn(&Value) -> bool| calls.iter().filter(|call| test(call)).count() as u64;
        let in_table = [
            of(&|call| call["status"] == 200),
            of(&|call| call["status"] == 402),
            of(&|call| call["status"] == 499),
            of(&|call| call["refused"].is_string()),
        ];
        if in_table != expected {
            return None;
        }
        let hours = stats["hours"].as_array().unwrap();
        assert_eq!(hours.len(), 24);
        let sum =
            hours.iter().map(figures).fold([0; 4], |sum, hour| [0, 1, 2, 3].map(|at| sum[at] + hour[at]));
        // After a restart the files are read while it serves already.
        if sum != expected {
            return None;
        }
        let days = proxy.get("/debug/days").json();
        assert_eq!(figures(&days["days"][0]), expected);
        assert_eq!(
            (&days["days"][0]["date"], &days["days"][0]["prompt_tokens"]),
            (&stats["date"], &6.into())
        );
        assert_eq!(days["days"].as_array().unwrap().len(), 30);
        assert_eq!((&stats["count"], &stats["completion_tokens"]), (&2.into(), &4.into()));
        Some(())
    };
    eventually("figures that agree", || check(&proxy));
    proxy.files(8);
    until_refusals_are_saved(&proxy);
    let home = proxy.kill();
    let proxy = Start::from(home).start();
    eventually("the same after a restart", || check(&proxy));
}

#[test]
fn days_before_today_are_in_their_files() {
    let upstream = Upstream::saying("hi");
    let home = Proxy::recording(&upstream, "").kill();
    let cache = home.path().join("cache");
    std::fs::create_dir_all(&cache).unwrap();
    let day = |ago: u32| {
        let date =
            std::process::Command::new("date").args(["-d", &format!("{ago} days ago"), "+%Y%m%d"]).output();
        String::from_utf8(date.unwrap().stdout).unwrap().trim().to_owned()
    };
    let old = format!(r#"{{"date": "{}", "count": 7, "last_updated": null}}"#, day(29));
    std::fs::write(cache.join(format!("CALLS_{}.json", day(29))), old).unwrap();
    std::fs::write(cache.join(format!("CALLS_{}.json", day(1))), r#"{"count": 2, "errors": 3, "cancelled": 1, "refused": 4, "prompt_tokens": 5, "completion_tokens": 6}"#).unwrap();
    std::fs::write(cache.join(format!("CALLS_{}.json", day(30))), r#"{"count": 9}"#).unwrap();
    let proxy = Start::from(home).start();
    let days = proxy.get("/debug/days").json();
    let days = days["days"].as_array().unwrap();
    assert_eq!((days.len(), days[1]["date"].as_str()), (30, Some(&*day(1))));
    assert_eq!((figures(&days[1]), figures(&days[29])), ([2, 3, 1, 4], [7, 0, 0, 0]));
    assert_eq!((&days[1]["prompt_tokens"], &days[1]["completion_tokens"]), (&5.into(), &6.into()));
}

#[test]
fn only_what_is_new_since_a_number() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("held") {
            answer.stream_head();
            answer.piece(&delta("some"));
            assert!(answer.sees_close());
        } else {
            answer.say("hi");
        }
    });
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO);
    let all = proxy.get("/debug/calls").json();
    assert_eq!((all["calls"].as_array().unwrap().len(), &all["whole"]), (1, &true.into()));
    let since = |next: &Value| proxy.get(&format!("/debug/calls?since={next}")).json();
    let nothing = since(&all["next"]);
    assert_eq!((nothing["calls"].as_array().unwrap().len(), &nothing["whole"]), (0, &false.into()));
    assert_eq!(nothing["next"], all["next"]);
    let mut client = proxy.connect();
    client.send_chat(&HELLO_STREAM.replace("hello", "held"));
    client.read_head_and_until("some");
    let more = since(&all["next"]);
    assert_eq!((more["calls"].as_array().unwrap().len(), &more["calls"][0]["status"]), (1, &Value::Null));
    drop(client);
    let ended = eventually("its end", || {
        Some(since(&more["next"])).filter(|answer| answer["calls"][0]["status"] == 499)
    });
    assert_eq!(ended["calls"].as_array().unwrap().len(), 1);
    for of_another_run in ["0", "1", "99999999999999999", "x", ""] {
        let answer = proxy.get(&format!("/debug/calls?since={of_another_run}")).json();
        assert_eq!((answer["calls"].as_array().unwrap().len(), &answer["whole"]), (2, &true.into()));
    }
    for _ in 0..1005 {
        proxy.chat(HELLO);
    }
    let gone = since(&ended["next"]);
    assert_eq!(gone["dropped"].as_array().unwrap().len(), 7);
    assert_eq!(gone["calls"].as_array().unwrap().len(), 1000);
}

/// Which tool, what was asked, and what became of it on the way.
#[test]
fn a_call_says_who_asked_what() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 => answer.json(503, r#"{"error":{"code":503,"message":"busy"}}"#),
        _ => answer.say("hi"),
    });
    let proxy = Proxy::recording(&upstream, "FALLBACK_MODELS=c/d:free");
    let body = r#"{"model":"gpt-4o","preset":"p","messages":[{"role":"user","content":"Where is the \u7b80\u5386 of\nthe zebra?"}]}"#;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: codex_cli_rs/0.171.0 (Linux)\r\n";
    let length = body.len();
    proxy.connect().exchange(&format!("{head}Content-Length: {length}\r\n\r\n{body}")).assert_status(200);
    proxy.connect().exchange("GET /v1/v1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.5.0\r\n\r\n");
    let calls = calls_of(&proxy);
    assert_eq!([&calls[0]["tool"], &calls[1]["tool"]], ["curl", "Codex"]);
    assert_eq!(calls[1]["first_words"], "Where is the 简历 of the zebra?");
    let told = whole(&proxy, &calls[1]);
    let changes = told["changes"].as_array().unwrap();
    let changed = changes.iter().map(|change| change["field"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(changed, ["model", "preset"]);
    assert_eq!((&changes[1]["from"], &changes[1]["to"]), (&"\"p\"".into(), &Value::Null));
    assert_eq!(told["tries"][0]["failed"], "503 busy");
    let found = |words: &str| proxy.get(&format!("/debug/calls?find={words}")).json()["found"].clone();
    assert_eq!(found("ZEBRA"), serde_json::json!([calls[1]["message_id"]]));
    assert_eq!(found("%E7%AE%80%E5%8E%86+of"), serde_json::json!([calls[1]["message_id"]]));
    assert_eq!(found("giraffe"), serde_json::json!([]));
    proxy.files(2);
    let text = std::fs::read_to_string(proxy.dir.join("cache").join(&proxy.files(2)[1].0)).unwrap();
    assert!(text.contains("\"tool\": \"Codex\""), "{text}");

    until_refusals_are_saved(&proxy);
    let proxy = Start::from(proxy.kill()).start();
    let calls = eventually("the calls", || Some(calls_of(&proxy)).filter(|calls| calls.len() == 2));
    assert_eq!([&calls[0]["tool"], &calls[1]["tool"]], ["curl", "Codex"], "what was turned away, too");
    let again = whole(&proxy, &calls[1]);
    assert_eq!((&again["changes"], &again["tries"]), (&told["changes"], &told["tries"]));
    let found = proxy.get("/debug/calls?find=zebra").json();
    assert_eq!(
        (&found["found"][0], &found["complete"]),
        (&calls[1]["message_id"], &true.into()),
        "in its file"
    );
}

#[test]
fn calls_under_way_are_seen_and_cancelled() {
    let upstream = Upstream::start(|_, answer| {
        answer.stream_head();
        answer.piece(&delta("so "));
        answer.piece(&delta("far"));
        assert!(answer.sees_close());
    });
    let proxy = Proxy::recording(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO_STREAM);
    client.read_head_and_until("far");
    let call = eventually("the first token", || {
        Some(calls_of(&proxy).remove(0)).filter(|call| call["first_token_ms"].is_number())
    });
    assert_eq!(
        (&call["status"], &call["asked"], &call["first_words"], &call["total_ms"]),
        (&Value::Null, &MODEL.into(), &"hello".into(), &Value::Null)
    );
    let told = eventually("what has come", || {
        let told = whole(&proxy, &call);
        (told["partial"]["choices"][0]["message"]["content"] == "so far").then_some(told)
    });
    assert!(told["events"].as_str().unwrap().contains("far") && told["request"].is_object());
    assert_eq!(proxy.get("/debug/stats").json()["running"], 1);
    let cancel = |more: &str| {
        let id = call["message_id"].as_str().unwrap();
        proxy
            .connect()
            .exchange(&format!("DELETE /debug/calls/{id} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"))
    };
    assert_eq!(cancel("Origin: http://localhost:1\r\n").status, 403, "another page");
    assert_eq!(cancel("").status, 200);
    assert!(client.rest_of_chunks().contains("cancelled"));
    upstream.wait_for_closed(1);
    let call = eventually("its end", || Some(whole(&proxy, &call)).filter(|call| !call["status"].is_null()));
    assert_eq!((&call["status"], &call["error_code"]), (&499.into(), &"cancelled".into()));
    assert_eq!(figures(&proxy.get("/debug/stats").json()), [0, 0, 1, 1]);
    cancel("").assert_status(404);
}

#[test]
fn what_is_waited_for_is_said_and_can_be_cancelled() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("held") {
            assert!(answer.sees_close());
            return;
        }
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let reset = now.as_millis() + 40_000;
        answer.respond(
            429,
            &format!(
                "content-type: application/json\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: {reset}\r\n"
            ),
            r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-min"}}"#,
        );
    });
    let proxy = Proxy::recording(&upstream, "WORKERS=1");
    let waiting = |what: &str| {
        eventually(what, || calls_of(&proxy).into_iter().find(|call| call["waiting"]["for"] == what))
    };
    let cancel = |call: &Value| {
        let id = call["message_id"].as_str().unwrap();
        proxy
            .connect()
            .exchange(&format!("DELETE /debug/calls/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .assert_status(200);
    };
    let mut held = proxy.connect();
    held.send_chat(&HELLO.replace("hello", "held"));
    upstream.wait_for(1);
    let mut client = proxy.connect();
    client.send_chat(HELLO);
    let call = waiting("place");
    assert_eq!(call["first_words"], "hello");
    cancel(&call);
    client.response().assert_error(499, "cancelled");

    cancel(&calls_of(&proxy).into_iter().find(|call| call["first_words"] == "held").unwrap());
    held.response().assert_error(499, "cancelled");
    let mut client = proxy.connect();
    client.send_chat(HELLO);
    let call = waiting("limit");
    assert!(call["waiting"]["until"].is_string(), "{call}");
    cancel(&call);
    client.response().assert_error(499, "cancelled");
}

#[test]
fn the_quota_is_counted_down() {
    let upstream = Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/key" => answer
            .json(200, r#"{"data":{"free_model_daily_requests":{"limit":50,"remaining":38,"used":12}}}"#),
        _ if request.body.contains("busy") => answer.json(429, r#"{"error":{"code":429,"message":"busy"}}"#),
        _ if request.body.contains("day") => {
            answer.json(429, r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day"}}"#)
        }
        _ => answer.say("hi"),
    })
    .with_key_checks();
    let proxy = Proxy::recording(&upstream, "RETRIES=0");
    proxy.wait_for_console("accepts the key");
    let keys = || upstream.received().iter().filter(|request| request.path == "/api/v1/key").count();
    let remaining = || proxy.get("/debug/state").json()["quota"]["remaining"].as_u64();
    let until = |expected| eventually("the quota", || (remaining() == Some(expected)).then_some(()));
    proxy.chat(HELLO);
    until(38);
    proxy.chat(HELLO);
    proxy.chat(HELLO);
    assert_eq!((remaining(), keys()), (Some(36), 2), "the first one was the start's");
    proxy.chat(&HELLO.replace("hello", "busy"));
    until(38);
    assert_eq!(keys(), 3, "asked again after a 429");
    proxy.chat(&HELLO.replace("hello", "day"));
    let state = eventually("the limit", || {
        Some(proxy.get("/debug/state").json()).filter(|state| state["quota"]["remaining"] == 0)
    });
    assert_eq!(state["state"], "limit");
    assert_eq!(state["quota"]["used"], 50);
}

#[test]
fn what_is_wrong_with_the_upstream_is_said_without_a_call() {
    let upstream = Upstream::start(|_, answer| {
        answer.json(401, r#"{"error":{"code":401,"message":"User not found."}}"#)
    })
    .with_key_checks();
    let proxy = Proxy::recording(&upstream, "");
    let state = |proxy: &Proxy, expected: &str| {
        eventually(expected, || Some(proxy.get("/debug/state").json()).filter(|s| s["state"] == expected))
    };
    state(&proxy, "key_refused");
    proxy.write_env("OPENROUTER_API_KEY=sk-or-v1-x\nOPENROUTER_BASE_URL=http://127.0.0.1:1/api/v1\nHTTP_PROXY=http://127.0.0.1:2\nCACHE_DIR=cache");
    let unreachable = state(&proxy, "unreachable");
    assert!(unreachable["reason"].as_str().unwrap().contains("connection refused"), "{unreachable}");
    assert!(unreachable["reason_in_chinese"].as_str().unwrap().contains("连接被拒绝"));
    assert!(unreachable["env_file"].as_str().unwrap().ends_with(".env"));
    proxy.write_env("CACHE_DIR=cache");
    state(&proxy, "no_key");
}

#[test]
fn what_is_too_large_to_open_is_named() {
    let upstream = Upstream::saying("hi");
    let home = Proxy::recording(&upstream, "").kill();
    let cache = home.path().join("cache");
    std::fs::create_dir_all(&cache).unwrap();
    let large = std::fs::File::create(cache.join("20240214_103045_123_RESPONSE_a1b2c3d4.json")).unwrap();
    large.set_len(400 << 20).unwrap();
    let proxy = Start::from(home).start();
    let before = proxy.usage().peak_kib;
    let call = eventually("the call", || calls_of(&proxy).pop());
    let told = whole(&proxy, &call);
    assert_eq!(told["too_large"][0]["bytes"], 400 << 20, "{told}");
    assert!(told["too_large"][0]["path"].as_str().unwrap().ends_with("_RESPONSE_a1b2c3d4.json"));
    assert!(proxy.usage().peak_kib < before + 50_000, "it isn't read whole");
}

/// A link to a call stays good for as long as its files are there.
#[test]
fn a_call_that_is_no_longer_among_the_newest_opens_from_its_files() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    let mut client = proxy.connect();
    client.chat(&HELLO.replace("hello", "the first"));
    let first = calls_of(&proxy).remove(0);
    for _ in 0..1001 {
        client.chat(HELLO);
    }
    assert!(calls_of(&proxy).iter().all(|call| call["message_id"] != first["message_id"]));
    let told = whole(&proxy, &first);
    assert_eq!((&told["first_words"], &told["time_ms"]), (&"the first".into(), &first["time_ms"]));
    assert_eq!(told["response"]["choices"][0]["message"]["content"], "hi");
}

#[test]
fn a_browser_is_told_how_debug_mode_is_switched_on() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let ask = |path: &str, more: &str| {
        proxy.connect().exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"))
    };
    let english = ask("/debug", "Accept: text/html,*/*;q=0.8\r\nAccept-Language: de,en\r\n");
    assert_eq!((english.status, english.header("content-type")), (403, Some("text/html; charset=utf-8")));
    let path = proxy.dir.join("DEBUG_MODE.txt").display().to_string();
    assert!(english.text().contains(&path) && english.text().contains("Debug mode is off"));
    assert!(!english.header("content-security-policy").unwrap().contains("unsafe"));
    let chinese = ask("/debug", "Accept: text/html\r\nAccept-Language: zh-CN,zh;q=0.9\r\n");
    assert!(chinese.text().contains("调试模式已关闭") && chinese.text().contains(&path));
    ask("/debug", "Accept: */*\r\n").assert_error(403, "debug_disabled");
    ask("/debug/stats", "").assert_error(403, "debug_disabled");
}
