//! OpenAI's legacy completions, which editors complete code with: chat's shape, with `text` in place of messages.

use serde_json::{Value, json};

use super::chat::{ChatReader, summary_of, text_of, words};
use super::files;
use super::request::Edits;
use super::{AnswerSummary, Dialect, Needs, Question, Reader, Said, data_event};
use crate::json::Field;

/// The API.
#[derive(Debug)]
pub struct Completions;

impl Dialect for Completions {
    fn name(&self) -> &'static str {
        "completions"
    }

    fn path(&self) -> &'static str {
        "/completions"
    }

    fn make_free(&self, fields: &[Field<'_>], edits: &mut Edits) -> bool {
        // It has no tools; what stands there all the same is nothing that anybody needs.
        for none in ["tools", "tool_choice"] {
            edits.drop_field(fields, none);
        }
        files::carried(fields)
    }

    fn needs(&self, _: &[Field<'_>]) -> Needs {
        Needs::default()
    }

    fn read_answer(&self, body: &str) -> AnswerSummary {
        summary_of(body)
    }

    fn reader(&self, assemble: bool) -> Box<dyn Reader> {
        Box::new(ChatReader::new("text_completion", assemble))
    }

    fn question(&self, request: &Value) -> Question {
        let prompt = &request["prompt"];
        let first = prompt.as_array().and_then(|prompts| prompts.first()).unwrap_or(prompt);
        Question { text: text_of(first), words: words(prompt), ..Question::default() }
    }

    fn tell(&self, said: &Said, streams: bool) -> Vec<String> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    #[test]
    fn texts_add_up_and_break_off_in_their_own_shape() {
        let mut reader = Completions.reader(true);
        for chunk in [
            r#"{"id":"c","object":"text_completion","model":"a:free","choices":[{"text":"He","index":0,"finish_reason":null}]}"#,
            r#"{"choices":[{"text":"llo","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        ] {
            reader.read(Some(chunk));
        }
        assert!(reader.summary().has_content && reader.summary().finished);
        assert!(reader.broken_off(&ApiError::stopping()).contains(r#""text":"""#));
        let answer = reader.answer().unwrap();
        assert_eq!(answer["object"], "text_completion");
        assert_eq!(answer["choices"][0], json!({"index": 0, "text": "Hello", "finish_reason": "stop"}));
    }
}
