//! How the C library's allocator is to go about it: hundreds of threads, and now and then a large block.

/// glibc's settings ([Tunables](https://www.gnu.org/software/libc/manual/html_node/Tunables.html)).
///
/// - From what size on a block is given back as soon as it is free. Unless it is set, glibc raises it to the largest
///   block freed so far, up to 32 MB: a few requests with images, and that much is kept for good (65 MB instead of 18
///   after 5,000 malformed requests).
/// - How many arenas there are (by default eight for each core), and by how much each is larger than needed when it
///   grows. They grow page by page with `mprotect`, for which all threads stop: a sixth of what it cost to begin 500
///   streams. More than this much saves nothing, and stays with the program after each burst. One arena alone is too
///   few: threads would wait for it, at twice the cost of a request.
/// - Threads keep freed blocks for themselves (a tenth of what a request costs), but small ones only: what hundreds of
///   them keep can't be put to other uses.
/// - Stacks of threads that have ended are given back, and what each has of the C library's own is as little as it can be:
///   with a page less for each of 500 streams, 2 MB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TUNABLES: &str = concat!(
    "glibc.malloc.mmap_threshold=262144:glibc.malloc.arena_max=4:glibc.malloc.top_pad=131072:",
    "glibc.malloc.tcache_count=7:glibc.malloc.tcache_max=512:",
    "glibc.pthread.stack_cache_size=0:glibc.rtld.nns=1:glibc.rtld.optional_static_tls=0"
);

/// Settles the allocator.
///
/// Without `unsafe` that can only be done from outside, so the program takes its own place once, under the same process
/// id. Whoever sets `GLIBC_TUNABLES` is right.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;
        const NAME: &str = "GLIBC_TUNABLES";
        let mut args = std::env::args_os();
        if let (None, Ok(executable), Some(name)) =
            (std::env::var_os(NAME), std::env::current_exe(), args.next())
        {
            // Comes back only where it can't be done, and then nothing is lost but memory and speed.
            let _ = std::process::Command::new(executable).arg0(name).args(args).env(NAME, TUNABLES).exec();
        }
    }
}
