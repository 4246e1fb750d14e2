//! Cohere's rerank, as OpenRouter has it: documents in the order of their relevance to a query.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::chat::ChatReader;
use super::edits::Edits;
use super::{Action, AnswerSummary, Api, Dialect, Named, Needs, Reader, Route, StandIn, Usage};
use crate::json::Field;

/// The API.
pub static API: Api = Api {
    name: "rerank",
    routes: &[Route::post("/rerank", Action::Ask(&Rerank))
        .about("documents by their relevance, by free models only")
        .sample(r#"{"query":"Hello","documents":["Hello","Goodbye"]}"#)],
    ..Api::DEFAULT
};

/// What the upstream is asked in.
#[derive(Debug)]
pub struct Rerank;

impl Dialect for Rerank {
    fn path(&self) -> &'static str {
        "/rerank"
    }

    fn make_free(&self, _: &[Field<'_>], _: &mut Edits) -> bool {
        false
    }

    fn needs(&self, _: &[Field<'_>]) -> Needs {
        Needs::default()
    }

    /// Another model's scores mean something else.
    fn stand_in(&self) -> StandIn {
        StandIn::Named(Named {
            what: ["Rerankings", "重排序"],
            setting: "RERANK_MODEL",
            list: "/models?output_modalities=rerank",
        })
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
            results: Option<Vec<&'a RawValue>>,
        }
        let Ok(body) = serde_json::from_str::<Body<'_>>(body) else {
            return AnswerSummary::unreadable();
        };
        AnswerSummary {
            model: body.model,
            usage: body.usage.unwrap_or_default(),
            unreadable: body.results.is_none() && body.error.is_none(),
            has_content: body.results.is_some_and(|results| !results.is_empty()),
            error: body.error.map(|error| error.get().to_owned()),
            ..AnswerSummary::default()
        }
    }

    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        // There are no streams of it; what came as one all the same would be told as chat's.
        Box::new(ChatReader::new("list", assemble, needs))
    }
}
