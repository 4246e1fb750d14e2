//! Whether a request carries a file that the upstream would have a parser read, for money unless it is told otherwise.
//!
//! Files can stand at any depth: in a message, in what a tool has brought, in a document within that, in a prompt's
//! variables. A name that stands twice in an object counts each time: parsers differ in which of them they take.

use super::{hides_words, mentions};
use crate::json::{self, Field};

/// Fields of a request that hold what is said to the model.
const HOLDERS: [&str; 5] = ["messages", "input", "prompt", "system", "instructions"];
/// Deeper than anything that is meant: a parser is asked for, to be on the safe side.
const MAX_DEPTH: usize = 64;

/// Whether it does, or could.
pub(super) fn carried(fields: &[Field<'_>]) -> bool {
    let holders = fields.iter().filter(|field| HOLDERS.contains(&field.name.as_ref()));
    holders.into_iter().any(|field| may_hold(field.value) && holds(field.value, 0))
}

/// Most requests hold none, and this finds it out at the speed of memory: words can hide only behind an escape.
fn may_hold(text: &str) -> bool {
    ["\"document\"", "\"media_type\""].iter().any(|word| mentions(text, word))
        || memchr::memmem::find_iter(text.as_bytes(), "file").any(|at| {
            let (before, behind) = (&text.as_bytes()[..at], &text.as_bytes()[at + 4..]);
            before.ends_with(b"\"") || before.ends_with(b"_") && behind.starts_with(b"\"")
        })
        || hides_words(text)
        || mentions_other_data(text)
}

fn holds(value: &str, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return true;
    }
    match value.as_bytes().first() {
        Some(b'[') => {
            json::elements(value).unwrap_or_default().into_iter().any(|item| holds(item, depth + 1))
        }
        Some(b'{') => {
            let fields = json::fields(value).unwrap_or_default();
            // The arguments of a call are the tool's own affair, whatever their names.
            let is_call = kinds(&fields).any(|kind| kind.ends_with("tool_use"));
            let inside = fields.iter().filter(|field| !(is_call && field.name == "input"));
            is_file(&fields) || inside.into_iter().any(|field| holds(field.value, depth + 1))
        }
        _ => false,
    }
}

fn kinds<'a>(fields: &'a [Field<'_>]) -> impl Iterator<Item = std::borrow::Cow<'a, str>> {
    fields.iter().filter(|field| field.name == "type").filter_map(|field| json::string(field.value))
}

/// Whether an object is a file, or could be a PDF by another name.
fn is_file(fields: &[Field<'_>]) -> bool {
    let sources = || fields.iter().filter(|field| field.name == "source");
    let named = |kind: &str| match kind {
        "file" | "input_file" => true,
        // Text needs no parser; anything else might.
        "document" => sources().next().is_none() || !sources().all(|source| is_text(source.value)),
        "image" => sources().any(|source| is_no_image(source.value)),
        _ => false,
    };
    kinds(fields).any(|kind| named(&kind))
        || fields.iter().any(|field| match field.name.as_ref() {
            "file" | "file_data" => true,
            "image_url" | "input_image" => mentions_other_data(&json::unescaped(field.value)),
            _ => false,
        })
}

fn is_text(source: &str) -> bool {
    let fields = json::fields(source).unwrap_or_default();
    let mut kinds = kinds(&fields).peekable();
    kinds.peek().is_some() && kinds.all(|kind| kind == "text" || kind == "content")
}

fn is_no_image(source: &str) -> bool {
    let fields = json::fields(source).unwrap_or_default();
    let types = fields.iter().filter(|field| field.name == "media_type");
    let image = |kind: &str| kind.to_ascii_lowercase().starts_with("image/");
    types.into_iter().any(|kind| !json::string(kind.value).is_some_and(|kind| image(&kind)))
}

/// Whether a `data:` URL stands there that isn't an image. Scheme and media type know no case
/// ([RFC 2397](https://www.rfc-editor.org/rfc/rfc2397)).
fn mentions_other_data(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b':', bytes).any(|colon| {
        let ends_with =
            |word: &[u8]| colon >= word.len() && bytes[colon - word.len()..colon].eq_ignore_ascii_case(word);
        let after = &bytes[colon + 1..];
        ends_with(b"data") && !after.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case(b"image/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carries(body: &str) -> bool {
        carried(&json::fields(body).unwrap())
    }

    #[test]
    fn wherever_they_are() {
        for body in [
            r#"{"messages":[{"content":[{"type":"file","file":{}}]}]}"#,
            r#"{"messages":[{"content":{"type":"f\u0069le"}}]}"#,
            r#"{"system":[{"type":"document","source":{"type":"url","url":"https://x/a.pdf"}}]}"#,
            r#"{"messages":[{"content":[{"type":"web_fetch_tool_result","content":{"content":{"type":"document","source":{"type":"base64","media_type":"application/pdf"}}}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"document","source":{"type":"content","content":[{"type":"document"}]}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"base64","media_type":"application/pdf"}}]}]}"#,
            r#"{"input":"x","prompt":{"id":"p","variables":{"a":{"type":"input_file","file_url":"https://x/a.pdf"}}}}"#,
            r#"{"messages":[{"content":[{"image_url":{"url":"DATA:application/pdf;base64,x"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"text","type":"file"}]}]}"#,
        ] {
            assert!(carries(body), "{body}");
        }
        let deep = format!(r#"{{"messages":{}"file"{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(json::fields(&deep).is_err() || carries(&deep));
    }

    #[test]
    fn what_only_looks_like_one() {
        for body in [
            r#"{"messages":[{"content":"the \"file\" and the \"document\""}]}"#,
            r#"{"messages":[{"content":[{"type":"document","source":{"type":"text","data":"x","media_type":"text/plain"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"tool_use","name":"read","input":{"file":"a.txt","type":"file"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"x"}}]}]}"#,
            r#"{"tools":[{"parameters":{"properties":{"file":{"type":"string"}}}}],"messages":[]}"#,
            r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,x"}}]}]}"#,
        ] {
            assert!(!carries(body), "{body}");
        }
    }
}
