//! The client's side: the sockets, a request and the way back to its client, and who gets in.
//!
//! From the socket to the request: [`listen`] opens the listeners, [`socket`] is one client's, [`connection`] reads
//! heads from it ([`head`]), [`idle`] keeps the connections that wait for their clients, [`exchange`] is one request
//! with its body ([`chunks`]) and its answer. [`access`] decides who gets in, [`slot`] is a thread's slot among the
//! workers.
//!
//! May import `upstream`, `settings`, `dialect` and leaves.

pub mod access;
pub mod chunks;
pub mod connection;
pub mod exchange;
pub mod head;
pub mod idle;
pub mod listen;
pub mod slot;
pub mod socket;
