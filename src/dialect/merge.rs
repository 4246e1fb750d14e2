//! Puts deltas together: text grows, lists grow, elements with the same `index` are merged, everything else
//! is replaced. However long a stream is, what is kept of it takes up no more than its [`MemoryBudget`].

use serde_json::{Map, Value};

/// Fields whose text doesn't come in pieces.
const UNSPLIT_FIELDS: [&str; 7] =
    ["role", "id", "type", "name", "finish_reason", "native_finish_reason", "format"];

/// The room for the answer that is put together from one stream: more than any model writes.
const ROOM_BYTES: usize = 16 << 20;
/// The bytes that a value takes up besides its text, and a field besides its value.
const VALUE_BYTES: usize = 80;
const FIELD_BYTES: usize = 64;

/// The room that is left for what a stream adds up to. Whatever doesn't fit is left out.
#[derive(Debug)]
pub struct MemoryBudget {
    left: usize,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self { left: ROOM_BYTES }
    }
}

impl MemoryBudget {
    /// Whether any room is left.
    pub fn is_left(&self) -> bool {
        self.left > 0
    }

    fn takes(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.left = 0, // otherwise small pieces would be added after a gap
        }
        self.left > 0
    }

    /// Appends to a text.
    pub fn push_str(&mut self, text: &mut String, more: &str) {
        if self.takes(more.len()) {
            text.push_str(more);
        }
    }

    /// Replaces a value.
    pub fn replace(&mut self, old: &mut Value, value: Value) {
        self.left = self.left.saturating_add(if self.is_left() { bytes_of(old) } else { 0 });
        if self.takes(bytes_of(&value)) {
            *old = value;
        }
    }

    /// Adds a field to an object, or replaces it.
    pub fn insert(&mut self, object: &mut Map<String, Value>, name: String, value: Value) {
        match object.get_mut(&name) {
            Some(old) => self.replace(old, value),
            None if self.takes(FIELD_BYTES + name.len() + bytes_of(&value)) => {
                drop(object.insert(name, value))
            }
            None => {}
        }
    }

    fn push(&mut self, list: &mut Vec<Value>, value: Value) {
        if self.takes(bytes_of(&value)) {
            list.push(value);
        }
    }
}

fn bytes_of(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(bytes_of).sum(),
            Value::Object(object) => {
                object.iter().map(|(name, value)| FIELD_BYTES + name.len() + bytes_of(value)).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// Adds one field of a delta.
pub fn merge(target: &mut Map<String, Value>, name: String, value: Value, room: &mut MemoryBudget) {
    match (target.get_mut(&name), value) {
        (Some(_), Value::Null) => {}
        (Some(Value::String(text)), Value::String(more)) if !UNSPLIT_FIELDS.contains(&name.as_str()) => {
            room.push_str(text, &more);
        }
        (Some(Value::Array(list)), Value::Array(more)) => {
            more.into_iter().for_each(|element| add_element(list, element, room))
        }
        (Some(Value::Object(object)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(object, name, value, room));
        }
        (Some(Value::String(_)), Value::String(more)) if more.is_empty() => {}
        (None, Value::Array(more)) => {
            let mut list = Vec::new();
            more.into_iter().for_each(|element| add_element(&mut list, element, room));
            target.insert(name, Value::Array(list));
        }
        (_, value) => room.insert(target, name, value),
    }
}

/// How many of the last elements are searched for the one that a piece belongs to. More are never streamed side by
/// side, and the work must not grow with everything that has come before.
pub const OPEN_ELEMENTS: usize = 256;

fn add_element(list: &mut Vec<Value>, element: Value, room: &mut MemoryBudget) {
    let known = element.get("index").and_then(|index| {
        list.iter_mut().rev().take(OPEN_ELEMENTS).find(|known| known.get("index") == Some(index))
    });
    match (known, element) {
        (Some(Value::Object(known)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(known, name, value, room));
        }
        (_, element) => room.push(list, element),
    }
}

/// Appends text to a field.
pub fn append(target: &mut Value, name: &str, more: &str, room: &mut MemoryBudget) {
    match target.get_mut(name) {
        Some(Value::String(text)) => room.push_str(text, more),
        _ => {
            if let Some(object) = target.as_object_mut() {
                room.insert(object, name.to_owned(), more.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_find_their_element() {
        let (mut target, mut room) = (Map::new(), MemoryBudget::default());
        for (index, text) in [(0, "a"), (1, "b"), (0, "c"), (7, "d"), (1, "e")] {
            merge(&mut target, "calls".into(), json!([{"index": index, "text": text}]), &mut room);
        }
        merge(&mut target, "calls".into(), json!([{"text": "x"}, {"text": "y"}]), &mut room);
        let expected = json!([
            {"index": 0, "text": "ac"}, {"index": 1, "text": "be"}, {"index": 7, "text": "d"}, {"text": "x"}, {"text": "y"}
        ]);
        assert_eq!(target["calls"], expected);
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        for piece in [
            json!({"content": "x".repeat(1000)}),
            json!({"list": [{}, {}, [], 1, "x"]}),
            json!({"list": [{"index": 1, "more": [{}]}]}),
        ] {
            let (mut target, mut room) = (Map::new(), MemoryBudget::default());
            let mut rounds = 0;
            while room.is_left() {
                for (name, value) in piece.clone().as_object_mut().unwrap() {
                    merge(&mut target, name.clone(), value.take(), &mut room);
                }
                rounds += 1;
                assert!(rounds < 1_000_000, "{piece}");
            }
            let kept = bytes_of(&Value::Object(target));
            assert!((ROOM_BYTES / 2..ROOM_BYTES + 4096).contains(&kept), "{kept} bytes of {piece}");
        }
        // What is replaced makes room for what replaces it.
        let (mut target, mut room) = (Map::new(), MemoryBudget::default());
        for _ in 0..100 {
            merge(&mut target, "id".into(), "x".repeat(1 << 20).into(), &mut room);
        }
        assert!(room.is_left());
    }
}
