//! The free-model rule: what goes upstream can't cost money, whoever sends it and whatever it says.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{self, Field};

/// OpenRouter's router among the free models.
pub const ROUTER: &str = "openrouter/free";

/// The PDF engine that costs nothing; the default one is charged by the page, even with a free model.
/// <https://openrouter.ai/docs/guides/overview/multimodal/pdfs>
const FREE_PDF_PLUGIN: &str = r#"{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}"#;

/// The only plugin that costs nothing.
const FREE_PLUGIN: &str = "response-healing";

/// Whether a model with this id is free of charge.
///
/// `@` names a preset, which can be any model; a second `:` adds a variant such as `:online`, which is charged.
///
/// ```
/// use local_api_proxy::dialect::free_models::is_free;
/// assert!(is_free("openrouter/free") && is_free("upstage/solar-pro-3:free"));
/// assert!(!is_free("openai/gpt-4o") && !is_free("a/b:free:online") && !is_free("@preset/x:free"));
/// ```
pub fn is_free(id: &str) -> bool {
    let plain = |slug: &str| {
        !slug.is_empty() && slug.bytes().all(|b| b.is_ascii_graphic() && !b"@:,\"\\".contains(&b))
    };
    id == ROUTER || id.strip_suffix(":free").is_some_and(plain)
}

/// What the rule goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// Sent where the request names no model that may be used.
    pub default_model: &'a str,
    /// `ALLOW_PAID_MODELS`: only a missing model is filled in.
    pub allow_paid: bool,
}

/// The body of a chat completion request, as it will go upstream.
#[derive(Debug)]
pub struct ChatRequest {
    /// The body as the client wrote it.
    text: String,
    /// What to send, where that isn't `text` with another model at most.
    pieces: Vec<Piece>,
    /// `pieces` with `model` are exactly `text`.
    as_written: bool,
    /// The model that the client named.
    pub asked: Option<String>,
    /// The model to send at the first try.
    pub model: String,
    /// `"stream": true`.
    pub stream: bool,
}

#[derive(Debug)]
enum Piece {
    Written(Range<usize>),
    Replaced(String),
    Model,
}

impl ChatRequest {
    /// Applies the rule to a body. The error says where it isn't a JSON object.
    pub fn parse(text: String, rule: Rule<'_>) -> Result<Self, (String, serde_json::Error)> {
        let mut fields = match json::fields(&text) {
            Ok(fields) => fields,
            Err(error) => return Err((text, error)),
        };
        let had_duplicates = json::drop_duplicates(&mut fields);
        let model_value = json::field(&fields, "model").map(|field| field.value);
        let asked = model_value.and_then(json::string).map(Cow::into_owned);
        let usable = |id: &str| rule.allow_paid || is_free(id);
        let not_a_string = model_value.is_some_and(|value| value != "null") && asked.is_none();
        let keeps_model = asked.as_deref().is_some_and(usable) || (rule.allow_paid && not_a_string);
        let model = match &asked {
            Some(asked) if usable(asked) => asked.clone(),
            _ => rule.default_model.to_owned(),
        };
        let stream = json::field(&fields, "stream").is_some_and(|field| field.value == "true");

        let place = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start..start + part.len()
        };
        let mut edits = Edits::default();
        if !rule.allow_paid {
            edits.free_of_charge(&fields);
        }
        let only_the_model = !had_duplicates && edits.is_empty();
        let pieces = match model_value {
            Some(_) if keeps_model && not_a_string && only_the_model => vec![Piece::Written(0..text.len())],
            Some(value) if only_the_model => {
                let Range { start, end } = place(value);
                vec![Piece::Written(0..start), Piece::Model, Piece::Written(end..text.len())]
            }
            _ => {
                let mut pieces = vec![Piece::Replaced("{".into())];
                let mut separator = "";
                let mut push = |name: Range<usize>, value: Piece| {
                    pieces.push(Piece::Replaced(separator.into()));
                    pieces.push(Piece::Written(name));
                    pieces.push(Piece::Replaced(":".into()));
                    pieces.push(value);
                    separator = ",";
                };
                for field in &fields {
                    let value = match edits.of(&field.name) {
                        Some(Edit::Drop) => continue,
                        Some(Edit::Replace(value)) => Piece::Replaced(value.clone()),
                        None if field.name == "model" && !(keeps_model && not_a_string) => Piece::Model,
                        None => Piece::Written(place(field.value)),
                    };
                    push(place(field.raw_name), value);
                }
                for (name, value) in &edits.added {
                    pieces.push(Piece::Replaced(format!("{separator}{}:{value}", json::quoted(name))));
                    separator = ",";
                }
                if model_value.is_none() {
                    pieces.push(Piece::Replaced(format!("{separator}\"model\":")));
                    pieces.push(Piece::Model);
                }
                pieces.push(Piece::Replaced("}".into()));
                pieces
            }
        };
        let as_written = only_the_model && keeps_model;
        Ok(Self { text, pieces, as_written, asked, model, stream })
    }

    /// The body as the client wrote it.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    /// Its memory, for another request.
    pub fn into_buffer(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// Whether the model that goes upstream is another than the client named.
    pub fn model_replaced(&self) -> bool {
        self.asked.as_ref() != Some(&self.model)
    }

    /// The body that goes upstream with this model.
    pub fn body(&self, model: &str) -> Cow<'_, [u8]> {
        if self.as_written && model == self.model {
            return Cow::Borrowed(self.text.as_bytes());
        }
        let mut body = Vec::with_capacity(self.text.len() + model.len() + 128);
        for piece in &self.pieces {
            match piece {
                Piece::Written(range) => body.extend_from_slice(&self.text.as_bytes()[range.clone()]),
                Piece::Replaced(text) => body.extend_from_slice(text.as_bytes()),
                Piece::Model => body.extend_from_slice(json::quoted(model).as_bytes()),
            }
        }
        Cow::Owned(body)
    }
}

enum Edit {
    Drop,
    Replace(String),
}

/// What the rule changes, by the field's name.
#[derive(Default)]
struct Edits {
    fields: Vec<(&'static str, Edit)>,
    added: Vec<(&'static str, String)>,
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.added.is_empty()
    }

    fn of(&self, name: &str) -> Option<&Edit> {
        self.fields.iter().find(|(n, _)| *n == name).map(|(_, edit)| edit)
    }

    fn free_of_charge(&mut self, fields: &[Field<'_>]) {
        let value = |name| json::field(fields, name).map(|field| field.value);
        for extra in ["preset", "web_search_options"] {
            if value(extra).is_some() {
                self.fields.push((extra, Edit::Drop));
            }
        }
        if let Some(models) = value("models") {
            self.keep_elements("models", models, |model| match json::string(model) {
                Some(id) if is_free(&id) => Keep::AsWritten,
                _ => Keep::Not,
            });
        }
        if let Some(tools) = value("tools") {
            let removed = self.keep_elements("tools", tools, |tool| {
                keep_object(tool, "type", |kind| {
                    !kind.trim_start().to_ascii_lowercase().starts_with("openrouter:")
                })
            });
            if removed == Removed::All {
                for dependent in ["tool_choice", "parallel_tool_calls"] {
                    self.fields.push((dependent, Edit::Drop));
                }
            }
        }
        let plugins = value("plugins");
        if let Some(plugins) = plugins {
            self.keep_elements("plugins", plugins, |plugin| {
                keep_object(plugin, "id", |id| id == FREE_PLUGIN)
            });
        }
        if value("messages").is_some_and(carries_a_file) {
            self.add_plugin(FREE_PDF_PLUGIN, plugins);
        }
    }

    /// Replaces an array by those of its elements that cost nothing, or drops it when none is left. An empty one stays.
    fn keep_elements(&mut self, name: &'static str, value: &str, keep: impl Fn(&str) -> Keep) -> Removed {
        // A list that isn't one can't be known to be free; tools are the upstream's to refuse.
        let Some(elements) = json::elements(value) else {
            if name != "tools" && value != "null" {
                self.fields.push((name, Edit::Drop));
            }
            return Removed::None;
        };
        let mut changed = false;
        let mut kept = Vec::with_capacity(elements.len());
        for element in &elements {
            match keep(element) {
                Keep::AsWritten => kept.push(Cow::Borrowed(*element)),
                Keep::Rewritten(text) => {
                    changed = true;
                    kept.push(Cow::Owned(text));
                }
                Keep::Not => changed = true,
            }
        }
        match (changed, kept.is_empty()) {
            (false, _) => Removed::None,
            (true, true) => {
                self.fields.push((name, Edit::Drop));
                Removed::All
            }
            (true, false) => {
                self.fields.push((name, Edit::Replace(format!("[{}]", kept.join(",")))));
                Removed::Some
            }
        }
    }

    fn add_plugin(&mut self, plugin: &str, written: Option<&str>) {
        let kept = match self.fields.iter().position(|(name, _)| *name == "plugins") {
            Some(at) => match self.fields.remove(at).1 {
                Edit::Replace(kept) => kept,
                Edit::Drop => String::new(),
            },
            None => written.filter(|w| w.starts_with('[')).unwrap_or_default().to_owned(),
        };
        let inside = kept.trim_start_matches('[').trim_end_matches(']').trim();
        let list = match inside.is_empty() {
            true => format!("[{plugin}]"),
            false => format!("[{inside},{plugin}]"),
        };
        match written {
            Some(_) => self.fields.push(("plugins", Edit::Replace(list))),
            None => self.added.push(("plugins", list)),
        }
    }
}

enum Keep {
    AsWritten,
    Rewritten(String),
    Not,
}

#[derive(PartialEq)]
enum Removed {
    None,
    Some,
    All,
}

/// Decides by one field of an object; of one that stands twice only the last is kept, the one decided by.
fn keep_object(element: &str, name: &str, free: impl Fn(&str) -> bool) -> Keep {
    let Ok(mut fields) = json::fields(element) else {
        return match name {
            "type" => Keep::AsWritten, // not a tool: the upstream says so
            _ => Keep::Not,
        };
    };
    let rewritten = json::drop_duplicates(&mut fields);
    let value = json::field(&fields, name).and_then(|field| json::string(field.value));
    match value {
        Some(value) if !free(&value) => Keep::Not,
        None if name == "id" => Keep::Not,
        _ if rewritten => Keep::Rewritten(json::object(&fields)),
        _ => Keep::AsWritten,
    }
}

/// Whether a content part of any message is a file, or could be a PDF by another name.
fn carries_a_file(messages: &str) -> bool {
    // Most requests hold none, and this finds it out at the speed of memory: words can hide only behind an escape.
    let mentions = |needle: &str| memchr::memmem::find(messages.as_bytes(), needle.as_bytes()).is_some();
    if !mentions("file") && !mentions("\\u00") && !mentions("\\/") && !mentions_other_data(messages) {
        return false;
    }
    let messages = json::elements(messages).unwrap_or_default();
    messages.into_iter().any(|message| {
        let fields = json::fields(message).unwrap_or_default();
        let contents = fields.iter().filter(|field| field.name == "content");
        let parts = contents.filter_map(|content| json::elements(content.value)).flatten();
        parts.into_iter().any(is_file)
    })
}

fn is_file(part: &str) -> bool {
    let fields = json::fields(part).unwrap_or_default();
    fields.iter().any(|field| match field.name.as_ref() {
        "type" => matches!(json::string(field.value).as_deref(), Some("file" | "input_file")),
        "file" | "file_data" => true,
        "image_url" | "input_image" => mentions_other_data(&json::unescaped(field.value)),
        _ => false,
    })
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

    fn sent(body: &str) -> String {
        let rule = Rule { default_model: ROUTER, allow_paid: false };
        let request = ChatRequest::parse(body.to_owned(), rule).unwrap();
        String::from_utf8(request.body(&request.model).into_owned()).unwrap()
    }

    fn unchanged(body: &str) {
        assert_eq!(sent(body), body);
    }

    #[test]
    fn a_free_request_is_sent_as_written() {
        unchanged(
            r#" { "model" : "a/b:free", "x": 1.0e+05, "y":"\u4f60\/", "tools":[ {"type":"function"} ] } "#,
        );
        unchanged(
            r#"{"model":"openrouter/free","models":["a:free"],"plugins":[{"id":"response-healing"}],"tools":[]}"#,
        );
    }

    #[test]
    fn the_model_is_made_free() {
        assert_eq!(sent(r#"{"model": "gpt-4o","n": 1}"#), r#"{"model": "openrouter/free","n": 1}"#);
        assert_eq!(sent("{}"), r#"{"model":"openrouter/free"}"#);
        assert_eq!(sent(r#"{"n":1}"#), r#"{"n":1,"model":"openrouter/free"}"#);
        for paid in [
            "null",
            "1",
            "[\"a:free\"]",
            "\"\"",
            "\":free\"",
            "\"@preset/a:free\"",
            "\"a:free:online\"",
            "\"a:free \"",
        ] {
            assert_eq!(sent(&format!(r#"{{"model":{paid}}}"#)), r#"{"model":"openrouter/free"}"#, "{paid}");
        }
    }

    #[test]
    fn twice_or_escaped_is_no_way_around() {
        let twice = r#"{"model":"a:free","n":1,"model":"gpt-4o"}"#;
        assert_eq!(sent(twice), r#"{"n":1,"model":"openrouter/free"}"#);
        let escaped = r#"{"model":"a:free","mod\u0065l":"gpt\u002d4o"}"#;
        assert_eq!(sent(escaped), r#"{"mod\u0065l":"openrouter/free"}"#);
        let preset = r#"{"model":"a:free","pr\u0065set":"x","n":2}"#;
        assert_eq!(sent(preset), r#"{"model":"a:free","n":2}"#);
        let tool = r#"{"model":"a:free","tools":[{"type":"openrouter:web_search","type":"function"}]}"#;
        assert_eq!(sent(tool), r#"{"model":"a:free","tools":[{"type":"function"}]}"#);
        let tool = r#"{"model":"a:free","tools":[{"type":"function","t\u0079pe":"openrouter:x"}]}"#;
        assert_eq!(sent(tool), r#"{"model":"a:free"}"#);
    }

    #[test]
    fn paid_extras_go() {
        assert_eq!(
            sent(
                r#"{"model":"a:free","preset":"p","web_search_options":{},"models":["gpt-4o","b:free"],"n":1}"#
            ),
            r#"{"model":"a:free","models":["b:free"],"n":1}"#
        );
        assert_eq!(sent(r#"{"models":["gpt-4o"],"model":"a:free"}"#), r#"{"model":"a:free"}"#);
        assert_eq!(sent(r#"{"models":"gpt-4o","model":"a:free"}"#), r#"{"model":"a:free"}"#);
        assert_eq!(
            sent(
                r#"{"model":"a:free","tools":[{"type":"openrouter:datetime"}],"tool_choice":"auto","parallel_tool_calls":true}"#
            ),
            r#"{"model":"a:free"}"#
        );
        assert_eq!(
            sent(
                r#"{"model":"a:free","tools":[{"type":"openrouter:x"},{"type": "function"}],"tool_choice":"auto"}"#
            ),
            r#"{"model":"a:free","tools":[{"type": "function"}],"tool_choice":"auto"}"#
        );
        assert_eq!(
            sent(
                r#"{"model":"a:free","plugins":[{"id":"web"},{"id":"response-healing"},{"id":"response-healing","id":"web"}]}"#
            ),
            r#"{"model":"a:free","plugins":[{"id":"response-healing"}]}"#
        );
    }

    #[test]
    fn a_file_gets_the_free_engine() {
        let file = r#""messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"f\u0069le","file":{}}]}]"#;
        let free = FREE_PDF_PLUGIN;
        assert_eq!(
            sent(&format!(r#"{{"model":"a:free",{file}}}"#)),
            format!(r#"{{"model":"a:free",{file},"plugins":[{free}]}}"#)
        );
        assert_eq!(
            sent(&format!(
                r#"{{"model":"a:free","plugins":[{{"id":"file-parser","pdf":{{"engine":"mistral-ocr"}}}}],{file}}}"#
            )),
            format!(r#"{{"model":"a:free","plugins":[{free}],{file}}}"#)
        );
        assert_eq!(
            sent(&format!(r#"{{"model":"a:free",{file},"plugins":[{{"id":"response-healing"}}]}}"#)),
            format!(r#"{{"model":"a:free",{file},"plugins":[{{"id":"response-healing"}},{free}]}}"#)
        );
        for url in [
            r#"{"url":"data:application/pdf;base64,JVBERi0="}"#,
            r#"{"url":"d\u0061ta:application\/pdf;base64,JVBERi0="}"#,
            r#"{"url":"DATA:Application/PDF;base64,JVBERi0="}"#,
            r#""data:;base64,JVBERi0=","text":"x""#,
        ] {
            let image = format!(r#""messages":[{{"content":[{{"type":"image_url","image_url":{url}}}]}}]"#);
            assert_eq!(
                sent(&format!(r#"{{"model":"a:free",{image}}}"#)),
                format!(r#"{{"model":"a:free",{image},"plugins":[{free}]}}"#)
            );
        }
        unchanged(
            r#"{"model":"a:free","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBO\/file"}}]}]}"#,
        );
        unchanged(
            r#"{"model":"a:free","messages":[{"role":"user","content":"a file, data:application/pdf"}]}"#,
        );
        unchanged(
            r#"{"model":"a:free","messages":[{"role":"user","content":[{"type":"text","text":"file"}]}]}"#,
        );
    }

    #[test]
    fn paid_models_where_they_are_allowed() {
        let rule = Rule { default_model: ROUTER, allow_paid: true };
        let sent = |body: &str| {
            let request = ChatRequest::parse(body.to_owned(), rule).unwrap();
            String::from_utf8(request.body(&request.model).into_owned()).unwrap()
        };
        let paid = r#"{"model":"openai/gpt-4o","preset":"x","plugins":[{"id":"web"}]}"#;
        assert_eq!(sent(paid), paid);
        assert_eq!(sent(r#"{"n":1}"#), r#"{"n":1,"model":"openrouter/free"}"#);
        assert_eq!(sent(r#"{"a":1,"a":2,"model":"m"}"#), r#"{"a":2,"model":"m"}"#);
    }

    #[test]
    fn another_model_at_another_try() {
        let rule = Rule { default_model: ROUTER, allow_paid: false };
        let request = ChatRequest::parse(r#"{"model":"a:free", "n":1}"#.into(), rule).unwrap();
        assert!(matches!(request.body("a:free"), Cow::Borrowed(_)), "no copy where nothing changes");
        assert_eq!(request.body("b:free").as_ref(), br#"{"model":"b:free", "n":1}"#);
    }
}
