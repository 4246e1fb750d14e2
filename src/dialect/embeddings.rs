//! OpenAI's embeddings. Another model's numbers mean something else, so none ever stands in for the one that was asked:
//! <https://openrouter.ai/docs/api/reference/embeddings>

use serde::Deserialize;
use serde_json::value::RawValue;

use super::chat::{self, ChatReader};
use super::edits::Edits;
use super::{Action, AnswerSummary, Api, Dialect, Named, Needs, Reader, Route, StandIn, Usage, is_nothing};
use crate::json::Field;

/// The API.
pub static API: Api = Api {
    name: "embeddings",
    routes: &[
        Route::post("/embeddings", Action::Ask(&Embeddings))
            .about("embeddings, by free models only")
            .sample(r#"{"input":"Hello"}"#),
        Route::get(MODELS.list, Action::List(MODELS.list, chat::list)),
    ],
    ..Api::DEFAULT
};

const MODELS: Named =
    Named { what: ["Embeddings", "嵌入"], setting: "EMBEDDING_MODEL", list: "/embeddings/models" };

/// What the upstream is asked in.
#[derive(Debug)]
pub struct Embeddings;

impl Dialect for Embeddings {
    fn path(&self) -> &'static str {
        "/embeddings"
    }

    fn make_free(&self, _: &[Field<'_>], _: &mut Edits) -> bool {
        false
    }

    fn needs(&self, _: &[Field<'_>]) -> Needs {
        Needs::default()
    }

    fn stand_in(&self) -> StandIn {
        StandIn::Named(MODELS)
    }

    fn read_answer(&self, body: &str, _: Needs) -> AnswerSummary {
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
            return AnswerSummary::unreadable();
        };
        let holds_numbers = |vector: &Vector<'_>| vector.embedding.is_some_and(|v| !is_nothing(v.get()));
        AnswerSummary {
            model: body.model,
            usage: body.usage.unwrap_or_default(),
            has_content: body
                .data
                .as_ref()
                .is_some_and(|data| !data.is_empty() && data.iter().all(holds_numbers)),
            unreadable: body.data.is_none() && body.error.is_none(),
            error: body.error.map(|error| error.get().to_owned()),
            ..AnswerSummary::default()
        }
    }

    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        // There are no streams of it; what came as one all the same would be told as chat's.
        Box::new(ChatReader::new("list", assemble, needs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_either_form_are_an_answer() {
        let summary =
            |data: &str| {
                Embeddings.read_answer(&format!(
                r#"{{"data":[{data}],"model":"m:free","usage":{{"prompt_tokens":3,"total_tokens":3}}}}"#
            ), Needs::default())
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
