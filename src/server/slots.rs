//! The slots of the requests that are forwarded at the same time (`WORKERS`), and the queue for them (`QUEUE`).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use crate::sync::lock;

/// The free slots, and the requests that wait for one.
#[derive(Debug)]
pub struct Slots<T> {
    state: Mutex<State<T>>,
    queue: usize,
}

#[derive(Debug)]
struct State<T> {
    free: usize,
    waiting: VecDeque<T>,
    /// Requests that have waited elsewhere before; they go first.
    returned: VecDeque<T>,
}

/// The result of [`Slots::enter`].
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<T> {
    /// The request has a slot.
    Admitted(T),
    /// The request waits for a slot.
    Waits,
    /// The queue is full.
    Full(T),
}

impl<T> Slots<T> {
    /// Creates this many slots, all free, and a queue of this length.
    pub fn new(slots: usize, queue: usize) -> Self {
        Self {
            state: Mutex::new(State { free: slots, waiting: VecDeque::new(), returned: VecDeque::new() }),
            queue,
        }
    }

    /// Returns whether a request that comes now has to wait.
    pub fn are_taken(&self) -> bool {
        self.lock().free == 0
    }

    /// Takes a slot for a request, or queues the request.
    pub fn enter(&self, who: T) -> Entry<T> {
        let mut state = self.lock();
        match state.free {
            0 if state.waiting.len() >= self.queue => Entry::Full(who),
            0 => {
                state.waiting.push_back(who);
                Entry::Waits
            }
            _ => {
                state.free -= 1;
                Entry::Admitted(who)
            }
        }
    }

    /// Takes a slot for a request that has waited elsewhere, or queues it even if the queue is full. Returns the
    /// request if it has a slot.
    pub fn requeue(&self, who: T) -> Option<T> {
        let mut state = self.lock();
        match state.free {
            0 => {
                state.returned.push_back(who);
                None
            }
            _ => {
                state.free -= 1;
                Some(who)
            }
        }
    }

    /// Frees a slot. Returns the request that has it now, if one was waiting.
    pub fn leave(&self) -> Option<T> {
        let mut state = self.lock();
        let next = state.returned.pop_front().or_else(|| state.waiting.pop_front());
        if next.is_none() {
            state.free += 1;
        }
        next
    }

    /// Takes the requests that needn't wait any longer out of the queue.
    pub fn take_out(&self, left: impl Fn(&T) -> bool) -> Vec<T> {
        let mut state = self.lock();
        let State { waiting, returned, .. } = &mut *state;
        let taken = [waiting, returned].map(|queue| {
            let (out, stay) = std::mem::take(queue).into_iter().partition::<Vec<_>, _>(&left);
            queue.extend(stay);
            out
        });
        taken.into_iter().flatten().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let slots = Slots::new(1, 1);
        assert_eq!(slots.enter(1), Entry::Admitted(1));
        assert_eq!(slots.enter(2), Entry::Waits);
        assert_eq!(slots.enter(3), Entry::Full(3));
        assert_eq!((slots.requeue(4), slots.requeue(5)), (None, None));
        let next = [(); 4].map(|()| slots.leave());
        assert_eq!(next, [Some(4), Some(5), Some(2), None]);
        assert_eq!(slots.requeue(6), Some(6));
    }

    #[test]
    fn who_leaves_the_queue_leaves_its_place_in_it() {
        let slots = Slots::new(1, 2);
        assert_eq!([1, 2, 3].map(|who| slots.enter(who)), [Entry::Admitted(1), Entry::Waits, Entry::Waits]);
        assert_eq!((slots.enter(4), slots.requeue(5)), (Entry::Full(4), None));
        assert_eq!(slots.take_out(|who| *who == 2 || *who == 5), [2, 5]);
        assert_eq!((slots.enter(6), slots.enter(7)), (Entry::Waits, Entry::Full(7)));
        assert_eq!([(); 3].map(|()| slots.leave()), [Some(3), Some(6), None]);
    }
}
