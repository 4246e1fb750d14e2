//! What is recorded: in debug mode the recent calls and their files, and always the requests that were refused.
//!
//! May import `live` and the modules below it.

pub mod answers;
pub mod call;
pub mod callers;
pub mod calls;
pub mod changes;
pub mod day;
mod disk;
pub mod files;
pub mod first_words;
pub mod history;
mod memory;
pub mod metrics;
pub mod names;
pub mod refusals;
pub mod search;
pub mod statistics;
