//! The changes that the free-model rule makes to a body: to fields by their names, to lists element by element. The
//! rest stays as it was written.

use std::borrow::Cow;

use crate::json::{self, Field};

/// A change to a field.
#[derive(Debug)]
pub(super) enum Edit {
    /// The field is removed.
    Drop,
    /// The field gets another value.
    Replace(String),
}

/// The changes that the free-model rule makes, by the field's name.
#[derive(Debug, Default)]
pub struct Edits {
    fields: Vec<(&'static str, Edit)>,
    pub(super) added: Vec<(&'static str, String)>,
}

/// What happens to an element of a list.
#[derive(Debug, PartialEq)]
pub enum Keep {
    /// The element stays.
    AsWritten,
    /// The element stays in another form.
    Rewritten(String),
    /// The element is removed.
    Not,
}

/// How much a list has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// Nothing.
    None,
    /// Some of its elements, or parts of them.
    Some,
    /// All of its elements, so that the list itself is removed.
    All,
}

impl Edits {
    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.added.is_empty()
    }

    pub(super) fn of(&self, name: &str) -> Option<&Edit> {
        self.fields.iter().find(|(n, _)| *n == name).map(|(_, edit)| edit)
    }

    /// Removes a field, if it is there.
    pub fn drop_field(&mut self, fields: &[Field<'_>], name: &'static str) {
        if json::field(fields, name).is_some() {
            self.fields.push((name, Edit::Drop));
        }
    }

    /// Replaces a field's value.
    pub fn replace(&mut self, name: &'static str, value: String) {
        self.fields.push((name, Edit::Replace(value)));
    }

    /// Keeps the elements of an array that cost nothing, or removes the array if none is left. An empty array and
    /// `null` stay; any other value is removed, as it can't be known to be free.
    pub fn keep_elements(
        &mut self,
        name: &'static str,
        value: &str,
        keep: impl FnMut(&str) -> Keep,
    ) -> Removed {
        match kept_elements(value, keep) {
            None if value == "null" => Removed::None,
            None => {
                self.fields.push((name, Edit::Drop));
                Removed::All
            }
            Some((_, Removed::None)) => Removed::None,
            Some((_, Removed::All)) => {
                self.fields.push((name, Edit::Drop));
                Removed::All
            }
            Some((list, Removed::Some)) => {
                self.fields.push((name, Edit::Replace(list)));
                Removed::Some
            }
        }
    }

    /// Adds a plugin to those that are kept; `written` is the field as the client wrote it.
    pub fn add_plugin(&mut self, plugin: &str, written: Option<&str>) {
        let kept = match self.fields.iter().position(|(name, _)| *name == "plugins") {
            Some(at) => match self.fields.remove(at).1 {
                Edit::Replace(kept) => kept,
                Edit::Drop => String::new(),
            },
            None => written.filter(|w| w.starts_with('[')).unwrap_or_default().to_owned(),
        };
        let inside = kept.trim_start_matches('[').trim_end_matches(']').trim();
        let list = if inside.is_empty() { format!("[{plugin}]") } else { format!("[{inside},{plugin}]") };
        match written {
            Some(_) => self.fields.push(("plugins", Edit::Replace(list))),
            None => self.added.push(("plugins", list)),
        }
    }
}

/// Returns an array with the elements that stay, and how much it has lost; `None` if the value isn't an array. If
/// nothing changes, the text is empty; an array that was already empty has lost nothing.
pub fn kept_elements(value: &str, mut keep: impl FnMut(&str) -> Keep) -> Option<(String, Removed)> {
    let elements = json::elements(value)?;
    let mut changed = false;
    let mut kept = Vec::with_capacity(elements.len());
    for element in &elements {
        match keep(element) {
            Keep::AsWritten => kept.push(Cow::Borrowed(*element)),
            Keep::Rewritten(text) => {
                changed = true;
                kept.push(Cow::Owned(text));
            }
            Keep::Not => changed = true,
        }
    }
    let removed = match (changed, kept.is_empty()) {
        (false, _) => return Some((String::new(), Removed::None)),
        (true, true) => Removed::All,
        (true, false) => Removed::Some,
    };
    Some((format!("[{}]", kept.join(",")), removed))
}

/// Decides on an object by its fields; of duplicate fields only the last one is kept, which is also the one that
/// decides. Anything that isn't an object is removed.
pub fn keep_object(element: &str, keep: impl FnOnce(&[Field<'_>]) -> bool) -> Keep {
    let Ok(mut fields) = json::fields(element) else {
        return Keep::Not;
    };
    let rewritten = json::drop_duplicates(&mut fields);
    match keep(&fields) {
        false => Keep::Not,
        true if rewritten => Keep::Rewritten(json::object(&fields)),
        true => Keep::AsWritten,
    }
}
