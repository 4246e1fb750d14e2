//! Finds out whether a request carries a file that the upstream would have a parser read, which costs money unless the
//! request asks for the free parser.
//!
//! Files can stand at any depth: in a message, in a tool's result, in a document within that, in a prompt's variables.
//! If an object has a name twice, each field counts: parsers differ in which of them they take.

use std::borrow::Cow;

use super::{has_needless_escapes, mentions};
use crate::json::{self, Field, Token};

/// Fields of a request that hold the model's input.
const HOLDERS: [&str; 5] = ["messages", "input", "prompt", "system", "instructions"];
/// The nesting limit, beyond anything sensible. Below it a file is assumed, to be on the safe side.
const MAX_DEPTH: usize = 64;

/// Whether the request carries a file, or may carry one.
pub(super) fn carried(fields: &[Field<'_>]) -> bool {
    let holders = fields.iter().filter(|field| HOLDERS.contains(&field.name.as_ref()));
    holders.into_iter().any(|field| may_hold(field.value) && holds(&field.name, field.value))
}

/// Whether a text may hold a file. Most don't, which this finds out at the speed of memory: only escapes can hide a
/// word.
fn may_hold(text: &str) -> bool {
    ["\"document\"", "\"media_type\""].iter().any(|word| mentions(text, word))
        || memchr::memmem::find_iter(text.as_bytes(), "file").any(|at| {
            let (before, behind) = (&text.as_bytes()[..at], &text.as_bytes()[at + 4..]);
            before.ends_with(b"\"") || before.ends_with(b"_") && behind.starts_with(b"\"")
        })
        || has_needless_escapes(text)
        || mentions_other_data(text)
        || mentions_a_pdf(text)
}

/// Fields whose strings are prose, not addresses.
const WORDS: [&str; 17] = [
    "messages",
    "input",
    "prompt",
    "system",
    "instructions",
    "content",
    "text",
    "thinking",
    "reasoning",
    "summary",
    "refusal",
    "output",
    "arguments",
    "title",
    "name",
    "description",
    "query",
];
/// Fields that cite a source, which isn't read.
const CITED: [&str; 3] = ["annotations", "citations", "action"];
const IMAGES: [&str; 2] = ["image_url", "input_image"];

/// An object or an array that hasn't ended yet, and what is known of it.
#[derive(Debug, Default)]
struct Open {
    is_array: bool,
    /// The field that holds it.
    field: Within,
    /// Whether the strings in an array are prose.
    words: bool,
    cited: bool,
    /// Whether it is an image, or describes one.
    image: bool,
    /// What `type` says: a tool call, a document, an image, anything but text.
    is_call: bool,
    is_document: bool,
    is_image: bool,
    has_type: bool,
    has_other_type: bool,
    /// What `media_type` says.
    is_no_image: bool,
    is_pdf: bool,
    /// What `source` says.
    has_source: bool,
    has_other_source: bool,
    has_source_without_image: bool,
    /// Whether it holds a file.
    holds: bool,
    /// Whether its `input` holds a file.
    input_holds: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Within {
    Input,
    Source,
    #[default]
    Other,
}

/// Whether a value holds a file; takes one pass, whatever the depth.
fn holds(name: &str, value: &str) -> bool {
    let mut around = vec![Open::default()];
    let mut name = Cow::Borrowed(name);
    // How many objects and arrays are open below the nesting limit.
    let mut deeper = 0_usize;
    for token in json::tokens(value) {
        let depth = around.len();
        let Some(open) = around.last_mut() else { break };
        match token {
            Token::Open(_) if depth > MAX_DEPTH => {
                open.holds = true;
                deeper += 1;
            }
            Token::Close if deeper > 0 => deeper -= 1,
            _ if deeper > 0 => {}
            Token::Name(written) => {
                name = json::string(written).unwrap_or(Cow::Borrowed(written));
                open.holds |= matches!(name.as_ref(), "file" | "file_data");
            }
            Token::Scalar(value) => {
                let name = if open.is_array { "" } else { name.as_ref() };
                open.scalar(name, value);
            }
            Token::Open(is_array) => {
                let name = if open.is_array { "" } else { name.as_ref() };
                let inside = Open {
                    is_array,
                    field: match name {
                        "input" => Within::Input,
                        "source" => Within::Source,
                        _ => Within::Other,
                    },
                    words: if open.is_array { open.words } else { WORDS.contains(&name) },
                    cited: open.cited || CITED.contains(&name),
                    image: open.image || IMAGES.contains(&name),
                    ..Open::default()
                };
                around.push(inside);
            }
            Token::Close => {
                let ended = around.pop().unwrap_or_default();
                if let Some(open) = around.last_mut() {
                    open.take(&ended);
                }
            }
        }
    }
    around.iter().any(Open::holds_a_file)
}

impl Open {
    /// Whether it holds a file. The arguments of a tool call concern only the tool, whatever their names.
    fn holds_a_file(&self) -> bool {
        self.holds
            || self.input_holds && !self.is_call
            // Text needs no parser; anything else might.
            || self.is_pdf && !self.is_text()
            || self.is_document && (!self.has_source || self.has_other_source)
            || self.is_image && self.has_source_without_image
    }

    /// Takes a value that is neither an object nor an array, from the field of this name.
    fn scalar(&mut self, name: &str, value: &str) {
        let words = if self.is_array { self.words } else { WORDS.contains(&name) };
        let is_image = self.image || IMAGES.contains(&name);
        let is_described = matches!(name, "type" | "media_type" | "source");
        if !is_described && !is_image && (words || self.cited || !may_be_an_address(value)) {
            return; // nearly all of a request ends here, with its escapes unresolved
        }
        let text = json::string(value);
        match (name, text.as_deref()) {
            ("type", Some(kind)) => {
                self.holds |= matches!(kind, "file" | "input_file");
                self.is_call |= kind.ends_with("tool_use");
                self.is_document |= kind == "document";
                self.is_image |= kind == "image";
                self.has_type = true;
                self.has_other_type |= !matches!(kind, "text" | "content");
            }
            ("media_type", kind) => {
                let image = kind.is_some_and(|kind| begins_with(kind, "image/"));
                self.is_no_image |= !image;
                self.is_pdf |= kind.is_some_and(|kind| begins_with(kind, "application/pdf"));
            }
            ("source", _) => {
                self.has_source = true;
                self.has_other_source = true;
            }
            _ => {}
        }
        let Some(text) = text else { return };
        self.holds |= is_image && mentions_other_data(&text) || !words && !self.cited && is_pdf(&text);
    }

    /// Takes what is known of an object or an array that has ended within this one.
    fn take(&mut self, ended: &Self) {
        let holds = ended.holds_a_file();
        match ended.field {
            Within::Input => self.input_holds |= holds,
            Within::Source => {
                self.has_source = true;
                self.has_other_source |= ended.is_array || !ended.is_text();
                self.has_source_without_image |= ended.is_no_image;
                self.holds |= holds;
            }
            Within::Other => self.holds |= holds,
        }
    }

    fn is_text(&self) -> bool {
        self.has_type && !self.has_other_type
    }
}

fn begins_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

/// Whether a string is short enough to be an address, or could begin with `data:`.
fn may_be_an_address(value: &str) -> bool {
    const MAX_BYTES: usize = 8192;
    let begin = &value.as_bytes()[..value.len().min(32)];
    let is_data = || begin.get(1..6).is_some_and(|begin| begin.eq_ignore_ascii_case(b"data:"));
    value.len() <= MAX_BYTES || begin.contains(&b'\\') || is_data()
}

/// Whether a text is the address of a PDF, or a PDF itself.
fn is_pdf(text: &str) -> bool {
    let address = text.trim();
    let ends = |address: &str| {
        let end = address.len().checked_sub(4).and_then(|at| address.get(at..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(".pdf"))
    };
    let is_address = || address.contains("://") && !address.contains(char::is_whitespace);
    let path = || address.split(['?', '#']).next().unwrap_or_default();
    begins_with(address, "data:application/pdf") || (ends(address) || ends(path())) && is_address()
}

/// Whether the address of a PDF may stand in the text.
fn mentions_a_pdf(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'.', bytes)
        .any(|dot| bytes.get(dot + 1..dot + 4).is_some_and(|end| end.eq_ignore_ascii_case(b"pdf")))
}

/// Whether the text has a `data:` URL that isn't an image. Scheme and media type are case-insensitive
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
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/a.PDF"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image_url","image_url":"https://x/a.pdf?sig=1#page=2"}]}]}"#,
            r#"{"messages":[{"content":[{"type":"video_url","video_url":{"url":"https:\/\/x\/get?f=a.p\u0064f"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"video_url","video_url":{"url":"Data:Application/PDF;base64,JVBE"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"url","url":"https://x/a.pdf"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"new","urls":["https://x/a.pdf"]}]}]}"#,
            r#"{"messages":[{"content":[{"source":{"media_type":"application/pdf","data":"JVBE"},"type":"new"}]}]}"#,
            r#"{"input":[{"content":[{"type":"input_image","image_url":"https://x/a.pdf"}]}]}"#,
            r#"{"input":{"type":"message","content":[{"input":{"type":"file"}}]}}"#,
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
            r#"{"messages":[{"content":"https://x/a.pdf"},{"content":[{"type":"text","text":"https://x/a.pdf"}]}]}"#,
            r#"{"messages":[{"content":[{"image_url":{"url":"https://x/pdf.png?a.pdf=1"}}]}]}"#,
            r#"{"messages":[{"content":[{"name":"read","input":{"url":"https://x/a.pdf"},"type":"tool_use"}]}]}"#,
            r#"{"messages":[{"content":"x","annotations":[{"type":"url_citation","url_citation":{"url":"https://x/a.pdf"}}]}]}"#,
            r#"{"messages":[{"tool_calls":[{"function":{"name":"f","arguments":"https://x/a.pdf"}}]}]}"#,
            r#"{"prompt":["https://x/a.pdf"]}"#,
        ] {
            assert!(!carries(body), "{body}");
        }
    }
}
