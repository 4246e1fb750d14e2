//! Section 3: backups.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::fixture::*;

/// OpenRouter at the end of its day, until then.
fn used_up(reset_ms: u128) -> String {
    format!(
        r#"{{"error":{{"message":"Rate limit exceeded: free-models-per-day. ","code":429,"metadata":{{"headers":{{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset_ms}"}}}}}}}}"#
    )
}

fn settings(backup: &Upstream, more: &str) -> String {
    format!(
        "BACKUPS=ollama\nOLLAMA_BASE_URL={}\nOLLAMA_MODEL=llama3.2\nOLLAMA_API_KEY=sk-backup-key-5678\n{more}",
        backup.url()
    )
}

#[test]
fn the_days_limit_in_the_middle_of_a_batch() {
    let reset = now_ms() + 3_600_000;
    let upstream = Upstream::start(move |request, answer| match request.number {
        ..=50 => answer.fitting(request, "from OpenRouter"),
        _ => answer.json(429, &used_up(reset)),
    });
    let backup = Upstream::saying("from the backup");
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    let mut client = proxy.connect();
    let mut by_backup = 0;
    for number in 0..100 {
        let body = if number % 2 == 0 { HELLO } else { HELLO_STREAM };
        let response = client.chat(body);
        assert_eq!(response.status, 200, "{response:?}");
        if response.header("x-proxy-backup") == Some("ollama") {
            assert_eq!(response.header("x-proxy-model"), Some("some/model:free -> llama3.2"));
            by_backup += 1;
        }
    }
    assert_eq!((upstream.calls(), by_backup), (51, 50), "not one call to OpenRouter after its 429");
    // The limit is over for another account.
    let text = env(&upstream, &settings(&backup, "")).replace(KEY, "sk-or-v1-of-another-account");
    proxy.write_env(&text);
    client.chat(HELLO);
    assert_eq!(upstream.calls(), 52);
}

/// Those who waited for the minute's limit when the day's came are no more at once than any others.
#[test]
fn a_slow_backup_takes_no_more_than_the_workers() {
    static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let minute = now_ms() + 1000;
    let upstream = Upstream::start(move |_, answer| {
        if now_ms() < minute {
            answer.json(429, &used_up(minute))
        } else {
            answer.json(429, &used_up(minute + 3_600_000))
        }
    });
    let backup = Upstream::start(|request, answer| {
        MOST.fetch_max(AT_ONCE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        while !GO_ON.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        AT_ONCE.fetch_sub(1, Ordering::SeqCst);
        answer.fitting(request, "from the backup");
    });
    let proxy = Proxy::before(&upstream, &settings(&backup, "WORKERS=2"));
    let mut clients = (0..12).map(|_| proxy.connect()).collect::<Vec<_>>();
    clients.iter_mut().for_each(|client| client.send_chat(HELLO));
    backup.wait_for(2);
    assert_eq!(proxy.get("/health").status, 200);
    GO_ON.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.response().header("x-proxy-backup"), Some("ollama"));
    }
    assert!(MOST.load(Ordering::SeqCst) <= 2, "{MOST:?} at once");
}

#[test]
fn openrouter_is_asked_again_once_the_limit_is_over() {
    let reset = now_ms() + 1500;
    let upstream = Upstream::start(move |request, answer| {
        if now_ms() < reset {
            answer.json(429, &used_up(reset))
        } else {
            answer.fitting(request, "from OpenRouter")
        }
    });
    let backup = Upstream::saying("from the backup");
    let proxy = Proxy::before(&upstream, &settings(&backup, "MAX_WAIT=0"));
    assert_eq!(proxy.chat(HELLO).header("x-proxy-backup"), Some("ollama"));
    assert_eq!(proxy.chat(HELLO).header("x-proxy-backup"), Some("ollama"));
    assert_eq!(upstream.calls(), 1);
    eventually("the limit's end", || {
        let response = proxy.chat(HELLO);
        assert_eq!(response.status, 200);
        (response.header("x-proxy-backup").is_none()).then_some(())
    });
}

#[test]
fn what_reaches_a_backup() {
    let upstream =
        Upstream::start(|_, answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#));
    let backup = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    let body = r#"{"model":"a:free","models":["b:free"],"route":"fallback","provider":{"sort":"price"},"transforms":[],"plugins":[{"id":"response-healing"}],"temperature":1.50,"messages":[]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Title: mine\r\nX-Local-Api-Proxy-Hops: another\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    proxy.connect().exchange(&request).assert_status(200);
    let sent = backup.last();
    assert_eq!(sent.path, "/api/v1/chat/completions");
    assert_eq!(sent.body, r#"{"model":"llama3.2","temperature":1.50,"messages":[]}"#);
    assert_eq!(sent.header("authorization"), Some("Bearer sk-backup-key-5678"));
    // Or proxies that are each other's backups ask for ever.
    let hops = sent.header("x-local-api-proxy-hops").unwrap_or_default();
    assert!(hops.starts_with("another, "), "{hops}");
    for (name, value) in &sent.headers {
        assert!(!value.contains(KEY), "{name}: {value}");
        assert!(!["http-referer", "x-title", "x-openrouter-title"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn when_they_are_asked() {
    type Fault = (&'static str, fn(&Received, &mut Answer<'_>));
    let faults: [Fault; 8] = [
        ("the tries are used up", |_, answer| answer.respond(502, "retry-after: 0\r\n", "{}")),
        ("402", |_, answer| answer.json(402, "{}")),
        ("every model is gone", |request, answer| {
            if request.body.contains("openrouter/free") {
                answer.respond(502, "retry-after: 0\r\n", "{}")
            } else {
                answer.json(404, r#"{"error":{"code":404,"message":"No endpoints found for it."}}"#)
            }
        }),
        ("busy for a minute", |_, answer| answer.respond(503, "retry-after: 60\r\n", "{}")),
        ("silence", |_, answer| {
            answer.sees_close();
        }),
        ("no answer", |_, answer| answer.close()),
        ("an empty answer", |_, answer| answer.say("")),
        ("an error as the first event", |_, answer| {
            answer.stream_head();
            answer.piece("data: {\"error\":{\"code\":502,\"message\":\"x\"}}\n\n");
            answer.end();
        }),
    ];
    std::thread::scope(|scope| {
        for (name, fault) in faults {
            scope.spawn(move || {
                let upstream = Upstream::start(fault);
                let backup = Upstream::saying("from the backup");
                let proxy = Proxy::before(
                    &upstream,
                    &settings(&backup, "RETRIES=1\nUPSTREAM_TIMEOUT=1\nFALLBACK_MODELS=other/one:free"),
                );
                for body in [HELLO, HELLO_STREAM] {
                    let response = proxy.chat(body);
                    assert_eq!(
                        (response.status, response.header("x-proxy-backup")),
                        (200, Some("ollama")),
                        "{name}"
                    );
                    assert!(
                        response.text().contains("from the ") || response.text().contains("backup"),
                        "{name}"
                    );
                }
                assert_eq!(backup.calls(), 2, "{name}: one try each");
            });
        }
    });
    // Not where the request itself is wrong.
    let upstream = Upstream::start(|_, answer| answer.json(400, r#"{"error":{"code":400,"message":"bad"}}"#));
    let backup = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    assert_eq!(proxy.chat(HELLO).status, 400);
    assert_eq!(backup.calls(), 0);
}

#[test]
fn without_an_openrouter_key_the_backup_answers() {
    let backup = Upstream::saying("from the backup");
    let proxy = Start::new().env_file(settings(&backup, "")).start();
    assert_eq!(proxy.chat(HELLO).header("x-proxy-backup"), Some("ollama"));
}

#[test]
fn the_next_one_is_asked_where_one_cannot() {
    let upstream = Upstream::start(|_, answer| answer.json(402, "{}"));
    let stranger = Upstream::start(|_, answer| answer.json(404, "{}"));
    let tired = Upstream::start(|_, answer| answer.respond(429, "retry-after: 40\r\n", "{}"));
    let last = Upstream::saying("from the last");
    let more = format!(
        "BACKUPS=stranger, Tired,my-last\nSTRANGER_BASE_URL={}\nSTRANGER_MODEL=s\nTIRED_BASE_URL={}\nTIRED_MODEL=t\nMY_LAST_BASE_URL={}\nMY_LAST_MODEL=m",
        stranger.url(),
        tired.url(),
        last.url()
    );
    let proxy = Proxy::before(&upstream, &more);
    for _ in 0..2 {
        assert_eq!(proxy.chat(HELLO).header("x-proxy-backup"), Some("my-last"));
    }
    assert_eq!((stranger.calls(), tired.calls()), (2, 1), "one rests, the other is only passed over");
}

#[test]
fn the_cause_is_named_where_none_can_answer() {
    let reset = now_ms() + 3_600_000;
    let upstream = Upstream::start(move |_, answer| answer.json(429, &used_up(reset)));
    let stopped = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stopped = format!("BACKUPS=ollama\nOLLAMA_MODEL=m\nOLLAMA_BASE_URL=http://{stopped}/v1");
    let proxy = Proxy::before(&upstream, &stopped);
    let refused = proxy.chat(HELLO);
    refused.assert_error(429, "rate_limit_exceeded");
    assert!(refused.text().contains("ollama: ") && refused.text().contains("refused"), "{}", refused.text());
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 60, "the soonest");

    for (fault, named) in [
        (r#"401 {"error":{"message":"Incorrect API key provided"}}"#, "Incorrect API key"),
        (r#"429 {"error":{"message":"slow down"}}"#, "slow down"),
    ] {
        let (status, body) = fault.split_once(' ').unwrap();
        let status = status.parse().unwrap();
        let backup = Upstream::start(move |_, answer| answer.json(status, body));
        let proxy = Proxy::before(&upstream, &settings(&backup, ""));
        let refused = proxy.chat(HELLO);
        refused.assert_error(429, "rate_limit_exceeded");
        assert!(refused.text().contains(named), "{}", refused.text());
        proxy.wait_for_console(named);
    }
    let silent = Upstream::start(|_, answer| {
        answer.sees_close();
    });
    let proxy = Proxy::before(&upstream, &settings(&silent, "UPSTREAM_TIMEOUT=1"));
    let refused = proxy.chat(HELLO);
    refused.assert_error(429, "rate_limit_exceeded");
    assert!(refused.text().contains("ollama: no byte for 1 s"), "{}", refused.text());
    proxy.chat(HELLO).assert_error(429, "rate_limit_exceeded");
    assert_eq!(silent.calls(), 2, "silence is no wish to be left alone");
}

/// An answer that isn't what was asked for, and how a request asks for something else.
const READABLE: [(&str, &str); 4] = [
    (r#"{"role":"assistant","content":"","reasoning":"hm"}"#, ""),
    (r#"{"role":"assistant","content":"<think>hm</think>\n"}"#, ""),
    (r#"{"role":"assistant","content":"no JSON"}"#, r#","response_format":{"type":"json_object"}"#),
    (
        r#"{"role":"assistant","content":"<tool_call>{}</tool_call>"}"#,
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#,
    ),
];

fn says(message: &'static str) -> Upstream {
    let choice = format!(r#"{{"index":0,"message":{message},"finish_reason":"stop"}}"#);
    Upstream::start(move |_, answer| answer.json(200, &format!(r#"{{"model":"m","choices":[{choice}]}}"#)))
}

#[test]
fn what_can_be_read_is_better_than_nothing() {
    let failing = Upstream::start(|_, answer| answer.json(500, "{}"));
    for (message, asks) in READABLE {
        let backup = says(message);
        let body = format!("{}{asks}}}", HELLO.strip_suffix('}').unwrap());
        let more = format!("BACKUPS=ollama,broken\nBROKEN_BASE_URL={}\nBROKEN_MODEL=b", failing.url());
        let settings = settings(&backup, &more).replacen("BACKUPS=ollama\n", "", 1);
        let used_up = Upstream::start(move |_, answer| answer.json(429, &used_up(now_ms() + 3_600_000)));
        let proxies = [
            Start::new().env_file(settings.clone()).start(),
            Start::new().env_file(settings.replace(",broken", "")).start(),
            Proxy::before(&used_up, &settings),
        ];
        for proxy in proxies {
            let response = proxy.chat(&body);
            assert_eq!(response.status, 200, "{message}: {response:?}");
            assert!(response.text().contains(message), "{response:?}");
            assert_eq!(response.header("x-proxy-backup"), Some("ollama"), "{message}");
        }
        // Another one's real answer is better still.
        let good = Upstream::saying("a real answer");
        let settings = settings.replace(&failing.url(), &good.url());
        let proxy = Start::new().env_file(settings).start();
        assert_eq!(proxy.chat(&body).header("x-proxy-backup"), Some("broken"), "{message}");
    }
}

#[test]
fn a_call_written_as_text_is_healed_in_a_backups_stream_too() {
    let [text, good] = ["<tool_call>{}</tool_call>", "a real answer"].map(Upstream::saying);
    let tools = r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"#;
    let body = HELLO_STREAM.replacen('{', &format!("{{{tools}"), 1);
    let more = format!("BACKUPS=ollama,other\nOTHER_BASE_URL={}\nOTHER_MODEL=b", good.url());
    let settings = settings(&text, &more).replacen("BACKUPS=ollama\n", "", 1);
    let proxy = Start::new().env_file(settings.clone()).start();
    let response = proxy.chat(&body);
    assert_eq!((response.header("x-proxy-backup"), response.status), (Some("other"), 200));
    assert!(!response.text().contains("tool_call"), "{}", response.text());
    let proxy = Start::new().env_file(settings.replace(",other", "")).start();
    assert!(proxy.chat(&body).text().contains("tool_call"), "the last one's is better than nothing");
}

#[test]
fn attempts_are_counted_as_they_were_made() {
    let used_up = Upstream::start(move |_, answer| answer.json(429, &used_up(now_ms() + 3_600_000)));
    let backup = Upstream::start(|_, answer| answer.json(500, "{}"));
    let proxy = Proxy::recording(&used_up, &settings(&backup, ""));
    let refused = proxy.chat(HELLO);
    assert_eq!((refused.status, refused.header("x-proxy-attempts"), backup.calls()), (429, None, 1));
    let call = proxy.get("/debug/calls").json()["calls"][0].clone();
    assert_eq!((&call["attempts"], call["tries"].as_array().unwrap().len()), (&1.into(), 1), "{call}");
    let failing = Upstream::start(|_, answer| answer.respond(500, "retry-after: 0\r\n", "{}"));
    let proxy = Proxy::before(&failing, &settings(&backup, "RETRIES=1"));
    let refused = proxy.chat(HELLO);
    assert_eq!((refused.status, refused.header("x-proxy-attempts")), (500, Some("3")), "{refused:?}");
}

#[test]
fn when_all_rest_the_client_is_told_when_to_come_back() {
    let used_up = Upstream::start(move |_, answer| answer.json(429, &used_up(now_ms() + 3_600_000)));
    let tired = Upstream::start(|_, answer| answer.respond(429, "retry-after: 40\r\n", "{}"));
    let proxy = Proxy::before(&used_up, &settings(&tired, ""));
    for path in ["/v1/chat/completions", "/v1/responses"] {
        let refused = proxy.post(path, r#"{"input":"hi","messages":[]}"#);
        let wait = refused.header("retry-after").unwrap().parse::<u128>().unwrap();
        assert!((30..=40).contains(&wait), "{refused:?}");
        assert_eq!(refused.header("x-should-retry"), Some("true"));
        let text = refused.text();
        assert!(text.contains("every backup rests") && !text.contains("set up a backup"), "{text}");
        if let Some(resets_at) = refused.json()["error"]["resets_at"].as_u64() {
            let left = u128::from(resets_at) * 1000 - now_ms();
            assert!(left <= 41_000, "{text}");
        } else {
            assert_eq!(path, "/v1/chat/completions");
        }
    }
}

#[test]
fn their_settings_are_live_and_what_is_missing_is_said() {
    let upstream = Upstream::start(|_, answer| answer.json(402, "{}"));
    let backup = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "BACKUPS=ollama,groq");
    proxy.wait_for_console("OLLAMA_MODEL is missing");
    proxy.wait_for_console("GROQ_MODEL is missing");
    assert_eq!(proxy.chat(HELLO).status, 402);
    proxy.write_env(&env(&upstream, &settings(&backup, "")));
    assert_eq!(proxy.chat(HELLO).header("x-proxy-backup"), Some("ollama"));
    proxy.wait_for_console("BACKUPS = ollama (llama3.2 at");
    assert!(!proxy.console().contains("sk-backup-key"), "the key is masked");
}

#[test]
fn an_embedding_is_nobody_elses() {
    let upstream = Upstream::start(|_, answer| answer.json(402, "{}"));
    let backup = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, &settings(&backup, ""));
    assert_eq!(proxy.post("/v1/embeddings", r#"{"model":"e:free","input":"x"}"#).status, 402);
    assert_eq!(backup.calls(), 0);
}
