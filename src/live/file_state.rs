//! Tells one state of a file from another: by its stamp, as long as that can be trusted, else by its bytes.

use std::fmt;
use std::fs::{self, Metadata};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::error::is_about_descriptors;
use crate::pipes::{self, Contents};

/// The coarsest clock of a file system (FAT: 2 s), with some margin.
const COARSE_STAMP: Duration = Duration::from_millis(2500);
/// File systems with finer times than FAT and exFAT (10 ms) follow the kernel's clock tick: 10 ms at most.
const FINE_STAMP: Duration = Duration::from_millis(100);

/// `.env` as it was when a snapshot was made of it.
#[derive(Debug, Default)]
pub(super) struct FileState {
    stamp: Option<Stamp>,
    /// For comparison while the stamp can't be trusted. Never shown: the key is in it.
    bytes: Hidden,
    first_seen: Option<Instant>,
    /// Whether the stamp has been seen for longer than its granularity, and can be trusted.
    believed: AtomicBool,
}

#[derive(Default, PartialEq, Clone)]
struct Hidden(Vec<u8>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stamp {
    File {
        len: u64,
        modified: Option<SystemTime>,
        /// Change time, inode and device on Unix; creation time elsewhere.
        identity: (i64, i64, u64, u64),
    },
    /// A pipe, by its identity alone: its times change with each use.
    Pipe(pipes::Identity),
}

impl Stamp {
    /// Returns the time within which two writes may have the same stamp.
    fn granularity(&self) -> Duration {
        const EXFAT_NS: u32 = 10_000_000;
        let Self::File { modified, .. } = self else {
            return Duration::ZERO;
        };
        let modified = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        if modified.is_some_and(|time| time.subsec_nanos() % EXFAT_NS != 0) {
            FINE_STAMP
        } else {
            COARSE_STAMP
        }
    }

    fn of(file: &Metadata) -> Self {
        if !file.is_file() && !file.is_dir() {
            return Self::Pipe(pipes::identity(file));
        }
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            (file.ctime(), file.ctime_nsec(), file.ino(), file.dev())
        };
        #[cfg(not(unix))]
        let identity = {
            let created = file.created().ok();
            let since = created.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
            (0, 0, since.map_or(0, |d| d.as_nanos() as u64), 0)
        };
        Self::File { len: file.len(), modified: file.modified().ok(), identity }
    }
}

impl FileState {
    pub(super) fn now(stamp: Option<Stamp>, bytes: Vec<u8>) -> Self {
        Self {
            stamp,
            bytes: Hidden(bytes),
            first_seen: Some(Instant::now()),
            believed: AtomicBool::new(false),
        }
    }

    pub(super) fn again(&self) -> Self {
        Self {
            stamp: self.stamp,
            bytes: self.bytes.clone(),
            first_seen: self.first_seen,
            believed: AtomicBool::new(self.believed.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes.0
    }

    /// Returns whether the file is still the one that was read.
    pub(super) fn still_is(&self, path: &Path) -> bool {
        let stamp = fs::metadata(path).ok().map(|file| Stamp::of(&file));
        if stamp != self.stamp {
            return false;
        }
        let Some(stamp) = stamp.filter(|stamp| matches!(stamp, Stamp::File { .. })) else {
            return true; // a pipe is read once
        };
        if self.believed.load(Ordering::Relaxed) {
            return true;
        }
        let old_enough = self.first_seen.is_some_and(|since| since.elapsed() > stamp.granularity());
        let Some((bytes, stamp_after)) = read_file(path) else {
            return true;
        };
        let same = bytes == self.bytes.0 && stamp_after == self.stamp;
        if same && old_enough {
            self.believed.store(true, Ordering::Relaxed);
        }
        same
    }
}

/// Returns the file's bytes (none if it is missing or can't be read) and the stamp that it had before they were read.
/// `None` if nothing can be said: too many files are open, or it is a pipe that nobody has written to yet.
pub(super) fn read_file(path: &Path) -> Option<(Vec<u8>, Option<Stamp>)> {
    let stamp = fs::metadata(path).ok().map(|file| Stamp::of(&file));
    match pipes::read(path) {
        Ok(Contents::NotYet) => None,
        Ok(Contents::Bytes(bytes)) => Some((bytes, stamp)),
        Err(error) if is_about_descriptors(&error) => None,
        Err(_) => Some((Vec::new(), stamp)),
    }
}
