//! Workers that wait for their own client: a client that has stopped reading keeps its thread, but not its place among
//! the `WORKERS`. Another thread takes the place over until the first one is done.

use std::cell::RefCell;

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

struct Seat {
    hand_over: Box<dyn Fn() -> bool>,
    handed_over: bool,
}

/// Makes the current thread one that holds a place. `hand_over` has somebody else take it, if that can be done.
pub fn take(hand_over: impl Fn() -> bool + 'static) {
    SEAT.set(Some(Seat { hand_over: Box::new(hand_over), handed_over: false }));
}

/// Gives the place away for what is left of this request. Threads without one may call this too.
pub fn hand_over() {
    SEAT.with_borrow_mut(|seat| {
        if let Some(seat) = seat.as_mut().filter(|seat| !seat.handed_over) {
            seat.handed_over = (seat.hand_over)();
        }
    });
}

/// Whether the place was given away since this was last asked.
pub fn was_handed_over() -> bool {
    SEAT.with_borrow_mut(|seat| seat.as_mut().is_some_and(|seat| std::mem::take(&mut seat.handed_over)))
}
