//! The free-model rule: nothing that goes upstream can cost money, whoever sends it and whatever it says. What is
//! particular to one API is in that API's file.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::{RwLock, RwLockReadGuard};

use super::Dialect;
use super::edits::{Edits, Keep, Removed, keep_object, kept_elements};
use crate::json::{self, Field};
use crate::sync::unpoisoned;

/// OpenRouter's router among the free models.
pub const ROUTER: &str = "openrouter/free";

/// The prefix of OpenRouter's own ids, which belong to routers, not to models.
const OWN_PREFIX: &str = "openrouter/";

/// The PDF engine that costs nothing; the default one is charged by the page, even with a free model.
/// <https://openrouter.ai/docs/guides/overview/multimodal/pdfs>
const FREE_PDF_PLUGIN: &str = r#"{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}"#;

const FILE_PARSER: &str = "file-parser";

/// Plugins that cost nothing.
const FREE_PLUGINS: [&str; 2] = ["response-healing", "context-compression"];

/// Tools that the upstream runs without a fee, in every API. Without the first one, functions with `defer_loading` are
/// refused. <https://openrouter.ai/docs/guides/features/server-tools/tool-search>
const FREE_SERVER_TOOLS: [&str; 3] =
    ["openrouter:tool_search", "openrouter:apply_patch", "openrouter:datetime"];

/// Fields that cost money, or may bring in something that does, in every API:
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
    // `~` marks an alias for the latest model of a family; the suffix doesn't make a router's panel and searches free.
    !slug.starts_with('~') && (!is_router(slug) || listed_routers().iter().any(|listed| listed == id))
}

fn is_router(id: &str) -> bool {
    id.get(..OWN_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(OWN_PREFIX))
}

/// Ids that look like a router's but are on the upstream's list of models, such as those of models on trial.
static LISTED: RwLock<Vec<String>> = RwLock::new(Vec::new());

fn listed_routers() -> RwLockReadGuard<'static, Vec<String>> {
    unpoisoned(LISTED.read())
}

/// Routers that are known: no list is needed to tell whether one of them is free.
/// <https://openrouter.ai/docs/guides/routing/routers/auto-router>
const KNOWN_ROUTERS: [&str; 7] =
    ["auto", "auto-beta", "bodybuilder", "free", "fusion", "fusion-flash", "pareto-code"];

/// Whether a model that isn't known to be free could turn out to be free once the list has been fetched.
pub fn may_be_listed(id: &str) -> bool {
    let name = id.get(OWN_PREFIX.len()..).and_then(|name| name.strip_suffix(":free")).unwrap_or_default();
    goes_by_the_list(id) && !is_free(id) && !KNOWN_ROUTERS.contains(&name.to_ascii_lowercase().as_str())
}

/// Whether only the upstream's list can tell if a model with this id is free.
pub fn goes_by_the_list(id: &str) -> bool {
    id != ROUTER && is_router(id) && id.ends_with(":free")
}

/// Remembers the ids on the upstream's list that only the list can declare free.
pub fn remember_listed<'a>(ids: impl Iterator<Item = &'a str>) {
    let ids = ids.filter(|id| goes_by_the_list(id)).map(str::to_owned).collect::<Vec<_>>();
    if *listed_routers() != ids {
        *unpoisoned(LISTED.write()) = ids;
    }
}

/// Removes everything that costs money.
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
                keep_object(fallback, |fields| {
                    let model = json::field(fields, "model").and_then(|model| json::string(model.value));
                    model.is_some_and(|model| is_free(&model))
                })
            });
        }
        _ => edits.drop_field(fields, "fallbacks"),
    }
    // The upstream stores nothing, and refuses requests that ask for it.
    if value("store") == Some("true") {
        edits.replace("store", "false".to_owned());
    }
    let has_file = dialect.make_free(fields, edits);
    let plugins = value("plugins");
    if let Some(plugins) = plugins {
        edits.keep_elements("plugins", plugins, |plugin| {
            keep_object(plugin, |fields| {
                let id = json::field(fields, "id").and_then(|id| json::string(id.value));
                let id = id.as_deref().unwrap_or_default();
                // A plugin that is switched off keeps what the account's owner has switched on from costing money.
                let is_off = json::field(fields, "enabled").is_some_and(|enabled| enabled.value == "false");
                FREE_PLUGINS.contains(&id) || is_off && !(has_file && id == FILE_PARSER)
            })
        });
    }
    if has_file {
        edits.add_plugin(FREE_PDF_PLUGIN, plugins);
    }
}

/// The rule for an API's tools.
pub struct ToolRule {
    /// Whether tools of this type cost nothing: an allow-list, so that no new type can slip through.
    pub stays: fn(Option<&str>) -> bool,
    /// The choice that leaves the decision to the model.
    pub auto: &'static str,
    /// Fields that make no sense without any tool.
    pub dependent: &'static [&'static str],
}

/// The tools that stay and those that are removed.
#[derive(Debug, Default)]
pub struct Kept {
    count: usize,
    names: HashSet<String>,
    types: HashSet<String>,
    removed: bool,
    removed_types: BTreeSet<String>,
}

impl ToolRule {
    /// Decides on a tool, or on each tool in a namespace.
    pub fn keep(&self, tool: &str, kept: &mut Kept) -> Keep {
        let stays = |kind: Option<&str>| {
            (self.stays)(kind) || kind.is_some_and(|kind| FREE_SERVER_TOOLS.contains(&kind))
        };
        let seen = Seen::of(tool, stays);
        let inside = json::field(&seen.fields, "tools").map(|inside| inside.value);
        let inside = inside.filter(|inside| *inside != "null" && seen.kind.as_deref() == Some("namespace"));
        let decided = match inside.filter(|_| seen.stays) {
            None => seen.decided(),
            // A namespace holds functions, and no other namespace.
            Some(inside) => match kept_elements(inside, |tool| {
                let seen = Seen::of(tool, |kind| matches!(kind, Some("function" | "custom")));
                kept.note(&seen, seen.stays);
                seen.decided()
            }) {
                Some((_, Removed::None)) => seen.decided(),
                Some((list, Removed::Some)) => Keep::Rewritten(with(&seen.fields, "tools", &list)),
                None | Some((_, Removed::All)) => Keep::Not,
            },
        };
        kept.note(&seen, decided != Keep::Not);
        decided
    }

    /// Keeps the free tools in `tools`, and adapts what depends on them. `more` are tools that stand elsewhere.
    pub fn apply(&self, fields: &[Field<'_>], edits: &mut Edits, more: Kept) {
        let value = |name| json::field(fields, name).map(|field| field.value);
        let mut kept = more;
        if let Some(tools) = value("tools") {
            let removed = edits.keep_elements("tools", tools, |tool| self.keep(tool, &mut kept));
            kept.removed |= removed != Removed::None;
        }
        if let Some(include) = value("include").filter(|_| !kept.removed_types.is_empty()) {
            match kept_elements(include, |told| kept.keep_include(told)) {
                None | Some((_, Removed::None)) => {}
                Some((_, Removed::All)) => edits.drop_field(fields, "include"),
                Some((list, Removed::Some)) => edits.replace("include", list),
            }
        }
        if kept.removed && kept.count == 0 {
            for dependent in self.dependent {
                edits.drop_field(fields, dependent);
            }
        } else if let Some(choice) = value("tool_choice") {
            match kept.adapt_choice(choice) {
                Keep::AsWritten => {}
                Keep::Rewritten(choice) => edits.replace("tool_choice", choice),
                Keep::Not if kept.removed => edits.replace("tool_choice", self.auto.to_owned()),
                Keep::Not => edits.drop_field(fields, "tool_choice"),
            }
        }
    }
}

/// A tool, and the decision on it by its type.
struct Seen<'a> {
    kind: Option<Cow<'a, str>>,
    /// The fields, of duplicates the last one.
    fields: Vec<Field<'a>>,
    rewritten: bool,
    stays: bool,
}

impl<'a> Seen<'a> {
    fn of(tool: &'a str, stays: impl Fn(Option<&str>) -> bool) -> Self {
        let mut fields = json::fields(tool).unwrap_or_default();
        let rewritten = json::drop_duplicates(&mut fields);
        let written = json::field(&fields, "type").map(|kind| kind.value).filter(|kind| *kind != "null");
        let kind = written.and_then(json::string);
        let is_plain = tool.starts_with('{') && kind.is_some() == written.is_some();
        let stays = is_plain && stays(kind.as_deref());
        Self { kind, fields, rewritten, stays }
    }

    fn decided(&self) -> Keep {
        match (self.stays, self.rewritten) {
            (false, _) => Keep::Not,
            (true, true) => Keep::Rewritten(json::object(&self.fields)),
            (true, false) => Keep::AsWritten,
        }
    }
}

impl Kept {
    fn note(&mut self, seen: &Seen<'_>, stays: bool) {
        let kind = seen.kind.as_deref();
        if stays {
            self.count += 1;
            self.types.extend(kind.map(str::to_owned));
            self.names.extend(name_of(&seen.fields));
        } else {
            self.removed = true;
            let kind = kind.map(|kind| kind.strip_prefix("openrouter:").unwrap_or(kind));
            self.removed_types.extend(kind.map(str::to_owned));
        }
    }

    /// Decides on an entry of `include` (`web_search_call.action.sources`): it goes if its tool was removed.
    fn keep_include(&self, told: &str) -> Keep {
        let told = json::string(told).unwrap_or_default();
        let tool = told.split_once("_call").map(|(tool, _)| tool).filter(|tool| !tool.is_empty());
        let went = |tool: &str| {
            let first = self.removed_types.range::<str, _>((Bound::Included(tool), Bound::Unbounded)).next();
            first.is_some_and(|removed| removed.starts_with(tool))
        };
        if tool.is_some_and(went) { Keep::Not } else { Keep::AsWritten }
    }

    /// Adapts a choice, which can't name a tool that isn't there.
    fn adapt_choice(&self, choice: &str) -> Keep {
        let Ok(mut fields) = json::fields(choice) else {
            return Keep::AsWritten; // a word such as `auto`
        };
        let rewritten = json::drop_duplicates(&mut fields);
        let as_it_is = || if rewritten { Keep::Rewritten(json::object(&fields)) } else { Keep::AsWritten };
        if !is_of_type(&fields, ALLOWED_TOOLS) {
            return if self.has(&fields) { as_it_is() } else { Keep::Not };
        }
        // Chat completions have the list one level deeper.
        let holder = json::field(&fields, ALLOWED_TOOLS).map(|holder| holder.value);
        let mut inside = json::fields(holder.unwrap_or(choice)).unwrap_or_default();
        json::drop_duplicates(&mut inside);
        let list = json::field(&inside, "tools").map(|tools| tools.value);
        let keep = |tool: &str| match json::fields(tool) {
            Ok(mut tool) => {
                let rewritten = json::drop_duplicates(&mut tool);
                match self.has(&tool) {
                    true if rewritten => Keep::Rewritten(json::object(&tool)),
                    true => Keep::AsWritten,
                    false => Keep::Not,
                }
            }
            Err(_) => Keep::AsWritten,
        };
        match list.and_then(|list| kept_elements(list, keep)) {
            None | Some((_, Removed::None)) => as_it_is(),
            Some((_, Removed::All)) => Keep::Not,
            Some((list, Removed::Some)) => {
                let inside = with(&inside, "tools", &list);
                Keep::Rewritten(match holder {
                    None => inside,
                    Some(_) => with(&fields, ALLOWED_TOOLS, &inside),
                })
            }
        }
    }

    /// Whether the tool that a choice names is there, or it names none in particular.
    fn has(&self, choice: &[Field<'_>]) -> bool {
        let kind = json::field(choice, "type").and_then(|kind| json::string(kind.value));
        let is_there = match kind.as_deref() {
            None | Some("auto" | "any" | "none" | "required" | "tool" | "function" | "custom") => true,
            Some(kind) => self.types.contains(kind),
        };
        is_there && name_of(choice).is_none_or(|name| self.names.contains(&name))
    }
}

/// The type of a choice among some of the tools.
const ALLOWED_TOOLS: &str = "allowed_tools";

fn is_of_type(fields: &[Field<'_>], wanted: &str) -> bool {
    let kind = json::field(fields, "type").and_then(|kind| json::string(kind.value));
    kind.is_some_and(|kind| kind == wanted)
}

/// Returns the name of a tool, or of the tool that a choice means: it stands beside the type, or within the tool as in
/// chat completions.
fn name_of(fields: &[Field<'_>]) -> Option<String> {
    let text = |fields: &[Field<'_>]| Some(json::string(json::field(fields, "name")?.value)?.into_owned());
    let within = |holder| text(&json::fields(json::field(fields, holder)?.value).ok()?);
    text(fields).or_else(|| within("function")).or_else(|| within("custom"))
}

/// Returns an object with one of its fields replaced.
pub(super) fn with(fields: &[Field<'_>], name: &str, value: &str) -> String {
    let replaced = fields
        .iter()
        .map(|field| if field.name == name { Field { value, ..field.clone() } } else { field.clone() });
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
                r#"{"model":"a:free","tools":[{"type":"openrouter:web_search"}],"tool_choice":"auto","parallel_tool_calls":true}"#
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
