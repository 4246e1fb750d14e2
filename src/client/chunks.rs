//! A chunked body as it arrives, any number of bytes at a time:
//! [RFC 9112, 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1). Extensions and trailers are read over.

use super::head::is_token;

/// A size line, or all trailers, of more than this are nobody's.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Takes the body out of its chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Digits and extensions of the present line, or all trailers, so far.
    line_bytes: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Digits of a size.
    Size(u64),
    /// Blanks before an extension.
    Blank(u64),
    /// An extension, up to the end of its line.
    Extension(u64),
    /// The line feed behind a size.
    SizeEnd(u64),
    /// Data, of which so much is still to come.
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a size line.
    #[default]
    Start,
    TrailerStart,
    /// A trailer's name.
    TrailerName,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

/// What isn't chunked as it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl Chunks {
    /// Takes what has arrived, appends what of it is the body's, and says how much was taken; all, unless the body's end
    /// is in it.
    pub fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if let State::Data(left) = self.state {
                let piece =
                    bytes.len().min(at + usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
                body.extend_from_slice(&bytes[at..piece]);
                let left = left - (piece - at) as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                at = piece;
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// What is still to come of the present chunk, in bytes.
    pub fn announced(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Whether the last chunk and the trailers are through.
    pub fn is_whole(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, byte: u8) -> Result<State, Broken> {
        use State::*;
        let in_a_line = |b: u8| b == b'\t' || !b.is_ascii_control();
        self.line_bytes += 1;
        if self.line_bytes > MAX_LINE_BYTES {
            return Err(Broken);
        }
        let after_size = |size: u64| match size {
            0 => TrailerStart,
            size => Data(size),
        };
        Ok(match (self.state, byte) {
            (Start, _) => {
                self.line_bytes = 1;
                digit(0, byte)?
            }
            (Size(size) | Blank(size), b';') => Extension(size),
            (Size(size) | Blank(size), b' ' | b'\t') => Blank(size),
            (Size(size) | Extension(size), b'\r') => SizeEnd(size),
            (Size(size), byte) => digit(size, byte)?,
            (Extension(size), byte) if in_a_line(byte) => Extension(size),
            (SizeEnd(size), b'\n') => {
                self.line_bytes = 0;
                after_size(size)
            }
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Start,
            (TrailerStart, b'\r') => LastLf,
            (TrailerStart | TrailerName, byte) if is_token(byte) => TrailerName,
            (TrailerName, b':') => Trailer,
            (Trailer, byte) if in_a_line(byte) => Trailer,
            (Trailer, b'\r') => TrailerLf,
            (TrailerLf, b'\n') => TrailerStart,
            (LastLf, b'\n') => End,
            _ => return Err(Broken),
        })
    }
}

fn digit(so_far: u64, byte: u8) -> Result<State, Broken> {
    let digit = (byte as char).to_digit(16).ok_or(Broken)?;
    Ok(State::Size(so_far.checked_mul(16).ok_or(Broken)? + u64::from(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), Broken> {
        let (mut chunks, mut body, mut taken) = (Chunks::default(), Vec::new(), 0);
        for piece in bytes.chunks(size) {
            taken += chunks.feed(piece, &mut body)?;
            if chunks.is_whole() {
                break;
            }
        }
        Ok((body, taken, chunks.is_whole()))
    }

    #[test]
    fn extensions_and_trailers_are_read_over() {
        let sent = b"3;a=\"b\"\r\nabc\r\n00A ;\r\n0123456789\r\n0;x\r\nTrailer: y\r\nOther:\r\n\r\nnext";
        for size in [1, 2, 5, 1000] {
            let (body, taken, whole) = decode(sent, size).unwrap();
            assert_eq!(body, b"abc0123456789");
            assert!(whole && taken == sent.len() - 4, "{size} at a time");
        }
        assert_eq!(decode(b"3\r\nab", 1), Ok((b"ab".to_vec(), 5, false)));
    }

    #[test]
    fn what_is_not_a_chunk_is_refused() {
        for broken in [
            "\r\n",
            "zz\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\nab",
            "1\r\nab\r\n",
            "1\r\na\n",
            "10000000000000000\r\n",
            " 1\r\n",
            "1 \r\n",
            "1;\n",
            "0\r\nA\nB: c\r\n\r\n",
            "0\r\nno trailer\r\n\r\n",
            "1;\0\r\n",
        ] {
            assert_eq!(decode(broken.as_bytes(), 1000), Err(Broken), "{broken:?}");
            assert_eq!(decode(broken.as_bytes(), 1), Err(Broken), "{broken:?}");
        }
        assert_eq!(decode(&[b"1;", &[b'x'; 20_000][..]].concat(), 1000), Err(Broken));
    }
}
