//! The free-model rule: what goes upstream can't cost money, whoever sends it and whatever it says. What is particular to
//! one API stands in that API's file.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::Dialect;
use super::request::{Edits, Keep, Removed, keep_object, kept_elements};
use crate::json::{self, Field};

/// OpenRouter's router among the free models.
pub const ROUTER: &str = "openrouter/free";

/// What the ids of its own begin with: of routers, which are no models.
const OWN_PREFIX: &str = "openrouter/";

/// The PDF engine that costs nothing; the default one is charged by the page, even with a free model.
/// <https://openrouter.ai/docs/guides/overview/multimodal/pdfs>
const FREE_PDF_PLUGIN: &str = r#"{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}"#;

/// The only plugin that costs nothing.
const FREE_PLUGIN: &str = "response-healing";

/// What costs money, or may bring in what does, in every API:
/// [presets](https://openrouter.ai/docs/guides/features/presets), searches,
/// [priced tiers](https://openrouter.ai/docs/guides/features/service-tiers).
const PAID_FIELDS: [&str; 4] = ["preset", "web_search_options", "service_tier", "speed"];

/// Whether a model with this id is free of charge.
///
/// `@` names a preset, which can be any model; a second `:` adds a variant such as `:online`, which is charged.
///
/// ```
/// use local_api_proxy::dialect::free_models::is_free;
/// assert!(is_free("openrouter/free") && is_free("upstage/solar-pro-3:free"));
/// assert!(!is_free("openai/gpt-4o") && !is_free("a/b:free:online") && !is_free("@preset/x:free"));
/// assert!(!is_free("~vendor/family-latest:free") && !is_free("openrouter/fusion:free"));
/// ```
pub fn is_free(id: &str) -> bool {
    let plain = |slug: &str| {
        !slug.is_empty() && slug.bytes().all(|b| b.is_ascii_graphic() && !b"@:,\"\\".contains(&b))
    };
    let Some(slug) = id.strip_suffix(":free").filter(|slug| plain(slug)) else {
        return id == ROUTER;
    };
    // An alias for whichever is the latest; a router, whose panel and searches the suffix doesn't make free.
    !slug.starts_with('~') && (!is_router(slug) || listed_routers().iter().any(|listed| listed == id))
}

fn is_router(id: &str) -> bool {
    id.get(..OWN_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(OWN_PREFIX))
}

/// Ids that look like a router's and that the upstream has on its list of models, as those which it tries out are.
static LISTED: RwLock<Vec<String>> = RwLock::new(Vec::new());

fn listed_routers() -> RwLockReadGuard<'static, Vec<String>> {
    LISTED.read().unwrap_or_else(PoisonError::into_inner)
}

/// Whether only the upstream's list can tell if a model with this id is free.
pub fn goes_by_the_list(id: &str) -> bool {
    id != ROUTER && is_router(id) && id.ends_with(":free")
}

/// Takes note of the models on the upstream's list.
pub fn are_listed<'a>(ids: impl Iterator<Item = &'a str>) {
    let ids = ids.filter(|id| goes_by_the_list(id)).map(str::to_owned).collect::<Vec<_>>();
    if *listed_routers() != ids {
        *LISTED.write().unwrap_or_else(PoisonError::into_inner) = ids;
    }
}

/// Takes away all that costs money.
pub(super) fn make_free(dialect: &dyn Dialect, fields: &[Field<'_>], edits: &mut Edits) {
    let value = |name| json::field(fields, name).map(|field| field.value);
    for extra in PAID_FIELDS {
        edits.drop_field(fields, extra);
    }
    if let Some(models) = value("models") {
        edits.keep_elements("models", models, |model| match json::string(model) {
            Some(id) if is_free(&id) => Keep::AsWritten,
            _ => Keep::Not,
        });
    }
    match value("fallbacks") {
        Some(fallbacks) if dialect.has_fallbacks() => {
            edits.keep_elements("fallbacks", fallbacks, |fallback| {
                keep_object(fallback, "model", |model| model.is_some_and(is_free))
            });
        }
        _ => edits.drop_field(fields, "fallbacks"),
    }
    let plugins = value("plugins");
    if let Some(plugins) = plugins {
        edits.keep_elements("plugins", plugins, |plugin| {
            keep_object(plugin, "id", |id| id == Some(FREE_PLUGIN))
        });
    }
    if dialect.make_free(fields, edits) {
        edits.add_plugin(FREE_PDF_PLUGIN, plugins);
    }
}

/// Tools as an API writes them down.
pub struct ToolRule {
    /// Whether tools of this type cost nothing: an allow-list, so that no new type can slip through.
    pub stays: fn(Option<&str>) -> bool,
    /// The choice that leaves it to the model.
    pub auto: &'static str,
    /// Fields that make no sense without any tool.
    pub dependent: &'static [&'static str],
}

/// The tools that stay.
#[derive(Debug, Default)]
pub struct Kept {
    /// Types and names.
    tools: Vec<(Option<String>, Option<String>)>,
    /// Something went.
    pub removed: bool,
}

impl ToolRule {
    /// Decides on one tool; of a namespace, on those in it.
    pub fn keep(&self, tool: &str, kept: &mut Kept) -> Keep {
        let mut kind = None;
        let mut decided = keep_object(tool, "type", |found| {
            kind = found.map(str::to_owned);
            (self.stays)(found)
        });
        let text = match decided {
            Keep::Not => Cow::Borrowed(""),
            Keep::AsWritten => Cow::Borrowed(tool),
            Keep::Rewritten(ref text) => Cow::Owned(text.clone()),
        };
        let fields = json::fields(&text).unwrap_or_default();
        if kind.as_deref() == Some("namespace") {
            // It holds tools of its own.
            let inside = json::field(&fields, "tools").map(|inside| inside.value);
            match inside.and_then(|inside| kept_elements(inside, |tool| self.keep(tool, kept))) {
                None | Some((_, Removed::None)) => {}
                Some((_, Removed::All)) => decided = Keep::Not,
                Some((list, Removed::Some)) => decided = Keep::Rewritten(with(&fields, "tools", &list)),
            }
        }
        match decided {
            Keep::Not => kept.removed = true,
            _ => kept.tools.push((kind, name_of(&fields))),
        }
        decided
    }

    /// Keeps the free ones of `tools`, and mends `tool_choice`. `more` are tools that stand elsewhere.
    pub fn apply(&self, fields: &[Field<'_>], edits: &mut Edits, mut more: Kept) {
        let value = |name| json::field(fields, name).map(|field| field.value);
        let had_more = !more.tools.is_empty();
        let removed = match value("tools") {
            Some(tools) => edits.keep_elements("tools", tools, |tool| self.keep(tool, &mut more)),
            None => Removed::None,
        };
        if removed == Removed::All && !had_more {
            for dependent in self.dependent {
                edits.drop_field(fields, dependent);
            }
        } else if more.removed
            && let Some(choice) = value("tool_choice")
        {
            match self.mend(choice, &more) {
                Keep::AsWritten => {}
                Keep::Rewritten(choice) => edits.replace("tool_choice", choice),
                Keep::Not => edits.replace("tool_choice", self.auto.to_owned()),
            }
        }
    }

    /// What becomes of a choice when tools have gone.
    fn mend(&self, choice: &str, kept: &Kept) -> Keep {
        let Ok(mut fields) = json::fields(choice) else {
            return Keep::AsWritten; // a word such as `auto`
        };
        json::drop_duplicates(&mut fields);
        let text = |name| json::field(&fields, name).and_then(|field| json::string(field.value));
        if let Some(name) = name_of(&fields) {
            let there = kept.tools.iter().any(|(_, kept)| kept.as_ref() == Some(&name));
            return if there { Keep::AsWritten } else { Keep::Not };
        }
        match text("type").as_deref() {
            Some("allowed_tools") => {
                let holder = json::field(&fields, "allowed_tools").map_or(choice, |field| field.value);
                let inside = json::fields(holder).unwrap_or_default();
                let list = json::field(&inside, "tools").map(|tools| tools.value);
                match list.and_then(|list| kept_elements(list, |tool| self.mend(tool, kept))) {
                    None | Some((_, Removed::None)) => Keep::AsWritten,
                    Some((_, Removed::All)) => Keep::Not,
                    Some((list, Removed::Some)) => {
                        let inside = with(&inside, "tools", &list);
                        match holder == choice {
                            true => Keep::Rewritten(inside),
                            false => Keep::Rewritten(with(&fields, "allowed_tools", &inside)),
                        }
                    }
                }
            }
            Some("auto" | "any" | "none" | "required" | "tool" | "function" | "custom") | None => {
                Keep::AsWritten
            }
            Some(kind) => match kept.tools.iter().any(|(kept, _)| kept.as_deref() == Some(kind)) {
                true => Keep::AsWritten,
                false => Keep::Not,
            },
        }
    }
}

/// The name of a tool, or of the one that a choice means: beside its type, or within it, as chat completions have it.
fn name_of(fields: &[Field<'_>]) -> Option<String> {
    let text = |fields: &[Field<'_>]| Some(json::string(json::field(fields, "name")?.value)?.into_owned());
    let within = |holder| text(&json::fields(json::field(fields, holder)?.value).ok()?);
    text(fields).or_else(|| within("function")).or_else(|| within("custom"))
}

/// An object with one of its fields replaced.
pub(super) fn with(fields: &[Field<'_>], name: &str, value: &str) -> String {
    let replaced = fields.iter().map(|field| match field.name == name {
        true => Field { value, ..field.clone() },
        false => field.clone(),
    });
    json::object(&replaced.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::chat::Chat;
    use crate::dialect::model_name::Rule;
    use crate::dialect::request::Request;
    use std::borrow::Cow;

    fn sent(body: &str) -> String {
        let rule = Rule { default_model: ROUTER, ..Rule::default() };
        let request = Request::parse(&Chat, body.to_owned(), &rule).unwrap();
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
        let rule = Rule { default_model: ROUTER, allow_paid: true, ..Rule::default() };
        let sent = |body: &str| {
            let request = Request::parse(&Chat, body.to_owned(), &rule).unwrap();
            String::from_utf8(request.body(&request.model).into_owned()).unwrap()
        };
        let paid = r#"{"model":"openai/gpt-4o","preset":"x","plugins":[{"id":"web"}]}"#;
        assert_eq!(sent(paid), paid);
        assert_eq!(sent(r#"{"n":1}"#), r#"{"n":1,"model":"openrouter/free"}"#);
        assert_eq!(sent(r#"{"a":1,"a":2,"model":"m"}"#), r#"{"a":2,"model":"m"}"#);
    }

    #[test]
    fn another_model_at_another_try() {
        let rule = Rule { default_model: ROUTER, ..Rule::default() };
        let request = Request::parse(&Chat, r#"{"model":"a:free", "n":1}"#.into(), &rule).unwrap();
        assert!(matches!(request.body("a:free"), Cow::Borrowed(_)), "no copy where nothing changes");
        assert_eq!(request.body("b:free").as_ref(), br#"{"model":"b:free", "n":1}"#);
        let several = ["b:free", "c:free"];
        assert_eq!(
            request.body_with(&several).as_ref(),
            br#"{"model":"b:free", "n":1,"models":["b:free","c:free"]}"#
        );
        let own = r#"{"models":["a:free"],"model":"best"} "#;
        let request = Request::parse(&Chat, own.into(), &rule).unwrap();
        assert_eq!(request.body_with(&several).as_ref(), br#"{"models":["a:free"],"model":"b:free"} "#);
        let request = Request::parse(&Chat, r#"{"models":["o3"]} "#.into(), &rule).unwrap();
        assert_eq!(
            request.body_with(&several).as_ref(),
            br#"{"model":"b:free","models":["b:free","c:free"]}"#
        );
    }
}
