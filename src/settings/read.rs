//! Reads the settings: one that can't be used as it stands keeps its last good value, and is reported.

use super::itself;
use super::names;
use super::sources::{Origin, Reader, Sources};
use super::table::{SETTINGS, Setting, Settings};
use crate::language::either;

/// A message about a setting that can't be used as it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning {
    /// The sentence.
    pub text: String,
    /// Identifies the problem: the same for the same problem, so that nobody has to read of it at every save of the
    /// file.
    pub about: u64,
}

impl Setting {
    /// Returns the setting's value for people to read, in English and in Chinese.
    pub(super) fn shown(&self, settings: &Settings) -> [String; 2] {
        let value = (self.show)(settings);
        if value.is_empty() { (self.unset)().map(str::to_owned) } else { [value.clone(), value] }
    }

    /// Returns the setting's value in the language of the system.
    pub(super) fn in_words(&self, settings: &Settings) -> String {
        let [english, chinese] = self.shown(settings);
        either(english, chinese)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let args = super::args::Args::default();
        let nothing = Sources { file: &[], environment: &|_| None, args: &args, home: "".as_ref() };
        let mut settings = Self::blank();
        let mut reader = Reader::new(&nothing, &[]);
        for setting in SETTINGS {
            let is_good = (setting.read)(setting.default, &mut settings, &mut reader);
            debug_assert!(is_good, "the default of {}", setting.name);
        }
        settings
    }
}

impl Settings {
    /// Reads every setting. One that can't be used as it stands keeps the value of `last_good`, or its default if this
    /// is the first time or that value isn't allowed any more, and adds a message to the list.
    pub fn read(sources: &Sources<'_>, last_good: Option<&Settings>) -> (Settings, Vec<Warning>) {
        let default = Settings::default();
        let is_first = last_good.is_none();
        let last_good = last_good.unwrap_or(&default);
        let mut settings = Settings::blank();
        let mut reader = Reader::new(sources, &last_good.backups);
        for setting in SETTINGS {
            let (text, mut origin) =
                reader.get(setting.name).unwrap_or_else(|| (setting.default.to_owned(), Origin::Default));
            if !(setting.read)(&text, &mut settings, &mut reader) {
                let range = (setting.range)(&text, &reader);
                reader.complain(setting.name, &range);
                origin = Origin::Kept;
                if !(setting.keep)(&mut settings, last_good, &reader) {
                    (setting.keep)(&mut settings, &default, &reader);
                }
            }
            // Flags win, and are valid; what is written elsewhere is checked all the same.
            if let Some(flag) = sources.args.setting(setting.name)
                && (setting.read)(&flag, &mut settings, &mut reader)
            {
                origin = Origin::Flag;
            }
            settings.origins.push(origin);
            reader.allow_paid = settings.allow_paid_models;
        }
        itself::refuse(&mut settings, (!is_first).then_some(last_good), &mut reader);
        names::hint(sources.file, settings.key.is_none(), &mut reader);
        let complaints = std::mem::take(&mut reader.complaints);
        let warnings = complaints.into_iter().map(|complaint| {
            let about = reader.about(&complaint);
            let setting = SETTINGS.iter().find(|setting| setting.name == complaint.name);
            let counts = setting.filter(|_| complaint.keeps_value).map(|setting| setting.in_words(&settings));
            let text = complaint.text;
            let text = match (counts, is_first) {
                (None, _) => text,
                (Some(value), true) => either(
                    format!("{text}; until then it counts as: {value}"),
                    format!("{text}；在此之前按此处理：{value}"),
                ),
                (Some(value), false) => either(
                    format!("{text}; it stays as it was: {value}"),
                    format!("{text}；保持不变：{value}"),
                ),
            };
            Warning { text, about }
        });
        let warnings = warnings.collect();
        (settings, warnings)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::args::Args;
    use super::*;

    fn read_over(text: &str, last_good: Option<&Settings>) -> (Settings, Vec<String>) {
        let parsed = crate::settings::env_file::parse(text);
        assert!(parsed.bad.is_empty());
        let sources = Sources {
            file: &parsed.settings,
            environment: &|name| (name == "http_proxy").then(|| "http://env:1".into()),
            args: &Args::default(),
            home: Path::new("/home/me"),
        };
        let (settings, told) = Settings::read(&sources, last_good);
        (settings, told.into_iter().map(|told| told.text).collect())
    }

    pub(in super::super) fn read(text: &str) -> Settings {
        let (settings, complaints) = read_over(text, None);
        assert_eq!(complaints, Vec::<String>::new());
        settings
    }

    #[test]
    fn out_of_range_keeps_the_last_good_value() {
        let last_good = read("RETRIES=5\nMODEL=a/b:free\nUPSTREAM_TIMEOUT=7");
        let (settings, complaints) = read_over(
            "RETRIES=11\nMODEL=openai/gpt-4o\nUPSTREAM_TIMEOUT=never\nPORT=70000",
            Some(&last_good),
        );
        assert_eq!(settings.retries, 5);
        assert_eq!(settings.model, "a/b:free");
        assert_eq!(settings.upstream_timeout, Duration::from_secs(7));
        assert_eq!(settings.listen.port, 5000);
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        let (settings, _) = read_over("", Some(&last_good));
        assert_eq!(settings.retries, 2, "a setting taken away has its default again");
    }

    #[test]
    fn a_paid_model_doesnt_outlive_its_permission() {
        let paid = read("ALLOW_PAID_MODELS=true\nMODEL=openai/gpt-4o\nFALLBACK_MODELS=a/b,c/d:free");
        assert_eq!(paid.model, "openai/gpt-4o");
        let (settings, complaints) =
            read_over("MODEL=openai/gpt-4o\nFALLBACK_MODELS=a/b,c/d:free", Some(&paid));
        assert_eq!(settings.model, "openrouter/free");
        assert_eq!(settings.fallback_models, ["c/d:free"]);
        assert_eq!(complaints.len(), 2);
    }

    #[test]
    fn names_that_are_nearly_settings() {
        for (line, meant) in [
            ("RETRYS=3", "RETRIES"),
            ("retries=3", "RETRIES"),
            ("MODLE=a/b:free", "MODEL"),
            ("OPENROUTER_KEY=k", "OPENROUTER_API_KEY"),
            ("OPENROUTER_APIKEY=k", "OPENROUTER_API_KEY"),
            ("OPENROUTER_MODEL=a:free", "MODEL"),
            ("OPENAI_API_KEY=sk-or-v1-abcdef", "OPENROUTER_API_KEY"),
            ("PROXY_KEY=k", "PROXY_API_KEY"),
            ("DEBUG=1", "DEBUG_MODE"),
            ("RETRY=3", "RETRIES"),
            ("OPENAI_API_KEY=sk-proj-abcdef", "OPENROUTER_API_KEY"),
        ] {
            let (_, complaints) = read_over(line, None);
            assert_eq!(complaints.len(), 1, "{line}: {complaints:?}");
            assert!(complaints[0].ends_with(&format!(": {meant} is one")), "{complaints:?}");
            assert!(!complaints[0].contains("abcdef"));
        }
        for line in ["OPENAI_API_KEY=x", "GROQ_MODEL=x", "DATABASE_URL=x", "PATH=x", "USER=x", "LANG=x"] {
            assert_eq!(read_over(line, None).1, Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_said() {
        let (settings, complaints) =
            read_over("OPENROUTER_API_KEY=sk-or-v1-0a1b2c\nOPENROUTER_API_KEY=", None);
        assert!(settings.key.is_none());
        assert_eq!(complaints, ["OPENROUTER_API_KEY stands there more than once: the last one counts"]);
        assert_eq!(read_over("RETRIES=1\nRETRIES=1", None).1, Vec::<String>::new());
    }

    #[test]
    fn proxies_may_be_written_as_in_the_environment() {
        let settings = read("https_proxy=http://h:1\nno_proxy=x");
        assert_eq!((settings.https_proxy.unwrap().address(), settings.no_proxy), ("h:1".into(), "x".into()));
        assert_eq!(read("https_proxy=http://h:1\nHTTPS_PROXY=").https_proxy, None);
        let told = read_over("Https_Proxy=x", None).1;
        assert!(told[0].ends_with(": HTTPS_PROXY is one"), "{told:?}");
    }

    #[test]
    fn a_placeholder_is_no_key() {
        for key in ["sk-or-v1-...", "sk-or-v1-xxxxxxxx", "your_key_here", "<your key>", "sk-or-v1-YOUR-KEY"] {
            let (settings, complaints) = read_over(&format!("OPENROUTER_API_KEY={key}"), None);
            assert!(settings.key.is_none(), "{key}");
            assert!(complaints[0].contains("your own key"), "{complaints:?}");
        }
        for key in ["sk-or-v1-0a1b2c", "sk-or-v1-x", "x", "sk-xxx-1"] {
            assert!(read(&format!("OPENROUTER_API_KEY={key}")).key.is_some(), "{key}");
        }
    }

    #[test]
    fn flags_and_where_values_come_from() {
        let text = "OPENROUTER_API_KEY=k\nRETRIES=11\nMODEL=\nPORT=7";
        let file = crate::settings::env_file::parse(text).settings;
        let args = Args { port: Some(8), offline: true, ..Args::default() };
        let environment = |name: &str| match name {
            "HTTP_PROXY" => Some("http://upper:1".to_owned()),
            "http_proxy" => Some("http://lower:1".to_owned()),
            "MODEL" => Some("from/environment:free".to_owned()),
            _ => None,
        };
        let sources =
            Sources { file: &file, environment: &environment, args: &args, home: Path::new("/home/me") };
        let (settings, _) = Settings::read(&sources, None);
        let shown = settings.shown();
        let of = |name: &str| {
            let shown = shown.iter().find(|shown| shown.name == name).unwrap();
            (shown.value.as_str(), shown.default.as_str(), shown.source)
        };
        assert_eq!(of("PORT"), ("8", "5000", Origin::Flag));
        assert_eq!(of("TEST_MODE"), ("true", "false", Origin::Flag));
        assert_eq!(of("OPENROUTER_API_KEY"), ("...", "not set", Origin::File));
        assert_eq!(of("HTTP_PROXY"), ("lower:1", "not set", Origin::Environment));
        assert_eq!(of("RETRIES"), ("2", "2", Origin::Kept));
        assert_eq!(of("MODEL"), ("openrouter/free", "openrouter/free", Origin::Default));
        assert_eq!(of("CACHE_KEEP_DAYS"), ("all", "all", Origin::Default));
    }

    #[test]
    fn a_known_servers_key_alone_is_hinted_at() {
        let (_, said) = read_over("GROQ_API_KEY=gsk_0123456789", None);
        assert!(said[0].starts_with("GROQ_API_KEY isn't used yet: write BACKUPS=groq"), "{said:?}");
        assert_eq!(read_over("GROQ_API_KEY=gsk_0123456789\nBACKUPS=ollama\nOLLAMA_MODEL=x", None).1.len(), 0);
    }

    #[test]
    fn names_of_another_programs_file_take_no_time() {
        let text = (0..100_000).map(|n| format!("RETRIES_{n}=1\n")).collect::<String>();
        let (_, said) = read_over(&text, None);
        assert_eq!(said.len(), 10, "RETRIES_0 to RETRIES_9 are nearly RETRIES");
    }

    #[test]
    fn what_counts_instead_is_told() {
        let (_, complaints) =
            read_over("PORT=x\nHTTPS_PROXY=localhost:99999\nFALLBACK_MODELS=a:free,gpt-4o", None);
        let told = complaints.join("\n");
        assert!(
            told.contains("PORT must be a number from 0 to 65535; until then it counts as: 5000"),
            "{told}"
        );
        assert!(told.contains("HTTPS_PROXY must be") && told.contains("counts as: not set"), "{told}");
        assert!(told.contains("FALLBACK_MODELS: gpt-4o is left out"), "{told}");
        let good = read("PORT=7\nHTTPS_PROXY=http://h:1");
        let told = read_over("PORT=x\nHTTPS_PROXY=h:", Some(&good)).1.join("\n");
        assert!(told.contains("it stays as it was: 7") && told.contains("it stays as it was: h:1"), "{told}");
    }

    #[test]
    fn names_that_models_go_by() {
        let text = "MODEL=best\nMODEL_MAP=a*=best, b=groq/y/z:1\nBACKUPS=groq\nGROQ_API_KEY=gsk_123456\nGROQ_MODEL=x, y/z:1";
        let settings = read(text);
        assert_eq!(settings.backups[0].models, ["x", "y/z:1"]);
        assert_eq!(settings.backups[0].model(), "x");
        let names =
            |asked: &str| settings.rule(&settings.model).target(Some(asked), || None, true).to_string();
        assert_eq!(["ab", "b", "c", "groq/x"].map(names), ["best", "groq/y/z:1", "best", "groq/x"]);
        let (kept, complaints) = read_over("MODEL=bester\nMODEL_MAP=b=groq/x", Some(&settings));
        assert_eq!((kept.model.as_str(), kept.model_map.len()), ("best", 0));
        assert!(
            complaints[0].starts_with("MODEL must be ") && complaints[1].starts_with("MODEL_MAP: b=groq/x ")
        );
        let (_, complaints) = read_over("FALLBACK_MODELS=best", None);
        assert_eq!(complaints.len(), 1, "the others are tried in their order");
    }
}
