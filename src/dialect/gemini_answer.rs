//! Answers in Google's Gemini API, translated from chat completions: plain, as events, or as an array that grows.

use serde_json::{Map, Value, json};

use super::chat::{arguments_of, call_as_text, text_of, thought_in};
use super::errors::{self, Diagnosis};
use super::merge::{MemoryBudget, merge};
use super::{Translator, UpstreamError, data_event};
use crate::error::ApiError;
use crate::json::SurrogateJoiner;

/// The method that the client called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Generate,
    Stream,
    Embed,
    BatchEmbed,
}

/// Returns the elements of a list; a value that stands alone counts as a list of one.
pub(super) fn elements(list: &Value) -> &[Value] {
    match list {
        Value::Array(list) => list,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

/// Returns an error in Google's shape: <https://google.aip.dev/193>. `retry_after` is in seconds.
pub(super) fn error_object(status: u16, message: &str, retry_after: Option<u64>) -> Value {
    let name = match status {
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        405 | 501 => "UNIMPLEMENTED",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        502 | 503 | 529 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let mut error = json!({"code": status, "message": message, "status": name});
    if let Some(seconds) = retry_after {
        let kind = "type.googleapis.com/google.rpc.RetryInfo";
        error["details"] = json!([{"@type": kind, "retryDelay": format!("{seconds}s")}]);
    }
    json!({"error": error})
}

/// A translator for the answer of chat completions or of embeddings.
pub(super) struct GeminiTranslator {
    kind: Kind,
    /// Whether a stream consists of events (`?alt=sse`); otherwise it is an array that grows.
    is_sse: bool,
    tells_thoughts: bool,
    /// The fields of the whole answer that each event repeats.
    head: Map<String, Value>,
    candidates: Vec<Candidate>,
    usage: Value,
    /// Whether an event has been sent, and with it the opening bracket of an array.
    has_begun: bool,
    /// Whether the stream has ended, with an error or regularly.
    is_over: bool,
    halves: SurrogateJoiner,
}

/// The state of one of the answers while they are streamed.
#[derive(Default)]
struct Candidate {
    index: u64,
    /// The tool calls so far, as `tool_calls`: their arguments come in pieces that aren't JSON.
    calls: Map<String, Value>,
    room: MemoryBudget,
    finish: Option<String>,
}

/// The most candidates that are read: no real answer has more.
const MAX_CANDIDATES: usize = 128;

impl Translator for GeminiTranslator {
    fn content_type(&self) -> &'static str {
        if self.is_sse { "text/event-stream" } else { "application/json" }
    }

    fn event(&mut self, data: &str) -> String {
        let Some(chunk) = self.halves.parse(data).filter(|_| !self.is_over) else {
            return String::new(); // `[DONE]`
        };
        let choices = elements(&chunk["choices"]);
        let errors = [&chunk["error"]].into_iter().chain(choices.iter().map(|choice| &choice["error"]));
        if errors.into_iter().any(|error| !error.is_null())
            || choices.iter().any(|choice| choice["finish_reason"] == "error")
        {
            let Diagnosis { status, message, .. } = Diagnosis::read(200, &|_| None, data);
            let message = if message.is_empty() { "The model ended with an error." } else { &message };
            let last = self.ended_by(&error_object(status, message, None));
            self.is_over = true;
            return last;
        }
        self.read_head(&chunk);
        let mut told = Vec::new();
        for choice in choices {
            let index = choice["index"].as_u64().unwrap_or(0);
            let Some(candidate) = candidate(&mut self.candidates, index) else { continue };
            if let Some(reason) = choice["finish_reason"].as_str() {
                candidate.finish = Some(reason.to_owned());
            }
            let delta = &choice["delta"];
            if delta["tool_calls"].is_array() {
                let calls = delta["tool_calls"].clone();
                merge(&mut candidate.calls, "tool_calls".into(), calls, &mut candidate.room);
            }
            let parts = parts(delta, &Value::Null, self.tells_thoughts);
            if !parts.is_empty() {
                told.push(json!({"content": {"parts": parts, "role": "model"}, "index": index}));
            }
        }
        if told.is_empty() { String::new() } else { self.frame(told, false) }
    }

    fn end(&mut self) -> String {
        if self.is_over {
            return String::new();
        }
        if self.candidates.is_empty() {
            self.candidates.push(Candidate::default());
        }
        let tells = |candidate: &mut Candidate| {
            let calls = candidate.calls.remove("tool_calls").unwrap_or_default();
            let parts = parts(&Value::Null, &calls, false);
            complete_candidate(candidate.index, parts, candidate.finish.as_deref())
        };
        let told = self.candidates.iter_mut().map(tells).collect();
        let last = self.frame(told, true) + self.end_of_all();
        self.is_over = true;
        last
    }

    fn answer(&mut self, body: &str) -> String {
        let Some(answer) = self.halves.parse(body) else {
            let error = errors::object(body).map(|error| errors::message(&error)).unwrap_or_default();
            return error_object(502, &error, None).to_string();
        };
        if let Kind::Embed | Kind::BatchEmbed = self.kind {
            let mut data = elements(&answer["data"]).to_vec();
            data.sort_by_key(|one| one["index"].as_u64());
            let mut vectors = data.iter().map(|one| json!({"values": one["embedding"]}));
            return match self.kind {
                Kind::Embed => json!({"embedding": vectors.next()}),
                _ => json!({"embeddings": vectors.collect::<Vec<_>>()}),
            }
            .to_string();
        }
        self.read_head(&answer);
        let told = elements(&answer["choices"]).iter().enumerate().map(|(at, choice)| {
            let message = &choice["message"];
            let parts = parts(message, &message["tool_calls"], self.tells_thoughts);
            let index = choice["index"].as_u64().unwrap_or(at as u64);
            complete_candidate(index, parts, choice["finish_reason"].as_str())
        });
        let told = told.collect::<Vec<_>>();
        if self.kind == Kind::Generate {
            return self.whole(told, true).to_string();
        }
        self.frame(told, true) + self.end_of_all()
    }

    fn broken_off(&self, error: &ApiError) -> String {
        self.ended_by(&error_object(error.status, &error.message, None))
    }

    fn error_body(&self, error: &UpstreamError<'_>) -> String {
        error_object(error.status, &errors::in_words(error.status, error.body), error.retry_after).to_string()
    }
}

impl GeminiTranslator {
    /// Creates a translator for this method. A stream consists of events if `is_sse`, otherwise it is an array that
    /// grows.
    pub(super) fn new(kind: Kind, is_sse: bool, tells_thoughts: bool) -> Self {
        Self {
            kind,
            is_sse,
            tells_thoughts,
            head: Map::new(),
            candidates: Vec::new(),
            usage: Value::Null,
            has_begun: false,
            is_over: false,
            halves: SurrogateJoiner::default(),
        }
    }

    fn read_head(&mut self, chunk: &Value) {
        for (name, theirs) in [("modelVersion", "model"), ("responseId", "id")] {
            if let Some(text) = chunk[theirs].as_str() {
                self.head.insert(name.to_owned(), json!(text));
            }
        }
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
    }

    fn whole(&self, candidates: Vec<Value>, is_last: bool) -> Value {
        let mut whole = Map::from_iter([("candidates".to_owned(), Value::Array(candidates))]);
        if is_last {
            whole.insert("usageMetadata".to_owned(), usage(&self.usage));
        }
        whole.extend(self.head.clone());
        Value::Object(whole)
    }

    fn frame(&mut self, candidates: Vec<Value>, is_last: bool) -> String {
        let event = self.framed(&self.whole(candidates, is_last));
        self.has_begun = true;
        event
    }

    fn framed(&self, event: &Value) -> String {
        match (self.is_sse, self.has_begun) {
            (true, _) => data_event(event),
            (false, false) => format!("[{event}"),
            (false, true) => format!(",\n{event}"),
        }
    }

    /// Returns what follows the last event.
    fn end_of_all(&self) -> &'static str {
        if self.is_sse { "" } else { "]" }
    }

    fn ended_by(&self, error: &Value) -> String {
        if self.is_over { String::new() } else { self.framed(error) + self.end_of_all() }
    }
}

fn candidate(candidates: &mut Vec<Candidate>, index: u64) -> Option<&mut Candidate> {
    let known = candidates.iter().position(|candidate| candidate.index == index);
    if known.is_none() && candidates.len() < MAX_CANDIDATES {
        candidates.push(Candidate { index, ..Candidate::default() });
    }
    let at = known.unwrap_or(candidates.len() - 1);
    candidates.get_mut(at).filter(|candidate| candidate.index == index)
}

/// Returns a complete candidate; an empty one gets an empty text.
fn complete_candidate(index: u64, mut parts: Vec<Value>, finish: Option<&str>) -> Value {
    if parts.is_empty() {
        parts.push(json!({"text": ""}));
    }
    let finish = match finish {
        Some("length") => "MAX_TOKENS",
        Some("content_filter") => "SAFETY",
        _ => "STOP",
    };
    json!({"content": {"parts": parts, "role": "model"}, "finishReason": finish, "index": index})
}

/// Returns the parts of a message or a delta, and the calls, which must be complete.
fn parts(message: &Value, calls: &Value, tells_thoughts: bool) -> Vec<Value> {
    let mut parts = Vec::new();
    let thought = if tells_thoughts { thought_in(message) } else { String::new() };
    if !thought.is_empty() {
        parts.push(json!({"text": thought, "thought": true}));
    }
    for text in [text_of(&message["content"]), text_of(&message["refusal"])] {
        if !text.is_empty() {
            parts.push(json!({"text": text}));
        }
    }
    parts.extend(elements(calls).iter().map(|call| {
        if let Some(text) = call_as_text(call) {
            return json!({"text": text});
        }
        let mut told = json!({"name": call["function"]["name"], "args": arguments_of(call)});
        if call["id"].is_string() {
            told["id"] = call["id"].clone();
        }
        json!({"functionCall": told})
    }));
    parts
}

fn usage(usage: &Value) -> Value {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (prompt, completion) = (number(&usage["prompt_tokens"]), number(&usage["completion_tokens"]));
    let thoughts = number(&usage["completion_tokens_details"]["reasoning_tokens"]).min(completion);
    let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
    let mut told = json!({
        "promptTokenCount": prompt, "candidatesTokenCount": completion - thoughts,
        "totalTokenCount": prompt + completion,
    });
    for (name, count) in [("thoughtsTokenCount", thoughts), ("cachedContentTokenCount", cached)] {
        if count > 0 {
            told[name] = json!(count);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(is_sse: bool, chunks: &[Value]) -> (GeminiTranslator, String) {
        let mut translator = GeminiTranslator::new(Kind::Stream, is_sse, true);
        let told = chunks.iter().map(|chunk| translator.event(&chunk.to_string())).collect();
        (translator, told)
    }

    #[test]
    fn candidates_stream_side_by_side() {
        let choice = |index: u64, text: &str, finish: Value| json!({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]});
        let chunks =
            [choice(1, "b", Value::Null), choice(0, "a", json!("stop")), choice(1, "", json!("length"))];
        let (mut translator, told) = stream(false, &chunks);
        let told = serde_json::from_str::<Value>(&(told + &translator.end())).unwrap();
        let first = |event: &Value| event["candidates"][0].clone();
        assert_eq!(
            first(&told[0]),
            json!({"content": {"parts": [{"text": "b"}], "role": "model"}, "index": 1})
        );
        assert_eq!(first(&told[1])["index"], 0);
        let last = told[2]["candidates"].as_array().unwrap();
        let ends =
            last.iter().map(|candidate| (candidate["index"].clone(), candidate["finishReason"].clone()));
        assert_eq!(ends.collect::<Vec<_>>(), [(json!(1), json!("MAX_TOKENS")), (json!(0), json!("STOP"))]);
    }

    #[test]
    fn nothing_stands_behind_an_error() {
        let said = json!({"choices": [{"delta": {"content": "a"}}]});
        let failed = json!({"error": {"code": 429, "message": "slow down"}, "choices": []});
        for is_sse in [true, false] {
            let (mut translator, told) = stream(is_sse, &[said.clone(), failed.clone(), said.clone()]);
            assert!(
                told.contains(
                    r#"{"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}"#
                )
            );
            assert_eq!(translator.end() + &translator.broken_off(&ApiError::stopping()), "");
            assert!(told.ends_with(if is_sse { "\n\n" } else { "}]" }), "{told}");
        }
        let nothing = GeminiTranslator::new(Kind::Stream, false, true).broken_off(&ApiError::stopping());
        assert_eq!(serde_json::from_str::<Value>(&nothing).unwrap()[0]["error"]["status"], "UNAVAILABLE");
    }

    #[test]
    fn a_plain_answer_to_a_streamed_request_is_a_stream_all_the_same() {
        let answer = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
        let told = GeminiTranslator::new(Kind::Stream, true, true).answer(answer);
        assert!(told.starts_with("data: {\"candidates\"") && told.ends_with("\n\n"), "{told}");
        let told = GeminiTranslator::new(Kind::Stream, false, true).answer(answer);
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap().as_array().unwrap().len(), 1);
    }
}
