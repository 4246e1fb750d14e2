//! Checks files that may not respond: one thread does it, and no other waits long for it.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::sync::{lock, unpoisoned};

/// How long a request waits for a check. A share responds within milliseconds, or not at all.
const PATIENCE: Duration = Duration::from_millis(300);

/// Connects the threads that need a check with the one that makes it.
#[derive(Debug, Default)]
pub struct FileChecker {
    looks: Mutex<Looks>,
    wanted: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Looks {
    /// The number of the last check that was asked for.
    wanted: u64,
    /// The number of the last check that is done.
    done: u64,
    /// Whether somebody has waited in vain for the check in progress.
    hangs: bool,
}

impl FileChecker {
    /// Waits for a check that begins after this call, unless the one before it hangs.
    pub fn ask(&self) {
        let mut looks = lock(&self.looks);
        looks.wanted += 1;
        let mine = looks.wanted;
        self.wanted.notify_one();
        let began = Instant::now();
        while looks.done < mine && !looks.hangs {
            let left = PATIENCE.saturating_sub(began.elapsed());
            if left.is_zero() {
                looks.hangs = true;
                return;
            }
            looks = unpoisoned(self.done.wait_timeout(looks, left)).0;
        }
    }

    /// Makes a check whenever one is asked for.
    pub fn serve(&self, mut look: impl FnMut()) -> ! {
        loop {
            let mut looks = lock(&self.looks);
            while looks.done == looks.wanted {
                looks = unpoisoned(self.wanted.wait(looks));
            }
            let number = looks.wanted;
            drop(looks);
            look();
            let mut looks = lock(&self.looks);
            looks.done = number;
            looks.hangs = false;
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_look_that_hangs_holds_nobody_up() {
        let file_checker = Arc::new(FileChecker::default());
        let seen = Arc::new(AtomicU64::new(0));
        let (release, released) = mpsc::channel::<()>();
        let (server, count) = (Arc::clone(&file_checker), Arc::clone(&seen));
        thread::spawn(move || {
            server.serve(|| {
                if count.fetch_add(1, Ordering::SeqCst) == 1 {
                    released.recv().unwrap();
                }
            })
        });
        file_checker.ask();
        assert_eq!(seen.load(Ordering::SeqCst), 1, "it has looked");
        // The second look hangs: whoever comes first waits a little, and the others not at all.
        let began = Instant::now();
        for _ in 0..1000 {
            file_checker.ask();
        }
        assert!(began.elapsed() < 100 * PATIENCE);
        assert_eq!(seen.load(Ordering::SeqCst), 2);
        release.send(()).unwrap();
        while seen.load(Ordering::SeqCst) < 3 {
            thread::yield_now();
        }
        let before = seen.load(Ordering::SeqCst);
        file_checker.ask();
        assert!(seen.load(Ordering::SeqCst) > before || !lock(&file_checker.looks).hangs);
    }
}
