//! How a conversation is recognized from one request to the next: by the client's name for it, else by its beginning.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::dialect::Needs;

/// The number of bytes hashed at each end of a long text.
const HASHED_BYTES: usize = 4096;
/// Longer turns hold images or whole files: they are compared as they are written, by their beginning and end.
const MAX_UNDERSTOOD_BYTES: usize = 64 * 1024;

/// Marks by which a conversation is recognized.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Marks of the states in which the conversation may have been left before, the likeliest first.
    pub before: Vec<u64>,
    /// Marks by which the next request of the conversation recognizes it.
    pub after: Vec<u64>,
}

impl Conversation {
    /// Returns the marks of a conversation that the client names.
    pub fn named(name: &str, dialect: &'static str, needs: Needs) -> Self {
        let mut hasher = DefaultHasher::new();
        ("named", dialect, needs, name).hash(&mut hasher);
        let mark = hasher.finish();
        Self { before: vec![mark], after: vec![mark] }
    }

    /// Returns the marks of a conversation that is recognized by its turns, each as it was written.
    ///
    /// A request continues another one if a model has spoken after the beginning that both have in common. The last
    /// message may be a reminder that clients put there and never repeat, so the state before it is remembered as well.
    pub fn of(turns: &[&str], dialect: &'static str, needs: Needs) -> Self {
        let mut hasher = DefaultHasher::new();
        (dialect, needs).hash(&mut hasher);
        let (mut marks, mut first_user, mut last_model) = (Vec::with_capacity(turns.len()), None, None);
        for (number, written) in turns.iter().enumerate() {
            let turn = Turn::read(written);
            turn.said.hash(&mut hasher);
            marks.push(hasher.finish());
            match turn.by {
                By::User => first_user = first_user.or(Some(number)),
                By::Model => last_model = Some(number),
                By::Other => {}
            }
        }
        let first = first_user.unwrap_or(0);
        let before = last_model.map_or(&[][..], |last| &marks[first.min(last)..last]);
        let after = marks.len().saturating_sub(2).max(first);
        Self {
            before: before.iter().rev().copied().collect(),
            after: marks.get(after..).unwrap_or_default().to_vec(),
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum By {
    User,
    Model,
    #[default]
    Other,
}

/// What a turn says, however it is written, and whose turn it is.
struct Turn {
    said: u64,
    by: By,
}

impl Turn {
    fn read(written: &str) -> Self {
        // In Responses, a text alone is what the user says.
        if written.starts_with('"') {
            return Self::read(&format!(r#"{{"role":"user","content":{written}}}"#));
        }
        if written.len() <= MAX_UNDERSTOOD_BYTES {
            let mut by = By::default();
            let mut json = serde_json::Deserializer::from_str(written);
            if let Ok(said) = (ValueHasher { by: Some(&mut by) }).deserialize(&mut json) {
                return Self { said: said.hash, by };
            }
        }
        // The role may stand at the end of the object as well as at its beginning.
        let begins = &written.as_bytes()[..written.len().min(HASHED_BYTES)];
        let ends = &written.as_bytes()[written.len().saturating_sub(HASHED_BYTES)..];
        let says = |word: &[u8]| [begins, ends].iter().any(|part| memchr::memmem::find(part, word).is_some());
        let by = match (says(br#""user""#), says(br#""assistant""#)) {
            (true, false) => By::User,
            (false, true) => By::Model,
            _ => By::Other,
        };
        Self { said: of_text(written), by }
    }
}

/// Hashes a text, a long one by its length, its beginning and its end: hashing megabytes would cost as much as sending
/// them, and only the choice of the first model depends on it.
fn of_text(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hasher = DefaultHasher::new();
    bytes.len().hash(&mut hasher);
    if bytes.len() > 2 * HASHED_BYTES {
        (&bytes[..HASHED_BYTES], &bytes[bytes.len() - HASHED_BYTES..]).hash(&mut hasher);
    } else {
        bytes.hash(&mut hasher);
    }
    hasher.finish()
}

/// Fields that don't change the meaning: cache markers, numbers that servers assign.
const SAYS_NOTHING: [&str; 7] =
    ["cache_control", "id", "status", "annotations", "logprobs", "encrypted_content", "signature"];
/// Types of a content part that holds text and nothing else.
const TEXTS: [&str; 3] = ["text", "input_text", "output_text"];

/// Hashes a value by its meaning: a text is the same alone and as a list of one part, and an empty value is the same as
/// none.
struct ValueHasher<'a> {
    /// Receives whose turn it is.
    by: Option<&'a mut By>,
}

#[derive(Default)]
struct ValueHash {
    /// The hash of the meaning; 0 for an empty value.
    hash: u64,
    /// Whether the value is a text.
    is_text: bool,
    /// The text itself, if it is one of a few known words.
    word: Option<&'static str>,
}

impl ValueHash {
    fn of(value: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self { hash: hasher.finish(), ..Self::default() }
    }

    fn text(text: &str) -> Self {
        const WORDS: [&str; 12] = [
            "user",
            "assistant",
            "model",
            "message",
            "text",
            "input_text",
            "output_text",
            "function_call",
            "custom_tool_call",
            "reasoning",
            "tool",
            "system",
        ];
        let text = text.trim();
        let hash = if text.is_empty() { 0 } else { of_text(text) };
        Self { hash, is_text: true, word: WORDS.into_iter().find(|word| *word == text) }
    }
}

impl<'de> DeserializeSeed<'de> for ValueHasher<'_> {
    type Value = ValueHash;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ValueHash, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueHasher<'_> {
    type Value = ValueHash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<ValueHash, E> {
        Ok(ValueHash::default())
    }

    fn visit_bool<E>(self, value: bool) -> Result<ValueHash, E> {
        Ok(ValueHash::of(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ValueHash, E> {
        Ok(ValueHash::of(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ValueHash, E> {
        Ok(ValueHash::of(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ValueHash, E> {
        Ok(ValueHash::of(value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<ValueHash, E> {
        Ok(ValueHash::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ValueHash, A::Error> {
        let mut elements = 0;
        let mut all = ValueHash::default();
        while let Some(element) = list.next_element_seed(ValueHasher { by: None })? {
            if element.hash == 0 {
                continue;
            }
            elements += 1;
            all = match elements {
                1 => element,
                _ => ValueHash::of((all.hash, element.hash)),
            };
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ValueHash, A::Error> {
        let (mut kind, mut role, mut text) = (None, None, None);
        // The order of fields doesn't matter.
        let (mut others, mut sum) = (0, 0u64);
        while let Some((name, name_hash)) = map.next_key_seed(NameOf)? {
            let value = map.next_value_seed(ValueHasher { by: None })?;
            match name {
                _ if value.hash == 0 => continue,
                Name::SaysNothing => continue,
                Name::Type => kind = value.word,
                Name::Role => role = value.word,
                Name::Text if value.is_text => text = Some(value.hash),
                Name::Text | Name::Other => others += 1,
            }
            // An item without a type is a message, so this type adds no meaning.
            if (name, value.word) != (Name::Type, Some("message")) {
                sum = sum.wrapping_add(ValueHash::of((name_hash, value.hash)).hash);
            }
        }
        if let Some(by) = self.by {
            *by = match (role, kind) {
                (Some("user"), _) => By::User,
                (Some("assistant" | "model"), _) => By::Model,
                (None, Some("function_call" | "custom_tool_call" | "reasoning")) => By::Model,
                _ => By::Other,
            };
        }
        match text {
            Some(hash) if others == 0 && role.is_none() && kind.is_some_and(|kind| TEXTS.contains(&kind)) => {
                Ok(ValueHash { hash, is_text: true, word: None })
            }
            _ => Ok(ValueHash { hash: sum, ..ValueHash::default() }),
        }
    }
}

/// The name of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Type,
    Role,
    Text,
    SaysNothing,
    Other,
}

/// Hashes a field's name without keeping it, and tells whether it is a known one.
struct NameOf;

impl<'de> DeserializeSeed<'de> for NameOf {
    type Value = (Name, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameOf {
    type Value = (Name, u64);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let kind = match name {
            "type" => Name::Type,
            "role" => Name::Role,
            "text" => Name::Text,
            _ if SAYS_NOTHING.contains(&name) => Name::SaysNothing,
            _ => Name::Other,
        };
        Ok((kind, of_text(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { tools: true, images: false, structured: false };

    fn of(turns: &[&str]) -> Conversation {
        Conversation::of(turns, "chat", NEEDS)
    }

    const SYSTEM: &str = r#"{"role":"system","content":"be good"}"#;
    const ASKED: &str = r#"{"role":"user","content":"hello"}"#;
    const SAID: &str = r#"{"role":"assistant","content":"hi"}"#;
    const AGAIN: &str = r#"{"role":"user","content":"and now?"}"#;

    fn goes_on(first: &[&str], second: &[&str]) -> bool {
        let (first, second) = (of(first), of(second));
        second.before.iter().any(|mark| first.after.contains(mark))
    }

    #[test]
    fn a_conversation_goes_on_where_its_beginning_is_the_same() {
        let next = [SYSTEM, ASKED, SAID, AGAIN];
        assert!(goes_on(&[SYSTEM, ASKED], &next));
        assert!(goes_on(&next, &[SYSTEM, ASKED, SAID, AGAIN, SAID, ASKED]));
        assert!(!goes_on(&[SYSTEM, AGAIN], &next), "another question");
        assert!(
            !goes_on(&[SYSTEM, ASKED], &[SYSTEM, ASKED]),
            "the same question again is a new conversation"
        );
        assert!(!goes_on(&[SYSTEM, ASKED], &[SYSTEM, AGAIN, SAID, ASKED]), "a prompt in common is none");
        let other = Conversation::of(&next, "messages", NEEDS);
        assert!(!other.before.iter().any(|mark| of(&[SYSTEM, ASKED]).after.contains(mark)), "another API");
        let other = Conversation::of(&next, "chat", Needs::default());
        assert!(!other.before.iter().any(|mark| of(&[SYSTEM, ASKED]).after.contains(mark)), "other needs");
    }

    #[test]
    fn how_a_turn_is_written_doesnt_matter() {
        let next = [SYSTEM, ASKED, SAID, AGAIN];
        for asked in [
            r#"{ "role" : "user", "content" : "hello" }"#,
            r#"{"content":"hello","role":"user"}"#,
            r#"{"role":"user","content":[{"type":"text","text":"hello"}]}"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"hello\n","cache_control":{"type":"ephemeral"}}]}"#,
            r#"{"type":"message","id":"x","role":"user","content":"hello","name":null}"#,
        ] {
            assert!(goes_on(&[SYSTEM, asked], &next), "{asked}");
        }
        for asked in [r#"{"role":"user","content":"hullo"}"#, r#"{"role":"user","content":["hello","x"]}"#] {
            assert!(!goes_on(&[SYSTEM, asked], &next), "{asked}");
        }
    }

    #[test]
    fn a_last_message_that_never_becomes_history_hides_nothing() {
        let reminder = r#"{"role":"system","content":"it is noon"}"#;
        assert!(goes_on(&[SYSTEM, ASKED, reminder], &[SYSTEM, ASKED, SAID, AGAIN, reminder]));
        let call = r#"{"type":"function_call","name":"f","arguments":"{}","call_id":"c"}"#;
        let result = r#"{"type":"function_call_output","call_id":"c","output":"1"}"#;
        assert!(goes_on(&[ASKED], &[ASKED, call, result]), "an item without a role is the model's");
    }

    #[test]
    fn long_and_deep_turns_are_compared_as_they_are() {
        let long = format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(MAX_UNDERSTOOD_BYTES));
        assert!(goes_on(&[&long], &[&long, SAID, AGAIN]));
        let deep = format!(r#"{{"role":"user","content":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(goes_on(&[&deep], &[&deep, SAID, AGAIN]));
        assert_eq!(of(&[]), Conversation::default());
    }
}
