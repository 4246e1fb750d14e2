//! Faults around the proxy: after each of them it answers a normal request at once.
//!
//! What takes longer than a moment is ignored by `cargo test`; `.ci/run` runs it on the release build
//! (`LOCAL_API_PROXY_EXE`). Linux only: limits, full disks and memory are read and set there.

#![cfg(target_os = "linux")]

#[path = "../contract/fixture.rs"]
mod fixture;

mod connections;
mod disk;
mod input;
mod soak;
mod upstream;

use fixture::{HELLO, Proxy};

/// Memory that nothing has kept can be this much more or less: freed pieces stay with the allocator, here more, there less.
const ALLOCATORS_MOOD_KIB: usize = 2048;

/// The proof that the proxy is well.
fn assert_serves(proxy: &Proxy) {
    assert_eq!(proxy.chat(HELLO).status, 200);
    assert_eq!(proxy.get("/health").status, 200);
}
