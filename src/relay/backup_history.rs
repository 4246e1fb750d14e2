//! What was seen of the backups: which of them rest, and which APIs and fields they don't know. It is forgotten when
//! their settings change.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::settings::backups::Backup;
use crate::sync::lock;

/// How long a backup rests after its first, its second and any further failure in a row, if it doesn't say so itself.
const RESTS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(30 * 60)];
/// The longest rest, whatever the backup says.
const LONGEST_REST: Duration = Duration::from_secs(24 * 60 * 60);

/// What was seen of all backups.
#[derive(Debug, Default)]
pub struct BackupHistory {
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Debug)]
struct Seen {
    /// The settings that the backup had meanwhile.
    settings: Backup,
    /// The number of failures in a row.
    failures: usize,
    rests_until: Option<SystemTime>,
    /// The paths of APIs, and the fields, that the backup doesn't know.
    unknown: Vec<&'static str>,
}

impl BackupHistory {
    /// Records that a backup has answered.
    pub fn answered(&self, backup: &Backup) {
        self.with(backup, |seen| (seen.failures, seen.rests_until) = (0, None));
    }

    /// Records that a backup wants to be left alone, for `named` if it says so, or can't be reached.
    pub fn failed(&self, backup: &Backup, named: Option<Duration>) {
        self.with(backup, |seen| {
            // Calls that were in flight at the same time count as one failure.
            let rests = seen.rests_until.filter(|until| *until > SystemTime::now());
            let step = if rests.is_some() { seen.failures.saturating_sub(1) } else { seen.failures };
            let rest = named.unwrap_or(RESTS[step.min(RESTS.len() - 1)]).min(LONGEST_REST);
            seen.failures = step + 1;
            seen.rests_until = SystemTime::now().checked_add(rest).max(rests);
        });
    }

    /// Returns until when a backup isn't asked, if it rests.
    pub fn rests_until(&self, backup: &Backup) -> Option<SystemTime> {
        let seen = self.lock();
        let seen = seen.get(&backup.name).filter(|seen| seen.settings == *backup)?;
        seen.rests_until.filter(|until| *until > SystemTime::now())
    }

    /// Records that a backup has said that it doesn't know an API, by its path, or a field.
    pub fn does_not_know(&self, backup: &Backup, what: &'static str) {
        self.with(backup, |seen| {
            if !seen.unknown.contains(&what) {
                seen.unknown.push(what);
            }
        });
    }

    /// Returns whether a backup may know an API or a field.
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
