//! A lock whose holder panicked is as good as any other here: what it guards is put right in single steps.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks, whatever has become of those who had the lock before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// What locking or waiting gave, whatever has become of those who had the lock before.
pub fn unpoisoned<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}
