//! Every setting of `.env`, checked: a value that is out of range never gets in.

pub mod args;
mod backup;
pub mod backups;
pub mod env_edit;
pub mod env_file;
mod forms;
mod itself;
mod names;
mod read;
mod sources;
mod table;
mod values;

use serde::Serialize;
use ureq::http::Uri;

use crate::dialect::model_name::Rule;
use crate::language::either;
use crate::machine::is_loopback_host;
use backups::Backup;
pub use read::Warning;
pub use sources::{Origin, Sources};
pub use table::{Listen, SETTINGS, Setting, Settings};
pub use values::{Certificates, ProxyUrl, Secret, is_placeholder, parse_key};

/// One setting as the panel shows it.
#[derive(Serialize)]
pub struct Shown {
    /// The name in `.env`.
    pub name: &'static str,
    /// The value, secrets masked; "not set" is in English, because the panel translates it.
    pub value: String,
    /// The default, in the same form.
    pub default: String,
    /// Where the value comes from.
    pub source: Origin,
    /// Whether a change takes effect only at the next start.
    pub needs_restart: bool,
    /// What the setting is for.
    pub meaning: Meaning,
}

/// What a setting is for, in the panel's two languages.
#[derive(Serialize)]
pub struct Meaning {
    en: &'static str,
    zh: &'static str,
}

impl Settings {
    /// Returns the model that a setting names for a kind in which no model stands in for another.
    pub fn named_model(&self, name: &str) -> Option<String> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name)?;
        Some((setting.show)(self)).filter(|model| !model.is_empty())
    }

    /// Returns the proxy that requests to this address go through, if any.
    pub fn proxy(&self, base_url: &str) -> Option<&ProxyUrl> {
        let uri = base_url.parse::<Uri>().ok()?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = uri.host()?;
        // Seen from a proxy, loopback is another machine.
        let is_here = is_loopback_host(host.trim_matches(['[', ']']));
        if is_here || values::bypasses_proxy(&self.no_proxy, host, port) {
            return None;
        }
        let own = if https { &self.https_proxy } else { &self.http_proxy };
        own.as_ref().or(self.all_proxy.as_ref()).or(self.http_proxy.as_ref())
    }

    /// Returns the rule for the names of models in a request. `default_model` answers where they name none that may be
    /// used.
    pub fn rule<'a>(&'a self, default_model: &'a str) -> Rule<'a> {
        Rule {
            default_model,
            allow_paid: self.allow_paid_models,
            map: &self.model_map,
            backups: self.backups.iter().map(Backup::models).collect(),
        }
    }

    /// Returns every setting in the order of the table, for people to read.
    pub fn shown(&self) -> Vec<Shown> {
        let default = Self::default();
        let origins = self.origins.iter().copied().chain(std::iter::repeat(Origin::Default));
        let shown = SETTINGS.iter().zip(origins).map(|(setting, source)| {
            let [value, default] = [self, &default].map(|settings| {
                let [english, _] = setting.shown(settings);
                english
            });
            let Setting { name, needs_restart, meaning: [en, zh], .. } = *setting;
            Shown { name, value, default, source, needs_restart, meaning: Meaning { en, zh } }
        });
        shown.collect()
    }

    /// Returns what is different in `newer`, a line for each setting.
    pub fn changes(&self, newer: &Settings) -> Vec<String> {
        let changed = SETTINGS.iter().filter(|setting| !(setting.same)(self, newer));
        let told = changed.map(|setting| {
            let note = if setting.needs_restart {
                either(" (needs a restart)", "（重启后生效）")
            } else {
                ""
            };
            format!("{} = {}{note}", setting.name, setting.in_words(newer))
        });
        told.collect()
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    /// A key for tests elsewhere.
    pub(crate) fn secret(text: &str) -> super::Secret {
        super::Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::read::tests::read;
    use super::values::bypasses_proxy;
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let text = "OPENROUTER_API_KEY=sk-or-v1-secret-abcd\nPROXY_API_KEY=hunter2\nHTTPS_PROXY=http://me:pa55@host:8080";
        let settings = read(text);
        let shown = settings.shown().into_iter().map(|s| s.value).collect::<String>();
        for text in [shown, format!("{settings:?}")] {
            for secret in ["sk-or-v1", "secret", "hunter2", "pa55"] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
            assert!(text.contains("...abcd"));
        }
    }

    #[test]
    fn a_changed_secret_with_the_same_end_is_a_change() {
        let old = read("OPENROUTER_API_KEY=sk-or-v1-aaaaaaaa-1234");
        let new = read("OPENROUTER_API_KEY=sk-or-v1-bbbbbbbb-1234\nPORT=1");
        let expected = ["OPENROUTER_API_KEY = ...1234", "PORT = 1 (needs a restart)"];
        assert_eq!(old.changes(&new), expected);
    }

    #[test]
    fn which_proxy_is_used() {
        let via = |text: &str| {
            let settings = read(text);
            settings.proxy(&settings.base_url).map(ProxyUrl::address)
        };
        assert_eq!(via(""), Some("env:1".into()), "lower case, from the environment");
        assert_eq!(via("HTTP_PROXY="), None, ".env wins, also with nothing");
        assert_eq!(via("HTTP_PROXY=127.0.0.1:7890"), Some("127.0.0.1:7890".into()));
        assert_eq!(via("ALL_PROXY=socks5h://s:1080"), Some("s:1080".into()));
        assert_eq!(via("HTTPS_PROXY=http://h:2\nNO_PROXY=x, .openrouter.ai"), None);
        let http = "OPENROUTER_BASE_URL=http://up:81/v1\nHTTPS_PROXY=http://h:2\nHTTP_PROXY=http://p:3\n";
        assert_eq!(via(http), Some("p:3".into()));
        assert_eq!(via(&format!("{http}NO_PROXY=up:80")), Some("p:3".into()));
        assert_eq!(via(&format!("{http}NO_PROXY=up:81")), None);
        assert!(bypasses_proxy("::1", "[::1]", 80));
        assert!(!bypasses_proxy("ample.com", "example.com", 80));
    }
}
