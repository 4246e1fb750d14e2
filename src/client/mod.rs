//! The client's side of the wire: the sockets, a request and the way back to it, and who gets in.
//!
//! From the socket to the request: [`listen`] opens the listeners, [`socket`] is one client's, [`connection`] reads heads
//! from it ([`head`]), [`idle`] keeps those on which nothing is going on, [`exchange`] is one request with its body
//! ([`chunks`]) and its answer. [`access`] says who gets in, [`slot`] is a thread's place among the workers.
//!
//! May import `settings` and leaves.

pub mod access;
pub mod chunks;
pub mod connection;
pub mod exchange;
pub mod head;
pub mod idle;
pub mod listen;
pub mod slot;
pub mod socket;
