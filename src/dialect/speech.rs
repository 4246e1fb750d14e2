//! OpenAI's speech: text becomes sound, which isn't JSON.

use serde_json::{Value, json};

use super::errors;
use super::{Action, AnswerSummary, Api, Dialect, Named, Needs, Reader, Route, StandIn, data_event};
use crate::error::ApiError;

/// The API.
pub static API: Api = Api {
    name: "speech",
    routes: &[Route::post("/audio/speech", Action::Ask(&Speech))
        .about("speech, by free models only")
        .sample(r#"{"input":"Hello","voice":"alloy"}"#)],
    ..Api::DEFAULT
};

/// What the upstream is asked in.
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

    /// Of sound nothing is read ([`Self::answers_in_bytes`]); JSON is an error, or nothing.
    fn read_answer(&self, body: &str, _: Needs) -> AnswerSummary {
        AnswerSummary { error: errors::object(body), ..AnswerSummary::default() }
    }

    /// Of `"stream_format": "sse"`.
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
            self.summary.has_content = true; // nothing short is as long as this
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
