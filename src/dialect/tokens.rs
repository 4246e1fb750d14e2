//! How many tokens a text has, about.

/// About so many tokens has a text.
pub fn estimate(text: &str) -> u64 {
    text.len() as u64 / 4
}

/// The same of a piece of JSON.
pub fn of_json(json: &str) -> u64 {
    estimate(json)
}
