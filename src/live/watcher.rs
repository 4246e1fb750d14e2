//! The thread that notices saved settings when no request does, so that the console can say so.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use crate::live::{DEBUG_FILE, Live, place};
use crate::settings::env_file;

/// How often the files are checked where the file system sends no events (network shares, some USB sticks), or where a
/// missing file may still be saved.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How often the files are checked where the file system sends events.
const RARE_INTERVAL: Duration = Duration::from_secs(60);
/// How long the check waits after an event: editors save in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// Starts the thread, and on a share the one that checks the files for all.
pub fn start(live: Arc<Live>) -> io::Result<()> {
    let is_local = place::is_local(live.home());
    // Each access to a share may take forever, so one thread does it for all.
    if is_local == Some(false) {
        let live = Arc::clone(&live);
        thread::Builder::new().name("file-checker".into()).spawn(move || live.look_for_all())?;
    }
    thread::Builder::new().name("watcher".into()).spawn(move || {
        // Kept for as long as the thread lives. Without it (no more inotify watches, say), polling does.
        let changed = Arc::new(AtomicBool::new(false));
        let watcher = watch(live.home(), Arc::clone(&changed), thread::current());
        let interval = if is_local == Some(true) && watcher.is_ok() { RARE_INTERVAL } else { POLL_INTERVAL };
        follow(&live, &changed, interval);
    })?;
    Ok(())
}

/// Watches the folder, not the files, because editors replace files. Only the two names count, or the files that debug
/// mode saves beside them would wake this thread each time.
fn watch(
    home: &Path,
    changed: Arc<AtomicBool>,
    thread: Thread,
) -> notify::Result<notify::RecommendedWatcher> {
    let ours = |path: &Path| path.file_name().is_some_and(is_ours);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = match &event {
            Ok(event) => !event.kind.is_access() && event.paths.iter().any(|path| ours(path)),
            Err(_) => false,
        };
        if relevant {
            changed.store(true, Ordering::SeqCst);
            thread.unpark();
        }
    })?;
    let folder = if home.as_os_str().is_empty() { Path::new(".") } else { home };
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn is_ours(name: &OsStr) -> bool {
    name == env_file::NAME || name == DEBUG_FILE
}

/// Checks the files after events and at intervals. The thread is parked in between: a channel's receiver yields its
/// time two dozen times before it sleeps.
fn follow(live: &Live, changed: &AtomicBool, interval: Duration) {
    loop {
        let interval = if live.is_unsettled() { POLL_INTERVAL } else { interval };
        thread::park_timeout(interval);
        if changed.load(Ordering::SeqCst) {
            thread::sleep(QUIET);
            changed.store(false, Ordering::SeqCst);
        }
        live.reload();
    }
}
