//! Reads `.env` the way people write it: in any encoding that Windows produces, and a bad line never costs the others.

use std::fmt::{self, Write};

use crate::encoding::{ansi, utf16};
use crate::language::either;

/// The name of the file, which is read at start and whenever it changes.
pub const NAME: &str = ".env";

/// A line that can't be understood; the other lines count.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line's number in the file, from 1.
    pub number: usize,
    /// The likely mistake in it.
    pub slip: LikelyMistake,
}

/// The character in place of bytes that aren't text.
const NO_TEXT: char = '\u{FFFD}';

/// The likely mistake in a line that can't be understood.
#[derive(Debug, PartialEq, Eq)]
pub enum LikelyMistake {
    /// A key without its name.
    OnlyAKey,
    /// `NAME: value`.
    Colon(String),
    /// The line is in another encoding than UTF-8.
    NotText,
    /// No mistake that is known.
    Unknown,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        f.write_str(&match &self.slip {
            LikelyMistake::OnlyAKey => either(
                format!("{NAME} line {number} is only a key: write OPENROUTER_API_KEY= before it"),
                format!("{NAME} 第 {number} 行只有密钥：请在前面加上 OPENROUTER_API_KEY="),
            ),
            LikelyMistake::Colon(name) => either(
                format!("{NAME} line {number} is skipped: write {name}=value, with = in place of :"),
                format!("{NAME} 第 {number} 行已跳过：请写成 {name}=值，用 = 而不是 :"),
            ),
            LikelyMistake::NotText => either(
                format!("{NAME} line {number} is skipped: it isn't UTF-8. Save the file as UTF-8"),
                format!("{NAME} 第 {number} 行已跳过：不是 UTF-8 编码。请把文件另存为 UTF-8"),
            ),
            LikelyMistake::Unknown => either(
                format!("{NAME} line {number} can't be understood and is skipped: lines are NAME=value or # comment"),
                format!("{NAME} 第 {number} 行无法识别，已跳过：每行应为 名称=值 或 # 注释"),
            ),
        })
    }
}

/// How many bad lines are named: nobody reads more.
const MAX_BAD_LINES: usize = 20;

/// The contents of a `.env` file.
#[derive(Debug, Default)]
pub struct Parsed {
    /// `(name, value)` in the order of the file.
    pub settings: Vec<(String, String)>,
    /// The first lines that can't be understood.
    pub bad: Vec<BadLine>,
    /// How many such lines there are beside those.
    pub further_bad: usize,
}

/// Decodes the text of a `.env` file: UTF-8 with or without byte-order mark, UTF-16 (what PowerShell's `>` writes), or
/// on Windows the system's code page.
///
/// Other bytes become U+FFFD, so that a comment in another encoding does no harm; a setting with them is refused.
pub fn decode(bytes: &[u8]) -> String {
    decode_as(bytes, ansi(bytes))
}

/// `ansi` is the text as decoded by the system's code page, if it is in that.
fn decode_as(bytes: &[u8], ansi: Option<String>) -> String {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => utf16(bytes).or(ansi).unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// Parses the lines one by one, so that a bad one (an unclosed quote, say) can't swallow the next.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (index, line) in text.lines().enumerate() {
        // In files of old Macs CR alone ends a line; and one may be left over from CRLF inside UTF-16.
        for line in line.split('\r') {
            match parse_line(line.trim()) {
                Ok(None) => {}
                Ok(Some(setting)) => parsed.settings.push(setting),
                Err(()) if parsed.bad.len() < MAX_BAD_LINES => {
                    parsed.bad.push(BadLine { number: index + 1, slip: slip(line.trim()) });
                }
                Err(()) => parsed.further_bad += 1,
            }
        }
    }
    parsed
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, ()> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // Who types Chinese may enter `=` and quotes in their wide forms.
    let (name, value) = line.split_once(['=', '＝']).ok_or(())?;
    let value = value.trim();
    let value = value.strip_prefix(['“', '”']).and_then(|v| v.strip_suffix(['“', '”'])).unwrap_or(value);
    let line = format!("{}={}", name.trim(), literal(value));
    match dotenv::Iter::new(line.as_bytes()).next() {
        Some(Ok((name, value))) if !name.contains(NO_TEXT) && !value.contains(NO_TEXT) => {
            Ok(Some((name, value)))
        }
        _ => Err(()),
    }
}

fn slip(line: &str) -> LikelyMistake {
    if line.contains(NO_TEXT) {
        return LikelyMistake::NotText;
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let bare = line.trim_matches(['"', '\'', ' ']);
    if bare.starts_with("sk-") && !bare.contains(char::is_whitespace) {
        return LikelyMistake::OnlyAKey;
    }
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    match line.split_once([':', '：']).map(|(name, _)| name.trim()) {
        Some(name) if is_name(name) => LikelyMistake::Colon(name.to_owned()),
        _ => LikelyMistake::Unknown,
    }
}

/// Returns a value in a form that dotenvy reads as it is written: dotenvy would expand `$NAME` (a password with a
/// dollar), take `\` for an escape (`C:\temp`), and stop at a blank (`C:\My Files`).
fn literal(value: &str) -> String {
    let (inside, after, quoted) = match value.chars().next() {
        Some('\'') => return value.to_owned(), // read as it is already
        Some('"') => match closing_quote(&value[1..]) {
            Some(end) => (&value[1..=end], &value[end + 2..], true),
            None => return value.to_owned(), // dotenvy refuses it
        },
        Some('#') => return String::new(),
        _ => match value.find(" #").or_else(|| value.find("\t#")) {
            Some(comment) => (value[..comment].trim_end(), "", false),
            None => (value, "", false),
        },
    };
    let mut line = String::with_capacity(value.len() + 8);
    line.push('"');
    let mut chars = inside.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                line.push_str("\\\"");
            }
            '\\' | '"' | '$' => {
                let _ = write!(line, "\\{c}");
            }
            c => line.push(c),
        }
    }
    line.push('"');
    line.push_str(after);
    line
}

/// Returns where the quote that ends `text` is. A backslash before a quote continues the value, unless nothing follows
/// that could end it: `"C:\cache\"` is a folder.
fn closing_quote(text: &str) -> Option<usize> {
    let mut last_escaped = None;
    for (at, _) in text.match_indices('"') {
        if text[..at].ends_with('\\') {
            last_escaped = Some(at);
        } else {
            return Some(at);
        }
    }
    last_escaped.filter(|at| text[at + 1..].trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let Parsed { settings, bad, .. } = parse(text);
        assert_eq!(bad, [], "in {text:?}");
        settings
    }

    fn value(line: &str) -> String {
        let settings = values(line);
        assert_eq!(settings.len(), 1, "in {line:?}");
        settings[0].1.clone()
    }

    #[test]
    fn every_encoding_windows_writes() {
        let text = "MODEL=模型\r\nPORT=5001";
        let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
        let utf8 = text.as_bytes().to_vec();
        for bytes in [
            utf8.clone(),
            [&[0xEF, 0xBB, 0xBF][..], &utf8].concat(),
            [&[0xFF, 0xFE][..], &utf16(u16::to_le_bytes)].concat(),
            [&[0xFE, 0xFF][..], &utf16(u16::to_be_bytes)].concat(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            let expected = [("MODEL".to_owned(), "模型".to_owned()), ("PORT".to_owned(), "5001".to_owned())];
            assert_eq!(values(&decode(&bytes)), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn slips_of_the_hand() {
        assert_eq!(value("export KEY=a"), "a");
        assert_eq!(value("  KEY  =  a b  "), "a b");
        assert_eq!(value("KEY=\"a b\" # comment"), "a b");
        assert_eq!(value("KEY='a $b \\n'"), "a $b \\n");
        assert_eq!(value("KEY=a # comment"), "a");
        assert_eq!(value("KEY＝“a b”"), "a b");
        assert_eq!(value("KEY=a#b"), "a#b");
        assert_eq!(value("KEY=pa$$word$HOME"), "pa$$word$HOME");
        assert_eq!(value("KEY=it's"), "it's");
        assert_eq!(value("KEY="), "");
        assert_eq!(value("KEY= # nothing"), "");
        assert_eq!(value("KEY=a=b"), "a=b");
    }

    #[test]
    fn windows_paths_are_themselves() {
        assert_eq!(value(r"CACHE_DIR=C:\temp\new"), r"C:\temp\new");
        assert_eq!(value(r"CACHE_DIR=C:\My Files\缓存"), r"C:\My Files\缓存");
        assert_eq!(value(r#"CACHE_DIR="C:\temp\new""#), r"C:\temp\new");
        assert_eq!(value(r#"CACHE_DIR="C:\cache\""#), r"C:\cache\");
        assert_eq!(value(r#"CACHE_DIR="\\server\share""#), r"\\server\share");
        assert_eq!(value(r#"KEY="say \"hi\"""#), r#"say "hi""#);
    }

    #[test]
    fn a_bad_line_costs_only_itself() {
        let Parsed { settings, bad, .. } = parse("A=1\nnonsense\nB=\"open\nC=3\n=4\n");
        let names = settings.iter().map(|(name, _)| name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["A", "C"]);
        let numbers = bad.iter().map(|line| line.number);
        assert_eq!(numbers.collect::<Vec<_>>(), [2, 3, 5]);
        let Parsed { bad, .. } = parse("sk-or-v1-abc\nMODEL: a/b:free\n\"sk-or-v1-abc\"\nhttps://x\n");
        let slips = bad.into_iter().map(|line| line.slip).collect::<Vec<_>>();
        assert_eq!(
            slips,
            [
                LikelyMistake::OnlyAKey,
                LikelyMistake::Colon("MODEL".into()),
                LikelyMistake::OnlyAKey,
                LikelyMistake::Unknown
            ]
        );
        let Parsed { settings, bad, further_bad } = parse(&"nonsense\n".repeat(1_000_000));
        assert_eq!((settings.len(), bad.len(), further_bad), (0, 20, 999_980));
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_number() {
        let gbk = b"# \xc4\xa3\xd0\xcd\nMODEL=a/b:free # \xc4\xa3\xd0\xcd\nCACHE_DIR=D:\\\xbb\xba\xb4\xe6\n";
        let Parsed { settings, bad, .. } = parse(&decode_as(gbk, None));
        assert_eq!(settings, [("MODEL".to_owned(), "a/b:free".to_owned())]);
        assert_eq!(bad, [BadLine { number: 3, slip: LikelyMistake::NotText }]);
    }
}
