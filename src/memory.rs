//! Memory that was needed for a moment goes back to the system.

/// Has the allocator give each large block back as soon as it is free.
///
/// glibc raises the size from which it does so to that of the largest block freed so far, up to 32 MB
/// ([mallopt(3)](https://man7.org/linux/man-pages/man3/mallopt.3.html), `M_MMAP_THRESHOLD`): a few requests with images,
/// and each of its arenas keeps that much for good (65 MB instead of 18 after 5,000 malformed requests). A fixed size
/// stays fixed, but without `unsafe` it can only be set from outside, so the program takes its own place once, under the
/// same process id.
pub fn give_large_blocks_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::os::unix::process::CommandExt;
        const THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";
        const BYTES: &str = "262144";
        let set = std::env::var_os(THRESHOLD).is_some() || std::env::var_os("GLIBC_TUNABLES").is_some();
        let mut args = std::env::args_os();
        if let (false, Ok(executable), Some(name)) = (set, std::env::current_exe(), args.next()) {
            // Comes back only where it can't be done, and then nothing is lost but memory.
            let _ = std::process::Command::new(executable).arg0(name).args(args).env(THRESHOLD, BYTES).exec();
        }
    }
}
