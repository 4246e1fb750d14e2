//! The program's output: one thread prints whole lines, so that a console that is paused (a click into a Windows
//! console selects text and stops every write), slow or closed never holds a request up.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Local};

use crate::language::either;
use crate::secrets;
use crate::sync::{lock, unpoisoned};

/// Lines that may wait for a paused console; later ones are counted and left out.
const QUEUED_LINES: usize = 4096;

/// The pause between two writes.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the end of the program waits for a console that doesn't take its lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How a line is to look on a terminal that has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Like all other text.
    Plain,
    /// Something to know: a client's mistake, another attempt. Yellow.
    Notice,
    /// Something that has failed. Red.
    Failure,
}

struct Line {
    /// The time before the text, if it has one.
    time: Option<SystemTime>,
    tone: Tone,
    text: String,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    left_out: u64,
    /// Counts the lines since the start: those that were said, and those that are printed.
    said: u64,
    printed: u64,
    has_printer: bool,
}

static QUEUE: Mutex<Queue> =
    Mutex::new(Queue { lines: VecDeque::new(), left_out: 0, said: 0, printed: 0, has_printer: false });
/// A condition variable and not a channel, because a channel's receiver spins before it sleeps.
static SAID: Condvar = Condvar::new();
static PRINTED: Condvar = Condvar::new();

/// Where the lines go.
enum Out {
    Terminal,
    /// The lines wait until it is known where they go.
    Held(Vec<u8>),
    File(File),
    Nowhere,
}

static OUT: Mutex<Out> = Mutex::new(Out::Terminal);

fn print() {
    loop {
        let mut queue = lock(&QUEUE);
        while queue.lines.is_empty() {
            queue = unpoisoned(SAID.wait(queue));
        }
        let (lines, left_out, said) =
            (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.left_out), queue.said);
        drop(queue);
        let mut text = String::new();
        for line in lines {
            put(&mut text, &line);
        }
        if left_out > 0 {
            text.push_str(&either(
                format!("({left_out} lines left out: the console was busy)\n"),
                format!("（控制台忙，省略了 {left_out} 行）\n"),
            ));
        }
        write(text.as_bytes());
        lock(&QUEUE).printed = said;
        PRINTED.notify_all();
        // Lines said meanwhile are printed together: many short writes cost more than the calls that they report.
        thread::sleep(PAUSE);
    }
}

fn put(text: &mut String, line: &Line) {
    if let Some(time) = line.time {
        let _ = write!(text, "{}  ", DateTime::<Local>::from(time).time().format("%H:%M:%S"));
    }
    let hidden = secrets::hidden(&line.text);
    let shown = plain(&hidden);
    match line.tone {
        Tone::Notice if has_colours() => drop(writeln!(text, "\x1b[33m{shown}\x1b[0m")),
        Tone::Failure if has_colours() => drop(writeln!(text, "\x1b[31m{shown}\x1b[0m")),
        _ => drop(writeln!(text, "{shown}")),
    }
}

/// Whether lines go to a terminal that shows colours, and its user wants them (<https://no-color.org>).
fn has_colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    let is_terminal = matches!(*lock(&OUT), Out::Terminal);
    is_terminal
        && *COLOURS.get_or_init(|| {
            let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb && understands_escapes()
        })
}

#[cfg(not(windows))]
fn understands_escapes() -> bool {
    true
}

#[cfg(windows)]
fn understands_escapes() -> bool {
    let console = winapi_util::console::Console::stdout();
    console.is_ok_and(|mut console| console.set_virtual_terminal_processing(true).is_ok())
}

/// Returns the text with everything visible that a terminal would act upon: what clients and upstreams have written
/// could move its cursor, ring, change its title, or turn the direction of what follows.
pub fn plain(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    if !text.contains(acts) {
        return text.into();
    }
    let mut visible = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) { visible.extend(c.escape_default()) } else { visible.push(c) }
    }
    visible.into()
}

fn write(text: &[u8]) {
    // `println!` would panic on a closed pipe; here the line is simply lost.
    let _ = match &mut *lock(&OUT) {
        Out::Terminal => {
            let mut out = std::io::stdout().lock();
            out.write_all(text).and_then(|()| out.flush())
        }
        Out::Held(held) => held.write_all(text),
        Out::File(file) => file.write_all(text),
        Out::Nowhere => Ok(()),
    };
}

/// Leaves the terminal to another program: lines wait for [`show`] or [`release`].
pub fn hold() {
    *lock(&OUT) = Out::Held(Vec::new());
}

/// Shows the lines that were held, and all that follow, on the terminal.
pub fn show() {
    let before = std::mem::replace(&mut *lock(&OUT), Out::Terminal);
    if let Out::Held(held) = before {
        write(&held);
    }
}

/// Writes the lines that were held, and all that follow, to this file, or discards them.
pub fn release(file: Option<File>) {
    let out = file.map_or(Out::Nowhere, Out::File);
    let before = std::mem::replace(&mut *lock(&OUT), out);
    if let Out::Held(held) = before {
        write(&held);
    }
}

/// Prints one line as it is.
pub fn print_line(line: impl Into<String>) {
    send(Line { time: None, tone: Tone::Plain, text: line.into() });
}

/// Prints one line with the local time before it. The printing thread works the time out, because that takes a while
/// the first time on each thread.
pub fn say(text: impl fmt::Display) {
    say_in(Tone::Plain, text);
}

/// Like [`say`], in a tone.
pub fn say_in(tone: Tone, text: impl fmt::Display) {
    send(Line { time: Some(SystemTime::now()), tone, text: text.to_string() });
}

fn send(line: Line) {
    let mut queue = lock(&QUEUE);
    if !queue.has_printer {
        // If the system gives no more threads, lines are lost, but requests aren't.
        queue.has_printer = thread::Builder::new().name("console".into()).spawn(print).is_ok();
    }
    if queue.lines.len() >= QUEUED_LINES {
        queue.left_out += 1;
        return;
    }
    queue.said += 1;
    queue.lines.push_back(line);
    if queue.lines.len() == 1 {
        SAID.notify_one();
    }
}

/// Sets the title of the console's window, if the console understands that: elsewhere it would be rubbish on the
/// screen.
pub fn set_title(title: &str) {
    #[cfg(windows)]
    if understands_escapes() {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\x1b]0;{title}\x07").and_then(|()| out.flush());
    }
    #[cfg(not(windows))]
    let _ = title; // the shell sets a terminal's title
}

/// Waits until everything said so far is printed, at most a second.
pub fn flush() {
    let began = Instant::now();
    let mut queue = lock(&QUEUE);
    let said = queue.said;
    while queue.printed < said && queue.has_printer {
        let left = FLUSH_LIMIT.saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        queue = unpoisoned(PRINTED.wait_timeout(queue, left)).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert!(matches!(plain("模型 a/b:free é 👩‍💻\t"), Cow::Borrowed(_)));
        let nasty = "a\x1b[31mb\x07c\u{9b}2Jd\u{202e}e\rf\ng\u{2066}";
        assert_eq!(plain(nasty), r"a\u{1b}[31mb\u{7}c\u{9b}2Jd\u{202e}e\rf\ng\u{2066}");
    }
}
