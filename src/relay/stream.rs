//! Server-sent events: comments at once, what says nothing when something is said behind it, then every byte as it comes.

use std::borrow::Cow;

use super::attempt::{
    Answer, FailedAnswer, FailedAttempt, broke_off, empty_answer, error_in_a_200, no_answer,
};
use super::finish::{FinalWrite, Served};
use super::in_flight::CancelReason;
use super::{Client, Relay};
use crate::dialect::sse::{Events, Prelude};
use crate::dialect::{AnswerSummary, Reader, Translator, errors};
use crate::error::{ApiError, CUT, SAID_NOTHING};
use crate::upstream::{Failure, Trouble};

/// What is read at first, and once the stream has turned out to be a fast one.
const READ_BYTES: usize = 1024;
const FAST_READ_BYTES: usize = 64 * 1024;

/// The beginning of a stream that is worth having.
struct Begun {
    /// What the client hasn't got of it yet.
    held: Vec<u8>,
    events: Events,
    reader: Box<dyn Reader>,
    /// Nothing more comes.
    ended: bool,
}

impl Relay {
    #[inline(never)]
    pub(super) fn relay_stream(
        &mut self,
        mut answer: Answer,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        let mut buffer = vec![0; READ_BYTES];
        let begun = match self.read_beginning(&mut answer, &mut buffer, model) {
            Some(begun) => begun?,
            None => return Ok(Served::ClientLeft(None)),
        };
        let Begun { held, mut events, mut reader, ended } = begun;
        // From here on this answer is the client's, and of those who want the same.
        if reader.summary().error.is_some() || answer.status() != 200 {
            self.leader = None;
        }
        if let Some(leader) = &self.leader {
            leader.begin(answer.head(model, self.metrics.backup.as_ref()));
        }
        let told = |reader: Box<dyn Reader>| reader.answer().map(|answer| answer.to_string());
        if let Some(recording) = &self.recording {
            recording.clear_events();
        }
        let mut said = std::mem::take(&mut self.said);
        self.translate_end(reader.summary(), &mut said);
        let first = if self.translator.is_some() { &said } else { &held };
        if self.send(first, &answer, model).is_err() {
            return Ok(Served::ClientLeft(told(reader)));
        }
        self.keep_events(&held);
        drop(held);
        self.metrics.first_token.get_or_insert_with(|| self.began.elapsed());
        self.report(None);
        let ending = loop {
            if ended {
                break None;
            }
            let piece = match answer.read(&mut buffer) {
                Ok(0) => break None,
                Ok(read) => &buffer[..read],
                Err(failure) => break Some(failure),
            };
            // What others may want is looked at first: nobody joins an answer that has gone wrong.
            let at_once = self.leader.is_none() && self.translator.is_none();
            if at_once && self.send(piece, &answer, model).is_err() {
                return Ok(Served::ClientLeft(told(reader)));
            }
            self.keep_events(piece);
            said.clear();
            events.feed(piece, |data| {
                reader.read(data);
                translate(&mut self.translator, data, &mut said);
            });
            if reader.summary().error.is_some() {
                self.leader = None;
            }
            self.translate_end(reader.summary(), &mut said);
            let rest = if self.translator.is_some() { &said[..] } else { piece };
            if !at_once && !rest.is_empty() && self.send(rest, &answer, model).is_err() {
                return Ok(Served::ClientLeft(told(reader)));
            }
            if piece.len() == buffer.len() && buffer.len() < FAST_READ_BYTES {
                buffer.resize(buffer.len() * 2, 0);
            }
        };
        let separator = events.separator();
        events.finish(|data| reader.read(data));
        self.note(reader.summary());
        if let Some(error) = reader.summary().error.clone() {
            let status = errors::status(&error).unwrap_or(502);
            let said = errors::message(&error);
            return Ok(Served::BrokenOff { error, status, said, partial: told(reader) });
        }
        let summary = reader.summary();
        let error = match (self.in_flight.cancel().reason(), ending) {
            _ if summary.done => None,
            (Some(CancelReason::ClientLeft), _) => return Ok(Served::ClientLeft(told(reader))),
            (Some(CancelReason::Stopping), _) => Some(ApiError::stopping()),
            (Some(CancelReason::Cancelled), _) => Some(ApiError::cancelled()),
            (None, Some(failure)) => Some(broke_off(&failure)),
            (None, None) if summary.finished => None,
            (None, None) => {
                let reason = CUT.into();
                Some(broke_off(&Failure::Broken(Trouble::BrokeOff, reason)))
            }
        };
        let Some(error) = error else {
            if let (Some(translator), false) = (&mut self.translator, self.end_is_told) {
                self.final_write = FinalWrite::Event(translator.end().into());
            }
            return Ok(Served::Whole(told(reader)));
        };
        let last = match &self.translator {
            Some(translator) => translator.broken_off(&error),
            None => format!("{separator}{}", reader.broken_off(&error)),
        };
        self.final_write = FinalWrite::Event(last.into());
        let (status, said) = (error.status, error.in_words().to_owned());
        Ok(Served::BrokenOff { error: error.object(), status, said, partial: told(reader) })
    }

    /// Reads up to the first event that says something. `None` when the client has left meanwhile.
    // Apart, so that its stack isn't kept for as long as the answer streams.
    #[inline(never)]
    fn read_beginning(
        &mut self,
        answer: &mut Answer,
        buffer: &mut [u8],
        model: &str,
    ) -> Option<Result<Begun, Box<FailedAttempt>>> {
        let mut reader = self.dialect.reader(self.recording.is_some());
        let mut prelude = Prelude::default();
        let mut pass = Vec::new();
        let mut failed = None;
        let (mut translator, mut said) = (self.translator.take(), Vec::new());
        let mut reads = |reader: &mut Box<dyn Reader>, data: Option<&str>| {
            reader.read(data);
            translate(&mut translator, data, &mut said);
            let summary = reader.summary();
            if summary.error.is_some() {
                failed = data.map(str::to_owned);
            }
            summary.error.is_some() || summary.is_an_answer() || summary.done
        };
        let (rest, ended) = loop {
            let read = match answer.read(buffer) {
                Ok(read) => read,
                Err(failure) => return Some(Err(no_answer(&failure))),
            };
            if read == 0 {
                prelude.finish(|data| {
                    reads(&mut reader, data);
                });
                break (Vec::new(), true);
            }
            let taken = prelude.feed(&buffer[..read], &mut pass, |data| reads(&mut reader, data));
            // Who speaks another API knows no comments.
            if !pass.is_empty() && self.translated.is_none() && self.send(&pass, answer, model).is_err() {
                return None;
            }
            pass.clear();
            if let Some(taken) = taken {
                break (buffer[taken..read].to_vec(), false);
            }
        };
        let (mut held, mut events) = prelude.into_parts();
        let summary = reader.summary();
        if let Some(error) = &summary.error {
            let data = failed.unwrap_or_default();
            let text = data.clone();
            let event = |status| FailedAnswer::Event { bytes: held, data, status };
            return Some(Err(error_in_a_200(answer, error, &text, event)));
        }
        if !summary.is_an_answer() && (summary.done || summary.finished) {
            return Some(Err(empty_answer()));
        }
        if ended && !summary.is_an_answer() {
            let reason = SAID_NOTHING.into();
            return Some(Err(no_answer(&Failure::Broken(Trouble::BrokeOff, reason))));
        }
        events.feed(&rest, |data| {
            reader.read(data);
            translate(&mut translator, data, &mut said);
        });
        held.extend_from_slice(&rest);
        (self.translator, self.said) = (translator, said);
        Some(Ok(Begun { held, events, reader, ended }))
    }

    /// Tells a client of another API that the answer is over as soon as it is: the upstream may take its time to end.
    fn translate_end(&mut self, summary: &AnswerSummary, said: &mut Vec<u8>) {
        if let Some(translator) = &mut self.translator
            && summary.done
            && summary.error.is_none()
            && !std::mem::replace(&mut self.end_is_told, true)
        {
            said.extend_from_slice(translator.end().as_bytes());
        }
    }

    /// Keeps what the panel shows of a stream.
    fn keep_events(&self, piece: &[u8]) {
        if let Some(recording) = &self.recording {
            recording.push_events(piece);
        }
    }

    /// Sends a piece of a stream, with the head before the first one.
    fn send(&mut self, piece: &[u8], answer: &Answer, model: &str) -> std::io::Result<()> {
        if let Client::Waiting(_) = &self.client {
            let mut headers = self.with_proxy_headers(answer.returned_headers(), model);
            headers.retain(|(name, _)| name != "content-type");
            self.start_stream(headers)?;
        }
        if let (Some(leader), Some(_)) = (&mut self.leader, &self.translator) {
            leader.add_translated(piece);
        }
        let sent = match &mut self.client {
            Client::Streaming(stream) => stream.write(piece),
            Client::Left => Ok(()),
            Client::Waiting(_) | Client::Answered => Err(std::io::ErrorKind::NotConnected.into()),
        };
        let wanted =
            || self.leader.as_ref().is_some_and(|leader| leader.shared_call().is_wanted_without_its_leader());
        if sent.is_err() && wanted() {
            self.client = Client::Left;
            return Ok(());
        }
        sent
    }

    fn start_stream(&mut self, mut headers: Vec<(Cow<'static, str>, String)>) -> std::io::Result<()> {
        let content_type =
            self.translator.as_ref().map_or("text/event-stream", |translator| translator.content_type());
        for (name, value) in [
            ("content-type", content_type),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"), // or nginx in front of us would gather what we send at once
        ] {
            headers.push((name.into(), value.into()));
        }
        if let Client::Waiting(exchange) = std::mem::replace(&mut self.client, Client::Answered) {
            self.client = Client::Streaming(exchange.start(200, &headers)?);
        }
        Ok(())
    }
}

/// Tells of an event in the API that the client speaks, where that is another one.
fn translate(translator: &mut Option<Box<dyn Translator>>, data: Option<&str>, said: &mut Vec<u8>) {
    if let (Some(translator), Some(data)) = (translator, data) {
        said.extend_from_slice(translator.event(data).as_bytes());
    }
}
