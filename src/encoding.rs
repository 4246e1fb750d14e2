//! UTF-16, which Windows' own tools write: with its mark, or recognized by the NULs of its first character.

/// The text, if these bytes are UTF-16; what is no character in it is U+FFFD.
///
/// Neither a setting nor JSON begins with a NUL or has one in its second place, so that the mark may be missing.
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
