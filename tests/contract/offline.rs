//! `--offline` (`TEST_MODE=true`): the built-in model.

use crate::fixture::*;

const TOOLS: &str = r#"[{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}]"#;

#[test]
fn it_answers_plain_and_streamed_and_says_what_it_is() {
    for proxy in [Start::new().arg("--offline").start(), Start::new().env_file("TEST_MODE=true").start()] {
        let text = proxy.chat(HELLO).json()["choices"][0]["message"]["content"].to_string();
        assert!(text.contains("built-in test model") && text.contains("hello"), "{text}");

        let stream = proxy.chat(HELLO_STREAM);
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        let mut said = String::new();
        for event in stream.text().split_terminator("\n\n") {
            let data = event.strip_prefix("data: ").unwrap();
            if data != "[DONE]" {
                let chunk: serde_json::Value = serde_json::from_str(data).unwrap();
                assert_eq!(chunk["object"], "chat.completion.chunk");
                said.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
            }
        }
        assert!(said.contains("built-in test model"), "{said}");
        assert!(stream.text().ends_with("data: [DONE]\n\n"));
    }
}

#[test]
fn it_calls_a_tool_that_it_is_asked_for_by_name() {
    let proxy = Start::new().arg("--offline").start();
    let ask =
        |words: &str| format!(r#"{{"messages":[{{"role":"user","content":"{words}"}}],"tools":{TOOLS}}}"#);
    assert_eq!(proxy.chat(&ask("hello")).json()["choices"][0]["finish_reason"], "stop");
    let body = ask("Call weather, please.");
    let answer = proxy.chat(&body).json();
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather");
    let streamed = proxy.chat(&body.replacen('{', r#"{"stream":true,"#, 1));
    assert!(streamed.text().contains(r#""name":"weather""#));
}

#[test]
fn it_needs_no_upstream() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::before(&upstream, "TEST_MODE=true");
    proxy.chat(HELLO);
    assert_eq!(proxy.get("/v1/models").json()["data"][0]["id"], "openrouter/free");
    assert_eq!(upstream.calls(), 0);
}

/// What newcomers judge by: answers in JSON are what was asked for.
#[test]
fn structured_answers_fit() {
    let proxy = Start::new().arg("--offline").start();
    let content = |format: &str, words: &str| {
        let body = format!(
            r#"{{"messages":[{{"role":"system","content":"{words}"}},{{"role":"user","content":"go"}}],"response_format":{format}}}"#
        );
        let answer = proxy.chat(&body).json();
        let content = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&content).unwrap()
    };
    let schema = r#"{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","required":["n"],"properties":{"n":{"type":"integer","exclusiveMinimum":4},"o":{"type":"string"}}}}}"#;
    assert_eq!(content(schema, "go"), serde_json::json!({"n": 5}));
    let object = content(r#"{"type":"json_object"}"#, "Reply in JSON with the keys name and age.");
    assert!(object["answer"].as_str().unwrap().contains("built-in test model"), "{object}");
    let edit = r"main.py\n```\nprint(1)\n```\n<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE";
    let text = proxy.chat(&format!(r#"{{"messages":[{{"role":"user","content":"{edit}"}}]}}"#)).json();
    let text = text["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.contains('\n') && !text.contains('`') && !text.contains("<<<"), "{text}");
}
