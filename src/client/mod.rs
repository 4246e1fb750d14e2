//! The client's side of the wire: the sockets, a request and the way back to it, and who gets in.
//!
//! May import `settings` and leaves.

pub mod access;
pub mod exchange;
pub mod listen;
pub mod seat;
