//! Relays one request: rewrites it, waits for permission to call, sends it, judges the answer and relays that. After a
//! failure that another attempt can fix, it starts over, as long as nothing of an answer has gone to the client.
//!
//! - [`state`]: the request and its parts; [`accept`]: how it begins; [`drive`]: its main loop; [`finish`]: how it
//!   ends.
//! - [`attempt`]: one attempt, from the call to its outcome; [`answer`]: the sources of an answer; [`plain`],
//!   [`stream`], [`bytes`]: the kinds of answers.
//! - [`patience`]: what to do after a failure; [`routing`], [`choice`]: which model is next; [`backup`],
//!   [`backup_history`]: which other server is asked.
//! - [`outcome`], [`parked`]: the types passed between these steps, and how a waiting request is resumed.
//! - Shared by all requests ([`shared`]): the account's limit ([`gate`]), the requests that pause ([`pauses`]) or are
//!   in flight ([`in_flight`]), shared calls and reused answers ([`shared_call`], [`reuse`]), what was seen of models
//!   and conversations ([`model_history`], [`model_stats`], [`conversation`]), the lists of models ([`models`],
//!   [`model`], [`best`]) and the quota ([`quota`]).
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
