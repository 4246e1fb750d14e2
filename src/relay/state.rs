//! A request that has been parsed, on its way through any number of attempts. Between two attempts it can be parked
//! without a thread. Its fields are grouped by the steps that may modify them.

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
use crate::dialect::{ClientRequest, Dialect, Routed, StandIn, Translated, Translator};
use crate::language::Words;
use crate::live::Snapshot;
use crate::record::calls::{Recording, Waiting};
use crate::record::metrics::{CallMetrics, FailedTry};
use crate::settings::backups::Backup;
use crate::upstream::Upstream;

/// A request in progress.
pub struct Relay {
    /// The state shared by all requests.
    pub(super) shared: Arc<Shared>,
    /// The request as the client sent it.
    pub(super) asked: Asked,
    /// The settings that this request follows.
    pub(super) snapshot: Arc<Snapshot>,
    /// Counts this request as in flight.
    pub(super) in_flight: InFlightGuard,
    /// The attempts so far, and what the next one depends on.
    pub(super) tries: Tries,
    /// The way back to the client.
    pub(super) client: ClientConnection,
    /// What this request shares with identical ones.
    pub(super) sharing: Sharing,
    /// What is recorded of this request.
    pub(super) record: Record,
}

/// The request as the client sent it. It doesn't change.
pub(super) struct Asked {
    /// The API in which the upstream is asked.
    pub(super) dialect: &'static dyn Dialect,
    /// The route that the client used.
    pub(super) route: Routed,
    /// The API that the client speaks, if it isn't the upstream's, and the request as the client wrote it.
    pub(super) translated: Option<(&'static dyn Translated, ClientRequest)>,
    pub(super) request: Request,
    /// The query of the client's request target, for the dialects whose upstream wants it.
    pub(super) query: Option<String>,
    /// Header fields that are sent with each call.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) began: Instant,
    /// The number of this request; it counts up over all requests.
    pub(super) order: u64,
}

/// The attempts so far, and what the next one depends on.
#[derive(Default)]
pub(super) struct Tries {
    /// The model of the current attempt.
    pub(super) model: String,
    /// When the call of the current attempt began.
    pub(super) call_began: Option<Instant>,
    /// The models that the same call falls back to.
    pub(super) fallback_models: Vec<String>,
    /// The models that have failed in calls to the best models, which may name several.
    pub(super) failed_models: Vec<String>,
    /// The backup that is asked, by its index in the settings.
    pub(super) backup: Option<usize>,
    /// Whether no other backup is asked if that one fails.
    pub(super) is_last_backup: bool,
    /// The calls made to OpenRouter so far, except those that the account's limit rejected.
    pub(super) calls_made: u32,
    /// How often the account's limit has rejected this request.
    pub(super) limits_met: u32,
    /// A model that is asked once more although its provider said 429, because it has answered a moment ago.
    pub(super) asked_once_more: Option<String>,
    /// Whether a model said that the prompt is longer than its context.
    pub(super) prompt_is_too_long: bool,
    /// The marks by which the conversation is recognized.
    pub(super) conversation: Conversation,
    /// The model of the conversation that this request continues.
    pub(super) belongs_to: Option<String>,
    /// Whether that model failed in the last call of the conversation.
    pub(super) conversation_model_failed: bool,
    /// Whether the answer is only the best that could be had: nothing is learned from it.
    pub(super) answer_is_flawed: bool,
    /// The request in chat completions, for a backup that doesn't know the API that the client speaks.
    pub(super) in_chat: Option<InChat>,
    /// Why no backup could answer.
    pub(super) backups_failed: Option<String>,
}

/// A request in chat completions, for a server that knows no other API.
pub(super) struct InChat {
    /// The translation, and the request as it would be sent in the client's API.
    pub(super) translated: (&'static dyn Translated, ClientRequest),
    /// The body that is sent.
    pub(super) body: String,
}

/// The way back to the client.
pub(super) struct ClientConnection {
    pub(super) state: Client,
    /// Translates the current answer into the API that the client speaks.
    pub(super) translator: Option<Box<dyn Translator>>,
    /// What is sent last.
    pub(super) final_write: FinalWrite,
}

pub(super) enum Client {
    /// Nothing has been sent yet.
    Waiting(Box<Exchange>),
    /// The response has begun: of its body, comments or a part of the answer may have been sent.
    Streaming(Stream),
    Answered,
    /// The client has left, and other requests go on reading the answer.
    Left,
}

/// What a request shares with identical ones.
#[derive(Default)]
pub(super) struct Sharing {
    /// An answer that exists already, in place of the next attempt's.
    pub(super) source: Option<Source>,
    /// Held if other requests may want the answer, too.
    pub(super) leader: Option<Leader>,
}

/// What is recorded of a request.
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
    /// Returns what a model is needed for.
    pub(super) fn wanted(&self) -> Wanted {
        (self.asked.dialect.path(), self.asked.request.needs)
    }

    /// Returns the API of the current attempt.
    pub(super) fn dialect(&self) -> &'static dyn Dialect {
        self.tries.in_chat.as_ref().map_or(self.asked.dialect, |in_chat| in_chat.translated.0.native())
    }

    /// Returns how the answer is translated into the API that the client speaks, if it comes in another one.
    pub(super) fn translated(&self) -> Option<&(&'static dyn Translated, ClientRequest)> {
        let in_chat = self.tries.in_chat.as_ref().map(|in_chat| &in_chat.translated);
        in_chat.or(self.asked.translated.as_ref())
    }

    /// Returns whether another model's answer is as good.
    pub(super) fn any_model_will_do(&self) -> bool {
        self.asked.dialect.stand_in() == StandIn::Model
    }

    /// Returns the backup that is being asked.
    pub(super) fn present_backup(&self) -> Option<(&Backup, &Arc<Upstream>)> {
        let number = self.tries.backup?;
        Some((self.snapshot.settings.backups.get(number)?, self.snapshot.backups.get(number)?))
    }

    /// Records a failed attempt that is followed by another.
    pub(super) fn note_failed_try(&mut self, model: String, reason: Words, rests_until: Option<SystemTime>) {
        let at = self.asked.began.elapsed();
        self.record.metrics.failed_tries.push(FailedTry { model, reason, at, rests_until });
    }

    /// Tells the panel what is known of this request now, and what it waits for other than an answer.
    pub(super) fn report(&self, waiting: Option<Waiting>) {
        if let Some(recording) = &self.record.recording {
            recording.update(&self.record.metrics, waiting);
        }
    }

    pub(super) fn number_of_tries(&self) -> usize {
        self.record.metrics.attempts()
    }

    /// Returns whether a failed attempt may be followed by another at OpenRouter.
    pub(super) fn may_try_again(&self) -> bool {
        self.tries.calls_made <= self.snapshot.settings.retries && !self.shared.in_flight.is_stopping()
    }
}
