//! Legacy completions of the built-in model.

use serde_json::{Value, json};

use super::{Question, Said, data_event, text_of, words};

/// Reads the question from the body of a request.
pub fn question(request: &Value) -> Question {
    let prompt = &request["prompt"];
    let first = prompt.as_array().and_then(|prompts| prompts.first()).unwrap_or(prompt);
    Question { text: text_of(first), words: words(prompt), ..Question::default() }
}

/// Returns the answer: one piece for a plain one, one event each for a stream.
pub fn tell(said: &Said, streams: bool) -> Vec<String> {
    let (prompt, completion) = said.tokens;
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
    let frame = |text: &str, finish: Value| {
        let choice = json!({"text": text, "index": 0, "logprobs": null, "finish_reason": finish});
        json!({
            "id": format!("gen-offline-{}", said.created), "object": "text_completion",
            "created": said.created, "model": said.model, "choices": [choice],
        })
    };
    if !streams {
        let mut whole = frame(&said.text, json!("stop"));
        whole["usage"] = usage;
        return vec![whole.to_string()];
    }
    let words = said.text.split_inclusive(' ').map(|word| frame(word, Value::Null));
    let mut last = frame("", json!("stop"));
    last["usage"] = usage;
    let events = words.chain([last]).map(|chunk| data_event(&chunk));
    events.chain([String::from("data: [DONE]\n\n")]).collect()
}
