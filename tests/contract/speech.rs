//! `POST /v1/audio/speech`: sound as it comes, by free models of that kind.

use crate::fixture::*;

const ASKED: &str = r#"{"model":"fish/s2:free","input":"Hello","voice":"v","response_format":"mp3"}"#;
const PATH: &str = "/v1/audio/speech";
const MP3: &str = "content-type: audio/mpeg\r\n";

fn raw_piece(answer: &mut Answer<'_>, bytes: &[u8]) {
    answer.raw(format!("{:x}\r\n", bytes.len()));
    answer.raw(bytes);
    answer.raw("\r\n");
}

fn begin(answer: &mut Answer<'_>) {
    answer.raw(format!("HTTP/1.1 200 OK\r\n{MP3}transfer-encoding: chunked\r\n\r\n"));
}

#[test]
fn sound_comes_piece_by_piece_and_byte_for_byte() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |_, answer| {
        begin(answer);
        raw_piece(answer, b"\xff\xfb\x00\r\n");
        wait.lock().unwrap().recv_timeout(GUARD).unwrap();
        raw_piece(answer, b"\x00\x80{");
        answer.end();
    });
    let proxy = Proxy::recording(&upstream, "");
    let mut client = proxy.connect();
    client.send_post(PATH, ASKED);
    let head = client.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("audio/mpeg")));
    assert_eq!(client.raw_chunk().unwrap(), b"\xff\xfb\x00\r\n", "before the rest is there");
    go.send(()).unwrap();
    assert_eq!(client.raw_chunk().unwrap(), b"\x00\x80{");
    assert_eq!(client.raw_chunk(), None);
    assert_eq!(upstream.last().body, ASKED);
    let files = proxy.files(2);
    let response = files.iter().find(|(name, _)| name.contains("_RESPONSE_")).unwrap();
    assert_eq!(response.1["data"], serde_json::json!({"content_type": "audio/mpeg", "bytes": 8}));
}

#[test]
fn another_try_where_nothing_came_and_an_end_that_shows_where_something_did() {
    type Fault = fn(&mut Answer<'_>);
    let faults: [Fault; 5] = [
        |answer| answer.respond(200, MP3, ""),
        |answer| answer.respond(503, "retry-after: 0\r\n", "busy"),
        |answer| answer.json(200, r#"{"error":{"code":503,"message":"x"}}"#),
        |answer| answer.json(200, "{}"),
        |answer| answer.respond(200, "content-type: text/html\r\n", "<html>"),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let upstream = Upstream::start(move |request, answer| match request.number {
            1 => fault(answer),
            _ => answer.respond(200, MP3, "sound"),
        });
        let proxy = Proxy::before(&upstream, "FALLBACK_MODELS=other/one:free");
        let healed = proxy.post(PATH, ASKED);
        assert_eq!((healed.status, healed.text()), (200, "sound"), "{number}");
        assert_eq!(healed.header("x-proxy-attempts"), Some("2"), "{number}");
        assert!(upstream.received().iter().all(|sent| sent.body == ASKED), "{number}");
    }

    let upstream = Upstream::start(|_, answer| {
        begin(answer);
        raw_piece(answer, b"some");
        answer.reset();
    });
    let proxy = Proxy::recording(&upstream, "");
    let mut client = proxy.connect();
    client.send_post(PATH, ASKED);
    assert_eq!(client.head().status, 200);
    assert!(!client.read_to_end().ends_with(b"0\r\n\r\n"), "it isn't whole");
    let files = proxy.files(2);
    let error = files.iter().find(|(name, _)| name.contains("_ERROR_")).unwrap();
    assert_eq!(error.1["data"]["partial"]["bytes"], 4, "{error:?}");
}

#[test]
fn only_a_named_free_model_speaks() {
    let upstream = Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/models?output_modalities=speech" => {
            answer.json(200, r#"{"data":[{"id":"open/tts"},{"id":"fish/s2:free"}]}"#)
        }
        _ => answer.respond(200, MP3, "sound"),
    });
    let proxy = Proxy::before(&upstream, "");
    let refused = proxy.post(PATH, r#"{"model":"tts-1","input":"x","voice":"alloy"}"#);
    refused.assert_error(400, "model_not_free");
    assert!(refused.text().contains("SPEECH_MODEL") && refused.text().contains("fish/s2:free"));
    let proxy = Proxy::before(&upstream, "SPEECH_MODEL=fish/s2:free");
    let spoken = proxy.post(PATH, r#"{"model":"tts-1","input":"x","voice":"alloy"}"#);
    assert_eq!((spoken.text(), spoken.header("x-proxy-model")), ("sound", Some("tts-1 -> fish/s2:free")));
}

#[test]
fn what_was_spoken_before_is_given_again() {
    let upstream = Upstream::start(|_, answer| answer.respond(200, MP3, "sound"));
    let proxy = Proxy::before(&upstream, "REUSE_ANSWERS=5");
    for reused in [false, true] {
        let spoken = proxy.post(PATH, ASKED);
        assert_eq!((spoken.text(), spoken.header("content-type")), ("sound", Some("audio/mpeg")));
        assert_eq!(spoken.header("x-proxy-reused").is_some(), reused);
    }
    assert_eq!(upstream.calls(), 1);
}
