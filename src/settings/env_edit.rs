//! Writes one setting into `.env`: everything else in it stays as it is, byte for byte, in any encoding that
//! [`super::env_file`] reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::env_file;

/// The file in the home folder for people to copy.
const EXAMPLE: &str = ".env.example";

/// Writes `NAME=value` into the `.env` of this folder; if there is none, it is made from the example beside it. A
/// reader sees the old file or the new one, never a part of it. The value must be ASCII.
pub fn set(home: &Path, name: &str, value: &str) -> io::Result<PathBuf> {
    let file = home.join(env_file::NAME);
    if fs::metadata(&file).is_ok_and(|file| !file.is_file()) {
        return Err(io::Error::other("it is a pipe, which another program fills"));
    }
    let before = match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => fs::read(home.join(EXAMPLE)).unwrap_or_default(),
        read => read?,
    };
    // A link remains a link.
    let target = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
    let draft = target.with_file_name(format!(".env.{}.tmp", std::process::id()));
    let written = create(&draft).and_then(|mut draft| {
        draft.write_all(&with_setting(&before, name, value))?;
        draft.sync_all()
    });
    let written = written.and_then(|()| {
        if let Ok(file) = fs::metadata(&target) {
            fs::set_permissions(&draft, file.permissions())?;
        }
        fs::rename(&draft, &target)
    });
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.map(|()| file)
}

/// Creates a file that no other user can read, because a key goes into it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Returns the file's bytes with this setting in place of the last one of its name that isn't a comment, or else at the
/// end.
fn with_setting(bytes: &[u8], name: &str, value: &str) -> Vec<u8> {
    type Order = (fn([u8; 2]) -> u16, fn(u16) -> [u8; 2]);
    let little: Order = (u16::from_le_bytes, u16::to_le_bytes);
    let big: Order = (u16::from_be_bytes, u16::to_be_bytes);
    let order = match bytes {
        [0xFF, 0xFE, ..] | [1..=255, 0, ..] => Some(little),
        [0xFE, 0xFF, ..] | [0, 1..=255, ..] => Some(big),
        _ => None,
    };
    let utf16 = order.and_then(|(unit, pair)| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect::<Vec<_>>();
        Some((String::from_utf16(&units).ok()?, pair))
    });
    match utf16 {
        Some((text, pair)) => edited(&text, name, value).encode_utf16().flat_map(pair).collect(),
        // Each byte is treated as a character, so that the text keeps its encoding, whichever that is.
        None => {
            let text = bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
            edited(&text, name, value).chars().map(|c| c as u8).collect()
        }
    }
}

fn edited(text: &str, name: &str, value: &str) -> String {
    let mut old = None;
    let mut at = 0;
    for line in text.split_inclusive(['\r', '\n']) {
        if let Some(place) = value_in(line, name) {
            old = Some(at + place.start..at + place.end);
        }
        at += line.len();
    }
    let mut text = text.to_owned();
    match old {
        Some(old) => {
            let before_comment = if text[old.end..].starts_with('#') { " " } else { "" };
            text.replace_range(old, &format!("{value}{before_comment}"));
        }
        None => {
            let windows = text.contains("\r\n") || text.is_empty() && cfg!(windows);
            let end = if windows { "\r\n" } else { "\n" };
            if !text.is_empty() && !text.ends_with(['\r', '\n']) {
                text.push_str(end);
            }
            text.push_str(&format!("{name}={value}{end}"));
        }
    }
    text
}

/// Returns where the value is in a line that sets `name`: up to the line's end or a comment.
fn value_in(line: &str, name: &str) -> Option<Range<usize>> {
    const BLANKS: [char; 2] = [' ', '\t'];
    // Also as the single bytes of their UTF-8: the byte-order mark, and the wide equals sign of Chinese input.
    const MARKS: [char; 4] = ['\u{feff}', '\u{ef}', '\u{bb}', '\u{bf}'];
    const EQUALS: [&str; 3] = ["=", "\u{ff1d}", "\u{ef}\u{bc}\u{9d}"];
    let line = line.trim_end_matches(['\r', '\n']);
    let rest = line.trim_start_matches(MARKS).trim_start_matches(BLANKS);
    let rest = rest.strip_prefix("export ").unwrap_or(rest).trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(name)?.trim_start_matches(BLANKS);
    let value = EQUALS.iter().find_map(|sign| rest.strip_prefix(sign))?.trim_start_matches(BLANKS);
    let begin = line.len() - value.len();
    let comment = if value.starts_with('#') {
        Some(0)
    } else {
        [" #", "\t#"].iter().filter_map(|mark| value.find(mark)).min().map(|at| at + 1)
    };
    Some(begin..comment.map_or(line.len(), |at| begin + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> String {
        String::from_utf8(with_setting(text.as_bytes(), "KEY", "new")).unwrap()
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let kept = "# KEY=no\nA=1\n";
        assert_eq!(set(kept), format!("{kept}KEY=new\n"));
        assert_eq!(set("A=模型"), "A=模型\nKEY=new\n");
        assert_eq!(set("A=1\r\nB=2"), "A=1\r\nB=2\r\nKEY=new\r\n");
        assert_eq!(set("KEY=\nA=1\n"), "KEY=new\nA=1\n");
        assert_eq!(set("\u{feff}KEY=old\r\nA=1"), "\u{feff}KEY=new\r\nA=1");
        assert_eq!(set("A=1\nexport  KEY = 'old' # mine\nB=2\n"), "A=1\nexport  KEY = new # mine\nB=2\n");
        assert_eq!(set("KEY=# mine\n"), "KEY=new # mine\n");
        assert_eq!(set("KEY=a#b\nKEYS=1\n"), "KEY=new\nKEYS=1\n");
        assert_eq!(set("KEY=1\nA=2\nKEY＝“3”\n"), "KEY=1\nA=2\nKEY＝new\n", "the last one counts");
        let gbk = b"# \xc4\xa3\xd0\xcd\nKEY=\n";
        assert_eq!(with_setting(gbk, "KEY", "new"), b"# \xc4\xa3\xd0\xcd\nKEY=new\n");
    }

    #[test]
    fn what_windows_writes_stays_utf_16() {
        let encode =
            |text: &str, pair: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(pair).collect::<Vec<_>>();
        for pair in [u16::to_le_bytes, u16::to_be_bytes] {
            for mark in ["", "\u{feff}"] {
                let bytes = encode(&format!("{mark}A=模型😀\r\nKEY=\r\n"), pair);
                let expected = encode(&format!("{mark}A=模型😀\r\nKEY=new\r\n"), pair);
                assert_eq!(with_setting(&bytes, "KEY", "new"), expected);
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_file_keeps_its_mode_and_a_link_stays_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [home, elsewhere] = ["home", "elsewhere"].map(|name| folder.path().join(name));
        fs::create_dir(&home).unwrap();
        let file = super::set(&home, "KEY", "first").unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600,
            "a new one is nobody else's"
        );
        fs::rename(&file, &elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        super::set(&home, "KEY", "second").unwrap();
        assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "KEY=second\n");
        assert_eq!(fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }
}
