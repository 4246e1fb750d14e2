//! Which model each attempt asks: the one that was named, then the fallback models; or the router, or what it chose
//! before.

use std::time::Duration;

use super::conversation::Conversation;
use super::model::Kind;
use super::patience::rest_after;
use super::state::Relay;
use crate::console::say;
use crate::dialect::errors::ModelFault;
use crate::dialect::free_models::{ROUTER, is_free};
use crate::language::either;

impl Relay {
    /// Chooses the model of the next attempt, and those that the same call may fall back to.
    pub(super) fn choose_model(&mut self) {
        let mut best = self.best_models().into_iter();
        self.tries.model = best.next().unwrap_or_else(|| self.next_in_line());
        self.tries.fallback_models = best.collect();
    }

    /// Returns the named model or the next fallback model; else the conversation's, one that has answered lately, or
    /// the router.
    fn next_in_line(&self) -> String {
        let first = &self.asked.request.model;
        if !self.any_model_will_do() {
            return first.clone(); // another model's answer would mean something else
        }
        let history = &self.shared.history;
        let failed = &self.record.metrics.failed_tries;
        let once_more = self.tries.asked_once_more.as_deref();
        if let Some(model) = once_more
            && failed.iter().filter(|failed| failed.model == model).count() == 1
        {
            return model.to_owned();
        }
        let tried = |model: &str| {
            let in_several = self.tries.failed_models.iter().any(|failed| failed == model);
            in_several || failed.iter().any(|failed| failed.model == model)
        };
        let usable = |model: &str| !tried(model) && !history.rests(model);
        if self.tries.prompt_is_too_long
            && let Some(largest) = self.largest_context(&usable)
        {
            return largest;
        }
        if first != ROUTER {
            let line = std::iter::once(first).chain(&self.snapshot.settings.fallback_models);
            if let Some(model) = line.into_iter().find(|model| usable(model)) {
                return model.clone();
            }
        }
        let goes_on = self.tries.belongs_to.as_deref();
        if let Some(model) = goes_on.filter(|model| usable(model)) {
            return model.to_owned();
        }
        // The router picks at random, even a model that has just failed.
        let good = || history.good(self.wanted(), |model| tried(model) || !self.shared.models.chats(model));
        let asks_for_known = goes_on.is_some() || tried(ROUTER);
        asks_for_known.then(good).flatten().unwrap_or_else(|| ROUTER.to_owned())
    }

    /// Returns the model that takes the longest prompt, among those that can do what is asked.
    fn largest_context(&self, usable: &dyn Fn(&str) -> bool) -> Option<String> {
        let listing = self.shared.models.listing(Kind::Chat, &self.snapshot);
        let able = self.shared.history.in_order(&listing.models, self.asked.request.needs);
        let others = able.iter().map(|candidate| &candidate.model).filter(|model| usable(&model.id));
        Some(others.max_by_key(|model| model.context_length)?.id.clone())
    }

    /// Finds out which model the conversation belongs to, and the marks by which its next turn is recognized. `named`
    /// is the client's name for the conversation.
    pub(super) fn look_up_conversation(&mut self, named: Option<&str>) {
        let kept_for = self.snapshot.settings.sticky;
        let request = &self.asked.request;
        if kept_for.is_zero() || !is_free(&request.model) {
            return;
        }
        let (dialect, needs) = self.wanted();
        let conversation = match named.or(request.session.as_deref()) {
            Some(name) => Conversation::named(name, dialect, needs),
            None => Conversation::of(&request.turns(), dialect, needs),
        };
        let known = self.shared.history.conversation(conversation.before.iter().copied(), kept_for);
        self.tries.conversation_model_failed = known.as_ref().is_some_and(|(_, has_failed)| *has_failed);
        self.tries.belongs_to = known.map(|(model, _)| model);
        self.tries.conversation = conversation;
    }

    /// Records that an attempt has been answered.
    pub(super) fn learn_from_answer(&self) {
        let metrics = &self.record.metrics;
        if self.tries.backup.is_some() || self.snapshot.settings.test_mode || metrics.reused.is_some() {
            return;
        }
        let is_a_classifiers = self.any_model_will_do() && !self.shared.models.chats(&metrics.model);
        if self.tries.answer_is_flawed || is_a_classifiers {
            return; // such an answer recommends no model
        }
        let history = &self.shared.history;
        let (before, answered) = self.who_answered();
        before.iter().for_each(|model| history.failed(model, None));
        // The time that the client waited before this call isn't the model's fault.
        let before_the_call =
            self.tries.call_began.map(|began| began.saturating_duration_since(self.asked.began));
        let first_token =
            metrics.first_token.map(|first| first.saturating_sub(before_the_call.unwrap_or_default()));
        history.answered(answered, self.wanted(), first_token);
        let (goes_on_with, has_failed) = self.model_of_the_conversation(answered);
        for mark in &self.tries.conversation.after {
            history.assign_conversation(*mark, goes_on_with, has_failed);
        }
        self.save_history();
    }

    pub(super) fn save_history(&self) {
        if let Some(dir) = self.snapshot.settings.cache_dir.as_ref().filter(|_| self.snapshot.debug) {
            self.shared.history.save(dir, self.shared.calls.files());
        }
    }

    /// Records why the model that was asked can't serve this request.
    pub(super) fn learn_from_fault(&mut self, model: &str, fault: ModelFault) {
        let history = &self.shared.history;
        match fault {
            ModelFault::Gone { for_good: true } if model != ROUTER => {
                if history.retired(model, rest_after(fault).unwrap_or(Duration::ZERO)) {
                    say(either(
                        format_args!("{model} isn't there any more: it isn't asked again for an hour"),
                        format_args!("{model} 已不存在：一小时内不再询问"),
                    ));
                }
            }
            ModelFault::TooLong => self.tries.prompt_is_too_long = true,
            // A missing capability says nothing about other requests.
            ModelFault::Unfit => {}
            _ => history.failed(model, rest_after(fault)),
        }
        self.save_history();
    }
}
