//! What the program says: one thread prints whole lines, so that a console that is paused (a click into a
//! Windows console selects text and stops every write), slow or closed never holds a request up.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::language::either;
use crate::secrets;

/// Lines that may wait for a paused console; later ones are counted and left out.
const QUEUED_LINES: usize = 4096;

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(5);

enum Message {
    /// With the time before it, if there is one.
    Line(Option<SystemTime>, String),
    /// Answered once everything before it is printed.
    Flush(Sender<()>),
}

/// Where lines go.
enum Out {
    Terminal,
    /// They wait until it is known.
    Held(Vec<u8>),
    File(File),
    Nowhere,
}

static OUT: Mutex<Out> = Mutex::new(Out::Terminal);
static PRINTER: OnceLock<Sender<Message>> = OnceLock::new();
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

fn printer() -> &'static Sender<Message> {
    PRINTER.get_or_init(|| {
        let (lines, receiver) = bounded(QUEUED_LINES);
        // Without the thread (no more threads to be had) lines are lost, requests aren't.
        let _ = thread::Builder::new().name("console".into()).spawn(move || print(receiver));
        lines
    })
}

fn print(lines: Receiver<Message>) {
    let mut text = String::new();
    while let Ok(first) = lines.recv() {
        let mut flushed = Vec::new();
        for message in std::iter::once(first).chain(lines.try_iter().take(QUEUED_LINES)) {
            match message {
                Message::Line(time, line) => {
                    if let Some(time) = time {
                        let _ = write!(text, "{}  ", DateTime::<Local>::from(time).format("%H:%M:%S"));
                    }
                    text.push_str(&secrets::hidden(&line));
                    text.push('\n');
                }
                Message::Flush(done) => flushed.push(done),
            }
        }
        let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            text.push_str(&either(
                format!("({left_out} lines left out: the console was busy)\n"),
                format!("（控制台忙，省略了 {left_out} 行）\n"),
            ));
        }
        write(text.as_bytes());
        text.clear();
        for done in flushed {
            let _ = done.send(());
        }
        // What is said meanwhile is printed together: many short writes cost more than the calls that they tell of.
        thread::sleep(PAUSE);
    }
}

fn write(text: &[u8]) {
    // `println!` would panic on a closed pipe; here the line is simply nobody's.
    let _ = match &mut *OUT.lock().unwrap_or_else(PoisonError::into_inner) {
        Out::Terminal => {
            let mut out = std::io::stdout().lock();
            out.write_all(text).and_then(|()| out.flush())
        }
        Out::Held(held) => held.write_all(text),
        Out::File(file) => file.write_all(text),
        Out::Nowhere => Ok(()),
    };
}

/// The terminal is somebody else's from now on: lines wait for [`release`].
pub fn hold() {
    *OUT.lock().unwrap_or_else(PoisonError::into_inner) = Out::Held(Vec::new());
}

/// What was held, and all that follows, is shown again.
pub fn show() {
    let before = std::mem::replace(&mut *OUT.lock().unwrap_or_else(PoisonError::into_inner), Out::Terminal);
    if let Out::Held(held) = before {
        write(&held);
    }
}

/// Lines that were held, and all that follow, go to this file, or nowhere.
pub fn release(file: Option<File>) {
    let out = file.map_or(Out::Nowhere, Out::File);
    let before = std::mem::replace(&mut *OUT.lock().unwrap_or_else(PoisonError::into_inner), out);
    if let Out::Held(held) = before {
        write(&held);
    }
}

/// Prints one line as it is.
pub fn print_line(line: String) {
    send(Message::Line(None, line));
}

/// Prints one line with the local time before it. (Finding out what that is takes a while, at every thread's first time:
/// the printing thread does it.)
pub fn say(text: impl fmt::Display) {
    send(Message::Line(Some(SystemTime::now()), text.to_string()));
}

fn send(line: Message) {
    if let Err(TrySendError::Full(_)) = printer().try_send(line) {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Names the console's window, where that is understood: elsewhere it would be rubbish on the screen.
pub fn set_title(title: &str) {
    #[cfg(windows)]
    if winapi_util::console::Console::stdout()
        .is_ok_and(|mut console| console.set_virtual_terminal_processing(true).is_ok())
    {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\x1b]0;{title}\x07").and_then(|()| out.flush());
    }
    #[cfg(not(windows))]
    let _ = title; // a terminal's title is its shell's
}

/// Waits until everything said so far is printed, at most a second.
pub fn flush() {
    let (done, printed) = bounded(1);
    if printer().send_timeout(Message::Flush(done), Duration::from_secs(1)).is_ok() {
        let _ = printed.recv_timeout(Duration::from_secs(1));
    }
}
