//! What was seen of the backups: which of them rest, and which APIs and fields they don't know. Forgotten where their
//! settings change.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::settings::backups::Backup;
use crate::sync::lock;

/// How long one rests at its first failure, its second in a row, and those behind, where it doesn't say so itself.
const RESTS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(30 * 60)];
/// No longer, whatever it says.
const LONGEST_REST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known.
#[derive(Debug, Default)]
pub struct BackupHistory {
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Debug)]
struct Seen {
    /// What it was seen with.
    settings: Backup,
    /// In a row.
    failures: usize,
    rests_until: Option<SystemTime>,
    /// The paths of APIs, and the fields, that it doesn't know.
    unknown: Vec<&'static str>,
}

impl BackupHistory {
    /// It has answered.
    pub fn answered(&self, backup: &Backup) {
        self.with(backup, |seen| (seen.failures, seen.rests_until) = (0, None));
    }

    /// It wants to be left alone, for so long if it says so, or can't be reached.
    pub fn failed(&self, backup: &Backup, named: Option<Duration>) {
        self.with(backup, |seen| {
            // Those that were under way at the same time are one failure.
            let rests = seen.rests_until.filter(|until| *until > SystemTime::now());
            let step = if rests.is_some() { seen.failures.saturating_sub(1) } else { seen.failures };
            let rest = named.unwrap_or(RESTS[step.min(RESTS.len() - 1)]).min(LONGEST_REST);
            seen.failures = step + 1;
            seen.rests_until = SystemTime::now().checked_add(rest).max(rests);
        });
    }

    /// Until when it isn't asked.
    pub fn rests_until(&self, backup: &Backup) -> Option<SystemTime> {
        let seen = self.lock();
        let seen = seen.get(&backup.name).filter(|seen| seen.settings == *backup)?;
        seen.rests_until.filter(|until| *until > SystemTime::now())
    }

    /// It has said that it doesn't know an API, by its path, or a field of one.
    pub fn does_not_know(&self, backup: &Backup, what: &'static str) {
        self.with(backup, |seen| {
            if !seen.unknown.contains(&what) {
                seen.unknown.push(what);
            }
        });
    }

    /// Whether it may know an API or a field.
    pub fn may_know(&self, backup: &Backup, what: &str) -> bool {
        let seen = self.lock();
        let seen = seen.get(&backup.name).filter(|seen| seen.settings == *backup);
        seen.is_none_or(|seen| !seen.unknown.contains(&what))
    }

    fn with(&self, backup: &Backup, change: impl FnOnce(&mut Seen)) {
        let fresh = || Seen { settings: backup.clone(), failures: 0, rests_until: None, unknown: Vec::new() };
        let mut all = self.lock();
        let seen = all.entry(backup.name.clone()).or_insert_with(fresh);
        if seen.settings != *backup {
            *seen = fresh();
        }
        change(seen);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        lock(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(base_url: &str) -> Backup {
        let base_url = base_url.to_owned();
        Backup { name: "x".into(), base_url, key: None, models: vec!["m".into()] }
    }

    /// Ends its present rest, as if the time had gone by.
    fn awake(history: &BackupHistory) {
        history.lock().values_mut().for_each(|seen| seen.rests_until = Some(SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn rests_grow_until_it_answers() {
        let (history, backup) = (BackupHistory::default(), backup("http://a/v1"));
        let rest = |named| {
            history.failed(&backup, named);
            let rest = history.rests_until(&backup).unwrap().duration_since(SystemTime::now()).unwrap();
            (rest.as_secs() + 30) / 60
        };
        assert_eq!(history.rests_until(&backup), None);
        assert_eq!((rest(None), rest(None)), (1, 1), "at the same time");
        for minutes in [5, 30, 30] {
            awake(&history);
            assert_eq!(history.rests_until(&backup), None);
            assert_eq!(rest(None), minutes);
        }
        awake(&history);
        assert_eq!(rest(Some(Duration::from_secs(120))), 2, "as it says");
        history.answered(&backup);
        assert_eq!(history.rests_until(&backup), None);
        assert_eq!(rest(None), 1);
        awake(&history);
        assert_eq!(rest(Some(Duration::MAX)), 24 * 60);
    }

    #[test]
    fn what_it_does_not_know_is_remembered_until_its_settings_change() {
        let (history, old, new) = (BackupHistory::default(), backup("http://a/v1"), backup("http://b/v1"));
        assert!(history.may_know(&old, "/messages"));
        history.does_not_know(&old, "/messages");
        history.failed(&old, None);
        assert!(!history.may_know(&old, "/messages") && history.may_know(&old, "/responses"));
        assert!(history.may_know(&new, "/messages") && history.rests_until(&new).is_none());
        history.answered(&new);
        assert!(history.may_know(&old, "/messages"), "what was known of the old one is forgotten");
    }
}
