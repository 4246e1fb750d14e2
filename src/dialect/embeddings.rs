//! OpenAI's embeddings. The numbers of another model mean something else, so no model stands in for the one that was
//! asked: <https://openrouter.ai/docs/api/reference/embeddings>

use super::{Action, Api, Dialect, Named, Route, StandIn, chat, is_nothing};
use crate::json;

/// The declaration of the API.
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

/// The embeddings dialect.
#[derive(Debug)]
pub struct Embeddings;

impl Dialect for Embeddings {
    fn path(&self) -> &'static str {
        "/embeddings"
    }

    fn stand_in(&self) -> StandIn {
        StandIn::Named(MODELS)
    }

    fn is_a_result(&self, vector: &str) -> bool {
        let fields = json::fields(vector).unwrap_or_default();
        json::field(&fields, "embedding").is_some_and(|numbers| !is_nothing(numbers.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Needs;

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
