//! The OpenRouter key: asked for at a first start on a terminal, and checked whenever the program starts.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::console::{self, print_line, say};
use crate::language::either;
use crate::live::{Live, Snapshot};
use crate::relay::quota::{self, Account, Quota};
use crate::secrets;
use crate::settings::{Secret, Settings, env_edit, env_file, is_placeholder, parse_key};
use crate::upstream::Upstream;

const NAME: &str = "OPENROUTER_API_KEY";
/// The host whose keys have this prefix.
const OPENROUTER: &str = "openrouter.ai";
const PREFIX: &str = "sk-or-";

/// Returns whether there is no key, and a user who can be asked for one.
pub fn is_to_be_asked(settings: &Settings) -> bool {
    settings.key.is_none() && !settings.test_mode && settings.backups.is_empty() && somebody_is_there()
}

fn somebody_is_there() -> bool {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    // A background job (`local-api-proxy &`) that reads from the terminal is stopped.
    #[cfg(unix)]
    let terminal = terminal
        && nix::unistd::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp());
    terminal
}

/// Saves the terminal's settings, and restores them when dropped. The terminal echoes nothing while the key is typed,
/// and the program may end meanwhile.
pub struct KeepTerminal {
    #[cfg(unix)]
    was: Option<nix::sys::termios::Termios>,
}

impl KeepTerminal {
    /// Saves the settings as they are now.
    pub fn new() -> Self {
        Self {
            #[cfg(unix)]
            was: nix::sys::termios::tcgetattr(std::io::stdin()).ok(),
        }
    }
}

impl Default for KeepTerminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for KeepTerminal {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(was) = &self.was {
            use nix::sys::termios::{SetArg, tcsetattr};
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, was);
        }
    }
}

/// The result of asking for a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// There is a key, or the user goes on without one.
    GoOn,
    /// The user pressed Ctrl+C.
    Interrupted,
}

/// Asks until there is a key that isn't refused, or the user wants none. Writes the key into `.env`, from which all
/// settings are read.
pub fn ask(live: &Live) -> Asked {
    print_line(String::new());
    print_line(either(
        "Paste your OpenRouter key (it isn't shown) and press Enter. A free one: https://openrouter.ai/keys",
        "请粘贴你的 OpenRouter 密钥（不会显示），然后按回车。免费申请：https://openrouter.ai/keys",
    ));
    print_line(either("Enter alone goes on without one.", "直接按回车则暂不设置。"));
    loop {
        console::flush();
        // Not rpassword's own prompt, which isn't in the console's encoding on Windows.
        let mut terminal = std::io::stdout();
        let _ = write!(terminal, "{}", either("key: ", "密钥：")).and_then(|()| terminal.flush());
        let typed = match rpassword::read_password() {
            Ok(typed) => typed,
            Err(error) => {
                print_line(String::new());
                return if error.kind() == ErrorKind::Interrupted { Asked::Interrupted } else { without() };
            }
        };
        if typed.trim().is_empty() {
            // The key may have been written into the file meanwhile.
            return if live.snapshot().settings.key.is_some() { Asked::GoOn } else { without() };
        }
        let Some(key) = parse_key(typed.trim()).filter(|_| !is_placeholder(typed.trim())) else {
            print_line(either(
                "That is no key: it has letters, digits and signs of ASCII and no blanks. Once more:",
                "这不是密钥：密钥只有英文字母、数字和符号，不含空格。请再试一次：",
            ));
            continue;
        };
        secrets::know(key.expose());
        if is_taken(&live.snapshot(), &key) {
            write_down(live.home(), &key);
            return Asked::GoOn;
        }
    }
}

fn without() -> Asked {
    let file = env_file::NAME;
    print_line(either(
        format!("Going on without a key. Later: {NAME}=sk-or-v1-... in {file}, no restart needed."),
        format!("暂不设置密钥。以后请在 {file} 中写入 {NAME}=sk-or-v1-...，无需重启。"),
    ));
    Asked::GoOn
}

/// Checks a key, and prints the result. Returns whether the key isn't refused.
fn is_taken(snapshot: &Snapshot, key: &Secret) -> bool {
    let settings = &snapshot.settings;
    let host = host_of(&settings.base_url);
    if host == OPENROUTER && !key.expose().starts_with(PREFIX) {
        print_line(either(
            format!("OpenRouter's keys begin with {PREFIX}; this one doesn't. It is tried all the same."),
            format!("OpenRouter 的密钥以 {PREFIX} 开头，而这个不是。仍然试用。"),
        ));
    }
    let account = quota::ask(&Arc::new(Upstream::at(settings, &settings.base_url, Some(key))));
    let refused = matches!(account, Account::Refused);
    print_line(match account {
        Account::Refused => either(
            format!("{host} refuses this key. Is it whole? Once more:"),
            format!("{host} 拒绝了这个密钥。是否复制完整？请再试一次："),
        ),
        Account::Taken(quota) => accepted(host, key, quota),
        Account::Unreachable(reason) => either(
            format!("The key can't be checked now: {host} can't be reached ({}).", reason.english),
            format!("现在无法检查密钥：无法连接 {host}（{}）。", reason.chinese),
        ),
        Account::Unknown => either(
            format!("The key can't be checked: {host} doesn't say anything about keys."),
            format!("无法检查密钥：{host} 不提供密钥信息。"),
        ),
    });
    !refused
}

/// Writes a key into `.env`, and prints the result.
fn write_down(home: &Path, key: &Secret) {
    print_line(match env_edit::set(home, NAME, key.expose()) {
        Ok(file) => {
            let file = file.display();
            either(format!("It is saved in {file}"), format!("已保存到 {file}"))
        }
        Err(error) => {
            let file = home.join(env_file::NAME);
            let file = file.display();
            either(
                format!(
                    "It could NOT be saved: {file} can't be written ({error}). Write {NAME}=... into it yourself."
                ),
                format!("未能保存：无法写入 {file}（{error}）。请自行在其中写入 {NAME}=...。"),
            )
        }
    });
}

fn accepted(host: &str, key: &Secret, quota: Option<Quota>) -> String {
    let key = key.masked();
    let left = quota.map(|Quota { remaining, limit, .. }| {
        either(
            format!("; {remaining} of {limit} free calls are left today"),
            format!("；今天还剩 {remaining}/{limit} 次免费调用"),
        )
    });
    let left = left.unwrap_or_default();
    either(format!("{host} accepts the key {key}{left}"), format!("{host} 接受密钥 {key}{left}"))
}

/// Checks the key of the settings in the background, and prints the result.
pub fn check(live: &Arc<Live>, snapshot: &Arc<Snapshot>) {
    let settings = &snapshot.settings;
    let Some(key) = settings.key.clone().filter(|_| !settings.test_mode) else {
        return;
    };
    let (live, snapshot) = (Arc::clone(live), Arc::clone(snapshot));
    // If the system gives no more threads, nothing is printed.
    let _ = thread::Builder::new().name("key".into()).spawn(move || {
        let host = host_of(&snapshot.settings.base_url);
        match quota::ask(&snapshot.upstream) {
            Account::Taken(quota) => say(accepted(host, &key, quota)),
            Account::Refused => {
                let (key, file) = (key.masked(), live.home().join(env_file::NAME));
                let file = file.display();
                say(either(
                    format!("{host} REFUSES the key {key}. Make a new one (https://openrouter.ai/keys) and write it into {file}"),
                    format!("{host} 拒绝密钥 {key}。请重新申请（https://openrouter.ai/keys）并写入 {file}"),
                ));
            }
            Account::Unreachable(reason) => say(either(
                format!("the key {} can't be checked now: {}", key.masked(), reason.english),
                format!("现在无法检查密钥 {}：{}", key.masked(), reason.chinese),
            )),
            Account::Unknown => {}
        }
    });
}

/// Returns the host of a base URL, such as `openrouter.ai`.
fn host_of(base_url: &str) -> &str {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
