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

fn add_element(list: &mut Vec<Value>, element: Value) {
    let index = element.get("index").cloned();
    let known = list.iter_mut().find(|known| index.is_some() && known.get("index") == index.as_ref());
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
