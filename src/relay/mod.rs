//! One request through its tries: rewrite, ask for leave, send, judge the answer, relay it. A failure that another try
//! can heal leads back to the top, as long as nothing of an answer has gone to the client.
//!
//! This file is the loop. Beside it: how a request begins ([`accept`]), one try and what may come of it ([`attempt`]), the
//! three kinds of answers ([`plain`], [`stream`], [`bytes`]), how a request ends ([`finish`]); which model is next ([`routing`],
//! [`model_history`]) and which other server ([`backup`]); what the loop goes by ([`patience`], [`gate`], [`in_flight`]), the sources of
//! answers that aren't the upstream ([`crate::builtin`], [`shared_call`]), what else is asked of the upstream ([`models`], [`quota`]), and
//! what all requests share ([`shared`]). May import `builtin`, `record`, `live`, `client`, `upstream`, `settings`, `dialect` and leaves.

mod accept;
mod attempt;
mod backup;
pub mod best;
mod bytes;
mod finish;
pub mod gate;
pub mod in_flight;
pub mod model;
pub mod model_history;
pub mod model_stats;
pub mod models;
pub mod patience;
mod plain;
pub mod quota;
mod routing;
pub mod shared;
pub mod shared_call;
mod stream;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ureq::http::{HeaderName, HeaderValue};

use crate::client::exchange::{ConnectionFate, Exchange, Stream};
use crate::console::say;
use crate::dialect::free_models;
use crate::dialect::request::Request;
use crate::dialect::{Dialect, Routed, StandIn, Translated, Translator, Written};
use crate::error::ApiError;
use crate::language::either;
use crate::live::Snapshot;
use crate::record::calls::{Recording, Waiting};
use crate::record::metrics::{CallMetrics, FailedTry};

use attempt::{FailedAnswer, FailedAttempt};
use finish::{FinalWrite, Served};
use gate::{Admission, Limit, Pass, Turn, local_time};
use in_flight::{CancelReason, InFlightGuard};
use model::Kind;
use patience::Verdict;
use shared::Shared;
use shared_call::{Leader, Source};

/// A request that has been understood, on its way through however many tries it takes. It can be put aside between two
/// tries, without a thread.
pub struct Relay {
    shared: Arc<Shared>,
    /// The API that the upstream is asked in.
    dialect: &'static dyn Dialect,
    /// Where the client asked.
    route: Routed,
    /// The one that the client speaks, where that is another; and the body as it wrote it.
    translated: Option<(&'static dyn Translated, Written)>,
    /// Tells the present answer to such a client.
    translator: Option<Box<dyn Translator>>,
    client: Client,
    request: Request,
    /// Of the client's request target; for the dialects whose upstream wants it.
    query: Option<String>,
    /// Headers that go along with each call.
    headers: Vec<(HeaderName, HeaderValue)>,
    snapshot: Arc<Snapshot>,
    recording: Option<Recording>,
    metrics: CallMetrics,
    in_flight: InFlightGuard,
    began: Instant,
    /// Counts up over all requests.
    order: u64,
    /// The model of the present try.
    model: String,
    /// The model that the conversation belongs to.
    belongs_to: Option<String>,
    /// How the conversation is known by its next turn.
    mark: Option<u64>,
    /// A model has said that the prompt is longer than its context.
    prompt_is_too_long: bool,
    /// The backup that is asked, by its place in the settings.
    backup: Option<usize>,
    /// Why none of them could answer.
    backups_said: Option<String>,
    /// Calls made so far, but for those that the account's limit rejected.
    calls_made: u32,
    final_write: FinalWrite,
    /// An answer that is there already, in place of the next try's.
    source: Option<Source>,
    /// Others may want its answer, too.
    leader: Option<Leader>,
    /// What has been told of the beginning of a stream in the API that the client speaks.
    said: Vec<u8>,
    /// The end of it, too.
    end_is_told: bool,
}

enum Client {
    /// Nothing has been sent yet.
    Waiting(Box<Exchange>),
    /// A 200 and comments have been sent.
    Streaming(Stream),
    Answered,
    /// It has left, and others go on reading.
    Left,
}

impl Relay {
    /// Asks for leave to call the upstream, and goes on if it is given at once.
    pub fn run(mut self: Box<Self>) -> ConnectionFate {
        let shared = Arc::clone(&self.shared);
        let settings = &self.snapshot.settings;
        if self.request.model.is_empty() {
            return self.refuse_unnamed();
        }
        if settings.test_mode {
            return self.go_on(None);
        }
        if settings.key.is_none() {
            return self.refuse(ApiError::missing_key());
        }
        self.announce_model();
        let settings = &self.snapshot.settings;
        if !free_models::is_free(&self.model) {
            return self.go_on(None); // the limit is that of free models
        }
        let turn = Turn { order: self.order, waited: self.metrics.waited, max_wait: settings.max_wait };
        let key = settings.key.clone();
        self.report(Some(Waiting::Limit(shared.gate.closed().map(|limit| limit.reset))));
        match shared.gate.admit(self, turn, key.as_ref()) {
            Admission::Go(relay, pass) => relay.go_on(Some(pass)),
            Admission::Waits => ConnectionFate::Gone,
            Admission::TooLate(relay, limit) => relay.give_up(limit, Duration::ZERO),
            Admission::Full(relay) => relay.refuse(ApiError::too_many_wait()),
        }
    }

    /// No model was named that may do this, and none stands in for another.
    #[inline(never)]
    fn refuse_unnamed(self: Box<Self>) -> ConnectionFate {
        let StandIn::Named(named) = self.dialect.stand_in() else {
            return self.refuse(ApiError::no_such_model());
        };
        let free = self.shared.models.ids(Kind::at(named.list), &self.snapshot);
        self.refuse(ApiError::model_not_free(named.what, named.setting, &free))
    }

    /// Tries until there is an answer, no try is left, or the account's limit is reached.
    fn go_on(mut self: Box<Self>, mut pass: Option<Pass>) -> ConnectionFate {
        loop {
            let model = self.model.clone();
            self.metrics.model.clone_from(&model);
            self.report(None);
            let mut failed = match self.attempt(&model, &mut pass) {
                Ok(served) => return self.finish(served),
                Err(failed) => failed,
            };
            match self.in_flight.cancel().reason() {
                Some(CancelReason::ClientLeft) => return self.abandon(),
                Some(CancelReason::Stopping) => {
                    failed.verdict = Verdict::PassOn;
                    failed.answer = FailedAnswer::Own(ApiError::stopping());
                }
                Some(CancelReason::Cancelled) => {
                    failed.verdict = Verdict::PassOn;
                    failed.answer = FailedAnswer::Own(ApiError::cancelled());
                }
                None => {}
            }
            let made = self.calls_made;
            let may_try = made <= self.snapshot.settings.retries && !self.shared.in_flight.is_stopping();
            let pause = match failed.verdict {
                Verdict::AccountLimit(limit) if free_models::is_free(&model) => {
                    return self.meet_limit(limit, pass);
                }
                Verdict::NextModel(trouble) if !failed.verdict.is_the_routers(&model) => {
                    self.learn_from_trouble(&model, trouble);
                    Duration::ZERO
                }
                Verdict::TryAgain(named) => {
                    let rest = (failed.status == Some(429)).then_some(failed.retry_after);
                    self.learn_from_failure(&model, rest);
                    patience::pause(made, named, random())
                }
                _ => {
                    if failed.status == Some(429) {
                        self.learn_from_failure(&model, Some(failed.retry_after));
                    }
                    return self.give_way(failed);
                }
            };
            if !may_try {
                return self.give_way(failed);
            }
            let at = self.began.elapsed();
            let reason = failed.reason.clone();
            self.metrics.failed_tries.push(FailedTry {
                model: model.clone(),
                reason,
                at,
                rests_until: self.shared.history.rests_until(&model),
            });
            self.model = self.choose_model();
            if matches!(failed.verdict, Verdict::NextModel(_)) && self.model == model {
                self.metrics.failed_tries.pop(); // there is no other model that could
                return self.give_way(failed);
            }
            let (reason, next) = (&failed.said, &self.model);
            let seconds = pause.as_secs_f64();
            say(match failed.verdict {
                Verdict::NextModel(_) => either(
                    format!("{model}: {reason}; asking {next}"),
                    format!("{model}：{reason}；改为询问 {next}"),
                ),
                _ => either(
                    format!("{model}: {reason}; trying again in {seconds:.1} s"),
                    format!("{model}：{reason}；{seconds:.1} 秒后重试"),
                ),
            });
            pass = None;
            if !pause.is_zero() {
                self.report(Some(Waiting::Pause(SystemTime::now() + pause)));
            }
            if !self.in_flight.pause(pause) {
                return self.abandon();
            }
            if free_models::is_free(&self.model) {
                return self.run(); // another call needs another leave
            }
        }
    }

    /// The account's limit is reached: this request waits for its end, if it may.
    fn meet_limit(mut self: Box<Self>, limit: Limit, pass: Option<Pass>) -> ConnectionFate {
        let time = local_time(limit.reset);
        say(either(
            format_args!("the account's limit is reached until {time}"),
            format_args!("账户的免费额度已用完，{time} 恢复"),
        ));
        match pass {
            Some(pass) => pass.rejected(limit),
            None => self.shared.gate.close(limit), // it came inside of a 200
        }
        self.calls_made -= 1;
        self.run()
    }
}

/// What becomes of one that was put aside.
impl Relay {
    /// Goes on after having waited for the account's limit, with the settings as they are now.
    pub fn resume(mut self: Box<Self>, pass: Pass, waited: Duration) -> ConnectionFate {
        self.metrics.waited += waited;
        self.snapshot = self.shared.live.snapshot();
        if self.snapshot.settings.key.is_none() {
            return self.refuse(ApiError::missing_key());
        }
        self.go_on(Some(pass))
    }

    /// The wait is for nothing: the limit lasts longer than this request may wait.
    pub fn give_up(mut self: Box<Self>, limit: Limit, waited: Duration) -> ConnectionFate {
        self.metrics.waited += waited;
        self.refuse(ApiError::limit_reached(&local_time(limit.reset), limit.reset))
    }

    /// The request was cut off: its client left, or the program stops.
    pub fn abandon(self: Box<Self>) -> ConnectionFate {
        match self.in_flight.cancel().reason() {
            Some(CancelReason::Stopping) => self.refuse(ApiError::stopping()),
            Some(CancelReason::Cancelled) => self.refuse(ApiError::cancelled()),
            None if self.shared.in_flight.is_stopping() => self.refuse(ApiError::stopping()),
            _ => self.finish(Served::ClientLeft(None)),
        }
    }

    /// It can't even wait.
    pub fn refuse(self: Box<Self>, error: ApiError) -> ConnectionFate {
        let (reason, said) = (error.message.clone(), error.in_words().to_owned());
        let mut failed = FailedAttempt::new(&reason, Verdict::PassOn, FailedAnswer::Own(error));
        failed.said = said;
        self.give_way(failed)
    }

    /// Goes on with an answer that is there, or that another request's call brings; else as if it had come now.
    #[inline(never)]
    pub fn join(mut self: Box<Self>) -> ConnectionFate {
        let source = self.source.take();
        if self.shared.in_flight.is_stopping() || self.is_cut_off() {
            return self.abandon();
        }
        let Some(source) = source else {
            return self.run();
        };
        match self.answer_with(source) {
            Ok(after) => after,
            Err(relay) if relay.is_cut_off() => relay.abandon(),
            Err(relay) => relay.run(),
        }
    }

    /// Tells the panel what is known of this request now, and what it waits for beside an answer.
    pub fn report(&self, waiting: Option<Waiting>) {
        if let Some(recording) = &self.recording {
            recording.update(&self.metrics, waiting);
        }
    }

    /// Whether the request was cut off from outside.
    pub fn is_cut_off(&self) -> bool {
        self.in_flight.cancel().reason().is_some()
    }
}

/// From 0 to 1; jitter needs no better.
fn random() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
