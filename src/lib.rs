//! OpenRouter's free models for every OpenAI-compatible tool on a machine.
//!
//! The modules, from the highest to the lowest; imports run downwards only:
//!
//! - [`run`], [`autostart`]: the commands of these names.
//! - [`start`]: starts the proxy that the command line asks for, and ends it after Ctrl+C.
//! - [`first_key`]: asks for the key if there is none, checks the key, and reports the result.
//! - [`server`]: from a connection's request to the thread that answers it; the panel.
//! - [`relay`]: one request through its attempts, and what all requests share: the account's limit, the list of models.
//! - [`builtin`]: the model of `--offline`, which needs no upstream.
//! - [`record`]: what debug mode records, in memory and in files.
//! - [`live`]: the settings as they are at this very moment.
//! - [`client`], [`upstream`]: the connections to the clients and to the upstream.
//! - [`settings`]: every setting, checked; `.env` and the command line.
//! - [`dialect`]: what a request and an answer mean in the API that the client uses; the free-model rule.
//! - leaves: [`error`] (each error of the proxy's own, with its message), [`json`], [`encoding`], [`body`], [`peek`],
//!   [`console`], [`language`], [`machine`], [`pipes`], [`sync`], [`memory`], [`secrets`], [`tools`] (the table of
//!   tools, for `run`, `connect`, the panel and the READMEs).
//!
//! A request goes through them in this order: the poller of [`server`] reads its head and hands it to a thread,
//! [`client::access`] decides whether it is allowed, [`dialect::free_models`] makes it free, [`relay::gate`] lets it go
//! ahead, [`relay`] sends it through [`upstream`] and relays the answer to the [`client`]. [`live`] gives the settings
//! for it, [`record`] records it in debug mode, [`server::panel`] shows it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// The modules' own descriptions link to private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod autostart;
pub mod body;
pub mod builtin;
pub mod client;
pub mod console;
pub mod dialect;
pub mod encoding;
pub mod error;
pub mod first_key;
pub mod json;
pub mod language;
pub mod live;
pub mod machine;
pub mod memory;
pub mod object;
pub mod peek;
pub mod pipes;
pub mod record;
pub mod relay;
pub mod run;
pub mod secrets;
pub mod server;
pub mod settings;
pub mod start;
pub mod sync;
pub mod tools;
pub mod upstream;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The modules from the highest to the lowest; a module that isn't named here is a leaf.
    const ROOMS: [&str; 13] = [
        "run",
        "autostart",
        "start",
        "first_key",
        "server",
        "relay",
        "builtin",
        "record",
        "live",
        "client",
        "upstream",
        "settings",
        "dialect",
    ];

    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    /// Returns the modules that a file names in its code, without its tests, as files: `a/b` for `a/b.rs`.
    fn imports(path: &str, text: &str, all: &[String]) -> Vec<String> {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let is_module = path.ends_with("/mod");
        let own = if is_module {
            path.trim_end_matches("/mod")
        } else {
            path.rsplit_once('/').map_or("", |(dir, _)| dir)
        };
        let above = own.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut found = Vec::new();
        for (prefix, dir) in
            [("crate::", ""), ("super::super::", above), ("super::", if is_module { above } else { own })]
        {
            for named in code.split(prefix).skip(1) {
                let named = named.split(';').next().unwrap();
                let (first, rest) = named.split_once("::").unwrap_or((named, ""));
                let heads = match first.strip_prefix('{') {
                    Some(_) => named.trim_matches(['{', '}']).split(',').map(str::trim).collect::<Vec<_>>(),
                    None => vec![first],
                };
                for head in heads {
                    let word = |text: &str| {
                        text.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap().to_owned()
                    };
                    let head = word(head);
                    let at = if dir.is_empty() { head.clone() } else { format!("{dir}/{head}") };
                    let below = rest
                        .trim_start_matches('{')
                        .split([',', ' ', '\n'])
                        .map(|next| format!("{at}/{}", word(next)));
                    let target =
                        below.chain([format!("{at}/mod"), at.clone()]).find(|target| all.contains(target));
                    found.extend(target.filter(|target| target != path));
                }
            }
        }
        found
    }

    #[test]
    fn no_files_import_each_other_in_a_circle() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let texts =
            files(&src).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).map(|path| {
                let name = path.strip_prefix(&src).unwrap().with_extension("");
                (name.to_str().unwrap().replace('\\', "/"), fs::read_to_string(path).unwrap())
            });
        let texts = texts.collect::<Vec<_>>();
        let names = texts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let mut left =
            texts.iter().map(|(name, text)| (name.clone(), imports(name, text, &names))).collect::<Vec<_>>();
        // A file that imports none of the files that are left is in no circle.
        loop {
            let before = left.len();
            let there = left.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            left.retain(|(_, imports)| imports.iter().any(|import| there.contains(import)));
            if left.len() == before {
                break;
            }
        }
        // Nor is a file that none of the files that are left imports.
        loop {
            let before = left.len();
            let imported = left.iter().flat_map(|(_, imports)| imports.clone()).collect::<Vec<_>>();
            left.retain(|(name, _)| imported.contains(name));
            if left.len() == before {
                break;
            }
        }
        let there = left.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for (_, imports) in &mut left {
            imports.retain(|import| there.contains(import));
            imports.sort();
            imports.dedup();
        }
        assert!(left.is_empty(), "these import each other in a circle: {left:#?}");
    }

    #[test]
    fn no_import_runs_upwards() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let floor = |room: &str| ROOMS.iter().position(|name| *name == room).unwrap_or(ROOMS.len());
        for path in files(&src) {
            let inside = path.strip_prefix(&src).unwrap().with_extension("");
            let room = inside.iter().next().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            for import in text.split("crate::").skip(1) {
                let name = import.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
                let down = floor(name) >= floor(room);
                assert!(down || room == "lib", "{} imports {name}, which is above it", path.display());
            }
        }
    }
}
