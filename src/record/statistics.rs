//! The last 24 hours, hour by hour: how many calls, how fast, how many tokens for each model, which tool asked.

use std::collections::HashMap;
use std::collections::VecDeque;

use chrono::{DateTime, Local, TimeDelta, Timelike};
use serde::Serialize;

use crate::record::day::Counts;
use crate::record::metrics::{CallMetrics, whole_ms};
use crate::record::names::timestamp;

/// How many hours are kept, the present one included.
const MAX_HOURS: usize = 24;
/// How many calls, the last ones, a median is taken of.
const MAX_SAMPLES: usize = 1000;
/// How many models have figures in an hour; an upstream may name any number.
const MAX_MODELS: usize = 200;
/// How many tools have figures in an hour; a client may call itself anything.
const MAX_TOOLS: usize = 50;
/// How many models, and how many tools, are returned.
const MAX_LISTED: usize = 12;

/// Times in ms for the median and the like: the last [`MAX_SAMPLES`].
#[derive(Debug, Clone, Default)]
pub struct Times {
    times: Vec<u32>,
    next: usize,
}

impl Times {
    /// Adds a time.
    pub fn push(&mut self, ms: u32) {
        if self.times.len() < MAX_SAMPLES {
            self.times.push(ms);
        } else {
            self.times[self.next] = ms;
        }
        self.next = (self.next + 1) % MAX_SAMPLES;
    }

    fn extend(&mut self, others: &Self) {
        others.times.iter().for_each(|ms| self.push(*ms));
    }

    /// Returns the time below which this percentage of the times is; `None` if there are none.
    pub fn percentile(&self, percent: usize) -> Option<u32> {
        let mut times = self.times.clone();
        times.sort_unstable();
        // Of two times, the lower one is the median: one slow call is none.
        let at = times.len().saturating_sub(1) * percent / 100;
        times.get(at).copied()
    }
}

/// The figures of a model, or of all.
#[derive(Debug, Clone, Default)]
struct Speed {
    calls: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    first: Times,
    total: Times,
}

impl Speed {
    fn add(&mut self, metrics: &CallMetrics) {
        self.calls += 1;
        self.prompt_tokens = self.prompt_tokens.saturating_add(metrics.prompt_tokens.unwrap_or(0));
        self.completion_tokens =
            self.completion_tokens.saturating_add(metrics.completion_tokens.unwrap_or(0));
        if let Some(first) = metrics.first_token {
            self.first.push(whole_ms(first));
        }
        self.total.push(whole_ms(metrics.total));
    }

    fn extend(&mut self, other: &Self) {
        self.calls += other.calls;
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.first.extend(&other.first);
        self.total.extend(&other.total);
    }

    fn json(&self) -> SpeedJson {
        SpeedJson {
            first_ms: self.first.percentile(50),
            total_ms: self.total.percentile(50),
            slow_ms: self.total.percentile(95),
        }
    }
}

/// Medians and the 95th percentile of the total time, in ms.
#[derive(Debug, Serialize)]
struct SpeedJson {
    first_ms: Option<u32>,
    total_ms: Option<u32>,
    slow_ms: Option<u32>,
}

/// The last 24 hours, as the panel's plots and tables show them.
#[derive(Debug, Serialize)]
pub struct LastHours {
    hours: Vec<HourJson>,
    models: Vec<ModelJson>,
    tools: Vec<ToolJson>,
}

#[derive(Debug, Serialize)]
struct HourJson {
    begin: String,
    begin_ms: i64,
    #[serde(flatten)]
    counts: Counts,
    #[serde(flatten)]
    speed: SpeedJson,
}

#[derive(Debug, Serialize)]
struct ModelJson {
    model: String,
    calls: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    #[serde(flatten)]
    speed: SpeedJson,
}

#[derive(Debug, Serialize)]
struct ToolJson {
    tool: String,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug)]
struct Hour {
    begin: DateTime<Local>,
    counts: Counts,
    all: Speed,
    models: HashMap<String, Speed>,
    tools: HashMap<String, Counts>,
}

/// The hours in which something happened, the newest last.
#[derive(Debug, Default)]
pub struct Hours {
    hours: VecDeque<Hour>,
}

impl Hours {
    /// Counts a call that ended at this time, with its metrics if they are known.
    pub fn count(&mut self, time: DateTime<Local>, counts: Counts, metrics: Option<&CallMetrics>) {
        let begin = begin_of_hour(time);
        // Nearly always this is the last hour.
        let at = self.hours.iter().rposition(|hour| hour.begin <= begin);
        let hour = match at {
            Some(at) if self.hours[at].begin == begin => &mut self.hours[at],
            _ => {
                let at = at.map_or(0, |at| at + 1);
                let hour = Hour {
                    tools: HashMap::new(),
                    begin,
                    counts: Counts::default(),
                    all: Speed::default(),
                    models: HashMap::new(),
                };
                self.hours.insert(at, hour);
                &mut self.hours[at]
            }
        };
        hour.counts.add(&counts);
        let tool = metrics.map_or("", |metrics| &metrics.tool);
        if hour.tools.contains_key(tool) || hour.tools.len() < MAX_TOOLS {
            hour.tools.entry(tool.to_owned()).or_default().add(&counts);
        }
        // Failures say nothing about the speed of the models, nor do answers that were there already.
        if let Some(metrics) = metrics.filter(|metrics| counts.answered > 0 && metrics.reused.is_none()) {
            hour.all.add(metrics);
            let is_known = hour.models.contains_key(&metrics.model);
            if !metrics.model.is_empty() && (is_known || hour.models.len() < MAX_MODELS) {
                hour.models.entry(metrics.model.clone()).or_default().add(metrics);
            }
        }
        if self.hours.len() > MAX_HOURS {
            self.hours.pop_front();
        }
    }

    /// Returns the last 24 hours, including those without any calls.
    pub fn json(&self, now: DateTime<Local>) -> LastHours {
        let current = begin_of_hour(now);
        let mut models = HashMap::<&str, Speed>::new();
        let mut tools = HashMap::<&str, Counts>::new();
        let hours = (0..MAX_HOURS as i64).rev().map(|ago| {
            let begin = current - TimeDelta::hours(ago);
            let hour = self.hours.iter().find(|hour| hour.begin == begin);
            for (model, speed) in hour.into_iter().flat_map(|hour| &hour.models) {
                models.entry(model).or_default().extend(speed);
            }
            for (tool, counts) in hour.into_iter().flat_map(|hour| &hour.tools) {
                tools.entry(tool).or_default().add(counts);
            }
            let (counts, all) = hour.map(|hour| (hour.counts, hour.all.clone())).unwrap_or_default();
            HourJson {
                begin: timestamp(begin),
                begin_ms: begin.timestamp_millis(),
                counts,
                speed: all.json(),
            }
        });
        let hours = hours.collect();
        let mut models = models.into_iter().collect::<Vec<_>>();
        let tokens = |speed: &Speed| speed.prompt_tokens.saturating_add(speed.completion_tokens);
        models.sort_by(|(a, x), (b, y)| (tokens(y), y.calls, a).cmp(&(tokens(x), x.calls, b)));
        let models = models.iter().take(MAX_LISTED).map(|(model, speed)| ModelJson {
            model: (*model).to_owned(),
            calls: speed.calls,
            prompt_tokens: speed.prompt_tokens,
            completion_tokens: speed.completion_tokens,
            speed: speed.json(),
        });
        let mut tools = tools.into_iter().collect::<Vec<_>>();
        tools.sort_by(|(a, x), (b, y)| (y.calls(), a).cmp(&(x.calls(), b)));
        let tools = tools.iter().take(MAX_LISTED);
        let tools = tools.map(|(tool, counts)| ToolJson { tool: (*tool).to_owned(), counts: *counts });
        LastHours { hours, models: models.collect(), tools: tools.collect() }
    }
}

/// Returns the beginning of the hour by local time: some zones are half an hour off.
fn begin_of_hour(time: DateTime<Local>) -> DateTime<Local> {
    let seconds = i64::from(time.minute()) * 60 + i64::from(time.second());
    time - TimeDelta::seconds(seconds) - TimeDelta::nanoseconds(time.nanosecond().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::names::Kind;
    use std::time::Duration;

    #[test]
    fn hours_come_in_their_order_and_go() {
        let now = Local::now();
        let mut hours = Hours::default();
        let metrics = |model: &str, ms| CallMetrics {
            status: 200,
            model: model.into(),
            total: Duration::from_millis(ms),
            prompt_tokens: Some(3),
            ..CallMetrics::default()
        };
        for ago in [30, 2, 1, 0, 2] {
            let call = metrics(if ago == 0 { "b" } else { "a" }, 100);
            hours.count(now - TimeDelta::hours(ago), Counts::of(Kind::Response, &call), Some(&call));
        }
        let failed = CallMetrics { status: 502, ..metrics("b", 9000) };
        hours.count(now, Counts::of(Kind::Error, &failed), Some(&failed));
        let told = serde_json::to_value(hours.json(now)).unwrap();
        let counts = told["hours"].as_array().unwrap().iter();
        let counts = counts.map(|hour| [&hour["answered"], &hour["errors"]].map(|n| n.as_u64().unwrap()));
        let counts = counts.collect::<Vec<_>>();
        assert_eq!((counts.len(), &counts[21..]), (24, &[[2, 0], [1, 0], [1, 1]][..]));
        assert_eq!((&told["tools"][0]["answered"], &told["tools"][0]["errors"]), (&4.into(), &1.into()));
        assert_eq!(told["hours"][23]["total_ms"], 100, "an error says nothing of it");
        let models = told["models"].as_array().unwrap();
        assert_eq!((&models[0]["model"], &models[0]["prompt_tokens"]), (&"a".into(), &9.into()));
    }

    #[test]
    fn one_slow_call_is_no_median() {
        let mut times = Times::default();
        assert_eq!(times.percentile(50), None);
        let mut two = times.clone();
        [60_000, 30].into_iter().for_each(|ms| two.push(ms));
        assert_eq!((two.percentile(50), two.percentile(100)), (Some(30), Some(60_000)));
        (0..99).for_each(|_| times.push(10));
        times.push(60_000);
        assert_eq!((times.percentile(50), times.percentile(95)), (Some(10), Some(10)));
        (0..1000).for_each(|_| times.push(20));
        assert_eq!(times.percentile(100), Some(20), "the last ones count");
    }
}
