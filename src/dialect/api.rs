//! What an API declares about itself, and the router made of all that is declared.

use std::ops::Range;
use std::sync::LazyLock;

use super::{ALL, Dialect, Listed, Translated};
use crate::encoding::percent_decoded;
use crate::error::ApiError;

/// An API as its clients meet it. Each is declared in its own file and named in [`ALL`], and nowhere else.
#[derive(Debug)]
pub struct Api {
    /// What the panel calls it.
    pub name: &'static str,
    /// All that can be asked in it.
    pub routes: &'static [Route],
    /// What stands before the patterns of its routes: any of these. (`/v1`, `/api/v1`, `/openai/v1` and nothing mean the
    /// same everywhere.)
    pub bases: &'static [&'static str],
    /// The one of them that people are told.
    pub shown_base: &'static str,
    /// Header fields that only its clients send: where several APIs have the same route, they decide.
    pub marks: &'static [&'static str],
    /// Header fields in which its clients send their key, beside `Authorization`.
    pub key_headers: &'static [&'static str],
    /// The parameter of the query in which they may.
    pub key_parameter: Option<&'static str>,
    /// An error of our own.
    pub error_body: fn(&ApiError) -> String,
}

impl Api {
    /// What most APIs don't have, or have like OpenAI's.
    pub const DEFAULT: Self = Self {
        name: "",
        routes: &[],
        bases: &[""],
        shown_base: "/v1",
        marks: &[],
        key_headers: &[],
        key_parameter: None,
        error_body: ApiError::body,
    };

    /// A route's path, as people are told of it.
    pub fn shown(&self, route: &Route) -> String {
        format!("{}{}", self.shown_base, route.pattern)
    }
}

/// One thing that can be asked.
#[derive(Debug)]
pub struct Route {
    /// `GET` serves `HEAD`, too.
    pub method: &'static str,
    /// The path behind the base, with a [`PARAMETER`] at most: `/models/{model}:generateContent`.
    pub pattern: &'static str,
    /// Who answers, and how.
    pub action: Action,
    /// What it is for, on the front page; empty where that needs no line of its own.
    pub about: &'static str,
    /// The shortest body that it takes.
    pub sample: &'static str,
}

/// What a client puts into a path: a model's name, which may have slashes and colons.
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

    /// The same with its line on the front page.
    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// The same with the shortest body that it takes.
    pub const fn sample(self, sample: &'static str) -> Self {
        Self { sample, ..self }
    }
}

/// How a request is answered.
#[derive(Clone, Copy)]
pub enum Action {
    /// By a model, in an API that the upstream knows.
    Ask(&'static dyn Dialect),
    /// By a model, in another API than the client's.
    Translate(&'static dyn Translated),
    /// With the free models that the upstream lists at this path, written in this way.
    List(&'static str, fn(&[Listed<'_>]) -> String),
    /// With one of the free models.
    Show(Show),
    /// Here, from the request's body and the address that it was sent to.
    Local(fn(Vec<u8>, &str) -> Result<String, ApiError>),
    /// With a refusal.
    Refuse(fn() -> ApiError),
}

/// Finds a model's name in a body.
pub type ReadName = fn(&[u8]) -> Result<String, ApiError>;

/// How one model is shown.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// The model that is asked about, out of the body; `None` where it stands in the path.
    pub named_in: Option<ReadName>,
    /// A name that isn't free means what would answer in its place.
    pub any_name: bool,
    /// How it is written; beside it the name that was asked for.
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
    /// The API that the upstream is asked in, where a model answers.
    pub fn native(&self) -> Option<&'static dyn Dialect> {
        match self {
            Self::Ask(dialect) => Some(*dialect),
            Self::Translate(translated) => Some(translated.native()),
            _ => None,
        }
    }
}

/// What stands in for a model that may not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// `MODEL`, and then any other: each answer is as good.
    Model,
    /// Only a model that was named: another one's numbers, or its voice, would mean something else.
    Named(Named),
}

/// Models of a kind, of which none stands in for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// What they make, at the beginning of a sentence: `Embeddings`.
    pub what: [&'static str; 2],
    /// The setting that names one.
    pub setting: &'static str,
    /// Where the upstream lists them.
    pub list: &'static str,
}

/// Where a request leads.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The API that it is asked in.
    pub api: &'static Api,
    /// Its route.
    pub route: &'static Route,
    parameter: Range<usize>,
}

impl Routed {
    /// The model that stands in the path.
    pub fn model(&self, path: &str) -> String {
        let name = percent_decoded(self.parameter(path));
        name.strip_prefix("models/").map(str::to_owned).unwrap_or(name) // as Google's own names begin
    }

    /// What stands in the path for the [`PARAMETER`], as it is written there.
    fn parameter<'p>(&self, path: &'p str) -> &'p str {
        path.get(self.parameter.clone()).unwrap_or_default()
    }

    /// Its path with the parameter's name, as people are told of it.
    pub fn shown(&self) -> String {
        self.api.shown(self.route)
    }

    /// The same with what stands there in this path.
    pub fn shown_with(&self, path: &str) -> String {
        self.shown().replace(PARAMETER, self.parameter(path))
    }
}

/// A pattern with its base, taken apart.
struct Entry {
    api: &'static Api,
    route: &'static Route,
    /// All of the path, or what stands before the parameter.
    before: String,
    /// What stands behind it.
    behind: Option<&'static str>,
}

impl Entry {
    /// Where the parameter stands in a path that fits.
    fn fits(&self, path: &str) -> Option<Range<usize>> {
        let Some(behind) = self.behind else {
            return (path == self.before).then_some(0..0);
        };
        let rest = path.strip_prefix(self.before.as_str())?;
        let length = match behind.strip_prefix(':') {
            None => rest.strip_suffix(behind)?.len(),
            // The colon, too, may be written as in a query.
            Some(verb) => {
                let rest = rest.strip_suffix(verb)?;
                let colons = [":", "%3A", "%3a"];
                colons.into_iter().find_map(|colon| rest.strip_suffix(colon))?.len()
            }
        };
        (length > 0).then(|| self.before.len()..self.before.len() + length)
    }

    /// Whether it names one path and no other, but for a parameter with something behind it.
    fn is_definite(&self) -> bool {
        self.behind != Some("")
    }
}

/// Those without a parameter first, those that end with one last; else in the table's order.
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

/// Where a request leads. `has` says whether it has a header field of this name.
pub fn route(method: &str, path: &str, has: impl Fn(&str) -> bool) -> Option<Routed> {
    let mut found: Option<Routed> = None;
    let mut is_named = false;
    for entry in ROUTER.iter() {
        let Some(parameter) = entry.fits(path) else { continue };
        is_named |= entry.is_definite();
        // What a route names is no model, whatever the method.
        if entry.route.method != method || is_named && !entry.is_definite() {
            continue;
        }
        let is_theirs = found.is_some() && entry.api.marks.iter().any(|mark| has(mark));
        if found.is_none() || is_theirs {
            found = Some(Routed { api: entry.api, route: entry.route, parameter });
        }
        if is_theirs {
            break;
        }
    }
    found
}

/// The API of a client that says which one it speaks; `has` as for [`route`].
pub fn of_client(has: impl Fn(&str) -> bool) -> Option<&'static Api> {
    ALL.iter().copied().find(|api| api.marks.iter().any(|mark| has(mark)))
}

/// The methods that a path takes, as `Allow` lists them.
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

/// The end of a path that is a route of its own, and its API: what a tool has appended to what it was given.
pub fn appended(path: &str) -> Option<(&str, &'static Api)> {
    let places = path.match_indices('/').map(|(at, _)| &path[at..]).skip(1);
    places.into_iter().find_map(|end| {
        let entry = ROUTER.iter().find(|entry| entry.is_definite() && entry.fits(end).is_some())?;
        Some((end, entry.api))
    })
}

/// The API whose clients use a path, also one that leads nowhere but stands below one of theirs, or ends like it.
fn of(path: &str) -> Option<&'static Api> {
    let find = |is_meant: &dyn Fn(&Entry) -> bool| ROUTER.iter().find(|entry| is_meant(entry)).map(|e| e.api);
    let below = |start: &str| path.strip_prefix(start).is_some_and(|rest| rest.starts_with('/'));
    let is_at_its_base = |api: &&Api| api.bases.iter().any(|base| !base.is_empty() && below(base));
    find(&|entry| entry.fits(path).is_some())
        .or_else(|| find(&|entry| entry.behind.is_none() && below(&entry.before)))
        .or_else(|| appended(path).map(|(_, api)| api))
        .or_else(|| ALL.iter().copied().find(is_at_its_base))
}

/// The body of an error of our own, as the tools that use this path expect it.
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
                let mark = api.marks.first().copied().unwrap_or_default();
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
