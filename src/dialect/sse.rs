//! Server-sent events as they arrive: any number of bytes at a time, any of the three line ends.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>

/// The most data of one event that is kept: only images are longer, and nothing is decided by them.
const MAX_DATA_BYTES: usize = 16 << 20;
/// The most of a stream that is held back until an event says something.
const MAX_HELD_BYTES: usize = 1 << 20;
/// A mark that may stand before the first line, without a meaning.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A buffer that has grown beyond this is freed before the next event.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// A parser that puts events together.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Whether a field has come since the last blank line.
    in_event: bool,
    too_long: bool,
    after_cr: bool,
    /// Whether a line has come.
    begun: bool,
}

/// The kind of a part of the stream.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Part {
    /// A line that goes on, or the rest of a line end that was already recognized.
    Unfinished,
    /// A comment.
    Nothing,
    /// A field of an event that isn't complete yet.
    Field,
    /// The blank line after an event without data, or after nothing.
    NoData,
    /// The blank line after an event with data.
    Event,
}

impl Events {
    /// Takes what has arrived and calls `on_event` with the data of each event that it completes. Data that is not
    /// UTF-8 or too long is `None`.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(Option<&str>)) {
        while !bytes.is_empty() {
            let between_events = self.line.is_empty() && !self.in_event && !self.after_cr;
            if between_events && let Some((data, rest)) = split_event(bytes) {
                on_event(std::str::from_utf8(data).ok());
                self.begun = true;
                bytes = rest;
                continue;
            }
            let (taken, part) = self.take_line(bytes);
            bytes = &bytes[taken..];
            if part == Part::Event {
                on_event(self.event());
            }
        }
    }

    /// Returns the data of the event that has just been completed.
    fn event(&mut self) -> Option<&str> {
        if self.too_long { None } else { std::str::from_utf8(&self.data).ok() }
    }

    /// Returns what must be sent before another event can follow: an unfinished line or event would swallow it.
    pub fn separator(&self) -> &'static str {
        match (self.line.is_empty(), self.in_event) {
            (false, _) => "\n\n",
            (true, true) => "\n",
            (true, false) => "",
        }
    }

    /// Ends the stream: an incomplete last event counts as it is, as nothing more will come.
    pub fn finish(&mut self, on_event: impl FnOnce(Option<&str>)) {
        if !self.line.is_empty() {
            let _ = self.end_line();
            self.line.clear();
        }
        if std::mem::take(&mut self.has_data) {
            on_event(self.event());
        }
    }

    /// Takes bytes up to the end of a line, if there is one.
    fn take_line(&mut self, bytes: &[u8]) -> (usize, Part) {
        if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
            return (1, Part::Unfinished);
        }
        if self.line.is_empty() && !self.has_data {
            self.reset_data();
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
            self.extend_line(bytes);
            return (bytes.len(), Part::Unfinished);
        };
        self.extend_line(&bytes[..end]);
        self.after_cr = bytes[end] == b'\r';
        let part = self.end_line();
        self.line.clear();
        (end + 1, part)
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        let room = MAX_DATA_BYTES - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.too_long |= bytes.len() > room;
    }

    fn end_line(&mut self) -> Part {
        if !std::mem::replace(&mut self.begun, true) && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.is_empty() {
            self.in_event = false;
            return if std::mem::take(&mut self.has_data) { Part::Event } else { Part::NoData };
        }
        if self.line[0] == b':' {
            return Part::Nothing;
        }
        self.in_event = true;
        let value = match self.line.strip_prefix(b"data") {
            Some([]) => Some(&[][..]),
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => Some(value),
            _ => None,
        };
        if let Some(value) = value {
            if !self.has_data {
                self.data.clear();
            } else {
                self.data.push(b'\n');
            }
            self.has_data = true;
            if self.data.len() + value.len() <= MAX_DATA_BYTES {
                self.data.extend_from_slice(value)
            } else {
                self.too_long = true
            }
        }
        Part::Field
    }

    fn reset_data(&mut self) {
        self.too_long = false;
        if self.data.capacity() > KEPT_BUFFER_BYTES || self.line.capacity() > KEPT_BUFFER_BYTES {
            self.data = Vec::new();
            self.line = Vec::new();
        }
    }
}

/// Returns the data of an event that stands complete in one line at the beginning of `bytes`, and the bytes after it.
/// Nearly all events do, and nothing of them needs to be copied.
fn split_event(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = bytes.strip_prefix(b"data: ")?;
    let (data, end) = line.split_at(memchr::memchr2(b'\n', b'\r', line)?);
    Some((data, end.strip_prefix(b"\n\n")?))
}

/// The beginning of a stream, up to the end of the first event that says something: comments are passed on at once, the
/// rest is held until it is known whether it is worth having.
#[derive(Debug, Default)]
pub struct Prelude {
    events: Events,
    held: Vec<u8>,
    /// Whether a complete event with data is held.
    holds_event: bool,
    /// Whether the last line was passed on; then the rest of its line end is passed on, too.
    last_went_on: bool,
    /// How many bytes of a byte order mark have come. The mark is dropped: nobody needs it, and it must not follow
    /// a comment.
    mark_bytes: usize,
    /// Whether the mark is over, or there is none.
    is_past_mark: bool,
}

impl Prelude {
    /// Takes what has arrived. Appends to `pass` what may be passed on at once; `says` tells of each event whether it
    /// says something. If one does, or if too much is held, returns how many bytes were taken: the rest is for
    /// [`Prelude::into_parts`].
    pub fn feed(
        &mut self,
        bytes: &[u8],
        pass: &mut Vec<u8>,
        mut says: impl FnMut(Option<&str>) -> bool,
    ) -> Option<usize> {
        let mut rest = bytes;
        while !self.is_past_mark && !rest.is_empty() {
            self.is_past_mark = BYTE_ORDER_MARK.get(self.mark_bytes) != rest.first();
            if !self.is_past_mark {
                self.mark_bytes += 1;
                rest = &rest[1..];
            } else if self.mark_bytes < BYTE_ORDER_MARK.len() {
                let only_begun = &BYTE_ORDER_MARK[..self.mark_bytes]; // it was no mark
                self.events.extend_line(only_begun);
                self.held.extend_from_slice(only_begun);
            }
        }
        while !rest.is_empty() {
            let was_in_event = self.events.in_event;
            let (taken, part) = self.events.take_line(rest);
            let (piece, after) = rest.split_at(taken);
            rest = after;
            let in_comment = self.events.line.first() == Some(&b':');
            let goes_on = match part {
                Part::Unfinished if self.events.line.is_empty() => self.last_went_on,
                Part::Unfinished => in_comment,
                Part::Nothing => true,
                Part::NoData => !was_in_event,
                Part::Field | Part::Event => false,
            };
            self.last_went_on = goes_on;
            if goes_on {
                pass.extend_from_slice(piece);
                continue;
            }
            self.held.extend_from_slice(piece);
            if part == Part::NoData && !self.holds_event {
                pass.append(&mut self.held); // an event without data says nothing
            }
            let said = part == Part::Event && says(self.events.event());
            self.holds_event |= part == Part::Event;
            if said || self.held.len() > MAX_HELD_BYTES {
                return Some(bytes.len() - rest.len());
            }
        }
        None
    }

    /// Ends the stream; `says` gets its last event if that is incomplete.
    pub fn finish(&mut self, says: impl FnOnce(Option<&str>)) {
        self.events.finish(says);
    }

    /// Returns what was held back, to be passed on, and the parser for the rest.
    pub fn into_parts(self) -> (Vec<u8>, Events) {
        (self.held, self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": OPENROUTER PROCESSING\n\nevent: x\r\ndata: {\"a\":\r\ndata:1}\r\n\r\n: c\rdata\rid: 1\r\r\ndata: [DONE]\n\ndata: cut";

    #[test]
    fn any_cut_gives_the_same_events() {
        for size in [1, 2, 3, 7, 1000] {
            let mut events = Events::default();
            let mut seen = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                events.feed(piece, |data| seen.push(data.unwrap().to_owned()));
            }
            assert_eq!(seen, ["{\"a\":\n1}", "", "[DONE]"], "{size} at a time");
            assert_eq!(events.separator(), "\n\n");
        }
    }

    #[test]
    fn data_that_is_no_text_or_too_long_is_not_shown() {
        let mut events = Events::default();
        let mut seen = Vec::new();
        let long = format!("data: {}\n\n", "x".repeat(MAX_DATA_BYTES));
        let pieces = long.as_bytes().chunks(64 * 1024);
        for piece in [b"data: \xFF\n\n".as_slice()].into_iter().chain(pieces).chain([&b"data: ok\n\n"[..]]) {
            events.feed(piece, |data| seen.push(data.map(str::to_owned)));
        }
        assert_eq!(seen, [None, None, Some("ok".to_owned())]);
    }

    fn fed(stream: &str, size: usize, says: &str) -> (String, String, usize) {
        let (mut prelude, mut pass, mut fed) = (Prelude::default(), Vec::new(), 0);
        for piece in stream.as_bytes().chunks(size) {
            let taken = prelude.feed(piece, &mut pass, |data| data.is_some_and(|data| data == says));
            fed += taken.unwrap_or(piece.len());
            if taken.is_some() {
                break;
            }
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(pass), text(prelude.into_parts().0), fed)
    }

    #[test]
    fn comments_pass_and_events_are_held_up_to_the_first_that_says_something() {
        for size in [1, 2, 5, 1000] {
            let stream = ": one\n\n: two\r\n\r\nretry: 1\n\nid: 7\ndata: first\n\n: three\r\n\r\nevent: x\ndata: second\n\ndata: next";
            let (pass, held, fed) = fed(stream, size, "second");
            assert_eq!(pass, ": one\n\n: two\r\n\r\nretry: 1\n\n: three\r\n\r\n", "{size} at a time");
            assert_eq!(held, "id: 7\ndata: first\n\nevent: x\ndata: second\n\n");
            assert_eq!(pass.len() + held.len(), fed);
        }
    }

    #[test]
    fn a_mark_before_everything_goes() {
        for size in [1, 2, 3, 4, 1000] {
            let (pass, held, _) = fed("\u{FEFF}: one\n\ndata: first\n\n", size, "first");
            assert_eq!((pass.as_str(), held.as_str()), (": one\n\n", "data: first\n\n"), "{size} at a time");
            let (_, held, _) = fed("\u{FF01}x\ndata: first\n\n", size, "first");
            assert_eq!(held, "\u{FF01}x\ndata: first\n\n", "what only begins like one is none");
        }
    }

    #[test]
    fn a_comment_is_handed_on_before_its_end() {
        let (pass, held, _) = fed("data: held\n\n: OPENR", 3, "");
        assert_eq!((pass.as_str(), held.as_str()), (": OPENR", "data: held\n\n"));
    }

    #[test]
    fn the_last_event_counts_however_it_ends() {
        for (end, separator) in [("", "\n\n"), ("\n", "\n"), ("\r\n", "\n"), ("\n\n", "")] {
            let mut events = Events::default();
            let mut seen = Vec::new();
            events.feed(format!("data: a\n\ndata: [DONE]{end}").as_bytes(), |data| {
                seen.push(data.unwrap().to_owned());
            });
            assert_eq!(events.separator(), separator, "{end:?}");
            events.finish(|data| seen.push(data.unwrap().to_owned()));
            assert_eq!(seen, ["a", "[DONE]"], "{end:?}");
        }
    }
}
