//! `GET /v1/models`: the free models of the upstream, as it describes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::exchange::Reply;
use crate::dialect::free_models::ROUTER;
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

#[derive(Debug, Clone)]
struct Model {
    id: String,
    /// The object as the upstream wrote it.
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

    /// Answers `GET /models`.
    pub fn list(&self, snapshot: &Snapshot) -> Reply {
        let models = self.current(snapshot);
        let data = models.iter().map(|model| model.json.as_str()).collect::<Vec<_>>().join(",");
        Reply::json(200, format!(r#"{{"object":"list","data":[{data}]}}"#))
    }

    /// Answers `GET /models/{id}`.
    pub fn one(&self, snapshot: &Snapshot, id: &str) -> Reply {
        let id = percent_decoded(id);
        match self.current(snapshot).iter().find(|model| model.id == id) {
            Some(model) => Reply::json(200, model.json.clone()),
            None => Reply::error("", &ApiError::no_such_model()),
        }
    }

    fn current(&self, snapshot: &Snapshot) -> Arc<Vec<Model>> {
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

/// What is known of the router where the upstream doesn't list it.
fn router() -> Model {
    let json = format!(
        r#"{{"id":"{ROUTER}","object":"model","created":{ROUTER_CREATED},"owned_by":"openrouter","name":"Free Models Router","context_length":200000}}"#
    );
    Model { id: ROUTER.into(), json }
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
    for written in data {
        let fields = json::fields(written).unwrap_or_default();
        let Some(id) = json::field(&fields, "id").and_then(|id| json::string(id.value)) else {
            continue;
        };
        let model = Model { id: id.into_owned(), json: written.to_owned() };
        if model.id == ROUTER {
            models[0] = model;
        } else if model.id.ends_with(":free") {
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
        let list = r#"{"data":[{"id":"a/b","x":1},{"id":"c/d:free","pricing":{"prompt":"0"}, "n":1.0},{"id":"openrouter/free","name":"R"},7]}"#;
        let models = free_models(list).unwrap();
        let json = models.iter().map(|m| m.json.as_str()).collect::<Vec<_>>();
        assert_eq!(
            json,
            [
                r#"{"id":"openrouter/free","name":"R"}"#,
                r#"{"id":"c/d:free","pricing":{"prompt":"0"}, "n":1.0}"#
            ]
        );
        assert_eq!(free_models(r#"{"data":[]}"#).unwrap()[0].id, ROUTER);
        assert!(free_models("<html>").is_none());
    }

    #[test]
    fn ids_in_addresses() {
        assert_eq!(percent_decoded("a%2Fb%3Afree"), "a/b:free");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%é"), "%é");
    }
}
