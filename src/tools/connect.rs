//! Says what to write where: for the terminal (`connect`), for the panel (`GET /debug/connect`) and for the READMEs.

use serde::Serialize;

use super::{ConfigTarget, Placeholders, TOOLS, Tool, in_words};
use crate::language::either;

/// Returns the key to show. Tools may use any key, unless `PROXY_API_KEY` is set, and that one is shown nowhere.
fn shown_key(wants_key: bool) -> &'static str {
    if wants_key { "<PROXY_API_KEY>" } else { "x" }
}

/// Returns what `connect` prints, for this tool or for all.
pub fn text(tool: Option<&Tool>, root: &str, wants_key: bool) -> String {
    let filling = Placeholders { root, key: shown_key(wants_key), folder: "" };
    let tools = tool.map_or(TOOLS, std::slice::from_ref);
    let mut text = tools.iter().map(|tool| paragraph(tool, &filling)).collect::<Vec<_>>().join("\n");
    if tool.is_none() {
        text.push_str(&either(
            format!("\nEvery other tool: base URL {root}/v1, any key, any model.\n"),
            format!("\n其他工具：基础地址（Base URL）{root}/v1，密钥和模型随意填写。\n"),
        ));
    }
    text
}

fn paragraph(tool: &Tool, filling: &Placeholders<'_>) -> String {
    let mut text = format!("{}  ({})\n", in_words(tool.title), tool.name);
    let mut add = |line: &str| text.push_str(&format!("  {line}\n"));
    if tool.launch.is_some() {
        let name = tool.name;
        add(&either(
            format!("local-api-proxy run {name}      (nothing to write)"),
            format!("local-api-proxy run {name}      （无需任何设置）"),
        ));
    }
    match tool.place {
        ConfigTarget::Line(line) => add(&filling.fill(line)),
        ConfigTarget::Menu(words) => add(&plain(&filling.fill(in_words(words)))),
        ConfigTarget::File(path, _, content) => {
            add(&either(format!("in {path}:"), format!("写入 {path}：")));
            filling.fill(content).lines().for_each(|line| add(&format!("  {line}")));
        }
    }
    if !in_words(tool.note).is_empty() {
        add(&plain(&filling.fill(in_words(tool.note))));
    }
    text
}

/// Removes the marks of Markdown.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// A tool as the panel gets it.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// In English and Chinese, as all pairs here.
    title: super::Text,
    version: &'static str,
    tried: bool,
    install: &'static str,
    /// The command that starts the tool without anything to write.
    run: Option<String>,
    /// The file that `snippet` goes into; without one, `snippet` is a line of a shell or a program.
    file: Option<&'static str>,
    /// A text to copy; `None` if `steps` say what to do.
    snippet: Option<String>,
    steps: Option<[String; 2]>,
    note: [String; 2],
}

#[derive(Serialize)]
struct Page<'a> {
    address: &'a str,
    tools: Vec<Row>,
}

/// `{"address": "http://localhost:5000", "tools": [{"name", "title": [english, chinese], "version", "tried", "install",
/// "run", "file", "snippet", "steps", "note"}]}`: what the panel's page Connect shows, with this address filled in.
/// `wants_key` says whether `PROXY_API_KEY` is set.
pub fn json(root: &str, wants_key: bool) -> String {
    let filling = Placeholders { root, key: shown_key(wants_key), folder: "" };
    let both = |text: super::Text| text.map(|text| filling.fill(text));
    let tools = TOOLS.iter().map(|tool| {
        let (file, snippet, steps) = match tool.place {
            ConfigTarget::Line(line) => (None, Some(filling.fill(line)), None),
            ConfigTarget::File(path, _, content) => (Some(path), Some(filling.fill(content)), None),
            ConfigTarget::Menu(words) => (None, None, Some(both(words))),
        };
        Row {
            name: tool.name,
            title: tool.title,
            version: tool.version,
            tried: tool.tried,
            install: tool.install,
            run: tool.launch.as_ref().map(|_| format!("local-api-proxy run {}", tool.name)),
            file,
            snippet,
            steps,
            note: both(tool.note),
        }
    });
    let page = Page { address: root, tools: tools.collect() };
    serde_json::to_string(&page).unwrap_or_default()
}

/// Returns the list of tools that `run` starts, with how each is installed.
pub fn launchable() -> String {
    let tools = TOOLS.iter().filter(|tool| tool.launch.is_some());
    let line = |tool: &Tool| format!("  {:<10}{:<14}{}\n", tool.name, in_words(tool.title), tool.install);
    let head = either(
        "local-api-proxy run TOOL starts one of these through the proxy:\n",
        "local-api-proxy run 工具名 通过代理启动以下工具：\n",
    );
    head.to_owned() + &tools.map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::*;

    const README: Placeholders<'_> = Placeholders { root: "http://localhost:5000", key: "x", folder: "" };
    /// The lines around what the table says, in both READMEs.
    const BEGIN: &str =
        "<!-- What follows is written by `BLESS=1 cargo test --lib readmes` from src/tools/table.rs. -->\n";
    const END: &str = "<!-- Until here. -->\n";

    /// Both tables and the files, as a README has them.
    fn markdown(language: usize) -> String {
        let word = |words: super::super::Text| words[language];
        let mut text = String::from("\n");
        let row = |tool: &Tool| {
            let run = match tool.launch {
                Some(_) => format!("`local-api-proxy run {}`", tool.name),
                None => String::new(),
            };
            let place = match tool.place {
                ConfigTarget::Line(line) => format!("`{}`", README.fill(line)),
                ConfigTarget::Menu(words) => README.fill(word(words)),
                ConfigTarget::File(path, ..) => format!("`{path}`"),
            };
            let note = README.fill(word(tool.note));
            let cell = format!("{place}{} {note}", word([".", "。"]));
            let cell = if note.is_empty() { place } else { cell.replace("。 ", "。") };
            format!("| {} {} | {run} | {cell} |\n", word(tool.title), tool.version).replace("  |", " |")
        };
        for tried in [true, false] {
            text.push_str(word(if tried {
                ["Tried, each with the version named:\n\n", "以下用所列版本实际试过：\n\n"]
            } else {
                ["\nNot tried, by their documentation:\n\n", "\n以下没有试过，依据它们的文档：\n\n"]
            }));
            text.push_str(word([
                "| tool | nothing to write | or for good |\n| --- | --- | --- |\n",
                "| 工具 | 无需设置 | 长期使用 |\n| --- | --- | --- |\n",
            ]));
            TOOLS.iter().filter(|tool| tool.tried == tried).for_each(|tool| text.push_str(&row(tool)));
        }
        for tool in TOOLS {
            if let ConfigTarget::File(path, kind, content) = tool.place {
                let title = word(tool.title);
                let content = README.fill(content);
                let _ = write!(
                    text,
                    "\n<details><summary>{title}: <code>{path}</code></summary>\n\n```{kind}\n{content}\n```\n\n</details>\n"
                );
            }
        }
        text.push('\n');
        text
    }

    #[test]
    fn the_readmes_say_what_the_table_says() {
        for (language, name) in ["README.md", "README.zh-CN.md"].into_iter().enumerate() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let readme = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
            let (before, rest) = readme.split_once(BEGIN).unwrap();
            let (written, after) = rest.split_once(END).unwrap();
            let expected = markdown(language);
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
            } else {
                assert_eq!(written, expected, "{name}: BLESS=1 cargo test --lib readmes writes it");
            }
        }
    }

    #[test]
    fn snippets_are_what_they_say_they_are() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let filling = Placeholders { root: "http://localhost:1", key: "a\"b\\c", folder: "f" };
        for tool in TOOLS {
            if let ConfigTarget::File(_, "json", content) = tool.place {
                json(&filling.fill(content));
            }
            for (_, content) in tool.launch.iter().flat_map(|launch| launch.files) {
                json(&filling.fill(content));
            }
        }
        let page = json(&super::json("http://localhost:1", true));
        assert_eq!(page["tools"].as_array().unwrap().len(), TOOLS.len());
        let text = page.to_string();
        assert!(text.contains("<PROXY_API_KEY>") && text.contains("http://localhost:1/v1"));
        assert!(!text.contains("{v1}") && !text.contains("{key}") && !text.contains("{root}"), "{text}");
    }
}
