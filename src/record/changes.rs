//! How a request was changed on its way upstream: its fields as the client wrote them, beside those that were sent.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::json::{self, Field};

/// How many characters of a value are shown.
const MAX_SHOWN_CHARACTERS: usize = 80;
/// How many changes are recorded: more than this are no help to anybody.
const MAX_CHANGES: usize = 50;

/// One field that isn't as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The field's name.
    pub field: String,
    /// The value as written, or its beginning; `None` if the field wasn't there.
    pub from: Option<String>,
    /// The same for what was sent; `None` if the field was removed.
    pub to: Option<String>,
}

/// Returns the differences between the body of a request and what was `sent`.
pub fn between(written: &str, sent: &[u8]) -> Vec<Change> {
    let sent = String::from_utf8_lossy(sent);
    let (Ok(before), Ok(after)) = (json::fields(written), json::fields(&sent)) else {
        return Vec::new();
    };
    let value = |fields: &[Field<'_>], name: &str| json::field(fields, name).map(|field| shown(field.value));
    let mut changes = Vec::<Change>::new();
    let mut push = |name: &Cow<'_, str>| {
        if changes.len() < MAX_CHANGES && !changes.iter().any(|change| change.field == **name) {
            let (from, to) = (value(&before, name), value(&after, name));
            changes.push(Change { field: name.chars().take(MAX_SHOWN_CHARACTERS).collect(), from, to });
        }
    };
    // Nearly always both have the same fields in the same order.
    let mut rest = after.iter().peekable();
    for field in &before {
        match rest.peek() {
            Some(next) if next.name == field.name => {
                if next.value != field.value {
                    push(&field.name);
                }
                rest.next();
            }
            _ => push(&field.name),
        }
    }
    rest.for_each(|field| push(&field.name));
    changes.retain(|change| change.from != change.to);
    changes
}

/// Returns a value in a few characters; for a list, its length.
fn shown(value: &str) -> String {
    if value.starts_with('[') {
        format!("[{}]", json::elements(value).map_or(0, |elements| elements.len()))
    } else {
        value.chars().take(MAX_SHOWN_CHARACTERS).collect()
    }
}

/// Reads the changes that a debug file lists.
pub(super) fn read_changes(list: &Value) -> Vec<Change> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |change: &Value| {
        Some(Change { field: text(&change["field"])?, from: text(&change["from"]), to: text(&change["to"]) })
    };
    list.as_array().into_iter().flatten().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(written: &str, sent: &str) -> String {
        let changes = between(written, sent.as_bytes());
        assert_eq!(read_changes(&serde_json::to_value(&changes).unwrap()), changes);
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".into());
        let told = changes.iter().map(|c| format!("{}: {} > {}", c.field, part(&c.from), part(&c.to)));
        told.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_different_is_told() {
        assert_eq!(told(r#"{"model":"a","x":1}"#, r#"{"model":"a", "x":1}"#), "");
        assert_eq!(
            told(
                r#"{"model":"gpt-4o","preset":"p","tools":[1,2],"messages":[]}"#,
                r#"{"model":"openrouter/free","tools":[1],"messages":[],"plugins":[{}]}"#
            ),
            r#"model: "gpt-4o" > "openrouter/free", preset: "p" > -, tools: [2] > [1], plugins: - > [1]"#
        );
        assert_eq!(told(r#"{"messages":[]}"#, r#"{"messages":[],"model":"m"}"#), r#"model: - > "m""#);
        assert_eq!(told("{}", "no JSON"), "");
    }
}
