//! English or Chinese, by the language of the system.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

/// Returns whether the system's language is Chinese.
pub fn is_chinese() -> bool {
    static CHINESE: OnceLock<bool> = OnceLock::new();
    *CHINESE.get_or_init(|| {
        sys_locale::get_locale().is_some_and(|locale| locale.to_ascii_lowercase().starts_with("zh"))
    })
}

/// Returns the value for the system's language.
pub fn either<T>(english: T, chinese: T) -> T {
    if is_chinese() { chinese } else { english }
}

/// A text in both languages: clients and files get the English one, which tools know; the console shows the
/// system's, and the panel the browser's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// For clients and files.
    pub english: Cow<'static, str>,
    /// For a console and a panel in Chinese.
    pub chinese: Cow<'static, str>,
}

impl Words {
    /// Creates a text from its two versions.
    pub fn new(english: impl Into<Cow<'static, str>>, chinese: impl Into<Cow<'static, str>>) -> Self {
        Self { english: english.into(), chinese: chinese.into() }
    }

    /// Returns the version for the console.
    pub fn here(&self) -> &str {
        either(&self.english, &self.chinese)
    }

    /// Returns the Chinese version if it is another one.
    pub fn only_chinese(&self) -> Option<&str> {
        Some(&*self.chinese).filter(|chinese| *chinese != self.english)
    }

    /// Puts what the text is about before it.
    pub fn about(self, english: impl fmt::Display, chinese: impl fmt::Display) -> Self {
        Self::new(format!("{english}: {}", self.english), format!("{chinese}：{}", self.chinese))
    }
}

/// Text that comes from elsewhere is the same in both languages.
impl From<String> for Words {
    fn from(text: String) -> Self {
        Self::new(text.clone(), text)
    }
}

impl From<&str> for Words {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}
