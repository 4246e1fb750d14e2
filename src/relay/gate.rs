//! The account's own limit: 20 requests a minute and 50 or 1000 a day for free models, whichever key is used.
//!
//! While the limit is known to be reached, no call is spent on finding out: requests wait their turn without a worker,
//! or are told when to come back. As long as no limit was met, no request is held up. Once one was, single calls find
//! out how much a window holds: beyond the number that is known to pass, one call at a time goes ahead, and the others
//! follow when it has passed. So a known limit costs one rejected call a window.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Local};

use crate::settings::Secret;
use crate::sync::{lock, unpoisoned};

/// The number of requests that may wait.
const MAX_WAITING: usize = 1000;
/// The number of requests that OpenRouter lets through a minute, where it doesn't say how many.
const USUAL_LIMIT: u32 = 20;
/// The length of a limit's window, where the upstream didn't say when the next one begins.
const WINDOW: Duration = Duration::from_secs(60);
/// How long other requests wait for the one that went ahead.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of keys whose windows are remembered: a request that began before the key was changed counts, too.
const MAX_KEYS: usize = 8;
/// A limit that wasn't met for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(150);

/// An account's limit as the upstream told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// When the next window begins.
    pub reset: SystemTime,
    /// The number of requests in a window.
    pub per_window: Option<u32>,
}

impl Limit {
    /// Returns the time until the next window begins.
    pub fn remaining(&self) -> Duration {
        self.reset.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

/// Formats a time as `HH:MM` in the local time zone.
pub fn local_time(time: SystemTime) -> String {
    // chrono's own conversion panics beyond the year 262,142.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = i64::try_from(since.as_secs()).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map(|time| time.with_timezone(&Local).format("%H:%M").to_string()).unwrap_or_default()
}

/// The reply to a request that asks for permission.
pub enum Admission<T> {
    /// The request may go on. The outcome is to be reported to the [`Permit`].
    Go(T, Permit),
    /// The request waits now, and is given back by [`Gate::next`].
    Waits,
    /// The request can't be served within the time it may wait.
    TooLate(T, Limit),
    /// Too many requests wait already.
    Full(T),
}

/// Permission to make one call. Dropped, it counts as passed: whatever came of the call, it wasn't the limit.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Windows>,
    /// The key whose limit the call counts against.
    key: Option<Secret>,
    /// Whether the call goes ahead of others, which wait for its outcome.
    ahead: bool,
    reported: bool,
}

/// The windows, one for each key: a limit belongs to an account, and another key may be another account's.
#[derive(Debug, Default)]
struct Windows {
    changed: Condvar,
    windows: Mutex<Vec<Window>>,
}

/// What is known of a key's current window.
#[derive(Debug)]
struct Window {
    key: Option<Secret>,
    closed: Option<Limit>,
    /// The number of calls that a window is known to hold, and when the limit was last met.
    limit: Option<(u32, Instant)>,
    began: Instant,
    made: u32,
    /// The number of calls that may be made in this window before one has to go ahead.
    allowance: u32,
    /// The number of calls that have neither passed nor been rejected yet.
    undecided: u32,
    /// Since when calls have been refused permission.
    blocked_since: Option<Instant>,
}

struct Waiting<T> {
    order: u64,
    waited_before: Duration,
    since: Instant,
    request: T,
}

/// The gate, with the requests that wait in front of it.
pub struct Gate<T> {
    shared: Arc<Windows>,
    waiting: Mutex<VecDeque<Waiting<T>>>,
}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.shared)
    }
}

/// When a request came, how long it has waited in all, and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The position in the order of requests: first come, first served.
    pub order: u64,
    /// How long the request has waited before.
    pub waited: Duration,
    /// How long the request may wait in all: `MAX_WAIT`.
    pub max_wait: Duration,
}

/// What [`Gate::next`] gives back.
pub enum Next<T> {
    /// The request may go on; it has waited this much longer.
    Go(T, Permit, Duration),
    /// The request can't be served within the time it may wait; it has waited this much longer.
    TooLate(T, Limit, Duration),
    /// Nobody waits for the answer to the request any more.
    Unwanted(T),
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Self { shared: Arc::default(), waiting: Mutex::default() }
    }
}

impl<T> Gate<T> {
    /// Asks for permission to make a call with this key. If the request has to wait, it is kept as `park` makes it.
    pub fn admit<R>(
        &self,
        request: R,
        turn: Turn,
        key: Option<&Secret>,
        park: impl FnOnce(R) -> T,
    ) -> Admission<R> {
        let mut waiting = self.lock_waiting();
        let mut windows = self.shared.lock();
        let window = window_of(&mut windows, key);
        let nobody_before = waiting.front().is_none_or(|first| first.order > turn.order);
        if nobody_before && let Some(ahead) = window.try_pass() {
            return Admission::Go(request, self.permit(ahead, key));
        }
        if let Some(limit) = window.closed.filter(|limit| turn.waited + limit.remaining() > turn.max_wait) {
            return Admission::TooLate(request, limit);
        }
        if waiting.len() >= MAX_WAITING {
            return Admission::Full(request);
        }
        // A rejected request goes back to its old position, before all that came later.
        let at = waiting.partition_point(|other| other.order < turn.order);
        let (since, request) = (Instant::now(), park(request));
        waiting.insert(at, Waiting { order: turn.order, waited_before: turn.waited, since, request });
        drop(windows);
        self.shared.changed.notify_all();
        Admission::Waits
    }

    /// Waits for the next request that may go on, can't be served in time, or is `unwanted`. Returns `None` after
    /// `limit` without one, so that the caller can check what else has changed. `rules` returns the current `MAX_WAIT`
    /// and key.
    pub fn next(
        &self,
        limit: Duration,
        rules: impl Fn() -> (Duration, Option<Secret>),
        unwanted: impl Fn(&T) -> bool,
    ) -> Option<Next<T>> {
        let deadline = Instant::now() + limit;
        loop {
            let (max_wait, key) = rules();
            let mut waiting = self.lock_waiting();
            let mut windows = self.shared.lock();
            // Waiting requests will go on with the current key.
            let window = window_of(&mut windows, key.as_ref());
            let mut until = deadline;
            if !waiting.is_empty() {
                if let Some(at) = waiting.iter().position(|entry| unwanted(&entry.request))
                    && let Some(entry) = waiting.remove(at)
                {
                    return Some(Next::Unwanted(entry.request));
                }
                if let Some(ahead) = window.try_pass()
                    && let Some(first) = waiting.pop_front()
                {
                    return Some(Next::Go(
                        first.request,
                        self.permit(ahead, key.as_ref()),
                        first.since.elapsed(),
                    ));
                }
                if let Some(closed) = window.closed {
                    let late =
                        |w: &Waiting<T>| w.waited_before + w.since.elapsed() + closed.remaining() > max_wait;
                    if let Some(at) = waiting.iter().position(late)
                        && let Some(late) = waiting.remove(at)
                    {
                        return Some(Next::TooLate(late.request, closed, late.since.elapsed()));
                    }
                }
                until = window.next_change().min(deadline);
            }
            // The windows stay locked until their condition variable is waited for, so that no change can be missed.
            drop(waiting);
            let now = Instant::now();
            if now >= deadline {
                return None;
            }
            let pause = until.saturating_duration_since(now).max(Duration::from_millis(1));
            let waited = self.shared.changed.wait_timeout(windows, pause);
            drop(unpoisoned(waited));
        }
    }

    /// Has [`Gate::next`] check whether waiting requests are still wanted.
    pub fn look_again(&self) {
        drop(self.shared.lock()); // a thread in the middle of a check now waits for this notification
        self.shared.changed.notify_all();
    }

    /// Waits for as long as `sleeps` returns true; it is called again at each [`Gate::look_again`].
    pub fn sleep_while(&self, sleeps: impl Fn() -> bool) {
        let windows = self.shared.lock();
        drop(self.shared.changed.wait_while(windows, |_| sleeps()));
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.lock_waiting().len()
    }

    /// Notes that the upstream has rejected a call with this key after it seemed to have passed.
    pub fn close(&self, limit: Limit, key: Option<&Secret>) {
        window_of(&mut self.shared.lock(), key).close(limit);
        self.shared.changed.notify_all();
    }

    /// Returns the limit of this key that is reached now, if one is.
    pub fn closed(&self, key: Option<&Secret>) -> Option<Limit> {
        let windows = self.shared.lock();
        let window = windows.iter().find(|window| window.key.as_ref() == key)?;
        window.closed.filter(|limit| !limit.remaining().is_zero())
    }

    fn permit(&self, ahead: bool, key: Option<&Secret>) -> Permit {
        Permit { gate: Arc::clone(&self.shared), key: key.cloned(), ahead, reported: false }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, VecDeque<Waiting<T>>> {
        lock(&self.waiting)
    }
}

impl Permit {
    /// Reports that the upstream accepted the call.
    pub fn passed(mut self) {
        self.report(None);
    }

    /// Reports that the upstream rejected the call: the account's limit is reached.
    pub fn rejected(mut self, limit: Limit) {
        self.report(Some(limit));
    }

    fn report(&mut self, limit: Option<Limit>) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let mut windows = self.gate.lock();
        let window = window_of(&mut windows, self.key.as_ref());
        window.undecided = window.undecided.saturating_sub(1);
        let others_wait = window.blocked_since.is_some();
        match limit {
            Some(limit) => window.close(limit),
            None if self.ahead => window.went_well(),
            None => {}
        }
        if !others_wait && limit.is_none() {
            return;
        }
        drop(windows);
        self.gate.changed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.report(None);
    }
}

impl Windows {
    fn lock(&self) -> MutexGuard<'_, Vec<Window>> {
        lock(&self.windows)
    }
}

/// Returns the window of a key, a new one if the key hasn't been used yet.
fn window_of<'w>(windows: &'w mut Vec<Window>, key: Option<&Secret>) -> &'w mut Window {
    let at = match windows.iter().position(|window| window.key.as_ref() == key) {
        Some(at) => at,
        None => {
            if windows.len() >= MAX_KEYS {
                windows.remove(0);
            }
            windows.push(Window::new(key.cloned()));
            windows.len() - 1
        }
    };
    &mut windows[at]
}

impl Window {
    fn new(key: Option<Secret>) -> Self {
        Self {
            key,
            closed: None,
            limit: None,
            began: Instant::now(),
            made: 0,
            allowance: u32::MAX,
            undecided: 0,
            blocked_since: None,
        }
    }

    /// Counts a call if it may be made now. Returns `None` if it may not, and `Some(true)` if it goes ahead of others.
    fn try_pass(&mut self) -> Option<bool> {
        let permit = self.may_pass();
        match permit {
            Some(_) => {
                self.made = self.made.saturating_add(1);
                self.undecided += 1;
                self.blocked_since = None;
            }
            None => drop(self.blocked_since.get_or_insert_with(Instant::now)),
        }
        permit
    }

    fn may_pass(&mut self) -> Option<bool> {
        if let Some(limit) = self.closed {
            if !limit.remaining().is_zero() {
                return None;
            }
            // The first call of a new window goes ahead, because clocks differ.
            self.closed = None;
            self.begin(0);
        }
        if self.began.elapsed() > WINDOW {
            if self.limit.is_some_and(|(_, met)| met.elapsed() > FORGOTTEN_AFTER) {
                self.limit = None;
            }
            self.begin(self.limit.map_or(u32::MAX, |(limit, _)| limit));
        }
        if self.made < self.allowance {
            return Some(false);
        }
        // The number that is known to pass is used up. The calls in flight may be the last that pass: wait for their
        // outcome.
        if self.undecided == 0 {
            return Some(true);
        }
        self.blocked_since.is_some_and(|since| since.elapsed() >= PATIENCE).then_some(true)
    }

    fn begin(&mut self, allowance: u32) {
        self.began = Instant::now();
        self.made = 0;
        self.allowance = allowance;
    }

    /// Notes that the call that went ahead has passed.
    fn went_well(&mut self) {
        self.allowance = match self.limit {
            // More calls than the limit have passed, so a new window has begun.
            Some((limit, _)) if self.made > limit || self.allowance == 0 => {
                self.made = 1;
                self.began = Instant::now();
                limit
            }
            Some((limit, _)) => limit,
            None => u32::MAX,
        };
    }

    fn close(&mut self, limit: Limit) {
        let known = self.limit.map_or(USUAL_LIMIT, |(known, _)| known);
        // A limit per day says nothing about the one per minute.
        let a_minutes = limit.remaining() <= 2 * WINDOW;
        let per_window = limit.per_window.filter(|n| *n > 0 && a_minutes).unwrap_or(known);
        self.limit = Some((per_window, Instant::now()));
        self.closed = Some(limit);
    }

    /// Returns when waiting may end without any other event.
    fn next_change(&self) -> Instant {
        let now = Instant::now();
        let opens = self.closed.map(|limit| now + limit.remaining());
        let patience_ends = self.blocked_since.map(|since| since + PATIENCE);
        opens.or(patience_ends).unwrap_or(now + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Turn = Turn { order: 0, waited: Duration::ZERO, max_wait: Duration::from_secs(60) };

    fn turn(order: u64) -> Turn {
        Turn { order, ..TURN }
    }

    fn go(gate: &Gate<u64>, order: u64) -> Option<Permit> {
        match gate.admit(order, turn(order), None, |order| order) {
            Admission::Go(_, permit) => Some(permit),
            Admission::Waits => None,
            _ => panic!("neither goes nor waits"),
        }
    }

    fn limit(after: Duration) -> Limit {
        Limit { reset: SystemTime::now() + after, per_window: Some(20) }
    }

    #[test]
    fn beyond_what_is_known_one_goes_ahead() {
        let gate = Gate::default();
        let rules = || (TURN.max_wait, None);
        let next = || match gate.next(Duration::from_secs(5), rules, |_| false) {
            Some(Next::Go(number, permit, _)) => (number, permit),
            _ => panic!("nobody goes on"),
        };
        let first = (0..500).map(|n| go(&gate, n).unwrap()).collect::<Vec<_>>();
        assert!(first.iter().all(|permit| !permit.ahead), "no limit was met");
        first.into_iter().for_each(Permit::passed);
        go(&gate, 0).unwrap().rejected(limit(Duration::ZERO));
        let first = go(&gate, 0).unwrap();
        assert!(first.ahead && go(&gate, 1).is_none(), "the first of a new window goes ahead");
        first.passed();
        let mut passes = vec![next().1];
        passes.extend((2..20).map(|n| go(&gate, n).unwrap()));
        assert!(go(&gate, 20).is_none(), "those on their way may be the last that pass");
        assert!(go(&gate, 21).is_none());
        passes.into_iter().for_each(Permit::passed);
        let (number, ahead) = next();
        assert!(number == 20 && ahead.ahead);
        assert!(gate.next(Duration::from_millis(50), rules, |_| false).is_none(), "waits for the one ahead");
        ahead.passed();
        assert_eq!(next().0, 21);
    }

    #[test]
    fn those_that_cannot_make_it_are_told_at_once() {
        let gate = Gate::default();
        go(&gate, 0).unwrap().rejected(limit(Duration::from_secs(3600)));
        assert!(matches!(gate.admit(1, turn(1), None, |n| n), Admission::TooLate(1, _)));
        let changed = Secret::clone(&crate::settings::tests_support::secret("other-key"));
        assert!(matches!(gate.admit(2, turn(2), Some(&changed), |n| n), Admission::Go(2, _)), "another key");
        assert!(gate.closed(None).is_some() && gate.closed(Some(&changed)).is_none());
        assert!(
            matches!(gate.admit(3, turn(3), None, |n| n), Admission::TooLate(3, _)),
            "nothing is forgotten"
        );
    }

    #[test]
    fn the_rejected_one_is_first_again() {
        let gate = Gate::default();
        let rejected = go(&gate, 1).unwrap();
        rejected.rejected(limit(Duration::from_millis(300)));
        assert!(go(&gate, 2).is_none());
        assert!(go(&gate, 1).is_none());
        let rules = || (TURN.max_wait, None);
        let Some(Next::Go(1, permit, waited)) = gate.next(Duration::from_secs(5), rules, |_| false) else {
            panic!("in the order in which they came");
        };
        assert!(waited >= Duration::from_millis(200));
        permit.passed();
        assert!(matches!(gate.next(Duration::from_secs(5), rules, |_| false), Some(Next::Go(2, _, _))));
    }

    #[test]
    fn a_shorter_patience_counts_for_those_who_wait() {
        let gate = Gate::default();
        go(&gate, 1).unwrap().rejected(limit(Duration::from_secs(30)));
        assert!(go(&gate, 2).is_none());
        let rules = || (Duration::ZERO, None);
        assert!(matches!(gate.next(Duration::from_secs(5), rules, |_| false), Some(Next::TooLate(2, _, _))));
    }
}
