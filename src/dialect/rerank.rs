//! Cohere's rerank, as OpenRouter has it: documents in the order of their relevance to a query.

use super::{Action, Api, Dialect, Named, Route, StandIn};

/// The declaration of the API.
pub static API: Api = Api {
    name: "rerank",
    routes: &[Route::post("/rerank", Action::Ask(&Rerank))
        .about("documents by their relevance, by free models only")
        .sample(r#"{"query":"Hello","documents":["Hello","Goodbye"]}"#)],
    ..Api::DEFAULT
};

/// The rerank dialect.
#[derive(Debug)]
pub struct Rerank;

impl Dialect for Rerank {
    fn path(&self) -> &'static str {
        "/rerank"
    }

    /// Another model's scores mean something else.
    fn stand_in(&self) -> StandIn {
        StandIn::Named(Named {
            what: ["Rerankings", "重排序"],
            setting: "RERANK_MODEL",
            list: "/models?output_modalities=rerank",
        })
    }

    fn results(&self) -> &'static str {
        "results"
    }
}
