//! No body costs money in any API, and none that is JSON is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::free_models::is_free;
use local_api_proxy::dialect::model_name::Rule;
use local_api_proxy::dialect::request::Request;
use local_api_proxy::dialect::{self, ALL, Action, StandIn, text};
use local_api_proxy::json;
use serde_json::Value;

/// Types of tools that somebody else runs.
const PAID_TOOLS: [&str; 5] = ["openrouter:", "web_search", "web_fetch", "code_execution", "file_search"];

fuzz_target!(|bytes: Vec<u8>| {
    let address = || "http://localhost:5000/v1/messages/count_tokens".to_owned();
    for route in ALL.iter().flat_map(|api| api.routes) {
        if let Action::Local(answer) = route.action {
            let _ = answer(bytes.clone(), &address());
        }
    }
    let Ok(body) = text::decode(bytes, &address) else { return };
    let understood = matches!(serde_json::from_str::<Value>(&body), Ok(Value::Object(_)));
    for dialect in dialect::natives() {
        let default_model = if dialect.stand_in() == StandIn::Model { "openrouter/free" } else { "a/embedder:free" };
        let rule = Rule { default_model, ..Rule::default() };
        let request = match Request::parse(dialect, body.clone(), &rule) {
            Ok(request) => request,
            Err((text, error)) => {
                assert!(!understood, "a JSON object was refused");
                assert_eq!(text::not_an_object(&text, &error, &address(), "{}").status, 400);
                return;
            }
        };
        request.turns();
        let model = request.model.clone();
        assert!(is_free(&model));
        let sent = request.body(&model);
        let sent = std::str::from_utf8(&sent).expect("the body is text");
        let mut fields = json::fields(sent).expect("the body is an object");
        assert!(!json::drop_duplicates(&mut fields), "a name stands twice: {sent}");
        let named = json::field(&fields, "model").and_then(|field| json::string(field.value));
        assert_eq!(named.as_deref(), Some(&*model));
        for paid in ["preset", "web_search_options", "service_tier", "speed", "mcp_servers", "container"] {
            let stays = matches!(paid, "mcp_servers" | "container") && dialect.path() != "/messages";
            assert!(stays || json::field(&fields, paid).is_none(), "{paid} in {sent}");
        }
        if let Some(models) = json::field(&fields, "models").and_then(|field| json::elements(field.value)) {
            assert!(models.iter().all(|id| json::string(id).is_some_and(|id| is_free(&id))), "{sent}");
        }
        request.body_elsewhere(&model);
        if understood {
            let value: Value = serde_json::from_str(sent).expect("what was understood stays so");
            let kind = |tool: &Value| tool["type"].as_str().map(str::to_owned);
            let tools = value["tools"].as_array().into_iter().flatten();
            let paid = tools.filter_map(kind).find(|kind| PAID_TOOLS.iter().any(|paid| kind.starts_with(paid)));
            assert_eq!(paid, None, "{sent}");
            let mut indented = String::new();
            json::indent(sent, 0, &mut indented);
            assert_eq!(serde_json::from_str::<Value>(&indented).ok(), Some(value));
        }
    }
});
