//! Deltas put together: text grows, lists grow, elements with an `index` grow by themselves, the rest is replaced.

use serde_json::{Map, Value};

/// Text that isn't told piece by piece.
const WHOLE: [&str; 7] = ["role", "id", "type", "name", "finish_reason", "native_finish_reason", "format"];

/// Adds what a delta brings under one name.
pub fn merge(target: &mut Map<String, Value>, name: String, value: Value) {
    match (target.get_mut(&name), value) {
        (Some(_), Value::Null) => {}
        (Some(Value::String(text)), Value::String(more)) if !WHOLE.contains(&name.as_str()) => {
            text.push_str(&more)
        }
        (Some(Value::Array(list)), Value::Array(more)) => {
            more.into_iter().for_each(|element| add_element(list, element))
        }
        (Some(Value::Object(object)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(object, name, value));
        }
        (Some(Value::String(_)), Value::String(more)) if more.is_empty() => {}
        (Some(old), value) => *old = value,
        (None, Value::Array(more)) => {
            let mut list = Vec::new();
            more.into_iter().for_each(|element| add_element(&mut list, element));
            target.insert(name, Value::Array(list));
        }
        (None, value) => {
            target.insert(name, value);
        }
    }
}

/// So many of the last elements are looked at for the one that a piece belongs to: more are never told side by side, and
/// work must not grow with all that has come before.
pub const OPEN_ELEMENTS: usize = 256;

fn add_element(list: &mut Vec<Value>, element: Value) {
    let known = element.get("index").and_then(|index| {
        list.iter_mut().rev().take(OPEN_ELEMENTS).find(|known| known.get("index") == Some(index))
    });
    match (known, element) {
        (Some(Value::Object(known)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(known, name, value));
        }
        (_, element) => list.push(element),
    }
}

/// Appends text under one name.
pub fn append(target: &mut Value, name: &str, more: &str) {
    match target.get_mut(name) {
        Some(Value::String(text)) => text.push_str(more),
        _ => {
            if let Some(object) = target.as_object_mut() {
                object.insert(name.to_owned(), more.into());
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
        let mut target = Map::new();
        for (index, text) in [(0, "a"), (1, "b"), (0, "c"), (7, "d"), (1, "e")] {
            merge(&mut target, "calls".into(), json!([{"index": index, "text": text}]));
        }
        merge(&mut target, "calls".into(), json!([{"text": "x"}, {"text": "y"}]));
        let expected = json!([
            {"index": 0, "text": "ac"}, {"index": 1, "text": "be"}, {"index": 7, "text": "d"}, {"text": "x"}, {"text": "y"}
        ]);
        assert_eq!(target["calls"], expected);
    }
}
