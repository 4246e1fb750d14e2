//! Requests that pause before their next attempt, without a thread each.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::sync::{lock, unpoisoned};

/// How soon a request whose client leaves meanwhile is found if nobody calls [`Pauses::look_again`].
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The requests that pause, and until when.
#[derive(Debug)]
pub struct Pauses<T> {
    waiting: Mutex<Vec<(Instant, T)>>,
    changed: Condvar,
}

impl<T> Default for Pauses<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new() }
    }
}

impl<T> Pauses<T> {
    /// Parks a request for this long.
    pub fn park(&self, pause: Duration, who: T) {
        lock(&self.waiting).push((Instant::now() + pause, who));
        self.changed.notify_all();
    }

    /// Has [`Pauses::next`] check whether the pausing requests are still wanted.
    pub fn look_again(&self) {
        drop(lock(&self.waiting));
        self.changed.notify_all();
    }

    /// Waits for the next request whose pause is over, or that is `unwanted`.
    pub fn next(&self, unwanted: impl Fn(&T) -> bool) -> T {
        let mut waiting = lock(&self.waiting);
        loop {
            let now = Instant::now();
            if let Some(at) = waiting.iter().position(|(until, who)| *until <= now || unwanted(who)) {
                return waiting.swap_remove(at).1;
            }
            let soonest = waiting.iter().map(|(until, _)| until.saturating_duration_since(now)).min();
            waiting = match soonest {
                Some(pause) => {
                    let waited = self.changed.wait_timeout(waiting, pause.min(LOOK_AGAIN));
                    unpoisoned(waited).0
                }
                None => unpoisoned(self.changed.wait(waiting)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_pause_is_over_first_and_the_unwanted_dont_wait() {
        let pauses = Pauses::default();
        for (seconds, who) in [(3600, "long"), (0, "none"), (3600, "left")] {
            pauses.park(Duration::from_secs(seconds), who);
        }
        assert_eq!(pauses.next(|_| false), "none");
        assert_eq!(pauses.next(|who| *who == "left"), "left");
    }
}
