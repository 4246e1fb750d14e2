//! Decodes UTF-16, which Windows' own tools write, text in the system's code page, and percent-encoding.

/// Decodes UTF-16; `None` if the bytes are something else. What is no character in it becomes U+FFFD.
///
/// The byte order mark may be missing: neither a setting nor JSON begins with a NUL or has one in its second place.
pub fn utf16(bytes: &[u8]) -> Option<String> {
    let (unit, text): (fn([u8; 2]) -> u16, _) = match bytes {
        [0xFF, 0xFE, rest @ ..] => (u16::from_le_bytes, rest),
        [0xFE, 0xFF, rest @ ..] => (u16::from_be_bytes, rest),
        [first, 0, ..] if *first != 0 => (u16::from_le_bytes, bytes),
        [0, second, ..] if *second != 0 => (u16::from_be_bytes, bytes),
        _ => return None,
    };
    let units = text.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect::<Vec<_>>();
    Some(String::from_utf16_lossy(&units))
}

/// Decodes text in the system's code page, which Windows' older programs write (GBK, where Chinese is spoken); `None`
/// if it is UTF-8, or the system has no code page.
pub fn ansi(bytes: &[u8]) -> Option<String> {
    #[cfg(windows)]
    if std::str::from_utf8(bytes).is_err() {
        use local_encoding_ng::{Encoder, Encoding};
        return Encoding::ANSI.to_string(bytes).ok();
    }
    let _ = bytes;
    None
}

/// Decodes a part of an address: some clients write the slash in a model's id as `%2F` and the colon as `%3A`.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_addresses() {
        assert_eq!(percent_decoded("a%2Fb%3Afree"), "a/b:free");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%é"), "%é");
    }
}
