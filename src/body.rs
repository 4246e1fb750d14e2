//! Reads whole bodies: memory grows with what arrives, not with what was announced.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How much memory a body without an announced length gets at first.
const FIRST_BYTES: usize = 8 * 1024;
/// How much memory a body with an announced length gets at most before anything has arrived.
const MAX_FIRST_BYTES: usize = 64 * 1024;

/// Reads a body from `read`, to its end or until it has more than `limit` bytes. Returns whether the end was reached.
///
/// What was in `body` before is lost. `read` is called as [`std::io::Read::read`] is: 0 is the end. What was read
/// before an error is kept.
pub fn read_whole<E>(
    body: &mut Vec<u8>,
    announced: Option<usize>,
    limit: usize,
    read: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<bool, E> {
    read_on(body, 0, announced, limit, read)
}

/// Like [`read_whole`], but goes on behind what was read before: the first `filled` bytes of `body`.
pub fn read_on<E>(
    body: &mut Vec<u8>,
    mut filled: usize,
    announced: Option<usize>,
    limit: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<bool, E> {
    // One byte more than there should be, so that the end is found without growing once more.
    let most = announced.map_or(limit, |announced| announced.min(limit)).saturating_add(1);
    let mut step = announced.map_or(FIRST_BYTES, |_| MAX_FIRST_BYTES);
    let ended = loop {
        if filled > limit {
            break Ok(false);
        }
        if filled == body.len() {
            // Growing by more than what is still to come would touch memory that stays empty; so would doubling a large
            // body that goes on with a few bytes.
            let size = filled.saturating_add(step).min(most).max(filled + 1);
            step = step.saturating_mul(2);
            body.reserve_exact(size - filled);
            body.resize(size, 0);
        }
        let end = body.len().min(limit.saturating_add(1));
        match read(&mut body[filled..end]) {
            Ok(0) => break Ok(true),
            Ok(read) => filled += read,
            Err(error) => break Err(error),
        }
    };
    body.truncate(filled);
    ended
}

/// Smaller buffers cost less to allocate than to keep.
const WORTH_KEEPING_BYTES: usize = 1 << 20;
/// How long a large buffer is kept for the next request.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// The buffer of the last large request, for the next one: a conversation with images in it is sent again and again,
/// and half of the cost of forwarding 20 MB is getting that much memory from the system.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Option<(Instant, Vec<u8>)>>);

impl Spare {
    /// Takes the buffer, or an empty one if there is none.
    pub fn take(&self) -> Vec<u8> {
        self.lock().take().map(|(_, buffer)| buffer).unwrap_or_default()
    }

    /// Keeps a buffer that isn't needed any more.
    pub fn keep(&self, buffer: Vec<u8>) {
        if buffer.capacity() >= WORTH_KEEPING_BYTES {
            let other = self.lock().replace((Instant::now(), buffer));
            drop(other); // giving memory back takes a while, and the lock is free by now
        }
    }

    /// Gives the buffer back to the system if no request has taken it for a while.
    pub fn forget_old(&self) {
        let old = self.lock().take_if(|(since, _)| since.elapsed() > KEPT_FOR);
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Vec<u8>)>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn read(length: usize, announced: Option<usize>, limit: usize) -> (Vec<u8>, bool) {
        let sent = (0..length).map(|n| n as u8).collect::<Vec<_>>();
        let mut body = Vec::new();
        let mut rest = &sent[..];
        let ended = read_whole(&mut body, announced, limit, |buffer| {
            let most = buffer.len().min(1000);
            rest.read(&mut buffer[..most])
        });
        (body, ended.unwrap())
    }

    #[test]
    fn all_of_it_or_a_little_more_than_the_limit() {
        for length in [0, 1, 1000, FIRST_BYTES, FIRST_BYTES + 1, 100_000] {
            for announced in [None, Some(length), Some(10), Some(usize::MAX)] {
                let (body, ended) = read(length, announced, 100_000);
                assert!(ended && body.len() == length, "{length} of {announced:?}");
                assert!(body.iter().enumerate().all(|(n, byte)| *byte == n as u8));
            }
        }
        assert!(!read(100_001, None, 100_000).1);
        assert!(!read(100_001, Some(5), 100_000).1);
    }

    #[test]
    fn memory_follows_what_arrives() {
        let mut body = Vec::new();
        let announced = Some(usize::MAX);
        assert_eq!(read_whole(&mut body, announced, usize::MAX, |_| Ok::<_, ()>(0)), Ok(true));
        assert!(body.capacity() <= MAX_FIRST_BYTES);
        const REST: usize = MAX_FIRST_BYTES - 10;
        let mut sizes = [MAX_FIRST_BYTES, REST].into_iter();
        let read = |buffer: &mut [u8]| Ok::<_, ()>(sizes.next().unwrap_or(0).min(buffer.len()));
        let announced = MAX_FIRST_BYTES + REST;
        assert_eq!(read_whole(&mut body, Some(announced), usize::MAX, read), Ok(true));
        assert!(body.len() == announced && body.capacity() == announced + 1);
    }

    /// Otherwise each read would touch as much memory again as the body has.
    #[test]
    fn a_large_body_goes_on_with_a_few_bytes() {
        const FILLED: usize = 10 << 20;
        let mut body = vec![1; FILLED];
        let mut reads = [Ok(1), Err("later")].into_iter();
        let read = |_: &mut [u8]| reads.next().unwrap();
        assert_eq!(read_on(&mut body, FILLED, Some(8 * FILLED), usize::MAX, read), Err("later"));
        assert!(body.len() == FILLED + 1 && body.capacity() <= FILLED + MAX_FIRST_BYTES);
    }

    #[test]
    fn a_large_buffer_serves_again() {
        let spare = Spare::default();
        spare.keep(vec![1; 10]);
        assert_eq!(spare.take().capacity(), 0, "not worth it");
        spare.keep(vec![1; WORTH_KEEPING_BYTES]);
        spare.forget_old();
        let mut body = spare.take();
        assert!(body.capacity() >= WORTH_KEEPING_BYTES && spare.take().capacity() == 0);
        let mut rest = &b"short"[..];
        assert_eq!(read_whole(&mut body, None, 100, |buffer| rest.read(buffer).map_err(drop)), Ok(true));
        assert_eq!(body, b"short");
        let mut rest = &[2; 200][..];
        body = vec![1; WORTH_KEEPING_BYTES];
        assert_eq!(read_whole(&mut body, None, 100, |buffer| rest.read(buffer).map_err(drop)), Ok(false));
        assert_eq!(body.len(), 101);
    }

    #[test]
    fn what_came_before_an_error_stays() {
        let mut body = Vec::new();
        let mut reads = [Ok(3), Err("broken")].into_iter();
        assert_eq!(read_whole(&mut body, None, 100, |_| reads.next().unwrap()), Err("broken"));
        assert_eq!(body.len(), 3);
    }
}
