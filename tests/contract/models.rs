//! Section 3: knowing the models.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::fixture::*;

const ROUTER_REQUEST: &str = r#"{"messages":[{"role":"user","content":"hello"}]}"#;

fn completion_by(model: &str) -> String {
    completion("hi").replace(MODEL, model)
}

fn error(status: u16, message: &str) -> String {
    format!(r#"{{"error":{{"code":{status},"message":"{message}"}}}}"#)
}

fn models_asked(upstream: &Upstream) -> Vec<String> {
    let received = upstream.received();
    let posts = received.iter().filter(|request| !request.body.is_empty());
    posts.map(|request| request.json()["model"].as_str().unwrap().to_owned()).collect()
}

/// One whose models each answer with a status and a message, or well.
fn with_troubles(troubles: &'static [(&'static str, u16, &'static str)]) -> Upstream {
    Upstream::start(move |request, answer| {
        if request.body.is_empty() {
            return answer.json(
                200,
                r#"{"data":[{"id":"small/a:free","context_length":8000},{"id":"large/b:free","context_length":1000000},{"id":"other/c:free","context_length":32000},{"id":"paid/d","context_length":9000000}]}"#,
            );
        }
        let model = request.json()["model"].as_str().unwrap().to_owned();
        match troubles.iter().find(|(troubled, ..)| *troubled == model) {
            Some((_, status, message)) => answer.json(*status, &error(*status, message)),
            None => answer.json(200, &completion_by(&model)),
        }
    })
}

#[test]
fn a_model_that_is_gone_is_passed_over_for_an_hour() {
    let upstream = with_troubles(&[("some/model:free", 404, "No endpoints found for some/model:free.")]);
    let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=second/one:free");
    for _ in 0..3 {
        let response = proxy.chat(HELLO);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("x-proxy-model"), Some("some/model:free -> second/one:free"));
    }
    let asked = models_asked(&upstream);
    assert_eq!(asked, ["some/model:free", "second/one:free", "second/one:free", "second/one:free"]);
    proxy.wait_for_console("isn't there any more");
    assert_eq!(proxy.console().matches("isn't there any more").count(), 1, "said once");
}

#[test]
fn what_a_model_cannot_do_the_next_one_does_at_once() {
    for (status, message) in [
        (404, "No endpoints found that support tool use."),
        (404, "No endpoints found that support image input"),
        (400, "some/model:free is not a valid model ID"),
        (400, "This model does not support structured outputs"),
    ] {
        let upstream = Upstream::start(move |request, answer| {
            if request.body.contains("some/model") {
                answer.json(status, &error(status, message))
            } else {
                answer.say("hi")
            }
        });
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.chat(HELLO);
        assert_eq!((response.status, response.header("x-proxy-attempts")), (200, Some("2")), "{message}");
        assert_eq!(models_asked(&upstream), ["some/model:free", "openrouter/free"]);
        // Within the tries that there are.
        proxy.write_env(&env(&upstream, "RETRIES=0"));
        if !message.contains("valid") {
            assert_eq!(proxy.chat(HELLO).status, status, "{message}");
        }
    }
}

#[test]
fn a_prompt_that_is_too_long_goes_to_the_largest_context() {
    let upstream = with_troubles(&[
        ("small/a:free", 400, "This endpoint's maximum context length is 8000 tokens. You requested 9000."),
        ("openrouter/free", 413, "The prompt has too many tokens for the context of this model"),
    ]);
    let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=other/c:free");
    let response = proxy.chat(&HELLO.replace(MODEL, "small/a:free"));
    assert_eq!(response.header("x-proxy-model"), Some("small/a:free -> large/b:free"));
    assert_eq!(proxy.chat(ROUTER_REQUEST).status, 200);
    assert_eq!(models_asked(&upstream), ["small/a:free", "large/b:free", "openrouter/free", "large/b:free"]);
}

#[test]
fn the_routers_own_404_passes_on() {
    let upstream = with_troubles(&[("openrouter/free", 404, "No endpoints found matching your data policy")]);
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.chat(ROUTER_REQUEST);
    assert_eq!(response.status, 404);
    assert!(response.text().contains("data policy"));
    assert_eq!(upstream.calls(), 1, "another try can't heal it");
}

/// The router answers by itself as often as `good` says, else it fails.
fn router(good: impl Fn(usize) -> bool + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request, answer| {
        let model = request.json()["model"].as_str().unwrap().to_owned();
        match model.as_str() {
            "openrouter/free" if good(request.number) => answer.json(200, &completion_by("good/one:free")),
            "openrouter/free" => answer.respond(502, "retry-after: 0\r\n", &error(502, "x")),
            _ => answer.json(200, &completion_by(&model)),
        }
    })
}

#[test]
fn what_answered_last_is_tried_after_the_router_has_failed() {
    let upstream = router(|number| number == 1);
    let proxy = Proxy::before(&upstream, "STICKY_MINUTES=0");
    for _ in 0..3 {
        assert_eq!(proxy.chat(ROUTER_REQUEST).status, 200);
    }
    let asked = models_asked(&upstream);
    let expected =
        ["openrouter/free", "openrouter/free", "good/one:free", "openrouter/free", "good/one:free"];
    assert_eq!(asked, expected, "the first try stays the router's");
    // Other needs are another matter.
    let tools = ROUTER_REQUEST.replacen('{', r#"{"tools":[{"type":"function","function":{"name":"f"}}],"#, 1);
    assert_eq!(proxy.chat(&tools).status, 502);
    assert_eq!(models_asked(&upstream)[5..], ["openrouter/free"; 3]);
}

#[test]
fn a_model_whose_provider_says_429_rests() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("some/model") {
            answer.respond(
                429,
                "retry-after: 5\r\n",
                r#"{"error":{"code":429,"message":"x","metadata":{"provider_code":429}}}"#,
            )
        } else {
            answer.say("hi")
        }
    });
    let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=b:free\nRETRIES=0");
    assert_eq!(proxy.chat(HELLO).status, 429);
    let response = proxy.chat(HELLO);
    assert_eq!(response.header("x-proxy-model"), Some("some/model:free -> b:free"));
    assert_eq!(models_asked(&upstream), ["some/model:free", "b:free"]);
}

/// The request of turn `turn` of a conversation, as clients send it: all of it, again and again.
fn turn(turn: usize) -> String {
    let mut messages = vec![r#"{"role":"system","content":"be brief"}"#.to_owned()];
    for number in 0..=turn {
        messages.push(format!(r#"{{"role":"user","content":"question {number}"}}"#));
        if number < turn {
            messages.push(format!(r#"{{"role":"assistant","content":"answer {number}"}}"#));
        }
    }
    format!(r#"{{"messages":[{}]}}"#, messages.join(","))
}

#[test]
fn a_conversation_keeps_its_model_as_long_as_that_answers() {
    // The router's choice is another one each time; the first one stops answering in the middle.
    let picks = Arc::new(Mutex::new(0));
    let upstream = Upstream::start(move |request, answer| {
        let model = request.json()["model"].as_str().unwrap().to_owned();
        let turn = request.body.matches("question").count();
        match model.as_str() {
            "openrouter/free" => {
                *picks.lock().unwrap() += 1;
                answer.json(200, &completion_by(&format!("pick/{}:free", picks.lock().unwrap())));
            }
            "pick/1:free" if turn > 5 => answer.respond(503, "retry-after: 0\r\n", &error(503, "x")),
            _ => answer.json(200, &completion_by(&model)),
        }
    });
    let proxy = Proxy::before(&upstream, "");
    let answered = (0..10).map(|number| {
        let response = proxy.chat(&turn(number));
        response.json()["model"].as_str().unwrap().to_owned()
    });
    let mut by = HashMap::<String, usize>::new();
    answered.for_each(|model| *by.entry(model).or_default() += 1);
    assert_eq!(by, HashMap::from([("pick/1:free".to_owned(), 5), ("pick/2:free".to_owned(), 5)]));

    proxy.write_env(&env(&upstream, "STICKY_MINUTES=0"));
    proxy.chat(&turn(10));
    assert_eq!(models_asked(&upstream).last().unwrap(), "openrouter/free", "switched off");
}

#[test]
fn a_fresh_start_remembers_nothing_and_works() {
    let upstream = with_troubles(&[("some/model:free", 404, "No endpoints found for some/model:free.")]);
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.chat(HELLO).status, 200);
    let proxy = Start::from(proxy.kill()).start();
    assert_eq!(proxy.chat(HELLO).status, 200);
    let asked = models_asked(&upstream);
    assert_eq!(asked, ["some/model:free", "openrouter/free", "some/model:free", "openrouter/free"]);
}

/// A generator that gives the same numbers for the same seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// Ten free models: four that always say 429, two that fail half of the time, four good ones.
fn ten_models(seed: u64) -> Upstream {
    let random = Mutex::new(Random(seed));
    Upstream::start(move |request, answer| {
        let asked = request.json()["model"].as_str().unwrap().to_owned();
        let mut random = random.lock().unwrap();
        let number =
            match asked.strip_prefix("model/").and_then(|rest| rest.strip_suffix(":free")?.parse().ok()) {
                Some(number) => number,
                None if asked == "openrouter/free" => random.below(10),
                None => return answer.json(404, &error(404, &format!("No endpoints found for {asked}."))),
            };
        let model = format!("model/{number}:free");
        let now = "content-type: application/json\r\nretry-after: 0\r\n";
        match number {
            0..4 => answer.respond(
                429,
                now,
                r#"{"error":{"code":429,"message":"x","metadata":{"provider_code":429}}}"#,
            ),
            4..6 if random.below(2) == 0 => answer.respond(502, now, &error(502, "x")),
            _ => answer.json(200, &completion_by(&model)),
        }
    })
}

#[test]
fn a_batch_of_a_hundred_among_ten_models_of_which_half_fail() {
    for (seed, body) in [
        (1, ROUTER_REQUEST),
        (2, ROUTER_REQUEST),
        (3, r#"{"model":"retired/one:free","messages":[{"role":"user","content":"hello"}]}"#),
    ] {
        let upstream = ten_models(seed);
        let proxy = Proxy::before(&upstream, "");
        let mut client = proxy.connect();
        let answered = (0..100).filter(|_| client.chat(body).status == 200).count();
        assert!(answered >= 98, "{seed}: {answered} answered");
        assert!(upstream.calls() <= 170, "{seed}: {} calls", upstream.calls());
    }
}

/// An upstream with a list for each kind, and another one for the account.
fn with_lists() -> Upstream {
    let list = |entries: &[(&str, &str)]| {
        let entries = entries.iter().map(|(id, output)| {
            format!(r#"{{"id":"{id}","architecture":{{"input_modalities":["text"],"output_modalities":["{output}"]}}}}"#)
        });
        format!(r#"{{"data":[{}]}}"#, entries.collect::<Vec<_>>().join(","))
    };
    Upstream::start(move |request, answer| match request.path.strip_prefix("/api/v1").unwrap() {
        "/models/user" if request.header("authorization").is_some() => answer.json(
            200,
            &list(&[
                ("a/chat:free", "text"),
                ("paid/chat", "text"),
                ("n/content-safety:free", "text"),
                ("a/chat:free", "text"),
                ("b/image:free", "image"),
                ("b/chat:free", "text"),
            ]),
        ),
        "/models" => {
            answer.json(200, &list(&[("a/chat:free", "text"), ("hidden/by-the-account:free", "text")]))
        }
        "/embeddings/models" => {
            answer.json(200, &list(&[("n/vectors:free", "embeddings"), ("n/paid", "embeddings")]))
        }
        "/models?output_modalities=rerank" => answer.json(200, &list(&[("n/order:free", "rerank")])),
        "/models?output_modalities=speech" => {
            answer.json(200, &list(&[("f/voice:free", "speech"), ("a/chat:free", "text")]))
        }
        _ => answer.json(404, &error(404, "no such path")),
    })
}

fn ids_at(proxy: &Proxy, path: &str) -> Vec<String> {
    let list = proxy.get(path).json();
    let ids = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[test]
fn the_list_has_what_the_account_may_chat_with_and_other_kinds_where_they_are_asked_for() {
    let upstream = with_lists();
    let proxy = Proxy::before(&upstream, "");
    let chat = ["openrouter/free", "best", "a/chat:free", "b/chat:free"];
    for path in [
        "/v1/models",
        "/v1/models/user",
        "/models?output_modalities=text&x=y",
        "/api/v1/models?output_modalities=image",
    ] {
        assert_eq!(ids_at(&proxy, path), chat, "{path}");
    }
    let with = |others: &[&str]| chat.iter().chain(others).map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        ids_at(&proxy, "/v1/models?output_modalities=all"),
        with(&["n/vectors:free", "n/order:free", "f/voice:free"])
    );
    assert_eq!(
        ids_at(&proxy, "/v1/models?output_modalities=speech%2Cembeddings"),
        with(&["n/vectors:free", "f/voice:free"])
    );
    assert_eq!(ids_at(&proxy, "/v1/embeddings/models"), ["n/vectors:free"]);
    assert_eq!(proxy.get("/v1/models/f/voice:free").json()["object"], "model");
    assert_eq!(proxy.get("/v1/models/n/content-safety:free").status, 404);

    // Without a key there is no account.
    proxy.write_env(&format!("OPENROUTER_BASE_URL={}\n", upstream.url()));
    proxy.wait_for_console("OPENROUTER_API_KEY = not set");
    assert_eq!(
        ids_at(&proxy, "/v1/models"),
        ["openrouter/free", "best", "a/chat:free", "hidden/by-the-account:free"]
    );
    assert_eq!(upstream.received().last().unwrap().path, "/api/v1/models");
}

/// <https://openrouter.ai/docs/api/api-reference/models/get-models>
#[test]
fn every_entry_has_what_openrouters_own_clients_insist_on() {
    let upstream = with_troubles(&[]);
    let proxy = Proxy::before(&upstream, "BACKUPS=ollama\nOLLAMA_MODEL=llama3.2");
    let list = proxy.get("/v1/models").json();
    for entry in list["data"].as_array().unwrap() {
        for text in ["id", "name", "canonical_slug"] {
            assert!(entry[text].is_string(), "{text} of {entry}");
        }
        for (holder, inside) in [
            ("architecture", "input_modalities"),
            ("architecture", "output_modalities"),
            ("pricing", "prompt"),
            ("pricing", "completion"),
            ("top_provider", "is_moderated"),
            ("links", "details"),
        ] {
            assert!(!entry[holder][inside].is_null(), "{holder}.{inside} of {entry}");
        }
        for present in ["context_length", "per_request_limits", "default_parameters", "supported_voices"] {
            assert!(entry.as_object().unwrap().contains_key(present), "{present} of {entry}");
        }
        assert!(entry["supported_parameters"].is_array() && entry["created"].is_u64(), "{entry}");
    }
}

#[test]
fn a_list_that_failed_is_not_asked_for_at_every_request() {
    let upstream = Upstream::start(|_, answer| answer.json(500, "{}"));
    let proxy = Proxy::before(&upstream, "");
    for _ in 0..20 {
        assert_eq!(ids_at(&proxy, "/v1/models"), ["openrouter/free", "best"]);
    }
    assert_eq!(upstream.calls(), 2, "/models/user and /models, once each");
}

#[test]
fn made_up_names_dont_stop_the_learning() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.contains("gone/") {
            answer.json(404, &error(404, "No endpoints found for it."))
        } else {
            answer.json(502, "{}")
        }
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    let ask = |model: &str| proxy.chat(&HELLO.replace(MODEL, model)).status;
    let mut client = proxy.connect();
    for number in 0..1100 {
        client.chat(&HELLO.replace(MODEL, &format!("made/up-{number}:free")));
    }
    assert_eq!(ask("gone/one:free"), 404);
    assert_eq!(ask("gone/one:free"), 502, "it isn't asked again: the router is");
}

/// The rests, the share and the times that were seen.
#[test]
fn what_was_seen_of_the_models_outlives_a_restart() {
    let upstream = Upstream::start(|request, answer| match request.body.contains("busy/one") {
        _ if request.body.is_empty() => {
            answer.json(200, r#"{"data":[{"id":"some/model:free"},{"id":"busy/one:free"}]}"#)
        }
        true => answer.respond(
            429,
            "retry-after: 3600\r\n",
            r#"{"error":{"code":429,"message":"Provider returned error","metadata":{"provider_name":"P"}}}"#,
        ),
        false => answer.say("hi"),
    });
    let proxy = Proxy::recording(&upstream, "RETRIES=0");
    proxy.chat(HELLO).assert_status(200);
    proxy.chat(&HELLO.replace(MODEL, "busy/one:free")).assert_status(429);
    let of = |proxy: &Proxy, id: &str| {
        let page = proxy.get("/debug/models").json();
        page["models"].as_array().unwrap().iter().find(|model| model["id"] == id).cloned().unwrap()
    };
    let file = proxy.dir.join("cache/.local-api-proxy-models.json");
    let (some, busy) = (of(&proxy, MODEL), of(&proxy, "busy/one:free"));
    assert!(busy["rests_until_ms"].is_u64() && busy["rank"].is_null(), "{busy}");
    assert_eq!((&some["calls"], &some["rank"]), (&1.into(), &1.into()));
    eventually("the file", || std::fs::read_to_string(&file).ok().filter(|text| text.contains("busy/one")));

    let again = Start::from(proxy.kill()).start();
    let (some_now, busy_now) = (of(&again, MODEL), of(&again, "busy/one:free"));
    assert_eq!((&some_now["calls"], &some_now["first_token_ms"]), (&some["calls"], &some["first_token_ms"]));
    assert_eq!(busy_now["rests_until_ms"], busy["rests_until_ms"]);

    let home = again.kill();
    std::fs::write(home.path().join("cache/.local-api-proxy-models.json"), "{\"a").unwrap();
    let again = Start::from(home).start();
    again.wait_for_console("what was known of the models is forgotten");
    assert_eq!(of(&again, MODEL)["calls"], 0);
    again.chat(HELLO).assert_status(200);
    let text = eventually("a whole file again", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains(MODEL))
    });
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
}
