//! What is remembered of calls: in debug mode the recent ones and the files that they leave, always who was turned away.
//!
//! May import `live` and what stands below it.

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
