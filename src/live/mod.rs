//! The settings as they are at this very moment: each request asks [`Live`], which makes sure that what it returns is
//! what the file says now, whether or not the system reports file events.
//!
//! Two `stat`s a request decide: while `.env` has the stamp (times, size, identity) that it had when it was read,
//! nothing has changed. Two writes within one tick of the file system's clock (2 s on FAT) can have the same stamp, so
//! a stamp is trusted only once it has been seen for that long; until then the bytes are compared, as git does with an
//! index entry that is as young as the index itself.

mod file_checker;
mod file_state;
mod half_written;
mod place;
pub mod watcher;

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::say;
use crate::error::is_about_descriptors;
use crate::language::either;
use crate::machine::is_loopback_host;
use crate::pipes;
use crate::secrets;
use crate::settings::args::Args;
use crate::settings::backups::Backup;
use crate::settings::env_file::{self, Parsed};
use crate::settings::{Secret, Settings, Sources, Warning};
use crate::sync::{lock, unpoisoned};
use crate::upstream::Upstream;
use file_checker::FileChecker;
use file_state::{FileState, Stamp, read_file};
use half_written::{has_lost_a_key, is_blank, is_cut_short, looks_half_written};

/// Debug mode is on while this file lies in the home folder.
pub const DEBUG_FILE: &str = "DEBUG_MODE.txt";

/// How long the first read waits for a pipe that somebody is to write to.
const PIPE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a missing or empty file is taken for an editor in the middle of saving.
const EMPTY_GRACE: Duration = Duration::from_secs(2);
/// How long a file that looks half-written must stay the same before it is used.
const SETTLED: Duration = Duration::from_millis(60);
/// How long a file that looks half-written is waited for; then it is used as it is.
const SETTLING_LIMIT: Duration = Duration::from_millis(400);

/// The settings that one request follows, from its first byte to its last.
#[derive(Debug)]
pub struct Snapshot {
    /// The settings in force.
    pub settings: Settings,
    /// The connections to the upstream that these settings name.
    pub upstream: Arc<Upstream>,
    /// The connections to the backups, in the order of the settings.
    pub backups: Vec<Arc<Upstream>>,
    /// Whether debug mode is on: by its file, or by `DEBUG_MODE`.
    pub debug: bool,
    /// Whether [`DEBUG_FILE`] exists.
    debug_file: bool,
    seen: FileState,
    /// The number of pipes that had been read by then.
    pipes: u64,
}

/// The store of the current settings.
#[derive(Debug)]
pub struct Live {
    home: PathBuf,
    /// The paths of `.env` and `DEBUG_MODE.txt` in the home folder.
    env_file: PathBuf,
    debug_file: PathBuf,
    args: Args,
    current: RwLock<Arc<Snapshot>>,
    /// Held while `.env` is read again, so that it is read once however many requests notice the change.
    reload: Mutex<Reload>,
    /// Checks the files for all threads, where the files may not respond.
    file_checker: OnceLock<FileChecker>,
}

/// What is remembered from one reading to the next.
#[derive(Debug)]
struct Reload {
    /// What `.env` said last, including settings that need a restart.
    wanted: Settings,
    /// The complaints about it that were printed, as hashes of their subjects.
    said: HashSet<u64>,
    /// Since when the file has been missing, empty or half-written after having been complete, and its stamp then:
    /// another stamp means that saving has begun again.
    gone_since: Option<(Instant, Option<Stamp>)>,
    hinted: [bool; 3],
}

impl Live {
    /// Reads the settings for the first time, and prints the complaints about them.
    pub fn start(home: PathBuf, args: Args) -> Self {
        let (env_file, debug_file) = (home.join(env_file::NAME), home.join(DEBUG_FILE));
        let pipes = pipes::completed();
        let (bytes, stamp) = read_first(&env_file);
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
                seen: FileState::now(stamp, bytes),
                pipes,
            })),
            reload: Mutex::new(Reload { wanted: settings, said, gone_since: None, hinted: [false; 3] }),
            file_checker: OnceLock::new(),
            home,
            env_file,
            debug_file,
            args,
        };
        live.hint_at_misnamed_files(&mut lock(&live.reload));
        live
    }

    /// Sets the port in use, where `PORT` was 0: messages take the port from the settings.
    pub fn listens_on(&self, port: u16) {
        let mut current = unpoisoned(self.current.write());
        let mut settings = current.settings.clone();
        settings.listen.port = port;
        *current = Arc::new(Snapshot {
            settings,
            upstream: Arc::clone(&current.upstream),
            backups: current.backups.clone(),
            debug: current.debug,
            debug_file: current.debug_file,
            seen: current.seen.again(),
            pipes: current.pipes,
        });
    }

    /// Returns the settings as they will be after a restart.
    pub fn after_restart(&self) -> Settings {
        lock(&self.reload).wanted.clone()
    }

    /// Returns the home folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the settings as the file has them now, or the last ones if the file doesn't respond.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        match self.file_checker.get() {
            Some(file_checker) => {
                file_checker.ask();
                self.latest()
            }
            None => self.look(),
        }
    }

    /// Returns the last settings, without a check of the file.
    pub fn latest(&self) -> Arc<Snapshot> {
        unpoisoned(self.current.read()).clone()
    }

    /// Checks the files for all threads from now on.
    fn look_for_all(&self) -> ! {
        let file_checker = self.file_checker.get_or_init(FileChecker::default);
        file_checker.serve(|| drop(self.look()))
    }

    fn look(&self) -> Arc<Snapshot> {
        let current = self.latest();
        let same = current.debug_file == self.debug_file.exists()
            && current.pipes == pipes::completed()
            && current.seen.still_is(&self.env_file);
        if same { current } else { self.reload() }
    }

    /// Reads what has changed, including what changes by itself, such as the end of an empty file's grace period.
    pub fn reload(&self) -> Arc<Snapshot> {
        let mut reload = lock(&self.reload);
        self.hint_at_misnamed_files(&mut reload);
        let current = self.latest();
        let debug_file = self.debug_file.exists();
        let pipes = pipes::completed();
        // A pipe that is named in the settings may have been read meanwhile.
        let mut settings = (pipes != current.pipes)
            .then(|| self.read_again(&mut reload, &current.settings, current.seen.bytes()));
        let mut seen = None;
        if current.seen.still_is(&self.env_file) {
            reload.gone_since = None;
        } else {
            let read = read_file(&self.env_file).and_then(|(bytes, stamp)| {
                if looks_half_written(current.seen.bytes(), &bytes) {
                    wait_until_settled(&self.env_file, bytes)
                } else {
                    Some((bytes, stamp))
                }
            });
            let is_whole = read.filter(|(bytes, stamp)| {
                !reload.is_in_the_middle_of_saving(current.seen.bytes(), bytes, *stamp)
            });
            if let Some((bytes, stamp)) = is_whole {
                if bytes != current.seen.bytes() {
                    settings = Some(self.read_again(&mut reload, &current.settings, &bytes));
                }
                seen = Some(FileState::now(stamp, bytes));
            }
        }
        if debug_file == current.debug_file && settings.is_none() && seen.is_none() {
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
        let upstream = if Upstream::needs_new(&current.settings, &settings) {
            Arc::new(Upstream::new(&settings))
        } else {
            Arc::clone(&current.upstream)
        };
        let same_backups = settings.backups == current.settings.backups
            && Upstream::reaches_the_same_way(&current.settings, &settings);
        let backups = if same_backups { current.backups.clone() } else { to_backups(&settings) };
        let seen = seen.unwrap_or_else(|| current.seen.again());
        let snapshot = Arc::new(Snapshot { settings, upstream, backups, debug, debug_file, seen, pipes });
        *unpoisoned(self.current.write()) = Arc::clone(&snapshot);
        snapshot
    }

    /// Returns whether the files must be checked again soon, though nothing changes: a missing file may still be saved.
    fn is_unsettled(&self) -> bool {
        lock(&self.reload).gone_since.is_some() || !self.latest().seen.still_is(&self.env_file)
    }

    fn read_again(&self, reload: &mut Reload, in_force: &Settings, bytes: &[u8]) -> Settings {
        let mut settings = read_settings(&self.home, &self.args, bytes, Some(in_force), &mut reload.said);
        // The socket is open to other machines: removing the key now would let everybody in.
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

    /// Warns about misnamed or unreadable files. Windows hides `.txt`, so Notepad's `.env.txt` looks right in Explorer.
    fn hint_at_misnamed_files(&self, reload: &mut Reload) {
        let names = [(env_file::NAME, ".env.txt"), (DEBUG_FILE, "DEBUG_MODE.txt.txt")];
        let [hinted @ .., unreadable] = &mut reload.hinted;
        let file = &self.env_file;
        let trouble = match fs::metadata(file) {
            Ok(file) if file.is_dir() => Some(either(
                "it is a folder. Rename it, and make a file of this name".to_owned(),
                "它是一个文件夹。请给它改名，再创建同名的文件".to_owned(),
            )),
            // A pipe is opened only once, to be read.
            Ok(meta) if !meta.is_file() => None,
            _ => fs::File::open(file)
                .err()
                .filter(|error| error.kind() != ErrorKind::NotFound && !is_about_descriptors(error))
                .map(|error| error.to_string()),
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
            // A key may have been saved in the wrong file although there is a `.env`: Notepad may change the name.
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
    /// Returns whether an editor may be in the middle of saving: it may truncate or remove the file before it writes
    /// it. What was there then stays in force for a while.
    fn is_in_the_middle_of_saving(&mut self, before: &[u8], now: &[u8], stamp: Option<Stamp>) -> bool {
        let half = is_cut_short(before, now) || has_lost_a_key(before, now);
        if is_blank(before) || !(is_blank(now) || half) {
            self.gone_since = None;
            return false;
        }
        let (since, _) = *match &mut self.gone_since {
            Some(gone) if gone.1 == stamp => gone,
            gone => gone.insert((Instant::now(), stamp)),
        };
        let waiting = since.elapsed() < EMPTY_GRACE;
        if !waiting {
            self.gone_since = None;
        }
        waiting
    }
}

/// Reads the file at the start. Waits for a pipe that somebody is about to write to, but not forever.
fn read_first(env_file: &Path) -> (Vec<u8>, Option<Stamp>) {
    let began = Instant::now();
    loop {
        match read_file(env_file) {
            None if began.elapsed() < PIPE_PATIENCE => thread::sleep(Duration::from_millis(5)),
            read => return read.unwrap_or_default(),
        }
    }
}

fn to_backups(settings: &Settings) -> Vec<Arc<Upstream>> {
    let to = |backup: &Backup| Arc::new(Upstream::at(settings, &backup.base_url, backup.key.as_ref()));
    settings.backups.iter().map(to).collect()
}

/// Reads the settings, and prints what can't be used, unless it was printed when the file was last read.
fn read_settings(
    home: &Path,
    args: &Args,
    bytes: &[u8],
    last_good: Option<&Settings>,
    said: &mut HashSet<u64>,
) -> Settings {
    let Parsed { settings: file, bad, further_bad } = env_file::parse(&env_file::decode(bytes));
    let before = std::mem::take(said);
    let mut lines = bad.iter().map(ToString::to_string).collect::<Vec<_>>();
    if further_bad > 0 {
        lines.push(either(
            format!("{}: {further_bad} further lines can't be understood and are skipped", env_file::NAME),
            format!("{}：另有 {further_bad} 行无法识别，已跳过", env_file::NAME),
        ));
    }
    for text in lines {
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
