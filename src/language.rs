//! English or Chinese, by the language of the system.

use std::sync::OnceLock;

/// Whether the system speaks Chinese.
pub fn is_chinese() -> bool {
    static CHINESE: OnceLock<bool> = OnceLock::new();
    *CHINESE.get_or_init(|| {
        sys_locale::get_locale().is_some_and(|locale| locale.to_ascii_lowercase().starts_with("zh"))
    })
}

/// One of the two.
pub fn either<T>(english: T, chinese: T) -> T {
    if is_chinese() { chinese } else { english }
}
