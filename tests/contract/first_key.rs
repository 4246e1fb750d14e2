//! Section 12: the key is asked for on a terminal, which script(1) gives to the program here.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::fixture::*;

const QUOTA: &str = r#"{"data":{"free_model_daily_requests":{"limit":50,"remaining":38,"used":12}}}"#;
const WRONG: &str = "sk-or-v1-a-wrong-one-0000";

/// OpenRouter, which knows one key.
fn openrouter() -> Upstream {
    let upstream = Upstream::start(|request, answer| {
        let known = request.header("authorization") == Some(&format!("Bearer {KEY}"));
        match (request.path.ends_with("/key"), known) {
            (true, true) => answer.json(200, QUOTA),
            (true, false) => answer.json(401, r#"{"error":{"message":"User not found.","code":401}}"#),
            (false, _) => answer.say("hi"),
        }
    });
    upstream.with_key_checks()
}

/// A terminal in which a shell runs the program, and then says how it ended and how the terminal is set.
struct Terminal {
    script: Child,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn of(start: &Start) -> Self {
        let program = start.command();
        let words = program.get_args().map(|word| format!("'{}'", word.to_str().unwrap()));
        let words = words.collect::<Vec<_>>().join(" ");
        let program = program.get_program().to_str().unwrap();
        // Ctrl+C reaches the shell as well, and not every shell lives on by itself.
        let line =
            format!("trap : INT; '{program}' {words} --port 0; echo ended with $?; stty -a; sleep 0.2");
        let mut script = Command::new("script")
            .args(["-qfec", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("LANG", "C.UTF-8")
            .env_remove("OPENROUTER_API_KEY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, mut output) = (Arc::clone(&screen), script.stdout.take().unwrap());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
            }
        });
        Self { script, screen }
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} on the screen, which says {}", self.screen()), || {
            self.screen().contains(text).then_some(())
        });
    }

    /// Types it at the prompt of this number, which echoes nothing.
    fn answers(&mut self, prompt: usize, text: &str) {
        eventually("the prompt", || (self.screen().matches("key: ").count() >= prompt).then_some(()));
        // The prompt comes before the terminal is set.
        eventually("a terminal without an echo", || {
            let name = self.terminal_of_the_program()?;
            let settings = Command::new("stty").args(["-a", "-F", &name]).output().unwrap();
            String::from_utf8(settings.stdout).unwrap().contains("-echo ").then_some(())
        });
        self.types(text);
    }

    /// `/dev/pts/3`
    fn terminal_of_the_program(&self) -> Option<String> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.script.id())).ok()?;
        let shell = children.split_whitespace().next()?;
        let name = fs::read_link(format!("/proc/{shell}/fd/0")).ok()?;
        Some(name.to_str()?.to_owned())
    }

    fn types(&mut self, text: &str) {
        self.script.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The port that it says it listens on.
    fn port(&self) -> u16 {
        self.wait_for("/v1");
        let screen = self.screen();
        let address = screen.split("http://localhost:").nth(1).unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    }

    /// Ctrl+C; how the program ended. The terminal echoes again.
    fn interrupt(mut self) -> String {
        self.types("\x03");
        self.wait_for(" iexten ");
        let screen = self.screen();
        let end = screen.split("ended with ").nth(1).unwrap_or_else(|| panic!("{screen}"));
        let flags = end.split_whitespace().collect::<Vec<_>>();
        assert!(["echo", "isig", "icanon"].iter().all(|flag| flags.contains(flag)), "as it was: {screen}");
        end.lines().next().unwrap().trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn a_wrong_key_is_asked_for_again_and_the_right_one_is_written() {
    let upstream = openrouter();
    let before = format!(
        "# 我的设置\r\nOPENROUTER_BASE_URL={}\r\nOPENROUTER_API_KEY=\r\nMODEL=a/b:free\r\n",
        upstream.url()
    );
    let start = Start::new().env_file(&before);
    let mut terminal = Terminal::of(&start);
    let port = terminal.port();
    Connection::to(port).chat(HELLO).assert_error(401, "missing_api_key");
    terminal.answers(1, "not a key\r");
    terminal.wait_for("That is no key");
    terminal.answers(2, &format!("{WRONG}\r"));
    terminal.wait_for("refuses this key");
    terminal.answers(3, &format!("{KEY}\r"));
    terminal.wait_for("accepts the key ...wxyz; 38 of 50 free calls are left today");
    terminal.wait_for("It is saved in ");
    let screen = terminal.screen();
    assert!(screen.contains("left today\r\nIt is saved in ") && !screen.contains("\\n"), "lines: {screen}");
    assert!(!screen.contains(WRONG) && !screen.contains(KEY), "unseen: {screen}");
    let written = fs::read_to_string(start.home().join(".env")).unwrap();
    assert_eq!(written, before.replace("API_KEY=\r", &format!("API_KEY={KEY}\r")));
    assert_eq!(Connection::to(port).chat(HELLO).status, 200, "without a restart");
    assert_eq!(terminal.interrupt(), "0");
}

#[test]
fn interrupted_and_unwanted() {
    let upstream = openrouter();
    let text = format!("OPENROUTER_BASE_URL={}\n", upstream.url());
    let start = Start::new().env_file(&text);
    let mut terminal = Terminal::of(&start);
    terminal.answers(1, "half a k");
    assert_eq!(terminal.interrupt(), "0");
    assert_eq!(fs::read_to_string(start.home().join(".env")).unwrap(), text);

    let mut terminal = Terminal::of(&start);
    terminal.answers(1, "\r");
    terminal.wait_for("Going on without a key");
    Connection::to(terminal.port()).chat(HELLO).assert_error(401, "missing_api_key");
    assert_eq!(terminal.interrupt(), "0");
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_key_that_cannot_be_checked_is_written_all_the_same() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Start::new()
        .environment("OPENROUTER_BASE_URL", "unused")
        .file(".env.example", format!("OPENROUTER_API_KEY=\nOPENROUTER_BASE_URL=http://{nobody}/api/v1\n"))
        .env_file(format!("OPENROUTER_BASE_URL=http://{nobody}/api/v1\n"));
    let mut terminal = Terminal::of(&start);
    terminal.answers(1, &format!("{KEY}\r"));
    terminal.wait_for("can't be checked now");
    terminal.wait_for("It is saved in ");
    let written = fs::read_to_string(start.home().join(".env")).unwrap();
    assert_eq!(written, format!("OPENROUTER_BASE_URL=http://{nobody}/api/v1\nOPENROUTER_API_KEY={KEY}\n"));
}

#[test]
fn nobody_is_asked_who_has_backups_or_no_terminal() {
    let upstream = openrouter();
    let backup =
        format!("BACKUPS=mine\nMINE_BASE_URL={0}\nMINE_MODEL=m\nOPENROUTER_BASE_URL={0}\n", upstream.url());
    let start = Start::new().env_file(&backup);
    let terminal = Terminal::of(&start);
    terminal.wait_for("debug ");
    assert_eq!(Connection::to(terminal.port()).chat(HELLO).status, 200);
    let screen = terminal.screen();
    assert!(
        !screen.contains("key: ")
            && screen.contains("backups  mine")
            && screen.contains("the backups answer"),
        "{screen}"
    );

    let proxy = Start::new().env_file(format!("OPENROUTER_BASE_URL={}\n", upstream.url())).start();
    proxy.wait_for_console("MISSING: put OPENROUTER_API_KEY=sk-or-v1-...");
    assert_eq!(upstream.received().iter().filter(|call| call.path.ends_with("/key")).count(), 0);
}

#[test]
fn a_key_that_is_there_is_looked_at_without_waiting() {
    let upstream = openrouter();
    let proxy = Proxy::before(&upstream, "");
    proxy.wait_for_console("accepts the key ...wxyz; 38 of 50 free calls are left today");
    let wrong = format!("OPENROUTER_API_KEY={WRONG}\nOPENROUTER_BASE_URL={}", upstream.url());
    let proxy = Start::new().env_file(wrong).start();
    proxy.wait_for_console("REFUSES the key ...0000");

    let silent = Upstream::start(|_, answer| {
        answer.sees_close();
    });
    let proxy = Proxy::before(&silent.with_key_checks(), "");
    assert_eq!(proxy.get("/health").status, 200);
}
