//! A thread's place among the `WORKERS`: given up early while its client doesn't read, so that others can go on.

use std::cell::RefCell;

thread_local! {
    static SEAT: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// This thread has a place from now on. `free` gives it to somebody else.
pub fn take(free: impl FnOnce() + 'static) {
    SEAT.set(Some(Box::new(free)));
}

/// Gives the place away now. Threads without one may call this too.
pub fn give_up() {
    if let Some(free) = SEAT.take() {
        free();
    }
}

/// The thread is done. Whether it still has its place: then it is the caller's to give away.
pub fn leave() -> bool {
    SEAT.take().is_some()
}
