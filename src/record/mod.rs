//! Debug mode's memory: the recent calls, and the files that they leave.
//!
//! May import `live` and what stands below it.

pub mod calls;
pub mod files;
