//! The tools that work with the proxy, in one table: `run` starts them, `connect`, the READMEs and the panel's page Connect
//! say what to write where.

pub mod connect;
mod table;

use crate::language::is_chinese;
pub use table::TOOLS;

/// The same in English and in Chinese.
pub type Text = [&'static str; 2];

/// A tool, an SDK or an app. In its texts `{root}` stands for the proxy's address, `{v1}` for the same with `/v1`, `{key}`
/// for the key that it wants and `{folder}` for the folder that [`Launch::files`] are in.
pub struct Tool {
    /// What `run` and `connect` call it: where it is a program of the terminal, that program's name.
    pub name: &'static str,
    /// What its makers call it.
    pub title: Text,
    /// The version that was tried, where it has one.
    pub version: &'static str,
    /// Whether it was tried, or only its documentation was read.
    pub tried: bool,
    /// The command that installs it.
    pub install: &'static str,
    /// How `run` starts it.
    pub launch: Option<Launch>,
    /// What people do who don't start it by `run`.
    pub place: Place,
    /// What else there is to know.
    pub note: Text,
}

/// Where the proxy's address goes.
pub enum Place {
    /// A line of a shell or a program.
    Line(&'static str),
    /// A file: its path, the name of its language in Markdown, its text.
    File(&'static str, &'static str, &'static str),
    /// Fields of its settings.
    Menu(Text),
}

/// What a program of the terminal needs so that nothing of its own is written or changed.
#[derive(Default)]
pub struct Launch {
    /// Environment variables; those with an empty value are taken away.
    pub environment: &'static [(&'static str, &'static str)],
    /// Arguments before those of the user.
    pub arguments: &'static [&'static str],
    /// Files in a folder of ours, which goes with the tool: paths and texts.
    pub files: &'static [(&'static str, &'static str)],
}

const fn same(text: &'static str) -> Text {
    [text, text]
}

const NOTHING: Text = same("");

/// The address, the key and the folder that a tool is told.
pub struct Filling<'a> {
    /// `http://localhost:5000`, without a slash at its end.
    pub root: &'a str,
    /// What the tool sends as its key.
    pub key: &'a str,
    /// Where [`Launch::files`] are.
    pub folder: &'a str,
}

impl Filling<'_> {
    /// The text with everything in its place.
    pub fn fill(&self, text: &str) -> String {
        let text = text.replace("{v1}", "{root}/v1").replace("{root}", self.root);
        // A key may have any sign of ASCII, those that end a string of JSON among them.
        let quoted = crate::json::quoted(self.key);
        let key = if text.starts_with('{') { &quoted[1..quoted.len() - 1] } else { self.key };
        text.replace("{key}", key).replace("{folder}", self.folder)
    }
}

/// In the language of the system.
pub fn in_words(text: Text) -> &'static str {
    text[usize::from(is_chinese())]
}

/// The row of this name.
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name.eq_ignore_ascii_case(name))
}
