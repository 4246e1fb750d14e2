//! The free models that the upstream lists: for `GET /v1/models` and the like, and for choosing the next model.
//!
//! A list is fetched by a thread of its own when it is first needed, and again when an old one is used: only requests
//! that come before the first list wait for it, and a program that nobody uses does nothing.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::model::{Kind, Model, chats_by_name};
use crate::client::exchange::Reply;
use crate::dialect::free_models::{self, ROUTER, is_free};
use crate::dialect::model_name::{BEST, Target};
use crate::dialect::{Listed, Show};
use crate::encoding::percent_decoded;
use crate::error::ApiError;
use crate::json;
use crate::live::Snapshot;
use crate::sync::{lock, unpoisoned};
use crate::upstream::Upstream;

/// How long a list is good.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// How long after a failed fetch a list isn't asked for again.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// How long the first requests that need a list wait for it.
const FIRST_WAIT: Duration = Duration::from_secs(3);
/// The maximum length of a list.
const MAX_LIST_BYTES: usize = 16 << 20;
/// The path of the list of those chat models that the account's privacy settings allow.
const OF_THE_ACCOUNT: &str = "/models/user";

/// The kinds of models that don't chat.
const OTHERS: [Kind; 3] = [Kind::Embeddings, Kind::Rerank, Kind::Speech];

/// The free models of one kind that the upstream lists.
#[derive(Debug, Default)]
pub struct Listing {
    /// The router, if it is listed.
    router: Option<Arc<Model>>,
    /// The free models, in the upstream's order.
    pub models: Vec<Arc<Model>>,
    /// The ids of listed free models that are for something else.
    others: Vec<String>,
}

impl Listing {
    /// Returns the router as it is listed, else as it is known.
    pub fn router(&self) -> Arc<Model> {
        self.router.clone().unwrap_or_else(|| Arc::new(Model::router()))
    }
}

/// The lists of all kinds.
#[derive(Debug, Default)]
pub struct Models {
    lists: [Arc<List>; Kind::ALL.len()],
}

/// One list, and the state of its fetches.
#[derive(Debug, Default)]
struct List {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The upstream whose list this is.
    upstream: Option<Arc<Upstream>>,
    listing: Option<Arc<Listing>>,
    fetch: Fetch,
    /// Whether no fetch from this upstream has ended yet.
    is_first: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum Fetch {
    #[default]
    Never,
    /// Since when a fetch has been running.
    UnderWay(Instant),
    /// When the last fetch ended: `Got` with a list, `Failed` without one.
    Got(Instant),
    Failed(Instant),
}

impl Fetch {
    fn is_due(self) -> bool {
        match self {
            Self::Never => true,
            Self::UnderWay(_) => false,
            Self::Got(when) => when.elapsed() >= GOOD_FOR,
            Self::Failed(when) => when.elapsed() >= MISSING_FOR,
        }
    }
}

impl Models {
    /// Returns the free models of a kind. Waits for the very first list while it is being fetched.
    pub fn listing(&self, kind: Kind, snapshot: &Snapshot) -> Arc<Listing> {
        if snapshot.settings.test_mode {
            return Arc::default();
        }
        let list = &self.lists[kind as usize];
        let mut state = list.fresh_state(kind, snapshot);
        if let Some(since) = state.awaited_since() {
            let left = FIRST_WAIT.saturating_sub(since.elapsed());
            let unknown = |state: &mut State| state.is_first && state.is_of(&snapshot.upstream);
            let waited = list.changed.wait_timeout_while(state, left, unknown);
            state = unpoisoned(waited).0;
        }
        state.listing.clone().filter(|_| state.is_of(&snapshot.upstream)).unwrap_or_default()
    }

    /// Returns whether [`Models::listing`] doesn't wait for any of these kinds. Has them fetched if they are due.
    fn are_at_hand(&self, kinds: &[Kind], snapshot: &Snapshot) -> bool {
        let is_awaited =
            |kind: &Kind| self.lists[*kind as usize].fresh_state(*kind, snapshot).awaited_since().is_some();
        // Not `any`, which would stop at the first: all are fetched at the same time.
        snapshot.settings.test_mode || kinds.iter().filter(|kind| is_awaited(kind)).count() == 0
    }

    /// Returns the listings of several kinds, which are fetched at the same time.
    fn listings(&self, kinds: &[Kind], snapshot: &Snapshot) -> Vec<(Kind, Arc<Listing>)> {
        if !snapshot.settings.test_mode {
            kinds.iter().for_each(|kind| drop(self.lists[*kind as usize].fresh_state(*kind, snapshot)));
        }
        kinds.iter().map(|kind| (*kind, self.listing(*kind, snapshot))).collect()
    }

    /// Returns the free model with this id that is for something else than chatting.
    pub fn of_another_kind(&self, id: &str, snapshot: &Snapshot) -> Option<(Kind, Arc<Model>)> {
        let listings = self.listings(&OTHERS, snapshot);
        let find = |(kind, listing): &(Kind, Arc<Listing>)| {
            let found = listing.models.iter().find(|model| model.id == id)?;
            Some((*kind, Arc::clone(found)))
        };
        listings.iter().find_map(find)
    }

    /// Has the list of chat models fetched if the settings say that requests will need it, so that none waits for it.
    pub fn fetch_ahead(&self, snapshot: &Snapshot) {
        let settings = &snapshot.settings;
        let names_best =
            settings.model == BEST || settings.model_map.iter().any(|map| *map.to() == Target::Best);
        if names_best && settings.key.is_some() && !settings.test_mode {
            drop(self.lists[Kind::Chat as usize].fresh_state(Kind::Chat, snapshot));
        }
    }

    /// Returns whether one can chat with a model: by the list, else by the model's name. Nothing is fetched for this.
    pub fn chats(&self, id: &str) -> bool {
        let Some(listing) = self.lists[Kind::Chat as usize].lock().listing.clone() else {
            return chats_by_name(id);
        };
        let is_listed = listing.models.iter().any(|model| model.id == id);
        is_listed || chats_by_name(id) && !listing.others.iter().any(|other| other == id)
    }

    /// Returns the ids of the free models of a kind.
    pub fn ids(&self, kind: Kind, snapshot: &Snapshot) -> Vec<String> {
        self.listing(kind, snapshot).models.iter().map(|model| model.id.clone()).collect()
    }

    /// Returns all models that a request may name: the router first, `best` second, then the listed chat models, and
    /// those of the backups.
    pub fn named(&self, snapshot: &Snapshot) -> Vec<Arc<Model>> {
        let listing = self.listing(Kind::Chat, snapshot);
        let backups = snapshot.settings.backups.iter();
        let of_backups = backups.flat_map(|backup| {
            backup.models.iter().map(|model| Arc::new(Model::of_backup(&backup.name, model)))
        });
        let first = [listing.router(), Arc::new(Model::best())];
        first.into_iter().chain(listing.models.iter().cloned()).chain(of_backups).collect()
    }

    /// Answers with the list of what the upstream has at this path, as written by `write`; `None` if the list would
    /// have to be waited for, and `may_wait` is false.
    pub fn list(
        &self,
        path: &str,
        query: Option<&str>,
        snapshot: &Snapshot,
        may_wait: bool,
        write: fn(&[Listed<'_>]) -> String,
    ) -> Option<Reply> {
        let kind = Kind::at(path);
        let others = if kind == Kind::Chat { kinds_wanted(query.unwrap_or_default()) } else { Vec::new() };
        if !may_wait && !self.are_at_hand(&[&others[..], &[kind]].concat(), snapshot) {
            return None;
        }
        let models = match kind {
            Kind::Chat => {
                let others = self.listings(&others, snapshot);
                let others = others.iter().flat_map(|(_, listing)| listing.models.iter().cloned());
                self.named(snapshot).into_iter().chain(others).collect()
            }
            kind => self.listing(kind, snapshot).models.clone(),
        };
        Some(Reply::json(200, write(&models.iter().map(|model| model.listed()).collect::<Vec<_>>())))
    }

    /// Answers with one of the models; `None` if a list would have to be waited for, and `may_wait` is false.
    pub fn show(
        &self,
        snapshot: &Snapshot,
        may_wait: bool,
        show: Show,
        asked: &str,
    ) -> Option<Result<Reply, ApiError>> {
        let is_at_hand = |kinds: &[Kind]| may_wait || self.are_at_hand(kinds, snapshot);
        if !is_at_hand(&[Kind::Chat]) {
            return None;
        }
        let models = self.named(snapshot);
        let named = |id: &str| models.iter().find(|model| model.id == id).cloned();
        let stand_in = || named(&snapshot.settings.model).or_else(|| models.first().cloned());
        let of_another_kind = || self.of_another_kind(asked, snapshot).map(|(_, model)| model);
        let found = match (named(asked), is_free(asked), show.any_name) {
            (None, true, false) if !is_at_hand(&OTHERS) => return None,
            (None, true, false) => of_another_kind(),
            (None, false, true) => stand_in(),
            (found, ..) => found,
        };
        let shown = found.ok_or_else(ApiError::no_such_model);
        Some(shown.map(|shown| Reply::json(200, (show.write)(&shown.listed(), asked))))
    }
}

impl List {
    /// Locks the state, and has a new list fetched if the present one is old or another upstream's.
    fn fresh_state(self: &Arc<Self>, kind: Kind, snapshot: &Snapshot) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if !state.is_of(&snapshot.upstream) {
            *state =
                State { upstream: Some(Arc::clone(&snapshot.upstream)), is_first: true, ..State::default() };
        }
        if state.fetch.is_due() {
            let (list, upstream) = (Arc::clone(self), Arc::clone(&snapshot.upstream));
            let has_key = snapshot.settings.key.is_some();
            let fetch = move || list.fetched(&upstream, fetch(&upstream, kind, has_key));
            let started = thread::Builder::new().name("models".into()).spawn(fetch);
            let now = Instant::now();
            state.fetch = if started.is_ok() { Fetch::UnderWay(now) } else { Fetch::Failed(now) };
        }
        state
    }

    /// Takes the result of a fetch. The old list stays if no other came.
    fn fetched(&self, upstream: &Arc<Upstream>, listing: Option<Listing>) {
        let mut state = self.lock();
        if !state.is_of(upstream) {
            return; // the settings have changed meanwhile
        }
        let now = Instant::now();
        state.fetch = if listing.is_some() { Fetch::Got(now) } else { Fetch::Failed(now) };
        state.is_first = false;
        if let Some(listing) = listing {
            state.listing = Some(Arc::new(listing));
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Returns since when the very first list has been being fetched; `None` if it isn't.
    fn awaited_since(&self) -> Option<Instant> {
        match self.fetch {
            Fetch::UnderWay(since) if self.is_first => Some(since),
            _ => None,
        }
    }

    fn is_of(&self, upstream: &Arc<Upstream>) -> bool {
        self.upstream.as_ref().is_some_and(|known| Arc::ptr_eq(known, upstream))
    }
}

fn fetch(upstream: &Arc<Upstream>, kind: Kind, has_key: bool) -> Option<Listing> {
    let get = |path: &str| {
        let mut call = upstream.get(path).ok()?;
        let mut body = Vec::new();
        let whole = call.read_whole(&mut body, MAX_LIST_BYTES).ok()?;
        let text = std::str::from_utf8(&body).ok().filter(|_| call.status() == 200 && whole)?;
        free_models(text, kind)
    };
    let of_the_account = (kind == Kind::Chat && has_key).then(|| get(OF_THE_ACCOUNT)).flatten();
    of_the_account.or_else(|| get(kind.path()))
}

/// Returns the free models of a list, each id once.
fn free_models(list: &str, kind: Kind) -> Option<Listing> {
    let fields = json::fields(list).ok()?;
    let data = json::elements(json::field(&fields, "data")?.value)?;
    let mut listing = Listing::default();
    let mut known = HashSet::new();
    for (model, is_of_kind) in data.into_iter().filter_map(|entry| Model::parse(entry, kind)) {
        if !known.insert(model.id.clone()) {
            continue;
        }
        if model.id == ROUTER {
            listing.router = Some(Arc::new(model.as_router()));
        } else if is_of_kind {
            listing.models.push(Arc::new(model));
        } else {
            listing.others.push(model.id);
        }
    }
    if kind == Kind::Chat {
        free_models::remember_listed(known.iter().map(String::as_str));
    }
    Some(listing)
}

/// Returns the kinds other than chat models that `?output_modalities=` asks for.
fn kinds_wanted(query: &str) -> Vec<Kind> {
    let value = query.split('&').find_map(|part| part.strip_prefix("output_modalities="));
    let value = percent_decoded(value.unwrap_or_default());
    let wanted = value.split(',').map(str::trim).collect::<Vec<_>>();
    OTHERS.into_iter().filter(|kind| wanted.contains(&"all") || wanted.contains(&kind.output())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_ones_of_a_list_each_once() {
        let list = r#"{"data":[{"id":"a/b","x":1},{"id":"c/d:free"},{"id":"openrouter/free","name":"R"},7,{"id":"c/d:free","x":2},{"id":"e/guard:free"}]}"#;
        let listing = free_models(list, Kind::Chat).unwrap();
        assert_eq!(listing.router.unwrap().name, "R");
        let ids = listing.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids, ["c/d:free"]);
        assert!(free_models(r#"{"data":[]}"#, Kind::Chat).unwrap().models.is_empty());
        for none in ["<html>", "{}", r#"{"data":{}}"#, "[]"] {
            assert!(free_models(none, Kind::Chat).is_none(), "{none}");
        }
    }

    #[test]
    fn kinds_are_asked_for_by_what_they_make() {
        let others = [Kind::Embeddings, Kind::Rerank, Kind::Speech];
        assert_eq!(kinds_wanted("a=b&output_modalities=all"), others);
        assert_eq!(kinds_wanted("output_modalities=text%2Cspeech,rerank"), [Kind::Rerank, Kind::Speech]);
        assert_eq!(kinds_wanted("output_modalities=image&x=all"), []);
    }
}
