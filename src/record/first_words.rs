//! Finds the first words of what was asked, by which people recognize a call: those of the user's last turn that has
//! words of its own. This works for the requests of every API, because their fields tell which one it is.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{self, Field};

/// How many characters are kept.
const MAX_CHARACTERS: usize = 160;
/// How many bytes of a text are looked at.
const MAX_BYTES: usize = 64 * 1024;
/// How many elements of a list are looked at, the last ones.
const MAX_ELEMENTS: usize = 64;
/// The fields in which the APIs have what is asked, in the order in which they are tried.
const FIELDS: [&str; 6] = ["messages", "input", "contents", "prompt", "query", "text"];
/// The tags of what tools add to the user's words.
const CONTEXT_TAGS: [&str; 10] = [
    "system-reminder",
    "environment_context",
    "environment_details",
    "user_instructions",
    "INSTRUCTIONS",
    "permissions instructions",
    "local-command-stdout",
    "command-message",
    "context",
    "additional_context",
];
/// The tags that tools put around the user's words.
const WRAPPER_TAGS: [&str; 5] = ["task", "user_message", "user_query", "user_request", "feedback"];

/// Returns the first words in a request's body; empty if nothing was asked in words.
pub fn of(body: &str) -> String {
    let fields = json::fields(body).unwrap_or_default();
    let words = FIELDS.into_iter().find_map(|name| in_value(json::field(&fields, name)?.value, 0));
    words.unwrap_or_default()
}

/// Returns the words of a text, or of the last element that has some in a list of texts, turns or parts of a turn.
fn in_value(value: &str, depth: usize) -> Option<String> {
    match value.as_bytes().first()? {
        b'"' => words(&beginning(value)),
        b'[' if depth < 4 => {
            last_elements(value).iter().rev().find_map(|element| in_value(element, depth + 1))
        }
        b'{' if depth < 4 => in_object(&json::fields(value).ok()?, depth),
        _ => None,
    }
}

/// Returns the words of a turn of the user's, or of a part of one.
fn in_object(fields: &[Field<'_>], depth: usize) -> Option<String> {
    let text = |name: &str| json::field(fields, name).map(|field| field.value);
    let is = |name: &str, words: &[&str]| {
        let value = text(name).and_then(json::string);
        value.is_none_or(|value| words.contains(&&*value))
    };
    // What a tool has returned is no question, and neither is what the model has said.
    if !is("role", &["user"]) || !is("type", &["text", "input_text", "message"]) {
        return None;
    }
    ["content", "parts", "text"].into_iter().find_map(|name| in_value(text(name)?, depth))
}

/// Returns the words of a text without what a tool has put around them.
fn words(text: &str) -> Option<String> {
    let mut rest = text.trim_start();
    while let Some((tag, inside)) = rest.strip_prefix('<').and_then(|tag| tag.split_once('>')) {
        rest = if CONTEXT_TAGS.contains(&tag) {
            inside.split_once(&format!("</{tag}>"))?.1
        } else if WRAPPER_TAGS.contains(&tag) {
            inside.split_once(&format!("</{tag}>")).map_or(inside, |(words, _)| words)
        } else {
            break;
        }
        .trim_start();
    }
    let mut said = String::new();
    for word in rest.split_whitespace() {
        if !said.is_empty() {
            said.push(' ');
        }
        said.push_str(word);
        if said.len() > MAX_CHARACTERS * 4 {
            break;
        }
    }
    if let Some((end, _)) = said.char_indices().nth(MAX_CHARACTERS) {
        said.truncate(end);
        said.push('…');
    }
    Some(said).filter(|said| !said.is_empty())
}

/// Returns the beginning of a JSON string, however long that is.
fn beginning(value: &str) -> Cow<'_, str> {
    if value.len() <= MAX_BYTES {
        return json::string(value).unwrap_or_default();
    }
    // A character or an escape may be cut in half: `\ud83d\ude00` is the longest that must stay whole.
    let beginnings = (MAX_BYTES - 12..=MAX_BYTES).rev().filter_map(|end| value.get(..end));
    let text = beginnings.filter_map(|begun| serde_json::from_str(&format!("{begun}\"")).ok()).next();
    Cow::Owned(text.unwrap_or_default())
}

/// The last elements of an array as written, however many there are.
fn last_elements(value: &str) -> VecDeque<&str> {
    struct Last;

    impl<'de> Visitor<'de> for Last {
        type Value = VecDeque<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut last = VecDeque::with_capacity(MAX_ELEMENTS);
            while let Some(element) = list.next_element::<&RawValue>()? {
                if last.len() == MAX_ELEMENTS {
                    last.pop_front();
                }
                last.push_back(element.get());
            }
            Ok(last)
        }
    }

    serde_json::Deserializer::from_str(value).deserialize_seq(Last).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_api() {
        for (body, words) in [
            (r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":" a\n b "}]}"#, "a b"),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}]}"#,
                "a",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"tool","content":"c"}]}"#,
                "a",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"tool_result","content":"r"}]}]}"#,
                "a",
            ),
            (r#"{"input":"one"}"#, "one"),
            (r#"{"input":["one","two"]}"#, "two"),
            (
                r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"one"}]},{"type":"function_call_output","output":"x"}]}"#,
                "one",
            ),
            (
                r#"{"contents":[{"role":"user","parts":[{"text":"one"}]},{"role":"model","parts":[{"text":"two"}]}]}"#,
                "one",
            ),
            (r#"{"contents":[{"parts":[{"text":"one"}]}]}"#, "one"),
            (r#"{"prompt":"one"}"#, "one"),
            (r#"{"query":"one","documents":["x"]}"#, "one"),
            (r#"{"input":[[1,2]]}"#, ""),
            (r#"{"messages":5}"#, ""),
            (r#"{"messages":[null,7,[],{"role":"user","content":{"mark":1}}]}"#, ""),
        ] {
            assert_eq!(of(body), words, "{body}");
        }
    }

    #[test]
    fn what_tools_put_around_it_goes() {
        for (text, said) in [
            ("<system-reminder>\nx\n</system-reminder>\nfix it", Some("fix it")),
            ("<environment_context>x</environment_context>", None),
            ("<permissions instructions>x</permissions instructions>do it", Some("do it")),
            ("<task>\nfix it\n</task>\n<environment_details>", Some("fix it")),
            ("<b>bold</b> words", Some("<b>bold</b> words")),
            ("a < b", Some("a < b")),
            ("<- look", Some("<- look")),
            ("<system-reminder>never closed", None),
            ("  ", None),
        ] {
            assert_eq!(words(text).as_deref(), said, "{text}");
        }
        let body = |text: &str| format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
        assert_eq!(of(&body(&"ä".repeat(500))), "ä".repeat(160) + "…");
        assert_eq!(of(&body(&r"\ud83d\ude00".repeat(20_000))).chars().count(), 161);
        let many = format!(r#"{{"messages":[{}{{"role":"user","content":"last"}}]}}"#, "1,".repeat(100_000));
        assert_eq!(of(&many), "last");
    }
}
