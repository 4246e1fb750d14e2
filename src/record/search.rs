//! Searches requests and answers for words, as people read them: neither an escape nor a capital letter hides anything.

/// Returns whether JSON `text` contains these words, which must be in lower case.
pub fn finds(text: &str, words: &str) -> bool {
    let plain = unescaped(text);
    let plain = plain.as_deref().unwrap_or(text);
    if plain.is_ascii() {
        memchr::memmem::find(plain.to_ascii_lowercase().as_bytes(), words.as_bytes()).is_some()
    } else {
        plain.to_lowercase().contains(words)
    }
}

/// Returns the text with the escapes of JSON resolved; `None` if it has none.
fn unescaped(text: &str) -> Option<String> {
    memchr::memchr(b'\\', text.as_bytes())?;
    let mut plain = String::with_capacity(text.len());
    let mut units = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        if !before.is_empty() {
            push_units(&mut plain, &mut units);
        }
        plain.push_str(before);
        let hex = behind.strip_prefix('u').and_then(|hex| hex.get(..4));
        if let Some(unit) = hex.and_then(|hex| u16::from_str_radix(hex, 16).ok()) {
            units.push(unit);
            rest = &behind[5..];
            continue;
        }
        push_units(&mut plain, &mut units);
        let mut characters = behind.chars();
        match characters.next() {
            Some('n' | 'r' | 't' | 'b' | 'f') => plain.push(' '),
            Some(other) => plain.push(other),
            None => {}
        }
        rest = characters.as_str();
    }
    push_units(&mut plain, &mut units);
    plain.push_str(rest);
    Some(plain)
}

/// Appends UTF-16 units, two of which may be one character.
fn push_units(plain: &mut String, units: &mut Vec<u16>) {
    plain.push_str(&String::from_utf16_lossy(units));
    units.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_capitals_hide_nothing() {
        let text = r#"{"a":"The \u4f60\u597d of \ud83d\ude00 said \"Hi\"\nthere\\n","b":"C:\\Users"}"#;
        for words in ["the 你好", "你好 of 😀", "said \"hi\" there", "c:\\users", "zebra"] {
            assert_eq!(finds(text, words), words != "zebra", "{words}");
        }
        assert!(finds("{\"a\":\"ÄRGER\"}", "ärger") && finds("ABC", "abc"));
        assert!(!finds("\\", "x") && !finds("\\u12", "x"));
    }
}
