//! Tells whether a settings file is in the middle of being written.

use std::collections::HashSet;

use crate::settings::env_file;

/// Returns whether there is nothing in the file.
pub fn is_blank(bytes: &[u8]) -> bool {
    env_file::decode(bytes).trim().is_empty()
}

/// Returns whether `now` is `before`, cut off within a line: nobody deletes half a key.
pub fn is_cut_short(before: &[u8], now: &[u8]) -> bool {
    now.len() < before.len()
        && before.starts_with(now)
        && !now.ends_with(b"\n")
        && before[now.len()] != b'\r'
        && before[now.len()] != b'\n'
}

/// Returns whether a key is missing, or is the beginning of what it was: that is how a file looks in the middle of
/// being written, in any encoding. A key that was replaced by another has been written to its end.
pub fn has_lost_a_key(before: &[u8], now: &[u8]) -> bool {
    let [before, now] = [before, now].map(|bytes| env_file::parse(&env_file::decode(bytes)).settings);
    ["OPENROUTER_API_KEY", "PROXY_API_KEY"].into_iter().any(|name| {
        let key = |settings: &[(String, String)]| {
            settings.iter().rfind(|(n, _)| n == name).map(|(_, key)| key.clone()).unwrap_or_default()
        };
        let (before, now) = (key(&before), key(&now));
        now.len() < before.len() && before.starts_with(&now)
    })
}

/// Returns whether the file may still be being written: settings are missing, or the last line isn't ended any more.
pub fn looks_half_written(before: &[u8], now: &[u8]) -> bool {
    if is_blank(now) || is_blank(before) {
        return false; // an empty file has a grace period of its own, or there is nothing to compare with
    }
    let unended = |bytes: &[u8]| !bytes.ends_with(b"\n") && !bytes.ends_with(b"\n\0");
    let names = |bytes: &[u8]| {
        let settings = env_file::parse(&env_file::decode(bytes)).settings;
        settings.into_iter().map(|(name, _)| name).collect::<HashSet<_>>()
    };
    unended(now) && !unended(before) || !names(before).is_subset(&names(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_written_files_are_recognized() {
        let before = b"OPENROUTER_API_KEY=sk-or-v1-abc\nMODEL=a/b:free\n";
        assert!(is_cut_short(before, b"OPENROUTER_API_KEY=sk-o"));
        assert!(!is_cut_short(before, b"OPENROUTER_API_KEY=sk-or-v1-abc\n"), "a line was removed");
        assert!(!is_cut_short(before, b"OPENROUTER_API_KEY=sk-or-v1-abc"), "so it was here");
        assert!(!is_cut_short(before, b"OPENROUTER_API_KEY=other"));
        assert!(has_lost_a_key(before, b"MODEL=a/b:free\nOPENROUTER_API_KEY=sk-or-v1-a"));
        assert!(has_lost_a_key(before, b"MODEL=a/b:free\n"), "it may come yet");
        assert!(!has_lost_a_key(before, b"OPENROUTER_API_KEY=sk-or-v1-xyz"));
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let text = utf16("MODEL=\u{6a21}\u{578b}\r\nOPENROUTER_API_KEY=sk-or-v1-abc\r\n");
        let whole = [vec![0xFF, 0xFE], text].concat();
        for len in 1..whole.len() - 5 {
            assert!(has_lost_a_key(&whole, &whole[..len]), "its first {len} bytes");
        }
        assert!(looks_half_written(before, b"OPENROUTER_API_KEY=sk-or-v1-xyz\n"));
        assert!(looks_half_written(before, b"OPENROUTER_API_KEY=k\nMODEL=a"));
        assert!(!looks_half_written(before, b"MODEL=c/d:free\nOPENROUTER_API_KEY=k\n"));
    }
}
