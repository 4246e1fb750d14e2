//! Checks that every request in an API that is translated goes upstream as a JSON object that costs nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::free_models::is_free;
use local_api_proxy::dialect::model_name::Rule;
use local_api_proxy::dialect::request::Request;
use local_api_proxy::dialect::{Untranslatable, ClientRequest, translated};
use serde_json::Value;

fuzz_target!(|text: String| {
    let understood = matches!(serde_json::from_str::<Value>(&text), Ok(Value::Object(_)));
    let written = ClientRequest { body: text, ..ClientRequest::default() };
    for translated in translated() {
        if let Some(answer) = translated.without_a_model(&written.body) {
            assert!(serde_json::from_str::<Value>(&answer).is_ok());
        }
        let body = match translated.translate(&written) {
            Ok(body) => body,
            Err(Untranslatable::Refused(_)) => continue,
            Err(Untranslatable::NotAnObject(_)) => {
                assert!(!understood, "a JSON object was refused");
                continue;
            }
        };
        let rule = Rule { default_model: "a/b:free", ..Rule::default() };
        let Ok(request) = Request::parse(translated.native(), body, &rule) else {
            panic!("what was translated is no JSON object");
        };
        assert!(is_free(&request.model));
        let sent: Value = serde_json::from_slice(&request.body(&request.model)).expect("JSON");
        let tools = sent["tools"].as_array().into_iter().flatten();
        assert!(tools.into_iter().all(|tool| tool["type"].as_str().is_none_or(|kind| kind == "function")), "{sent}");
        assert!(sent.get("plugins").is_none_or(|plugins| plugins.to_string().contains("cloudflare-ai")));
        translated.translator(&written);
    }
});
