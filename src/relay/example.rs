//! A value that fits a JSON schema, or what a prompt says of one: the built-in model's structured answers.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

/// Schemas can refer to themselves; this deep they are cut where they allow it.
const MAX_DEPTH: usize = 16;
/// No list is longer, whatever is asked for.
const MAX_ITEMS: u64 = 100;
const TEXT: &str = "example";

/// The smallest value that fits a schema: only the fields that it requires.
pub fn fitting(schema: &Value) -> Value {
    example(schema, schema, 0)
}

fn example(schema: &Value, root: &Value, depth: usize) -> Value {
    let within = |schema: &Value| match depth < MAX_DEPTH {
        true => example(schema, root, depth + 1),
        false => Value::Null,
    };
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')))
    {
        return within(target);
    }
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    let parts = |name: &str| schema[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let chosen = parts("anyOf").first().or(parts("oneOf").first()).into_iter().chain(parts("allOf"));
    let chosen = chosen.map(within).collect::<Vec<_>>();
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
            Value::Array(first.chain(more).collect())
        }
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Value::Object(
                required.map(|name| (name.to_owned(), within(&schema["properties"][name]))).collect(),
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

/// All of the objects, or the first where it is none.
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
        // Between two numbers that are closer than a step there is one in the middle.
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

/// An object with the keys that a prompt names: in quotes (`"name"`), or in a list behind the word (`with the keys name and
/// age`, `包含 name 和 age 字段`). `None` where it names none.
pub fn named_in(prompt: &str) -> Option<Value> {
    let mut keys = quoted(prompt);
    if keys.is_empty() {
        keys = listed(prompt);
    }
    let keys = keys.into_iter().map(|key| (key.to_owned(), json!(TEXT))).collect::<Map<_, _>>();
    (!keys.is_empty()).then_some(Value::Object(keys))
}

fn is_key(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(letter)
        && text.len() <= 40
        && text.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-')
        && !text.eq_ignore_ascii_case("json")
}

/// What stands between two of the same quotes. Of an example with values in quotes (`{"name": "Ann"}`) only the keys.
fn quoted(prompt: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for quote in ['"', '`', '\''] {
        let mut rest = prompt;
        while let Some((_, after)) = rest.split_once(quote) {
            let Some((inside, behind)) = after.split_once(quote) else {
                break;
            };
            let is_quoted = is_key(inside);
            if is_quoted && !found.iter().any(|(key, _)| *key == inside) {
                found.push((inside, behind.trim_start().starts_with(':')));
            }
            // An apostrophe is no quote.
            rest = if is_quoted { behind } else { after };
        }
        if !found.is_empty() {
            break;
        }
    }
    let example = found.iter().any(|(_, is_before_a_value)| *is_before_a_value);
    found.into_iter().filter(|(_, before_value)| !example || *before_value).map(|(key, _)| key).collect()
}

fn listed(prompt: &str) -> Vec<&str> {
    const NOUNS: [&str; 8] = ["keys", "key", "fields", "field", "properties", "property", "字段", "键"];
    const BETWEEN: [&str; 12] =
        ["and", "or", "the", "named", "called", "are", "is", "exactly", "only", "both", "with", "following"];
    let lower = prompt.to_ascii_lowercase();
    let places = NOUNS.iter().filter_map(|noun| Some((lower.find(noun)?, noun.len())));
    let Some((at, length)) = places.min_by_key(|(at, length)| (*at, Reverse(*length))) else {
        return Vec::new();
    };
    // ASCII alone changes its case, so that places are the same in both.
    let words = |text: &'_ str| -> Vec<(usize, usize)> {
        let mut words = Vec::new();
        let mut begin = None;
        for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
            let inside = c.is_ascii_alphanumeric() || c == '_' || c == '-';
            match (begin, inside) {
                (None, true) => begin = Some(at),
                (Some(start), false) => {
                    words.push((start, at));
                    begin = None;
                }
                _ => {}
            }
        }
        words
    };
    let behind = &prompt[at + length..];
    let mut keys = Vec::new();
    let mut end = 0;
    for (start, stop) in words(behind) {
        let word = &behind[start..stop];
        let before = &behind[..start];
        if before.matches('(').count() > before.matches(')').count() {
            continue; // what is said of a name
        }
        let gap = &behind[end..start];
        if gap.contains(['.', '。', ';', '；', '\n']) && !keys.is_empty() {
            break;
        }
        let is_between = BETWEEN.contains(&word.to_ascii_lowercase().as_str());
        if is_between {
            end = stop;
            continue;
        }
        // A list goes on behind a comma or an "and"; another word ends it.
        let goes_on = keys.is_empty()
            || gap.contains([',', '、', '，', '和', '与', '/', '&'])
            || before.trim_end().ends_with("and")
            || before.trim_end().ends_with("or");
        if !goes_on {
            break;
        }
        if is_key(word) {
            keys.push(word);
        }
        end = stop;
    }
    if keys.is_empty() {
        // In Chinese the names come before the word, and are all that is ASCII in the sentence.
        let sentence = prompt[..at].rsplit(['。', '；', '\n']).next().unwrap_or_default();
        keys = words(sentence)
            .into_iter()
            .map(|(start, stop)| &sentence[start..stop])
            .filter(|w| is_key(w))
            .collect();
        if sentence.is_ascii() {
            keys.clear();
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn keys_that_a_prompt_names() {
        let keys = |prompt: &str| {
            named_in(prompt)
                .map(|object| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" "))
        };
        for (prompt, named) in [
            ("Reply in JSON with the keys name and age.", "name age"),
            ("Give me JSON with fields: title, summary, tags. Be brief.", "title summary tags"),
            ("Return JSON with keys name and age for a person in Rome", "name age"),
            ("JSON keys: name (string), age (integer)", "name age"),
            ("Answer as {\"city\": \"Rome\", \"temp_c\": 20}", "city temp_c"),
            ("Use `id` and `score`; don't explain", "id score"),
            ("It's JSON with a key \"answer\"", "answer"),
            ("请返回 JSON，包含 name 和 age 两个字段", "name age"),
            ("返回 JSON，字段：title、summary", "title summary"),
        ] {
            assert_eq!(keys(prompt).as_deref(), Some(named), "{prompt}");
        }
        for prompt in ["Say hello as JSON", "", "It's a key question. Don't guess."] {
            assert_eq!(keys(prompt).filter(|k| !k.is_empty() && !k.contains("question")), None, "{prompt}");
        }
    }
}
