//! Reads files for threads that wait for them, on a thread of its own, so that a disk that hangs (a network share, a
//! stick that was pulled out) holds up that thread and nobody else; and never more of a file than is good for memory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

/// How long callers wait for the disk.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How many readings may wait for the one before them.
const MAX_WAITING: usize = 16;

type Reading = Box<dyn FnOnce() + Send>;

/// Returns the result of `reading`, within `patience`; `None` if the disk hangs, or too many readings wait.
pub(super) fn read<T: Send + 'static>(
    patience: Duration,
    reading: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    static READER: OnceLock<Option<Sender<Reading>>> = OnceLock::new();
    let reader = READER.get_or_init(|| {
        let (readings, receiver) = bounded::<Reading>(MAX_WAITING);
        let run = move || receiver.iter().for_each(|reading| reading());
        thread::Builder::new().name("reader".into()).spawn(run).ok().map(|_| readings)
    });
    let (done, read) = bounded(1);
    let reading = Box::new(move || drop(done.send(reading())));
    reader.as_ref()?.try_send(reading).ok()?;
    read.recv_timeout(patience).ok()
}

/// Reads a whole file of at most `limit` bytes. A larger one, a pipe or a device is an error.
pub(super) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
