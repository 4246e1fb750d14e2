//! Finds the tool call that a result belongs to, for APIs whose results name the tool and not always the call.

use std::collections::{HashMap, VecDeque};

/// Calls that have no result yet, found in time that doesn't grow with their number.
#[derive(Default)]
pub(super) struct OpenCalls {
    /// The ids in the order of the calls; `None` once a call has its result.
    ids: Vec<Option<String>>,
    by_id: HashMap<String, usize>,
    by_name: HashMap<String, VecDeque<usize>>,
    /// All calls before this one have results.
    first: usize,
}

impl OpenCalls {
    /// Adds a call.
    pub fn push(&mut self, name: &str, id: &str) {
        self.by_id.insert(id.to_owned(), self.ids.len());
        self.by_name.entry(name.to_owned()).or_default().push_back(self.ids.len());
        self.ids.push(Some(id.to_owned()));
    }

    /// Takes the call that a result belongs to, and returns its id: found by the id, else by the tool's name, else by
    /// its place.
    pub fn take(&mut self, id: Option<&str>, name: Option<&str>) -> Option<String> {
        if let Some(found) = self.by_id.get(id.unwrap_or_default()).and_then(|at| self.ids[*at].take()) {
            return Some(found);
        }
        while let Some(at) = self.by_name.get_mut(name.unwrap_or_default()).and_then(VecDeque::pop_front) {
            if let Some(found) = self.ids[at].take() {
                return Some(found);
            }
        }
        self.first += self.ids[self.first..].iter().take_while(|id| id.is_none()).count();
        self.ids.get_mut(self.first)?.take()
    }

    /// Returns the ids of the calls that have no result in the end.
    pub fn into_ids(self) -> impl Iterator<Item = String> {
        self.ids.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_find_their_calls_however_many_there_are() {
        const MANY: usize = 300_000;
        let mut open = OpenCalls::default();
        (0..MANY).for_each(|number| open.push(&format!("f{number}"), &number.to_string()));
        assert_eq!(open.take(None, Some("nobody's")).as_deref(), Some("0"), "the first of any");
        for number in (1..MANY).rev() {
            let tool = if number % 2 == 0 { format!("f{number}") } else { String::new() };
            let id = open.take(None, Some(&tool)).unwrap();
            assert!(number % 2 == 1 || number < MANY / 2 || id == number.to_string(), "{id} for {tool}");
        }
        assert_eq!(open.take(None, Some("f1")), None);
        open.push("f", "a");
        open.push("f", "b");
        assert_eq!(
            [open.take(None, Some("f")), open.take(None, Some("g")), open.take(None, Some("f"))],
            [Some("a".into()), Some("b".into()), None]
        );
    }

    #[test]
    fn an_id_counts_more_than_a_name() {
        let mut open = OpenCalls::default();
        for (name, id) in [("f", "a"), ("f", "b"), ("g", "c")] {
            open.push(name, id);
        }
        assert_eq!(open.take(Some("b"), Some("g")).as_deref(), Some("b"));
        assert_eq!(open.take(Some("?"), Some("g")).as_deref(), Some("c"));
        assert_eq!(open.into_ids().collect::<Vec<_>>(), ["a"]);
    }
}
