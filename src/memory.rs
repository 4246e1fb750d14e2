//! How the C library's allocator is to go about it: hundreds of threads, and now and then a large block.

/// glibc's settings ([mallopt(3)](https://man7.org/linux/man-pages/man3/mallopt.3.html)), by the names they have in the
/// environment.
///
/// - From what size on a block is given back as soon as it is free. Unless it is set, glibc raises it to the largest
///   block freed so far, up to 32 MB: a few requests with images, and that much is kept for good (65 MB instead of 18
///   after 5,000 malformed requests).
/// - How many arenas there are (by default eight for each core), and by how much each is larger than needed when it
///   begins. They grow page by page with `mprotect`, for which all threads stop: a sixth of what it cost to begin 500
///   streams. One alone is too few: threads would wait for it, at twice the cost of a request.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_ARENA_MAX", "4"), ("MALLOC_TOP_PAD_", "1048576")];

/// Settles the allocator.
///
/// Without `unsafe` that can only be done from outside, so the program takes its own place once, under the same process
/// id. Whoever sets one of them, or `GLIBC_TUNABLES`, is right.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;
        let is_set = |name: &str| std::env::var_os(name).is_some();
        if is_set("GLIBC_TUNABLES") || SETTINGS.iter().any(|(name, _)| is_set(name)) {
            return;
        }
        let mut args = std::env::args_os();
        if let (Ok(executable), Some(name)) = (std::env::current_exe(), args.next()) {
            // Comes back only where it can't be done, and then nothing is lost but memory and speed.
            let _ = std::process::Command::new(executable).arg0(name).args(args).envs(SETTINGS).exec();
        }
    }
}
