//! Reuse of answers: a request that is identical to one answered before costs no call, and one that is identical to
//! another in flight shares its answer.

use std::sync::{Arc, Weak};

use super::in_flight::{CallSharing, CancelHandle, Cancellable};
use super::parked::{Parked, Wake};
use super::shared::Shared;
use super::shared_call::{Found, Source, Waiter};
use super::state::Relay;
use crate::client::exchange::ConnectionFate;
use crate::client::head::Head;
use crate::dialect::ClientRequest;
use crate::record::answers::{Answers, Key};
use crate::record::calls::Waiting;

/// What the `cache-control` of a request says about existing answers (RFC 9111, 5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheControl {
    /// Nothing: any answer will do.
    Any,
    /// `no-cache`: a fresh answer, which is kept.
    Fresh,
    /// `no-store`: a fresh answer, which isn't kept.
    Unkept,
}

impl CacheControl {
    /// Returns what the head of the request says.
    pub fn of(head: &Head) -> Self {
        match (head.lists("cache-control", "no-store"), head.lists("cache-control", "no-cache")) {
            (true, _) => Self::Unkept,
            (_, true) => Self::Fresh,
            _ => Self::Any,
        }
    }
}

/// What becomes of a request for which there may be an answer already.
pub enum Reused {
    /// The request is answered, or waits for another request's answer.
    Done(ConnectionFate),
    /// The request needs a slot: to read an answer that is arriving for another request, or to get its own.
    Call(Box<dyn Parked>, Option<Source>),
}

/// A request that waits for another request's answer.
struct WaitsForAnswer {
    shared: Arc<Shared>,
    relay: Box<Relay>,
}

impl Cancellable for WaitsForAnswer {
    fn cancel(&self) -> &Arc<CancelHandle> {
        self.relay.cancel()
    }
}

impl Waiter for WaitsForAnswer {
    fn wake(self: Box<Self>, source: Option<Source>) {
        self.shared.resume(self.relay, Wake::Answer(source));
    }
}

impl Relay {
    /// Answers with a kept answer, or waits for an identical request's answer, or goes on as the first of its kind.
    pub fn reuse(mut self: Box<Self>, cache_control: CacheControl) -> Reused {
        let shared = Arc::clone(&self.shared);
        let snapshot = Arc::clone(&self.snapshot);
        let settings = &snapshot.settings;
        let key = self.key();
        let cancel = Arc::clone(self.cancel());
        let mut leader = if cache_control == CacheControl::Any {
            let look_up = |answers: &Answers| {
                answers.get(&key, settings.reuse, settings.cache_dir.as_ref(), shared.calls.files())
            };
            match shared.reuse.find(key, settings.reuse, &cancel, look_up) {
                Found::Kept(kept) => {
                    return match self.answer_with(Source::Kept(kept)) {
                        Ok(fate) => Reused::Done(fate),
                        Err(relay) => Reused::Call(relay, None),
                    };
                }
                Found::Call(shared_call) => {
                    self.report(Some(Waiting::Another));
                    let waiter = Box::new(WaitsForAnswer { shared: Arc::clone(&shared), relay: self });
                    return match shared_call.park(waiter) {
                        None => Reused::Done(ConnectionFate::Gone),
                        Some(waiter) => Reused::Call(waiter.relay, shared_call.follow(&cancel)),
                    };
                }
                Found::Lead(leader) => leader,
            }
        } else {
            shared.reuse.lead(key, &cancel)
        };
        if cache_control == CacheControl::Unkept {
            leader.keep_nothing();
        }
        cancel.share(Arc::downgrade(leader.shared_call()) as Weak<dyn CallSharing>);
        self.sharing.leader = Some(leader);
        Reused::Call(self, None)
    }

    /// Returns what identical requests have in common: all that the upstream would get, and the form of the answer.
    fn key(&self) -> Key {
        let settings = &self.snapshot.settings;
        let body = self.asked.request.body(&self.asked.request.model);
        let nothing = ClientRequest::default();
        let written = self.asked.translated.as_ref().map_or(&nothing, |(_, written)| written);
        let path = self.asked.route.shown();
        let target = self.asked.request.target.to_string();
        let mut parts = vec![
            path.as_bytes(),
            target.as_bytes(),
            if settings.test_mode { b"" } else { settings.base_url.as_bytes() },
            self.asked.query.as_deref().unwrap_or_default().as_bytes(),
            written.model.as_bytes(),
            written.query.as_bytes(),
            written.body.as_bytes(),
            &body,
        ];
        for (name, value) in
            self.asked.headers.iter().filter(|(name, _)| name.as_str().starts_with("anthropic-"))
        {
            parts.extend([name.as_str().as_bytes(), value.as_bytes()]);
        }
        Key::of(parts)
    }
}
