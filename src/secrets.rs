//! The secrets that must not be shown: no key is ever on the console, in a file or in the panel, whoever wrote it. An
//! upstream may quote the key that it refuses; people paste one where a model's name belongs.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::RwLock;

use memchr::{memchr, memmem};

use crate::sync::unpoisoned;

/// Shorter secrets may be words that stand in any text.
const MIN_BYTES: usize = 8;
/// How many earlier secrets are hidden: calls that began with an earlier key may still be shown.
const MAX_EARLIER: usize = 32;
/// How many characters at the end of a secret stay visible.
const SHOWN_CHARACTERS: usize = 4;

struct Known {
    /// All secrets in force, however many they are.
    in_force: Vec<String>,
    /// Secrets that were in force before, the latest at the end.
    earlier: VecDeque<String>,
}

static KNOWN: RwLock<Known> = RwLock::new(Known { in_force: Vec::new(), earlier: VecDeque::new() });

/// Puts these secrets in force; those of before are hidden for a while longer.
pub fn replace<'a>(secrets: impl IntoIterator<Item = &'a str>) {
    let secrets = secrets.into_iter().filter(|secret| secret.len() >= MIN_BYTES).map(str::to_owned);
    let mut known = unpoisoned(KNOWN.write());
    let before = std::mem::replace(&mut known.in_force, secrets.collect());
    for secret in before {
        known.remember(secret);
    }
}

/// Hides a secret that isn't in force (yet).
pub fn know(secret: &str) {
    if secret.len() >= MIN_BYTES {
        unpoisoned(KNOWN.write()).remember(secret.to_owned());
    }
}

impl Known {
    fn remember(&mut self, secret: String) {
        if self.in_force.contains(&secret) {
            return;
        }
        self.earlier.retain(|other| *other != secret);
        self.earlier.push_back(secret);
        if self.earlier.len() > MAX_EARLIER {
            self.earlier.pop_front();
        }
    }

    fn iter(&self) -> impl Iterator<Item = &String> {
        self.in_force.iter().chain(&self.earlier)
    }
}

/// Returns the text with `...abcd` in place of each secret, even if some of its characters are written as JSON escapes.
pub fn hidden(text: &str) -> Cow<'_, str> {
    let known = unpoisoned(KNOWN.read());
    let mut shown = Cow::Borrowed(text);
    for secret in known.iter() {
        if memmem::find(shown.as_bytes(), secret.as_bytes()).is_some() {
            shown = Cow::Owned(shown.replace(secret, &masked(secret)));
        }
    }
    let escapes = [r"\u00", r"\/", r#"\""#].iter().any(|escape| shown.contains(escape));
    if escapes {
        let plain = Unescaped::of(&shown);
        let mut places = known.iter().flat_map(|secret| plain.places(secret)).collect::<Vec<_>>();
        if !places.is_empty() {
            places.sort_by_key(|(place, _)| place.start);
            shown = Cow::Owned(with_masks(&shown, &places));
        }
    }
    shown
}

fn with_masks(text: &str, places: &[(Range<usize>, String)]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut end = 0;
    for (place, mask) in places {
        if place.start >= end {
            masked.push_str(text.get(end..place.start).unwrap_or_default());
            masked.push_str(mask);
            end = place.end;
        }
    }
    masked.push_str(text.get(end..).unwrap_or_default());
    masked
}

/// A text in which escapes of visible ASCII are resolved, however often they are escaped themselves (JSON in a string
/// of JSON).
struct Unescaped {
    bytes: Vec<u8>,
    /// Where resolving an escape made the text shorter: the end of the escape in `bytes`, and in the text.
    shorter: Vec<(usize, usize)>,
}

impl Unescaped {
    fn of(text: &str) -> Self {
        let text = text.as_bytes();
        let mut plain = Self { bytes: Vec::with_capacity(text.len()), shorter: Vec::new() };
        let mut at = 0;
        while let Some(before) = memchr(b'\\', &text[at..]) {
            plain.bytes.extend_from_slice(&text[at..at + before]);
            at += before;
            let run = text[at..].iter().take_while(|byte| **byte == b'\\').count();
            let (stands_for, length) = match text.get(at + run) {
                Some(b'u') => match hex(text.get(at + run + 1..at + run + 5)) {
                    Some(byte) if byte.is_ascii_graphic() => (byte, run + 5),
                    _ => (b'\\', run),
                },
                Some(byte @ (b'/' | b'"')) => (*byte, run + 1),
                _ => (b'\\', run),
            };
            plain.bytes.push(stands_for);
            at += length;
            if length > 1 {
                plain.shorter.push((plain.bytes.len(), at));
            }
        }
        plain.bytes.extend_from_slice(&text[at..]);
        plain
    }

    /// Returns where a secret stands in the text, and what is shown there.
    fn places<'a>(&'a self, secret: &'a str) -> impl Iterator<Item = (Range<usize>, String)> + 'a {
        let found = memmem::find_iter(&self.bytes, secret.as_bytes());
        found.map(move |start| (self.place(start)..self.place(start + secret.len()), masked(secret)))
    }

    /// Returns the position in the text of a byte of `bytes`.
    fn place(&self, at: usize) -> usize {
        match self.shorter.partition_point(|(end, _)| *end <= at).checked_sub(1) {
            Some(last) => self.shorter[last].1 + (at - self.shorter[last].0),
            None => at,
        }
    }
}

fn hex(digits: Option<&[u8]>) -> Option<u8> {
    let digits = std::str::from_utf8(digits?).ok()?;
    u8::from_str_radix(digits.strip_prefix("00")?, 16).ok()
}

/// Returns `...abcd`: the last 4 characters, but none of a short secret, nor any that would end a JSON string.
pub fn masked(secret: &str) -> String {
    match secret.char_indices().rev().nth(SHOWN_CHARACTERS - 1) {
        Some((at, _)) if secret.len() >= 3 * SHOWN_CHARACTERS && !secret[at..].contains(['"', '\\']) => {
            format!("...{}", &secret[at..])
        }
        _ => "...".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        replace(["sk-or-v1-secrets/test-wxyz", "short", "with\"quote\\and-more"]);
        assert_eq!(hidden("no: sk-or-v1-secrets/test-wxyz!"), "no: ...wxyz!");
        assert!(matches!(hidden("a short word"), Cow::Borrowed("a short word")));
        for written in [
            r"sk-or-v1-secrets\/test-wxyz",
            r"\u0073k-or-v1-secrets/test-wxyz",
            r"sk-or-v1-secrets\u002ftest-wxy\u007A",
            r"sk-or-v1-secrets\\\/test-wxyz",
            r"sk-or-v1-s\\u0065crets\/test-wxyz",
        ] {
            assert_eq!(hidden(&format!(r#"{{"a\/b\u00e9":"{written}"}}"#)), r#"{"a\/b\u00e9":"...wxyz"}"#);
            let twice = format!("{written} \\/ {written}");
            assert_eq!(hidden(&twice), "...wxyz \\/ ...wxyz");
        }
        assert_eq!(hidden(r#"{"a":"with\"quote\\and-more\/"}"#), r#"{"a":"...more\/"}"#);
        let harmless = r#"{"a":"\u00e9\/\\\"x"}"#;
        assert!(matches!(hidden(harmless), Cow::Borrowed(_)));
        // Secrets in force stay hidden, however many others come after them.
        for number in 0..100 {
            know(&format!("another-secret-{number}"));
        }
        assert_eq!(hidden("sk-or-v1-secrets/test-wxyz another-secret-99"), "...wxyz ...t-99");
        replace(["another-one-altogether"]);
        assert_eq!(hidden("sk-or-v1-secrets/test-wxyz"), "...wxyz", "of calls that began with it");
    }
}
