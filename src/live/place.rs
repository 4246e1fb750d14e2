//! Where the home folder is: on a share each access may take forever, and no file events come.

use std::path::Path;

/// The file systems of this machine's own disks, USB sticks and memory.
#[cfg(target_os = "linux")]
const LOCAL: [&str; 18] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "reiserfs", "tmpfs", "ramfs",
    "overlay", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk",
];

/// Returns whether a folder is on one of this machine's own file systems; `None` if that is unknown, as on all but
/// Linux.
pub fn is_local(folder: &Path) -> Option<bool> {
    #[cfg(target_os = "linux")]
    {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        kind_of(&mounts, &folder.canonicalize().ok()?).map(|kind| LOCAL.contains(&kind))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        None
    }
}

/// Returns the type of a folder's file system, by
/// [proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
#[cfg(target_os = "linux")]
fn kind_of<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        // Spaces in it are written as \040.
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        let kind = source.split(' ').next()?;
        folder.starts_with(&point).then_some((point.len(), kind))
    });
    // Of several mounts at one point the last one counts, because it covers those before it.
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn shares_are_recognized() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      40 22 0:35 / /mnt/my\\040share rw,relatime shared:20 - cifs //server/share rw\n\
                      41 22 0:36 / /home rw - nfs4 server:/home rw\n";
        let kind = |folder: &str| kind_of(mounts, Path::new(folder));
        assert_eq!(kind("/opt/proxy"), Some("ext4"));
        assert_eq!(kind("/mnt/my share/proxy"), Some("cifs"));
        assert_eq!(kind("/home"), Some("nfs4"));
        assert_eq!(kind("/homes"), Some("ext4"));
        assert!(is_local(Path::new("/proc")).is_some_and(|local| !local));
    }
}
