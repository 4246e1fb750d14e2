//! Secrets, known to all who show something: no key is ever on the console, in a file or in the panel, whoever says it. An
//! upstream may quote the key that it refuses; people paste one where a model's name belongs.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

/// Shorter ones are words that may stand in any text.
const MIN_BYTES: usize = 8;
/// Calls that began with an earlier key may still be shown.
const MAX_KNOWN: usize = 32;
/// Of what is hidden, the end stays to be seen.
const SHOWN_CHARACTERS: usize = 4;

static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// From now on these are hidden, too.
pub fn know<'a>(secrets: impl IntoIterator<Item = &'a str>) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets {
        if secret.len() >= MIN_BYTES && !known.iter().any(|other| other == secret) {
            known.push(secret.to_owned());
        }
    }
    let too_many = known.len().saturating_sub(MAX_KNOWN);
    known.drain(..too_many);
}

/// The text with `...abcd` in each secret's place.
pub fn hidden(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut shown = Cow::Borrowed(text);
    for secret in known.iter() {
        if memchr::memmem::find(shown.as_bytes(), secret.as_bytes()).is_some() {
            shown = Cow::Owned(shown.replace(secret, &masked(secret)));
        }
    }
    shown
}

/// `...abcd`: the last 4 characters, none of a short one.
pub fn masked(secret: &str) -> String {
    match secret.char_indices().rev().nth(SHOWN_CHARACTERS - 1) {
        Some((at, _)) if secret.len() >= 3 * SHOWN_CHARACTERS => format!("...{}", &secret[at..]),
        _ => "...".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        know(["sk-or-v1-secrets-test-wxyz", "short"]);
        assert_eq!(hidden("no: sk-or-v1-secrets-test-wxyz!"), "no: ...wxyz!");
        assert!(matches!(hidden("a short word"), Cow::Borrowed("a short word")));
    }
}
