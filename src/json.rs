//! Reads JSON as far as needed and no further: the fields of an object, each with its value's text as written. Also
//! indents such text for people.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// At how many places of a text JSON is looked for.
const MAX_LOOKS: usize = 16;

/// One field of an object, borrowed from the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Field<'a> {
    /// The name with its escapes resolved.
    pub name: Cow<'a, str>,
    /// The name as written, quotes included.
    pub raw_name: &'a str,
    /// The value as written.
    pub value: &'a str,
}

/// Returns the fields of the object that `text` holds, in their order, duplicates included.
///
/// The whole text is checked to be JSON; no tree is built, however deep it nests.
pub fn fields(text: &str) -> Result<Vec<Field<'_>>, serde_json::Error> {
    struct Fields;

    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<Field<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::with_capacity(16);
            while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                let raw_name = name.get();
                let name = string(raw_name).unwrap_or(Cow::Borrowed(raw_name));
                fields.push(Field { name, raw_name, value: value.get() });
            }
            Ok(fields)
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(Fields)?;
    json.end()?;
    Ok(fields)
}

/// Keeps only the last field of each name, the one that counts for most readers. Returns whether any field was removed.
pub fn drop_duplicates(fields: &mut Vec<Field<'_>>) -> bool {
    /// Up to this many fields are compared with each other, because that takes less than making a table of them.
    const FEW: usize = 16;
    let before = fields.len();
    let is_again = |(at, field): (usize, &Field<'_>)| fields[..at].iter().any(|f| f.name == field.name);
    if before <= FEW && !fields.iter().enumerate().any(is_again) {
        return false;
    }
    let mut seen = HashSet::with_capacity(before);
    let mut keep = fields.iter().rev().map(|field| seen.insert(field.name.clone())).collect::<Vec<_>>();
    let mut is_last = || keep.pop().unwrap_or(true);
    fields.retain(|_| is_last());
    fields.len() != before
}

/// The field named `name`; of several the last.
pub fn field<'f, 'a>(fields: &'f [Field<'a>], name: &str) -> Option<&'f Field<'a>> {
    fields.iter().rev().find(|field| field.name == name)
}

/// Returns an object that has only these fields of the one that `text` holds, so that no tree is made of the rest.
pub fn with_only(text: &str, names: &[&str]) -> Value {
    let fields = fields(text).unwrap_or_default();
    let wanted = fields.iter().filter(|field| names.contains(&&*field.name));
    let parsed =
        wanted.filter_map(|field| Some((field.name.to_string(), serde_json::from_str(field.value).ok()?)));
    Value::Object(parsed.collect())
}

/// The text of a JSON string, borrowed where it has no escapes; `None` for any other value.
pub fn string(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    if !inside.contains('\\') {
        Some(Cow::Borrowed(inside))
    } else {
        serde_json::from_str(value).ok().map(Cow::Owned)
    }
}

/// Returns a value with no letter written as an escape.
pub fn unescaped(value: &str) -> Cow<'_, str> {
    let parsed =
        value.contains('\\').then(|| serde_json::from_str::<serde_json::Value>(value).ok()).flatten();
    parsed.map_or(Cow::Borrowed(value), |value| Cow::Owned(value.to_string()))
}

/// Returns whether a text contains JSON: alone, in a fence, or between other words.
pub fn contains_json(text: &str) -> bool {
    let is_json = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
    let begins_with_json = |text: &str| {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
        values.next().is_some_and(|value| value.is_ok())
    };
    is_json(text.trim())
        || memchr::memchr_iter(b'{', text.as_bytes()).take(MAX_LOOKS).any(|at| begins_with_json(&text[at..]))
}

/// Returns the elements of an array; none for any other value.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The elements of an array as written; `None` for any other value.
pub fn elements(value: &str) -> Option<Vec<&str>> {
    let elements = serde_json::from_str::<Vec<&RawValue>>(value).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// A piece of JSON's structure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// An array (true) or an object (false) begins.
    Open(bool),
    /// The innermost array or object ends.
    Close,
    /// The name of a field as written.
    Name(&'a str),
    /// A string, a number, `true`, `false` or `null` as written.
    Scalar(&'a str),
}

/// Returns the pieces of valid JSON in their order, however deep it nests.
pub fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let is_between = |b: &u8| b.is_ascii_whitespace() || matches!(b, b',' | b':');
        at += bytes[at..].iter().take_while(|b| is_between(b)).count();
        let start = at;
        let token = match bytes.get(at)? {
            open @ (b'{' | b'[') => {
                at += 1;
                Token::Open(*open == b'[')
            }
            b'}' | b']' => {
                at += 1;
                Token::Close
            }
            b'"' => {
                at = string_end(bytes, at);
                let next = bytes[at..].iter().find(|b| !b.is_ascii_whitespace());
                match next {
                    Some(b':') => Token::Name(&text[start..at]),
                    _ => Token::Scalar(&text[start..at]),
                }
            }
            _ => {
                let is_end = |b: &u8| is_between(b) || matches!(b, b'}' | b']');
                at += bytes[at..].iter().position(is_end).unwrap_or(bytes.len() - at);
                Token::Scalar(&text[start..at])
            }
        };
        Some(token)
    })
}

/// An object of these fields, each as it was written.
pub fn object(fields: &[Field<'_>]) -> String {
    let inside = fields.iter().map(|f| format!("{}:{}", f.raw_name, f.value));
    format!("{{{}}}", inside.collect::<Vec<_>>().join(","))
}

/// An object without these fields.
pub fn without(object: &str, names: &[&str]) -> String {
    let mut kept = fields(object).unwrap_or_default();
    kept.retain(|field| !names.contains(&field.name.as_ref()));
    self::object(&kept)
}

/// Serializes a value of this program's own types. They are structs, so it can't fail.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns JSON `text` in a form that is serialized character by character; `null` if it isn't valid JSON.
pub fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap_or(RawValue::NULL)
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    // A string always has a JSON form; the other arm can't be reached.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into())
}

fn push_quoted(json: &mut String, text: &str) {
    json.push_str(&quoted(text));
}

/// Anything nested deeper than this stays on one line: nobody reads it by its indentation any more.
const MAX_INDENTED_LEVEL: usize = 40;
/// Blanks that are allowed beyond [`MAX_BLANKS`] times the length of the text.
const FREE_BLANKS: usize = 1 << 20;
const MAX_BLANKS: usize = 4;

/// Returns the documents of a text that holds more than one, as some servers put into one event.
pub fn documents(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let is_a_boundary = |at: usize| bytes[at + 1..].trim_ascii_start().starts_with(b"{");
    // Only where a string or another document may begin so, the text is parsed.
    if !memchr::memchr_iter(b'}', bytes).any(is_a_boundary) {
        return None;
    }
    let documents = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let documents = documents.map_while(Result::ok).map(RawValue::get).collect::<Vec<_>>();
    (documents.len() > 1).then_some(documents)
}

/// Returns whether a text has more values than this, however deep they nest.
pub fn has_more_values_than(text: &str, most: usize) -> bool {
    let is_value = |token: &Token<'_>| matches!(token, Token::Open(_) | Token::Scalar(_));
    // A value takes at least two bytes, a comma included.
    text.len() / 2 > most && tokens(text).filter(is_value).nth(most).is_some()
}

/// Returns how deep a text nests.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens(text) {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Name(_) | Token::Scalar(_) => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Lays out valid JSON `text` on one line, with a blank behind each comma and colon.
pub fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + text.len() / 8);
    indent(text, MAX_INDENTED_LEVEL + 1, &mut line);
    line
}

/// Appends valid JSON `text` to `out`, one field or element a line, indented by 2, with non-ASCII characters as
/// themselves. Numbers keep their digits and objects their order: the text is formatted, not parsed. However it nests,
/// it doesn't grow to more than some times its length: beyond that, no more blanks are added.
pub fn indent(text: &str, level: usize, out: &mut String) {
    let bytes = text.as_bytes();
    let mut level = level;
    let mut at = 0;
    let mut blanks_left = text.len().saturating_mul(MAX_BLANKS).saturating_add(FREE_BLANKS);
    // Begins another line, or writes `otherwise` where everything stays on one line.
    let mut line = |out: &mut String, level: usize, otherwise: &str| {
        let blanks = 1 + 2 * level;
        if level <= MAX_INDENTED_LEVEL && blanks <= blanks_left {
            blanks_left -= blanks;
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", level));
        } else {
            out.push_str(otherwise);
        }
    };
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                let written = &text[at..end];
                match written.contains("\\u").then(|| string(written)).flatten() {
                    Some(unescaped) => push_quoted(out, &unescaped),
                    None => out.push_str(written), // no escapes, or half a surrogate pair, which has no other form
                }
                at = end;
                continue;
            }
            open @ (b'{' | b'[') => {
                out.push(open as char);
                let next = bytes[at + 1..].iter().position(|b| !b.is_ascii_whitespace());
                match next.map(|n| (n + at + 1, bytes[n + at + 1])) {
                    Some((end, close @ (b'}' | b']'))) => {
                        out.push(close as char);
                        at = end;
                    }
                    _ => {
                        level += 1;
                        line(out, level, "");
                    }
                }
            }
            close @ (b'}' | b']') => {
                level = level.saturating_sub(1);
                line(out, level, "");
                out.push(close as char);
            }
            b',' => {
                out.push(',');
                line(out, level, " ");
            }
            b':' => out.push_str(": "),
            blank if blank.is_ascii_whitespace() => {}
            other => out.push(other as char),
        }
        at += 1;
    }
}

/// Parses pieces of text between which a character may be split: some servers escape characters outside of the basic
/// plane as two surrogates (RFC 8259, section 7), and send these in two pieces.
#[derive(Debug, Default)]
pub struct SurrogateJoiner {
    /// The four hex digits of a first surrogate that waits for the second.
    carried: Option<String>,
}

impl SurrogateJoiner {
    /// Parses a piece. A first surrogate is moved to the piece with the second; a second one alone becomes U+FFFD.
    pub fn parse(&mut self, text: &str) -> Option<serde_json::Value> {
        let value = serde_json::from_str(text).ok();
        value.or_else(|| serde_json::from_str(&self.joined(text)?).ok())
    }

    /// Returns the piece with surrogates joined; `None` if no surrogate in it stands alone.
    fn joined(&mut self, text: &str) -> Option<String> {
        let escape = |at: usize| {
            let hex = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
            Some((hex, u16::from_str_radix(hex, 16).ok()?))
        };
        let mut out = String::with_capacity(text.len() + 6);
        let (mut rest, mut changed) = (0, false);
        while let Some(found) = memchr::memchr(b'\\', &text.as_bytes()[rest..]) {
            let at = rest + found;
            out.push_str(&text[rest..at]);
            let next = |length| at + length;
            rest = match (escape(at), escape(next(6))) {
                (Some((_, 0xD800..=0xDBFF)), Some((_, 0xDC00..=0xDFFF))) => next(12),
                (Some((first, 0xD800..=0xDBFF)), _) => {
                    self.carried = Some(first.to_owned());
                    changed = true;
                    rest = next(6);
                    continue;
                }
                (Some((second, 0xDC00..=0xDFFF)), _) => {
                    match self.carried.take() {
                        Some(first) => out.push_str(&format!("\\u{first}\\u{second}")),
                        None => out.push('\u{FFFD}'),
                    }
                    changed = true;
                    rest = next(6);
                    continue;
                }
                // What follows a backslash is part of its escape; it may be a character of several bytes.
                _ => next(1 + text[next(1)..].chars().next().map_or(0, char::len_utf8)),
            };
            out.push_str(&text[at..rest]);
        }
        out.push_str(&text[rest..]);
        changed.then_some(out)
    }
}

/// Returns the position behind the quote that closes the string which begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        at += found;
        match bytes[at] {
            b'"' => return at + 1,
            _ => at += 2,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts() {
        let mut all = fields(r#" {"a": 1, "b":[ 2 ], "\u0061" :3.10} "#).unwrap();
        assert_eq!(field(&all, "a").unwrap().value, "3.10");
        assert!(drop_duplicates(&mut all));
        assert_eq!(object(&all), r#"{"b":[ 2 ],"\u0061":3.10}"#);
        assert!(!drop_duplicates(&mut all));
    }

    #[test]
    fn only_whole_objects_are_fields() {
        for bad in ["", "[]", "1", "{", "{}{}", r#"{"a":1,}"#, r#"{"a":}"#, r#"{a:1}"#, "{\"a\":\"\n\"}"] {
            assert!(fields(bad).is_err(), "{bad}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(fields(&deep).unwrap().len(), 1);
    }

    #[test]
    fn pieces_of_json() {
        let pieces = tokens(" { \"a\\\"\" : [1.5e3,\"b:\", {}] ,\"c\":null}").map(|token| match token {
            Token::Open(is_array) => {
                if is_array {
                    "["
                } else {
                    "{"
                }
            }
            Token::Close => "end",
            Token::Name(text) | Token::Scalar(text) => text,
        });
        let expected = ["{", "\"a\\\"\"", "[", "1.5e3", "\"b:\"", "{", "end", "end", "\"c\"", "null", "end"];
        assert_eq!(pieces.collect::<Vec<_>>(), expected);
        assert_eq!(tokens("12").collect::<Vec<_>>(), [Token::Scalar("12")]);
        assert_eq!(tokens("\"a\":").count() + tokens("").count(), 1);
    }

    #[test]
    fn halves_of_a_character_come_together() {
        let mut halves = SurrogateJoiner::default();
        let mut read = |text: &str| halves.parse(text).map(|value| value["a"].as_str().unwrap().to_owned());
        assert_eq!(read(r#"{"a":"x\ud83d"}"#).as_deref(), Some("x"));
        assert_eq!(read(r#"{"a":"\ude00y"}"#).as_deref(), Some("\u{1F600}y"));
        assert_eq!(read(r#"{"a":"\ude00\\ud83d\ud83d\ude00"}"#).as_deref(), Some("\u{FFFD}\\ud83d\u{1F600}"));
        assert_eq!(read(r#"{"a":"\uzzzz"}"#), None);
        assert_eq!(read("\\"), None);
        assert_eq!(read("\\é\\u12"), None);
    }

    #[test]
    fn indentation_is_no_larger_than_some_times_the_text() {
        for (open, close, count) in [("[", "]", 100_000), (r#"{"a":"#, "}", 20_000)] {
            let deep = format!("{}1{}", open.repeat(count), close.repeat(count));
            let mut out = String::new();
            indent(&deep, 1, &mut out);
            assert!(out.len() < 5 * deep.len() + 2 * FREE_BLANKS, "{} bytes of {}", out.len(), deep.len());
            assert_eq!(out.replace([' ', '\n'], ""), deep);
        }
        let wide = format!("{}{}1{}", "[".repeat(40), "1,".repeat(1_000_000), "]".repeat(40));
        let mut out = String::new();
        indent(&wide, 1, &mut out);
        assert!(out.len() < 5 * wide.len() + 2 * FREE_BLANKS, "{} bytes of {}", out.len(), wide.len());
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
    }

    #[test]
    fn indented_text_says_the_same() {
        let mut out = String::new();
        indent(r#"{"a":[],"b":{ },"c":[1.50,{"d":"x\"\u4f60\n,:[","e":"\ud800"}],"f":1e400}"#, 0, &mut out);
        let expected = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1.50,\n    {\n      \"d\": \"x\\\"你\\n,:[\",\n      \"e\": \"\\ud800\"\n    }\n  ],\n  \"f\": 1e400\n}";
        assert_eq!(out, expected);
        assert_eq!(
            on_one_line(r#"{"a":"b,c:d","e":[1,{"f":null}],"g":{}}"#),
            r#"{"a": "b,c:d", "e": [1, {"f": null}], "g": {}}"#
        );
    }
}
