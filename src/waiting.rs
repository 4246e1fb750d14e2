//! What a thread still has to do, put off until it would wait anyway: whatever wakes another thread costs this one 20 us,
//! which then nobody waits for.

use std::cell::RefCell;

thread_local! {
    static PUT_OFF: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Puts `task` off until this thread calls [`begin`], unless it calls [`forget`] first.
pub fn put_off(task: impl FnOnce() + 'static) {
    PUT_OFF.set(Some(Box::new(task)));
}

/// Does what was put off. To be called before anything that may wait for a network, a disk or a clock.
pub fn begin() {
    if let Some(task) = PUT_OFF.take() {
        task();
    }
}

/// Does nothing of what was put off any more.
pub fn forget() {
    PUT_OFF.set(None);
}
