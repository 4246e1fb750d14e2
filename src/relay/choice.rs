//! The best free models for a request: which ones its next call names, and what the outcome says about each of them.

use std::borrow::Cow;
use std::sync::Arc;

use super::best::{self, Candidate};
use super::gate::local_time;
use super::in_flight::Cancellable;
use super::model::{Kind, Model};
use super::outcome::{FailedAnswer, FailedAttempt, Served, Verdict};
use super::state::Relay;
use crate::console::say;
use crate::dialect::errors::ModelFault;
use crate::dialect::free_models::ROUTER;
use crate::dialect::model_name::Target;
use crate::dialect::{Needs, tokens};
use crate::language::either;

/// OpenRouter takes no more models in one call: <https://openrouter.ai/docs/guides/routing/model-fallbacks>
const MOST_IN_A_CALL: usize = 3;

impl Relay {
    /// Returns the best free models that the next call names, in their order; none if the best isn't asked for, or no
    /// model is left that could serve the request.
    pub(super) fn best_models(&self) -> Vec<String> {
        if self.asked.request.target != Target::Best || self.tries.prompt_is_too_long {
            return Vec::new();
        }
        let history = &self.shared.history;
        let listing = self.shared.models.listing(Kind::Chat, &self.snapshot);
        let mut candidates = history.in_order(&listing.models, self.asked.request.needs);
        let failed = &self.tries.failed_models;
        if failed.is_empty() {
            self.say_a_change(&candidates, &listing.models);
        }
        candidates.retain(|candidate| !failed.contains(&candidate.model.id));
        if let Some(own) = &self.tries.belongs_to {
            best::put_first(&mut candidates, own);
        }
        let one_by_one = !self.asked.dialect.takes_several_models() || self.asked.request.names_others;
        let most = if one_by_one { 1 } else { MOST_IN_A_CALL };
        let mut holds = self.holds_the_request();
        let fitting = candidates.into_iter().filter(|candidate| holds(candidate.model));
        fitting.take(most).map(|candidate| candidate.model.id.clone()).collect()
    }

    /// Tells whether a model's context holds the prompt and the answer. The prompt's tokens are only counted if that
    /// decides it.
    fn holds_the_request(&self) -> impl FnMut(&Model) -> bool {
        let request = &self.asked.request;
        let (prompt, answer) = (request.as_written(), request.max_tokens);
        let mut counted = None;
        move |model| {
            let room = model.context_length.unwrap_or(u64::MAX).checked_sub(answer);
            room.is_some_and(|room| {
                // A token has at least one byte.
                prompt.len() as u64 <= room || *counted.get_or_insert_with(|| tokens::of_body(prompt)) <= room
            })
        }
    }

    /// Returns the models of a call that were asked before the one that answered, and that one.
    pub(super) fn who_answered(&self) -> (Vec<&str>, &str) {
        let answered = self.record.metrics.model.as_str();
        let mut asked = self.models_asked();
        match asked.iter().position(|model| plain(model) == plain(answered)) {
            Some(at) => {
                let answered = asked[at];
                asked.truncate(at);
                (asked, answered)
            }
            None => (Vec::new(), answered),
        }
    }

    /// Records the failures of the best models that were asked in one call, except that of the last, which it returns
    /// for the caller to judge; `None` if there is none left to judge.
    pub(super) fn who_failed(&mut self, failed: &FailedAttempt) -> Option<String> {
        if self.asked.request.target != Target::Best || self.tries.model == ROUTER {
            return None;
        }
        let mut asked = self.models_asked().into_iter().map(str::to_owned).collect::<Vec<_>>();
        // A model that gave a useless answer is the last one that was asked.
        if let Some(at) = asked.iter().position(|model| failed.by.as_ref() == Some(model)) {
            asked.truncate(at + 1);
        }
        let is_theirs = match failed.verdict {
            // After a timeout: the model that was asked first has kept the others from being asked.
            Verdict::PassOn if matches!(&failed.answer, FailedAnswer::Own(error) if error.code == "upstream_timeout") =>
            {
                self.shared.history.failed(&asked[0], None);
                self.own_may_have_failed(&asked[..1]);
                self.save_history();
                return None;
            }
            Verdict::TryAgain(_) | Verdict::NextModel(None) => true,
            // A missing capability says nothing about other requests.
            Verdict::NextModel(Some(fault)) => !matches!(fault, ModelFault::Unfit | ModelFault::TooLong),
            Verdict::PassOn | Verdict::BackupsOnly | Verdict::AccountLimit(_) => return None,
        };
        let last = asked.last().cloned()?;
        let counted_later =
            if failed.verdict == Verdict::NextModel(None) { asked.len() } else { asked.len() - 1 };
        for model in asked[..counted_later].iter().filter(|_| is_theirs) {
            self.shared.history.failed(model, None);
        }
        self.own_may_have_failed(&asked);
        self.tries.failed_models.extend(asked);
        Some(last)
    }

    /// Records a failure of a model whose answer broke off half-way.
    pub(super) fn learn_from_the_end(&self, served: &Served) {
        let is_theirs =
            self.tries.backup.is_none() && self.record.metrics.reused.is_none() && !self.is_cancelled();
        if matches!(served, Served::BrokenOff { .. }) && is_theirs && !self.snapshot.settings.test_mode {
            let (before, broke_off) = self.who_answered();
            let failed = before.into_iter().chain([broke_off]).map(str::to_owned).collect::<Vec<_>>();
            failed.iter().for_each(|model| self.shared.history.failed(model, None));
            self.own_may_have_failed(&failed);
            self.save_history();
        }
    }

    /// Records a failure of the conversation's own model, if it is among those that have failed in a call.
    fn own_may_have_failed(&self, failed: &[String]) {
        let own = self.tries.belongs_to.as_ref().filter(|_| self.asked.request.target == Target::Best);
        if own.is_some_and(|own| failed.contains(own)) {
            self.shared.history.own_failed(self.tries.conversation.before.iter().copied());
        }
    }

    /// Returns the body of the next call.
    pub(super) fn body_of_the_call(&self, model: &str) -> Cow<'_, [u8]> {
        let fallback_models = self.tries.fallback_models.iter().map(String::as_str);
        self.asked.request.body_with(&std::iter::once(model).chain(fallback_models).collect::<Vec<_>>())
    }

    /// Returns the model that a conversation goes on with after this answer, and whether that failed when it was last
    /// asked. The conversation leaves its own model only when that is gone, or has failed in two calls in a row.
    pub(super) fn model_of_the_conversation<'a>(&'a self, answered: &'a str) -> (&'a str, bool) {
        let own = match &self.tries.belongs_to {
            Some(own) if self.asked.request.target == Target::Best && own != answered => own.as_str(),
            _ => return (answered, false),
        };
        let was_asked =
            self.models_asked().contains(&own) || self.tries.failed_models.iter().any(|failed| failed == own);
        let is_gone = || {
            let listing = self.shared.models.listing(Kind::Chat, &self.snapshot);
            let is_retired = self.shared.history.of(own).is_some_and(|stats| stats.retired);
            is_retired || !listing.models.iter().any(|model| model.id == own)
        };
        if was_asked && self.tries.conversation_model_failed || is_gone() {
            return (answered, false);
        }
        (own, was_asked || self.tries.conversation_model_failed)
    }

    /// Returns the models of the current call.
    fn models_asked(&self) -> Vec<&str> {
        std::iter::once(&self.tries.model).chain(&self.tries.fallback_models).map(String::as_str).collect()
    }

    /// Prints which model is the best one for requests like this, when that has changed.
    fn say_a_change(&self, candidates: &[Candidate<'_>], listed: &[Arc<Model>]) {
        let (history, needs) = (&self.shared.history, self.asked.request.needs);
        let Some(first) = candidates.first().map(|candidate| &candidate.model.id) else {
            return;
        };
        let Some(before) = history.first_choice(needs, first) else {
            return;
        };
        let why = before.map(|before| {
            let stats = history.of(&before).unwrap_or_default();
            let until = stats.rests_until.filter(|_| stats.rests()).map(local_time);
            let why = match until {
                _ if stats.retired || !listed.iter().any(|model| *model.id == *before) => {
                    either("isn't there any more", "已不存在").to_owned()
                }
                Some(until) => either(format!("rests until {until}"), format!("暂停到 {until}")),
                None if candidates
                    .iter()
                    .any(|candidate| *candidate.model.id == *before && candidate.share < 1.0) =>
                {
                    either("has failed of late", "最近出过错").to_owned()
                }
                None => either("is worth less now", "现在评分更低").to_owned(),
            };
            either(format!(": {before} {why}"), format!("：{before} {why}"))
        });
        let (what_for, why) = (what_for(needs), why.unwrap_or_default());
        say(either(
            format_args!("best{what_for} is now {first}{why}"),
            format_args!("best{what_for} 现在是 {first}{why}"),
        ));
    }
}

/// Returns a model's name without `:free`: some models add it to their own name in answers, some don't.
fn plain(id: &str) -> &str {
    id.strip_suffix(":free").unwrap_or(id)
}

/// Lists what a model must be able to do, for the console.
fn what_for(needs: Needs) -> String {
    let words = [
        (needs.tools, either("tools", "工具")),
        (needs.images, either("images", "图像")),
        (needs.structured, either("structured output", "结构化输出")),
    ];
    let words = words.into_iter().filter(|(needed, _)| *needed).map(|(_, word)| word).collect::<Vec<_>>();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(either(", ", "、"))) }
}
