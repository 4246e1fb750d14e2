//! Server-sent events: comments are relayed at once, events without content are held until one with content follows,
//! then every byte is relayed as it comes.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::attempt::{broke_off, empty_answer, error_in_a_200, no_answer, no_real_answer};
use super::in_flight::{CallSharing, CancelReason, Cancellable};
use super::outcome::{FailedAnswer, FailedAttempt, FinalWrite, Served};
use super::state::{Client, Relay};
use crate::dialect::sse::{Events, Prelude};
use crate::dialect::{AnswerSummary, Reader, Translator, errors};
use crate::error::ApiError;
use crate::json;
use crate::language::Words;
use crate::upstream::Failure;

/// The size of the buffer for reading at first, and once the stream has turned out to be a fast one.
const READ_BYTES: usize = 1024;
const FAST_READ_BYTES: usize = 64 * 1024;
/// How long a stream may go on after its end marker, if the upstream keeps the connection open.
const AFTER_THE_END: Duration = Duration::from_secs(5);
/// How long it may go on after only the model has said that it is done: the usage may follow.
const AFTER_FINISH: Duration = Duration::from_secs(10);

/// Handles each event, wherever it stands in the stream: reads it, and translates it into the API that the client
/// speaks.
struct EventSink {
    reader: Box<dyn Reader>,
    translator: Option<Box<dyn Translator>>,
    /// The translation that is still to be sent.
    translated: Vec<u8>,
    end_is_translated: bool,
    /// The data of the event that held an error.
    failed: Option<String>,
    /// The time after which nothing more is waited for.
    deadline: Option<Instant>,
}

impl EventSink {
    fn new(reader: Box<dyn Reader>, translator: Option<Box<dyn Translator>>) -> Self {
        Self {
            reader,
            translator,
            translated: Vec::new(),
            end_is_translated: false,
            failed: None,
            deadline: None,
        }
    }

    fn event(&mut self, data: Option<&str>) {
        match data.and_then(json::documents) {
            None => self.document(data),
            Some(documents) => documents.into_iter().for_each(|document| self.document(Some(document))),
        }
    }

    fn document(&mut self, data: Option<&str>) {
        let had_failed = self.summary().error.is_some();
        self.reader.read(data);
        let has_failed = self.summary().error.is_some();
        if has_failed && !had_failed {
            self.failed = data.map(str::to_owned);
        }
        if let (Some(translator), Some(data)) = (&mut self.translator, data) {
            self.translated.extend_from_slice(translator.event(data).as_bytes());
        }
        if self.summary().done && !has_failed {
            self.translate_end(); // now, because the upstream may take its time to end the stream
        }
    }

    fn translate_end(&mut self) {
        if let (Some(translator), false) = (&mut self.translator, self.end_is_translated) {
            self.end_is_translated = true;
            self.translated.extend_from_slice(translator.end().as_bytes());
        }
    }

    fn summary(&self) -> &AnswerSummary {
        self.reader.summary()
    }

    /// Returns whether the events so far tell if the stream is an answer.
    fn is_decided(&self) -> bool {
        let summary = self.summary();
        summary.error.is_some() || summary.says_something() || summary.done || summary.finished
    }

    /// Limits how long the rest may take, once the end has been announced.
    fn bound_the_rest(&mut self, answer: &Answer) {
        let summary = self.reader.summary();
        let rest = match (summary.done, summary.finished) {
            (true, _) => AFTER_THE_END,
            (false, true) => AFTER_FINISH,
            (false, false) => return,
        };
        let deadline = Instant::now() + rest;
        if self.deadline.is_none_or(|known| deadline < known) {
            self.deadline = Some(deadline);
            answer.end_by(deadline);
        }
    }

    /// Returns the whole answer, if it was to be assembled.
    fn assembled(self) -> Option<String> {
        self.reader.answer().map(|answer| answer.to_string())
    }
}

/// The beginning of a stream that is worth relaying.
struct Begun {
    /// What hasn't been sent to the client yet.
    held: Vec<u8>,
    events: Events,
    sink: EventSink,
    /// Whether the stream has ended.
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
        let Some(begun) = self.read_beginning(&mut answer, &mut buffer, model) else {
            return Ok(Served::ClientLeft(None));
        };
        let Begun { held, mut events, mut sink, ended } = begun?;
        // Here and below: only an answer without errors and flaws is shared with identical requests.
        self.tries.answer_is_flawed = self.flaw_of(sink.summary()).is_some();
        if sink.summary().error.is_some() || answer.status() != 200 || self.tries.answer_is_flawed {
            self.sharing.leader = None;
        }
        if let Some(leader) = &self.sharing.leader {
            leader.begin(answer.head(model, self.record.metrics.backup.as_ref()));
        }
        if let Some(recording) = &self.record.recording {
            recording.clear_events();
        }
        let is_translated = sink.translator.is_some();
        if let Some(model) = &sink.summary().model {
            self.record.metrics.model.clone_from(model);
        }
        let first = if is_translated { &sink.translated } else { &held };
        if self.send(first, &answer, model, sink.translator.as_deref()).is_err() {
            return Ok(Served::ClientLeft(sink.assembled()));
        }
        self.keep_events(&held);
        drop(held);
        self.record.metrics.first_token.get_or_insert_with(|| self.asked.began.elapsed());
        self.report(None);
        sink.bound_the_rest(&answer);
        let ending = loop {
            if ended {
                break None;
            }
            let piece = match answer.read(&mut buffer) {
                Ok(0) => break None,
                Ok(read) => &buffer[..read],
                Err(failure) => break Some(failure),
            };
            // A shared answer is checked before it is sent: no request may join one that has gone wrong.
            let at_once = self.sharing.leader.is_none() && !is_translated;
            if at_once && self.send(piece, &answer, model, None).is_err() {
                return Ok(Served::ClientLeft(sink.assembled()));
            }
            self.keep_events(piece);
            sink.translated.clear();
            events.feed(piece, |data| sink.event(data));
            if sink.summary().error.is_some() {
                self.sharing.leader = None;
            }
            let rest = if is_translated { &sink.translated[..] } else { piece };
            let sent = at_once || rest.is_empty();
            if !sent && self.send(rest, &answer, model, sink.translator.as_deref()).is_err() {
                return Ok(Served::ClientLeft(sink.assembled()));
            }
            sink.bound_the_rest(&answer);
            if piece.len() == buffer.len() && buffer.len() < FAST_READ_BYTES {
                buffer.resize(buffer.len() * 2, 0);
            }
        };
        let separator = events.separator();
        sink.translated.clear();
        events.finish(|data| sink.event(data));
        Ok(self.end_stream(sink, ending, separator))
    }

    /// Finds out how a stream ended, and what the client is told last.
    #[inline(never)]
    fn end_stream(&mut self, mut sink: EventSink, ending: Option<Failure>, separator: &str) -> Served {
        self.note(sink.summary());
        if let Some(error) = sink.summary().error.clone() {
            let text = sink.failed.take().unwrap_or_else(|| error.clone());
            let status = errors::Diagnosis::read(200, &|_| None, &text).status;
            let said = errors::message(&error);
            self.client.final_write = FinalWrite::Event(std::mem::take(&mut sink.translated));
            return Served::BrokenOff { error, status, said, partial: sink.assembled() };
        }
        let summary = sink.summary();
        let error = match (self.cancel().reason(), ending) {
            _ if summary.done => None,
            (Some(CancelReason::ClientLeft), _) => return Served::ClientLeft(sink.assembled()),
            (Some(CancelReason::Stopping), _) => Some(ApiError::stopping()),
            (Some(CancelReason::Cancelled), _) => Some(ApiError::cancelled()),
            // The model has said everything; only the end marker is missing.
            (None, _) if summary.finished => None,
            (None, Some(failure)) => Some(broke_off(&failure)),
            (None, None) => Some(broke_off(&Failure::cut())),
        };
        let Some(error) = error else {
            sink.translate_end();
            if sink.translator.is_some() {
                self.client.final_write = FinalWrite::Event(std::mem::take(&mut sink.translated));
            }
            return Served::Whole(sink.assembled());
        };
        let mut last = std::mem::take(&mut sink.translated);
        match &sink.translator {
            Some(translator) => last.extend_from_slice(translator.broken_off(&error).as_bytes()),
            None => last = format!("{separator}{}", sink.reader.broken_off(&error)).into_bytes(),
        }
        self.client.final_write = FinalWrite::Event(last);
        let (status, said) = (error.status, error.in_words().to_owned());
        Served::BrokenOff { error: error.object(), status, said, partial: sink.assembled() }
    }

    /// Reads up to the first event with content. Returns `None` if the client has left meanwhile.
    // Out of line, so that its stack isn't kept for as long as the answer streams.
    #[inline(never)]
    fn read_beginning(
        &mut self,
        answer: &mut Answer,
        buffer: &mut [u8],
        model: &str,
    ) -> Option<Result<Begun, Box<FailedAttempt>>> {
        let reader = self.dialect().reader(self.record.recording.is_some(), self.asked.request.needs);
        let mut sink = EventSink::new(reader, self.client.translator.take());
        let mut prelude = Prelude::default();
        let mut pass = Vec::new();
        let (rest, ended) = loop {
            let read = match answer.read(buffer) {
                Ok(read) => read,
                Err(failure) => return Some(Err(no_answer(&failure))),
            };
            if read == 0 {
                prelude.finish(|data| sink.event(data));
                break (Vec::new(), true);
            }
            let taken = prelude.feed(&buffer[..read], &mut pass, |data| {
                sink.event(data);
                sink.is_decided()
            });
            // A client whose API is translated doesn't know comments.
            let are_known = self.asked.translated.is_none();
            if !pass.is_empty() && are_known && self.send(&pass, answer, model, None).is_err() {
                return None;
            }
            pass.clear();
            if let Some(taken) = taken {
                break (buffer[taken..read].to_vec(), false);
            }
        };
        let (mut held, mut events) = prelude.into_parts();
        let summary = sink.summary();
        if summary.error.is_some() {
            let data = sink.failed.take().unwrap_or_default();
            let text = data.clone();
            let event = |status| FailedAnswer::Event { bytes: held, data, status };
            return Some(Err(error_in_a_200(answer, &text, model, event)));
        }
        let is_empty = !summary.has_content && !summary.has_reasoning && !summary.cut_short;
        if is_empty && (summary.done || summary.finished) {
            return Some(Err(empty_answer()));
        }
        if is_empty && ended {
            let reason =
                Words::new("the stream ended without having said anything", "流没有任何内容就结束了");
            return Some(Err(no_answer(&Failure::broke_off(reason))));
        }
        if let Some(flaw) = self.flaw_of(summary).filter(|_| !self.is_last_resort()) {
            let mut failed = no_real_answer(flaw);
            failed.by.clone_from(&summary.model);
            return Some(Err(failed));
        }
        events.feed(&rest, |data| sink.event(data));
        held.extend_from_slice(&rest);
        Some(Ok(Begun { held, events, sink, ended }))
    }

    /// Assembles a stream into the plain answer that was asked for, for a client whose API is translated: it knows no
    /// events then. An error in the stream takes the answer's place.
    pub(super) fn assembled(&self, stream: &[u8]) -> Result<Vec<u8>, Box<FailedAttempt>> {
        let mut sink = EventSink::new(self.dialect().reader(true, self.asked.request.needs), None);
        let mut events = Events::default();
        events.feed(stream, |data| sink.event(data));
        events.finish(|data| sink.event(data));
        match sink.failed.take() {
            Some(error) => Ok(error.into_bytes()),
            None if !sink.summary().done && !sink.summary().finished => Err(no_answer(&Failure::cut())),
            None => Ok(sink.assembled().unwrap_or_default().into_bytes()),
        }
    }

    /// Keeps the events that the panel shows.
    fn keep_events(&self, piece: &[u8]) {
        if let Some(recording) = &self.record.recording {
            recording.push_events(piece);
        }
    }

    /// Sends a piece of a stream; before the first one, the response head.
    fn send(
        &mut self,
        piece: &[u8],
        answer: &Answer,
        model: &str,
        translator: Option<&dyn Translator>,
    ) -> std::io::Result<()> {
        if let Client::Waiting(_) = &self.client.state {
            let mut headers = self.with_proxy_headers(answer.returned_headers(), model);
            headers.retain(|(name, _)| name != "content-type");
            self.start_stream(headers, translator)?;
        }
        if let (Some(leader), Some(_)) = (&mut self.sharing.leader, translator) {
            leader.add_translated(piece);
        }
        let sent = match &mut self.client.state {
            Client::Streaming(stream) => stream.write(piece),
            Client::Left => Ok(()),
            Client::Waiting(_) | Client::Answered => Err(std::io::ErrorKind::NotConnected.into()),
        };
        let leader = self.sharing.leader.as_ref();
        if sent.is_err() && leader.is_some_and(|leader| leader.shared_call().is_wanted_without_its_leader()) {
            self.client.state = Client::Left;
            return Ok(());
        }
        sent
    }

    fn start_stream(
        &mut self,
        mut headers: Vec<(Cow<'static, str>, String)>,
        translator: Option<&dyn Translator>,
    ) -> std::io::Result<()> {
        let content_type = translator.map_or("text/event-stream", |translator| translator.content_type());
        for (name, value) in [
            ("content-type", content_type),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"), // or nginx in front of the proxy would hold events back
        ] {
            headers.push((name.into(), value.into()));
        }
        if let Client::Waiting(exchange) = std::mem::replace(&mut self.client.state, Client::Answered) {
            self.client.state = Client::Streaming(exchange.start(200, &headers)?);
        }
        Ok(())
    }
}
