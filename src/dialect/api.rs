//! What an API declares about itself, and the router that is built from all declarations.

use std::ops::Range;
use std::sync::LazyLock;

use super::{ALL, Dialect, Listed, Translated};
use crate::encoding::percent_decoded;
use crate::error::ApiError;

/// An API as its clients see it. Each is declared in its own file and listed in [`ALL`], and nowhere else.
#[derive(Debug)]
pub struct Api {
    /// The name in the panel.
    pub name: &'static str,
    /// All routes of the API.
    pub routes: &'static [Route],
    /// The prefixes that may stand before the patterns of the routes. (`/v1`, `/api/v1`, `/openai/v1` and no prefix
    /// mean the same everywhere.)
    pub bases: &'static [&'static str],
    /// The base that is shown to people.
    pub shown_base: &'static str,
    /// Header fields that only clients of this API send: they decide where several APIs have the same route.
    pub identifying_headers: &'static [&'static str],
    /// Header fields in which clients send their key, besides `Authorization`.
    pub key_headers: &'static [&'static str],
    /// The query parameter in which clients may send their key.
    pub key_parameter: Option<&'static str>,
    /// Writes the body of one of the proxy's own errors.
    pub error_body: fn(&ApiError) -> String,
}

impl Api {
    /// Defaults for what most APIs don't have, or have in the same form as OpenAI's.
    pub const DEFAULT: Self = Self {
        name: "",
        routes: &[],
        bases: &[""],
        shown_base: "/v1",
        identifying_headers: &[],
        key_headers: &[],
        key_parameter: None,
        error_body: ApiError::body,
    };

    /// Returns a route's path as it is shown to people.
    pub fn shown(&self, route: &Route) -> String {
        format!("{}{}", self.shown_base, route.pattern)
    }
}

/// A method and a path that an API serves.
#[derive(Debug)]
pub struct Route {
    /// The method; `GET` serves `HEAD`, too.
    pub method: &'static str,
    /// The path after the base, with at most one [`PARAMETER`]: `/models/{model}:generateContent`.
    pub pattern: &'static str,
    /// Who answers a request, and how.
    pub action: Action,
    /// What the route is for, on the front page; empty if it needs no line of its own there.
    pub about: &'static str,
    /// The shortest body that the route accepts.
    pub sample: &'static str,
}

/// The parameter of a path: a model's name, which may have slashes and colons.
pub const PARAMETER: &str = "{model}";

impl Route {
    /// A route for `GET`.
    pub const fn get(pattern: &'static str, action: Action) -> Self {
        Self { method: "GET", pattern, action, about: "", sample: "" }
    }

    /// A route for `POST`.
    pub const fn post(pattern: &'static str, action: Action) -> Self {
        Self { method: "POST", pattern, action, about: "", sample: "{}" }
    }

    /// Adds the line on the front page.
    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Adds the shortest body that the route accepts.
    pub const fn sample(self, sample: &'static str) -> Self {
        Self { sample, ..self }
    }
}

/// How a request is answered.
#[derive(Clone, Copy)]
pub enum Action {
    /// A model answers in an API that the upstream speaks.
    Ask(&'static dyn Dialect),
    /// A model answers in another API than the client's; request and answer are translated.
    Translate(&'static dyn Translated),
    /// The proxy lists the free models that the upstream lists at this path; the function writes the list.
    List(&'static str, fn(&[Listed<'_>]) -> String),
    /// The proxy shows one of the free models.
    Show(Show),
    /// The proxy answers from the request's body and the address that it was sent to.
    Local(fn(Vec<u8>, &str) -> Result<String, ApiError>),
    /// The proxy refuses.
    Refuse(fn() -> ApiError),
}

/// Reads a model's name from a body.
pub type ReadName = fn(&[u8]) -> Result<String, ApiError>;

/// How a single model is shown.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// Reads the model's name from the body; `None` if the name stands in the path.
    pub named_in: Option<ReadName>,
    /// Whether a name that isn't free stands for the model that would answer in its place.
    pub any_name: bool,
    /// Writes the model; the text is the name that the client asked for.
    pub write: fn(&Listed<'_>, &str) -> String,
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ask(_) => "Ask",
            Self::Translate(_) => "Translate",
            Self::List(..) => "List",
            Self::Show(_) => "Show",
            Self::Local(_) => "Local",
            Self::Refuse(_) => "Refuse",
        })
    }
}

impl Action {
    /// Returns the API that the upstream is asked in, if a model answers.
    pub fn native(&self) -> Option<&'static dyn Dialect> {
        match self {
            Self::Ask(dialect) => Some(*dialect),
            Self::Translate(translated) => Some(translated.native()),
            _ => None,
        }
    }
}

/// What replaces a model that may not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// `MODEL`, and then any other model: each answer is as good.
    Model,
    /// Only a model that was named: the numbers or the voice of another one would mean something else.
    Named(Named),
}

/// A kind of models that can't stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// What the models make, as the beginning of a sentence in English and Chinese: `Embeddings`.
    pub what: [&'static str; 2],
    /// The setting that names such a model.
    pub setting: &'static str,
    /// The path at which the upstream lists such models.
    pub list: &'static str,
}

/// The route of a request.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The API of the request.
    pub api: &'static Api,
    /// The route in the API.
    pub route: &'static Route,
    parameter: Range<usize>,
}

impl Routed {
    /// Returns the model named in the path.
    pub fn model(&self, path: &str) -> String {
        let name = percent_decoded(self.parameter(path));
        name.strip_prefix("models/").map(str::to_owned).unwrap_or(name) // Google's own names begin like this
    }

    /// Returns the part of the path that the [`PARAMETER`] stands for, as it is written there.
    fn parameter<'p>(&self, path: &'p str) -> &'p str {
        path.get(self.parameter.clone()).unwrap_or_default()
    }

    /// Returns the path with the parameter's name, as it is shown to people.
    pub fn shown(&self) -> String {
        self.api.shown(self.route)
    }

    /// Returns the same path with the parameter filled in from `path`.
    pub fn shown_with(&self, path: &str) -> String {
        self.shown().replace(PARAMETER, self.parameter(path))
    }
}

/// A base and a pattern, split at the parameter.
struct Entry {
    api: &'static Api,
    route: &'static Route,
    /// The whole path, or the part before the parameter.
    before: String,
    /// The part after the parameter, if there is one.
    behind: Option<&'static str>,
}

impl Entry {
    /// Returns the place of the parameter in a path that matches.
    fn fits(&self, path: &str) -> Option<Range<usize>> {
        let Some(behind) = self.behind else {
            return (path == self.before).then_some(0..0);
        };
        let rest = path.strip_prefix(self.before.as_str())?;
        let length = match behind.strip_prefix(':') {
            None => rest.strip_suffix(behind)?.len(),
            // The colon may be percent-encoded, too.
            Some(verb) => {
                let rest = rest.strip_suffix(verb)?;
                let colons = [":", "%3A", "%3a"];
                colons.into_iter().find_map(|colon| rest.strip_suffix(colon))?.len()
            }
        };
        (length > 0).then(|| self.before.len()..self.before.len() + length)
    }

    /// Whether the pattern doesn't end with a parameter, which could match anything.
    fn is_definite(&self) -> bool {
        self.behind != Some("")
    }
}

/// All routes: those without a parameter first, those that end with one last, otherwise in the table's order.
static ROUTER: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let mut entries = Vec::new();
    for api in ALL {
        for (base, route) in api.bases.iter().flat_map(|base| api.routes.iter().map(move |r| (base, r))) {
            let (before, behind) = match route.pattern.split_once(PARAMETER) {
                Some((before, behind)) => (before, Some(behind)),
                None => (route.pattern, None),
            };
            entries.push(Entry { api, route, before: format!("{base}{before}"), behind });
        }
    }
    entries.sort_by_key(|entry| match entry.behind {
        None => 0,
        Some("") => 2,
        Some(_) => 1,
    });
    entries
});

/// Finds the route of a request. `has` says whether the request has a header field of this name.
pub fn route(method: &str, path: &str, has: impl Fn(&str) -> bool) -> Option<Routed> {
    let mut found: Option<Routed> = None;
    let mut is_named = false;
    for entry in ROUTER.iter() {
        let Some(parameter) = entry.fits(path) else { continue };
        is_named |= entry.is_definite();
        // A path that is a route by itself doesn't name a model, whatever the method.
        if entry.route.method != method || is_named && !entry.is_definite() {
            continue;
        }
        let is_theirs = found.is_some() && entry.api.identifying_headers.iter().any(|mark| has(mark));
        if found.is_none() || is_theirs {
            found = Some(Routed { api: entry.api, route: entry.route, parameter });
        }
        if is_theirs {
            break;
        }
    }
    found
}

/// Returns the API of a client whose header fields tell which one it speaks; `has` is as for [`route`].
pub fn of_client(has: impl Fn(&str) -> bool) -> Option<&'static Api> {
    ALL.iter().copied().find(|api| api.identifying_headers.iter().any(|mark| has(mark)))
}

/// Returns the methods that a path accepts, as `Allow` lists them.
pub fn methods(path: &str) -> Vec<&'static str> {
    let mut methods = Vec::new();
    let mut is_named = false;
    for entry in ROUTER.iter().filter(|entry| entry.fits(path).is_some()) {
        is_named |= entry.is_definite();
        if is_named && !entry.is_definite() {
            break;
        }
        let all: &[&str] = if entry.route.method == "GET" { &["GET", "HEAD"] } else { &[entry.route.method] };
        methods.extend(all.iter().filter(|method| !methods.contains(*method)).collect::<Vec<_>>());
    }
    methods
}

/// Finds a route, and its API, at the end of a longer path: a tool has appended it to the base URL that it was given.
pub fn appended(path: &str) -> Option<(&str, &'static Api)> {
    let places = path.match_indices('/').map(|(at, _)| &path[at..]).skip(1);
    places.into_iter().find_map(|end| {
        let entry = ROUTER.iter().find(|entry| entry.is_definite() && entry.fits(end).is_some())?;
        Some((end, entry.api))
    })
}

/// Returns the API whose clients use a path, which may also lie below a route or a base, or end with a route.
fn of(path: &str) -> Option<&'static Api> {
    let find = |is_meant: &dyn Fn(&Entry) -> bool| ROUTER.iter().find(|entry| is_meant(entry)).map(|e| e.api);
    let below = |start: &str| path.strip_prefix(start).is_some_and(|rest| rest.starts_with('/'));
    let is_at_its_base = |api: &&Api| api.bases.iter().any(|base| !base.is_empty() && below(base));
    find(&|entry| entry.fits(path).is_some())
        .or_else(|| find(&|entry| entry.behind.is_none() && below(&entry.before)))
        .or_else(|| appended(path).map(|(_, api)| api))
        .or_else(|| ALL.iter().copied().find(is_at_its_base))
}

/// Returns the body of one of the proxy's own errors in the shape that the tools using this path expect.
pub fn error_body(path: &str, error: &ApiError) -> String {
    of(path).map_or_else(|| error.body(), |api| (api.error_body)(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(method: &str, path: &str, header: &str) -> Option<(&'static str, &'static str)> {
        let routed = route(method, path, |name| name == header)?;
        Some((routed.api.name, routed.route.pattern))
    }

    #[test]
    fn each_route_leads_to_its_api() {
        for api in ALL {
            for route in api.routes {
                let path = format!("{}{}", api.bases[0], route.pattern).replace(PARAMETER, "a/b:free");
                let mark = api.identifying_headers.first().copied().unwrap_or_default();
                let found = led(route.method, &path, mark);
                assert_eq!(found, Some((api.name, route.pattern)), "{} {path}", route.method);
                assert!(methods(&path).contains(&route.method));
            }
        }
        assert_eq!(led("GET", "/models", ""), Some(("chat", "/models")));
        assert_eq!(led("GET", "/models", "anthropic-version"), Some(("messages", "/models")));
        assert_eq!(led("GET", "/models/user", "").map(|(_, pattern)| pattern), Some("/models/user"));
        let one = route("GET", "/models/a%2Fb:free", |_| false).unwrap();
        assert_eq!(one.model("/models/a%2Fb:free"), "a/b:free");
        let googles = route("GET", "/models/models%2Fa/b:free", |_| false).unwrap();
        assert_eq!(googles.model("/models/models%2Fa/b:free"), "a/b:free");
        assert_eq!(methods("/models"), ["GET", "HEAD"]);
        for nothing in ["/models/", "/chat", "/nowhere", "/"] {
            assert!(methods(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn errors_speak_as_the_clients_of_a_path_expect() {
        let error = ApiError::stopping();
        let messages = (super::super::messages::API.error_body)(&error);
        for path in ["/messages", "/messages/count_tokens", "/messages/batches", "/v1/messages"] {
            assert_eq!(error_body(path, &error), messages, "{path}");
        }
        assert!(error_body("/api/chat/x", &error).starts_with(r#"{"error":"#));
        for path in ["/nowhere", "/api/nowhere", "/models/x", "/api/openai/chat/completions", "/"] {
            assert_eq!(error_body(path, &error), error.body(), "{path}");
        }
    }
}
