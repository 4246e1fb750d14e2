//! `GET /v1/models`: the free models of the upstream, as it describes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::exchange::Reply;
use crate::dialect::free_models::{ROUTER, is_free};
use crate::dialect::{CHAT_MODELS, Listed, Needs, Show};
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

    /// Where the upstream has it.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The ids of the free models there are.
    pub fn ids(&self, snapshot: &Snapshot) -> Vec<String> {
        self.current(snapshot).iter().map(|model| model.id.clone()).collect()
    }

    /// Answers with the list, as an API writes it.
    pub fn list(&self, snapshot: &Snapshot, write: fn(&[Listed<'_>]) -> String) -> Reply {
        let models = self.current(snapshot);
        Reply::json(200, write(&models.iter().map(Model::listed).collect::<Vec<_>>()))
    }

    /// Answers with one of them.
    pub fn show(&self, snapshot: &Snapshot, show: Show, asked: &str) -> Result<Reply, ApiError> {
        let models = self.current(snapshot);
        let named = |id: &str| models.iter().find(|model| model.id == id);
        let stand_in = || named(&snapshot.settings.model).or_else(|| models.first());
        let any_name = show.any_name && !is_free(asked);
        let shown = named(asked).or_else(|| stand_in().filter(|_| any_name));
        let shown = shown.ok_or_else(ApiError::no_such_model)?;
        Ok(Reply::json(200, (show.write)(&shown.listed(), asked)))
    }

    /// What is there without the upstream: the router, which chats and does nothing else.
    fn known(&self) -> Vec<Model> {
        if self.path == CHAT_MODELS { vec![router()] } else { Vec::new() }
    }

    /// The models there are, those that chat with the router first.
    pub fn current(&self, snapshot: &Snapshot) -> Arc<Vec<Model>> {
        let alone = || Arc::new(self.known());
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
        let models = fetch(&snapshot.upstream, self.path, self.known()).map(Arc::new);
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
        let Self { id, name, context_length, can, created, json } = self;
        Listed { id, name, context_length: *context_length, can: *can, created: *created, json }
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

fn fetch(upstream: &Arc<Upstream>, path: &str, known: Vec<Model>) -> Option<Vec<Model>> {
    let mut call = upstream.get(path).ok()?;
    let mut body = Vec::new();
    let whole = call.read_whole(&mut body, MAX_LIST_BYTES).ok()?;
    if call.status() != 200 || !whole {
        return None;
    }
    free_models(std::str::from_utf8(&body).ok()?, known)
}

/// What is `known`, then all whose id ends in `:free`.
fn free_models(list: &str, known: Vec<Model>) -> Option<Vec<Model>> {
    let fields = json::fields(list).ok()?;
    let data = json::elements(json::field(&fields, "data")?.value)?;
    let mut models = known;
    for model in data.into_iter().filter_map(Model::parse) {
        if model.id == ROUTER {
            if let Some(router) = models.first_mut().filter(|first| first.id == ROUTER) {
                *router = Model { can: router.can, ..model };
            }
        } else if is_free(&model.id) {
            models.push(model);
        }
    }
    Some(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_first_and_the_rest_is_free() {
        let list = r#"{"data":[{"id":"a/b","x":1},{"id":"c/d:free","pricing":{"prompt":"0"}, "n":1.0},{"id":"openrouter/free","name":"R","created":7,"object":"model","owned_by":"o"},7]}"#;
        let models = free_models(list, vec![router()]).unwrap();
        let json = models.iter().map(|m| m.json.as_str()).collect::<Vec<_>>();
        assert_eq!(
            json,
            [
                r#"{"id":"openrouter/free","name":"R","created":7,"object":"model","owned_by":"o"}"#,
                r#"{"id":"c/d:free","pricing":{"prompt":"0"},"n":1.0,"object":"model","created":0,"owned_by":"c"}"#
            ]
        );
        assert_eq!(free_models(r#"{"data":[]}"#, vec![router()]).unwrap()[0].id, ROUTER);
        assert!(free_models("<html>", Vec::new()).is_none());
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
    }
}
