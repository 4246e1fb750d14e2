//! Decodes a chunked body as it arrives, any number of bytes at a time:
//! [RFC 9112, 7.1](https://www.rfc-editor.org/rfc/rfc9112#section-7.1). Extensions and trailers are skipped.

use super::head::is_token;

/// Maximum length of a size line, of all extensions of a body, and of all its trailers: nobody needs more.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// The decoder of a chunked body.
#[derive(Debug, Default)]
pub struct Chunks {
    next: Part,
    /// Bytes of all extensions so far.
    extension_bytes: usize,
}

/// The part that comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The size of a chunk.
    #[default]
    Size,
    /// This many bytes of the chunk, and then the end of its line.
    Data(u64),
    /// A trailer or the blank line, after this many bytes of trailers.
    Trailer(usize),
    /// Nothing: what follows isn't part of the body.
    End,
}

/// The error for a body that isn't chunked as it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidChunk;

impl Chunks {
    /// Decodes what it can of `bytes`, appends the data to `body`, and returns how many bytes it has used. The rest is
    /// the beginning of a line, to be passed again together with more, or comes after the body.
    pub fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, InvalidChunk> {
        let mut rest = bytes;
        while let (Some(first), false) = (rest.first(), self.is_whole()) {
            if let Part::Data(left @ 1..) = &mut self.next {
                let piece = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                body.extend_from_slice(&rest[..piece]);
                rest = &rest[piece..];
                *left -= piece as u64;
                continue;
            }
            // A client that doesn't send chunks is refused at once, not when its line ends.
            let can_begin = match self.next {
                Part::Size => first.is_ascii_hexdigit(),
                Part::Trailer(_) => *first == b'\r' || is_token(*first),
                Part::Data(_) | Part::End => *first == b'\r',
            };
            let line = if can_begin { line(rest)? } else { return Err(InvalidChunk) };
            let Some(line) = line else { break };
            rest = &rest[line.len() + 2..];
            self.next = match self.next {
                Part::Size => {
                    let (size, extension_bytes) = size(line)?;
                    self.extension_bytes += extension_bytes;
                    match size {
                        _ if self.extension_bytes > MAX_LINE_BYTES => return Err(InvalidChunk),
                        0 => Part::Trailer(0),
                        size => Part::Data(size),
                    }
                }
                Part::Trailer(_) if line.is_empty() => Part::End,
                Part::Trailer(before) if before + line.len() <= MAX_LINE_BYTES && is_field(line) => {
                    Part::Trailer(before + line.len())
                }
                Part::Data(_) if line.is_empty() => Part::Size,
                _ => return Err(InvalidChunk),
            };
        }
        Ok(bytes.len() - rest.len())
    }

    /// Returns how many bytes of the current chunk are still to come.
    pub fn announced(&self) -> u64 {
        match self.next {
            Part::Data(left) => left,
            _ => 0,
        }
    }

    /// Returns whether the last chunk and the trailers have been read.
    pub fn is_whole(&self) -> bool {
        self.next == Part::End
    }
}

/// Returns the line that `bytes` begins with, without its CR and LF; `None` as long as it isn't complete.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, InvalidChunk> {
    let end = bytes.iter().position(|b| *b != b'\t' && b.is_ascii_control()).unwrap_or(bytes.len());
    match &bytes[end..] {
        _ if end > MAX_LINE_BYTES => Err(InvalidChunk),
        [b'\r', b'\n', ..] => Ok(Some(&bytes[..end])),
        [] | [b'\r'] => Ok(None),
        _ => Err(InvalidChunk),
    }
}

/// Parses `chunk-size [ chunk-ext ]`: the size, and the length of the extension, which blanks may precede.
fn size(line: &[u8]) -> Result<(u64, usize), InvalidChunk> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    if !extension.is_empty() && !extension.trim_ascii_start().starts_with(b";") {
        return Err(InvalidChunk);
    }
    let digits = str::from_utf8(digits).map_err(|_| InvalidChunk)?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| InvalidChunk)?;
    Ok((size, extension.len()))
}

fn is_field(line: &[u8]) -> bool {
    let name = line.split(|b| *b == b':').next().filter(|name| name.len() < line.len());
    name.is_some_and(|name| !name.is_empty() && name.iter().copied().all(is_token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), InvalidChunk> {
        let (mut chunks, mut body, mut taken, mut peek) = (Chunks::default(), Vec::new(), 0, 0);
        while !chunks.is_whole() && peek < bytes.len() {
            peek = bytes.len().min(peek + size);
            taken += chunks.feed(&bytes[taken..peek], &mut body)?;
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
            assert_eq!(decode(broken.as_bytes(), 1000), Err(InvalidChunk), "{broken:?}");
            assert_eq!(decode(broken.as_bytes(), 1), Err(InvalidChunk), "{broken:?}");
        }
        assert_eq!(decode(&[b"1;", &[b'x'; 20_000][..]].concat(), 1000), Err(InvalidChunk));
        let padded =
            |bytes: usize| decode(&[b"1;", &vec![b'x'; bytes][..], b"\r\na\r\n"].concat().repeat(10), 1000);
        assert_eq!(padded(1000).map(|(body, ..)| body.len()), Ok(10));
        assert_eq!(padded(2000), Err(InvalidChunk), "all together");
    }
}
