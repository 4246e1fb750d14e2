//! OpenAI's speech: text becomes sound, which isn't JSON.

use serde_json::{Value, json};

use super::errors;
use super::{Action, AnswerSummary, Api, Dialect, Named, Needs, Reader, Route, StandIn, data_event};
use crate::error::ApiError;

/// The declaration of the API.
pub static API: Api = Api {
    name: "speech",
    routes: &[Route::post("/audio/speech", Action::Ask(&Speech))
        .about("speech, by free models only")
        .sample(r#"{"input":"Hello","voice":"alloy"}"#)],
    ..Api::DEFAULT
};

/// The speech dialect.
#[derive(Debug)]
pub struct Speech;

impl Dialect for Speech {
    fn path(&self) -> &'static str {
        "/audio/speech"
    }

    /// Another model speaks with another voice.
    fn stand_in(&self) -> StandIn {
        StandIn::Named(Named {
            what: ["Recordings of speech", "语音合成"],
            setting: "SPEECH_MODEL",
            list: "/models?output_modalities=speech",
        })
    }

    fn answers_in_bytes(&self) -> bool {
        true
    }

    /// Reads errors from JSON; sound isn't read ([`Self::answers_in_bytes`]).
    fn read_answer(&self, body: &str, _: Needs) -> AnswerSummary {
        AnswerSummary { error: errors::object(body), ..AnswerSummary::default() }
    }

    /// Returns the reader for streams of `"stream_format": "sse"`.
    fn reader(&self, _: bool, _: Needs) -> Box<dyn Reader> {
        Box::new(SpeechReader::default())
    }
}

#[derive(Default)]
struct SpeechReader {
    summary: AnswerSummary,
}

impl Reader for SpeechReader {
    fn read(&mut self, data: Option<&str>) {
        let Some(data) = data else {
            self.summary.has_content = true; // an event this long has content
            return;
        };
        self.summary.has_content |= data.contains(r#""audio""#);
        if self.summary.has_content && !data.contains("done") && !data.contains(r#""error""#) {
            return;
        }
        let event = serde_json::from_str::<Value>(data).unwrap_or_default();
        if event["type"] == "speech.audio.done" {
            self.summary.done = true;
        }
        if !event["error"].is_null() && self.summary.error.is_none() {
            self.summary.error = Some(event["error"].to_string());
        }
    }

    fn summary(&self) -> &AnswerSummary {
        &self.summary
    }

    fn broken_off(&self, error: &ApiError) -> String {
        data_event(&json!({"type": "error", "error": {"message": error.message, "code": error.status}}))
    }

    /// The sound isn't kept.
    fn answer(self: Box<Self>) -> Option<Value> {
        None
    }
}
