//! Builds JSON objects with little machine code: answers that are translated into another API consist of hundreds of
//! them.

use serde_json::Value;

/// The value of a field.
#[derive(Debug)]
pub enum Part<'a> {
    /// A string that is copied when the object is made.
    Text(&'a str),
    /// A value that is copied when the object is made.
    Given(&'a Value),
    /// A value that is moved into the object.
    Made(Value),
}

impl<'a> From<&'a str> for Part<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Value> for Part<'a> {
    fn from(value: &'a Value) -> Self {
        Self::Given(value)
    }
}

impl<'a> From<&'a String> for Part<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

macro_rules! made_from {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Part<'_> {
            fn from(value: $kind) -> Self {
                Self::Made(value.into())
            }
        })*
    };
}
made_from!(Value, String, i32, u64, usize, bool, Vec<Value>);

/// Makes an object of these fields, whose values are taken out.
#[inline(never)]
pub fn made_of(fields: &mut [(&'static str, Part<'_>)]) -> Value {
    let fields = fields.iter_mut().map(|(name, part)| {
        let value = match part {
            Part::Text(text) => Value::from(*text),
            Part::Given(value) => value.clone(),
            Part::Made(value) => value.take(),
        };
        ((*name).to_owned(), value)
    });
    Value::Object(fields.collect())
}

/// Makes an object of these names and expressions.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::object::made_of(&mut [$(($name, $crate::object::Part::from($value))),*])
    };
}
pub(crate) use object;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_json_makes() {
        let name = String::from("n");
        let made = object! {"a": "x", "b": 1_u64, "c": true, "d": Value::Null, "e": vec![Value::from(2)], "f": &name};
        assert_eq!(made.to_string(), r#"{"a":"x","b":1,"c":true,"d":null,"e":[2],"f":"n"}"#);
        assert_eq!(object! {"inner": object! {}}.to_string(), r#"{"inner":{}}"#);
    }
}
