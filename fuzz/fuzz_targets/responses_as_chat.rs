//! Checks that a strict chat server can take any request in OpenAI's Responses API, and that an OpenAI SDK can read any
//! answer of such a server to its end.

#![no_main]

mod as_chat;

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::responses_as_chat::ResponsesAsChat;
use serde_json::Value;

fuzz_target!(|input: String| as_chat::check(&input, &ResponsesAsChat, well_formed));

fn well_formed(events: &[Value]) {
    let (mut open, mut done) = (None, Vec::new());
    let (last, before) = events.split_last().expect("it ends");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(before[0]["type"], "response.created");
    for event in &before[1..] {
        let kind = event["type"].as_str().unwrap_or_default();
        match kind {
            "response.in_progress" => assert!(done.is_empty() && open.is_none()),
            "response.output_item.added" => {
                assert!(open.is_none() && event["output_index"] == done.len());
                open = Some(event["item"]["id"].clone());
            }
            "response.output_item.done" => {
                assert!(open.take().as_ref() == Some(&event["item"]["id"]) && event["output_index"] == done.len());
                done.push(event["item"].clone());
            }
            _ => assert!(open.as_ref() == Some(&event["item_id"]) && event["output_index"] == done.len(), "{event}"),
        }
    }
    let ends = ["response.completed", "response.incomplete", "response.failed"];
    assert!(last["type"].as_str().is_some_and(|kind| ends.contains(&kind)), "{last}");
    assert_eq!(last["response"]["output"], Value::Array(done));
    assert!(open.is_none() || last["type"] == "response.failed");
}
