//! Section 3: what a failure is about, and what follows: each kind that OpenRouter documents or is known to send, in each
//! dialect where it can occur, as a status of its own, inside of a 200, and as the first event of a stream.

use std::thread;

use serde_json::{Value, json};

use crate::dialects::{CHAT, DIALECTS, Dialect, anthropics_type};
use crate::fixture::*;

/// What a failure makes of a request for one free model, with another one behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It is the client's after one call.
    Passes,
    /// The next model is asked at once, and this one again by the next request.
    Next,
    /// The next model is asked at once, and this one isn't asked again for now.
    NextRests,
    /// The next try follows after a pause, and the model is asked again by the next request.
    Pauses,
}
use Then::{Next, NextRests, Passes, Pauses};

/// An error as the upstream knows it, before a dialect gives it its shape.
#[derive(Clone, Default)]
struct Failure {
    status: u16,
    message: String,
    error_type: Option<&'static str>,
    availability: Option<Value>,
    metadata: Value,
    headers: &'static str,
}

fn failure(status: u16, message: &str) -> Failure {
    Failure { status, message: message.into(), ..Failure::default() }
}

fn typed(error_type: &'static str, status: u16) -> Failure {
    Failure { error_type: Some(error_type), ..failure(status, "it went wrong") }
}

fn available(code: &str, status: u16, more: Value) -> Failure {
    let mut availability = json!({"code": code, "retryable": false, "requested_models": ["some/model:free"]});
    availability.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Failure { availability: Some(availability), ..failure(status, "it can't be served") }
}

/// One provider's words, as OpenRouter hands them on.
fn provided(status: u16, raw: impl Into<Value>) -> Failure {
    let metadata = json!({"provider_name": "Chutes", "raw": raw.into()});
    Failure { metadata, ..failure(status, "Provider returned error") }
}

impl Failure {
    fn with_type(self, error_type: &'static str) -> Self {
        Self { error_type: Some(error_type), ..self }
    }

    fn with_headers(self, headers: &'static str) -> Self {
        Self { headers, ..self }
    }

    fn metadata(&self) -> Value {
        if self.metadata.is_null() { json!({}) } else { self.metadata.clone() }
    }

    /// The body that a dialect's endpoint answers with a status of its own.
    fn body(&self, dialect: &Dialect) -> Value {
        let mut error = json!({"message": self.message});
        let mut body = json!({});
        if let Some(availability) = &self.availability {
            error["availability"] = availability.clone();
        }
        match dialect.name {
            "messages" => {
                error["type"] = anthropics_type(self.status).into();
                if let Some(error_type) = self.error_type {
                    error["error_type"] = error_type.into();
                }
                body["type"] = "error".into();
                body["request_id"] = Value::Null;
                body["metadata"] = self.metadata();
            }
            "responses" => {
                error["code"] = match self.status {
                    429 => "rate_limit_exceeded",
                    400 => "invalid_prompt",
                    _ => "server_error",
                }
                .into();
                if let Some(error_type) = self.error_type {
                    body["error_type"] = error_type.into();
                }
                body["metadata"] = self.metadata();
            }
            _ => {
                error["code"] = self.status.into();
                error["metadata"] = self.metadata();
                if let Some(error_type) = self.error_type {
                    error["metadata"]["error_type"] = error_type.into();
                }
            }
        }
        body["error"] = error;
        body
    }

    /// The same inside of a 200, plain.
    fn inside(&self, dialect: &Dialect) -> Value {
        let mut body = self.body(dialect);
        if dialect.name == "responses" {
            body["id"] = "resp_1".into();
            body["object"] = "response".into();
            body["status"] = "failed".into();
            body["output"] = json!([]);
        }
        body
    }

    /// The same as an event.
    fn event(&self, dialect: &Dialect) -> String {
        match dialect.name {
            "messages" => format!("event: error\ndata: {}\n\n", self.body(dialect)),
            "responses" => {
                let event = json!({"type": "response.failed", "sequence_number": 1, "response": self.inside(dialect)});
                format!("data: {event}\n\n")
            }
            _ => {
                let mut event = self.body(dialect);
                event["choices"] = json!([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]);
                format!("data: {event}\n\n")
            }
        }
    }

    fn answer(&self, way: Way, dialect: &Dialect, answer: &mut Answer<'_>) {
        let headers = format!("content-type: application/json\r\n{}", self.headers);
        match way {
            Way::Status => answer.respond(self.status, &headers, &self.body(dialect).to_string()),
            Way::Inside => answer.respond(200, &headers, &self.inside(dialect).to_string()),
            Way::Event => {
                answer.stream_head();
                answer.piece(&self.event(dialect));
                answer.end();
            }
        }
    }
}

/// How a failure comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Status,
    Inside,
    Event,
}

const WAYS: [Way; 3] = [Way::Status, Way::Inside, Way::Event];

/// Every `error_type` that is documented, without a provider's name.
fn error_types() -> Vec<(Failure, Then)> {
    vec![
        (typed("authentication", 401), Passes),
        (typed("permission_denied", 403), Passes),
        (typed("payment_required", 402), Passes),
        (typed("rate_limit_exceeded", 429), NextRests),
        (typed("provider_overloaded", 503), Pauses),
        (typed("provider_unavailable", 502), Pauses),
        (typed("timeout", 504), Pauses),
        (typed("server", 500), Pauses),
        (typed("unmapped", 500), Pauses),
        (typed("context_length_exceeded", 400), Next),
        (typed("string_too_long", 400), Passes),
        (typed("invalid_request", 400), Passes),
        (typed("invalid_prompt", 400), Passes),
        (typed("content_policy_violation", 400), Passes),
        (typed("refusal", 400), Passes),
        (typed("invalid_image", 400), Passes),
        (typed("image_too_large", 400), Passes),
        (typed("image_too_small", 400), Passes),
        (typed("unsupported_image_format", 400), Passes),
        (typed("image_download_failed", 400), Passes),
        (typed("not_found", 404), Passes),
        (typed("image_not_found", 404), Passes),
        (typed("precondition_failed", 412), Passes),
        (typed("payload_too_large", 413), Passes),
        (typed("unprocessable", 422), Passes),
        // What the request says stays so at every provider.
        (provided(400, "blocked").with_type("content_policy_violation"), Passes),
        (provided(400, "bad image").with_type("invalid_image"), Passes),
    ]
}

/// Every availability code that is documented.
fn availability_codes() -> Vec<(Failure, Then)> {
    vec![
        (available("model_not_found", 400, json!({})), NextRests),
        (available("no_endpoints", 404, json!({})), NextRests),
        (available("model_deprecated", 404, json!({})), NextRests),
        (available("model_deprecated", 404, json!({"retryable": true})), NextRests),
        (available("model_unavailable_upstream", 404, json!({})), NextRests),
        (
            available(
                "free_variant_ended",
                404,
                json!({"fallback_models": ["some/model"], "retryable": false}),
            ),
            NextRests,
        ),
        (available("capacity_exhausted", 429, json!({"retry_after": 30, "retryable": true})), NextRests),
        (available("capacity_exhausted", 429, json!({})).with_headers("retry-after: 40\r\n"), NextRests),
        (available("temporarily_unavailable", 503, json!({"retryable": true})), NextRests),
        (available("temporarily_unavailable", 503, json!({})).with_headers("retry-after: 1\r\n"), NextRests),
        (available("region_restricted", 403, json!({})), NextRests),
        (available("constraint_filtered", 404, json!({"excluded_by": ["context_length"]})), Next),
        (available("constraint_filtered", 404, json!({"excluded_by": ["require_parameters"]})), Next),
    ]
}

/// What is known by its words and places alone.
fn wordings() -> Vec<(Failure, Then)> {
    let model_limit = Failure {
        metadata: json!({"provider_name": null, "headers": {"X-RateLimit-Limit": "8", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": (now_ms() + 50_000).to_string()}}),
        ..failure(
            429,
            "Rate limit exceeded: limit_rpm/some/model/0b7e. High demand for some/model:free on OpenRouter - limited to 8 requests per minute. Please retry shortly.",
        )
    };
    let pool = Failure {
        metadata: json!({"provider_name": "Venice", "raw": "some/model:free is temporarily rate-limited upstream", "limit_source": "upstream_provider_shared_pool"}),
        ..failure(429, "Provider returned error")
    };
    let mut table = vec![
        (model_limit, NextRests),
        (pool.clone(), NextRests),
        (pool.with_headers("retry-after: 30\r\n"), NextRests),
        (provided(400, "Developer instruction is not enabled for models/gemma"), Next),
        (provided(400, r#"{"detail":"\"auto\" tool choice requires --enable-auto-tool-choice"}"#), Next),
        (provided(400, json!({"error": {"message": "max_tokens out of range"}})), Next),
        (provided(404, "page not found"), Next),
        (provided(413, "Request Entity Too Large"), Next),
        (provided(422, "Field required"), Next),
        (provided(400, "`temperature` is deprecated for this model"), Next),
        (
            provided(
                429,
                "Request too large: tokens per minute limit 6000, exceeds the context window of the tier",
            ),
            NextRests,
        ),
        (failure(400, "`temperature` is deprecated for this model"), Passes),
        (failure(400, "The image at https://x.example/a.png does not exist"), Passes),
        (failure(400, "Tool `f` does not exist"), Passes),
        (failure(422, "unprocessable"), Passes),
        (failure(401, "No auth credentials found"), Passes),
        (failure(402, "Insufficient credits"), Passes),
        (failure(403, "Your request was blocked by a guardrail"), Passes),
        (failure(404, "not here"), Passes),
        (failure(413, "too large"), Passes),
        (failure(501, "no"), Passes),
        (failure(404, "No endpoints found for some/model:free."), NextRests),
        (failure(404, "No endpoints found that support tool use. Try disabling \"f\"."), Next),
        (failure(404, "No endpoints found that support image input"), Next),
        (failure(408, "slow"), Pauses),
        (failure(500, "oops"), Pauses),
        (failure(502, "oops"), Pauses),
        (failure(503, "oops"), Pauses),
        (failure(504, "oops"), Pauses),
        (failure(524, "oops"), Pauses),
        (failure(529, "oops"), Pauses),
    ];
    for words in [
        "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "the request exceeds the available context size, try increasing it",
        "Your input exceeds the context window of this model",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        "The input token count (40000) exceeds the maximum number of tokens allowed (32768).",
    ] {
        table.push((failure(400, words), Next));
        table.push((provided(400, words), Next));
        table.push((provided(400, json!({"error": {"message": words}})), Next));
    }
    table
}

/// The models that a case's calls named.
fn asked(upstream: &Upstream, subject: &str) -> Vec<String> {
    let mark = format!("«{subject}»");
    let received = upstream.received().into_iter().filter(|received| received.body.contains(&mark));
    received.map(|received| received.json()["model"].as_str().unwrap().to_owned()).collect()
}

/// Tries the cases of a table in one dialect and one way, each with a model of its own, and tells what doesn't hold.
fn wrong_ones(table: &[(Failure, Then)], dialect: &'static Dialect, way: Way) -> Vec<String> {
    let failures = table.iter().map(|(failure, _)| failure.clone()).collect::<Vec<_>>();
    let upstream = Upstream::start(move |request, answer| {
        if request.path.contains("/models") {
            return answer.json(200, r#"{"data":[{"id":"spare/one:free","context_length":9000000}]}"#);
        }
        let model = request.json()["model"].as_str().unwrap().to_owned();
        let number = model.strip_prefix("case/").and_then(|model| model.strip_suffix(":free"));
        match number.and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => failures[number].answer(way, dialect, answer),
            None => answer.good(dialect, request),
        }
    });
    let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=spare/one:free");
    let mut wrong = Vec::new();
    for (number, (failure, then)) in table.iter().enumerate() {
        let model = format!("case/{number}:free");
        let ask = |subject: &str| {
            let body = dialect.request(&format!("«{subject}»"), way == Way::Event).replace(MODEL, &model);
            (proxy.post(dialect.path, &body), asked(&upstream, subject))
        };
        let (first, models) = ask(&format!("{number}a"));
        let line = proxy.console().lines().rfind(|line| line.contains(&model)).unwrap_or_default().to_owned();
        let paused = line.contains("trying again in");
        let expected: &[&str] = match then {
            Passes => &[&model],
            _ => &[&model, "spare/one:free"],
        };
        let status = if *then == Passes { failure.status } else { 200 };
        // In a 200 only a known type or a number tells a status.
        let same_status = first.status == status
            || *then == Passes
                && way != Way::Status
                && failure.error_type.is_none()
                && dialect.name != "chat";
        let attempts = (*then != Passes).then_some("2");
        let mut right = models == expected && same_status && first.header("x-proxy-attempts") == attempts;
        right &= *then == Passes || paused == (*then == Pauses);
        if *then == Passes && [401, 402, 403].contains(&first.status) {
            right &= first.header("x-should-retry") == Some("false");
        }
        let mut again = Vec::new();
        if *then != Passes {
            again = ask(&format!("{number}b")).1;
            right &= (again[0] == "spare/one:free") == (*then == NextRests);
        }
        if !right {
            let body = failure.body(dialect);
            wrong.push(format!(
                "{} {way:?} {} {body}\n   should be {then:?}, asked {models:?} then {again:?}, status {}, {:?} {:?}; {line}",
                dialect.name,
                failure.status,
                first.status,
                first.header("x-proxy-attempts"),
                first.header("x-should-retry"),
            ));
        }
    }
    wrong
}

fn holds_in_every_dialect(table: &[(Failure, Then)], ways: &[Way]) {
    let wrong = thread::scope(|scope| {
        let threads = DIALECTS.iter().flat_map(|dialect| {
            ways.iter().map(move |way| scope.spawn(move || wrong_ones(table, dialect, *way)))
        });
        let threads = threads.collect::<Vec<_>>();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn failures_of_every_error_type() {
    holds_in_every_dialect(&error_types(), &WAYS);
}

#[test]
fn failures_of_every_availability_code() {
    holds_in_every_dialect(&availability_codes(), &WAYS);
}

#[test]
fn failures_known_by_their_words() {
    holds_in_every_dialect(&wordings(), &[Way::Status]);
}

/// The words and the provider's name are read wherever they come; there the type tells the status.
#[test]
fn failures_known_by_their_words_inside_of_a_200() {
    let table = wordings();
    let named = |failure: &Failure| {
        !failure.metadata.is_null()
            || failure.message.contains("context")
            || failure.message.contains("prompt is")
    };
    let with_type = |(failure, then): (Failure, Then)| {
        let error_type = match failure.status {
            404 => "not_found",
            413 => "payload_too_large",
            422 => "unprocessable",
            429 => "rate_limit_exceeded",
            _ => return (failure, then),
        };
        (failure.with_type(error_type), then)
    };
    let table = table.into_iter().filter(|(failure, _)| named(failure)).map(with_type).collect::<Vec<_>>();
    holds_in_every_dialect(&table, &[Way::Inside, Way::Event]);
}

/// A model that the router names as busy isn't the one to be asked next, though it answered last.
#[test]
fn failures_of_a_model_that_the_router_names() {
    for dialect in DIALECTS {
        let upstream = Upstream::start(move |request, answer| match request.number {
            2 => provided(429, "some/model:free is temporarily rate-limited upstream. Please retry shortly.")
                .with_headers("retry-after: 30\r\n")
                .answer(Way::Status, dialect, answer),
            _ => answer.good(dialect, request),
        });
        let proxy = Proxy::before(&upstream, "");
        let body = dialect.request("hello", false).replace(MODEL, "openrouter/free");
        for _ in 0..2 {
            assert_eq!(proxy.post(dialect.path, &body).status, 200, "{}", dialect.name);
        }
        let asked = upstream.received().iter().map(|r| r.json()["model"].clone()).collect::<Vec<_>>();
        assert_eq!(asked, vec![json!("openrouter/free"); 3], "{}", dialect.name);
    }
}

/// The router has no one to blame but itself, and picks another model by itself.
#[test]
fn failures_of_the_router() {
    let table: Vec<(Failure, usize)> = vec![
        (available("no_endpoints", 404, json!({"requested_models": ["openrouter/free"]})), 1),
        (available("privacy_restricted", 404, json!({"requested_models": ["openrouter/free"]})), 1),
        (available("no_endpoints", 404, json!({"requested_models": []})), 1),
        // Of the model that it has picked.
        (available("model_deprecated", 404, json!({})), 2),
        (available("free_variant_ended", 404, json!({"fallback_models": ["some/model"]})), 2),
        (available("wrong_endpoint", 400, json!({})), 2),
        (available("no_endpoints", 404, json!({})), 2),
        (available("model_unavailable_upstream", 404, json!({"requested_models": [], "retryable": true})), 2),
        (failure(404, "No endpoints found that support tool use."), 1),
        (provided(400, "Developer instruction is not enabled"), 2),
        (provided(404, "nothing here"), 2),
        (provided(413, "too large"), 2),
        (provided(422, "no"), 2),
        (
            provided(429, "some/busy:free is temporarily rate-limited upstream")
                .with_headers("retry-after: 30\r\n"),
            2,
        ),
        (available("region_restricted", 403, json!({})), 2),
        (available("temporarily_unavailable", 503, json!({})), 2),
        (available("capacity_exhausted", 429, json!({"retry_after": 40})), 2),
    ];
    thread::scope(|scope| {
        for dialect in DIALECTS {
            for (failure, calls) in &table {
                scope.spawn(move || {
                    let told = failure.clone();
                    let upstream = Upstream::start(move |request, answer| match request.number {
                        1 => told.answer(Way::Status, dialect, answer),
                        _ => answer.good(dialect, request),
                    });
                    let proxy = Proxy::before(&upstream, "RETRIES=1");
                    let body = dialect.request("hello", false).replace(MODEL, "openrouter/free");
                    let response = proxy.post(dialect.path, &body);
                    let name = format!("{} {}", dialect.name, failure.body(dialect));
                    let status = if *calls == 1 { failure.status } else { 200 };
                    assert_eq!((response.status, upstream.calls()), (status, *calls), "{name}");
                    assert!(!proxy.console().contains("trying again in"), "{name}: {}", proxy.console());
                    // The router itself never rests.
                    assert_eq!(proxy.post(dialect.path, &body).status, 200, "{name}");
                });
            }
        }
    });
}

/// Never more calls than tries, nor one to a model that has just said that it is busy.
#[test]
fn failures_where_every_model_is_busy() {
    for dialect in DIALECTS {
        let upstream = Upstream::start(move |_, answer| {
            provided(429, "rate-limited upstream").with_headers("retry-after: 30\r\n").answer(
                Way::Status,
                dialect,
                answer,
            );
        });
        let proxy = Proxy::before(&upstream, "RETRIES=3\nFALLBACK_MODELS=b:free,c:free");
        let failed = proxy.post(dialect.path, &dialect.request("«one»", false));
        assert_eq!((failed.status, failed.header("retry-after")), (429, Some("30")), "{}", dialect.name);
        assert_eq!(failed.header("x-should-retry"), Some("false"), "{}", dialect.name);
        assert_eq!(
            asked(&upstream, "one"),
            [MODEL, "b:free", "c:free", "openrouter/free"],
            "{}",
            dialect.name
        );
    }
}

/// An hour where it is gone for good, as long as it says where that is known, else a minute; never more than a day.
#[test]
fn failures_say_how_long_a_model_rests() {
    let hour = 3600.0;
    let table: Vec<(Failure, f64)> = vec![
        (available("model_deprecated", 404, json!({})), hour),
        (available("free_variant_ended", 404, json!({})), hour),
        (available("model_deprecated", 404, json!({"retryable": true})), 60.0),
        (available("temporarily_unavailable", 503, json!({"retryable": true})), 60.0),
        (available("capacity_exhausted", 429, json!({"retry_after": 300})), 300.0),
        (available("capacity_exhausted", 429, json!({})).with_headers("retry-after: 80000\r\n"), 80_000.0),
        // Nonsense is as if it weren't there.
        (available("capacity_exhausted", 429, json!({})).with_headers("retry-after: soon\r\n"), 60.0),
        (provided(429, "busy"), 60.0),
    ];
    let failures = table.iter().map(|(failure, _)| failure.clone()).collect::<Vec<_>>();
    let upstream = Upstream::start(move |request, answer| match request.json()["model"].as_str() {
        Some(model) if model.starts_with("case/") => {
            let number = model["case/".len()..].trim_end_matches(":free").parse::<usize>().unwrap();
            failures[number].answer(Way::Status, &CHAT, answer);
        }
        _ => answer.say("here"),
    });
    let proxy = Proxy::recording(&upstream, "");
    for (number, (failure, seconds)) in table.iter().enumerate() {
        proxy
            .chat(&CHAT.request("hello", false).replace(MODEL, &format!("case/{number}:free")))
            .assert_status(200);
        let call = &proxy.get("/debug/calls").json()["calls"][0];
        let rests = call["tries"][0]["rests_until_ms"].as_f64().unwrap() - call["time_ms"].as_f64().unwrap();
        // Its beginning and the failure are some milliseconds apart.
        assert!((0.0..20_000.0).contains(&(rests - seconds * 1000.0)), "{} {rests}", failure.body(&CHAT));
    }
}

/// The largest context that can do what is asked, of those that chat, are still there and cost nothing.
#[test]
fn failures_of_a_context_too_short_go_to_the_largest_that_fits() {
    let model = |id: &str, context: u64, tools: bool, expires: Option<&str>| {
        let parameters: &[&str] = if tools { &["tools", "tool_choice"] } else { &["temperature"] };
        json!({"id": id, "name": id, "context_length": context, "pricing": {"prompt": "0", "completion": "0"}, "supported_parameters": parameters,
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]}, "expiration_date": expires})
    };
    let list = json!({"data": [
        model("small/good:free", 100_000, true, None),
        model("large/tools:free", 500_000, true, None),
        model("large/gone:free", 900_000, true, Some("2020-01-01")),
        model("large/toolless:free", 1_000_000, false, None),
        model("large/content-safety:free", 1_500_000, true, None),
        model("large/paid", 2_000_000, true, None),
    ]});
    thread::scope(|scope| {
        for dialect in DIALECTS {
            let list = list.to_string();
            scope.spawn(move || {
                let upstream = Upstream::start(move |request, answer| {
                    if request.path.contains("/models") {
                        return answer.json(200, &list);
                    }
                    match request.json()["model"].as_str() {
                        Some(MODEL) => typed("context_length_exceeded", 400).answer(Way::Status, dialect, answer),
                        _ => answer.good(dialect, request),
                    }
                });
                let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=small/good:free");
                let mut body: Value = serde_json::from_str(&dialect.request("«plain»", false)).unwrap();
                proxy.post(dialect.path, &body.to_string()).assert_status(200);
                assert_eq!(asked(&upstream, "plain"), [MODEL, "large/toolless:free"], "{}", dialect.name);
                body["tools"] = match dialect.name {
                    "completions" => return,
                    "messages" => json!([{"name": "f", "input_schema": {"type": "object"}}]),
                    "responses" => json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}]),
                    _ => json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
                };
                let body = body.to_string().replace("plain", "tools");
                proxy.post(dialect.path, &body).assert_status(200);
                assert_eq!(asked(&upstream, "tools"), [MODEL, "large/tools:free"], "{}", dialect.name);
            });
        }
    });
}
