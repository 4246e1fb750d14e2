//! Files that block their readers: named pipes (1Password's local `.env` is one) and devices. A thread of its own reads
//! each of them, once, because every opening may ask the user for permission.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use crate::console::say;
use crate::language::either;
use crate::sync::lock;

/// More than this isn't read: no file of settings or certificates is nearly as long.
pub const MAX_BYTES: u64 = 4 << 20;

/// The contents of a file.
#[derive(Debug)]
pub enum Contents {
    /// The file's bytes, or the first [`MAX_BYTES`] of them.
    Bytes(Vec<u8>),
    /// Nothing has been written to the pipe yet.
    NotYet,
}

/// Distinguishes pipes that have been at the same path: device, inode, and time of creation.
pub type Identity = (u64, u64, Option<SystemTime>);

struct Pipe {
    path: PathBuf,
    identity: Identity,
    /// `None` while the pipe is being read.
    bytes: Option<Vec<u8>>,
}

static PIPES: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
static COMPLETED: AtomicU64 = AtomicU64::new(0);

/// Returns how many pipes have been read to their end: if it has grown, there is something new.
pub fn completed() -> u64 {
    COMPLETED.load(Ordering::Acquire)
}

/// Returns the identity of a pipe. Its other times change with each use.
pub fn identity(file: &Metadata) -> Identity {
    #[cfg(unix)]
    let (device, number) = {
        use std::os::unix::fs::MetadataExt;
        (file.dev(), file.ino())
    };
    #[cfg(not(unix))]
    let (device, number) = (0, 0);
    (device, number, file.created().ok())
}

/// Reads a file; doesn't wait for anybody to write to a pipe.
pub fn read(path: &Path) -> io::Result<Contents> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() || metadata.is_dir() {
        return read_to_limit(path).map(Contents::Bytes);
    }
    let identity = identity(&metadata);
    let mut pipes = lock(&PIPES);
    if let Some(pipe) = pipes.iter().find(|pipe| pipe.path == path && pipe.identity == identity) {
        return Ok(pipe.bytes.clone().map_or(Contents::NotYet, Contents::Bytes));
    }
    pipes.retain(|pipe| pipe.path != path);
    pipes.push(Pipe { path: path.to_owned(), identity, bytes: None });
    drop(pipes);
    let shown = path.display();
    say(either(
        format_args!("{shown} is a pipe: it is read once, when something is written to it"),
        format_args!("{shown} 是一个管道：有内容写入时读取一次"),
    ));
    let path = path.to_owned();
    thread::Builder::new().name("pipe".into()).spawn(move || read_pipe(&path, identity))?;
    Ok(Contents::NotYet)
}

fn read_pipe(path: &Path, identity: Identity) {
    let read = read_to_limit(path);
    if let Err(error) = &read {
        let shown = path.display();
        say(either(
            format_args!("{shown} can't be read: {error}"),
            format_args!("无法读取 {shown}：{error}"),
        ));
    }
    let mut pipes = lock(&PIPES);
    if let Some(pipe) = pipes.iter_mut().find(|pipe| pipe.path == path && pipe.identity == identity) {
        pipe.bytes = Some(read.unwrap_or_default());
        COMPLETED.fetch_add(1, Ordering::Release);
    }
}

fn read_to_limit(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        bytes.truncate(MAX_BYTES as usize);
        let (shown, limit) = (path.display(), MAX_BYTES >> 20);
        say(either(
            format_args!("{shown} is longer than {limit} MB: the rest isn't read"),
            format_args!("{shown} 超过 {limit} MB：其余部分不读取"),
        ));
    }
    Ok(bytes)
}
