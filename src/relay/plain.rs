//! Plain answers: read whole before any of it goes to the client, or handed on as they arrive if they are too long for
//! that.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::answer::Answer;
use super::attempt::{broke_off, empty_answer, error_in_a_200, no_answer, no_real_answer, unusable};
use super::outcome::{FailedAnswer, FailedAttempt, FinalWrite, ReadableAnswer, Served, Verdict};
use super::state::{Client, Relay};
use crate::client::exchange::Reply;
use crate::json;
use crate::language::Words;
use crate::memory;
use crate::upstream::{Failure, FailureKind};

/// A plain answer of up to this size is examined before any of it goes to the client; longer ones can't be errors.
const MAX_HELD_BYTES: usize = 8 << 20;
/// The limit for an answer that is translated into another API: it can't be handed on in pieces.
const MAX_TRANSLATED_BYTES: usize = 128 << 20;
/// An answer that nests deeper can't be translated; no real one does.
const MAX_DEPTH: usize = 100;
/// The number of bytes read at a time of a long answer.
const READ_BYTES: usize = 16 * 1024;
/// The number of bytes that debug mode keeps of a long answer.
const MAX_RECORDED_BYTES: usize = 8 << 20;

impl Relay {
    #[inline(never)]
    pub(super) fn relay_plain(
        &mut self,
        answer: &mut Answer,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        let mut body = Vec::new();
        let limit = if self.client.translator.is_some() { MAX_TRANSLATED_BYTES } else { MAX_HELD_BYTES };
        let whole = match answer.read_whole(&mut body, limit) {
            // Everything is there, and only the end isn't announced.
            Err(failure) if !(matches!(failure.kind, FailureKind::Silent(_)) && is_an_object(&body)) => {
                return Err(no_answer(&failure));
            }
            whole => whole.unwrap_or(true),
        };
        let mut headers = answer.returned_headers();
        if let Some(translator) = &self.client.translator {
            let is_plain = !self.asked.request.stream;
            let content_type = if is_plain { "application/json" } else { translator.content_type() };
            headers.retain(|(name, value)| {
                name != "content-type" || is_plain && value.starts_with(content_type)
            });
            if !headers.iter().any(|(name, _)| name == "content-type") {
                headers.push(("content-type".into(), content_type.into()));
            }
        }
        if answer.is_event_stream() && whole {
            body = self.assembled(&body)?;
        }
        if !whole && self.client.translator.is_some() {
            return Err(unusable("its answer is too long to be translated", "回答太长，无法转换"));
        }
        if !whole {
            return self.relay_long(answer, body, headers, model);
        }
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let summary = self.dialect().read_answer(text, self.asked.request.needs);
        if summary.unreadable && !is_whole(&body) {
            return Err(no_answer(&Failure::cut()));
        }
        if body.trim_ascii().is_empty() {
            return Err(empty_answer());
        }
        if summary.unreadable {
            return Err(no_real_answer(Words::new("it is no answer in this API", "不是这个 API 的回答")));
        }
        if summary.error.is_some() {
            let text = text.to_owned();
            let client_gets = |status| FailedAnswer::Upstream(Reply { status, headers, body });
            return Err(error_in_a_200(answer, &text, model, client_gets));
        }
        if self.client.translator.is_some() && json::depth(text) > MAX_DEPTH {
            return Err(unusable("its answer nests too deeply to be translated", "回答嵌套过深，无法转换"));
        }
        let wants_stream = self.asked.request.stream && self.any_model_will_do();
        let is_told_in_lines = self.asked.translated.is_some();
        let can_be_told = is_told_in_lines && matches!(self.client.state, Client::Waiting(_));
        if (wants_stream || matches!(self.client.state, Client::Streaming(_))) && !can_be_told {
            return Err(no_real_answer(Words::new("it is no event stream", "不是事件流")));
        }
        let flaw = self.flaw_of(&summary);
        if !summary.is_an_answer() && !summary.has_reasoning {
            return Err(empty_answer());
        }
        let flaw = if summary.is_an_answer() {
            flaw
        } else {
            Some(Words::new("nothing but reasoning", "只有思考过程"))
        };
        if summary.in_progress || flaw.is_some() || answer.status() != 200 {
            self.sharing.leader = None; // not good enough for other requests
        }
        let recorded = self.record.recording.is_some().then(|| json_or_string(&body));
        if let Some(leader) = &self.sharing.leader {
            leader.begin(answer.head(model, self.record.metrics.backup.as_ref()));
        }
        self.note(&summary);
        let body = match &mut self.client.translator {
            Some(translator) => {
                let translated = memory::apart(text.len(), || translator.answer(text)).into_bytes();
                if let Some(leader) = &mut self.sharing.leader {
                    leader.add_translated(&translated);
                }
                translated
            }
            None => body,
        };
        let reply = Reply { status: answer.status(), headers, body };
        if let Some(flaw) = flaw {
            let readable = FailedAnswer::Readable(Box::new(ReadableAnswer { reply, recorded }));
            let mut failed = FailedAttempt::new(flaw, Verdict::TryAgain(None), readable);
            failed.by = summary.model;
            return Err(failed);
        }
        let headers = self.with_proxy_headers(reply.headers, model);
        self.client.final_write = FinalWrite::Reply(Reply { headers, ..reply });
        Ok(Served::Whole(recorded))
    }

    /// Relays the rest of an answer that is too long to be held back.
    fn relay_long(
        &mut self,
        answer: &mut Answer,
        begun: Vec<u8>,
        headers: Vec<(Cow<'static, str>, String)>,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        self.sharing.leader = None; // too long to be kept or shared
        answer.is_not_shared();
        let headers = self.with_proxy_headers(headers, model);
        let Client::Waiting(exchange) = std::mem::replace(&mut self.client.state, Client::Answered) else {
            return Err(unusable("it is no event stream", "不是事件流"));
        };
        let recorded = |body: &[u8]| {
            let kept = &body[..body.len().min(MAX_RECORDED_BYTES)];
            Some(json::quoted(&String::from_utf8_lossy(kept)))
        };
        let record = self.record.recording.as_ref().and_then(|_| recorded(&begun));
        let Ok(mut stream) = exchange.start(answer.status(), &headers) else {
            return Ok(Served::ClientLeft(record));
        };
        // In pieces: while the client doesn't take them, none is kept twice.
        if begun.chunks(READ_BYTES).any(|piece| stream.write(piece).is_err()) {
            return Ok(Served::ClientLeft(record));
        }
        drop(begun);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match answer.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) if stream.write(&buffer[..read]).is_err() => return Ok(Served::ClientLeft(record)),
                Ok(_) => {}
                Err(failure) => {
                    stream.abort();
                    let error = broke_off(&failure);
                    return Ok(Served::BrokenOff {
                        error: error.object(),
                        status: error.status,
                        said: error.in_words().to_owned(),
                        partial: record,
                    });
                }
            }
        }
        self.client.state = Client::Streaming(stream);
        Ok(Served::Whole(record))
    }
}

fn is_an_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// Returns whether a body that begins like JSON is complete; any other body counts as complete. (Where a body ends with
/// the connection, nothing else tells that it was cut off.)
fn is_whole(body: &[u8]) -> bool {
    let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    !is_json || !serde_json::from_slice::<IgnoredAny>(body).is_err_and(|error| error.is_eof())
}

fn json_or_string(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(json) => json.get().to_owned(),
        Err(_) => json::quoted(&text),
    }
}
