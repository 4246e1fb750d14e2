//! `POST /v1/rerank`: free models of that kind, and never another one than was named.

use crate::fixture::*;

const ASKED: &str = r#"{"model":"n/rerank-1b:free","query":"x","documents":["a","b"],"top_n":1.0}"#;
const RESULTS: &str = r#"{"id":"r","model":"n/rerank-1b:free","results":[{"index":1,"relevance_score":0.75}],"usage":{"cost":0}}"#;
const MODELS: &str = r#"{"data":[{"id":"paid/rerank"},{"id":"n/rerank-1b:free"}]}"#;

fn reranking() -> Upstream {
    Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/models?output_modalities=rerank" => answer.json(200, MODELS),
        "/api/v1/rerank" => answer.json(200, RESULTS),
        _ => answer.json(500, "{}"),
    })
}

#[test]
fn a_named_free_model_or_the_settings() {
    let upstream = reranking();
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.post("/v1/rerank", ASKED).text(), RESULTS);
    assert_eq!(upstream.last().body, ASKED);
    for asked in
        [r#"{"query":"x"}"#, r#"{"model":"best"}"#, r#"{"model":"openrouter/free"}"#, r#"{"model":"cohere"}"#]
    {
        let refused = proxy.post("/v1/rerank", asked);
        refused.assert_error(400, "model_not_free");
        let message = refused.json()["error"]["message"].to_string();
        assert!(message.contains("n/rerank-1b:free") && message.contains("RERANK_MODEL"), "{message}");
        assert!(!message.contains("paid/rerank"), "{message}");
    }
    let proxy = Proxy::before(&upstream, "RERANK_MODEL=set/rerank:free\nMODEL=a/b:free");
    let replaced = proxy.post("/v1/rerank", r#"{"model":"cohere/rerank-v3.5","query":"x"}"#);
    assert_eq!(replaced.header("x-proxy-model"), Some("cohere/rerank-v3.5 -> set/rerank:free"));
    assert_eq!(upstream.last().body, r#"{"model":"set/rerank:free","query":"x"}"#);
}

#[test]
fn another_try_but_no_other_model() {
    for (nothing, last) in [
        (r#"{"results":[]}"#, 502),
        (r#"{"model":"m"}"#, 502),
        (r#"{"error":{"code":503,"message":"x"}}"#, 503),
    ] {
        let upstream = Upstream::start(move |request, answer| match request.number {
            1 => answer.json(200, nothing),
            _ => answer.json(200, RESULTS),
        });
        let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=other/one:free");
        let healed = proxy.post("/v1/rerank", ASKED);
        assert_eq!((healed.text(), healed.header("x-proxy-attempts")), (RESULTS, Some("2")), "{nothing}");
        assert!(upstream.received().iter().all(|sent| sent.body == ASKED), "{nothing}");

        let upstream = Upstream::start(move |_, answer| answer.json(200, nothing));
        let proxy = Proxy::before(&upstream, "RETRIES=0");
        proxy.post("/v1/rerank", ASKED).assert_status(last);
    }
}

#[test]
fn the_built_in_model_says_that_it_cannot() {
    let proxy = Start::new().arg("--offline").start();
    for path in ["/v1/rerank", "/v1/audio/speech"] {
        proxy.post(path, ASKED).assert_error(501, "not_supported");
    }
}
