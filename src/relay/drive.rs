//! The main loop of a request: ask for permission, send, judge the outcome. After a failure that another attempt can
//! fix, it starts over, as long as nothing of an answer has gone to the client.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::gate::{Admission, Limit, Permit, Turn, local_time};
use super::in_flight::{CancelReason, Cancellable};
use super::model::Kind;
use super::outcome::{FailedAnswer, FailedAttempt, Served, Verdict};
use super::parked::{Parked, Wake};
use super::patience;
use super::shared_call::Source;
use super::state::Relay;
use crate::client::exchange::ConnectionFate;
use crate::console::{Tone, say, say_in};
use crate::dialect::StandIn;
use crate::dialect::errors::ModelFault;
use crate::dialect::free_models;
use crate::dialect::model_name::Target;
use crate::error::ApiError;
use crate::language::either;
use crate::record::calls::Waiting;

/// A request gives up once the account's limit has rejected it this often, whenever the limit says that it ends.
const MAX_LIMITS_MET: u32 = 3;

impl Relay {
    /// Asks for permission to call the upstream, and goes on if it is given at once.
    pub fn run(mut self: Box<Self>) -> ConnectionFate {
        let shared = Arc::clone(&self.shared);
        let settings = &self.snapshot.settings;
        if self.asked.request.model.is_empty() {
            return self.refuse_unnamed();
        }
        if settings.test_mode {
            return self.go_on(None);
        }
        if let Target::Backup { name, model } = self.asked.request.target.clone() {
            return self.ask_named_backup(&name, &model);
        }
        if settings.key.is_none() {
            return self.refuse(ApiError::missing_key());
        }
        self.announce_model();
        let settings = &self.snapshot.settings;
        if !free_models::is_free(&self.tries.model) {
            return self.go_on(None); // the account's limit only counts free models
        }
        let waited = self.record.metrics.waited;
        let turn = Turn { order: self.asked.order, waited, max_wait: settings.max_wait };
        let key = settings.key.clone();
        self.report(Some(Waiting::Limit(shared.gate.closed(key.as_ref()).map(|limit| limit.reset))));
        match shared.gate.admit(self, turn, key.as_ref(), |relay| relay as Box<dyn Parked>) {
            Admission::Go(relay, permit) => relay.go_on(Some(permit)),
            Admission::Waits => ConnectionFate::Gone,
            Admission::TooLate(relay, limit) => relay.give_up(limit, Duration::ZERO),
            Admission::Full(relay) => relay.refuse(ApiError::too_many_wait()),
        }
    }

    /// Refuses a request that names no usable model, in an API where no model stands in for another.
    #[inline(never)]
    fn refuse_unnamed(self: Box<Self>) -> ConnectionFate {
        let StandIn::Named(named) = self.asked.dialect.stand_in() else {
            return self.refuse(ApiError::no_such_model());
        };
        let free = self.shared.models.ids(Kind::at(named.list), &self.snapshot);
        self.refuse(ApiError::model_not_free(named.what, named.setting, &free))
    }

    /// Makes the next attempt, and acts on its outcome.
    fn go_on(mut self: Box<Self>, mut permit: Option<Permit>) -> ConnectionFate {
        let model = self.tries.model.clone();
        self.record.metrics.model.clone_from(&model);
        self.report(None);
        self.tries.call_began = Some(Instant::now());
        let mut failed = match self.attempt(&model, &mut permit) {
            Ok(served) => {
                self.learn_from_the_end(&served);
                return self.finish(served);
            }
            Err(failed) => failed,
        };
        match self.cancel().reason() {
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
        if let Verdict::AccountLimit(limit) = failed.verdict
            && free_models::is_free(&model)
        {
            return self.meet_limit(limit, permit);
        }
        drop(permit);
        let by = match self.who_failed(&failed) {
            Some(last) => Some(last),
            None => failed.by.clone().filter(|by| *by != model && model == free_models::ROUTER),
        };
        let Some(pause) = self.learn_from_failure(by.as_deref().unwrap_or(&model), &failed) else {
            return self.fall_back(failed);
        };
        if !self.may_try_again() {
            return self.fall_back(failed);
        }
        let rests_until = self.shared.history.rests_until(by.as_deref().unwrap_or(&model));
        let asked = std::iter::once(&model)
            .chain(&self.tries.fallback_models)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        self.note_failed_try(asked, failed.reason.clone(), rests_until);
        self.choose_model();
        let is_about_the_model = matches!(failed.verdict, Verdict::NextModel(Some(fault)) if !matches!(fault, ModelFault::Busy(_)));
        // The router picks another one by itself.
        let is_the_same =
            self.tries.model == model && (model != free_models::ROUTER || self.tries.prompt_is_too_long);
        if is_about_the_model && is_the_same {
            self.record.metrics.failed_tries.pop(); // no other model could serve this
            return self.fall_back(failed);
        }
        self.say_what_follows(by.as_deref().unwrap_or(&model), &failed, pause);
        if pause.is_zero() {
            return self.try_again();
        }
        self.report(Some(Waiting::Pause(SystemTime::now() + pause)));
        let shared = Arc::clone(&self.shared);
        shared.pauses.park(pause, self);
        ConnectionFate::Gone
    }

    /// Makes another attempt, whose call needs a new permission.
    fn try_again(self: Box<Self>) -> ConnectionFate {
        if self.is_cancelled() {
            return Parked::abandon(self);
        }
        if free_models::is_free(&self.tries.model) { self.run() } else { self.go_on(None) }
    }

    /// Records what a failed attempt says about the model. Returns the pause before the next one; `None` if none can
    /// help.
    fn learn_from_failure(&mut self, model: &str, failed: &FailedAttempt) -> Option<Duration> {
        match failed.verdict {
            Verdict::PassOn | Verdict::BackupsOnly | Verdict::AccountLimit(_) => None,
            Verdict::TryAgain(named) => {
                self.shared.history.failed(model, None);
                self.save_history();
                Some(patience::pause(self.tries.calls_made, named, random()))
            }
            // Another model's answer would mean something else.
            Verdict::NextModel(Some(ModelFault::Busy(named))) if !self.any_model_will_do() => {
                Some(patience::pause(self.tries.calls_made, named.map(patience::bounded), random()))
            }
            Verdict::NextModel(_) if !self.any_model_will_do() => None,
            Verdict::NextModel(None) => Some(Duration::ZERO),
            Verdict::NextModel(Some(ModelFault::Busy(None)))
                if self.deserves_another_chance(model, failed) =>
            {
                self.tries.asked_once_more = Some(model.to_owned());
                Some(patience::pause(self.tries.calls_made, None, random()))
            }
            Verdict::NextModel(Some(fault)) => {
                self.learn_from_fault(model, fault);
                Some(Duration::ZERO)
            }
        }
    }

    /// Returns whether the model is asked once more: one that answered a moment ago keeps its conversations when a
    /// provider of it is busy for a moment.
    fn deserves_another_chance(&self, model: &str, failed: &FailedAttempt) -> bool {
        failed.is_the_providers
            && self.asked.request.target != Target::Best
            && model == self.tries.model
            && self.tries.asked_once_more.as_deref() != Some(model)
            && self.shared.history.has_answered_lately(model)
    }

    fn say_what_follows(&self, model: &str, failed: &FailedAttempt, pause: Duration) {
        let is_an_outage =
            matches!(&failed.answer, FailedAnswer::Own(error) if error.code == "upstream_unreachable");
        if is_an_outage && !self.shared.is_news(&failed.reason.english) {
            return; // the call's own line on the console says it
        }
        let (reason, next) = (failed.reason.here(), &self.tries.model);
        if let Verdict::NextModel(_) = failed.verdict {
            say_in(
                Tone::Notice,
                either(
                    format_args!("{model}: {reason}; asking {next}"),
                    format_args!("{model}：{reason}；改为询问 {next}"),
                ),
            );
        } else {
            let seconds = pause.as_secs_f64();
            say_in(
                Tone::Notice,
                either(
                    format_args!("{model}: {reason}; trying again in {seconds:.1} s"),
                    format_args!("{model}：{reason}；{seconds:.1} 秒后重试"),
                ),
            );
        }
    }

    /// Notes that the account's limit is reached, and waits until it ends, if the request may.
    fn meet_limit(mut self: Box<Self>, limit: Limit, permit: Option<Permit>) -> ConnectionFate {
        let time = local_time(limit.reset);
        say(either(
            format_args!("the account's limit is reached until {time}"),
            format_args!("账户的免费额度已用完，{time} 恢复"),
        ));
        match permit {
            Some(permit) => permit.rejected(limit),
            None => self.shared.gate.close(limit, self.snapshot.settings.key.as_ref()), // the error came in a 200
        }
        self.tries.calls_made -= 1;
        self.tries.limits_met += 1;
        if self.tries.limits_met >= MAX_LIMITS_MET {
            return self.give_up(limit, Duration::ZERO);
        }
        self.run()
    }

    /// Refuses a request for which the limit lasts longer than it may wait.
    fn give_up(mut self: Box<Self>, limit: Limit, waited: Duration) -> ConnectionFate {
        self.record.metrics.waited += waited;
        self.refuse(ApiError::limit_reached(&local_time(limit.reset), limit.reset))
    }

    /// Goes on with an existing answer, or one that another request's call brings; else as if the request had just
    /// come.
    #[inline(never)]
    fn join(self: Box<Self>, source: Option<Source>) -> ConnectionFate {
        if self.shared.in_flight.is_stopping() || self.is_cancelled() {
            return Parked::abandon(self);
        }
        let Some(source) = source else {
            return self.run();
        };
        match self.answer_with(source) {
            Ok(fate) => fate,
            Err(relay) if relay.is_cancelled() => Parked::abandon(relay),
            Err(relay) => relay.run(),
        }
    }

    /// Answers with an existing answer. Gives the request back if that turns out to be useless.
    pub(super) fn answer_with(mut self: Box<Self>, source: Source) -> Result<ConnectionFate, Box<Self>> {
        let head = source.head().clone();
        let metrics = &mut self.record.metrics;
        metrics.model.clone_from(&head.model);
        metrics.backup = head.backup;
        metrics.reused = Some(source.age());
        self.sharing.source = Some(source);
        match self.attempt(&head.model, &mut None) {
            Ok(served) => Ok(self.finish(served)),
            Err(_) => {
                self.record.metrics.backup = None;
                self.record.metrics.reused = None;
                Err(self)
            }
        }
    }
}

impl Parked for Relay {
    fn resume(mut self: Box<Self>, wake: Wake) -> ConnectionFate {
        match wake {
            Wake::Allowed(permit, waited) => {
                self.record.metrics.waited += waited;
                // The settings may have changed meanwhile.
                self.snapshot = self.shared.live.snapshot();
                if self.snapshot.settings.key.is_none() {
                    return Parked::refuse(self, ApiError::missing_key());
                }
                self.go_on(Some(permit))
            }
            Wake::TooLate(limit, waited) => self.give_up(limit, waited),
            Wake::PauseOver => self.try_again(),
            Wake::Answer(source) => self.join(source),
        }
    }

    fn report(&self, waiting: Option<Waiting>) {
        Relay::report(self, waiting);
    }

    fn abandon(self: Box<Self>) -> ConnectionFate {
        match self.cancel().reason() {
            Some(CancelReason::Stopping) => self.refuse(ApiError::stopping()),
            Some(CancelReason::Cancelled) => self.refuse(ApiError::cancelled()),
            None if self.shared.in_flight.is_stopping() => self.refuse(ApiError::stopping()),
            _ => self.finish(Served::ClientLeft(None)),
        }
    }

    fn refuse(self: Box<Self>, error: ApiError) -> ConnectionFate {
        self.fall_back(FailedAttempt::new(error.words(), Verdict::PassOn, FailedAnswer::Own(error)))
    }
}

/// Returns a number from 0 to 1, random enough for jitter.
fn random() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
