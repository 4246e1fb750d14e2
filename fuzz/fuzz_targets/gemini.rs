//! Checks that every request in Google's API becomes a JSON object that costs nothing, and that whatever a model
//! streams becomes events that Google's SDKs can read: each a JSON object with a candidate that has a part, or with an
//! error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::free_models::is_free;
use local_api_proxy::dialect::gemini::API;
use local_api_proxy::dialect::model_name::Rule;
use local_api_proxy::dialect::request::Request;
use local_api_proxy::dialect::sse::Events;
use local_api_proxy::dialect::{Action, Translated, Untranslatable, UpstreamError, ClientRequest};
use local_api_proxy::error::ApiError;
use serde_json::Value;

// The input is a model's name, a body and a stream: the first line, the second and the rest.
fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |b| *b == b'\n');
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (model, body) = (text(), text());
    let stream = parts.next().unwrap_or_default();
    let understood = matches!(serde_json::from_str::<Value>(&body), Ok(Value::Object(_)));
    let mut events = Vec::new();
    let mut reader = Events::default();
    reader.feed(stream, |data| events.extend(data.map(str::to_owned)));
    reader.finish(|data| events.extend(data.map(str::to_owned)));
    for route in API.routes {
        match route.action {
            Action::Local(answer) => drop(answer(body.clone().into_bytes(), "http://localhost:5000")),
            Action::Translate(translated) => {
                for query in ["alt=sse", ""] {
                    let written = ClientRequest { model: model.clone(), query: query.into(), body: body.clone() };
                    ask(translated, &written, understood);
                    tell(translated, &written, &events);
                }
            }
            _ => {}
        }
    }
});

fn ask(translated: &dyn Translated, written: &ClientRequest, understood: bool) {
    let sent = match translated.translate(written) {
        Ok(sent) => sent,
        Err(Untranslatable::Refused(error)) => return assert_eq!(error.status, 400),
        Err(Untranslatable::NotAnObject(_)) => return assert!(!understood, "a JSON object was refused"),
    };
    let rule = Rule { default_model: "a/b:free", ..Rule::default() };
    let Ok(request) = Request::parse(translated.native(), sent, &rule) else {
        panic!("what was translated is no JSON object");
    };
    assert!(is_free(&request.model));
    let sent: Value = serde_json::from_slice(&request.body(&request.model)).expect("JSON");
    let tools = sent["tools"].as_array().into_iter().flatten();
    assert!(tools.into_iter().all(|tool| tool["type"] == "function"), "{sent}");
    assert!(sent.get("plugins").is_none_or(|plugins| plugins.to_string().contains("cloudflare-ai")));
}

fn tell(translated: &dyn Translated, written: &ClientRequest, events: &[String]) {
    let mut translator = translated.translator(written);
    let mut told = events.iter().map(|data| translator.event(data)).collect::<String>();
    let broken = told.clone() + &translator.broken_off(&ApiError::stopping());
    told.push_str(&translator.end());
    for told in [told, broken] {
        let events = match written.query.as_str() {
            "alt=sse" => told.split_terminator("\n\n").map(|event| event[6..].to_owned()).collect(),
            _ => serde_json::from_str::<Vec<Value>>(&told).unwrap().iter().map(Value::to_string).collect::<Vec<_>>(),
        };
        for event in events {
            let event: Value = serde_json::from_str(&event).unwrap();
            let parts = event["candidates"][0]["content"]["parts"].as_array();
            assert!(event["error"]["code"].is_u64() || parts.is_some_and(|parts| !parts.is_empty()), "{event}");
        }
    }
    for data in events {
        let answer = translated.translator(&ClientRequest { query: "alt=sse".into(), ..ClientRequest::default() }).answer(data);
        assert!(!answer.is_empty());
        let error = translator.error_body(&UpstreamError::in_a_success(data));
        assert!(serde_json::from_str::<Value>(&error).unwrap()["error"]["code"] == 502);
    }
}
