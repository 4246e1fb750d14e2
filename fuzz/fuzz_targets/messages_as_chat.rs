//! Checks that a strict chat server can take any request in Anthropic's Messages API, and that an Anthropic SDK can
//! read any answer of such a server to its end.

#![no_main]

mod as_chat;

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::messages_as_chat::MessagesAsChat;
use serde_json::Value;

fuzz_target!(|input: String| as_chat::check(&input, &MessagesAsChat, well_formed));

fn well_formed(events: &[Value]) {
    let (mut open, mut blocks, mut is_over) = (false, 0, false);
    for (number, event) in events.iter().enumerate() {
        assert!(!is_over, "nothing follows the end");
        let index = event["index"].as_u64();
        match event["type"].as_str() {
            Some("message_start") => assert_eq!(number, 0),
            Some("content_block_start") => {
                assert!(number > 0 && !open && index == Some(blocks));
                open = true;
            }
            Some("content_block_delta") => assert!(open && index == Some(blocks)),
            Some("content_block_stop") => {
                assert!(open && index == Some(blocks));
                (open, blocks) = (false, blocks + 1);
            }
            Some("message_delta") => assert!(!open && event["usage"]["output_tokens"].is_u64()),
            Some("message_stop") => {
                assert_eq!(events[number - 1]["type"], "message_delta");
                is_over = true;
            }
            Some("error") => {
                assert!(event["error"]["message"].is_string());
                is_over = true;
            }
            kind => panic!("{kind:?}"),
        }
    }
    assert!(is_over, "it ends");
}
