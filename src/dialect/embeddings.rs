//! OpenAI's embeddings. Another model's numbers mean something else, so none ever stands in for the one that was asked:
//! <https://openrouter.ai/docs/api/reference/embeddings>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::chat::{ChatReader, text_of, words};
use super::request::Edits;
use super::{AnswerSummary, Dialect, Needs, Question, Reader, Said, Usage, is_nothing};
use crate::json::Field;

/// The API.
#[derive(Debug)]
pub struct Embeddings;

impl Dialect for Embeddings {
    fn name(&self) -> &'static str {
        "embeddings"
    }

    fn path(&self) -> &'static str {
        "/embeddings"
    }

    fn make_free(&self, _: &[Field<'_>], _: &mut Edits) -> bool {
        false
    }

    fn needs(&self, _: &[Field<'_>]) -> Needs {
        Needs::default()
    }

    fn any_model_will_do(&self) -> bool {
        false
    }

    fn read_answer(&self, body: &str) -> AnswerSummary {
        #[derive(Deserialize)]
        struct Body<'a> {
            #[serde(default)]
            model: Option<String>,
            #[serde(default)]
            usage: Option<Usage>,
            #[serde(borrow, default)]
            error: Option<&'a RawValue>,
            #[serde(borrow, default)]
            data: Option<Vec<Vector<'a>>>,
        }
        #[derive(Deserialize)]
        struct Vector<'a> {
            #[serde(borrow, default)]
            embedding: Option<&'a RawValue>,
        }
        let Ok(body) = serde_json::from_str::<Body<'_>>(body) else {
            return AnswerSummary::unknown();
        };
        let holds_numbers = |vector: &Vector<'_>| vector.embedding.is_some_and(|v| !is_nothing(v.get()));
        AnswerSummary {
            model: body.model,
            usage: body.usage.unwrap_or_default(),
            has_content: body.data.is_some_and(|data| !data.is_empty() && data.iter().all(holds_numbers)),
            error: body.error.map(|error| error.get().to_owned()),
            ..AnswerSummary::default()
        }
    }

    fn reader(&self, assemble: bool) -> Box<dyn Reader> {
        // There are no streams of it; what came as one all the same would be told as chat's.
        Box::new(ChatReader::new("list", assemble))
    }

    fn question(&self, request: &Value) -> Question {
        let input = &request["input"];
        let inputs = match input.as_array() {
            // One list of token numbers is one input.
            Some(list) if list.first().is_some_and(|first| !first.is_number()) => {
                list.iter().map(|one| if one.is_string() { text_of(one) } else { one.to_string() }).collect()
            }
            Some(tokens) => vec![Value::from(tokens.clone()).to_string()],
            None => vec![text_of(input)],
        };
        let base64 = request["encoding_format"] == "base64";
        Question { words: words(input), inputs, base64, ..Question::default() }
    }

    fn tell(&self, said: &Said, _: bool) -> Vec<String> {
        let data = said.vectors.iter().enumerate().map(|(index, vector)| {
            let embedding = match said.base64 {
                true => {
                    let bytes = vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
                    json!(STANDARD.encode(bytes))
                }
                false => json!(vector),
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        });
        let usage = json!({"prompt_tokens": said.tokens.0, "total_tokens": said.tokens.0});
        let data = data.collect::<Vec<_>>();
        vec![json!({"object": "list", "data": data, "model": said.model, "usage": usage}).to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_either_form_are_an_answer() {
        let summary = |data: &str| {
            Embeddings.read_answer(&format!(
                r#"{{"data":[{data}],"model":"m:free","usage":{{"prompt_tokens":3,"total_tokens":3}}}}"#
            ))
        };
        assert!(
            summary(r#"{"embedding":[0.1]}"#).has_content && summary(r#"{"embedding":"AAAA"}"#).has_content
        );
        assert_eq!(summary(r#"{"embedding":[0.1]}"#).usage.prompt_tokens, Some(3));
        for nothing in ["", r#"{"embedding":[]}"#, r#"{"embedding":[1]},{"embedding":null}"#] {
            assert!(!summary(nothing).is_an_answer(), "{nothing}");
        }
    }
}
