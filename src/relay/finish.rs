//! The end of a request: what is printed on the console, recorded, and sent last.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::value::RawValue;

use super::outcome::{FailedAnswer, FailedAttempt, FinalWrite, ReadableAnswer, Served};
use super::state::{Client, Relay};
use crate::client::exchange::{ConnectionFate, Reply, SHOULD_RETRY};
use crate::console::{Tone, say, say_in};
use crate::dialect::free_models::ROUTER;
use crate::dialect::model_name::BEST;
use crate::dialect::{AnswerSummary, Needs, UpstreamError, errors};
use crate::error::ApiError;
use crate::json;
use crate::language::either;
use crate::object::object;
use crate::record::calls::Ending;
use crate::record::metrics::CallMetrics;

/// The capacity of a line about a call; most are shorter.
const USUAL_LINE_BYTES: usize = 128;
/// The maximum length of `x-proxy-model`; longer values are cut.
const MAX_HEADER_CHARS: usize = 200;
/// The status that is recorded if the client left.
const CLIENT_CLOSED_STATUS: u16 = 499;

/// The body of an error response, with the error object as the upstream wrote it.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a RawValue,
}

impl Relay {
    /// Sends the client the failure of the last attempt.
    #[inline(never)]
    #[allow(clippy::boxed_local, reason = "see FailedAttempt::new")]
    pub(super) fn fail(mut self: Box<Self>, failed: Box<FailedAttempt>) -> ConnectionFate {
        let (error, status);
        let own = match &failed.answer {
            FailedAnswer::Own(error) => Some(error.in_words().to_owned()),
            _ => None,
        };
        if let Client::Streaming(_) = self.client.state {
            let event;
            (event, error, status) = match failed.answer {
                FailedAnswer::Event { data, status, .. } if self.translated().is_some() => {
                    let error = error_object(&data, status);
                    let event =
                        self.broken_off(&ApiError::new(status, "upstream_error", errors::message(&error)));
                    (event.into_bytes(), error, status)
                }
                FailedAnswer::Event { bytes, data, status } => (bytes, error_object(&data, status), status),
                FailedAnswer::Upstream(reply) => {
                    let text = String::from_utf8_lossy(&reply.body);
                    let message = errors::object(&text).map(|error| errors::message(&error));
                    let message = message.unwrap_or_else(|| "The upstream failed.".into());
                    let own = ApiError::new(reply.status, "upstream_error", message);
                    let event = self.broken_off(&own);
                    (event.into_bytes(), error_object(&text, reply.status), reply.status)
                }
                FailedAnswer::Own(error) => {
                    let event = self.broken_off(&error);
                    (event.into_bytes(), error.object(), error.status)
                }
                FailedAnswer::Readable(_) => {
                    let error = ApiError::empty_answer(); // a plain answer can't be sent within a stream
                    (self.broken_off(&error).into_bytes(), error.object(), error.status)
                }
            };
            self.client.final_write = FinalWrite::Event(event);
        } else {
            let account_limit =
                matches!(&failed.answer, FailedAnswer::Own(e) if e.code == "rate_limit_exceeded");
            let retry_after = failed.retry_after.map(|wait| wait.as_secs_f64().ceil() as u64);
            let mut reply;
            (reply, error) = match failed.answer {
                FailedAnswer::Upstream(mut reply) => {
                    let text = String::from_utf8_lossy(&reply.body);
                    let error = error_object(&text, reply.status);
                    if let Some((translated, written)) = self.translated() {
                        let error = UpstreamError { status: reply.status, retry_after, body: &text };
                        reply.body = translated.translator(written).error_body(&error).into_bytes();
                        reply.headers.retain(|(name, _)| name != "content-type");
                        reply.headers.push(("content-type".into(), "application/json".into()));
                    }
                    (reply, error)
                }
                FailedAnswer::Event { data, status, .. } => {
                    let error = error_object(&data, status);
                    // An event that holds its error elsewhere than a body does is turned into a body.
                    let is_body = json::field(&json::fields(&data).unwrap_or_default(), "error").is_some();
                    let body = match (self.translated(), is_body) {
                        (Some((translated, written)), _) => {
                            let error = UpstreamError { status, retry_after, body: &data };
                            translated.translator(written).error_body(&error)
                        }
                        (None, true) => data,
                        (None, false) => json::text(&ErrorBody { error: json::raw(&error) }),
                    };
                    (Reply::json(status, body), error)
                }
                FailedAnswer::Own(error) => {
                    let reply = match &self.client.state {
                        Client::Waiting(exchange) => Reply::refusal(&exchange.head, &error),
                        _ => Reply::default(), // nobody is left to get it
                    };
                    (Reply { status: error.status, ..reply }, error.object())
                }
                FailedAnswer::Readable(readable) => return self.serve_readable(*readable),
            };
            status = reply.status;
            reply.headers = self.with_proxy_headers(reply.headers, &self.record.metrics.model);
            // The SDKs heed this, so that their retries don't multiply the proxy's, and a lasting failure isn't
            // retried.
            let stays = account_limit || matches!(status, 401..=403);
            let is_said = reply.headers.iter().any(|(name, _)| name == SHOULD_RETRY);
            if (self.number_of_tries() > 1 || stays) && !is_said {
                reply.headers.push((SHOULD_RETRY.into(), "false".into()));
            }
            self.client.final_write = FinalWrite::Reply(reply);
        }
        let said = own.unwrap_or_else(|| errors::message(&error));
        self.finish(Served::BrokenOff { error, status, said, partial: None })
    }

    /// Sends an answer that can be read although it isn't what was asked for: it is better than none.
    fn serve_readable(mut self: Box<Self>, readable: ReadableAnswer) -> ConnectionFate {
        let ReadableAnswer { reply, recorded } = readable;
        let headers = self.with_proxy_headers(reply.headers, &self.record.metrics.model);
        self.tries.answer_is_flawed = true;
        self.client.final_write = FinalWrite::Reply(Reply { headers, ..reply });
        self.finish(Served::Whole(recorded))
    }

    /// Returns the event that ends a stream of which only comments have been sent.
    fn broken_off(&self, error: &ApiError) -> String {
        match self.translated() {
            Some((translated, written)) => translated.translator(written).broken_off(error),
            None => self.dialect().reader(false, Needs::default()).broken_off(error),
        }
    }

    /// Records what the answer says about itself.
    pub(super) fn note(&mut self, summary: &AnswerSummary) {
        if let Some(model) = &summary.model {
            self.record.metrics.model.clone_from(model);
        }
        self.record.metrics.prompt_tokens = summary.usage.prompt_tokens;
        self.record.metrics.completion_tokens = summary.usage.completion_tokens;
    }

    pub(super) fn with_proxy_headers(
        &self,
        mut headers: Vec<(Cow<'static, str>, String)>,
        sent: &str,
    ) -> Vec<(Cow<'static, str>, String)> {
        // Of several models, the one that answered counts.
        let sent = if self.tries.fallback_models.is_empty() { sent } else { &self.record.metrics.model };
        // The model is empty if none was named that could be used, as for embeddings.
        if !sent.is_empty() && (self.asked.request.model_replaced() || sent != self.asked.request.model) {
            let asked = self.asked.request.asked.as_deref().unwrap_or("(none)");
            headers.push(("x-proxy-model".into(), model_header(asked, sent)));
        }
        if let Some(name) = &self.record.metrics.backup {
            headers.push(("x-proxy-backup".into(), name.clone()));
        }
        if let Some(age) = self.record.metrics.reused {
            headers.push(("x-proxy-reused".into(), age.as_secs().to_string()));
        }
        if let Some(said) = &self.tries.backups_failed {
            headers.push(("x-proxy-backups-failed".into(), model_header_part(said)));
        }
        if self.number_of_tries() > 1 {
            headers.push(("x-proxy-attempts".into(), self.number_of_tries().to_string()));
        }
        headers
    }

    /// Prints, once for each model that clients name, that another one is used.
    pub(super) fn announce_model(&mut self) {
        let request = &self.asked.request;
        let target = request.target.to_string();
        let is_another = |asked: &&String| {
            !asked.eq_ignore_ascii_case(&target) && ![BEST, ROUTER].contains(&asked.as_str())
        };
        if let Some(asked) = request.asked.as_ref().filter(is_another)
            && request.model_replaced()
            && self.shared.first_time_asked(asked)
        {
            let asked = model_header_part(asked);
            say(either(
                format_args!("{asked} is not free: {target} answers instead"),
                format_args!("{asked} 不是免费模型：改由 {target} 回答"),
            ));
        }
    }

    /// Prints and records how the request ended, and then ends it.
    pub(super) fn finish(mut self: Box<Self>, served: Served) -> ConnectionFate {
        let served = match (served, &self.client.state) {
            // The call went on for other requests, which have the whole answer.
            (Served::Whole(answer), Client::Left) => {
                self.end_leading();
                Served::ClientLeft(answer)
            }
            (served, _) => served,
        };
        let left_early = matches!(served, Served::ClientLeft(_));
        if !matches!(served, Served::Whole(_)) {
            self.sharing.leader = None; // before the client knows: its next request must not join this call
        }
        self.record.metrics.total = self.asked.began.elapsed();
        let mut reason = String::new();
        let ending = match served {
            Served::Whole(answer) => {
                self.end_leading();
                self.learn_from_answer();
                self.record.metrics.status = 200;
                Ending::Response(answer.map_or_else(|| "null".into(), Into::into))
            }
            Served::BrokenOff { error, status, said, partial } => {
                reason = said;
                if status == 401 && self.tries.backup.is_none() && self.record.metrics.reused.is_none() {
                    reason.push_str(&self.refused_key());
                }
                self.record.metrics.status = status;
                self.record.metrics.error_code = errors::code(&error);
                Ending::error(&error, status, partial.as_deref())
            }
            Served::ClientLeft(partial) => {
                reason = either("the client left", "客户端已断开").to_owned();
                self.record.metrics.status = CLIENT_CLOSED_STATUS;
                let error = ApiError::client_closed();
                self.record.metrics.error_code = Some(error.code.into());
                Ending::error(&error.object(), error.status, partial.as_deref())
            }
        };
        let line = call_line(&self.record.metrics, &reason);
        let tone = match self.record.metrics.status {
            CLIENT_CLOSED_STATUS | ..400 => Tone::Plain,
            400..500 => Tone::Notice,
            _ => Tone::Failure,
        };
        if let Some(recording) = self.record.recording.take() {
            recording.end(self.record.metrics, ending);
        }
        self.shared.spare.keep(self.asked.request.into_text().into_bytes());
        let after = match (self.client.state, self.client.final_write) {
            (Client::Waiting(exchange), FinalWrite::Reply(reply)) => exchange.reply(reply),
            (Client::Streaming(stream), final_write) if !left_early => match final_write {
                FinalWrite::Event(event) => stream.finish(&event),
                _ => stream.finish(&[]),
            },
            (Client::Waiting(exchange), _) => {
                exchange.forget();
                ConnectionFate::Gone
            }
            _ => ConnectionFate::Gone,
        };
        // Not before the client has everything, or the program could end meanwhile; but before the client's next
        // request.
        drop(self.in_flight);
        say_in(tone, line); // last: it wakes another thread, for which the client needn't wait
        after
    }
}

impl Relay {
    /// Returns what to do about a 401 that the upstream sent, and not this proxy.
    fn refused_key(&self) -> String {
        let Some(key) = &self.snapshot.settings.key else {
            return String::new();
        };
        let key = key.masked();
        either(
            format!(
                " (the key {key} isn't taken: make a new one at https://openrouter.ai/keys and put it into .env)"
            ),
            format!("（密钥 {key} 无效：请在 https://openrouter.ai/keys 新建一个，写入 .env）"),
        )
    }

    /// Marks the answer as complete for the requests that share it.
    fn end_leading(&mut self) {
        if let Some(mut leader) = self.sharing.leader.take() {
            if let (Some(_), FinalWrite::Event(last)) = (self.translated(), &self.client.final_write) {
                leader.add_translated(last);
            }
            leader.end(&self.snapshot.settings, self.shared.calls.files());
        }
    }
}

/// Returns the `error` of a body; if there is none, one with the body as its message.
fn error_object(body: &str, status: u16) -> String {
    let none = || object! {"message": body, "code": i32::from(status)};
    errors::object(body).unwrap_or_else(|| none().to_string())
}

fn model_header_part(model: &str) -> String {
    model
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .take(MAX_HEADER_CHARS)
        .collect()
}

/// Formats `<asked> -> <sent>` in printable ASCII, at most [`MAX_HEADER_CHARS`] long.
fn model_header(asked: &str, sent: &str) -> String {
    let (asked, sent) = (model_header_part(asked), model_header_part(sent));
    let room = MAX_HEADER_CHARS.saturating_sub(sent.len() + " -> ".len());
    let mut header = format!("{} -> {sent}", &asked[..asked.len().min(room)]);
    header.truncate(MAX_HEADER_CHARS);
    header
}

fn call_line(metrics: &CallMetrics, reason: &str) -> String {
    let mut line = String::with_capacity(USUAL_LINE_BYTES);
    let mut put = |words: fmt::Arguments<'_>| {
        let _ = line.write_fmt(words); // writing to a string can't fail
    };
    let model = if metrics.model.is_empty() { "-" } else { &metrics.model };
    put(format_args!("{} {}", metrics.status, model_header_part(model)));
    if let Some(first) = metrics.first_token {
        put(format_args!("  {} {:.2} s", either("first token", "首个词元"), first.as_secs_f64()));
    }
    put(format_args!("  {} {:.2} s", either("total", "总计"), metrics.total.as_secs_f64()));
    if let (Some(prompt), Some(completion)) = (metrics.prompt_tokens, metrics.completion_tokens) {
        put(format_args!("  {prompt} + {completion} {}", either("tokens", "词元")));
    }
    if let Some(age) = metrics.reused {
        let age = age.as_secs();
        put(either(format_args!("  reused, {age} s old"), format_args!("  重用 {age} 秒前的回答")));
    }
    if !reason.is_empty() {
        put(format_args!("  {reason}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_header_stays_within_its_bounds() {
        assert_eq!(model_header("gpt-4o", "openrouter/free"), "gpt-4o -> openrouter/free");
        assert_eq!(model_header("模型\r\nx: y", "a:free"), "????x: y -> a:free");
        let long = model_header(&"x".repeat(500), "openrouter/free");
        assert_eq!(long.len(), 200);
        assert!(long.ends_with(" -> openrouter/free"));
    }
}
