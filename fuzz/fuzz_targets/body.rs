//! Checks that no body costs money in any API, and that no JSON object is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::free_models::is_free;
use local_api_proxy::dialect::model_name::Rule;
use local_api_proxy::dialect::request::Request;
use local_api_proxy::dialect::{self, ALL, Action, StandIn, text};
use local_api_proxy::json;
use serde_json::Value;

/// Types of tools that somebody else than the client runs.
const PAID_TOOLS: [&str; 5] = ["openrouter:", "web_search", "web_fetch", "code_execution", "file_search"];

/// Types of tools that the upstream runs without a fee.
const FREE_TOOLS: [&str; 3] = ["openrouter:tool_search", "openrouter:apply_patch", "openrouter:datetime"];

fuzz_target!(|bytes: Vec<u8>| {
    let address = || "http://localhost:5000/v1/messages/count_tokens".to_owned();
    for route in ALL.iter().flat_map(|api| api.routes) {
        if let Action::Local(answer) = route.action {
            let _ = answer(bytes.clone(), &address());
        }
    }
    let Ok(body) = text::decode(bytes, &address) else { return };
    let understood = matches!(serde_json::from_str::<Value>(&body), Ok(Value::Object(_)));
    for dialect in dialect::native_dialects() {
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
        if let Some(plugins) = json::field(&fields, "plugins").and_then(|field| json::elements(field.value)) {
            let free = ["response-healing", "context-compression"];
            for plugin in plugins {
                let fields = json::fields(plugin).expect("a plugin is an object");
                let value = |name| json::field(&fields, name).map(|field| field.value);
                let is_free = value("id").and_then(json::string).is_some_and(|id| free.contains(&&*id));
                let is_off = value("enabled") == Some("false");
                assert!(is_free || is_off || plugin.contains("cloudflare-ai"), "{sent}");
            }
        }
        let fallbacks = json::field(&fields, "fallbacks").map(|field| field.value);
        assert!(dialect.has_fallbacks() || fallbacks.is_none(), "{sent}");
        assert_ne!(json::field(&fields, "store").map(|field| field.value), Some("true"), "{sent}");
        let several = request.body_with(&["a:free", "b:free"]);
        let mut fields = json::fields(std::str::from_utf8(&several).expect("text")).expect("an object");
        assert!(!json::drop_duplicates(&mut fields), "a name stands twice");
        request.body_for_other_servers(dialect, &model);
        if understood {
            let value: Value = serde_json::from_str(sent).expect("what was understood stays so");
            let kind = |tool: &Value| tool["type"].as_str().map(str::to_owned);
            let tools = value["tools"].as_array().into_iter().flatten();
            let is_paid = |kind: &String| {
                !FREE_TOOLS.contains(&kind.as_str()) && PAID_TOOLS.iter().any(|paid| kind.starts_with(paid))
            };
            let paid = tools.filter_map(kind).find(is_paid);
            assert_eq!(paid, None, "{sent}");
            let mut indented = String::new();
            json::indent(sent, 0, &mut indented);
            assert_eq!(serde_json::from_str::<Value>(&indented).ok(), Some(value));
        }
    }
});
