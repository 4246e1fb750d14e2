//! The tools that work with the proxy, in one table: `run` starts them; `connect`, the READMEs and the panel's page
//! Connect say what to write where.

pub mod connect;
mod table;

use crate::language::is_chinese;
pub use table::TOOLS;

/// A text in English and in Chinese.
pub type Text = [&'static str; 2];

/// A tool, an SDK or an app. In its texts `{root}` stands for the proxy's address, `{v1}` for the address with `/v1`,
/// `{key}` for the key that the proxy wants and `{folder}` for the folder of [`Launch::files`].
pub struct Tool {
    /// The name for `run` and `connect`: for a program of the terminal, the program's name.
    pub name: &'static str,
    /// The name that its makers use.
    pub title: Text,
    /// The version that was tried, where it has one.
    pub version: &'static str,
    /// Whether it was tried, or only its documentation was read.
    pub tried: bool,
    /// The command that installs it.
    pub install: &'static str,
    /// How `run` starts it, if it can.
    pub launch: Option<Launch>,
    /// What to write where without `run`.
    pub place: ConfigTarget,
    /// What else there is to know.
    pub note: Text,
}

/// The place where the proxy's address goes.
pub enum ConfigTarget {
    /// A line of a shell or a program.
    Line(&'static str),
    /// A file: its path, the name of its language in Markdown, its text.
    File(&'static str, &'static str, &'static str),
    /// Fields in the tool's settings.
    Menu(Text),
}

/// What a program of the terminal needs so that none of its own files is written or changed.
#[derive(Default)]
pub struct Launch {
    /// Environment variables; those with an empty value are removed.
    pub environment: &'static [(&'static str, &'static str)],
    /// Arguments before those of the user.
    pub arguments: &'static [&'static str],
    /// Files in a temporary folder, which is removed when the tool ends: paths and texts.
    pub files: &'static [(&'static str, &'static str)],
}

const fn same(text: &'static str) -> Text {
    [text, text]
}

const NOTHING: Text = same("");

/// The values of the placeholders in a tool's texts.
pub struct Placeholders<'a> {
    /// `http://localhost:5000`, without a slash at its end.
    pub root: &'a str,
    /// What the tool sends as its key.
    pub key: &'a str,
    /// The folder of [`Launch::files`].
    pub folder: &'a str,
}

impl Placeholders<'_> {
    /// Returns the text with the placeholders replaced.
    pub fn fill(&self, text: &str) -> String {
        let text = text.replace("{v1}", "{root}/v1").replace("{root}", self.root);
        // A key may have any ASCII character, those that end a JSON string among them.
        let quoted = crate::json::quoted(self.key);
        let key = if text.starts_with('{') { &quoted[1..quoted.len() - 1] } else { self.key };
        text.replace("{key}", key).replace("{folder}", self.folder)
    }
}

/// Returns the text in the language of the system.
pub fn in_words(text: Text) -> &'static str {
    text[usize::from(is_chinese())]
}

/// Returns the tool of this name.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name.eq_ignore_ascii_case(name))
}
