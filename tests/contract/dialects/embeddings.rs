//! Embeddings: plain only, and never by another model.

use std::thread;

use super::*;

const ASKED: &str = r#"{"model":"embed/one:free","input":["x"],"dimensions":2.0}"#;
const PATH: &str = "/v1/embeddings";

type Fault = (&'static str, fn(&mut Answer<'_>), u16);

const FAULTS: [Fault; 12] = [
    ("408", |answer| answer.respond(408, "retry-after: 0\r\n", &openai_error(408, "x")), 408),
    ("500", |answer| answer.respond(500, "retry-after: 0\r\n", &openai_error(500, "x")), 500),
    ("503", |answer| answer.respond(503, "retry-after: 0\r\n", "busy"), 503),
    (
        "a provider's 429",
        |answer| {
            let body = r#"{"error":{"code":429,"message":"x","metadata":{"provider_code":429}}}"#;
            answer.respond(429, "retry-after: 0\r\n", body);
        },
        429,
    ),
    ("reset", |answer| answer.reset(), 502),
    ("closed", |answer| answer.close(), 502),
    (
        "cut off",
        |answer| {
            answer.raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"data\":");
            answer.close();
        },
        502,
    ),
    ("an error in a 200", |answer| answer.json(200, &openai_error(503, "x")), 503),
    ("no byte", |answer| answer.json(200, ""), 502),
    ("cut JSON", |answer| answer.json(200, r#"{"object":"list","data":[{"embedding":[0.1,"#), 502),
    ("nothing", |answer| answer.json(200, r#"{"object":"list","data":[],"model":"embed/one:free"}"#), 502),
    (
        "an empty vector",
        |answer| {
            answer.json(200, r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[]}]}"#)
        },
        502,
    ),
];

#[test]
fn what_another_try_heals_of_embeddings() {
    thread::scope(|scope| {
        for (name, fault, _) in FAULTS {
            scope.spawn(move || {
                let upstream = Upstream::start(move |request, answer| match request.number {
                    1 => fault(answer),
                    _ => answer.json(200, VECTORS),
                });
                let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=other/one:free");
                let response = proxy.post(PATH, ASKED);
                assert_eq!((response.status, response.text()), (200, VECTORS), "{name}");
                assert_eq!(response.header("x-proxy-attempts"), Some("2"), "{name}");
                assert_eq!(response.header("x-proxy-model"), None, "{name}");
                for request in upstream.received() {
                    assert_eq!(request.body, ASKED, "{name}: never by another model");
                }
            });
        }
    });
}

#[test]
fn the_last_failure_of_embeddings_is_the_clients() {
    thread::scope(|scope| {
        for (name, fault, status) in FAULTS {
            scope.spawn(move || {
                let upstream = Upstream::start(move |_, answer| fault(answer));
                let proxy = Proxy::before(&upstream, "RETRIES=1");
                let response = proxy.post(PATH, ASKED);
                assert_eq!(response.status, status, "{name}: {response:?}");
                assert_eq!(response.header("x-should-retry"), Some("false"), "{name}");
                assert_eq!(upstream.calls(), 2, "{name}");
            });
        }
    });
}

#[test]
fn what_nothing_heals_of_embeddings_passes_on() {
    let upstream = Upstream::start(|request, answer| {
        let status = request.json()["input"].as_u64().unwrap() as u16;
        answer.json(status, &format!(r#"{{ "error" : {{"code":{status},"message":"no such thing"}}}}"#));
    });
    let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=other/one:free");
    for (number, status) in [400, 401, 402, 403, 404, 413, 422, 501].into_iter().enumerate() {
        let response = proxy.post(PATH, &format!(r#"{{"model":"embed/one:free","input":{status}}}"#));
        let expected = format!(r#"{{ "error" : {{"code":{status},"message":"no such thing"}}}}"#);
        assert_eq!((response.status, response.text()), (status, expected.as_str()));
        let stays = matches!(status, 401..=403).then_some("false");
        assert_eq!((upstream.calls(), response.header("x-should-retry")), (number + 1, stays), "{status}");
    }
}

/// A batch, base64 and fields of the upstream's own: whatever it says arrives.
#[test]
fn vectors_arrive_byte_for_byte() {
    let long = vec!["0.10000000000000000555"; 100_000].join(",");
    let many = format!(
        r#"{{"data":[{{"index":0,"embedding":[{long}]}},{{"index":1,"embedding":"AAAA"}}],"usage":{{"cost":0}}}}"#
    );
    let expected = many.clone();
    let upstream = Upstream::start(move |_, answer| answer.json(200, &many));
    let proxy = Proxy::before(&upstream, "");
    for path in [PATH, "/embeddings", "/api/v1/embeddings/"] {
        assert!(proxy.post(path, ASKED).text() == expected, "{path}");
        assert_eq!(
            (upstream.last().path.as_str(), upstream.last().body.as_str()),
            ("/api/v1/embeddings", ASKED)
        );
    }
}

#[test]
fn embeddings_are_refused_in_openais_shape() {
    let upstream = Upstream::start(|_, answer| {
        answer.sees_close();
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "UPSTREAM_TIMEOUT=1\nMAX_BODY_MB=1");
    proxy.post(PATH, "no").assert_error(400, "invalid_json");
    proxy
        .post(PATH, &format!(r#"{{"input":"{}"}}"#, "x".repeat(1 << 20)))
        .assert_error(413, "body_too_large");
    assert_eq!(upstream.calls(), 0);
    proxy.post(PATH, ASKED).assert_error(504, "upstream_timeout");
    assert_eq!(upstream.calls(), 1, "silence is not tried again");
    proxy.write_env(&env(&upstream, "PROXY_API_KEY=let-me-in"));
    proxy.post(PATH, ASKED).assert_error(401, "invalid_proxy_key");
}
