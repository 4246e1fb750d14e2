//! OpenAI's legacy completions, with which editors complete code: the shape of chat completions, with `text` in place
//! of messages.

use super::chat::{Chat, ChatReader, TOOLS};
use super::edits::Edits;
use super::files;
use super::free_models::Kept;
use super::{Action, AnswerSummary, Api, Dialect, Needs, Reader, Route};
use crate::json::Field;

/// The declaration of the API.
pub static API: Api = Api {
    name: "completions",
    routes: &[Route::post("/completions", Action::Ask(&Completions))
        .about("legacy completions")
        .sample(r#"{"prompt":"Hello"}"#)],
    ..Api::DEFAULT
};

/// The legacy completions dialect.
#[derive(Debug)]
pub struct Completions;

impl Dialect for Completions {
    fn path(&self) -> &'static str {
        "/completions"
    }

    fn make_free(&self, fields: &[Field<'_>], edits: &mut Edits) -> bool {
        // The API has no tools; a request that has some all the same mustn't cost anything either.
        TOOLS.apply(fields, edits, Kept::default());
        files::carried(fields)
    }

    fn read_answer(&self, body: &str, needs: Needs) -> AnswerSummary {
        Chat.read_answer(body, needs)
    }

    fn reader(&self, assemble: bool, needs: Needs) -> Box<dyn Reader> {
        Box::new(ChatReader::new("text_completion", assemble, needs))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ApiError;

    #[test]
    fn texts_add_up_and_break_off_in_their_own_shape() {
        let mut reader = Completions.reader(true, Needs::default());
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
