//! A free model, as the upstream's list describes it; and the entries that the proxy adds to that list.

use std::borrow::Cow;

use chrono::NaiveDate;
use serde_json::Value;

use crate::dialect::Needs;
use crate::dialect::free_models::{ROUTER, goes_by_the_list, is_free};
use crate::dialect::model_name::BEST;
use crate::dialect::{CHAT_MODELS, Listed};
use crate::json;
use crate::object::object;

/// 2026-02-01, when the router was released.
const ROUTER_CREATED: u64 = 1_769_904_000;
/// The context of the router, and of `best`, which chooses among the same models.
const ROUTER_CONTEXT: u64 = 200_000;
const ROUTER_CAN: Needs = Needs { tools: true, images: true, structured: true };

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To chat with.
    Chat,
    /// To make embeddings.
    Embeddings,
    /// To put documents in order.
    Rerank,
    /// To speak.
    Speech,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Embeddings, Self::Rerank, Self::Speech];

    /// Returns the upstream's word for what such a model makes.
    pub fn output(self) -> &'static str {
        match self {
            Self::Chat => "text",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Speech => "speech",
        }
    }

    /// Returns the path at which the upstream lists such models.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => CHAT_MODELS,
            Self::Embeddings => "/embeddings/models",
            Self::Rerank => "/models?output_modalities=rerank",
            Self::Speech => "/models?output_modalities=speech",
        }
    }

    /// Returns the kind of models that the upstream lists at this path.
    pub fn at(path: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.path() == path).unwrap_or(Self::Chat)
    }

    /// Returns the kind as far as a name tells it; `None` for models that judge or transcribe.
    fn by_name(id: &str) -> Option<Self> {
        let told = words(id).find_map(|word| match word {
            "embed" | "embedding" | "embeddings" => Some(Some(Self::Embeddings)),
            "rerank" | "reranker" => Some(Some(Self::Rerank)),
            "tts" | "speech" => Some(Some(Self::Speech)),
            "whisper" => Some(None),
            _ => None,
        });
        told.unwrap_or_else(|| (!is_classifier(id)).then_some(Self::Chat))
    }

    /// Returns whether a model of this name, which makes `outputs` (empty if the upstream doesn't say), is of this
    /// kind.
    fn has(self, id: &str, outputs: &[&str]) -> bool {
        match self {
            Self::Chat if outputs.is_empty() => chats_by_name(id),
            // The output of a classifier is text, too.
            Self::Chat => outputs.contains(&"text") && !is_classifier(id),
            _ if outputs.is_empty() => {
                matches!(Self::by_name(id), Some(kind) if kind == self || kind == Self::Chat)
            }
            _ => outputs.contains(&self.output()),
        }
    }
}

/// Returns whether one can chat with a model, as far as its name tells.
///
/// ```
/// use local_api_proxy::relay::model::chats_by_name;
/// assert!(chats_by_name("z-ai/glm-4.5-air:free") && chats_by_name("some/guardian-angel:free"));
/// assert!(!chats_by_name("nvidia/nemotron-3.5-content-safety:free") && !chats_by_name("a/whisper-1:free"));
/// ```
pub fn chats_by_name(id: &str) -> bool {
    Kind::by_name(id) == Some(Kind::Chat)
}

/// Returns whether a name says that a model writes text but doesn't chat, because it judges what others have written.
fn is_classifier(id: &str) -> bool {
    let mut before = "";
    words(id).any(|word| {
        let is_pair = std::mem::replace(&mut before, word) == "content" && word == "safety";
        is_pair || matches!(word, "guard" | "moderation")
    })
}

fn words(id: &str) -> impl Iterator<Item = &str> {
    id.split(|c: char| !c.is_ascii_alphanumeric())
}

/// How good a model is, by `benchmarks.artificial_analysis` (0 to 100).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Indexes {
    /// `intelligence_index`
    pub intelligence: Option<f64>,
    /// `agentic_index`: used where tools are offered.
    pub agentic: Option<f64>,
}

/// A free model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The id by which a request names the model.
    pub id: String,
    /// The name that people call the model.
    pub name: String,
    /// The number of tokens that request and answer may have together.
    pub context_length: Option<u64>,
    /// The number of tokens that an answer may have.
    pub max_output: Option<u64>,
    /// What the model can do.
    pub can: Needs,
    /// How good the model is.
    pub indexes: Indexes,
    /// The last day on which the model is sure to be there.
    pub expires: Option<NaiveDate>,
    /// When the model was created, in seconds since 1970.
    pub created: u64,
    /// The object as the upstream wrote it, with what clients need besides.
    pub json: String,
}

impl Model {
    /// Returns whether the model's last day is over.
    pub fn is_expired(&self, today: NaiveDate) -> bool {
        self.expires.is_some_and(|last| last < today)
    }

    /// Parses an entry of the upstream's list of this kind, and tells whether the model is of this kind; `None` if the
    /// entry isn't a free model.
    pub fn parse(written: &str, kind: Kind) -> Option<(Self, bool)> {
        let fields = json::fields(written).ok()?;
        let text = |name: &str| json::field(&fields, name).and_then(|field| json::string(field.value));
        let value = |name: &str| {
            let field = json::field(&fields, name);
            field.and_then(|field| serde_json::from_str::<Value>(field.value).ok()).unwrap_or_default()
        };
        let id = text("id")?.into_owned();
        let (architecture, provider) = (value("architecture"), value("top_provider"));
        let (parameters, benchmarks) = (value("supported_parameters"), value("benchmarks"));
        if !is_free(&id) && !goes_by_the_list(&id) {
            return None;
        }
        let is_of_kind = kind.has(&id, &strings(&architecture["output_modalities"]));
        let supports = |names: &[&str]| strings(&parameters).iter().any(|known| names.contains(known));
        let number = |value: &Value| value.as_f64().filter(|number| *number >= 0.0);
        let tokens = |value: &Value| number(value).map(|number| number as u64);
        let index = |name: &str| number(&benchmarks["artificial_analysis"][name]);
        let contexts = [tokens(&value("context_length")), tokens(&provider["context_length"])];
        let date = text("expiration_date")
            .and_then(|date| NaiveDate::parse_from_str(date.get(..10)?, "%Y-%m-%d").ok());
        let model = Self {
            name: text("name").map_or_else(|| id.clone(), Cow::into_owned),
            context_length: contexts.into_iter().flatten().min(),
            max_output: tokens(&provider["max_completion_tokens"]),
            can: Needs {
                tools: supports(&["tools"]),
                images: strings(&architecture["input_modalities"]).contains(&"image"),
                structured: supports(&["structured_outputs", "response_format"]),
            },
            indexes: Indexes { intelligence: index("intelligence_index"), agentic: index("agentic_index") },
            expires: date,
            created: value("created").as_u64().unwrap_or(0),
            json: String::new(),
            id,
        };
        Some((Self { json: completed(fields, &model, kind), ..model }, is_of_kind))
    }

    /// Returns the router, for when the upstream doesn't list it.
    pub fn router() -> Self {
        Self::stand_in(ROUTER, "Free Models Router", "openrouter", Some(ROUTER_CONTEXT), ROUTER_CAN)
    }

    /// Returns the entry `best`, which stands for the best free model.
    pub fn best() -> Self {
        let name = "The best free model that works now";
        Self::stand_in(BEST, name, "local-api-proxy", Some(ROUTER_CONTEXT), ROUTER_CAN)
    }

    /// Returns a model of a backup. Only its server knows what it can do.
    pub fn of_backup(backup: &str, model: &str) -> Self {
        Self::stand_in(&format!("{backup}/{model}"), model, backup, None, ROUTER_CAN)
    }

    fn stand_in(id: &str, name: &str, owner: &str, context_length: Option<u64>, can: Needs) -> Self {
        let model = Self {
            id: id.to_owned(),
            name: name.to_owned(),
            context_length,
            max_output: None,
            can,
            indexes: Indexes::default(),
            expires: None,
            created: ROUTER_CREATED,
            json: String::new(),
        };
        let fields = object! {"id": id, "owned_by": owner}.to_string();
        Self { json: completed(json::fields(&fields).unwrap_or_default(), &model, Kind::Chat), ..model }
    }

    /// Returns the router with all capabilities: it picks among the models that have what is needed.
    pub fn as_router(self) -> Self {
        Self { can: ROUTER_CAN, ..self }
    }

    /// Returns whether this is a router of the upstream's, which asks other models.
    pub fn is_router(&self) -> bool {
        self.id.starts_with("openrouter/")
    }

    /// Returns what an API may say about the model.
    pub fn listed(&self) -> Listed<'_> {
        let Self { id, name, context_length, can, created, json, .. } = self;
        Listed { id, name, context_length: *context_length, can: *can, created: *created, json }
    }
}

/// Adds to an entry of the upstream's what it lacks for OpenAI's SDKs (`object`, `created`, `owned_by`) and for
/// OpenRouter's own, which read no list with less: <https://openrouter.ai/docs/api/api-reference/models/get-models>
fn completed(fields: Vec<json::Field<'_>>, model: &Model, kind: Kind) -> String {
    let Model { id, name, can, created, .. } = model;
    let (slug, owner) = (id.strip_suffix(":free").unwrap_or(id), id.split('/').next().unwrap_or_default());
    let context = Value::from(model.context_length);
    let makes = kind.output();
    let takes: &[&str] = if can.images { &["text", "image"] } else { &["text"] };
    let can_do = [("tools", can.tools), ("tool_choice", can.tools), ("response_format", can.structured)];
    let parameters = can_do.iter().filter(|(_, can)| *can).map(|(name, _)| *name).collect::<Vec<_>>();
    let architecture = object! {
        "modality": format!("{}->{makes}", takes.join("+")), "input_modalities": Value::from(takes),
        "output_modalities": Value::from(vec![makes]), "tokenizer": "Other", "instruct_type": Value::Null,
    };
    // Each field with the characters that a usable value may begin with.
    let needed = [
        ("object", "\"", "model".into()),
        ("created", "0123456789", (*created).into()),
        ("owned_by", "\"", owner.into()),
        ("canonical_slug", "\"", slug.into()),
        ("name", "\"", name.as_str().into()),
        ("context_length", "0123456789n", context.clone()),
        ("architecture", "{", architecture),
        ("pricing", "{", object! {"prompt": "0", "completion": "0"}),
        (
            "top_provider",
            "{",
            object! {"context_length": context, "max_completion_tokens": Value::Null, "is_moderated": false},
        ),
        ("supported_parameters", "[", parameters.into()),
        ("per_request_limits", "{n", Value::Null),
        ("default_parameters", "{n", Value::Null),
        ("supported_voices", "[n", Value::Null),
        ("links", "{", object! {"details": format!("/api/v1/models/{slug}/endpoints")}),
    ];
    let will_do = |name: &str, first: &str| {
        json::field(&fields, name).is_some_and(|field| field.value.starts_with(|c| first.contains(c)))
    };
    let missing = needed.iter().filter(|(name, first, _)| !will_do(name, first)).collect::<Vec<_>>();
    let mut kept = fields.clone();
    kept.retain(|field| !missing.iter().any(|(name, ..)| *name == field.name));
    let mut entry = json::object(&kept);
    entry.pop();
    for (name, _, value) in missing {
        entry.push_str(&format!(",\"{name}\":{value}"));
    }
    entry.push('}');
    entry
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(entry: &str) -> Model {
        Model::parse(entry, Kind::Chat).unwrap().0
    }

    #[test]
    fn what_a_model_can_do() {
        let model = chat(
            r#"{"id":"a/b:free","name":"B","created":1770000000,"object":null,"context_length":131072,"architecture":{"input_modalities":["text","image"],"output_modalities":["text"]},"supported_parameters":["tools","temperature"],"top_provider":{"context_length":65536,"max_completion_tokens":8192},"expiration_date":"2026-09-30","benchmarks":{"artificial_analysis":{"intelligence_index":45.5,"agentic_index":null}}}"#,
        );
        assert_eq!(model.can, Needs { tools: true, images: true, structured: false });
        assert_eq!(
            (model.context_length, model.max_output),
            (Some(65_536), Some(8192)),
            "where it is served"
        );
        assert_eq!(model.expires, NaiveDate::from_ymd_opt(2026, 9, 30));
        assert_eq!(model.indexes, Indexes { intelligence: Some(45.5), agentic: None });
        assert!(
            !model.json.contains(r#""object":null"#)
                && model.json.contains(r#""object":"model","owned_by":"a""#)
        );
    }

    #[test]
    fn what_is_there_stays_as_it_is_written() {
        let model = chat(r#"{"id":"c/d:free","pricing":{"prompt":"0"}, "n":1.0,"context_length":1e3}"#);
        assert!(
            model
                .json
                .starts_with(r#"{"id":"c/d:free","pricing":{"prompt":"0"},"n":1.0,"context_length":1e3,"#)
        );
        assert_eq!(model.context_length, Some(1000));
        for model in [model, Model::router(), Model::best(), Model::of_backup("groq", "llama-3.3")] {
            let entry = serde_json::from_str::<Value>(&model.json).unwrap();
            assert!(
                entry["created"].is_u64() && entry["architecture"]["input_modalities"].is_array(),
                "{entry}"
            );
            assert!(entry.as_object().unwrap().contains_key("supported_voices"));
        }
    }

    #[test]
    fn what_is_no_free_model_of_the_kind_is_none() {
        let is = |kind, id: &str, outputs: &str| {
            let entry = format!(r#"{{"id":"{id}","architecture":{{"output_modalities":{outputs}}}}}"#);
            Model::parse(&entry, kind).is_some_and(|(_, is_of_kind)| is_of_kind)
        };
        for (id, outputs, kind) in [
            ("a/b:free", r#"["text"]"#, Some(Kind::Chat)),
            ("a/b:free", "null", Some(Kind::Chat)),
            ("a/speech-writer:free", r#"["text"]"#, Some(Kind::Chat)),
            ("nvidia/nemotron-3.5-content-safety:free", r#"["text"]"#, None),
            ("meta/llama-guard-4:free", "null", None),
            ("a/b-embed-1:free", "null", Some(Kind::Embeddings)),
            ("a/b:free", r#"["embeddings"]"#, Some(Kind::Embeddings)),
            ("nvidia/llama-rerank-vl:free", "[]", Some(Kind::Rerank)),
            ("fish/s2:free", r#"["speech"]"#, Some(Kind::Speech)),
            ("a/image:free", r#"["image"]"#, None),
            ("a/paid", r#"["text"]"#, None),
            ("@preset/x:free", r#"["text"]"#, None),
        ] {
            let of = Kind::ALL.into_iter().filter(|other| is(*other, id, outputs)).collect::<Vec<_>>();
            let unsaid = kind == Some(Kind::Chat) && outputs == "null"; // a list of its own says what it is of
            assert!(
                if unsaid { of[0] == Kind::Chat } else { of == Vec::from_iter(kind) },
                "{id} {outputs}: {of:?}"
            );
        }
        assert!(Model::parse("7", Kind::Chat).is_none() && Model::parse(r#"{"id":7}"#, Kind::Chat).is_none());
    }
}
