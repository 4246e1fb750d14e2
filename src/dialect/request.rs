//! The body of a request, edited without being rebuilt: what needn't change goes upstream byte for byte.

use std::borrow::Cow;
use std::ops::Range;

use super::edits::{Edit, Edits};
use super::free_models::{self, is_free};
use super::model_name::{Rule, Target};
use super::{Dialect, Needs, StandIn};
use crate::json::{self, Field};

/// A request as it will go upstream.
#[derive(Debug)]
pub struct Request {
    /// The body as the client wrote it.
    text: String,
    /// The body to send, in pieces: parts of `text`, replacements, and the place of the model.
    pieces: Vec<Piece>,
    /// Whether `pieces` with `model` are exactly `text`.
    as_written: bool,
    /// The model that the client named.
    pub asked: Option<String>,
    /// Who answers the request.
    pub target: Target,
    /// The model to send with the first attempt.
    pub model: String,
    /// Whether the request itself names other models to try.
    pub names_others: bool,
    /// Whether the client asked for a stream: `"stream": true`.
    pub stream: bool,
    /// What a model must be able to do to serve the request.
    pub needs: Needs,
    /// The most tokens that the answer may have; 0 if the client doesn't say.
    pub max_tokens: u64,
    /// The client's name for the conversation.
    pub session: Option<String>,
    /// Whether the request continues a conversation that the server should have kept.
    pub wants_a_kept_conversation: bool,
    /// The place of the conversation so far in `text`: an array.
    turns: Option<Range<usize>>,
}

#[derive(Debug)]
enum Piece {
    Written(Range<usize>),
    Replaced(String),
    Model,
}

impl Request {
    /// Applies the rule to a body. If the body isn't a JSON object, the error holds the body and says where it is
    /// wrong.
    pub fn parse(
        dialect: &dyn Dialect,
        text: String,
        rule: &Rule<'_>,
    ) -> Result<Self, (String, serde_json::Error)> {
        let mut fields = match json::fields(&text) {
            Ok(fields) => fields,
            Err(error) => return Err((text, error)),
        };
        let had_duplicates = json::drop_duplicates(&mut fields);
        let model_value = json::field(&fields, "model").map(|field| field.value);
        let asked = model_value.and_then(json::string).map(Cow::into_owned);
        let not_a_string = model_value.is_some_and(|value| value != "null") && asked.is_none();
        let next = || others_named(dialect, &fields).find(|id| rule.allow_paid || is_free(id));
        let target = rule.target(asked.as_deref(), next, dialect.stand_in() == StandIn::Model);
        let model = target.model().to_owned();
        let keeps_model = asked.as_ref() == Some(&model) || (rule.allow_paid && not_a_string);
        let stream = json::field(&fields, "stream").is_some_and(|field| field.value == "true");
        let mut needs = dialect.needs(&fields);
        let tokens = |name| json::field(&fields, name).and_then(|field| field.value.parse().ok());
        let max_tokens = MAX_TOKENS.into_iter().filter_map(tokens).max().unwrap_or(0);
        let wants_a_kept_conversation = dialect.wants_a_kept_conversation(&fields);

        let session = session_of(&fields);

        let place = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start..start + part.len()
        };
        let turns = dialect.turns().and_then(|name| json::field(&fields, name));
        let turns = turns.filter(|field| field.value.starts_with(['[', '"'])).map(|field| place(field.value));
        let mut edits = Edits::default();
        if !rule.allow_paid {
            free_models::make_free(dialect, &fields, &mut edits);
        }
        needs.tools &= !matches!(edits.of("tools"), Some(Edit::Drop));
        let stays =
            |name| json::field(&fields, name).is_some() && !matches!(edits.of(name), Some(Edit::Drop));
        let names_others = stays("models") || stays("fallbacks");
        let only_the_model = !had_duplicates && edits.is_empty();
        let pieces = match model_value {
            Some(_) if keeps_model && not_a_string && only_the_model => {
                vec![Piece::Written(0..text.len())]
            }
            Some(value) if only_the_model => {
                let Range { start, end } = place(value);
                vec![Piece::Written(0..start), Piece::Model, Piece::Written(end..text.len())]
            }
            _ => {
                let mut pieces = vec![Piece::Replaced("{".into())];
                let mut separator = "";
                let mut push = |name: Range<usize>, value: Piece| {
                    pieces.push(Piece::Replaced(separator.into()));
                    pieces.push(Piece::Written(name));
                    pieces.push(Piece::Replaced(":".into()));
                    pieces.push(value);
                    separator = ",";
                };
                for field in &fields {
                    let value = match edits.of(&field.name) {
                        Some(Edit::Drop) => continue,
                        Some(Edit::Replace(value)) => Piece::Replaced(value.clone()),
                        None if field.name == "model" && !(keeps_model && not_a_string) => Piece::Model,
                        None => Piece::Written(place(field.value)),
                    };
                    push(place(field.raw_name), value);
                }
                for (name, value) in &edits.added {
                    pieces.push(Piece::Replaced(format!("{separator}{}:{value}", json::quoted(name))));
                    separator = ",";
                }
                if model_value.is_none() {
                    pieces.push(Piece::Replaced(format!("{separator}\"model\":")));
                    pieces.push(Piece::Model);
                }
                pieces.push(Piece::Replaced("}".into()));
                pieces
            }
        };
        let as_written = only_the_model && keeps_model;
        Ok(Self {
            text,
            pieces,
            as_written,
            asked,
            target,
            model,
            names_others,
            stream,
            needs,
            max_tokens,
            session,
            wants_a_kept_conversation,
            turns,
        })
    }

    /// Returns the body as the client wrote it.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    /// Returns the turns of the conversation so far, each as it was written; none if the API has no conversations.
    pub fn turns(&self) -> Vec<&str> {
        let turns = self.turns.clone().map(|place| &self.text[place]);
        let turns = turns.and_then(|turns| json::elements(turns).or_else(|| Some(vec![turns])));
        turns.unwrap_or_default()
    }

    /// Returns the body as the client wrote it, to be parsed again, or to use its memory for another request.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Whether the model that goes upstream is another than the client named.
    pub fn model_replaced(&self) -> bool {
        self.asked.as_ref() != Some(&self.model)
    }

    /// Returns the body that goes upstream with this model.
    pub fn body(&self, model: &str) -> Cow<'_, [u8]> {
        if self.as_written && model == self.model {
            return Cow::Borrowed(self.text.as_bytes());
        }
        Cow::Owned(self.rewritten(model, 0))
    }

    /// Returns the same body, with capacity for `room` more bytes.
    fn rewritten(&self, model: &str, room: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.text.len() + model.len() + 128 + room);
        for piece in &self.pieces {
            match piece {
                Piece::Written(range) => body.extend_from_slice(&self.text.as_bytes()[range.clone()]),
                Piece::Replaced(text) => body.extend_from_slice(text.as_bytes()),
                Piece::Model => body.extend_from_slice(json::quoted(model).as_bytes()),
            }
        }
        body
    }

    /// Returns the body that goes upstream with the first of these models, and with all of them as the models to try in
    /// turn: <https://openrouter.ai/docs/guides/routing/model-fallbacks>. If the client has named other models itself,
    /// they are left as they are.
    pub fn body_with(&self, models: &[&str]) -> Cow<'_, [u8]> {
        let first = models.first().copied().unwrap_or(&self.model);
        if models.len() < 2 || self.names_others {
            return self.body(first);
        }
        let room = models.iter().map(|model| model.len() + 8).sum::<usize>();
        let mut body = self.rewritten(first, room);
        body.truncate(body.trim_ascii_end().len().saturating_sub(1)); // removes the closing brace
        for (number, model) in models.iter().enumerate() {
            body.extend_from_slice(if number == 0 { b",\"models\":[" } else { b"," });
            body.extend_from_slice(json::quoted(model).as_bytes());
        }
        body.extend_from_slice(b"]}");
        Cow::Owned(body)
    }

    /// Returns the body for a server other than OpenRouter.
    pub fn body_for_other_servers(&self, dialect: &dyn Dialect, model: &str) -> String {
        let body = self.body(model);
        let text = std::str::from_utf8(&body).unwrap_or_default(); // it was made of text
        let fields = json::fields(text).unwrap_or_default();
        let kept = fields.iter().filter_map(|field| {
            let value = dialect.elsewhere(field)?;
            Some(format!("{}:{value}", field.raw_name))
        });
        format!("{{{}}}", kept.collect::<Vec<_>>().join(","))
    }
}

/// Returns the models that a request names besides the one it asks for, the next one first.
fn others_named(dialect: &dyn Dialect, fields: &[Field<'_>]) -> impl Iterator<Item = String> {
    let list =
        |name| json::field(fields, name).and_then(|field| json::elements(field.value)).unwrap_or_default();
    let named_in = |fallback| {
        let fallback = json::fields(fallback).ok()?;
        json::string(json::field(&fallback, "model")?.value).map(Cow::into_owned)
    };
    let models = list("models").into_iter().filter_map(json::string).map(Cow::into_owned);
    let fallbacks = if dialect.has_fallbacks() { list("fallbacks") } else { Vec::new() };
    models.chain(fallbacks.into_iter().filter_map(named_in)).collect::<Vec<_>>().into_iter()
}

/// Returns the client's name for its conversation: `session_id` (OpenRouter), `prompt_cache_key` (OpenAI; Codex,
/// opencode), or the session in `metadata.user_id`, which Claude Code writes as `…_session_ID` or as JSON with a
/// `session_id`.
fn session_of(fields: &[Field<'_>]) -> Option<String> {
    let text = |fields: &[Field<'_>], name: &str| {
        let text = json::string(json::field(fields, name)?.value)?.into_owned();
        (!text.trim().is_empty()).then_some(text)
    };
    let in_metadata = || {
        let metadata = json::fields(json::field(fields, "metadata")?.value).ok()?;
        let user = text(&metadata, "user_id")?;
        match json::fields(&user) {
            Ok(user) => text(&user, "session_id"),
            Err(_) => user.rsplit_once("session_").map(|(_, session)| session.to_owned()),
        }
    };
    text(fields, "session_id").or_else(|| text(fields, "prompt_cache_key")).or_else(in_metadata)
}

/// The fields in which clients limit the length of an answer.
const MAX_TOKENS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// Returns a field's value for servers other than OpenRouter; `None` if in every API only OpenRouter knows the field.
pub fn elsewhere<'a>(field: &Field<'a>) -> Option<Cow<'a, str>> {
    (!OPENROUTERS_OWN.contains(&field.name.as_ref())).then_some(Cow::Borrowed(field.value))
}

/// Fields that only OpenRouter knows; strict servers refuse unknown fields.
const OPENROUTERS_OWN: [&str; 19] = [
    "models",
    "fallbacks",
    "route",
    "provider",
    "plugins",
    "transforms",
    "preset",
    "session_id",
    "trace",
    "debug",
    "usage",
    "include_reasoning",
    "cache_control",
    "top_k",
    "top_a",
    "min_p",
    "repetition_penalty",
    "stop_server_tools_when",
    "image_config",
];
