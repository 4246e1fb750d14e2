//! A lock whose holder panicked is as good as any other here: what it guards is put right in single steps.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever has become of those who had the lock before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
