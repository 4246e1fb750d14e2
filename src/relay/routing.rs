//! Which model each try asks: the one that was named, then others in line; the router's choice, and what was seen of it.

use std::time::Duration;

use super::Relay;
use super::model::Kind;
use super::model_history::{self, Wanted};
use crate::console::say;
use crate::dialect::StandIn;
use crate::dialect::errors::ModelTrouble;
use crate::dialect::free_models::{ROUTER, is_free};
use crate::language::either;

impl Relay {
    /// What a model is needed for.
    pub(super) fn wanted(&self) -> Wanted {
        (self.dialect.path(), self.request.needs)
    }

    /// The model of the next try.
    pub(super) fn choose_model(&self) -> String {
        let first = &self.request.model;
        if self.dialect.stand_in() != StandIn::Model {
            return first.clone(); // another one's answer would mean something else
        }
        let history = &self.shared.history;
        let tried = |model: &str| self.metrics.failed_tries.iter().any(|failed| failed.model == model);
        let usable = |model: &str| !tried(model) && !history.rests(model);
        if self.prompt_is_too_long
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
        let belongs_to = self.belongs_to.as_deref().filter(|model| usable(model));
        if let Some(model) = belongs_to {
            return model.to_owned();
        }
        // The router picks at random, also what has just failed.
        let good = || history.good(self.wanted(), |model| tried(model));
        tried(ROUTER).then(good).flatten().unwrap_or_else(|| ROUTER.to_owned())
    }

    fn largest_context(&self, usable: &dyn Fn(&str) -> bool) -> Option<String> {
        let listing = self.shared.models.listing(Kind::Chat, &self.snapshot);
        let others = listing.models.iter().filter(|model| usable(&model.id));
        Some(others.max_by_key(|model| model.context_length)?.id.clone())
    }

    /// Finds out which model the conversation belongs to, and how it is known by its next turn.
    pub(super) fn look_up_conversation(&mut self) {
        let kept_for = self.snapshot.settings.sticky;
        if kept_for.is_zero() || !is_free(&self.request.model) {
            return;
        }
        let marks = model_history::marks(self.dialect.path(), &self.request.turns());
        let beginnings = marks.iter().rev().skip(1).copied();
        self.belongs_to = self.shared.history.conversation(beginnings, kept_for);
        self.mark = marks.last().copied();
    }

    /// A try has been answered.
    pub(super) fn learn_from_answer(&self) {
        if self.backup.is_some() || self.snapshot.settings.test_mode || self.metrics.reused.is_some() {
            return;
        }
        let history = &self.shared.history;
        history.answered(&self.metrics.model, self.wanted(), self.metrics.first_token);
        if let Some(mark) = self.mark {
            history.converse(mark, &self.metrics.model);
        }
        self.save_history();
    }

    fn save_history(&self) {
        if let Some(dir) = self.snapshot.settings.cache_dir.as_ref().filter(|_| self.snapshot.debug) {
            self.shared.history.save(dir, self.shared.calls.files());
        }
    }

    /// A try has failed; `rest` where the model's provider wants to be left alone, for so long if it said so.
    pub(super) fn learn_from_failure(&self, model: &str, rest: Option<Option<Duration>>) {
        self.shared.history.failed(model, rest);
        self.save_history();
    }

    /// The model that was asked can't serve this.
    pub(super) fn learn_from_trouble(&mut self, model: &str, trouble: ModelTrouble) {
        self.learn_from_failure(model, None);
        match trouble {
            ModelTrouble::Gone if model != ROUTER && self.shared.history.retired(model) => {
                say(either(
                    format_args!("{model} isn't there any more: it isn't asked again for an hour"),
                    format_args!("{model} 已不存在：一小时内不再询问"),
                ));
            }
            ModelTrouble::TooLong => self.prompt_is_too_long = true,
            ModelTrouble::Gone | ModelTrouble::Unfit => {}
        }
    }
}
