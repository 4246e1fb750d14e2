//! Requests that wait without a thread: for the account's limit, for a pause to be over, for an answer that another one gets.

use std::time::Duration;

use super::gate::{Limit, Pass};
use super::in_flight::Cancellable;
use super::shared_call::Source;
use crate::client::exchange::ConnectionFate;
use crate::error::ApiError;
use crate::record::calls::Waiting;

/// Why one that waited goes on.
pub enum Wake {
    /// It may make its call, after having waited for so long.
    Allowed(Pass, Duration),
    /// The account's limit lasts longer than it may wait.
    TooLate(Limit, Duration),
    /// The pause before its next try is over.
    PauseOver,
    /// There is an answer that it may have; or it is to get its own.
    Answer(Option<Source>),
}

/// A request that can be put aside, and gone on with by any thread.
pub trait Parked: Cancellable + Send {
    /// Goes on.
    fn resume(self: Box<Self>, wake: Wake) -> ConnectionFate;

    /// Tells the panel what it waits for.
    fn report(&self, waiting: Option<Waiting>);

    /// Ends one whose client has left, or that the stop of the program has cut off.
    fn abandon(self: Box<Self>) -> ConnectionFate;

    /// Answers with an error of our own.
    fn refuse(self: Box<Self>, error: ApiError) -> ConnectionFate;
}
