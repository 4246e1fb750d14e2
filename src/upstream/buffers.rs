//! The buffers of a connection to the upstream: small while little goes through them, larger for large transfers.
//! Hundreds of streams then take a quarter of the memory, and a body with images a tenth of the system calls.

use ureq::unversioned::transport::Buffers;

/// The initial size: it holds some events of a stream, and most heads.
const SMALL_BYTES: usize = 1024;
/// The maximum size: larger pieces would save nothing more.
const LARGE_BYTES: usize = 256 * 1024;

/// Buffers for both directions.
#[derive(Debug, Default)]
pub struct GrowingBuffers {
    input: Vec<u8>,
    /// The bytes that have been received and not consumed lie between `consumed` and `filled`.
    consumed: usize,
    filled: usize,
    /// Whether something was consumed since the last input: what is left may be enough for another step.
    progress: bool,
    /// Empty unless something is being sent.
    output: Vec<u8>,
}

impl GrowingBuffers {
    /// Grows the output buffer; called when a full one has been sent.
    pub fn output_was_full(&mut self) {
        grow(&mut self.output);
    }

    /// Gives back the memory that only a large answer needed.
    pub fn shrink(&mut self) {
        if self.input.len() > SMALL_BYTES && self.consumed == self.filled {
            self.input = Vec::new();
            (self.consumed, self.filled) = (0, 0);
        }
    }
}

fn grow(buffer: &mut Vec<u8>) {
    let size = (buffer.len() * 2).clamp(SMALL_BYTES, LARGE_BYTES);
    buffer.resize(size.max(buffer.len()), 0);
}

impl Buffers for GrowingBuffers {
    fn output(&mut self) -> &mut [u8] {
        if self.output.is_empty() {
            grow(&mut self.output);
        }
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        // The request has been sent, and hundreds of connections may wait for their answers at once.
        self.output = Vec::new();
        self.input.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
        if self.filled == self.input.len() {
            grow(&mut self.input);
        }
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled += amount;
        // The buffer is full, so more is probably coming.
        if self.filled == self.input.len() {
            grow(&mut self.input);
        }
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.consumed += amount;
        debug_assert!(self.consumed <= self.filled);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        if self.output.is_empty() {
            grow(&mut self.output);
        }
        if self.filled == self.input.len() {
            grow(&mut self.input);
        }
        (&mut self.input[self.filled..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.filled > self.consumed && self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_with_what_comes_and_lose_none_of_it() {
        let mut buffers = GrowingBuffers::default();
        let sent = (0..100_000_u32).flat_map(u32::to_ne_bytes).collect::<Vec<_>>();
        let (mut rest, mut received) = (&sent[..], Vec::new());
        while received.len() < sent.len() {
            let space = buffers.input_append_buf();
            let amount = space.len().min(rest.len());
            space[..amount].copy_from_slice(&rest[..amount]);
            rest = &rest[amount..];
            buffers.input_appended(amount);
            let used = buffers.input().len().min(3000);
            received.extend_from_slice(&buffers.input()[..used]);
            buffers.input_consume(used);
        }
        assert!(received == sent);
        assert!(buffers.input.len() > SMALL_BYTES);
        buffers.shrink();
        assert!(buffers.input.is_empty());
        assert_eq!(buffers.output().len(), SMALL_BYTES);
        buffers.output_was_full();
        assert_eq!(buffers.output().len(), 2 * SMALL_BYTES);
    }
}
