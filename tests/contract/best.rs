//! Section 3, "The best free model": which models stand in a call, and in which order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::dialects::{DIALECTS, plain_answer};
use crate::fixture::*;
use crate::models::Random;

/// A model as the list has it: its id without `:free`, its two indexes (0: unknown), what it can do (`t`ools, `i`mages,
/// `s`tructured output), its context and its last day.
type Entry = (&'static str, [u32; 2], &'static str, u64, &'static str);

const MODELS: [Entry; 8] = [
    ("a/low", [10, 12], "tis", 1_000_000, ""),
    ("b/mid", [30, 50], "t", 131_072, ""),
    ("c/new", [0, 0], "ts", 131_072, ""),
    ("d/top", [52, 20], "tis", 32_768, "2999-12-31"),
    ("e/expired", [60, 60], "tis", 131_072, "2026-01-31"),
    ("f/high", [40, 0], "", 131_072, ""),
    ("g/content-safety", [90, 90], "tis", 131_072, ""),
    ("h/vectors", [90, 90], "tis", 131_072, "embeddings"),
];

fn list(entries: &[Entry]) -> String {
    let entry = |(id, [intelligence, agentic], can, context, expires): &Entry| {
        let index = |value: &u32| if *value == 0 { Value::Null } else { json!(value) };
        let makes = if *expires == "embeddings" { "embeddings" } else { "text" };
        let sees = if can.contains('i') { vec!["text", "image"] } else { vec!["text"] };
        let can_do = [('t', "tools"), ('s', "structured_outputs")];
        let parameters = can_do.iter().filter(|(short, _)| can.contains(*short)).map(|(_, name)| *name);
        json!({
            "id": format!("{id}:free"), "context_length": context, "supported_parameters": parameters.collect::<Vec<_>>(),
            "architecture": {"input_modalities": sees, "output_modalities": [makes]},
            "expiration_date": Some(expires).filter(|date| date.starts_with('2')),
            "benchmarks": {"artificial_analysis": {"intelligence_index": index(intelligence), "agentic_index": index(agentic)}},
        })
    };
    json!({"data": entries.iter().map(entry).collect::<Vec<_>>()}).to_string()
}

/// The models that a call may be answered by, in their order, without `:free`.
fn asked(request: &Received) -> Vec<String> {
    let body = request.json();
    let first = body["model"].as_str().unwrap().to_owned();
    let others = body["models"].as_array().into_iter().flatten().map(|id| id.as_str().unwrap().to_owned());
    let mut all = vec![first];
    all.extend(others);
    let mut seen = HashSet::new();
    all.retain(|id| seen.insert(id.clone()));
    all.iter().map(|id| id.trim_end_matches(":free").to_owned()).collect()
}

/// The calls so far, each by the models that stood in it.
fn calls(upstream: &Upstream) -> Vec<String> {
    let received = upstream.received();
    received
        .iter()
        .filter(|request| !request.body.is_empty())
        .map(|request| asked(request).join(" "))
        .collect()
}

fn last_call(upstream: &Upstream) -> String {
    calls(upstream).pop().unwrap()
}

/// A status, headers and a message.
type Fault = (u16, &'static str, &'static str);

const BUSY: Fault = (429, "retry-after: 3600\r\n", "Provider returned error");
const BROKEN: Fault = (502, "retry-after: 0\r\n", "Bad gateway");
const GONE: Fault = (404, "", "No endpoints found for this model.");

fn answer_by(request: &Received, answer: &mut Answer<'_>, model: &str) {
    let path = request.path.split('?').next().unwrap();
    let model = format!("{model}:free");
    if request.streams() {
        answer.stream_head();
        answer.piece(&delta("hi").replace(MODEL, &model));
        answer.piece(&last_delta().replace(MODEL, &model));
        answer.piece("data: [DONE]\n\n");
        return answer.end();
    }
    let mut body = serde_json::from_str::<Value>(plain_answer(path)).unwrap();
    body["model"] = json!(model);
    if request.body.contains("response_format") {
        body["choices"][0]["message"]["content"] = json!("{}");
    }
    answer.json(200, &body.to_string());
}

fn answer_with((status, headers, message): Fault, answer: &mut Answer<'_>) {
    let metadata = if status == 404 { json!({}) } else { json!({"provider_name": "P"}) };
    let error = json!({"error": {"code": status, "message": message, "metadata": metadata}});
    answer.respond(status, &format!("content-type: application/json\r\n{headers}"), &error.to_string());
}

/// OpenRouter: goes on with the next model until one has no fault; the last one's is the answer then.
fn openrouter(
    entries: &'static [Entry],
    fault: impl Fn(&str, usize) -> Option<Fault> + Send + Sync + 'static,
) -> Upstream {
    Upstream::start(move |request, answer| {
        if request.body.is_empty() {
            return answer.json(200, &list(entries));
        }
        let models = asked(request);
        match models.iter().find(|model| fault(model, request.number).is_none()) {
            Some(model) => answer_by(request, answer, model),
            None => answer_with(fault(models.last().unwrap(), request.number).unwrap(), answer),
        }
    })
}

fn well(_: &str, _: usize) -> Option<Fault> {
    None
}

const HI: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;

fn with(fields: &str) -> String {
    HI.replacen('{', &format!("{{{fields},"), 1)
}

/// A piece of a text without blanks, as it stands in a prompt or holds a picture.
const BASE64: &str = "aGVsbG8gd29ybGQK";

const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;

#[test]
fn who_names_best_gets_the_best_three_in_one_call() {
    let upstream = openrouter(&MODELS, well);
    for (settings, named) in [
        ("", r#""model":"best""#),
        ("MODEL=best", r#""model":null"#),
        ("MODEL=best", r#""model":"gpt-4o""#),
        ("MODEL=best", r#""model":"openrouter/free""#),
        ("MODEL_MAP=gpt-4o*=best", r#""model":"gpt-4o-mini""#),
    ] {
        let proxy = Proxy::before(&upstream, settings);
        let response = proxy.chat(&with(named));
        assert_eq!((response.status, last_call(&upstream).as_str()), (200, "d/top f/high b/mid"), "{named}");
        let model = &upstream.received().last().unwrap().json()["model"];
        assert_eq!(model, "d/top:free");
        assert_eq!(response.json()["model"], "d/top:free");
        let told = response.header("x-proxy-model").unwrap();
        assert!(told.ends_with("d/top:free"), "{told} for {named}");
    }
}

#[test]
fn a_clients_own_choice_of_free_models_is_never_touched() {
    let upstream = openrouter(&MODELS, well);
    let proxy = Proxy::before(&upstream, "MODEL=best");
    for (body, expected) in [
        (with(r#""model":"x/own:free""#), "x/own"),
        (with(r#""model":"x/own:free","models":["y/own:free"]"#), "x/own y/own"),
        (with(r#""models":["x/own:free","y/own:free"]"#), "x/own y/own"),
        (with(r#""model":"best","models":["x/own:free"]"#), "d/top x/own"),
    ] {
        proxy.chat(&body).assert_status(200);
        assert_eq!(last_call(&upstream), expected, "{body}");
    }
}

#[test]
fn only_those_that_can_do_it_are_asked() {
    let upstream = openrouter(&MODELS, well);
    let proxy = Proxy::before(&upstream, "MODEL=best");
    let long = "word ".repeat(40_000);
    let picture = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}"#;
    let structured =
        r#""response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}}"#;
    for (body, expected) in [
        // By the agentic index where there is one; unknown counts as the lower quartile of 12, 20, 40, 50 and 60.
        (with(TOOLS), "b/mid c/new d/top"),
        (picture.to_owned(), "d/top a/low"),
        (with(structured), "d/top c/new a/low"),
        (with(&format!("{TOOLS},{structured}")), "c/new d/top a/low"),
        (with(r#""max_tokens":32760"#), "f/high b/mid c/new"),
        (with(r#""max_completion_tokens":200000"#), "a/low"),
        (HI.replace("hi", &long), "f/high b/mid c/new"),
        // However it is written, and also without blanks; but a picture is no text.
        (HI.replace("hi", &"\u{4f60}".repeat(9_000)), "d/top f/high b/mid"),
        (HI.replace("hi", &"\\u4f60".repeat(9_000)), "d/top f/high b/mid"),
        (HI.replace("hi", &BASE64.repeat(5_000)), "f/high b/mid c/new"),
        (picture.replace("AA==", &BASE64.repeat(5_000)), "d/top a/low"),
        (with(r#""max_tokens":2000000"#), "openrouter/free"),
    ] {
        proxy.chat(&body).assert_status(200);
        assert_eq!(last_call(&upstream), expected.replace(":free", ""), "{:.200}", body);
    }
}

#[test]
fn what_rests_or_is_gone_is_left_out_and_the_change_is_said_once() {
    let upstream = openrouter(&MODELS, |model, _| match model {
        "d/top" => Some(BUSY),
        "f/high" => Some(GONE),
        _ => None,
    });
    let proxy = Proxy::before(&upstream, "MODEL=best\nRETRIES=0");
    let named = |model: &str| proxy.chat(&HELLO.replace(MODEL, &format!("{model}:free"))).status;
    proxy.chat(&with(TOOLS)).assert_status(200);
    assert_eq!(last_call(&upstream), "b/mid c/new d/top");
    assert_eq!([named("d/top"), named("f/high")], [429, 404]);
    proxy.chat(HI).assert_status(200);
    assert_eq!(last_call(&upstream), "b/mid c/new a/low");
    proxy.wait_for_console("best is now b/mid:free");
    for _ in 0..3 {
        proxy.chat(HI).assert_status(200);
    }
    assert_eq!(proxy.console().matches("best is now b/mid:free").count(), 1, "{}", proxy.console());
}

#[test]
fn the_console_says_why_another_one_is_best() {
    let upstream = openrouter(&MODELS, |model, number| (model == "d/top" && number > 2).then_some(BUSY));
    let proxy = Proxy::before(&upstream, "MODEL=best\nRETRIES=0");
    proxy.chat(HI).assert_status(200);
    proxy.chat(&HELLO.replace(MODEL, "d/top:free")).assert_status(429);
    proxy.chat(HI).assert_status(200);
    proxy.wait_for_console("best is now f/high:free: d/top:free rests until ");
}

#[test]
fn those_before_the_one_that_answered_count_as_failed() {
    let upstream = openrouter(&MODELS, |model, _| (model == "d/top").then_some(BROKEN));
    let proxy = Proxy::recording(&upstream, "MODEL=best");
    let response = proxy.chat(&with(r#""model":"gpt-4o""#));
    assert_eq!(response.header("x-proxy-model"), Some("gpt-4o -> f/high:free"));
    assert_eq!(response.header("x-proxy-attempts"), None, "one call");
    let page = proxy.get("/debug/models").json();
    let of =
        |id: &str| page["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone();
    for (id, expected) in [("d/top:free", [1, 0]), ("f/high:free", [1, 1]), ("b/mid:free", [0, 0])] {
        let model = of(id);
        assert_eq!([&model["calls"], &model["answered"]], expected, "{model}");
    }
    // 52 × 2/3 is less than 40.
    assert_eq!([&of("f/high:free")["rank"], &of("d/top:free")["rank"]], [1, 2]);
    proxy.chat(HI).assert_status(200);
    assert_eq!(last_call(&upstream), "f/high d/top b/mid");
    assert_eq!(proxy.get("/debug/calls").json()["calls"][0]["model"], "f/high:free");
}

#[test]
fn each_next_try_has_the_next_three_and_the_router_is_the_last() {
    let upstream = openrouter(&MODELS, |model, _| (model != "openrouter/free").then_some(BROKEN));
    let proxy = Proxy::recording(&upstream, "MODEL=best\nRETRIES=3");
    let response = proxy.chat(HI);
    assert_eq!((response.status, response.header("x-proxy-attempts")), (200, Some("3")));
    assert_eq!(calls(&upstream), ["d/top f/high b/mid", "c/new a/low", "openrouter/free"]);
    let page = proxy.get("/debug/models").json();
    for model in page["models"].as_array().unwrap().iter().filter(|model| !model["rank"].is_null()) {
        assert_eq!([&model["calls"], &model["answered"]], [1, 0], "{model}");
    }
}

#[test]
fn where_all_fail_the_last_one_rests_if_it_says_so() {
    let upstream = openrouter(&MODELS, |model, number| (number <= 2 || model == "b/mid").then_some(BUSY));
    let proxy = Proxy::recording(&upstream, "MODEL=best\nRETRIES=0");
    proxy.chat(HI).assert_status(429);
    assert_eq!(last_call(&upstream), "d/top f/high b/mid");
    let page = proxy.get("/debug/models").json();
    let resting =
        page["models"].as_array().unwrap().iter().filter(|model| !model["rests_until_ms"].is_null());
    assert_eq!(resting.map(|model| model["id"].clone()).collect::<Vec<_>>(), ["b/mid:free"]);
    proxy.chat(HI).assert_status(200);
    assert_eq!(last_call(&upstream), "d/top c/new f/high", "52 × 2/3, 30, 40 × 2/3");
}

/// Turn `turn` of a conversation, all of it.
fn turn(conversation: &str, turn: usize, more: &str) -> String {
    let mut messages = Vec::new();
    for number in 0..=turn {
        messages.push(format!(r#"{{"role":"user","content":"{conversation}: question {number}"}}"#));
        if number < turn {
            messages.push(format!(r#"{{"role":"assistant","content":"answer {number}"}}"#));
        }
    }
    format!(r#"{{{more}"messages":[{}]}}"#, messages.join(","))
}

#[test]
fn a_conversation_leaves_its_model_only_when_that_has_failed_in_two_calls_in_a_row() {
    // Its own model fails in turns 2, 5 and 6, whichever that is.
    let upstream = openrouter(&MODELS, |model, number| {
        let turn = number.checked_sub(2)?; // the list, and from 0
        (model == "d/top" && matches!(turn, 2 | 5..)).then_some(BROKEN)
    });
    let proxy = Proxy::before(&upstream, "MODEL=best");
    let answered =
        (0..9).map(|number| proxy.chat(&turn("a", number, "")).json()["model"].as_str().unwrap().to_owned());
    let answered = answered.map(|id| id.trim_end_matches(":free").to_owned()).collect::<Vec<_>>();
    let own = "d/top";
    assert_eq!(answered[..5], [own, own, "f/high", own, own], "one failure is forgiven");
    assert_eq!(answered[5..], ["f/high"; 4]);
    let first_asked =
        calls(&upstream).iter().map(|call| call.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(first_asked, [own, own, own, own, own, own, own, "f/high", "f/high"]);
    // Its own model was asked first in turn 3, although others had become worth more.
    proxy.write_env(&env(&upstream, "MODEL=best\nSTICKY_MINUTES=0"));
    proxy.chat(&turn("a", 9, "")).assert_status(200);
}

#[test]
fn calls_without_an_answer_and_streams_that_break_off_count_as_well() {
    // The conversation begins with one that isn't the best, and then two requests fail as a whole.
    let upstream = openrouter(&MODELS, |_, number| matches!(number, 2 | 4..=7).then_some(BROKEN));
    let proxy = Proxy::before(&upstream, "MODEL=best\nRETRIES=1");
    let ask = |number| proxy.chat(&turn("a", number, "")).status;
    assert_eq!([ask(0), ask(1), ask(1), ask(1)], [200, 502, 502, 200]);
    let first_asked =
        calls(&upstream).iter().map(|call| call.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(first_asked, ["d/top", "c/new", "c/new", "b/mid", "c/new", "b/mid", "d/top"]);

    let upstream = Upstream::start(|request, answer| {
        if request.body.is_empty() {
            return answer.json(200, &list(&MODELS));
        }
        if request.number > 2 {
            return answer_by(request, answer, &asked(request)[0]);
        }
        answer.stream_head();
        answer.piece(&delta("hi").replace(MODEL, "d/top:free"));
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "MODEL=best");
    proxy.chat(&with(r#""stream":true"#)).assert_status(200);
    proxy.chat(HI).assert_status(200);
    assert_eq!(calls(&upstream), ["d/top f/high b/mid", "f/high d/top b/mid"]);
}

#[test]
fn several_models_in_one_call_where_the_upstream_takes_them() {
    for dialect in DIALECTS {
        let upstream = openrouter(&MODELS, |model, _| matches!(model, "d/top" | "f/high").then_some(BROKEN));
        let proxy = Proxy::before(&upstream, "MODEL=best");
        proxy.post(dialect.path, &dialect.request("hi", false).replace(MODEL, "best")).assert_status(200);
        let expected: &[&str] = match dialect.path {
            "/v1/completions" => &["d/top", "f/high", "b/mid"],
            _ => &["d/top f/high b/mid"],
        };
        assert_eq!(calls(&upstream), expected, "{}", dialect.path);
    }
    let upstream = openrouter(&MODELS, well);
    let proxy = Proxy::before(&upstream, "MODEL=best");
    proxy
        .post("/api/chat", r#"{"model":"llama3","messages":[{"role":"user","content":"hi"}],"stream":false}"#)
        .assert_status(200);
    assert_eq!(last_call(&upstream), "d/top f/high b/mid");
}

#[test]
fn a_stream_names_the_model_that_answers_in_its_head() {
    let upstream = openrouter(&MODELS, |model, _| (model == "d/top").then_some(BROKEN));
    let proxy = Proxy::before(&upstream, "MODEL=best");
    let response = proxy.chat(&with(r#""model":"gpt-4o","stream":true"#));
    assert_eq!(response.header("x-proxy-model"), Some("gpt-4o -> f/high:free"));
    proxy.chat(HI).assert_status(200);
    assert_eq!(last_call(&upstream), "f/high d/top b/mid", "learnt from the stream");
}

#[test]
fn a_list_that_cannot_be_had_is_the_routers() {
    let upstream =
        Upstream::start(
            |request, answer| if request.body.is_empty() { answer.json(500, "{}") } else { answer.say("hi") },
        );
    let proxy = Proxy::before(&upstream, "MODEL=best");
    for _ in 0..3 {
        proxy.chat(HI).assert_status(200);
    }
    assert_eq!(calls(&upstream), ["openrouter/free"; 3]);
    assert!(upstream.calls() <= 3 + 2, "asked for once: {}", upstream.calls());
}

#[test]
fn a_list_that_hangs_holds_the_first_request_for_3_s_at_most() {
    let upstream = Upstream::start(|request, answer| {
        if request.body.is_empty() {
            answer.sees_close();
        } else {
            answer.say("hi")
        }
    });
    let proxy = Proxy::before(&upstream, "");
    let best = with(r#""model":"best""#);
    let began = std::time::Instant::now();
    for _ in 0..3 {
        proxy.chat(&best).assert_status(200);
    }
    let took = began.elapsed().as_secs_f64();
    assert!((2.5..8.0).contains(&took), "the first one waited, and no other: {took}");
    assert_eq!(calls(&upstream), ["openrouter/free"; 3]);
}

#[test]
fn what_was_seen_decides_after_a_restart_too() {
    let upstream = openrouter(&MODELS, |model, number| (model == "d/top" && number < 5).then_some(BROKEN));
    let proxy = Proxy::recording(&upstream, "MODEL=best");
    for _ in 0..2 {
        proxy.chat(HI).assert_status(200);
    }
    assert_eq!(last_call(&upstream), "f/high d/top b/mid");
    let file = proxy.dir.join("cache/.local-api-proxy-models.json");
    eventually("the file", || {
        let text = std::fs::read_to_string(&file).ok()?;
        let saved = serde_json::from_str::<Value>(&text).unwrap();
        (saved["f/high:free"]["calls"] == 2).then_some(())
    });
    let again = Start::from(proxy.kill()).start();
    again.chat(HI).assert_status(200);
    assert_eq!(last_call(&upstream), "f/high d/top b/mid");
}

/// The models of a day: id, index (0: not published), and whether the router picks it.
const DAY: [Entry; 14] = [
    ("a/m52", [53, 50], "tis", 262_144, ""),
    ("b/m45", [45, 44], "ts", 262_144, ""),
    ("c/m39", [39, 30], "ts", 131_072, ""),
    ("d/m30", [30, 33], "tis", 131_072, ""),
    ("e/m28", [28, 25], "ts", 131_072, ""),
    ("f/m26", [26, 20], "t", 131_072, ""),
    ("g/m24", [24, 18], "ts", 131_072, ""),
    ("h/m21", [21, 15], "ts", 65_536, ""),
    ("i/m18", [18, 14], "ts", 65_536, ""),
    ("j/m15", [15, 10], "ts", 65_536, ""),
    ("k/m12", [12, 8], "t", 32_768, ""),
    ("l/m10", [10, 6], "t", 32_768, ""),
    ("m/unknown", [0, 0], "ts", 131_072, ""),
    ("n/content-safety", [0, 0], "tis", 131_072, ""),
];

/// A third of them is sick at any time, each in its own way; who that is changes now and then.
struct Sick {
    now: Mutex<(HashMap<&'static str, Fault>, Random)>,
}

impl Sick {
    fn new(seed: u64) -> Self {
        let sick = Self { now: Mutex::new((HashMap::new(), Random(seed))) };
        (0..5).for_each(|_| sick.one_more());
        sick
    }

    fn one_more(&self) {
        let (sick, random) = &mut *self.now.lock().unwrap();
        loop {
            let (id, ..) = DAY[random.below(13) as usize];
            let fault = [BUSY, BROKEN, GONE, (429, "", "Provider returned error")][random.below(4) as usize];
            if sick.insert(id, fault).is_none() {
                return;
            }
        }
    }

    /// One gets well, and another one sick.
    fn change(&self) {
        {
            let (sick, random) = &mut *self.now.lock().unwrap();
            let mut ids = sick.keys().copied().collect::<Vec<_>>();
            ids.sort_unstable();
            sick.remove(ids[random.below(ids.len() as u64) as usize]);
        }
        self.one_more();
    }

    fn fault(&self, model: &str) -> Option<Fault> {
        self.now.lock().unwrap().0.get(model).copied()
    }
}

fn index_of(model: &str) -> f64 {
    let (_, [index, _], ..) = DAY.iter().find(|(id, ..)| *id == model).unwrap();
    f64::from(*index)
}

/// OpenRouter on such a day; the router picks evenly among all of them.
fn a_day(seed: u64, changes_every: usize) -> Upstream {
    let (sick, dice) = (Sick::new(seed), Mutex::new(Random(seed + 1000)));
    let calls = Mutex::new(0);
    Upstream::start(move |request, answer| {
        if request.body.is_empty() {
            return answer.json(200, &list(&DAY));
        }
        let made = {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        if made % changes_every == 0 {
            sick.change();
        }
        let picked = |model: String| match model.as_str() {
            "openrouter/free" => DAY[dice.lock().unwrap().below(14) as usize].0.to_owned(),
            _ => model,
        };
        let models = asked(request).into_iter().map(picked).collect::<Vec<_>>();
        match models.iter().find(|model| sick.fault(model).is_none()) {
            Some(model) => answer_by(request, answer, model),
            None => answer_with(sick.fault(models.last().unwrap()).unwrap(), answer),
        }
    })
}

#[test]
fn a_day_of_single_requests() {
    for seed in 1..=3 {
        let run = |settings: &str| {
            let upstream = a_day(seed, 25);
            let proxy = Proxy::before(&upstream, settings);
            let mut client = proxy.connect();
            let answers =
                (0..100).map(|number| client.chat(&HI.replace("hi", &format!("question {number}"))));
            let answered = answers.filter(|response| response.status == 200);
            let by = answered.map(|response| {
                response.json()["model"].as_str().unwrap().trim_end_matches(":free").to_owned()
            });
            (by.collect::<Vec<_>>(), calls(&upstream).len())
        };
        let (best, calls_made) = run("MODEL=best");
        let (dice, _) = run("RETRIES=0\nSTICKY_MINUTES=0");
        assert!(
            best.len() >= 95 && calls_made <= 110,
            "{seed}: {} answered in {calls_made} calls",
            best.len()
        );
        assert!(!best.contains(&"n/content-safety".to_owned()), "{seed}: {best:?}");
        let mean = |by: &[String]| by.iter().map(|model| index_of(model)).sum::<f64>() / by.len() as f64;
        let (best, dice) = (mean(&best), mean(&dice));
        assert!(best >= 1.4 * dice, "{seed}: {best} beside the router's {dice}");
    }
}

#[test]
fn five_agents_keep_their_models_through_a_day_of_fifty_calls() {
    // The best one dies in the middle; all others have a bad moment now and then.
    let upstream = Upstream::start({
        let (made, random) = (Mutex::new(0), Mutex::new(Random(7)));
        move |request, answer| {
            if request.body.is_empty() {
                return answer.json(200, &list(&DAY));
            }
            let mut made = made.lock().unwrap();
            *made += 1;
            if *made > 50 {
                let limit =
                    r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day. "}}"#;
                return answer.json(429, limit);
            }
            let dead = |model: &str| model == "a/m52" && *made > 25;
            let is_bad = |model: &String| dead(model) || random.lock().unwrap().below(12) == 0;
            match asked(request).iter().find(|model| !is_bad(model)) {
                Some(model) => answer_by(request, answer, model),
                None => answer.respond(502, "retry-after: 0\r\n", "{}"),
            }
        }
    });
    let proxy = Proxy::before(&upstream, "MODEL=best");
    let agents = ["ann", "bob", "cid", "dot", "eve"];
    let mut first_asked = BTreeMap::<&str, Vec<String>>::new();
    'day: for number in 0..12 {
        for agent in agents {
            let response = proxy.chat(&turn(agent, number, &format!("{TOOLS},")));
            if response.status == 429 {
                break 'day;
            }
            assert_eq!(response.status, 200, "{agent}, turn {number}");
            let call = last_call(&upstream);
            first_asked.entry(agent).or_default().push(call.split(' ').next().unwrap().to_owned());
        }
    }
    let turns = first_asked.values().map(Vec::len).sum::<usize>();
    assert!(turns >= 48, "{turns} turns were answered in 50 calls");
    for (agent, models) in first_asked {
        let changes = models.windows(2).filter(|pair| pair[0] != pair[1]).collect::<Vec<_>>();
        assert!(changes.len() <= 1 && changes.iter().all(|pair| pair[0] == "a/m52"), "{agent}: {models:?}");
    }
}
