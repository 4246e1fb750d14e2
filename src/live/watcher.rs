//! The thread that notices saved settings when no request comes to notice them, so that the console can say so.

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

/// How often the files are looked at where the file system sends no events (network shares, some USB sticks), or one that was
/// found missing may be saved yet.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The same where it does.
const RARE_INTERVAL: Duration = Duration::from_secs(60);
/// Editors save in several steps; what they have done is looked at when they have done it.
const QUIET: Duration = Duration::from_millis(50);

/// Starts the thread.
pub fn start(live: Arc<Live>) -> io::Result<()> {
    let is_local = place::is_local(live.home());
    // Each look at a share may take for ever: one thread takes that upon itself.
    if is_local == Some(false) {
        let live = Arc::clone(&live);
        thread::Builder::new().name("looker".into()).spawn(move || live.look_for_all())?;
    }
    thread::Builder::new().name("watcher".into()).spawn(move || {
        // Kept for as long as the thread lives; without it (no more inotify watches, say) polling does.
        let changed = Arc::new(AtomicBool::new(false));
        let watcher = watch(live.home(), Arc::clone(&changed), thread::current());
        let interval = if is_local == Some(true) && watcher.is_ok() { RARE_INTERVAL } else { POLL_INTERVAL };
        follow(&live, &changed, interval);
    })?;
    Ok(())
}

/// Watches the folder, not the files: editors replace files. Only the two names count, or the files that debug mode
/// saves beside them would wake this thread each time.
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

/// Parked between the looks: a channel's receiver yields its time two dozen times before it sleeps.
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
