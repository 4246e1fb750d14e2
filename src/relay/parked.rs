//! Requests that wait without a thread: for the account's limit, for the end of a pause, for another request's answer.

use std::time::Duration;

use super::gate::{Limit, Permit};
use super::in_flight::Cancellable;
use super::shared_call::Source;
use crate::client::exchange::ConnectionFate;
use crate::error::ApiError;
use crate::record::calls::Waiting;

/// Why a waiting request is resumed.
pub enum Wake {
    /// It may make its call; it has waited for this long.
    Allowed(Permit, Duration),
    /// The account's limit lasts longer than the request may wait; it has waited for this long.
    TooLate(Limit, Duration),
    /// The pause before its next attempt is over.
    PauseOver,
    /// There is an answer for it; `None`: it makes its own call.
    Answer(Option<Source>),
}

/// A request that can be parked, and resumed by any thread.
pub trait Parked: Cancellable + Send {
    /// Resumes the request.
    fn resume(self: Box<Self>, wake: Wake) -> ConnectionFate;

    /// Tells the panel what the request waits for.
    fn report(&self, waiting: Option<Waiting>);

    /// Ends a request whose client has left, or that was cancelled by the panel or by the stop of the program.
    fn abandon(self: Box<Self>) -> ConnectionFate;

    /// Answers with one of the proxy's own errors.
    fn refuse(self: Box<Self>, error: ApiError) -> ConnectionFate;
}
