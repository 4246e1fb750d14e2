//! Decides by the name of a model who answers a request.

use std::fmt;

use super::free_models::{ROUTER, is_free};

/// The name under which clients and settings ask for the best free model that works now. No server knows a model of
/// this name.
pub const BEST: &str = "best";

/// Who answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This model of OpenRouter.
    Model(String),
    /// The best free model that works now.
    Best,
    /// This backup, with this model, and nobody else.
    Backup {
        /// The name in `BACKUPS`.
        name: String,
        /// One of the models in `NAME_MODEL`.
        model: String,
    },
}

impl Target {
    /// Returns the model to ask OpenRouter for, as long as no better one is known.
    pub fn model(&self) -> &str {
        match self {
            Self::Model(model) => model,
            Self::Best | Self::Backup { .. } => ROUTER,
        }
    }
}

/// Writes the target as a client would name it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => f.write_str(model),
            Self::Best => f.write_str(BEST),
            Self::Backup { name, model } => write!(f, "{name}/{model}"),
        }
    }
}

/// A backup's name and its models.
pub type BackupModels<'a> = (&'a str, &'a [String]);

/// The settings that decide who answers a request.
#[derive(Debug, Clone, Default)]
pub struct Rule<'a> {
    /// The model for requests that name nothing that may be used: `MODEL` and its like.
    pub default_model: &'a str,
    /// Whether paid models may be asked (`ALLOW_PAID_MODELS`): then only a missing model, or one in `map`, is replaced.
    pub allow_paid: bool,
    /// The entries of `MODEL_MAP`.
    pub map: &'a [Mapping],
    /// The backups, which may be asked for as `NAME/model`.
    pub backups: Vec<BackupModels<'a>>,
}

impl Rule<'_> {
    /// Returns who answers a request for `asked`. `next` returns the first of the other models in the request that may
    /// be used. `any_model_will_do` says whether another model's answer is as good.
    pub fn target(
        &self,
        asked: Option<&str>,
        next: impl FnOnce() -> Option<String>,
        any_model_will_do: bool,
    ) -> Target {
        let default = || match self.default_model {
            BEST if any_model_will_do => Target::Best,
            model => Target::Model(model.to_owned()),
        };
        let next = || next().filter(|id| any_model_will_do || id != ROUTER);
        let asked = match asked {
            None | Some("") => return next().map_or_else(default, Target::Model),
            Some(asked) => asked,
        };
        // Neither `best` nor the router makes embeddings or speech.
        if matches!(asked, BEST | ROUTER) && !any_model_will_do {
            return default();
        }
        if asked == BEST || asked == ROUTER && self.default_model == BEST {
            return Target::Best;
        }
        // OpenRouter's names have one slash, and `nvidia/…:free` is one of them.
        let is_openrouters = is_free(asked) && asked.matches('/').count() < 2;
        if let Some(backup) = backup(asked, &self.backups).filter(|_| !is_openrouters) {
            return backup;
        }
        if is_free(asked) {
            return Target::Model(asked.to_owned());
        }
        if !self.allow_paid
            && let Some(next) = next()
        {
            return Target::Model(next);
        }
        match self.map.iter().find(|mapping| mapping.fits(asked)) {
            Some(Mapping { to, .. }) if any_model_will_do || !is_any(to) => to.clone(),
            None if self.allow_paid => Target::Model(asked.to_owned()),
            _ => default(),
        }
    }
}

/// Whether a target leaves the choice of the model to others.
fn is_any(target: &Target) -> bool {
    matches!(target, Target::Best) || matches!(target, Target::Model(model) if model == ROUTER)
}

/// Returns the backup that `NAME/model` stands for, if it has this model.
pub fn backup(named: &str, backups: &[BackupModels<'_>]) -> Option<Target> {
    let (asked, model) = named.split_once('/')?;
    let (name, _) = backups.iter().find(|(name, models)| {
        name.eq_ignore_ascii_case(asked) && models.iter().any(|known| known == model)
    })?;
    Some(Target::Backup { name: (*name).to_owned(), model: model.to_owned() })
}

/// An entry of `MODEL_MAP`: a replacement for models whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Lower case; `*` stands for any characters.
    pattern: String,
    to: Target,
}

impl Mapping {
    /// Reads `PATTERN=MODEL`; returns `None` if the model may not be used.
    pub fn parse(entry: &str, allow_paid: bool, backups: &[BackupModels<'_>]) -> Option<Self> {
        let (pattern, to) = entry.rsplit_once('=')?;
        let (pattern, to) = (pattern.trim().to_lowercase(), to.trim());
        let to = match to {
            "" => return None,
            BEST => Target::Best,
            free if is_free(free) => Target::Model(free.to_owned()),
            other => match backup(other, backups) {
                Some(backup) => backup,
                None if allow_paid => Target::Model(other.to_owned()),
                None => return None,
            },
        };
        (!pattern.is_empty()).then_some(Self { pattern, to })
    }

    /// Returns who answers.
    pub fn to(&self) -> &Target {
        &self.to
    }

    /// Whether a name matches the pattern. The time grows only as the name does: each part is looked for once, and its
    /// leftmost occurrence counts.
    fn fits(&self, asked: &str) -> bool {
        let asked = asked.to_lowercase();
        let Some((first, rest)) = self.pattern.split_once('*') else {
            return asked == self.pattern;
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inside = asked.strip_prefix(first).and_then(|asked| asked.strip_suffix(last));
        inside.is_some_and(|mut left| {
            middle.split('*').all(|part| match left.find(part) {
                Some(at) => {
                    left = &left[at + part.len()..];
                    true
                }
                None => false,
            })
        })
    }
}

/// Writes the entry as in the setting.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str) -> Target {
        Target::Model(id.into())
    }

    fn groq(model: &str) -> Target {
        Target::Backup { name: "groq".into(), model: model.into() }
    }

    #[test]
    fn who_answers() {
        let groqs = ["llama-70b".to_owned(), "openai/gpt-oss".to_owned()];
        let nvidias = ["nemotron:free".to_owned(), "meta/llama:free".to_owned()];
        let backups: Vec<BackupModels<'_>> = vec![("groq", &groqs), ("nvidia", &nvidias)];
        let entries = ["*haiku*=a/small:free", "gpt-4o*=best", "o1=groq/llama-70b", "any*=openrouter/free"];
        let map = entries.map(|entry| Mapping::parse(entry, false, &backups).unwrap());
        let rule = Rule { default_model: "my/own:free", map: &map, backups, ..Rule::default() };
        let best = Rule { default_model: BEST, ..rule.clone() };
        let paid = Rule { allow_paid: true, ..rule.clone() };
        for (rule, asked, next, expected) in [
            (&rule, None, None, model("my/own:free")),
            (&rule, Some(""), None, model("my/own:free")),
            (&rule, Some("o3"), None, model("my/own:free")),
            (&rule, None, Some("b:free"), model("b:free")),
            (&rule, Some("o3"), Some("b:free"), model("b:free")),
            (&rule, Some("a:free"), Some("b:free"), model("a:free")),
            (&rule, Some(ROUTER), None, model(ROUTER)),
            (&rule, Some(BEST), Some("b:free"), Target::Best),
            (&rule, Some("Claude-HAIKU-4"), None, model("a/small:free")),
            (&rule, Some("claude-haiku:free"), None, model("claude-haiku:free")),
            (&rule, Some("gpt-4o"), None, Target::Best),
            (&rule, Some("gpt-4o"), Some("b:free"), model("b:free")),
            (&rule, Some("openai/gpt-4o"), None, model("my/own:free")),
            (&rule, Some("o1"), None, groq("llama-70b")),
            (&rule, Some("o1-mini"), None, model("my/own:free")),
            (&rule, Some("Groq/llama-70b"), None, groq("llama-70b")),
            (&rule, Some("groq/openai/gpt-oss"), Some("b:free"), groq("openai/gpt-oss")),
            (&rule, Some("groq/other"), None, model("my/own:free")),
            (&rule, Some("nvidia/nemotron:free"), None, model("nvidia/nemotron:free")),
            (
                &rule,
                Some("nvidia/meta/llama:free"),
                None,
                Target::Backup { name: "nvidia".into(), model: "meta/llama:free".into() },
            ),
            (&best, None, None, Target::Best),
            (&best, Some("o3"), None, Target::Best),
            (&best, Some(ROUTER), None, Target::Best),
            (&best, Some("anything"), None, model(ROUTER)),
            (&best, Some("a:free"), None, model("a:free")),
            (&best, None, Some("b:free"), model("b:free")),
            (&paid, Some("o3"), Some("b:free"), model("o3")),
            (&paid, Some("gpt-4o"), None, Target::Best),
            (&paid, None, Some("o3"), model("o3")),
            (&paid, None, None, model("my/own:free")),
        ] {
            let target = rule.target(asked, || next.map(str::to_owned), true);
            assert_eq!(target, expected, "{asked:?} before {next:?}");
        }
        for (asked, expected) in [
            (BEST, model("my/own:free")),
            (ROUTER, model("my/own:free")),
            ("gpt-4o-tts", model("my/own:free")),
            ("anything", model("my/own:free")),
            ("haiku-embed", model("a/small:free")),
            ("embed:free", model("embed:free")),
            ("groq/llama-70b", groq("llama-70b")),
        ] {
            assert_eq!(rule.target(Some(asked), || None, false), expected, "{asked}");
        }
    }

    #[test]
    fn patterns() {
        let fits = |pattern: &str, name: &str| {
            Mapping::parse(&format!("{pattern}=best"), false, &[]).unwrap().fits(name)
        };
        for (pattern, name) in [
            ("*", "x"),
            ("GPT", "gpt"),
            ("a*", "a"),
            ("*a", "a"),
            ("a*c", "abc"),
            ("a*b*c", "aXbYbZc"),
            ("*a*b*", "ab"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("gpt", "gpt-4"), ("a*a", "a"), ("a*b*c", "ac"), ("*b*a*", "ab"), ("*ab*b", "ab")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(1000), &"b".repeat(1 << 20)), "and at once");
    }

    #[test]
    fn only_what_may_be_used_is_mapped_to() {
        for wrong in ["", "a", "=", "a=", "=best", "a=gpt-4o", "a=~x/y:free", "a=groq/unknown"] {
            assert_eq!(Mapping::parse(wrong, false, &[]), None, "{wrong}");
        }
        assert_eq!(Mapping::parse("a = gpt-4o", true, &[]).unwrap().to_string(), "a=gpt-4o");
    }
}
