//! The calls of today and of this run that are held in memory.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Local, TimeDelta};

use crate::record::call::Call;
use crate::record::day::{Counts, DayCount, MAX_REFUSALS, Refusal, Tally};
use crate::record::files::Files;
use crate::record::history::Past;
use crate::record::metrics::{CallMetrics, whole_ms};
use crate::record::names::{MessageId, moment};
use crate::record::statistics::{Hours, Times};

/// How many calls the panel can show.
const MAX_CALLS: usize = 1000;
/// The maximum size of their requests and answers together; of older calls only the figures are kept.
const MAX_TEXT_BYTES: usize = 32 << 20;
/// How many calls keep their streams, the newest ones: a stream is ten times as long as what it adds up to.
const MAX_CALLS_WITH_EVENTS: usize = 50;
/// How many dropped calls are remembered, so that those who ask for changes can be told of them.
const MAX_DROPPED: usize = 2 * MAX_CALLS;
/// How many days `/debug/days` lists, today included.
pub(super) const MAX_DAYS: u64 = 30;

#[derive(Debug)]
pub(super) struct Memory {
    pub(super) today: Tally,
    /// The times to the first token of today's calls.
    pub(super) first_tokens: Times,
    /// Days that are over, the newest last, for when there is no folder that has them.
    pub(super) days: VecDeque<DayCount>,
    /// The folder whose count `today` continues; `None` until the first look.
    pub(super) counted_in: Option<Option<Arc<Path>>>,
    pub(super) recent: VecDeque<Call>,
    pub(super) text_bytes: usize,
    pub(super) hours: Hours,
    /// The number of the last change. Greater than any of an earlier run.
    pub(super) version: u64,
    /// The changes before this one aren't known: they are of earlier runs, or the calls dropped by them are forgotten.
    pub(super) unknown_before: u64,
    /// Calls that are no longer among the recent ones, each with the number of that change.
    pub(super) dropped: VecDeque<(u64, MessageId)>,
}

impl Memory {
    /// Begins a new day, or the count of a new folder, if there is one. Returns the folder if it wasn't looked at
    /// before.
    pub(super) fn roll_over(
        &mut self,
        now: DateTime<Local>,
        dir: Option<&Arc<Path>>,
        files: &Files,
    ) -> Option<Arc<Path>> {
        let date = now.date_naive();
        let new_day = self.today.since.date != date;
        if new_day {
            self.first_tokens = Times::default();
            self.days.push_back(self.today.total(Duration::ZERO));
            if self.days.len() as u64 >= MAX_DAYS {
                self.days.pop_front();
            }
        }
        let same_folder = self.counted_in.as_ref().is_some_and(|counted| counted.as_ref() == dir);
        if same_folder && !new_day {
            return None;
        }
        // A folder that wasn't looked at before may have calls of an earlier run.
        match dir {
            Some(dir) => self.today = Tally { earlier: files.count(dir, date), ..Tally::new(date) },
            None if new_day => self.today = Tally::new(date),
            None => {}
        }
        self.counted_in = Some(dir.cloned());
        dir.filter(|_| !same_folder).cloned()
    }

    pub(super) fn note_first_token(&mut self, counts: Counts, metrics: &CallMetrics) {
        if let Some(first) = metrics.first_token.filter(|_| counts.answered > 0 && counts.reused == 0) {
            self.first_tokens.push(whole_ms(first));
        }
    }

    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(super) fn push(&mut self, mut call: Call) {
        call.version = self.next_version();
        self.recent.push_back(call);
    }

    pub(super) fn find(&self, message_id: MessageId) -> Option<&Call> {
        self.recent.iter().rev().find(|call| call.message_id == message_id)
    }

    /// Changes a call that is still in memory.
    pub(super) fn change<T>(
        &mut self,
        message_id: MessageId,
        change: impl FnOnce(&mut Call) -> T,
    ) -> Option<T> {
        let version = self.next_version();
        let call = self.recent.iter_mut().rev().find(|call| call.message_id == message_id)?;
        call.version = version;
        Some(change(call))
    }

    /// Adds the calls that a folder contained before `now`.
    pub(super) fn remember(
        &mut self,
        past: Past,
        refusals: &[Arc<Refusal>],
        dir: &Arc<Path>,
        now: DateTime<Local>,
    ) {
        let known = self.recent.iter().map(|call| call.message_id).collect::<HashSet<_>>();
        let today = now.date_naive();
        for name in past.older {
            self.hours.count(moment(name.time), Counts::of_kind(name.kind), None);
        }
        let mut calls = Vec::new();
        for call in past.calls.into_iter().filter(|call| !known.contains(&call.ending.message_id)) {
            let counts = Counts::of(call.ending.kind, &call.metrics);
            if now - call.ended < TimeDelta::hours(25) {
                self.hours.count(call.ended, counts, Some(&call.metrics));
            }
            if call.ended.date_naive() == today && self.today.since.date == today {
                self.note_first_token(counts, &call.metrics);
            }
            calls.push(Call::past(call, Arc::clone(dir)));
        }
        for refusal in refusals {
            if let Some(call) = Call::refused(refusal).filter(|call| !known.contains(&call.message_id)) {
                self.hours.count(call.time, Counts::refusal(), Some(&call.metrics));
                self.text_bytes += call.text_bytes();
                calls.push(call);
            }
        }
        calls.sort_by_key(|call| call.time);
        let older = calls.len().saturating_sub(MAX_CALLS);
        calls.drain(..older);
        calls.into_iter().for_each(|call| self.push(call));
        self.recent.make_contiguous().sort_by_key(|call| call.time);
        self.forget_old();
    }

    /// Drops the oldest refused request if there are too many, so that the calls remain visible.
    pub(super) fn forget_refused(&mut self) {
        let refused = |call: &Call| call.refused.is_some();
        if self.recent.iter().filter(|call| refused(call)).count() > MAX_REFUSALS
            && let Some(oldest) = self.recent.iter().position(refused)
        {
            self.drop_call(oldest);
        }
    }

    pub(super) fn drop_call(&mut self, at: usize) {
        if let Some(call) = self.recent.remove(at) {
            self.text_bytes -= call.text_bytes();
            let version = self.next_version();
            self.dropped.push_back((version, call.message_id));
        }
        if self.dropped.len() > MAX_DROPPED
            && let Some((version, _)) = self.dropped.pop_front()
        {
            self.unknown_before = version;
        }
    }

    pub(super) fn forget_old(&mut self) {
        while self.recent.len() > MAX_CALLS {
            self.drop_call(0);
        }
        if let Some(call) = self.recent.iter_mut().rev().nth(MAX_CALLS_WITH_EVENTS)
            && let Some(events) = call.events.take()
        {
            self.text_bytes -= events.len();
        }
        for call in &mut self.recent {
            if self.text_bytes <= MAX_TEXT_BYTES {
                return;
            }
            self.text_bytes -= call.text_bytes();
            call.request = None;
            call.ending = None;
            call.events = None;
        }
    }
}
