//! A chat completion, plain or streamed, read as a sequence of blocks: reasoning, text, a refusal, tool calls. Servers
//! write these in many ways; the APIs that the answer is translated to know only blocks.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

use crate::json::{SurrogateJoiner, items};
use crate::object::object;

/// The most of a block that is kept to be repeated at its end.
const MAX_GATHERED_BYTES: usize = 16 << 20;
/// The most blanks that may stand before a `<think>`.
const MAX_BLANKS: usize = 256;

const THINK: &str = "<think>";
const END_OF_THINK: &str = "</think>";

/// The kind of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reasoning,
    Text,
    Refusal,
    Call,
}

/// A block, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// The id of a call.
    pub(super) id: String,
    /// The name of the tool that is called.
    pub(super) name: String,
    /// The text, or the arguments of the call.
    pub(super) text: String,
}

/// A change to the blocks; only one of them is open at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A block begins, without content.
    Begin(Block),
    /// The open block grows.
    More(Kind, String),
    /// The open block is complete.
    End(Block),
}

/// Tokens as the server counted them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Tokens of the request, including the cached ones.
    pub(super) input: u64,
    pub(super) cached: u64,
    /// Tokens of the answer, including its reasoning.
    pub(super) output: u64,
    pub(super) reasoning: u64,
}

/// A reader for an answer, whole or chunk by chunk.
#[derive(Debug)]
pub(super) struct ChatParts {
    /// The model that answers.
    pub(super) model: Option<String>,
    /// Why the answer has ended.
    pub(super) finish: Option<String>,
    pub(super) tokens: Tokens,
    /// Whether the text of a block is needed again at its end.
    gathers: bool,
    halves: SurrogateJoiner,
    think: Think,
    open: Option<Block>,
    /// Calls that aren't complete yet; only the first of them is passed on.
    calls: VecDeque<Call>,
    /// The ids of all calls, including the complete ones.
    ids: Vec<String>,
    /// The places of calls in `ids`, by the index that chunks name them by.
    by_index: HashMap<u64, usize>,
    /// Text that came before the arguments of a call were complete.
    later: Vec<(Kind, String)>,
}

#[derive(Debug, Default)]
struct Call {
    name: String,
    /// Arguments that haven't been passed on yet.
    arguments: String,
    is_begun: bool,
    /// Whether any arguments have come.
    has_arguments: bool,
    end: EndOfObject,
}

impl ChatParts {
    pub(super) fn new(gathers: bool) -> Self {
        Self {
            model: None,
            finish: None,
            tokens: Tokens::default(),
            gathers,
            halves: SurrogateJoiner::default(),
            think: Think::default(),
            open: None,
            calls: VecDeque::new(),
            ids: Vec::new(),
            by_index: HashMap::new(),
            later: Vec::new(),
        }
    }

    /// Reads the data of one event, or a whole answer. Returns `None` if it is neither, and the error if it is one.
    pub(super) fn read(&mut self, data: &str) -> Option<Result<Vec<Step>, Value>> {
        let chunk = self.halves.parse(data).filter(Value::is_object)?;
        if !chunk["error"].is_null() {
            return Some(Err(chunk["error"].clone()));
        }
        if let Some(model) = chunk["model"].as_str().filter(|model| !model.is_empty()) {
            self.model = Some(model.to_owned());
        }
        if chunk["usage"].is_object() {
            self.tokens = Tokens::of(&chunk["usage"]);
        }
        let choice = &chunk["choices"][0];
        if let Some(reason) = choice["finish_reason"].as_str().filter(|reason| !reason.is_empty()) {
            if reason == "error" {
                return Some(Err(match &choice["error"] {
                    Value::Null => object! {"code": 502, "message": "The model ended with an error."},
                    error => error.clone(),
                }));
            }
            self.finish = Some(reason.to_owned());
        }
        let mut steps = Vec::new();
        let is_whole = choice["message"].is_object();
        let said = if is_whole { &choice["message"] } else { &choice["delta"] };
        self.read_message(said, is_whole, &mut steps);
        Some(Ok(steps))
    }

    fn read_message(&mut self, said: &Value, is_whole: bool, steps: &mut Vec<Step>) {
        // OpenRouter and Groq use the first name, DeepSeek, llama.cpp and others the second one.
        let thought = [&said["reasoning"], &said["reasoning_content"]].into_iter().find_map(Value::as_str);
        self.say(Kind::Reasoning, thought.unwrap_or_default(), steps);
        match &said["content"] {
            Value::String(text) => self.say_text(text, steps),
            // Mistral's models send their reasoning like this.
            Value::Array(parts) => {
                for part in parts {
                    let thinking = items(&part["thinking"]);
                    thinking.filter_map(|part| part["text"].as_str()).for_each(|thought| {
                        self.say(Kind::Reasoning, thought, steps);
                    });
                    self.say_text(part["text"].as_str().unwrap_or_default(), steps);
                }
            }
            _ => {}
        }
        self.say(Kind::Refusal, said["refusal"].as_str().unwrap_or_default(), steps);
        for call in items(&said["tool_calls"]) {
            self.read_call(call, is_whole, steps);
        }
    }

    /// Ends everything that is open, as nothing more comes.
    pub(super) fn finish(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some((kind, text)) = self.think.finish() {
            self.say(kind, &text, &mut steps);
        }
        while !self.calls.is_empty() {
            self.tell_call(&mut steps);
            self.end_call(&mut steps);
        }
        for (kind, text) in std::mem::take(&mut self.later) {
            self.say(kind, &text, &mut steps);
        }
        self.close(&mut steps);
        steps
    }

    fn say_text(&mut self, text: &str, steps: &mut Vec<Step>) {
        for (kind, text) in self.think.split(text) {
            self.say(kind, &text, steps);
        }
    }

    fn say(&mut self, kind: Kind, text: &str, steps: &mut Vec<Step>) {
        if text.is_empty() {
            return;
        }
        match self.calls.front() {
            Some(call) if call.end.has_come => self.end_call(steps),
            Some(_) => {
                match self.later.last_mut() {
                    Some((last, said)) if *last == kind => said.push_str(text),
                    _ => self.later.push((kind, text.to_owned())),
                }
                return;
            }
            None => {}
        }
        if self.open.as_ref().is_none_or(|block| block.kind != kind) {
            // Blanks alone don't make a block: they often stand between two blocks.
            if text.trim().is_empty() && (kind != Kind::Text || self.think.holds_back(text)) {
                return;
            }
            self.begin(kind, String::new(), String::new(), steps);
        }
        self.grow(text.to_owned(), steps);
    }

    /// Reads a call, or a piece of one.
    fn read_call(&mut self, delta: &Value, is_whole: bool, steps: &mut Vec<Step>) {
        let function = &delta["function"];
        let [id, name] = [&delta["id"], &function["name"]].map(|text| text.as_str().unwrap_or_default());
        let arguments = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            arguments => arguments.to_string(), // as in Ollama's own API
        };
        let index = delta["index"].as_u64();
        let known = match index {
            Some(index) => self.by_index.get(&index).copied(),
            None => self.ids.len().checked_sub(1),
        };
        let ended = self.ids.len() - self.calls.len();
        let is_complete = |number: usize| match number.checked_sub(ended).and_then(|at| self.calls.get(at)) {
            Some(call) => call.end.has_come,
            None => true,
        };
        // Some servers send the same index or no index for all their calls, and some send no ids.
        let is_new = match known {
            None => !name.is_empty() || !id.is_empty(),
            Some(number) if !id.is_empty() => !self.ids[number].is_empty() && self.ids[number] != id,
            Some(number) => {
                !name.is_empty() && (index.is_none() || is_complete(number) && !arguments.is_empty())
            }
        };
        let number = if is_new || is_whole {
            self.calls.push_back(Call::default());
            self.ids.push(id.to_owned());
            self.ids.len() - 1
        } else {
            let Some(number) = known else {
                return;
            };
            number
        };
        if let Some(index) = index {
            self.by_index.insert(index, number);
        }
        let Some(call) = number.checked_sub(ended).and_then(|at| self.calls.get_mut(at)) else {
            return; // the call was complete before
        };
        if self.ids[number].is_empty() {
            self.ids[number].push_str(id);
        }
        if call.name.is_empty() {
            call.name.push_str(name);
        }
        call.end.read(&arguments);
        call.has_arguments |= !arguments.trim().is_empty();
        call.arguments.push_str(&arguments);
        self.advance(steps);
    }

    /// Passes on what is known of the calls, in their order.
    fn advance(&mut self, steps: &mut Vec<Step>) {
        loop {
            self.tell_call(steps);
            let is_over = self.calls.front().is_some_and(|call| call.end.has_come && call.is_begun);
            if !is_over || self.calls.len() == 1 {
                return;
            }
            self.end_call(steps);
        }
    }

    /// Passes on what is known of the first call.
    fn tell_call(&mut self, steps: &mut Vec<Step>) {
        let number = self.ids.len() - self.calls.len();
        let Some(call) = self.calls.front_mut().filter(|call| !call.name.is_empty()) else {
            return;
        };
        let arguments = std::mem::take(&mut call.arguments);
        let name = (!std::mem::replace(&mut call.is_begun, true)).then(|| call.name.clone());
        if let Some(name) = name {
            if self.ids[number].is_empty() {
                self.ids[number] = format!("call_{}", unique());
            }
            self.begin(Kind::Call, self.ids[number].clone(), name, steps);
        }
        if !arguments.is_empty() {
            self.grow(arguments, steps);
        }
    }

    fn end_call(&mut self, steps: &mut Vec<Step>) {
        // Servers leave out the arguments of a tool that takes none; clients parse them as JSON.
        if self.calls.pop_front().is_some_and(|call| call.is_begun && !call.has_arguments) {
            self.grow("{}".to_owned(), steps);
        }
        self.close(steps);
    }

    fn begin(&mut self, kind: Kind, id: String, name: String, steps: &mut Vec<Step>) {
        self.close(steps);
        let block = Block { kind, id, name, text: String::new() };
        steps.push(Step::Begin(block.clone()));
        self.open = Some(block);
    }

    fn grow(&mut self, text: String, steps: &mut Vec<Step>) {
        let Some(block) = &mut self.open else {
            return; // a block has always begun before
        };
        if self.gathers && block.text.len() + text.len() <= MAX_GATHERED_BYTES {
            block.text.push_str(&text);
        }
        steps.push(Step::More(block.kind, text));
    }

    fn close(&mut self, steps: &mut Vec<Step>) {
        steps.extend(self.open.take().map(Step::End));
    }
}

/// Returns the blocks of a whole answer, and the reader with what the answer says about itself; the error if it is one.
pub(super) fn blocks_of(body: &str) -> Option<Result<(ChatParts, Vec<Block>), Value>> {
    let mut parts = ChatParts::new(true);
    let mut steps = match parts.read(body)? {
        Ok(steps) => steps,
        Err(error) => return Some(Err(error)),
    };
    steps.extend(parts.finish());
    let blocks = steps.into_iter().filter_map(|step| match step {
        Step::End(block) => Some(block),
        _ => None,
    });
    let blocks = blocks.collect();
    Some(Ok((parts, blocks)))
}

impl Tokens {
    fn of(usage: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let input = number(&usage["prompt_tokens"]);
        Self {
            input,
            cached: number(&usage["prompt_tokens_details"]["cached_tokens"]).min(input),
            output: number(&usage["completion_tokens"]),
            reasoning: number(&usage["completion_tokens_details"]["reasoning_tokens"]),
        }
    }
}

/// Finds the end of the JSON object in a call's arguments, however they are split.
#[derive(Debug, Default)]
struct EndOfObject {
    has_come: bool,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl EndOfObject {
    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.has_come |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

/// Separates `<think>…</think>` at the beginning of a text from the rest, however the text is split.
#[derive(Debug)]
struct Think {
    state: Thinking,
    /// Text that can't be passed on yet.
    held: String,
    /// Whether blanks are dropped because they only separate the text from the reasoning.
    trims: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    /// A `<think>` may still begin.
    Perhaps,
    /// The reasoning goes on.
    Inside,
    /// The text goes on.
    Over,
}

impl Default for Think {
    fn default() -> Self {
        Self { state: Thinking::Perhaps, held: String::new(), trims: false }
    }
}

impl Think {
    fn split(&mut self, text: &str) -> Vec<(Kind, String)> {
        let mut told = Vec::new();
        if text.is_empty() {
            return told;
        }
        self.held.push_str(text);
        if self.state == Thinking::Perhaps {
            let begun = self.held.trim_start();
            if let Some(inside) = begun.strip_prefix(THINK) {
                self.held = inside.to_owned();
                self.state = Thinking::Inside;
            } else if THINK.starts_with(begun) && self.held.len() <= MAX_BLANKS {
                return told;
            } else {
                self.state = Thinking::Over;
            }
        }
        if self.state == Thinking::Inside {
            if let Some(end) = self.held.find(END_OF_THINK) {
                let behind = self.held.split_off(end);
                told.push((Kind::Reasoning, std::mem::take(&mut self.held)));
                self.held = behind[END_OF_THINK.len()..].to_owned();
                (self.state, self.trims) = (Thinking::Over, true);
            } else {
                let torn = (1..END_OF_THINK.len()).rev().find(|n| self.held.ends_with(&END_OF_THINK[..*n]));
                let behind = self.held.split_off(self.held.len() - torn.unwrap_or(0));
                told.push((Kind::Reasoning, std::mem::replace(&mut self.held, behind)));
            }
        }
        if self.state == Thinking::Over {
            let mut text = std::mem::take(&mut self.held);
            if self.trims {
                text.drain(..text.len() - text.trim_start().len());
                self.trims = text.is_empty();
            }
            told.push((Kind::Text, text));
        }
        told
    }

    /// Puts blanks before the text that comes next; returns false if there are too many to hold back.
    fn holds_back(&mut self, blanks: &str) -> bool {
        let are_few = self.state == Thinking::Over && self.held.len() + blanks.len() <= MAX_BLANKS;
        if are_few {
            self.held.push_str(blanks);
        }
        are_few
    }

    fn finish(&mut self) -> Option<(Kind, String)> {
        let held = std::mem::take(&mut self.held);
        let kind = if self.state == Thinking::Inside { Kind::Reasoning } else { Kind::Text };
        Some((kind, held)).filter(|(_, held)| !held.trim().is_empty())
    }
}

/// Returns whether a whole text is nothing but reasoning.
pub(super) fn is_only_thought(text: &str) -> bool {
    let mut think = Think::default();
    let mut parts = if text.trim_start().starts_with(THINK) { think.split(text) } else { Vec::new() };
    parts.extend(think.finish());
    !parts.is_empty() && parts.iter().all(|(kind, text)| *kind == Kind::Reasoning || text.trim().is_empty())
}

/// Returns a name that nothing else has.
pub(super) fn unique() -> String {
    format!("{:016x}{:08x}", RandomState::new().hash_one(0u8), RandomState::new().hash_one(1u8) >> 32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the kind and the content of each block of a stream.
    fn blocks(chunks: &[Value]) -> Vec<(Kind, String)> {
        let mut parts = ChatParts::new(true);
        let mut steps = Vec::new();
        for chunk in chunks {
            steps.extend(parts.read(&chunk.to_string()).unwrap().unwrap());
        }
        steps.extend(parts.finish());
        let mut open = None::<(Kind, String)>;
        let mut blocks = Vec::new();
        for step in steps {
            match step {
                Step::Begin(block) => {
                    assert!(open.is_none(), "one is open");
                    open = Some((
                        block.kind,
                        format!("{}{}", block.name, if block.name.is_empty() { "" } else { ":" }),
                    ));
                }
                Step::More(kind, more) => {
                    let (open, text) = open.as_mut().unwrap();
                    assert_eq!(*open, kind);
                    assert!(!more.is_empty());
                    text.push_str(&more);
                }
                Step::End(block) => {
                    let (kind, text) = open.take().unwrap();
                    assert!(kind == block.kind && text.ends_with(&block.text));
                    blocks.push((kind, text));
                }
            }
        }
        assert!(open.is_none(), "all are ended");
        blocks
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta}]})
    }

    fn call(index: Value, id: Value, name: Value, arguments: &str) -> Value {
        delta(
            json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}),
        )
    }

    #[test]
    fn thoughts_before_a_text_wherever_they_are_torn() {
        use Kind::{Reasoning, Text};
        let all: [(&str, &[(Kind, &str)]); 9] = [
            ("<think>a < b</think>\n\nc", &[(Reasoning, "a < b"), (Text, "c")]),
            (" \n<think>a</thin</think>c</think>", &[(Reasoning, "a</thin"), (Text, "c</think>")]),
            ("<think></think> c", &[(Text, "c")]),
            ("<think>a", &[(Reasoning, "a")]),
            ("<thi", &[(Text, "<thi")]),
            ("<thinking>a", &[(Text, "<thinking>a")]),
            ("a <think>b</think>", &[(Text, "a <think>b</think>")]),
            ("  a\n\nb", &[(Text, "  a\n\nb")]),
            ("\n \n", &[]),
        ];
        for (text, expected) in all {
            let expected =
                expected.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect::<Vec<_>>();
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    let chunks = pieces.map(|piece| delta(json!({"content": piece})));
                    assert_eq!(blocks(&chunks), expected, "{pieces:?}");
                }
            }
            let whole = json!({"choices": [{"message": {"content": text}}]});
            assert_eq!(blocks(&[whole]), expected, "{text}");
        }
    }

    #[test]
    fn all_that_servers_have_for_thoughts() {
        let expected = vec![(Kind::Reasoning, "hm".to_owned()), (Kind::Text, "hi".to_owned())];
        for said in [
            json!({"reasoning": "hm", "content": "hi"}),
            json!({"reasoning_content": "hm", "reasoning": null, "content": "hi"}),
            json!({"reasoning": "hm", "reasoning_content": "hm", "content": "hi"}),
            json!({"content": "<think>hm</think>hi"}),
            json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]}),
        ] {
            assert_eq!(blocks(&[delta(said.clone())]), expected, "{said}");
            assert_eq!(blocks(&[json!({"choices": [{"message": said}]})]), expected);
        }
    }

    #[test]
    fn calls_one_behind_the_other_however_they_are_told() {
        let (none, no_id) = (Value::Null, json!(""));
        let (a, b) = ((Kind::Call, r#"a:{"x":"}"}"#.to_owned()), (Kind::Call, "b:{}".to_owned()));
        let (text, more) = (delta(json!({"content": "t"})), (Kind::Text, "t".to_owned()));
        for (case, chunks, expected) in [
            (
                "in pieces, with text before and behind",
                vec![
                    text.clone(),
                    call(json!(0), json!("1"), json!("a"), ""),
                    call(json!(0), none.clone(), none.clone(), r#"{"x":"#),
                    call(json!(0), none.clone(), none.clone(), r#""}"}"#),
                    text.clone(),
                    call(json!(1), json!("2"), json!("b"), "{}"),
                ],
                vec![more.clone(), a.clone(), more.clone(), b.clone()],
            ),
            (
                "mixed, with text in between",
                vec![
                    call(json!(0), json!("1"), json!("a"), r#"{"x":"#),
                    call(json!(1), json!("2"), json!("b"), "{"),
                    text.clone(),
                    call(json!(0), none.clone(), none.clone(), r#""}"}"#),
                    call(json!(1), none.clone(), none.clone(), "}"),
                ],
                vec![a.clone(), b.clone(), more],
            ),
            (
                "all with one index",
                vec![
                    call(json!(0), json!("1"), json!("a"), r#"{"x":"}"}"#),
                    call(json!(0), json!("2"), json!("b"), "{}"),
                ],
                vec![a.clone(), b.clone()],
            ),
            (
                "without index",
                vec![
                    call(none.clone(), json!("1"), json!("a"), r#"{"x":"#),
                    call(none.clone(), json!("1"), none.clone(), r#""}"}"#),
                    call(none.clone(), json!("2"), json!("b"), "{}"),
                ],
                vec![a.clone(), b.clone()],
            ),
            (
                "without index and ids",
                vec![
                    call(none.clone(), no_id.clone(), json!("a"), r#"{"x":"}"}"#),
                    call(none.clone(), none.clone(), json!("b"), "{}"),
                ],
                vec![a.clone(), b.clone()],
            ),
            (
                "one index, no ids",
                vec![
                    call(json!(0), no_id.clone(), json!("a"), r#"{"x":"}"}"#),
                    call(json!(0), no_id, json!("b"), "{}"),
                ],
                vec![a.clone(), b.clone()],
            ),
            (
                "id and name told each time",
                vec![
                    call(json!(0), json!("1"), json!("a"), r#"{"x":"#),
                    call(json!(0), json!("1"), json!("a"), r#""}"}"#),
                    call(json!(1), json!("2"), json!("b"), "{}"),
                    call(json!(0), json!("1"), json!("a"), ""),
                ],
                vec![a.clone(), b.clone()],
            ),
            (
                "cut",
                vec![call(json!(0), json!("1"), json!("a"), r#"{"x""#)],
                vec![(Kind::Call, r#"a:{"x""#.into())],
            ),
            ("no name", vec![call(json!(0), json!("1"), none, "{}")], vec![]),
        ] {
            assert_eq!(blocks(&chunks), expected, "{case}");
        }
        let calls = json!([
            {"id": "same", "function": {"name": "a", "arguments": {"x": "}"}}},
            {"id": "same", "function": {"name": "b", "arguments": "{}"}},
        ]);
        assert_eq!(blocks(&[json!({"choices": [{"message": {"tool_calls": calls}}]})]), [a, b]);
    }

    #[test]
    fn errors_and_what_is_no_answer() {
        let read = |data: &str| ChatParts::new(true).read(data);
        assert_eq!(read(r#"{"error":{"code":429},"choices":[]}"#), Some(Err(json!({"code": 429}))));
        let in_choice = r#"{"choices":[{"finish_reason":"error","error":{"message":"x"}}]}"#;
        assert_eq!(read(in_choice), Some(Err(json!({"message": "x"}))));
        assert!(matches!(read(r#"{"choices":[{"finish_reason":"error"}]}"#), Some(Err(_))));
        for nothing in ["[DONE]", "[]", "null", "<html>", "\"x\""] {
            assert_eq!(read(nothing), None);
        }
        assert_eq!(read(r#"{"choices":null}"#), Some(Ok(Vec::new())));
    }

    #[test]
    fn what_it_says_about_itself() {
        let mut parts = ChatParts::new(false);
        for chunk in [
            r#"{"model":"m","choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":2}}}"#,
        ] {
            parts.read(chunk);
        }
        assert_eq!(parts.tokens, Tokens { input: 9, cached: 5, output: 4, reasoning: 2 });
        assert_eq!((parts.model.as_deref(), parts.finish.as_deref()), (Some("m"), Some("stop")));
        assert_ne!(unique(), unique());
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        for arguments in [Value::Null, json!(""), json!(" ")] {
            let call = json!([{"index": 0, "id": "1", "function": {"name": "f", "arguments": arguments}}]);
            for said in [json!({"delta": {"tool_calls": call}}), json!({"message": {"tool_calls": call}})] {
                let mut parts = ChatParts::new(true);
                let mut steps = parts.read(&json!({"choices": [said]}).to_string()).unwrap().unwrap();
                steps.extend(parts.finish());
                let Some(Step::End(block)) = steps.last() else { panic!("{steps:?}") };
                assert_eq!(block.text.trim(), "{}", "{said}");
                assert!(steps.contains(&Step::More(Kind::Call, "{}".into())), "{steps:?}");
            }
        }
    }
}
