//! A plain answer: looked at whole before anything of it goes to the client, or handed on as it comes where it is long.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::attempt::{
    Answer, FailedAnswer, FailedAttempt, MAX_HELD_BYTES, broke_off, empty_answer, error_in_a_200, no_answer,
    unreadable,
};
use super::finish::{FinalWrite, Served};
use super::{Client, Relay};
use crate::client::exchange::Reply;
use crate::error::CUT;
use crate::json;
use crate::upstream::{Failure, Trouble};

/// What is read of a long answer at a time.
const READ_BYTES: usize = 16 * 1024;
/// What debug mode keeps of it.
const MAX_RECORDED_BYTES: usize = 8 << 20;

impl Relay {
    #[inline(never)]
    pub(super) fn relay_plain(
        &mut self,
        answer: &mut Answer,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        let mut body = Vec::new();
        let whole = answer.read_whole(&mut body, MAX_HELD_BYTES).map_err(|failure| no_answer(&failure))?;
        let headers = answer.returned_headers();
        if !whole {
            return self.relay_long(answer, body, headers, model);
        }
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let summary = self.dialect.read_answer(text);
        if summary.doubtful && !is_whole(&body) {
            return Err(no_answer(&Failure::Broken(Trouble::BrokeOff, CUT.into())));
        }
        if let Some(error) = summary.error.as_ref().filter(|_| !summary.has_content) {
            let text = text.to_owned();
            let failed = |status| FailedAnswer::Upstream(Reply { status, headers, body });
            return Err(error_in_a_200(answer, error, &text, failed));
        }
        if !summary.is_an_answer() || body.trim_ascii().is_empty() {
            return Err(empty_answer());
        }
        if let Client::Streaming(_) = self.client {
            return Err(unreadable("it is no event stream"));
        }
        if summary.doubtful && self.translated.is_some() {
            return Err(unreadable("it is no answer of a chat"));
        }
        if summary.doubtful || summary.error.is_some() || answer.status() != 200 {
            self.leader = None; // the client has it, and nobody else
        }
        let recorded = self.recording.is_some().then(|| json_or_string(&body));
        if let Some(leader) = &self.leader {
            leader.begin(answer.head(model, self.metrics.backup.as_ref()));
        }
        let headers = self.with_proxy_headers(headers, model);
        self.note(&summary);
        let body = match &mut self.translator {
            Some(translator) => {
                let told = translator.answer(text).into_bytes();
                if let Some(leader) = &mut self.leader {
                    leader.add_translated(&told);
                }
                told
            }
            None => body,
        };
        self.final_write = FinalWrite::Reply(Reply { status: answer.status(), headers, body });
        Ok(Served::Whole(recorded))
    }

    /// The rest of an answer that is too long to be held.
    fn relay_long(
        &mut self,
        answer: &mut Answer,
        begun: Vec<u8>,
        headers: Vec<(Cow<'static, str>, String)>,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        self.leader = None; // too long to be kept or shared
        answer.is_not_shared();
        let headers = self.with_proxy_headers(headers, model);
        let Client::Waiting(exchange) = std::mem::replace(&mut self.client, Client::Answered) else {
            return Err(unreadable("it is no event stream"));
        };
        let recorded = |body: &[u8]| {
            let kept = &body[..body.len().min(MAX_RECORDED_BYTES)];
            Some(json::quoted(&String::from_utf8_lossy(kept)))
        };
        let record = self.recording.as_ref().and_then(|_| recorded(&begun));
        let Ok(mut stream) = exchange.start(answer.status(), &headers) else {
            return Ok(Served::ClientLeft(record));
        };
        let mut buffer = begun;
        loop {
            if stream.write(&buffer).is_err() {
                return Ok(Served::ClientLeft(record));
            }
            buffer.resize(READ_BYTES, 0);
            buffer.shrink_to(READ_BYTES);
            match answer.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => buffer.truncate(read),
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
        self.client = Client::Streaming(stream);
        Ok(Served::Whole(record))
    }
}

/// Whether nothing is missing of a body that begins like JSON. (Where the end of the connection is the end of a body, no
/// other end can be told from it.)
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
