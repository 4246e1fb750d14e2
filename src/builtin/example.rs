//! A value that fits a JSON schema: the built-in model's structured answers.

use crate::json::items;
use std::cell::Cell;

use serde_json::{Value, json};

/// The nesting limit, as schemas can refer to themselves: values below it are `null`, and lists that may be empty are
/// left empty from half of it on.
const MAX_DEPTH: usize = 16;
/// The most items a list gets, whatever `minItems` asks for.
const MAX_ITEMS: u64 = 100;
/// The most values in all: without this limit each of a hundred items could hold a hundred.
const MAX_VALUES: usize = 10_000;
const BYTES_OF_A_VALUE: usize = 64;
const TEXT: &str = "example";

/// Returns the smallest value that fits a schema: objects have only their required fields.
pub fn fitting(schema: &Value) -> Value {
    example(schema, schema, 0, &Cell::new(MAX_VALUES))
}

fn example(schema: &Value, root: &Value, depth: usize, left: &Cell<usize>) -> Value {
    let within = |schema: &Value| {
        if depth == MAX_DEPTH || left.get() == 0 {
            return Value::Null;
        }
        left.update(|left| left - 1);
        example(schema, root, depth + 1, left)
    };
    // A long fixed value counts as several values.
    let taken = |value: &Value| {
        left.set(left.get().saturating_sub(value.to_string().len() / BYTES_OF_A_VALUE));
        value.clone()
    };
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')))
    {
        return within(target);
    }
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return taken(value);
        }
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return taken(first);
    }
    let parts = |name: &str| schema[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let chosen = parts("anyOf").first().or(parts("oneOf").first()).into_iter().chain(parts("allOf"));
    let chosen = chosen.map(within).take_while(|_| left.get() > 0).collect::<Vec<_>>();
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    let kind = kind.or_else(|| {
        let implied = [("object", "properties"), ("array", "items"), ("array", "prefixItems")];
        implied.into_iter().find(|(_, word)| schema.get(word).is_some()).map(|(kind, _)| kind)
    });
    let own = match kind {
        Some("integer") => json!(number(schema, true) as i64),
        Some("number") => match number(schema, false) {
            whole if whole.fract() == 0.0 => json!(whole as i64),
            part => json!(part),
        },
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("string") => text(schema),
        Some("array") => {
            let at_least =
                schema["minItems"].as_u64().unwrap_or(u64::from(depth < MAX_DEPTH / 2)).min(MAX_ITEMS);
            let at_most = schema["maxItems"].as_u64().unwrap_or(MAX_ITEMS);
            let first = parts("prefixItems").iter().map(within);
            let more = (first.len() as u64..at_least.min(at_most)).map(|_| within(&schema["items"]));
            Value::Array(first.chain(more).take_while(|_| left.get() > 0).collect())
        }
        Some("object") => {
            let required = items(&schema["required"]).filter_map(Value::as_str);
            Value::Object(
                required
                    .map(|name| (name.to_owned(), within(&schema["properties"][name])))
                    .take_while(|_| left.get() > 0)
                    .collect(),
            )
        }
        _ if !chosen.is_empty() => return merged(chosen),
        _ => json!(TEXT),
    };
    match own {
        Value::Object(_) => merged([own].into_iter().chain(chosen)),
        own => chosen.into_iter().next().unwrap_or(own),
    }
}

/// Merges all objects into one; returns the first value as it is if it isn't an object.
fn merged(values: impl IntoIterator<Item = Value>) -> Value {
    let mut values = values.into_iter();
    let mut all = values.next().unwrap_or_default();
    for value in values {
        if let (Value::Object(all), Value::Object(more)) = (&mut all, value) {
            for (name, value) in more {
                all.entry(name).or_insert(value);
            }
        }
    }
    all
}

fn number(schema: &Value, whole: bool) -> f64 {
    let bound = |name: &str| schema[name].as_f64();
    let step = bound("multipleOf").filter(|step| *step > 0.0);
    let next = step.unwrap_or(if whole { 1.0 } else { 0.5 });
    let up = |n: f64| (n / next).ceil() * next;
    let down = |n: f64| (n / next).floor() * next;
    let lowest = match (bound("minimum"), bound("exclusiveMinimum")) {
        (_, Some(below)) if bound("minimum").is_none_or(|minimum| minimum <= below) => {
            let value = up(below);
            Some(if value > below { value } else { value + next })
        }
        (Some(minimum), _) => Some(if whole || step.is_some() { up(minimum) } else { minimum }),
        _ => None,
    };
    let highest = match (bound("maximum"), bound("exclusiveMaximum")) {
        (_, Some(above)) if bound("maximum").is_none_or(|maximum| maximum >= above) => {
            let value = down(above);
            Some(if value < above { value } else { value - next })
        }
        (Some(maximum), _) => Some(if whole || step.is_some() { down(maximum) } else { maximum }),
        _ => None,
    };
    match (lowest, highest) {
        // If the bounds are less than a step apart, the value in the middle between them fits.
        (Some(low), Some(high)) if low > high && !whole && step.is_none() => {
            let low = bound("minimum").or(bound("exclusiveMinimum")).unwrap_or(low);
            let high = bound("maximum").or(bound("exclusiveMaximum")).unwrap_or(high);
            low + (high - low) / 2.0
        }
        (Some(low), _) => low,
        (None, Some(high)) if high < 1.0 => high,
        _ => step.unwrap_or(1.0),
    }
}

fn text(schema: &Value) -> Value {
    let text = match schema["format"].as_str() {
        Some("date") => "2024-02-14",
        Some("date-time") => "2024-02-14T10:30:45Z",
        Some("time") => "10:30:45Z",
        Some("duration") => "PT1H",
        Some("email") => "someone@example.com",
        Some("hostname") => "example.com",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "123e4567-e89b-12d3-a456-426614174000",
        _ => TEXT,
    };
    let length = |name: &str| schema[name].as_u64().map(|length| length.min(10_000) as usize);
    let at_least = length("minLength").unwrap_or(0);
    let at_most = length("maxLength").unwrap_or(usize::MAX);
    json!(
        text.chars()
            .chain(std::iter::repeat('x'))
            .take(text.len().max(at_least).min(at_most))
            .collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_makes_more_than_can_be_sent() {
        let long = "x".repeat(100_000);
        for schema in [
            json!({"type": "array", "minItems": 100, "items": {"$ref": "#"}}),
            json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]}),
            json!({"type": "object", "required": ["a", "b", "c"], "properties":
                {"a": {"$ref": "#"}, "b": {"$ref": "#"}, "c": {"$ref": "#"}}}),
            json!({"type": "array", "minItems": 100, "items": {"type": "array", "minItems": 100, "items": {"default": long}}}),
        ] {
            assert!(fitting(&schema).to_string().len() < 2_000_000);
        }
    }

    #[test]
    fn only_what_is_required() {
        let schema = json!({"type": "object", "required": ["a"],
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
        assert_eq!(fitting(&schema), json!({"a": "example"}));
        assert_eq!(fitting(&json!({"type": "object", "properties": {"a": {}}})), json!({}));
        assert_eq!(fitting(&json!({})), json!("example"));
    }

    #[test]
    fn numbers_keep_within_their_bounds() {
        for (schema, value) in [
            (json!({"type": "integer"}), json!(1)),
            (json!({"type": "integer", "minimum": 7}), json!(7)),
            (json!({"type": "integer", "minimum": 7.5}), json!(8)),
            (json!({"type": "integer", "exclusiveMinimum": 7}), json!(8)),
            (json!({"type": "integer", "minimum": 9, "exclusiveMinimum": 7}), json!(9)),
            (json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.2}), json!(0.1)),
            (json!({"type": "number", "minimum": 0.25}), json!(0.25)),
            (json!({"type": "number", "maximum": -3}), json!(-3)),
            (json!({"type": "integer", "exclusiveMaximum": 1}), json!(0)),
            (json!({"type": "integer", "maximum": 10}), json!(1)),
            (json!({"type": "integer", "multipleOf": 5, "minimum": 11}), json!(15)),
            (json!({"type": ["number", "null"]}), json!(1)),
        ] {
            assert_eq!(fitting(&schema), value, "{schema}");
        }
    }

    #[test]
    fn choices_and_references() {
        let schema = json!({"type": "object", "required": ["e", "c", "u", "s", "l", "all"],
        "$defs": {"S": {"type": "array", "items": {"$ref": "#/$defs/S"}}, "N": {"type": "integer", "minimum": 3}},
        "properties": {
            "e": {"enum": ["x", "y"]},
            "c": {"const": 5},
            "u": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]},
            "s": {"$ref": "#/$defs/S"},
            "l": {"type": "string", "minLength": 9, "maxLength": 12},
            "all": {"allOf": [{"type": "object", "required": ["p"], "properties": {"p": {"type": "boolean"}}},
                {"type": "object", "required": ["q"], "properties": {"q": {"type": "null"}}}]},
        }});
        let value = fitting(&schema);
        assert_eq!((&value["e"], &value["c"], &value["u"]), (&json!("x"), &json!(5), &json!(3)));
        assert_eq!((&value["l"], &value["all"]), (&json!("examplexx"), &json!({"p": true, "q": null})));
        assert!(value["s"].is_array() && !value.to_string().contains("[null]"), "{value}");
        let three = json!({"type": "array", "minItems": 3, "items": {"type": "boolean"}});
        assert_eq!(fitting(&three), json!([true, true, true]));
        let base = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
            "anyOf": [{"required": ["a"]}]});
        assert_eq!(fitting(&base)["a"], 1);
    }
}
