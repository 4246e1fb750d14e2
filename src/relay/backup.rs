//! Where a request goes when OpenRouter can't answer it: to other servers, one attempt each, in the order of `BACKUPS`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attempt::unusable;
use super::gate::local_time;
use super::in_flight::Cancellable;
use super::outcome::{FailedAnswer, FailedAttempt, Served, Verdict};
use super::parked::Parked;
use super::state::{InChat, Relay};
use crate::client::exchange::ConnectionFate;
use crate::console::say;
use crate::dialect::{ClientRequest, Dialect, Translated, text};
use crate::error::ApiError;
use crate::json;
use crate::language::{Words, either};
use crate::record::changes;
use crate::settings::backups::Backup;

impl Relay {
    /// Asks the backups when no attempt at OpenRouter is left, where that makes sense; else the client gets the
    /// failure.
    pub(super) fn fall_back(mut self: Box<Self>, mut failed: Box<FailedAttempt>) -> ConnectionFate {
        let backups = self.snapshot.settings.backups.clone();
        let stopping = self.shared.in_flight.is_stopping();
        let makes_sense = self.any_model_will_do() && !stopping && backup_may_help(&failed);
        if backups.is_empty() || !makes_sense {
            return self.fail(failed);
        }
        let model = std::mem::take(&mut self.record.metrics.model);
        let reason = failed.reason.clone();
        if self.tries.calls_made > 0 {
            self.note_failed_try(model.clone(), reason, None);
        }
        // The reasons for clients, and for the console.
        let (mut reasons, mut said) = (Vec::new(), Vec::new());
        let mut readable = None;
        for (number, backup) in backups.iter().enumerate() {
            if let Some(until) = self.shared.backups.rests_until(backup) {
                let (name, until) = (&backup.name, local_time(until));
                reasons.push(format!("{name} rests until {until}"));
                said.push(either(format!("{name} rests until {until}"), format!("{name} 暂停至 {until}")));
                continue;
            }
            let (reason, name) = (failed.reason.here().trim_end_matches('.'), &backup.name);
            say(either(
                format_args!("{reason}: the backup {name} is asked"),
                format_args!("{reason}：改为询问备用服务 {name}"),
            ));
            let rests = |backup: &Backup| self.shared.backups.rests_until(backup).is_some();
            self.tries.is_last_backup = backups[number + 1..].iter().all(rests);
            match self.ask_backup(number, backup, backup.model()) {
                Ok(served) => return self.finish(served),
                Err(at_backup) => {
                    if self.is_cancelled() {
                        return Parked::abandon(self);
                    }
                    self.tries.in_chat = None;
                    reasons.push(format!("{}: {}", backup.name, at_backup.reason.english));
                    said.push(format!("{}{}{}", backup.name, either(": ", "："), at_backup.reason.here()));
                    let rests_until = self.shared.backups.rests_until(backup);
                    let model = format!("{} ({})", backup.model(), backup.name);
                    self.note_failed_try(model, at_backup.reason.clone(), rests_until);
                    self.record.metrics.all_failed = true;
                    if let FailedAnswer::Readable(_) = &at_backup.answer {
                        readable = Some((number, at_backup));
                    }
                }
            }
        }
        if let Some((number, readable)) = readable {
            self.tries.backup = Some(number);
            self.record.metrics.backup = Some(backups[number].name.clone());
            backups[number].model().clone_into(&mut self.record.metrics.model);
            return self.fail(readable);
        }
        self.tries.backup = None;
        self.record.metrics.backup = None;
        self.record.metrics.model = model;
        let (reasons, said) = (reasons.join("; "), said.join(either("; ", "；")));
        say(either(
            format_args!("no backup could answer: {said}"),
            format_args!("没有备用服务能够回答：{said}"),
        ));
        let rests = |backup: &Backup| self.shared.backups.rests_until(backup);
        if let Some(soonest) =
            backups.iter().map(rests).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min())
        {
            failed.answer = FailedAnswer::Own(all_rest(&failed, soonest));
        }
        if let FailedAnswer::Own(error) = &mut failed.answer {
            error.message.push_str(&format!(" Backups: {reasons}."));
        }
        self.tries.backups_failed = Some(reasons);
        self.fail(failed)
    }

    /// Asks the backup whose model the client has named, and nobody else, whether it rests or not.
    pub(super) fn ask_named_backup(mut self: Box<Self>, name: &str, model: &str) -> ConnectionFate {
        let named = |backup: &&Backup| backup.name == name;
        let backups = self.snapshot.settings.backups.clone();
        let Some((number, backup)) = backups.iter().enumerate().find(|(_, backup)| named(backup)) else {
            return self.fail(unusable("it isn't among BACKUPS any more", "它已不在 BACKUPS 中"));
        };
        self.tries.is_last_backup = true;
        match self.ask_backup(number, backup, model) {
            Ok(served) => self.finish(served),
            Err(_) if self.is_cancelled() => Parked::abandon(self),
            Err(mut failed) => {
                if is_out_of_reach(&failed) {
                    failed.answer =
                        FailedAnswer::Own(ApiError::backup_unreachable(&backup.name, failed.reason.here()));
                }
                self.fail(failed)
            }
        }
    }

    /// Asks a backup in the client's API if the backup may know that, else in chat completions.
    fn ask_backup(
        &mut self,
        number: usize,
        backup: &Backup,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        self.tries.backup = Some(number);
        self.record.metrics.model = model.to_owned();
        self.record.metrics.backup = Some(backup.name.clone());
        let shared = Arc::clone(&self.shared);
        let dialect = self.asked.dialect;
        if self.record.recording.is_some() {
            let sent = self.asked.request.body_for_other_servers(dialect, model);
            self.record.metrics.changes = changes::between(self.asked.request.as_written(), sent.as_bytes());
        }
        self.report(None);
        let answered = match dialect.as_chat() {
            None => self.attempt(model, &mut None),
            Some(as_chat) if !shared.backups.may_know(backup, dialect.path()) => {
                self.ask_in_chat(backup, as_chat, model)
            }
            Some(as_chat) => match self.attempt(model, &mut None) {
                Err(failed) if is_unknown_there(dialect, &failed) => {
                    shared.backups.does_not_know(backup, dialect.path());
                    self.ask_in_chat(backup, as_chat, model)
                }
                answered => answered,
            },
        };
        match &answered {
            Ok(_) => shared.backups.answered(backup),
            Err(failed) if failed.status == Some(429) || is_out_of_reach(failed) => {
                shared.backups.failed(backup, failed.retry_after);
            }
            Err(_) => {}
        }
        answered
    }

    /// Asks a backup in chat completions, since it doesn't know the client's API. Dispensable fields that it refuses
    /// are left out.
    fn ask_in_chat(
        &mut self,
        backup: &Backup,
        as_chat: &'static dyn Translated,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        let body = self.asked.request.body_for_other_servers(self.asked.dialect, model);
        let written = ClientRequest { body, ..ClientRequest::default() };
        let Ok(Ok(body)) = text::with_tree(&written.body, || as_chat.translate(&written)) else {
            return Err(unusable(
                "the request nests too deeply, or has too many parts, to be told in chat completions",
                "请求嵌套过深或部分过多，无法转换为对话请求",
            ));
        };
        self.sharing.leader = None; // a kept answer would be read as if it had come in the client's API
        let shared = Arc::clone(&self.shared);
        let known = |field: &&str| !shared.backups.may_know(backup, field);
        let mut left_out = DISPENSABLE.into_iter().filter(known).collect::<Vec<_>>();
        self.tries.in_chat =
            Some(InChat { translated: (as_chat, written), body: json::without(&body, &left_out) });
        loop {
            let failed = match self.attempt(model, &mut None) {
                Err(failed) => failed,
                answered => return answered,
            };
            let Some(field) = refused_field(&failed).filter(|field| !left_out.contains(field)) else {
                return Err(failed);
            };
            if field != LIMIT {
                shared.backups.does_not_know(backup, field); // a lower limit may be accepted next time
            }
            left_out.push(field);
            if let Some(in_chat) = &mut self.tries.in_chat {
                in_chat.body = json::without(&body, &left_out);
            }
        }
    }
}

/// The limit of the answer's tokens, which agents set higher than most models allow.
const LIMIT: &str = "max_tokens";
/// Fields that a request is as good without, and that some servers refuse: Mistral counts the tokens of a stream
/// anyway.
const DISPENSABLE: [&str; 3] = ["stream_options", "parallel_tool_calls", LIMIT];

/// Returns the dispensable field that a server has refused, if one was.
fn refused_field(failed: &FailedAttempt) -> Option<&'static str> {
    match (&failed.answer, failed.status) {
        (FailedAnswer::Upstream(reply), Some(400 | 422)) => {
            let said = String::from_utf8_lossy(&reply.body);
            DISPENSABLE.into_iter().find(|field| said.contains(field))
        }
        _ => None,
    }
}

/// Returns whether the server has said that it doesn't know the API.
fn is_unknown_there(dialect: &dyn Dialect, failed: &FailedAttempt) -> bool {
    match (&failed.answer, failed.status) {
        (FailedAnswer::Upstream(_), Some(405 | 501)) => true,
        (FailedAnswer::Upstream(reply), Some(404)) => {
            !dialect.names_a_model(&String::from_utf8_lossy(&reply.body))
        }
        _ => false,
    }
}

/// Returns whether the server couldn't be reached.
fn is_out_of_reach(failed: &FailedAttempt) -> bool {
    matches!(&failed.answer, FailedAnswer::Own(error) if error.code == "upstream_unreachable")
}

/// Returns whether the failure is OpenRouter's or the account's, and not the request's.
fn backup_may_help(failed: &FailedAttempt) -> bool {
    let own = match &failed.answer {
        FailedAnswer::Own(error) => {
            let ours = ["rate_limit_exceeded", "missing_api_key", "upstream_timeout", "upstream_unreachable"];
            ours.contains(&error.code)
        }
        _ => false,
    };
    let could = matches!(failed.verdict, Verdict::TryAgain(_) | Verdict::NextModel(_) | Verdict::BackupsOnly);
    own || could || failed.status == Some(429)
}

/// Returns the 429 for when nobody is left to ask: the client may try again when OpenRouter or the first server may be
/// asked again.
fn all_rest(failed: &FailedAttempt, soonest: SystemTime) -> ApiError {
    let limit = match &failed.answer {
        FailedAnswer::Own(error) => {
            error.resets_at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at))
        }
        _ => None,
    };
    match limit.map(|limit| (limit, local_time(limit))) {
        Some((limit, time)) => ApiError::all_rest(
            &Words::new(
                format!("the account's limit for free models is reached until {time}"),
                format!("账户的免费额度已用完，{time} 恢复"),
            ),
            limit.min(soonest),
        ),
        None => ApiError::all_rest(&failed.reason, soonest),
    }
}
