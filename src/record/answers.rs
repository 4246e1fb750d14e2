//! Answers that may be given again (`REUSE_ANSWERS`): in memory, and with `CACHE_DIR` in files that outlive a restart.
//!
//! A file is a digest of everything that follows, one line of JSON about the answer, and the answer's bytes as they
//! came. It holds nothing of the request, for which its name stands: a digest of all that makes two requests the same.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use ring::digest::{Context, SHA256, digest};
use serde_json::{Value, json};

use crate::console::say;
use crate::language::either;
use crate::record::files::{ANSWERS_FOLDER, Files};
use crate::sync::lock;

/// A longer answer isn't kept.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The maximum size of all answers together, in memory and in files.
const MAX_BYTES: usize = 64 << 20;
/// The memory that an answer takes beside its bytes.
const OVERHEAD_BYTES: usize = 1024;
/// The maximum size of a file: an answer as it came and as it was translated, and the line about it.
const MAX_FILE_BYTES: u64 = 3 * MAX_ANSWER_BYTES as u64;
/// How often old answers are removed.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
const EXTENSION: &str = ".answer";

/// The key of an answer: the same for requests that are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Key {
    /// Returns the key of these parts in this order.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes()); // so that "ab" and "c" aren't "a" and "bc"
            context.update(part);
        }
        let mut key = Self([0; 32]);
        key.0.copy_from_slice(context.finish().as_ref());
        key
    }

    fn parse(hex: &str) -> Option<Self> {
        let mut key = Self([0; 32]);
        for (place, byte) in key.0.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(place * 2..place * 2 + 2)?, 16).ok()?;
        }
        (format!("{key:?}") == hex).then_some(key)
    }
}

/// What is known of an answer beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    /// The upstream's header fields that clients get.
    pub headers: Vec<(String, String)>,
    /// The model that was asked.
    pub model: String,
    /// The backup that was asked, if one was.
    pub backup: Option<String>,
}

impl AnswerHead {
    /// The value of a header field (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A complete answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// When the answer came.
    pub time: SystemTime,
    /// What is known of the answer beside its body.
    pub head: AnswerHead,
    /// The body as it came from the upstream.
    pub body: Vec<u8>,
    /// The answer as it was translated into another API, if it was.
    pub told: Option<String>,
}

impl Kept {
    fn size(&self) -> usize {
        OVERHEAD_BYTES + self.body.len() + self.told.as_ref().map_or(0, String::len)
    }

    /// Returns how old the answer is.
    pub fn age(&self) -> Duration {
        self.time.elapsed().unwrap_or_default()
    }

    /// Returns whether the answer is no older than this, and not from the future, which means that somebody has set the
    /// clock.
    fn is_fresh(&self, max_age: Duration) -> bool {
        self.time.elapsed().is_ok_and(|age| age <= max_age)
    }

    fn to_file(&self) -> Vec<u8> {
        let told = self.told.as_deref().unwrap_or_default();
        let bytes = [&self.body[..], told.as_bytes()].concat();
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let line = json!({
            "time_ms": since.as_millis() as u64,
            "model": self.head.model,
            "backup": self.head.backup,
            "headers": self.head.headers,
            "body_bytes": self.body.len(),
            "told_bytes": self.told.as_ref().map(String::len),
        });
        let rest = [format!("{line}\n").as_bytes(), &bytes].concat();
        [format!("{}\n", digest_of(&rest)).as_bytes(), &rest].concat()
    }

    fn from_file(file: &[u8]) -> Option<Self> {
        let line_of = |text: &[u8]| memchr::memchr(b'\n', text);
        let (digest, rest) = file.split_at_checked(line_of(file)? + 1)?;
        if digest.trim_ascii_end() != digest_of(rest).as_bytes() {
            return None;
        }
        let (line, bytes) = rest.split_at_checked(line_of(rest)? + 1)?;
        let line = serde_json::from_slice::<Value>(line).ok()?;
        let length = |name: &str| line[name].as_u64().map(|length| length as usize);
        let (body, told) = bytes.split_at_checked(length("body_bytes")?)?;
        if told.len() != length("told_bytes").unwrap_or(0) {
            return None;
        }
        Some(Self {
            time: SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(line["time_ms"].as_u64()?))?,
            head: AnswerHead {
                headers: serde_json::from_value(line["headers"].clone()).ok()?,
                model: line["model"].as_str()?.to_owned(),
                backup: line["backup"].as_str().map(str::to_owned),
            },
            body: body.to_owned(),
            told: length("told_bytes").and_then(|_| String::from_utf8(told.to_owned()).ok()),
        })
    }
}

fn digest_of(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in digest(&SHA256, bytes).as_ref() {
        hex.push_str(&format!("{byte:02x}"));
    }
    hex
}

/// All answers that are kept.
#[derive(Debug)]
pub struct Answers {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The answers, in the order in which they were used last.
    entries: LruCache<Key, Entry>,
    bytes: usize,
    /// The folder whose files have been taken into account.
    dir: Option<Arc<Path>>,
    tidied: SystemTime,
    damage_was_said: bool,
}

#[derive(Debug)]
struct Entry {
    /// The answer; `None` if only its file holds it.
    kept: Option<Arc<Kept>>,
    size: usize,
    /// The `CACHE_DIR` that has a file of the answer.
    file_in: Option<Arc<Path>>,
}

impl Default for Answers {
    fn default() -> Self {
        let state = State {
            entries: LruCache::unbounded(),
            bytes: 0,
            dir: None,
            tidied: SystemTime::UNIX_EPOCH,
            damage_was_said: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl Answers {
    /// Returns the answer that is kept for a request, if it is no older than this.
    pub fn get(
        &self,
        key: &Key,
        max_age: Duration,
        cache_dir: Option<&Arc<Path>>,
        files: &Files,
    ) -> Option<Arc<Kept>> {
        self.look_into(&mut self.lock(), cache_dir, files);
        if let Some(kept) = self.get_in_memory(key, max_age) {
            return Some(kept);
        }
        let cache_dir = cache_dir?;
        let path = path_of(cache_dir, key);
        let file = fs::metadata(&path).ok()?;
        // A file longer than any answer, or anything that isn't a file, isn't read.
        let readable = file.is_file() && file.len() <= MAX_FILE_BYTES;
        let file = if readable { fs::read(&path).ok()? } else { Vec::new() };
        let Some(kept) = Kept::from_file(&file).map(Arc::new) else {
            if !std::mem::replace(&mut self.lock().damage_was_said, true) {
                let path = path.display();
                say(either(
                    format_args!("{path} is damaged: the answer in it is asked for anew"),
                    format_args!("{path} 已损坏：将重新请求其中的回答"),
                ));
            }
            files.remove(path);
            return None;
        };
        if !kept.is_fresh(max_age) {
            return None;
        }
        let file_in = Some(Arc::clone(cache_dir));
        self.insert(*key, Entry { size: kept.size(), kept: Some(Arc::clone(&kept)), file_in }, files);
        Some(kept)
    }

    /// Like [`Answers::get`], but without the disk.
    pub fn get_in_memory(&self, key: &Key, max_age: Duration) -> Option<Arc<Kept>> {
        let kept = self.lock().entries.get(key)?.kept.clone()?;
        kept.is_fresh(max_age).then_some(kept)
    }

    /// Keeps an answer, in place of an older one with the same key.
    pub fn put(&self, key: Key, kept: Arc<Kept>, cache_dir: Option<&Arc<Path>>, files: &Files) {
        if kept.size() > MAX_ANSWER_BYTES + OVERHEAD_BYTES {
            return;
        }
        if let Some(dir) = cache_dir {
            files.save_answer(path_of(dir, &key), kept.to_file());
        }
        self.look_into(&mut self.lock(), cache_dir, files);
        let entry = Entry { size: kept.size(), kept: Some(kept), file_in: cache_dir.cloned() };
        self.insert(key, entry, files);
    }

    /// Forgets answers that are older than this; if this is zero, all of them, but not their files.
    pub fn tidy(&self, max_age: Duration, files: &Files) {
        let mut state = self.lock();
        if max_age.is_zero() {
            if !state.entries.is_empty() {
                state.entries.clear();
                (state.bytes, state.dir) = (0, None);
            }
            return;
        }
        if state.tidied.elapsed().is_ok_and(|since| since < TIDY_INTERVAL) {
            return;
        }
        state.tidied = SystemTime::now();
        let old =
            |(_, entry): &(&Key, &Entry)| entry.kept.as_ref().is_some_and(|kept| !kept.is_fresh(max_age));
        let old = state.entries.iter().filter(old).map(|(key, _)| *key).collect::<Vec<_>>();
        for key in old {
            if let Some(entry) = state.entries.pop(&key) {
                state.drop_entry(&key, entry, files);
            }
        }
    }

    fn insert(&self, key: Key, entry: Entry, files: &Files) {
        let mut state = self.lock();
        state.bytes += entry.size;
        if let Some(replaced) = state.entries.put(key, entry) {
            state.bytes -= replaced.size; // its file has the same name
        }
        while state.bytes > MAX_BYTES
            && let Some((key, oldest)) = state.entries.pop_lru()
        {
            state.drop_entry(&key, oldest, files);
        }
    }

    /// Takes the files of a folder into account that wasn't looked into before, so that it keeps within its bounds.
    fn look_into(&self, state: &mut State, cache_dir: Option<&Arc<Path>>, files: &Files) {
        if state.dir.as_ref() == cache_dir {
            return;
        }
        state.dir = cache_dir.cloned();
        let (Some(dir), this, files) = (cache_dir.cloned(), Arc::clone(&self.state), files.clone()) else {
            return;
        };
        let look = move || {
            let this = Self { state: this };
            let mut found = answers_in(&dir);
            found.sort_by_key(|(time, ..)| *time);
            for (_, key, size) in found {
                let known = this.lock().entries.contains(&key);
                if !known {
                    let file_in = Some(Arc::clone(&dir));
                    this.insert(key, Entry { kept: None, size: size + OVERHEAD_BYTES, file_in }, &files);
                }
            }
        };
        // Without a thread the folder stays as large as it is.
        let _ = thread::Builder::new().name("answers".into()).spawn(look);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn drop_entry(&mut self, key: &Key, entry: Entry, files: &Files) {
        self.bytes -= entry.size;
        if let Some(dir) = entry.file_in {
            files.remove(path_of(&dir, key));
        }
    }
}

fn path_of(cache_dir: &Path, key: &Key) -> PathBuf {
    cache_dir.join(ANSWERS_FOLDER).join(format!("{key:?}{EXTENSION}"))
}

/// When a file was written, its key, and its length.
type Found = (SystemTime, Key, usize);

fn answers_in(cache_dir: &Path) -> Vec<Found> {
    let entries = fs::read_dir(cache_dir.join(ANSWERS_FOLDER)).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let key = Key::parse(entry.file_name().to_str()?.strip_suffix(EXTENSION)?)?;
        let file = entry.metadata().ok()?;
        Some((file.modified().ok()?, key, file.len() as usize))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(body: &str) -> Kept {
        let head = AnswerHead {
            headers: vec![("content-type".into(), "application/json".into())],
            model: "a:free".into(),
            backup: None,
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Kept { time, head, body: body.into(), told: None }
    }

    #[test]
    fn a_file_says_all_of_it_or_nothing() {
        for kept in [kept("{}\n{}"), kept(""), Kept { told: Some("你好".into()), ..kept("x") }] {
            let file = kept.to_file();
            assert_eq!(Kept::from_file(&file).as_ref(), Some(&kept));
            for cut in 0..file.len() {
                assert_eq!(Kept::from_file(&file[..cut]), None, "its first {cut} bytes");
            }
            for at in 0..file.len() {
                let mut damaged = file.clone();
                damaged[at] ^= 1;
                assert_eq!(Kept::from_file(&damaged), None, "byte {at}");
            }
        }
    }

    #[test]
    fn keys_tell_parts_apart() {
        let key = Key::of([&b"ab"[..], b"c"]);
        assert_ne!(key, Key::of([&b"a"[..], b"bc"]));
        assert_eq!(Key::parse(&format!("{key:?}")), Some(key));
        assert_eq!(Key::parse("00"), None);
        assert_eq!(Key::parse(&"zz".repeat(32)), None);
    }
}
