//! Tunes the C library's allocator for hundreds of threads, and now and then a large block or a large tree.

use std::panic;
use std::thread;

/// The size of the stack of a thread for [`apart`].
const STACK_BYTES: usize = 512 * 1024;

/// Trees of texts from this length on are made apart.
const LARGE_BYTES: usize = 64 * 1024;

/// Does work that makes a tree of a text of this length, which takes much memory in small blocks for a moment, and
/// returns when it is done.
///
/// It is done in a thread of its own. A thread of glibc's keeps some of the blocks that it has freed, and while one of
/// them is at the end of its heap, nothing of that heap is given back to the system: 110 MB after a tree of 120,000
/// objects. When a thread ends, it keeps none.
pub fn apart<R: Send>(bytes: usize, mut work: impl FnMut() -> R + Send) -> R {
    if bytes >= LARGE_BYTES {
        let done = thread::scope(|scope| {
            let apart = thread::Builder::new().name("apart".into()).stack_size(STACK_BYTES);
            let thread = apart.spawn_scoped(scope, &mut work).ok()?;
            Some(thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)))
        });
        if let Some(done) = done {
            return done;
        }
    }
    work() // here, also if the system gives no more threads
}

/// glibc's settings ([Tunables](https://www.gnu.org/software/libc/manual/html_node/Tunables.html)).
///
/// - From which size on a block is given back to the system as soon as it is free. Unless this is set, glibc raises it
///   to the largest block freed so far, up to 32 MB: after a few requests with images, that much is kept for good (65
///   MB instead of 18 after 5,000 malformed requests).
/// - How many arenas there are (by default eight for each core), and by how much more than needed each of them grows.
///   Arenas grow page by page with `mprotect`, for which all threads stop: a sixth of the cost of beginning 500
///   streams. Growing by more than this saves nothing, and the memory stays with the program after each burst. One
///   arena alone is too few: threads would wait for it, at twice the cost of a request.
/// - Which freed blocks threads keep for themselves (worth a tenth of the cost of a request): small ones only, because
///   what hundreds of threads keep can't be put to other uses. All others are joined with their neighbours at once
///   (`mxfast`), or what a tree took would stay in pieces.
/// - That stacks of threads that have ended are given back, and that the C library's own data for each thread is as
///   small as it can be: with a page less for each of 500 streams, 2 MB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str = concat!(
    "glibc.malloc.mmap_threshold=262144:glibc.malloc.arena_max=4:glibc.malloc.top_pad=131072:",
    "glibc.malloc.tcache_count=7:glibc.malloc.tcache_max=512:glibc.malloc.mxfast=0:",
    "glibc.pthread.stack_cache_size=0:glibc.rtld.nns=1:glibc.rtld.optional_static_tls=0"
);

/// Applies these settings.
///
/// Without `unsafe` that can only be done from outside, so the program replaces itself once, under the same process id.
/// If the user sets `GLIBC_TUNABLES`, that counts.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;
        const NAME: &str = "GLIBC_TUNABLES";
        let mut args = std::env::args_os();
        if let (None, Ok(executable), Some(name)) =
            (std::env::var_os(NAME), std::env::current_exe(), args.next())
        {
            // Returns only if that failed, and then only memory and speed are lost.
            let _ = std::process::Command::new(executable).arg0(name).args(args).env(NAME, TUNABLES).exec();
        }
    }
}
