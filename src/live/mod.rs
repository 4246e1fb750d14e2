//! The settings as they are at this very moment: each request asks the store, and the store makes sure that what it
//! hands out is what the file says now, whether or not the system reports file events.
//!
//! Two `stat`s a request decide: while `.env` has the stamp (times, size, identity) that it had when it was read,
//! nothing has changed. A stamp is believed only once it has been seen for [`Stamp::granularity`], because two writes
//! within one tick of the file system's clock (2 s on FAT) can bear the same; until then the bytes are compared, as
//! git does with an index entry that is as young as the index itself.

pub mod watcher;

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::console::say;
use crate::error::is_about_descriptors;
use crate::language::either;
use crate::machine::is_loopback_host;
use crate::secrets;
use crate::settings::args::Args;
use crate::settings::backups::Backup;
use crate::settings::env_file;
use crate::settings::{Secret, Settings, Sources, Warning};
use crate::upstream::Upstream;

/// Debug mode is on while this file lies in the home folder.
pub const DEBUG_FILE: &str = "DEBUG_MODE.txt";

/// The coarsest clock of a file system (FAT: 2 s), with some margin.
const COARSE_STAMP: Duration = Duration::from_millis(2500);
/// One that has finer times than FAT and exFAT (10 ms) goes by the kernel's clock tick: 10 ms at most.
const FINE_STAMP: Duration = Duration::from_millis(100);
/// How long a file that was found missing or empty may be an editor in the middle of saving.
const EMPTY_GRACE: Duration = Duration::from_secs(2);
/// A file that looks half-written must have stayed the same for this long...
const SETTLED: Duration = Duration::from_millis(60);
/// ...or is taken as it is after this.
const SETTLING_LIMIT: Duration = Duration::from_millis(400);

/// What one request goes by, from its first byte to its last.
#[derive(Debug)]
pub struct Snapshot {
    /// The settings in force.
    pub settings: Settings,
    /// Connections to the upstream that those settings name.
    pub upstream: Arc<Upstream>,
    /// And to the backups, in their order.
    pub backups: Vec<Arc<Upstream>>,
    /// Debug mode is on: by its file, or by `DEBUG_MODE`.
    pub debug: bool,
    /// [`DEBUG_FILE`] is there.
    debug_file: bool,
    seen: ModelStats,
}

/// `.env` as it was when a snapshot was made of it.
#[derive(Debug, Default)]
struct ModelStats {
    stamp: Option<Stamp>,
    /// The bytes, for comparison while the stamp can't be believed. Never shown: the key is in it.
    bytes: Hidden,
    first_seen: Option<Instant>,
    /// The stamp is older than any file system's clock tick.
    believed: AtomicBool,
}

#[derive(Default, PartialEq, Clone)]
struct Hidden(Vec<u8>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Change time, inode and device on Unix; creation time elsewhere.
    identity: (i64, i64, u64, u64),
}

impl Stamp {
    /// Two writes within this time may bear the same stamp.
    fn granularity(&self) -> Duration {
        const EXFAT_NS: u32 = 10_000_000;
        let modified = self.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        match modified.is_some_and(|time| time.subsec_nanos() % EXFAT_NS != 0) {
            true => FINE_STAMP,
            false => COARSE_STAMP,
        }
    }

    fn of(file: &Metadata) -> Self {
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            (file.ctime(), file.ctime_nsec(), file.ino(), file.dev())
        };
        #[cfg(not(unix))]
        let identity = {
            let created = file.created().ok();
            let since = created.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
            (0, 0, since.map_or(0, |d| d.as_nanos() as u64), 0)
        };
        Self { len: file.len(), modified: file.modified().ok(), identity }
    }
}

/// The store.
#[derive(Debug)]
pub struct Live {
    home: PathBuf,
    /// `.env` and `DEBUG_MODE.txt` in it.
    env_file: PathBuf,
    debug_file: PathBuf,
    args: Args,
    current: RwLock<Arc<Snapshot>>,
    /// Held while `.env` is read again, so that it is read once however many requests notice.
    reload: Mutex<Reload>,
}

/// What is remembered from one reading to the next.
#[derive(Debug)]
struct Reload {
    /// What `.env` said last, settings that need a restart among them.
    wanted: Settings,
    /// The complaints about it, by what they are about.
    said: HashSet<u64>,
    /// Since when the file has been missing or empty after having had something in it.
    gone_since: Option<Instant>,
    hinted: [bool; 3],
}

impl Live {
    /// Reads the settings for the first time. The sentences are complaints about them.
    pub fn start(home: PathBuf, args: Args) -> Self {
        let (env_file, debug_file) = (home.join(env_file::NAME), home.join(DEBUG_FILE));
        let (bytes, stamp) = read_file(&env_file).unwrap_or_default();
        let mut said = HashSet::new();
        let settings = read_settings(&home, &args, &bytes, None, &mut said);
        let has_debug_file = debug_file.exists();
        let live = Self {
            current: RwLock::new(Arc::new(Snapshot {
                upstream: Arc::new(Upstream::new(&settings)),
                backups: to_backups(&settings),
                debug: settings.debug_mode || has_debug_file,
                debug_file: has_debug_file,
                settings: settings.clone(),
                seen: ModelStats::now(stamp, bytes),
            })),
            reload: Mutex::new(Reload { wanted: settings, said, gone_since: None, hinted: [false; 3] }),
            home,
            env_file,
            debug_file,
            args,
        };
        live.hint_at_misnamed_files(&mut live.lock_reload());
        live
    }

    /// The port in use, where `PORT` was 0: what is told to people goes by the settings.
    pub fn listens_on(&self, port: u16) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut settings = current.settings.clone();
        settings.listen.port = port;
        *current = Arc::new(Snapshot {
            settings,
            upstream: Arc::clone(&current.upstream),
            backups: current.backups.clone(),
            debug: current.debug,
            debug_file: current.debug_file,
            seen: current.seen.again(),
        });
    }

    /// The settings as they will be after a restart.
    pub fn after_restart(&self) -> Settings {
        self.lock_reload().wanted.clone()
    }

    /// The home folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The settings as the file has them now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let current = self.current();
        let has_debug_file = self.debug_file.exists();
        let same = current.debug_file == has_debug_file && current.seen.still_is(&self.env_file);
        if same {
            return current;
        }
        self.reload()
    }

    /// Reads what has changed; also what has changed by itself, such as the end of an empty file's grace.
    pub fn reload(&self) -> Arc<Snapshot> {
        let mut reload = self.lock_reload();
        self.hint_at_misnamed_files(&mut reload);
        let current = self.current();
        let debug_file = self.debug_file.exists();
        let mut settings = None;
        let mut seen = None;
        if !current.seen.still_is(&self.env_file) {
            let read = read_file(&self.env_file).and_then(|(bytes, stamp)| {
                match looks_half_written(&current.seen.bytes.0, &bytes) {
                    true => wait_until_settled(&self.env_file, bytes),
                    false => Some((bytes, stamp)),
                }
            });
            let Some((bytes, stamp)) = read else {
                return current;
            };
            if reload.is_in_the_middle_of_saving(&current.seen.bytes.0, &bytes) {
                if debug_file == current.debug_file {
                    return current;
                }
            } else {
                if bytes != current.seen.bytes.0 {
                    settings = Some(self.read_again(&mut reload, &current.settings, &bytes));
                }
                seen = Some(ModelStats::now(stamp, bytes));
            }
        } else {
            reload.gone_since = None;
        }
        if debug_file == current.debug_file && seen.is_none() {
            return current;
        }
        let settings = settings.unwrap_or_else(|| current.settings.clone());
        let debug = settings.debug_mode || debug_file;
        if debug != current.debug {
            let port = settings.listen.port;
            say(if debug {
                either(
                    format!("debug mode is on: http://localhost:{port}/debug"),
                    format!("调试模式已打开：http://localhost:{port}/debug"),
                )
            } else {
                either("debug mode is off".to_owned(), "调试模式已关闭".to_owned())
            });
        }
        let upstream = match Upstream::needs_new(&current.settings, &settings) {
            true => Arc::new(Upstream::new(&settings)),
            false => Arc::clone(&current.upstream),
        };
        let same_backups = settings.backups == current.settings.backups
            && Upstream::reaches_the_same_way(&current.settings, &settings);
        let backups = if same_backups { current.backups.clone() } else { to_backups(&settings) };
        let seen = seen.unwrap_or_else(|| current.seen.again());
        let snapshot = Arc::new(Snapshot { settings, upstream, backups, debug, debug_file, seen });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        snapshot
    }

    fn read_again(&self, reload: &mut Reload, in_force: &Settings, bytes: &[u8]) -> Settings {
        let mut settings = read_settings(&self.home, &self.args, bytes, Some(in_force), &mut reload.said);
        // The socket is open to others: taking the key away now would let everybody in.
        if settings.proxy_api_key.is_none()
            && in_force.proxy_api_key.is_some()
            && !is_loopback_host(&in_force.listen.host)
        {
            say(either(
                "PROXY_API_KEY stays: HOST lets other machines in, and they would need no key then",
                "PROXY_API_KEY 保持不变：HOST 允许其他机器访问，否则它们就不需要密钥了",
            ));
            settings.proxy_api_key.clone_from(&in_force.proxy_api_key);
        }
        for change in reload.wanted.changes(&settings) {
            let file = env_file::NAME;
            say(either(
                format_args!("{file} read again: {change}"),
                format_args!("已重新读取 {file}：{change}"),
            ));
        }
        reload.wanted = settings.clone();
        settings.listen = in_force.listen.clone();
        settings
    }

    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_reload(&self) -> MutexGuard<'_, Reload> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Windows hides `.txt`, so Notepad's `.env.txt` looks right in Explorer.
    fn hint_at_misnamed_files(&self, reload: &mut Reload) {
        let names = [(env_file::NAME, ".env.txt"), (DEBUG_FILE, "DEBUG_MODE.txt.txt")];
        let [hinted @ .., unreadable] = &mut reload.hinted;
        let file = &self.env_file;
        let trouble = match (file.is_dir(), fs::File::open(file)) {
            (true, _) => Some(either(
                "it is a folder. Rename it, and make a file of this name".to_owned(),
                "它是一个文件夹。请给它改名，再创建同名的文件".to_owned(),
            )),
            (false, Err(error)) if error.kind() != ErrorKind::NotFound && !is_about_descriptors(&error) => {
                Some(error.to_string())
            }
            _ => None,
        };
        if let (Some(trouble), false) = (&trouble, *unreadable) {
            let file = file.display();
            say(either(
                format_args!("{file} can't be read: {trouble}"),
                format_args!("无法读取 {file}：{trouble}"),
            ));
        }
        *unreadable = trouble.is_some();
        for ((right, wrong), hinted) in names.into_iter().zip(hinted) {
            // A key may have been saved in it, though there is a `.env`: Notepad has its own opinion of names.
            let lacks = right == env_file::NAME && reload.wanted.key.is_none() && !reload.wanted.test_mode;
            let mistaken = self.home.join(wrong).exists() && (lacks || !self.home.join(right).exists());
            if mistaken && !*hinted {
                say(either(
                    format_args!(
                        "found {wrong}: rename it to {right} (Windows may hide the .txt at its end)"
                    ),
                    format_args!("发现 {wrong}：请改名为 {right}（Windows 可能隐藏了末尾的 .txt）"),
                ));
            }
            *hinted = mistaken;
        }
    }
}

impl Reload {
    /// An editor may truncate or remove the file before it writes it: what was there stays in force for a while.
    fn is_in_the_middle_of_saving(&mut self, before: &[u8], now: &[u8]) -> bool {
        let half = is_cut_short(before, now) || has_lost_a_key(before, now);
        if is_blank(before) || !(is_blank(now) || half) {
            self.gone_since = None;
            return false;
        }
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        let waiting = since.elapsed() < EMPTY_GRACE;
        if !waiting {
            self.gone_since = None;
        }
        waiting
    }
}

impl ModelStats {
    fn now(stamp: Option<Stamp>, bytes: Vec<u8>) -> Self {
        Self {
            stamp,
            bytes: Hidden(bytes),
            first_seen: Some(Instant::now()),
            believed: AtomicBool::new(false),
        }
    }

    fn again(&self) -> Self {
        Self {
            stamp: self.stamp,
            bytes: self.bytes.clone(),
            first_seen: self.first_seen,
            believed: AtomicBool::new(self.believed.load(Ordering::Relaxed)),
        }
    }

    /// Whether the file is the one that was read.
    fn still_is(&self, path: &Path) -> bool {
        let stamp = fs::metadata(path).ok().map(|file| Stamp::of(&file));
        if stamp != self.stamp {
            return false;
        }
        let Some(granularity) = stamp.as_ref().map(Stamp::granularity) else {
            return true;
        };
        if self.believed.load(Ordering::Relaxed) {
            return true;
        }
        let old_enough = self.first_seen.is_some_and(|since| since.elapsed() > granularity);
        let Some((bytes, stamp_after)) = read_file(path) else {
            return true;
        };
        let same = bytes == self.bytes.0 && stamp_after == self.stamp;
        if same && old_enough {
            self.believed.store(true, Ordering::Relaxed);
        }
        same
    }
}

fn to_backups(settings: &Settings) -> Vec<Arc<Upstream>> {
    let to = |backup: &Backup| Arc::new(Upstream::at(settings, &backup.base_url, backup.key.as_ref()));
    settings.backups.iter().map(to).collect()
}

/// The file's bytes (none when it is missing or can't be read) and the stamp it had before they were read. `None` where
/// nothing can be said of it, because too many files are open.
fn read_file(path: &Path) -> Option<(Vec<u8>, Option<Stamp>)> {
    let stamp = fs::metadata(path).ok().map(|file| Stamp::of(&file));
    match fs::read(path) {
        Err(error) if is_about_descriptors(&error) => None,
        bytes => Some((bytes.unwrap_or_default(), stamp)),
    }
}

/// Reads them, and says what can't be used, but for what was said of the file before.
fn read_settings(
    home: &Path,
    args: &Args,
    bytes: &[u8],
    last_good: Option<&Settings>,
    said: &mut HashSet<u64>,
) -> Settings {
    let (file, bad) = env_file::parse(&env_file::decode(bytes));
    let before = std::mem::take(said);
    for line in bad {
        let text = line.to_string();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        if said.insert(hasher.finish()) && !before.contains(&hasher.finish()) {
            say(text);
        }
    }
    let environment = |name: &str| std::env::var(name).ok();
    let sources = Sources { file: &file, environment: &environment, args, home };
    let (settings, complaints) = Settings::read(&sources, last_good);
    for Warning { text, about } in complaints {
        let file = env_file::NAME;
        if said.insert(about) && !before.contains(&about) {
            say(either(format_args!("{file}: {text}"), format_args!("{file}：{text}")));
        }
    }
    let keys = [&settings.key, &settings.proxy_api_key].into_iter().flatten();
    let keys = keys.chain(settings.backups.iter().filter_map(|backup| backup.key.as_ref()));
    let proxies = [&settings.http_proxy, &settings.https_proxy, &settings.all_proxy].into_iter().flatten();
    let passwords = proxies.filter_map(|proxy| proxy.password());
    secrets::replace(keys.map(Secret::expose).chain(passwords));
    settings
}

fn is_blank(bytes: &[u8]) -> bool {
    env_file::decode(bytes).trim().is_empty()
}

/// Whether `now` is what `before` was, cut off within a line: nobody deletes half a key.
fn is_cut_short(before: &[u8], now: &[u8]) -> bool {
    now.len() < before.len()
        && before.starts_with(now)
        && !now.ends_with(b"\n")
        && before[now.len()] != b'\r'
        && before[now.len()] != b'\n'
}

/// Whether a key is gone, or is the beginning of what it was: a file caught in the middle of being written looks so,
/// however its text is encoded. A key that was replaced by another has been written to its end.
fn has_lost_a_key(before: &[u8], now: &[u8]) -> bool {
    let (before, _) = env_file::parse(&env_file::decode(before));
    let (now, _) = env_file::parse(&env_file::decode(now));
    ["OPENROUTER_API_KEY", "PROXY_API_KEY"].into_iter().any(|name| {
        let key = |settings: &[(String, String)]| {
            settings.iter().rfind(|(n, _)| n == name).map(|(_, key)| key.clone()).unwrap_or_default()
        };
        let (before, now) = (key(&before), key(&now));
        now.len() < before.len() && before.starts_with(&now)
    })
}

/// Whether a writer may still be at it: settings that were there are gone, or the last line has no end any more.
fn looks_half_written(before: &[u8], now: &[u8]) -> bool {
    if is_blank(now) || is_blank(before) {
        return false; // the grace of an empty file, or nothing to compare with
    }
    let unended = |bytes: &[u8]| !bytes.ends_with(b"\n") && !bytes.ends_with(b"\n\0");
    let names = |bytes: &[u8]| {
        let (settings, _) = env_file::parse(&env_file::decode(bytes));
        settings.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let kept = names(now);
    unended(now) && !unended(before) || names(before).iter().any(|name| !kept.contains(name))
}

fn wait_until_settled(path: &Path, mut bytes: Vec<u8>) -> Option<(Vec<u8>, Option<Stamp>)> {
    let start = Instant::now();
    let mut unchanged_since = start;
    loop {
        thread::sleep(Duration::from_millis(5));
        let (now, stamp) = read_file(path)?;
        if now != bytes {
            bytes = now;
            unchanged_since = Instant::now();
        }
        if unchanged_since.elapsed() >= SETTLED || start.elapsed() >= SETTLING_LIMIT {
            return Some((bytes, stamp));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_written_files_are_recognized() {
        let before = b"OPENROUTER_API_KEY=sk-or-v1-abc\nMODEL=a/b:free\n";
        assert!(is_cut_short(before, b"OPENROUTER_API_KEY=sk-o"));
        assert!(!is_cut_short(before, b"OPENROUTER_API_KEY=sk-or-v1-abc\n"), "a line was removed");
        assert!(!is_cut_short(before, b"OPENROUTER_API_KEY=sk-or-v1-abc"), "so it was here");
        assert!(!is_cut_short(before, b"OPENROUTER_API_KEY=other"));
        assert!(has_lost_a_key(before, b"MODEL=a/b:free\nOPENROUTER_API_KEY=sk-or-v1-a"));
        assert!(has_lost_a_key(before, b"MODEL=a/b:free\n"), "it may come yet");
        assert!(!has_lost_a_key(before, b"OPENROUTER_API_KEY=sk-or-v1-xyz"));
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let text = utf16("MODEL=\u{6a21}\u{578b}\r\nOPENROUTER_API_KEY=sk-or-v1-abc\r\n");
        let whole = [vec![0xFF, 0xFE], text].concat();
        for len in 1..whole.len() - 5 {
            assert!(has_lost_a_key(&whole, &whole[..len]), "its first {len} bytes");
        }
        assert!(looks_half_written(before, b"OPENROUTER_API_KEY=sk-or-v1-xyz\n"));
        assert!(looks_half_written(before, b"OPENROUTER_API_KEY=k\nMODEL=a"));
        assert!(!looks_half_written(before, b"MODEL=c/d:free\nOPENROUTER_API_KEY=k\n"));
    }
}
