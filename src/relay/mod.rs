//! One chat completion from the client to the upstream and back, from top to bottom: rewrite, ask for leave, send, judge
//! the answer, relay it. A failure that another try can heal leads back to the top, as long as nothing of an answer has
//! gone to the client.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Local};
use serde_json::value::RawValue;
use ureq::http::HeaderValue;

use crate::calls::{Ending, FailedTry, Figures, MAX_EVENTS_BYTES, Recording};
use crate::client::{Exchange, Reply, Stream};
use crate::completion::{self, Assembly, Facts};
use crate::console::say;
use crate::error::ApiError;
use crate::free_models::{self, ChatRequest, Rule};
use crate::gate::{Admission, Limit, Pass, Turn};
use crate::json;
use crate::life::{Cut, UnderWay};
use crate::live::Snapshot;
use crate::patience::{self, Verdict};
use crate::proxy::Proxy;
use crate::sse::{Events, Found, Prelude};
use crate::upstream::{ATTRIBUTION, Call, CallError, Dialling, Failure, Trouble};

/// What is read of a plain answer at a time.
const READ_BYTES: usize = 16 * 1024;
/// What is read of a stream at first, and once it has turned out to be a fast one.
const STREAM_READ_BYTES: usize = 1024;
const FAST_STREAM_READ_BYTES: usize = 64 * 1024;
/// A plain answer up to this size is looked at before anything of it goes to the client; longer ones can't be errors.
const MAX_HELD_BYTES: usize = 8 << 20;
/// What debug mode keeps of an answer that is too long to be held.
const MAX_RECORDED_BYTES: usize = 8 << 20;
/// `x-proxy-model` is cut to this length.
const MAX_HEADER_CHARS: usize = 200;

/// Longer values of the client's attribution headers are no attribution.
const MAX_ATTRIBUTION_BYTES: usize = 1024;

/// Headers of the upstream that the client gets.
const RETURNED: [&str; 4] = ["content-type", "retry-after", "x-generation-id", "x-request-id"];
const RETURNED_PREFIX: &str = "x-ratelimit-";

/// Clients that left.
const CLIENT_CLOSED_STATUS: u16 = 499;

/// A request that has been understood, on its way through however many tries it takes. It can be put aside between two
/// tries, without a thread.
pub struct Relay {
    client: Client,
    request: ChatRequest,
    attribution: Vec<(&'static str, HeaderValue)>,
    snapshot: Arc<Snapshot>,
    recording: Option<Recording>,
    figures: Figures,
    under_way: UnderWay,
    began: Instant,
    /// Counts up over all requests.
    order: u64,
    /// Calls made so far, but for those that the account's limit rejected.
    calls_made: u32,
    last_words: LastWords,
    /// What the panel shows of a stream.
    events: Vec<u8>,
}

/// What is still to be sent when everything else is done: whoever has the end of an answer finds it recorded.
#[derive(Default)]
enum LastWords {
    #[default]
    Nothing,
    /// A whole answer.
    Reply(Reply),
    /// The last event of a stream.
    Event(Vec<u8>),
}

enum Client {
    /// Nothing has been sent yet.
    Waiting(Box<Exchange>),
    /// A 200 and comments have been sent.
    Streaming(Stream),
    Answered,
}

/// A try that failed before any part of an answer went to the client.
struct FailedAttempt {
    /// In words, for console, panel and files.
    reason: String,
    verdict: Verdict,
    answer: FailedAnswer,
}

/// What the client gets if this was the last try.
enum FailedAnswer {
    /// The upstream's own error, with the status it has or names.
    Upstream(Reply),
    /// The first event of a stream, as it came, and the status that its error names.
    Event { bytes: Vec<u8>, data: String, status: u16 },
    /// It gave no answer.
    Own(ApiError),
}

/// How a call came to its end, once something of its answer has gone out.
enum Served {
    /// In full. The answer's JSON, where it was recorded.
    Whole(Option<String>),
    /// With an error in the middle of it, and what had come before.
    BrokenOff { error: String, status: u16, partial: Option<String> },
    /// The client left; what had come so far.
    ClientLeft(Option<String>),
}

impl Relay {
    /// Understands a request, or refuses it.
    // What is only needed for a moment is apart from what stays on a worker's stack while an answer streams: hundreds of
    // them are as large as they have ever been.
    #[inline(never)]
    pub fn begin(
        proxy: &Proxy,
        mut exchange: Exchange,
        snapshot: Arc<Snapshot>,
        under_way: UnderWay,
    ) -> Option<Box<Self>> {
        let began = Instant::now();
        let request = match understand(std::mem::take(&mut exchange.body), &snapshot) {
            Ok(request) => request,
            Err(error) => {
                exchange.reply(Reply::from(&error));
                return None;
            }
        };
        let attribution = ATTRIBUTION.iter().filter_map(|name| {
            let value = exchange.header(name).filter(|value| value.len() <= MAX_ATTRIBUTION_BYTES)?;
            let value = HeaderValue::from_str(value).ok()?;
            Some((*name, value))
        });
        let recording = proxy.calls.begin(&snapshot, request.as_written());
        let figures = Figures {
            asked: request.asked.clone(),
            model: request.model.clone(),
            stream: request.stream,
            ..Figures::default()
        };
        Some(Box::new(Self {
            attribution: attribution.collect(),
            under_way,
            client: Client::Waiting(Box::new(exchange)),
            request,
            snapshot,
            recording,
            figures,
            began,
            order: proxy.next_order(),
            calls_made: 0,
            last_words: LastWords::Nothing,
            events: Vec::new(),
        }))
    }

    /// Asks for leave to call the upstream, and goes on if it is given at once.
    pub fn run(mut self: Box<Self>, proxy: &Proxy) {
        if self.snapshot.settings.test_mode {
            return crate::offline::answer(proxy, self);
        }
        if self.snapshot.settings.key.is_none() {
            return self.refuse(proxy, missing_key());
        }
        self.announce_model(proxy);
        let settings = &self.snapshot.settings;
        if !free_models::is_free(self.next_model()) {
            return self.go_on(proxy, None); // the limit is that of free models
        }
        let turn = Turn { order: self.order, waited: self.figures.waited, max_wait: settings.max_wait };
        let key = settings.key.clone();
        match proxy.gate.admit(self, turn, key.as_ref()) {
            Admission::Go(relay, pass) => relay.go_on(proxy, Some(pass)),
            Admission::Waits => {}
            Admission::TooLate(relay, limit) => relay.refuse(proxy, limit_reached(limit)),
            Admission::Full(relay) => relay.refuse(
                proxy,
                ApiError::new(
                    503,
                    "overloaded",
                    "Too many requests wait for the account's limit: try again later.",
                )
                .retry_after(1),
            ),
        }
    }

    /// Goes on after having waited for the account's limit, with the settings as they are now.
    pub fn resume(mut self: Box<Self>, proxy: &Proxy, pass: Pass, waited: Duration) {
        self.figures.waited += waited;
        self.snapshot = proxy.live.snapshot();
        if self.snapshot.settings.key.is_none() {
            return self.refuse(proxy, missing_key());
        }
        self.go_on(proxy, Some(pass));
    }

    /// The wait was for nothing: the account's limit lasts longer than this request may wait.
    pub fn give_up(mut self: Box<Self>, proxy: &Proxy, limit: Limit, waited: Duration) {
        self.figures.waited += waited;
        self.refuse(proxy, limit_reached(limit));
    }

    /// The request was cut off while it waited: its client left, or the program stops.
    pub fn abandon(self: Box<Self>, proxy: &Proxy) {
        match self.under_way.cutter().reason() {
            Some(Cut::Stopping) => self.refuse(proxy, stopping()),
            _ => self.finish(proxy, Served::ClientLeft(None)),
        }
    }

    /// The client's address.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        match &self.client {
            Client::Waiting(exchange) => exchange.peer,
            _ => None,
        }
    }

    /// Whether the request was cut off from outside.
    pub fn is_cut_off(&self) -> bool {
        self.under_way.cutter().reason().is_some()
    }

    fn next_model(&self) -> &str {
        let fallbacks = &self.snapshot.settings.fallback_models;
        let failed = self.figures.failed_tries.len();
        patience::model_of_try(&self.request.model, fallbacks, free_models::ROUTER, failed)
    }

    /// Tries until there is an answer, no try is left, or the account's limit is reached.
    fn go_on(mut self: Box<Self>, proxy: &Proxy, mut pass: Option<Pass>) {
        loop {
            let model = self.next_model().to_owned();
            self.figures.model.clone_from(&model);
            let mut failed = match self.attempt(&model, &mut pass) {
                Ok(served) => return self.finish(proxy, served),
                Err(failed) => failed,
            };
            match self.under_way.cutter().reason() {
                Some(Cut::ClientLeft) => return self.abandon(proxy),
                Some(Cut::Stopping) => {
                    failed.verdict = Verdict::PassOn;
                    failed.answer = FailedAnswer::Own(stopping());
                }
                None => {}
            }
            if let Verdict::AccountLimit(limit) = failed.verdict
                && free_models::is_free(&model)
            {
                say(format_args!("the account's limit is reached until {}", local_time(limit.reset)));
                match pass.take() {
                    Some(pass) => pass.rejected(limit),
                    None => proxy.gate.close(limit), // it came inside of a 200
                }
                self.calls_made -= 1;
                return self.run(proxy);
            }
            let made = self.calls_made;
            let named = match failed.verdict {
                Verdict::TryAgain(named)
                    if made <= self.snapshot.settings.retries && !proxy.life.is_stopping() =>
                {
                    named
                }
                _ => return self.fail(proxy, failed),
            };
            let pause = patience::pause(made, named, random());
            say(format_args!("{model}: {}; trying again in {:.1} s", failed.reason, pause.as_secs_f64()));
            self.figures.failed_tries.push(FailedTry {
                model,
                reason: failed.reason,
                at: self.began.elapsed(),
            });
            pass = None;
            if !self.under_way.pause(pause) {
                return self.abandon(proxy);
            }
            if free_models::is_free(self.next_model()) {
                return self.run(proxy); // another call needs another leave
            }
        }
    }

    /// One call to the upstream.
    fn attempt(&mut self, model: &str, pass: &mut Option<Pass>) -> Result<Served, FailedAttempt> {
        let mut call = self.call(model)?;
        let status = call.status();
        let compressed = call.header("content-encoding").is_some_and(|c| !c.eq_ignore_ascii_case("identity"));
        if compressed {
            return Err(unreadable("its answer is compressed, although it was asked not to"));
        }
        if !(200..300).contains(&status) {
            return Err(self.read_error(call));
        }
        // The limit would have come in place of this head; how long the answer takes is no concern of those who wait.
        if let Some(pass) = pass.take() {
            pass.passed();
        }
        match is_event_stream(&call) {
            true => self.relay_stream(call, model),
            false => self.relay_plain(&mut call, model),
        }
    }

    /// Sends the request. A pooled connection that turns out to be closed is replaced at once.
    fn call(&mut self, model: &str) -> Result<Call, FailedAttempt> {
        let body = self.request.body(model);
        let cutter = self.under_way.cutter();
        let attach = |hang_up| cutter.attach(hang_up);
        let upstream = &self.snapshot.upstream;
        self.calls_made += 1;
        let first = upstream.chat_completion(&body, &self.attribution, Dialling::Any(&attach));
        let called = match first {
            Err(CallError { was_stale: true, .. }) if cutter.reason().is_none() => {
                upstream.chat_completion(&body, &self.attribution, Dialling::New(&attach))
            }
            result => result,
        };
        called.map_err(|error| no_answer(&error.failure))
    }

    /// An error of the upstream's, whole.
    #[inline(never)]
    fn read_error(&self, mut call: Call) -> FailedAttempt {
        let status = call.status();
        let mut body = Vec::new();
        // What is missing of an error's body is no second error.
        let _ = call.read_whole(&mut body, MAX_HELD_BYTES);
        let text = String::from_utf8_lossy(&body);
        let header = |name: &str| call.header(name).map(str::to_owned);
        let verdict = patience::judge(status, &header, &text);
        let reason = format!("{status} {}", error_message(&text).unwrap_or_default());
        let reply = Reply { status, headers: returned_headers(&call), body };
        FailedAttempt { reason: reason.trim_end().to_owned(), verdict, answer: FailedAnswer::Upstream(reply) }
    }

    #[inline(never)]
    fn relay_plain(&mut self, call: &mut Call, model: &str) -> Result<Served, FailedAttempt> {
        let mut body = Vec::new();
        let whole = call.read_whole(&mut body, MAX_HELD_BYTES).map_err(|failure| no_answer(&failure))?;
        let headers = returned_headers(call);
        if !whole {
            return self.relay_long(call, body, headers, model);
        }
        let mut facts = Facts::default();
        let text = std::str::from_utf8(&body).unwrap_or_default();
        facts.add(text);
        if let Some(error) = facts.error.as_ref().filter(|_| !facts.content) {
            let named = completion::error_status(error);
            let header = |name: &str| call.header(name).map(str::to_owned);
            let status = named.unwrap_or(502);
            let verdict = patience::judge(status, &header, text);
            let reason = format!("200 with an error: {} {}", status, message_of(error));
            let answer = FailedAnswer::Upstream(Reply { status, headers, body });
            return Err(FailedAttempt { reason: reason.trim_end().to_owned(), verdict, answer });
        }
        if completion::is_empty_answer(text) {
            let message = "The model gave an empty answer. Try again, or name another model in MODEL or FALLBACK_MODELS.";
            let answer = FailedAnswer::Own(ApiError::new(502, "upstream_error", message));
            return Err(FailedAttempt {
                reason: "an empty answer".into(),
                verdict: Verdict::TryAgain(None),
                answer,
            });
        }
        if let Client::Streaming(_) = self.client {
            return Err(unreadable("it is no event stream"));
        }
        let recorded = self.recording.is_some().then(|| json_or_string(&body));
        let headers = self.with_proxy_headers(headers, model);
        self.note(&facts);
        self.last_words = LastWords::Reply(Reply { status: call.status(), headers, body });
        Ok(Served::Whole(recorded))
    }

    /// The rest of a plain answer that is too long to be held.
    fn relay_long(
        &mut self,
        call: &mut Call,
        begun: Vec<u8>,
        headers: Vec<(Cow<'static, str>, String)>,
        model: &str,
    ) -> Result<Served, FailedAttempt> {
        let headers = self.with_proxy_headers(headers, model);
        let Client::Waiting(exchange) = std::mem::replace(&mut self.client, Client::Answered) else {
            return Err(unreadable("it is no event stream"));
        };
        let recorded = |body: &[u8]| {
            let kept = &body[..body.len().min(MAX_RECORDED_BYTES)];
            Some(json::quoted(&String::from_utf8_lossy(kept)))
        };
        let record = self.recording.as_ref().and_then(|_| recorded(&begun));
        let Ok(mut stream) = exchange.start(call.status(), &headers) else {
            return Ok(Served::ClientLeft(record));
        };
        let mut buffer = begun;
        loop {
            if stream.write(&buffer).is_err() {
                return Ok(Served::ClientLeft(record));
            }
            buffer.resize(READ_BYTES, 0);
            buffer.shrink_to(READ_BYTES);
            match call.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => buffer.truncate(read),
                Err(failure) => {
                    stream.abort();
                    let error = broke_off(&failure);
                    return Ok(Served::BrokenOff {
                        error: error.object(),
                        status: error.status,
                        partial: record,
                    });
                }
            }
        }
        self.client = Client::Streaming(stream);
        Ok(Served::Whole(record))
    }

    /// Server-sent events: comments at once, the first event when it is known to be no error, then every byte as it
    /// comes.
    #[inline(never)]
    fn relay_stream(&mut self, mut call: Call, model: &str) -> Result<Served, FailedAttempt> {
        let mut buffer = vec![0; STREAM_READ_BYTES];
        let mut prelude = Prelude::default();
        let mut pass = Vec::new();
        let first = loop {
            let read = call.read(&mut buffer).map_err(|failure| no_answer(&failure))?;
            if read == 0 {
                return Err(no_answer(&Failure::Broken(
                    Trouble::BrokeOff,
                    "the stream ended without an event".into(),
                )));
            }
            let found = prelude.feed(&buffer[..read], &mut pass);
            if !pass.is_empty() {
                if self.send(&pass, &call, model).is_err() {
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
            let named = completion::error_status(error);
            let status = named.unwrap_or(502);
            let reason = format!("200 with an error: {status} {}", message_of(error));
            let verdict = patience::judge(status, &|name| call.header(name).map(str::to_owned), &data);
            let answer = FailedAnswer::Event { bytes: held, data, status };
            return Err(FailedAttempt { reason: reason.trim_end().to_owned(), verdict, answer });
        }

        // From here on this answer is the client's.
        let mut assembly = self.recording.as_ref().map(|_| Assembly::default());
        self.events.clear();
        let mut facts = Facts::default();
        let mut events = Events::default();
        let mut piece: &[u8] = &held;
        let mut read;
        let ending = loop {
            if self.send(piece, &call, model).is_err() {
                return Ok(Served::ClientLeft(finish_assembly(assembly)));
            }
            self.under_way.cutter().serve();
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
            if piece.len() == buffer.len() && buffer.len() < FAST_STREAM_READ_BYTES {
                buffer.resize(buffer.len() * 2, 0);
            }
            read = call.read(&mut buffer);
            match read {
                Ok(0) => break None,
                Ok(read) => piece = &buffer[..read],
                Err(ref failure) => break Some(failure.clone()),
            }
        };
        self.note(&facts);
        if let Some(error) = facts.error {
            let status = completion::error_status(&error).unwrap_or(502);
            return Ok(Served::BrokenOff { error, status, partial: finish_assembly(assembly) });
        }
        let error = match (self.under_way.cutter().reason(), ending) {
            _ if facts.done => None,
            (Some(Cut::ClientLeft), _) => return Ok(Served::ClientLeft(finish_assembly(assembly))),
            (Some(Cut::Stopping), _) => Some(stopping()),
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
    fn send(&mut self, piece: &[u8], call: &Call, model: &str) -> std::io::Result<()> {
        if let Client::Waiting(_) = &self.client {
            let mut headers = self.with_proxy_headers(returned_headers(call), model);
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

    /// The client gets the failure of the last try.
    #[inline(never)]
    fn fail(mut self: Box<Self>, proxy: &Proxy, failed: FailedAttempt) {
        let (error, status);
        if let Client::Streaming(_) = self.client {
            let event;
            (event, error, status) = match failed.answer {
                FailedAnswer::Event { bytes, data, status } => (bytes, error_object(&data, status), status),
                FailedAnswer::Upstream(reply) => {
                    let text = String::from_utf8_lossy(&reply.body);
                    let message = error_message(&text).unwrap_or_else(|| "The upstream failed.".into());
                    let event = ApiError::new(reply.status, "upstream_error", message).mid_stream_event();
                    (event.into_bytes(), error_object(&text, reply.status), reply.status)
                }
                FailedAnswer::Own(error) => {
                    (error.mid_stream_event().into_bytes(), error.object(), error.status)
                }
            };
            self.last_words = LastWords::Event(event);
        } else {
            let account_limit =
                matches!(&failed.answer, FailedAnswer::Own(e) if e.code == "rate_limit_exceeded");
            let mut reply;
            (reply, error) = match failed.answer {
                FailedAnswer::Upstream(reply) => {
                    let error = error_object(&String::from_utf8_lossy(&reply.body), reply.status);
                    (reply, error)
                }
                FailedAnswer::Event { data, status, .. } => {
                    let error = error_object(&data, status);
                    (Reply::json(status, data), error)
                }
                FailedAnswer::Own(error) => (Reply::from(&error), error.object()),
            };
            status = reply.status;
            reply.headers = self.with_proxy_headers(reply.headers, &self.figures.model);
            if self.tries() > 1 || account_limit {
                // Heeded by the OpenAI SDKs, so that their tries don't multiply ours.
                reply.headers.push(("x-should-retry".into(), "false".into()));
            }
            self.last_words = LastWords::Reply(reply);
        }
        self.finish(proxy, Served::BrokenOff { error, status, partial: None });
    }

    fn refuse(self: Box<Self>, proxy: &Proxy, error: ApiError) {
        let failed = FailedAttempt {
            reason: error.message.clone(),
            verdict: Verdict::PassOn,
            answer: FailedAnswer::Own(error),
        };
        self.fail(proxy, failed);
    }

    /// Answers with what the built-in model says.
    pub fn answer_offline(
        mut self: Box<Self>,
        proxy: &Proxy,
        answer: &str,
        chunks: impl Iterator<Item = String>,
    ) {
        let mut facts = Facts::default();
        facts.add(answer);
        self.note(&facts);
        let headers = self.with_proxy_headers(Vec::new(), free_models::ROUTER);
        let recorded = Some(answer.to_owned());
        if !self.request.stream {
            let mut reply = Reply::json(200, answer);
            reply.headers.extend(headers);
            self.last_words = LastWords::Reply(reply);
            return self.finish(proxy, Served::Whole(recorded));
        }
        if self.start_stream(headers).is_err() {
            return self.finish(proxy, Served::ClientLeft(None));
        }
        for chunk in chunks {
            self.figures.first_token.get_or_insert_with(|| self.began.elapsed());
            let sent = match &mut self.client {
                Client::Streaming(stream) => stream.write(chunk.as_bytes()),
                _ => Ok(()),
            };
            if sent.is_err() {
                return self.finish(proxy, Served::ClientLeft(None));
            }
            if !self.under_way.pause(crate::offline::PAUSE) {
                return self.abandon(proxy);
            }
        }
        self.finish(proxy, Served::Whole(recorded));
    }

    /// The request, for the built-in model.
    pub fn request(&self) -> &ChatRequest {
        &self.request
    }

    fn tries(&self) -> usize {
        self.figures.failed_tries.len() + 1
    }

    /// What the answer says about itself.
    fn note(&mut self, facts: &Facts) {
        if let Some(model) = &facts.model {
            self.figures.model.clone_from(model);
        }
        self.figures.prompt_tokens = facts.usage.prompt_tokens;
        self.figures.completion_tokens = facts.usage.completion_tokens;
    }

    fn with_proxy_headers(
        &self,
        mut headers: Vec<(Cow<'static, str>, String)>,
        sent: &str,
    ) -> Vec<(Cow<'static, str>, String)> {
        if self.request.model_replaced() || sent != self.request.model {
            let asked = self.request.asked.as_deref().unwrap_or("(none)");
            headers.push(("x-proxy-model".into(), model_header(asked, sent)));
        }
        if self.tries() > 1 {
            headers.push(("x-proxy-attempts".into(), self.tries().to_string()));
        }
        headers
    }

    /// Says once for each model asked that another one is used.
    fn announce_model(&mut self, proxy: &Proxy) {
        if let Some(asked) = self.request.asked.as_ref().filter(|_| self.request.model_replaced())
            && proxy.first_time_asked(asked)
        {
            say(format_args!(
                "{} is not free: {} answers instead",
                model_header_part(asked),
                self.request.model
            ));
        }
    }

    /// Says and records how it ended, and then ends it.
    fn finish(mut self: Box<Self>, proxy: &Proxy, served: Served) {
        let left_early = matches!(served, Served::ClientLeft(_));
        self.figures.total = self.began.elapsed();
        let left = r#"{"message":"The client closed the connection.","type":"client_error","param":null,"code":"client_closed"}"#;
        let error_data = |error: &str, status: u16, partial: Option<String>| {
            let partial = partial.map(|partial| format!(r#","partial":{partial}"#)).unwrap_or_default();
            Ending::Error(format!(r#"{{"error":{error},"status":{status}{partial}}}"#).into())
        };
        let mut reason = String::new();
        let ending = match served {
            Served::Whole(answer) => {
                self.figures.status = 200;
                Ending::Response(answer.unwrap_or_else(|| "null".into()).into())
            }
            Served::BrokenOff { error, status, partial } => {
                // An upstream that repeats the key in what it says is not quoted.
                let key = self.snapshot.settings.key.as_ref();
                if key.is_none_or(|key| !error.contains(key.expose())) {
                    reason = message_of(&error);
                }
                self.figures.status = status;
                self.figures.error_code = error_code(&error);
                error_data(&error, status, partial)
            }
            Served::ClientLeft(partial) => {
                reason = "the client left".to_owned();
                self.figures.status = CLIENT_CLOSED_STATUS;
                self.figures.error_code = Some("client_closed".into());
                error_data(left, CLIENT_CLOSED_STATUS, partial)
            }
        };
        let line = call_line(&self.figures, &reason);
        if let Some(recording) = self.recording.take() {
            proxy.calls.end(recording, self.figures, ending, &self.events);
        }
        proxy.spare.keep(self.request.into_buffer());
        // A client that leaves now has left; there is nobody to tell.
        match (self.client, self.last_words) {
            (Client::Waiting(exchange), LastWords::Reply(reply)) => exchange.reply(reply),
            (Client::Streaming(mut stream), last_words) if !left_early => {
                let event = if let LastWords::Event(event) = last_words { event } else { Vec::new() };
                let _ = stream.write(&event).and_then(|()| stream.finish());
            }
            _ => {}
        }
        say(line); // wakes another thread, which the client needn't wait for
    }
}

fn understand(body: Vec<u8>, snapshot: &Snapshot) -> Result<ChatRequest, ApiError> {
    let invalid = |what: &str| {
        ApiError::new(
            400,
            "invalid_json",
            format!("The request body is {what}. Send a JSON object in UTF-8."),
        )
    };
    let mut text = String::from_utf8(body).map_err(|_| invalid("not UTF-8"))?;
    if text.starts_with('\u{FEFF}') {
        text.drain(..'\u{FEFF}'.len_utf8());
    }
    let settings = &snapshot.settings;
    let rule = Rule { default_model: &settings.model, allow_paid: settings.allow_paid_models };
    ChatRequest::parse(text, rule).map_err(|(text, error)| match text.trim_start().chars().next() {
        None => invalid("empty"),
        Some('{') => invalid(&format!("not valid JSON: {error}")),
        Some(_) if serde_json::from_str::<&RawValue>(&text).is_ok() => invalid("not a JSON object"),
        Some(_) => invalid(&format!("not valid JSON: {error}")),
    })
}

fn is_event_stream(call: &Call) -> bool {
    let content_type = call.header("content-type").unwrap_or_default();
    content_type.trim_start().get(..17).is_some_and(|t| t.eq_ignore_ascii_case("text/event-stream"))
}

fn returned_headers(call: &Call) -> Vec<(Cow<'static, str>, String)> {
    let returned = |name: &str| RETURNED.contains(&name) || name.starts_with(RETURNED_PREFIX);
    let headers = call.headers().iter().filter(|(name, _)| returned(name.as_str()));
    headers
        .filter_map(|(name, value)| {
            Some((Cow::Owned(name.as_str().to_owned()), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

fn no_answer(failure: &Failure) -> FailedAttempt {
    let (error, verdict) = match failure {
        Failure::Silent(_) => (broke_off(failure), Verdict::PassOn),
        Failure::Broken(Trouble::Unreachable, reason) => {
            let message = format!(
                "The upstream can't be reached: {reason}. Check the network, OPENROUTER_BASE_URL and, behind a proxy, HTTPS_PROXY in .env."
            );
            (ApiError::new(502, "upstream_unreachable", message), Verdict::TryAgain(None))
        }
        Failure::Broken(Trouble::BrokeOff, _) => (broke_off(failure), Verdict::TryAgain(None)),
    };
    FailedAttempt { reason: failure.to_string(), verdict, answer: FailedAnswer::Own(error) }
}

fn broke_off(failure: &Failure) -> ApiError {
    match failure {
        Failure::Silent(limit) => {
            let message =
                format!("The upstream kept silent for {} s (UPSTREAM_TIMEOUT in .env).", limit.as_secs_f64());
            ApiError::new(504, "upstream_timeout", message)
        }
        Failure::Broken(_, reason) => {
            ApiError::new(502, "upstream_error", format!("The upstream broke off: {reason}. Try again."))
        }
    }
}

fn unreadable(reason: &str) -> FailedAttempt {
    let error =
        ApiError::new(502, "upstream_error", format!("The upstream's answer can't be used: {reason}."));
    FailedAttempt { reason: reason.into(), verdict: Verdict::PassOn, answer: FailedAnswer::Own(error) }
}

fn missing_key() -> ApiError {
    let message = "No OpenRouter key is set. Get a free one at https://openrouter.ai/keys and put it into .env as OPENROUTER_API_KEY=sk-or-v1-...; no restart is needed.";
    ApiError::new(401, "missing_api_key", message)
}

fn stopping() -> ApiError {
    ApiError::new(503, "shutting_down", "The proxy is stopping. Start it again to go on.")
}

fn limit_reached(limit: Limit) -> ApiError {
    let time = local_time(limit.reset);
    let message = format!(
        "The account's limit for free models is reached until {time}. Wait until then, or use the key of another account."
    );
    let seconds = limit.remaining().as_secs_f64().ceil().max(1.0) as u64;
    ApiError::new(429, "rate_limit_exceeded", message).retry_after(seconds)
}

/// `HH:MM` where this runs.
pub fn local_time(time: SystemTime) -> String {
    DateTime::<Local>::from(time).format("%H:%M").to_string()
}

/// The `error` of a body, or the body itself where it is none.
fn error_object(body: &str, status: u16) -> String {
    let fields = json::fields(body).unwrap_or_default();
    match json::field(&fields, "error") {
        Some(error) => error.value.to_owned(),
        None => format!(r#"{{"message":{},"code":{status}}}"#, json::quoted(body)),
    }
}

fn error_message(body: &str) -> Option<String> {
    let fields = json::fields(body).ok()?;
    Some(message_of(json::field(&fields, "error")?.value))
}

/// An error's `code`, a word or a number.
fn error_code(error: &str) -> Option<String> {
    let fields = json::fields(error).ok()?;
    let code = json::field(&fields, "code").filter(|field| field.value != "null")?.value;
    Some(json::string(code).map_or_else(|| code.to_owned(), Into::into))
}

/// What an error object says, on one line.
fn message_of(error: &str) -> String {
    let fields = json::fields(error).unwrap_or_default();
    let message = json::field(&fields, "message").and_then(|field| json::string(field.value));
    let message = message.or_else(|| json::string(error)).unwrap_or_default();
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_HEADER_CHARS).collect()
}

fn json_or_string(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(json) => json.get().to_owned(),
        Err(_) => json::quoted(&text),
    }
}

fn finish_assembly(assembly: Option<Assembly>) -> Option<String> {
    assembly?.finish().map(|answer| answer.to_string())
}

fn model_header_part(model: &str) -> String {
    model
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .take(MAX_HEADER_CHARS)
        .collect()
}

/// `<asked> -> <sent>`, printable ASCII, at most [`MAX_HEADER_CHARS`].
fn model_header(asked: &str, sent: &str) -> String {
    let (asked, sent) = (model_header_part(asked), model_header_part(sent));
    let room = MAX_HEADER_CHARS.saturating_sub(sent.len() + " -> ".len());
    let mut header = format!("{} -> {sent}", &asked[..asked.len().min(room)]);
    header.truncate(MAX_HEADER_CHARS);
    header
}

fn call_line(figures: &Figures, reason: &str) -> String {
    let seconds = |d: Duration| format!("{:.2} s", d.as_secs_f64());
    let mut line = format!("{} {}", figures.status, model_header_part(&figures.model));
    if let Some(first) = figures.first_token {
        line.push_str(&format!("  first token {}", seconds(first)));
    }
    line.push_str(&format!("  total {}", seconds(figures.total)));
    if let (Some(prompt), Some(completion)) = (figures.prompt_tokens, figures.completion_tokens) {
        line.push_str(&format!("  {prompt} + {completion} tokens"));
    }
    if !reason.is_empty() {
        line.push_str(&format!("  {reason}"));
    }
    line
}

/// From 0 to 1; jitter needs no better.
fn random() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_header_stays_within_its_bounds() {
        assert_eq!(model_header("gpt-4o", "openrouter/free"), "gpt-4o -> openrouter/free");
        assert_eq!(model_header("模型\r\nx: y", "a:free"), "????x: y -> a:free");
        let long = model_header(&"x".repeat(500), "openrouter/free");
        assert_eq!(long.len(), 200);
        assert!(long.ends_with(" -> openrouter/free"));
    }
}
