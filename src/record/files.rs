//! The writer thread: saves debug files in `CACHE_DIR`, one after the other, each of them whole or not at all.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Days, Local, NaiveDate};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::console::say;
use crate::json;
use crate::language::either;
use crate::live::Live;
use crate::record::day::{Earlier, Tally, count_on_disk};
use crate::record::names::{CALL_KEY, Kind, MessageId, Name, count_name, date_in_name, timestamp};
use crate::secrets;

/// Bytes of memory that may wait to be written; what comes beyond them is left out and counted.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// The shortest time between two writes of the day's count: each of them costs a stick, or a card, a block or two.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
/// The memory that a count takes while it waits, roughly.
const COUNT_BYTES: usize = 2048;
/// How often the thread checks whether a day has ended.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// How often a file's folder is made anew: somebody who deletes it may interfere more than once.
const MISSING_FOLDER_RETRIES: usize = 10;
/// The folder within `CACHE_DIR` for answers that may be given again.
pub const ANSWERS_FOLDER: &str = "answers";
/// Files that aren't complete yet begin with this and end with `.tmp`.
const UNFINISHED_PREFIX: &str = ".local-api-proxy-";

/// One debug file.
#[derive(Debug)]
pub struct DebugFile {
    /// `CACHE_DIR` at the time of the call.
    pub dir: Arc<Path>,
    /// What the file is about.
    pub kind: Kind,
    /// The time in the file's name and in its `timestamp`.
    pub time: DateTime<Local>,
    /// The id, the same in both files of a call.
    pub message_id: MessageId,
    /// The JSON of its `data`.
    pub data: Arc<str>,
    /// The JSON of the attempts, if there was more than one.
    pub attempts: Option<String>,
    /// The JSON of the call's figures, once it has ended.
    pub metrics: Option<String>,
    /// The day's count with this call, once it has ended.
    pub calls: Option<Tally>,
}

impl DebugFile {
    /// Returns how many bytes the file takes while it waits.
    fn memory(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.data.len() + of(&self.attempts) + of(&self.metrics)
    }
}

/// Returns what a file is to hold; called when the file is written.
pub type Text = Box<dyn FnOnce() -> String + Send>;

enum Job {
    Save(Box<DebugFile>),
    SaveSoon(PathBuf, Text),
    SaveAnswer(PathBuf, Vec<u8>),
    Remove(PathBuf),
    Count(Arc<Path>, NaiveDate, Arc<Earlier>),
    SaveCount(Arc<Path>, Tally),
    Flush(Sender<()>),
}

/// A handle to the writer thread.
#[derive(Debug, Clone)]
pub struct Files {
    jobs: Sender<Job>,
    queued_bytes: Arc<AtomicUsize>,
    not_saved: Arc<AtomicU64>,
}

impl Files {
    /// Starts the writer thread.
    pub fn start(live: Arc<Live>) -> io::Result<Self> {
        let (jobs, receiver) = unbounded();
        let files = Self { jobs, queued_bytes: Arc::default(), not_saved: Arc::default() };
        let mut writer = Writer {
            live,
            queued_bytes: Arc::clone(&files.queued_bytes),
            not_saved: Arc::clone(&files.not_saved),
            failing: false,
            unsaved_count: None,
            unsaved_text: None,
            count_saved: None,
            cleaned_on: None,
        };
        thread::Builder::new().name("writer".into()).spawn(move || writer.run(&receiver))?;
        Ok(files)
    }

    /// Hands over a file; never waits.
    pub fn save(&self, file: DebugFile) {
        let bytes = file.memory();
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.not_saved.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let _ = self.jobs.send(Job::Save(Box::new(file)));
    }

    /// Hands over the day's count if it changed without a file; never waits. One that is dropped is part of the next.
    pub fn save_count(&self, dir: &Arc<Path>, tally: Tally) {
        if self.queued_bytes.fetch_add(COUNT_BYTES, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(COUNT_BYTES, Ordering::Relaxed);
            return;
        }
        let _ = self.jobs.send(Job::SaveCount(Arc::clone(dir), tally));
    }

    /// Hands over an answer that may be given again; never waits. One that is dropped costs a call.
    pub fn save_answer(&self, path: PathBuf, bytes: Vec<u8>) {
        let length = bytes.len();
        if self.queued_bytes.fetch_add(length, Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            return;
        }
        let _ = self.jobs.send(Job::SaveAnswer(path, bytes));
    }

    /// Hands over a file that changes with every call, but isn't written with every call; never waits.
    pub fn save_soon(&self, path: PathBuf, text: Text) {
        let _ = self.jobs.send(Job::SaveSoon(path, text));
    }

    /// Has a file removed, once everything that was handed over before is written.
    pub fn remove(&self, path: PathBuf) {
        let _ = self.jobs.send(Job::Remove(path));
    }

    /// Has the writer read the count of a day in a folder, before it writes anything that is handed over later.
    pub fn count(&self, dir: &Arc<Path>, date: NaiveDate) -> Arc<Earlier> {
        let earlier = Arc::<Earlier>::default();
        let _ = self.jobs.send(Job::Count(Arc::clone(dir), date, Arc::clone(&earlier)));
        earlier
    }

    /// Returns how many files could not be saved since the start.
    pub fn not_saved(&self) -> u64 {
        self.not_saved.load(Ordering::Relaxed)
    }

    /// Waits until everything handed over so far is written. Returns whether that was in time.
    pub fn flush(&self, limit: Duration) -> bool {
        let (done, written) = bounded(1);
        self.jobs.send(Job::Flush(done)).is_ok() && written.recv_timeout(limit).is_ok()
    }
}

struct Writer {
    live: Arc<Live>,
    queued_bytes: Arc<AtomicUsize>,
    not_saved: Arc<AtomicU64>,
    /// Whether the last file could not be saved, and that has been said.
    failing: bool,
    /// The count, if there were calls since it was last written.
    unsaved_count: Option<(Arc<Path>, Tally)>,
    /// A file that is to be written along with it.
    unsaved_text: Option<(PathBuf, Text)>,
    count_saved: Option<Instant>,
    /// Where, on which day, and with which `CACHE_KEEP_DAYS` old files were last removed.
    cleaned_on: Option<(Arc<Path>, NaiveDate, u32)>,
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Job>) {
        self.check_folder();
        self.clean();
        let mut next_clean = Instant::now() + CLOCK_INTERVAL;
        loop {
            let mut patience = next_clean.saturating_duration_since(Instant::now());
            if self.unsaved_count.is_some() || self.unsaved_text.is_some() {
                patience = patience.min(self.count_due());
            }
            match jobs.recv_timeout(patience) {
                Ok(Job::Save(file)) => {
                    self.save(&file);
                    self.queued_bytes.fetch_sub(file.memory(), Ordering::Relaxed);
                }
                Ok(Job::SaveAnswer(path, bytes)) => {
                    if let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str))
                    {
                        let written = write_whole(dir, name, &bytes);
                        self.report(dir, &written);
                    }
                    self.queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                }
                Ok(Job::SaveSoon(path, text)) => {
                    if self.unsaved_text.as_ref().is_some_and(|(other, _)| *other != path) {
                        self.save_text();
                    }
                    self.unsaved_text = Some((path, text));
                }
                Ok(Job::Remove(path)) => drop(fs::remove_file(path)),
                Ok(Job::Count(dir, date, earlier)) => earlier.set(count_on_disk(&dir, date)),
                Ok(Job::SaveCount(dir, tally)) => {
                    self.note_count(&dir, &tally);
                    self.queued_bytes.fetch_sub(COUNT_BYTES, Ordering::Relaxed);
                }
                Ok(Job::Flush(done)) => {
                    self.save_count();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.save_count(),
            }
            if self.count_due().is_zero() {
                self.save_count();
            }
            // Also where there is always something to be written.
            if Instant::now() >= next_clean {
                self.clean();
                next_clean = Instant::now() + CLOCK_INTERVAL;
            }
        }
    }

    /// Returns how long it is from now until the count may be written.
    fn count_due(&self) -> Duration {
        self.count_saved.map_or(Duration::ZERO, |saved| COUNT_INTERVAL.saturating_sub(saved.elapsed()))
    }

    /// Reports at the start, not at the first call, that nothing can be saved.
    fn check_folder(&mut self) {
        let snapshot = self.live.snapshot();
        if let Some(dir) = &snapshot.settings.cache_dir
            && let Err(error) = check_writable(dir)
        {
            self.failing = true;
            let dir = dir.display();
            say(either(
                format_args!(
                    "CACHE_DIR: nothing can be saved in {dir}: {error}. Requests go on; choose another folder in .env"
                ),
                format_args!(
                    "CACHE_DIR：无法在 {dir} 中保存：{error}。请求不受影响；请在 .env 中换一个文件夹"
                ),
            ));
        }
    }

    fn save(&mut self, file: &DebugFile) {
        let name = Name { time: file.time.naive_local(), kind: file.kind, message_id: file.message_id };
        let written = write_whole(&file.dir, &name.to_string(), secrets::hidden(&text(file)).as_bytes());
        self.report(&file.dir, &written);
        // After the file, so that a crash in between leaves a call without its count, and not the other way round.
        if let Some(tally) = &file.calls {
            self.note_count(&file.dir, tally);
        }
    }

    fn note_count(&mut self, dir: &Arc<Path>, tally: &Tally) {
        let date = tally.since.date;
        let another = |(other, saved): &(Arc<Path>, Tally)| saved.since.date != date || other != dir;
        if self.unsaved_count.as_ref().is_some_and(another) {
            self.save_count();
        }
        self.unsaved_count = Some((Arc::clone(dir), tally.clone()));
    }

    fn save_text(&mut self) {
        let Some((path, text)) = self.unsaved_text.take() else {
            return;
        };
        if let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) {
            let written = write_whole(dir, name, secrets::hidden(&text()).as_bytes());
            self.report(dir, &written);
            self.count_saved = Some(Instant::now());
        }
    }

    fn save_count(&mut self) {
        self.save_text();
        if let Some((dir, count)) = self.unsaved_count.take() {
            let count = count.total(Duration::ZERO); // no wait: this thread has read it before
            let text = count.text();
            let written = write_whole(&dir, &count_name(count.date), secrets::hidden(&text).as_bytes());
            self.report(&dir, &written);
            self.count_saved = Some(Instant::now());
        }
    }

    /// Reports once that saving fails, and once that it works again.
    fn report(&mut self, dir: &Path, written: &io::Result<()>) {
        match written {
            Ok(()) if self.failing => {
                let dir = dir.display();
                say(either(
                    format_args!("debug files can be saved again in {dir}"),
                    format_args!("调试文件又可以保存到 {dir} 了"),
                ))
            }
            Ok(()) => {}
            Err(error) => {
                self.not_saved.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    let dir = dir.display();
                    say(either(
                        format_args!(
                            "debug files can't be saved in {dir}: {error}. Requests go on; check CACHE_DIR and the space left"
                        ),
                        format_args!(
                            "调试文件无法保存到 {dir}：{error}。请求不受影响；请检查 CACHE_DIR 和剩余空间"
                        ),
                    ));
                }
            }
        }
        self.failing = written.is_err();
    }

    fn clean(&mut self) {
        let snapshot = self.live.snapshot();
        let Some(dir) = &snapshot.settings.cache_dir else {
            return;
        };
        let today = Local::now().date_naive();
        let days = snapshot.settings.cache_keep_days.unwrap_or(u32::MAX);
        let state = (Arc::clone(dir), today, days);
        if self.cleaned_on.as_ref() == Some(&state) {
            return;
        }
        let first_time = self.cleaned_on.is_none();
        self.cleaned_on = Some(state);
        let oldest = today.checked_sub_days(Days::new(days.into()));
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unfinished = first_time && name.starts_with(UNFINISHED_PREFIX) && name.ends_with(".tmp");
            let old = oldest.is_some_and(|oldest| date_in_name(name).is_some_and(|date| date < oldest));
            if unfinished || old {
                let _ = fs::remove_file(entry.path());
            }
        }
        let keep = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
        for entry in fs::read_dir(dir.join(ANSWERS_FOLDER)).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|file| file.modified()).ok();
            let old = modified.is_some_and(|time| time.elapsed().is_ok_and(|age| age > keep));
            let unfinished = entry.file_name().to_str().is_some_and(|name| name.ends_with(".tmp"));
            if old || first_time && unfinished {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn text(file: &DebugFile) -> String {
    let mut text = String::with_capacity(file.data.len() + file.data.len() / 4 + 160);
    text.push_str("{\n  \"timestamp\": ");
    text.push_str(&json::quoted(&timestamp(file.time)));
    text.push_str(",\n  \"type\": \"");
    text.push_str(file.kind.name());
    text.push_str("\",\n  \"message_id\": \"");
    text.push_str(&file.message_id.to_string());
    text.push_str("\",\n  \"data\": ");
    json::indent(&file.data, 1, &mut text);
    for (key, value) in [("attempts", &file.attempts), (CALL_KEY, &file.metrics)] {
        if let Some(value) = value {
            text.push_str(&format!(",\n  \"{key}\": "));
            json::indent(value, 1, &mut text);
        }
    }
    text.push_str("\n}\n");
    text
}

/// Writes the file beside its final name and renames it, so that a reader, or the next start after a crash, sees all or
/// nothing. A missing folder is made. One that is being deleted disappears entry by entry, at any moment of this, and
/// so is made more than once.
fn write_whole(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(format!("{UNFINISHED_PREFIX}{name}.tmp"));
    let write = || fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, dir.join(name)));
    let mut written = write();
    for _ in 0..MISSING_FOLDER_RETRIES {
        match &written {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                written = fs::create_dir_all(dir).and_then(|()| write());
            }
            _ => break,
        }
    }
    written.inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}

/// Checks whether files can be saved in `dir`, by saving one.
fn check_writable(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let probe = dir.join(format!("{UNFINISHED_PREFIX}probe-{}.tmp", std::process::id()));
    fs::write(&probe, "")?;
    fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_file_is_laid_out_for_reading() {
        use chrono::TimeZone;
        let time = Local.with_ymd_and_hms(2024, 2, 14, 10, 30, 45).unwrap()
            + chrono::Duration::microseconds(123_456);
        let file = DebugFile {
            dir: Path::new("").into(),
            kind: Kind::Request,
            time,
            message_id: MessageId(0xa1b2_c3d4),
            data: r#"{"model":"\u4f60","n":1.0}"#.into(),
            attempts: None,
            metrics: None,
            calls: None,
        };
        let name = Name { time: time.naive_local(), kind: file.kind, message_id: file.message_id };
        assert_eq!(name.to_string(), "20240214_103045_123_REQUEST_a1b2c3d4.json");
        let read = Name::parse(&name.to_string()).unwrap();
        assert_eq!((read.to_string(), read.kind), (name.to_string(), name.kind));
        let expected = "{\n  \"timestamp\": \"2024-02-14T10:30:45.123456\",\n  \"type\": \"REQUEST\",\n  \"message_id\": \"a1b2c3d4\",\n  \"data\": {\n    \"model\": \"你\",\n    \"n\": 1.0\n  }\n}\n";
        assert_eq!(text(&file), expected);
    }
}
