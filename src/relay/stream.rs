//! Server-sent events: comments at once, the first event when it is known to be no error, then every byte as it comes.

use std::borrow::Cow;

use super::attempt::{Answer, FailedAnswer, FailedAttempt, broke_off, error_in_a_200, no_answer};
use super::ending::{LastWords, Served};
use super::life::Cut;
use super::{Client, Relay};
use crate::dialect::chat::{self, Assembly, Facts};
use crate::dialect::sse::{Events, Found, Prelude};
use crate::error::ApiError;
use crate::record::calls::MAX_EVENTS_BYTES;
use crate::upstream::{Failure, Trouble};

/// What is read at first, and once the stream has turned out to be a fast one.
const READ_BYTES: usize = 1024;
const FAST_READ_BYTES: usize = 64 * 1024;

impl Relay {
    #[inline(never)]
    pub(super) fn relay_stream(
        &mut self,
        mut answer: Answer,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        let mut buffer = vec![0; READ_BYTES];
        let mut prelude = Prelude::default();
        let mut pass = Vec::new();
        let first = loop {
            let read = answer.read(&mut buffer).map_err(|failure| no_answer(&failure))?;
            if read == 0 {
                return Err(no_answer(&Failure::Broken(
                    Trouble::BrokeOff,
                    "the stream ended without an event".into(),
                )));
            }
            let found = prelude.feed(&buffer[..read], &mut pass);
            if !pass.is_empty() {
                if self.send(&pass, &answer, model).is_err() {
                    return Ok(Served::ClientLeft(None));
                }
                pass.clear();
            }
            if let Found::First(first) = found {
                break first;
            }
        };
        let held = prelude.into_held();
        let mut facts = Facts::default();
        facts.add_event(first.as_deref());
        if let (Some(error), Some(data)) = (&facts.error, first) {
            let text = data.clone();
            let failed = |status| FailedAnswer::Event { bytes: held, data, status };
            return Err(error_in_a_200(&answer, error, &text, failed));
        }

        // From here on this answer is the client's.
        let mut assembly = self.recording.as_ref().map(|_| Assembly::default());
        self.events.clear();
        let mut facts = Facts::default();
        let mut events = Events::default();
        let mut piece: &[u8] = &held;
        let mut read;
        let ending = loop {
            if self.send(piece, &answer, model).is_err() {
                return Ok(Served::ClientLeft(finish_assembly(assembly)));
            }
            if assembly.is_some() {
                let room = MAX_EVENTS_BYTES - self.events.len();
                self.events.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            events.feed(piece, |data| {
                facts.add_event(data);
                if let (Some(assembly), Some(data)) = (&mut assembly, data) {
                    assembly.add(data);
                }
            });
            if self.figures.first_token.is_none() && facts.content {
                self.figures.first_token = Some(self.began.elapsed());
            }
            if piece.len() == buffer.len() && buffer.len() < FAST_READ_BYTES {
                buffer.resize(buffer.len() * 2, 0);
            }
            read = answer.read(&mut buffer);
            match read {
                Ok(0) => break None,
                Ok(read) => piece = &buffer[..read],
                Err(ref failure) => break Some(failure.clone()),
            }
        };
        self.note(&facts);
        if let Some(error) = facts.error {
            let status = chat::error_status(&error).unwrap_or(502);
            return Ok(Served::BrokenOff { error, status, partial: finish_assembly(assembly) });
        }
        let error = match (self.under_way.cutter().reason(), ending) {
            _ if facts.done => None,
            (Some(Cut::ClientLeft), _) => return Ok(Served::ClientLeft(finish_assembly(assembly))),
            (Some(Cut::Stopping), _) => Some(ApiError::stopping()),
            (None, Some(failure)) => Some(broke_off(&failure)),
            (None, None) if facts.finished => None,
            (None, None) => {
                let reason = "the stream ended before the answer was whole".into();
                Some(broke_off(&Failure::Broken(Trouble::BrokeOff, reason)))
            }
        };
        let Some(error) = error else {
            return Ok(Served::Whole(finish_assembly(assembly)));
        };
        // A cut line is ended first, or it would swallow the event.
        let blank = if events.in_a_line() { "\n\n" } else { "" };
        self.last_words = LastWords::Event(format!("{blank}{}", error.mid_stream_event()).into());
        Ok(Served::BrokenOff {
            error: error.object(),
            status: error.status,
            partial: finish_assembly(assembly),
        })
    }

    /// Sends a piece of a stream, with the head before the first one.
    fn send(&mut self, piece: &[u8], answer: &Answer, model: &str) -> std::io::Result<()> {
        if let Client::Waiting(_) = &self.client {
            let mut headers = self.with_proxy_headers(answer.returned_headers(), model);
            headers.retain(|(name, _)| name != "content-type");
            self.start_stream(headers)?;
        }
        match &mut self.client {
            Client::Streaming(stream) => stream.write(piece),
            _ => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    fn start_stream(&mut self, mut headers: Vec<(Cow<'static, str>, String)>) -> std::io::Result<()> {
        for (name, value) in [
            ("content-type", "text/event-stream"),
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

fn finish_assembly(assembly: Option<Assembly>) -> Option<String> {
    assembly?.finish().map(|answer| answer.to_string())
}
