//! A request that has been understood, on its way through however many tries it takes. It can be put aside between two
//! tries, without a thread. Its parts say what a step may touch.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ureq::http::{HeaderName, HeaderValue};

use super::conversation::Conversation;
use super::in_flight::{CancelHandle, Cancellable, InFlightGuard};
use super::model_history::Wanted;
use super::outcome::FinalWrite;
use super::shared::Shared;
use super::shared_call::{Leader, Source};
use crate::client::exchange::{Exchange, Stream};
use crate::dialect::request::Request;
use crate::dialect::{Dialect, Routed, StandIn, Translated, Translator, Written};
use crate::live::Snapshot;
use crate::record::calls::{Recording, Waiting};
use crate::record::metrics::{CallMetrics, FailedTry};
use crate::settings::backups::Backup;
use crate::upstream::Upstream;

/// A request on its way.
pub struct Relay {
    /// What all requests share.
    pub(super) shared: Arc<Shared>,
    /// What was asked.
    pub(super) asked: Asked,
    /// The settings that it goes by.
    pub(super) snapshot: Arc<Snapshot>,
    /// Counts it as in flight.
    pub(super) in_flight: InFlightGuard,
    /// The tries so far, and what the next one goes by.
    pub(super) tries: Tries,
    /// The way back to the client.
    pub(super) client: ClientSide,
    /// What it shares with requests that are the same.
    pub(super) sharing: Sharing,
    /// What is remembered of it.
    pub(super) record: Record,
}

/// What was asked. It doesn't change.
pub(super) struct Asked {
    /// The API that the upstream is asked in.
    pub(super) dialect: &'static dyn Dialect,
    /// Where the client asked.
    pub(super) route: Routed,
    /// The API that the client speaks, where that is another; and the request as it wrote it.
    pub(super) translated: Option<(&'static dyn Translated, Written)>,
    pub(super) request: Request,
    /// Of the client's request target; for the dialects whose upstream wants it.
    pub(super) query: Option<String>,
    /// Headers that go along with each call.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) began: Instant,
    /// Counts up over all requests.
    pub(super) order: u64,
}

/// The tries so far, and what the next one goes by.
#[derive(Default)]
pub(super) struct Tries {
    /// The model of the present try.
    pub(super) model: String,
    /// When its call began.
    pub(super) call_began: Option<Instant>,
    /// Those that the same call goes on with.
    pub(super) beside: Vec<String>,
    /// Those that have failed, where several stood in a call.
    pub(super) failed_models: Vec<String>,
    /// The backup that is asked, by its place in the settings.
    pub(super) backup: Option<usize>,
    /// Calls made so far, but for those that the account's limit rejected.
    pub(super) calls_made: u32,
    /// How often the account's limit has rejected it.
    pub(super) limits_met: u32,
    /// A model that is asked once more although its provider has said 429: it has answered a moment ago.
    pub(super) asked_once_more: Option<String>,
    /// A model has said that the prompt is longer than its context.
    pub(super) prompt_is_too_long: bool,
    /// How the conversation is known.
    pub(super) conversation: Conversation,
    /// It goes on with one, whose model this is.
    pub(super) belongs_to: Option<String>,
    /// That model has failed in the last call of the conversation.
    pub(super) own_has_failed: bool,
    /// The answer is the best that could be had, and none to learn from.
    pub(super) answer_is_flawed: bool,
    /// The backup is asked in chat completions, which isn't the API that the client speaks.
    pub(super) in_chat: Option<InChat>,
    /// Why no backup could answer.
    pub(super) backups_failed: Option<String>,
}

/// A request that is told in chat completions to a server that knows nothing else.
pub(super) struct InChat {
    /// As it would go there in the client's API, and what that is told by.
    pub(super) translated: (&'static dyn Translated, Written),
    /// What goes there.
    pub(super) body: String,
}

/// The way back to the client.
pub(super) struct ClientSide {
    pub(super) state: Client,
    /// Puts the present answer into the API that the client speaks.
    pub(super) translator: Option<Box<dyn Translator>>,
    /// What is still to be sent.
    pub(super) final_write: FinalWrite,
}

pub(super) enum Client {
    /// Nothing has been sent yet.
    Waiting(Box<Exchange>),
    /// A 200 and comments have been sent.
    Streaming(Stream),
    Answered,
    /// It has left, and others go on reading.
    Left,
}

/// What it shares with requests that are the same.
#[derive(Default)]
pub(super) struct Sharing {
    /// An answer that is there already, in place of the next try's.
    pub(super) source: Option<Source>,
    /// Others may want its answer, too.
    pub(super) leader: Option<Leader>,
}

/// What is remembered of it.
#[derive(Default)]
pub(super) struct Record {
    pub(super) recording: Option<Recording>,
    pub(super) metrics: CallMetrics,
}

impl Cancellable for Relay {
    fn cancel(&self) -> &Arc<CancelHandle> {
        self.in_flight.cancel()
    }
}

impl Relay {
    /// What a model is needed for.
    pub(super) fn wanted(&self) -> Wanted {
        (self.asked.dialect.path(), self.asked.request.needs)
    }

    /// The API that the present try asks in.
    pub(super) fn dialect(&self) -> &'static dyn Dialect {
        self.tries.in_chat.as_ref().map_or(self.asked.dialect, |in_chat| in_chat.translated.0.native())
    }

    /// How the answer is put into the API that the client speaks, where it comes in another.
    pub(super) fn translated(&self) -> Option<&(&'static dyn Translated, Written)> {
        let in_chat = self.tries.in_chat.as_ref().map(|in_chat| &in_chat.translated);
        in_chat.or(self.asked.translated.as_ref())
    }

    /// Whether another model's answer is as good.
    pub(super) fn any_model_will_do(&self) -> bool {
        self.asked.dialect.stand_in() == StandIn::Model
    }

    /// The backup that is asked now.
    pub(super) fn present_backup(&self) -> Option<(&Backup, &Arc<Upstream>)> {
        let number = self.tries.backup?;
        Some((self.snapshot.settings.backups.get(number)?, self.snapshot.backups.get(number)?))
    }

    /// A try has failed and another follows.
    pub(super) fn note_failed_try(&mut self, model: String, reason: String, rests_until: Option<SystemTime>) {
        let at = self.asked.began.elapsed();
        self.record.metrics.failed_tries.push(FailedTry { model, reason, at, rests_until });
    }

    /// Tells the panel what is known of this request now, and what it waits for beside an answer.
    pub(super) fn report(&self, waiting: Option<Waiting>) {
        if let Some(recording) = &self.record.recording {
            recording.update(&self.record.metrics, waiting);
        }
    }

    pub(super) fn number_of_tries(&self) -> usize {
        self.record.metrics.failed_tries.len() + 1
    }

    /// Whether a failed try may be followed by another at OpenRouter.
    pub(super) fn may_try_again(&self) -> bool {
        self.tries.calls_made <= self.snapshot.settings.retries && !self.shared.in_flight.is_stopping()
    }
}
