//! A thread's slot among the `WORKERS`: given up while its client doesn't read, so that another request can go on.

use std::cell::RefCell;

thread_local! {
    static SLOT: RefCell<Option<Box<dyn Fn() -> bool>>> = const { RefCell::new(None) };
}

/// Notes that this thread has a slot from now on. `free` gives the slot to another request, and returns whether it did.
pub fn take(free: impl Fn() -> bool + 'static) {
    SLOT.set(Some(Box::new(free)));
}

/// Gives this thread's slot away now, if that is allowed. A thread without a slot may call this too.
pub fn give_up() {
    SLOT.with_borrow_mut(|slot| drop(slot.take_if(|free| free())));
}

/// Notes that this thread is done. Returns whether it still had its slot, which the caller then has to give away.
pub fn leave() -> bool {
    SLOT.take().is_some()
}
