//! `GET /v1/models`: the free models of the upstream, as it describes them.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::DateTime;

use crate::client::exchange::Reply;
use crate::dialect::Needs;
use crate::dialect::free_models::{ROUTER, is_free};
use crate::dialect::ollama::{self, Listed};
use crate::error::ApiError;
use crate::json;
use crate::live::Snapshot;
use crate::upstream::Upstream;

/// How long a list is good.
const CACHED_FOR: Duration = Duration::from_secs(600);
/// A list longer than this isn't one.
const MAX_LIST_BYTES: usize = 16 << 20;
/// 2026-02-01, when the router was released.
const ROUTER_CREATED: u64 = 1_769_904_000;

/// The list, for as long as it is good.
#[derive(Debug)]
pub struct Models {
    /// Where the upstream has it.
    path: &'static str,
    /// Held while the list is fetched, so that it is fetched once, whatever comes of it.
    last: Mutex<Option<Fetched>>,
}

#[derive(Debug)]
struct Fetched {
    when: Instant,
    upstream: Arc<Upstream>,
    /// `None` when the upstream couldn't be reached.
    models: Option<Arc<Vec<Model>>>,
}

/// A free model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What a request names it by.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Tokens that request and answer may have together.
    pub context_length: Option<u64>,
    /// What it can do.
    pub can: Needs,
    /// Seconds since 1970.
    created: u64,
    /// The object as the upstream wrote it, and what clients need beside.
    json: String,
}

impl Models {
    /// The list that the upstream has at this path.
    pub fn at(path: &'static str) -> Self {
        Self { path, last: Mutex::default() }
    }

    /// The ids of the free models there are, without the router.
    pub fn ids(&self, snapshot: &Snapshot) -> Vec<String> {
        let models = self.current(snapshot);
        models.iter().map(|model| model.id.clone()).filter(|id| id != ROUTER).collect()
    }

    /// Answers `GET /models`; `anthropic`, so that Anthropic's SDK can read it, too.
    pub fn list(&self, snapshot: &Snapshot, anthropic: bool) -> Reply {
        let models = self.current(snapshot);
        let data = models.iter().map(|model| model.json(anthropic)).collect::<Vec<_>>().join(",");
        let mut list = format!(r#"{{"object":"list","data":[{data}]"#);
        if let (true, Some(first), Some(last)) = (anthropic, models.first(), models.last()) {
            let (first, last) = (json::quoted(&first.id), json::quoted(&last.id));
            list.push_str(&format!(r#","has_more":false,"first_id":{first},"last_id":{last}"#));
        }
        list.push('}');
        Reply::json(200, list)
    }

    /// Answers `GET /models/{id}`.
    pub fn one(&self, snapshot: &Snapshot, id: &str, anthropic: bool) -> Reply {
        let id = percent_decoded(id);
        match self.current(snapshot).iter().find(|model| model.id == id) {
            Some(model) => Reply::json(200, model.json(anthropic).into_owned()),
            None => Reply::error("", &ApiError::no_such_model()),
        }
    }

    /// Answers Ollama's `GET /api/tags`.
    pub fn tags(&self, snapshot: &Snapshot) -> Reply {
        let models = self.current(snapshot);
        let tags = models.iter().map(|model| model.listed().tag().to_string()).collect::<Vec<_>>().join(",");
        Reply::json(200, format!(r#"{{"models":[{tags}]}}"#))
    }

    /// Answers Ollama's `POST /api/show`. A name that isn't free means what answers in its place.
    pub fn show(&self, snapshot: &Snapshot, body: &[u8]) -> Reply {
        let asked = match ollama::shown_model(body) {
            Ok(asked) => asked,
            Err(error) => return Reply::error("/api/show", &error),
        };
        let models = self.current(snapshot);
        let named = |id: &str| models.iter().find(|model| model.id == id);
        let shown = match (named(&asked), is_free(&asked)) {
            (Some(model), _) => Some(model),
            (None, true) => None,
            (None, false) => named(&snapshot.settings.model).or_else(|| models.first()),
        };
        match shown {
            Some(model) => Reply::json(200, model.listed().show().to_string()),
            None => Reply::error("/api/show", &ApiError::no_such_model()),
        }
    }

    /// The models there are, the router first.
    pub fn current(&self, snapshot: &Snapshot) -> Arc<Vec<Model>> {
        let alone = || Arc::new(vec![router()]);
        if snapshot.settings.test_mode {
            return alone();
        }
        let asked = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let good = last.as_ref().filter(|last| {
            let is_fresh = match last.models {
                Some(_) => last.when.elapsed() < CACHED_FOR,
                None => last.when > asked, // this request has waited for it; the next one tries again
            };
            is_fresh && Arc::ptr_eq(&last.upstream, &snapshot.upstream)
        });
        if let Some(fetched) = good {
            return fetched.models.clone().unwrap_or_else(alone);
        }
        let models = fetch(&snapshot.upstream, self.path).map(Arc::new);
        *last = Some(Fetched {
            when: Instant::now(),
            upstream: Arc::clone(&snapshot.upstream),
            models: models.clone(),
        });
        models.unwrap_or_else(alone)
    }
}

impl Model {
    /// Understands an entry of the upstream's list; `None` for what is none.
    fn parse(written: &str) -> Option<Self> {
        let fields = json::fields(written).ok()?;
        let value = |name: &str| json::field(&fields, name).map(|field| field.value);
        let id = value("id").and_then(json::string)?.into_owned();
        let list = |holder: &str, name: Option<&str>| {
            let holder = value(holder).unwrap_or_default();
            let inside = json::fields(holder).unwrap_or_default();
            let list = name.map_or(Some(holder), |name| json::field(&inside, name).map(|field| field.value));
            serde_json::from_str::<Vec<String>>(list.unwrap_or_default()).unwrap_or_default()
        };
        let parameters = list("supported_parameters", None);
        let supports = |names: &[&str]| parameters.iter().any(|known| names.contains(&known.as_str()));
        let owner = id.split('/').next().unwrap_or_default();
        let mut missing = String::new();
        for (name, is_there, given) in [
            ("object", value("object").is_some_and(|v| v.starts_with('"')), json::quoted("model")),
            ("created", value("created").is_some_and(|v| v.parse::<i64>().is_ok()), "0".to_owned()),
            ("owned_by", value("owned_by").is_some_and(|v| v.starts_with('"')), json::quoted(owner)),
        ] {
            if !is_there {
                missing.push_str(&format!(",\"{name}\":{given}"));
            }
        }
        let wrong = |field: &&json::Field<'_>| !missing.contains(&format!(",{}:", field.raw_name));
        let kept = fields.iter().filter(wrong).cloned().collect::<Vec<_>>();
        let json = match (missing.is_empty(), json::object(&kept).strip_suffix('}')) {
            (false, Some(object)) => format!("{object}{missing}}}"),
            _ => written.to_owned(),
        };
        Some(Self {
            name: value("name").and_then(json::string).map_or_else(|| id.clone(), |name| name.into_owned()),
            context_length: value("context_length").and_then(|n| n.parse::<f64>().ok()).map(|n| n as u64),
            can: Needs {
                tools: supports(&["tools"]),
                images: list("architecture", Some("input_modalities")).iter().any(|kind| kind == "image"),
                structured: supports(&["structured_outputs", "response_format"]),
            },
            created: value("created").and_then(|n| n.parse().ok()).unwrap_or(0),
            id,
            json,
        })
    }

    fn listed(&self) -> Listed<'_> {
        let Self { id, name, context_length, can, created, .. } = self;
        Listed { id, name, context_length: *context_length, can: *can, created: *created }
    }

    fn json(&self, anthropic: bool) -> Cow<'_, str> {
        match self.json.strip_suffix('}') {
            Some(object) if anthropic => {
                let created = DateTime::from_timestamp(self.created as i64, 0).unwrap_or_default();
                let (name, created) = (json::quoted(&self.name), created.format("%Y-%m-%dT%H:%M:%SZ"));
                let more = format!(r#""type":"model","display_name":{name},"created_at":"{created}""#);
                Cow::Owned(format!("{object},{more}}}"))
            }
            _ => Cow::Borrowed(&self.json),
        }
    }
}

/// What is known of the router where the upstream doesn't list it.
fn router() -> Model {
    let json = format!(
        r#"{{"id":"{ROUTER}","object":"model","created":{ROUTER_CREATED},"owned_by":"openrouter","name":"Free Models Router","context_length":200000}}"#
    );
    let can = Needs { tools: true, images: true, structured: true };
    Model {
        id: ROUTER.into(),
        name: "Free Models Router".into(),
        context_length: Some(200_000),
        can,
        created: ROUTER_CREATED,
        json,
    }
}

fn fetch(upstream: &Arc<Upstream>, path: &str) -> Option<Vec<Model>> {
    let mut call = upstream.get(path).ok()?;
    let mut body = Vec::new();
    let whole = call.read_whole(&mut body, MAX_LIST_BYTES).ok()?;
    if call.status() != 200 || !whole {
        return None;
    }
    free_models(std::str::from_utf8(&body).ok()?)
}

/// The router first, then all whose id ends in `:free`.
fn free_models(list: &str) -> Option<Vec<Model>> {
    let fields = json::fields(list).ok()?;
    let data = json::elements(json::field(&fields, "data")?.value)?;
    let mut models = vec![router()];
    for model in data.into_iter().filter_map(Model::parse) {
        if model.id == ROUTER {
            models[0] = Model { can: models[0].can, ..model };
        } else if is_free(&model.id) {
            models.push(model);
        }
    }
    Some(models)
}

/// Some clients write the slash in an id as `%2F` and the colon as `%3A`.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_first_and_the_rest_is_free() {
        let list = r#"{"data":[{"id":"a/b","x":1},{"id":"c/d:free","pricing":{"prompt":"0"}, "n":1.0},{"id":"openrouter/free","name":"R","created":7,"object":"model","owned_by":"o"},7]}"#;
        let models = free_models(list).unwrap();
        let json = models.iter().map(|m| m.json.as_str()).collect::<Vec<_>>();
        assert_eq!(
            json,
            [
                r#"{"id":"openrouter/free","name":"R","created":7,"object":"model","owned_by":"o"}"#,
                r#"{"id":"c/d:free","pricing":{"prompt":"0"},"n":1.0,"object":"model","created":0,"owned_by":"c"}"#
            ]
        );
        assert_eq!(free_models(r#"{"data":[]}"#).unwrap()[0].id, ROUTER);
        assert!(free_models("<html>").is_none());
    }

    #[test]
    fn what_a_model_can_do() {
        let model = Model::parse(
            r#"{"id":"a/b:free","name":"B","created":1770000000,"object":null,"context_length":131072,"architecture":{"input_modalities":["text","image"]},"supported_parameters":["tools","temperature"]}"#,
        )
        .unwrap();
        assert_eq!(model.can, Needs { tools: true, images: true, structured: false });
        assert_eq!(model.context_length, Some(131_072));
        assert!(model.json.ends_with(r#","object":"model","owned_by":"a"}"#), "{}", model.json);
        assert!(!model.json.contains("null"), "{}", model.json);
        let both = model.json(true);
        assert!(both.ends_with(r#""display_name":"B","created_at":"2026-02-02T02:40:00Z"}"#), "{both}");
        serde_json::from_str::<serde_json::Value>(&both).unwrap();
    }

    #[test]
    fn ids_in_addresses() {
        assert_eq!(percent_decoded("a%2Fb%3Afree"), "a/b:free");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%é"), "%é");
    }
}
