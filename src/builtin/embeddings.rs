//! Embeddings of the built-in model: numbers without a meaning.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Question, Said, text_of, words};

/// Reads the inputs from the body of a request.
pub fn question(request: &Value) -> Question {
    let input = &request["input"];
    let inputs = match input.as_array() {
        // A single list of token numbers is one input.
        Some(list) if list.first().is_some_and(|first| !first.is_number()) => {
            list.iter().map(|one| if one.is_string() { text_of(one) } else { one.to_string() }).collect()
        }
        Some(tokens) => vec![Value::from(tokens.clone()).to_string()],
        None => vec![text_of(input)],
    };
    let base64 = request["encoding_format"] == "base64";
    Question { words: words(input), inputs, base64, ..Question::default() }
}

/// Returns the answer, which is always a plain one.
pub fn tell(said: &Said, _: bool) -> Vec<String> {
    let data = said.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if said.base64 {
            let bytes = vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
            json!(STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let usage = json!({"prompt_tokens": said.tokens.0, "total_tokens": said.tokens.0});
    let data = data.collect::<Vec<_>>();
    vec![json!({"object": "list", "data": data, "model": said.model, "usage": usage}).to_string()]
}
