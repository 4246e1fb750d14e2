//! What a request and an answer mean in the API that the client speaks.
//!
//! May import leaves only.

pub mod chat;
pub mod free_models;
pub mod sse;
