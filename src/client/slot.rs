//! A thread's place among the `WORKERS`: given up early while its client doesn't read, so that others can go on.

use std::cell::RefCell;

thread_local! {
    static SLOT: RefCell<Option<Box<dyn Fn() -> bool>>> = const { RefCell::new(None) };
}

/// This thread has a place from now on. `free` gives it to somebody else, if it may.
pub fn take(free: impl Fn() -> bool + 'static) {
    SLOT.set(Some(Box::new(free)));
}

/// Gives the place away now, if that may be. Threads without one may call this too.
pub fn give_up() {
    SLOT.with_borrow_mut(|slot| drop(slot.take_if(|free| free())));
}

/// Whether this thread has a place: then it may wait for its client, as others can have the place meanwhile.
pub fn is_held() -> bool {
    SLOT.with_borrow(Option::is_some)
}

/// The thread is done. Whether it still has its place: then it is the caller's to give away.
pub fn leave() -> bool {
    SLOT.take().is_some()
}
