//! One request through its tries: rewrite, ask for leave, send, judge the answer, relay it. A failure that another try
//! can heal leads back to the top, as long as nothing of an answer has gone to the client.
//!
//! - [`state`]: the request with its parts; [`accept`]: how it begins; [`drive`]: its loop; [`finish`]: how it ends.
//! - [`attempt`]: one try, from the call to what came of it ([`answer`]); [`plain`], [`stream`], [`bytes`]: the kinds of answers.
//! - [`patience`]: what follows a failure; [`routing`]: which model is next; [`backup`], [`backup_history`]: which other server.
//! - [`outcome`], [`parked`]: what passes between these steps, and how one that waits is gone on with.
//! - What all requests share ([`shared`]): the account's limit ([`gate`]), who pauses ([`pauses`]), who is in flight
//!   ([`in_flight`]), calls that are shared ([`shared_call`], [`reuse`]), what was seen of models and conversations
//!   ([`model_history`], [`model_stats`], [`conversation`]), the lists ([`models`], [`model`], [`best`]) and the quota ([`quota`]).
//!
//! May import `builtin`, `record`, `live`, `client`, `upstream`, `settings`, `dialect` and leaves.

pub mod accept;
mod answer;
mod attempt;
mod backup;
pub mod backup_history;
pub mod best;
mod bytes;
mod choice;
mod conversation;
mod drive;
mod finish;
pub mod gate;
pub mod in_flight;
pub mod model;
pub mod model_history;
pub mod model_stats;
pub mod models;
mod outcome;
pub mod parked;
mod patience;
pub mod pauses;
mod plain;
pub mod quota;
pub mod reuse;
mod routing;
pub mod shared;
pub mod shared_call;
pub mod state;
mod stream;
