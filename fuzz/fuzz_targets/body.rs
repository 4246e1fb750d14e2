//! No body costs money, and none that is JSON is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::free_models::{ChatRequest, Rule, is_free};
use local_api_proxy::json;
use serde_json::Value;

fuzz_target!(|text: String| {
    let understood = matches!(serde_json::from_str::<Value>(&text), Ok(Value::Object(_)));
    let rule = Rule { default_model: "openrouter/free", allow_paid: false };
    let Ok(request) = ChatRequest::parse(text, rule) else {
        assert!(!understood, "a JSON object was refused");
        return;
    };
    let model = request.model.clone();
    assert!(is_free(&model));
    let body = request.body(&model);
    let body = std::str::from_utf8(&body).expect("the body is text");
    let mut fields = json::fields(body).expect("the body is an object");
    assert!(!json::drop_duplicates(&mut fields), "a name stands twice: {body}");
    let sent = json::field(&fields, "model").and_then(|field| json::string(field.value));
    assert_eq!(sent.as_deref(), Some(&*model));
    assert!(json::field(&fields, "preset").is_none() && json::field(&fields, "web_search_options").is_none());
    if let Some(models) = json::field(&fields, "models").and_then(|field| json::elements(field.value)) {
        assert!(models.iter().all(|id| json::string(id).is_some_and(|id| is_free(&id))), "{body}");
    }
    if understood {
        let mut indented = String::new();
        json::indent(body, 0, &mut indented);
        let body: Value = serde_json::from_str(body).expect("what was understood stays so");
        let paid = |tool: &Value| tool["type"].as_str().is_some_and(|kind| kind.starts_with("openrouter:"));
        assert!(!body["tools"].as_array().is_some_and(|tools| tools.iter().any(paid)), "{body}");
        assert_eq!(serde_json::from_str::<Value>(&indented).ok(), Some(body));
    }
});
