//! The command `autostart`: has the proxy start with the user's session, without a window.

use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::listen;
use crate::console;
use crate::language::either;
use crate::live::Live;
use crate::settings::Settings;
use crate::settings::args::{Args, Autostart};
use crate::start;

const NAME: &str = "local-api-proxy";
/// How long the proxy may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(3);

/// What starts programs with a session on this system.
#[derive(Clone, Copy, PartialEq, Eq)]
enum System {
    /// A user unit of systemd.
    Systemd,
    /// A LaunchAgent of macOS.
    Launchd,
    /// The start-up folder of Windows.
    Startup,
}

const SYSTEM: System = if cfg!(windows) {
    System::Startup
} else if cfg!(target_os = "macos") {
    System::Launchd
} else {
    System::Systemd
};

/// Does what was asked, and returns a text about the state after that.
pub fn autostart(args: Args, action: Autostart) -> Result<String, String> {
    let home = start::home_folder(&args)?;
    let home = absolute(&home).unwrap_or(home);
    let executable = std::env::current_exe().map_err(|error| error.to_string())?;
    let text = SYSTEM.entry(&command_line(&executable, &home, &args));
    let entry = Entry::of_this_user().ok_or(either(
        "the folder for what starts with your session isn't known: HOME (on Windows APPDATA) is not set.",
        "无法确定自动启动的文件夹：没有设置 HOME（Windows 上为 APPDATA）。",
    ))?;
    // Only the address is needed, so nothing is printed about the settings.
    console::hold();
    let settings = Live::start(home, args).snapshot().settings.clone();
    let url = listen::url(&settings.listen.host, settings.listen.port);
    match action {
        Autostart::On => {
            entry.write(&text).map_err(|error| {
                let file = entry.file.display();
                either(format!("{file} can't be written: {error}."), format!("无法写入 {file}：{error}。"))
            })?;
            // A second proxy would find its port taken.
            let started = start::is_running(&settings) || entry.start() && comes_up(&settings);
            Ok(either(
                format!("on: {NAME} starts with your session, at {url}/v1\n"),
                format!("已打开：{NAME} 随登录启动，地址 {url}/v1\n"),
            ) + &entry.line()
                + if started {
                    ""
                } else {
                    either("  It starts with your next session.\n", "  下次登录时启动。\n")
                })
        }
        Autostart::Off => {
            let was_on = entry.file.exists();
            entry.remove().map_err(|error| {
                let file = entry.file.display();
                either(format!("{file} can't be removed: {error}."), format!("无法删除 {file}：{error}。"))
            })?;
            let off = if was_on {
                either("off: nothing is left of it\n", "已关闭，没有留下任何文件\n")
            } else {
                either("off, as it was\n", "本来就没有打开\n")
            };
            Ok(off.to_owned()
                + if start::is_running(&settings) {
                    either(
                        "  The one that runs now goes on until you end it, or sign out.\n",
                        "  正在运行的会继续运行，直到你结束它或注销。\n",
                    )
                } else {
                    ""
                })
        }
        Autostart::Status => {
            let state = match fs::read(&entry.file) {
                Ok(written) if written == text => either("on\n", "已打开\n").to_owned() + &entry.line(),
                Ok(_) => {
                    either(
                        "on, but for another executable, folder or flags: autostart on writes it anew\n",
                        "已打开，但对应的是另一个程序、文件夹或参数：autostart on 会重新写入\n",
                    )
                    .to_owned()
                        + &entry.line()
                }
                Err(_) => either("off\n", "未打开\n").to_owned(),
            };
            Ok(state
                + &if start::is_running(&settings) {
                    either(format!("running at {url}/v1\n"), format!("正在 {url}/v1 运行\n"))
                } else {
                    either(format!("not running at {url}/v1\n"), format!("没有在 {url}/v1 运行\n"))
                })
        }
    }
}

/// Returns whether the proxy answers soon: the system may accept the entry and still be unable to start the proxy.
fn comes_up(settings: &Settings) -> bool {
    let began = Instant::now();
    while !start::is_running(settings) {
        if began.elapsed() > START_LIMIT {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

/// Returns the command: the executable, the folder, and the flags that were given with `autostart on`.
fn command_line(executable: &Path, home: &Path, args: &Args) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut words = vec![text(executable), "--dir".into(), text(home)];
    words.extend(args.host.iter().flat_map(|host| ["--host".to_owned(), host.clone()]));
    words.extend(args.port.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    words.extend(args.offline.then(|| "--offline".to_owned()));
    words
}

impl System {
    /// Returns the contents of the entry's file.
    fn entry(self, command: &[String]) -> Vec<u8> {
        match self {
            Self::Systemd => unit(command).into_bytes(),
            Self::Launchd => agent(command).into_bytes(),
            // With a byte order mark, because the script is otherwise read in the system's code page.
            Self::Startup => {
                format!("\u{feff}{}", script(command)).encode_utf16().flat_map(u16::to_le_bytes).collect()
            }
        }
    }
}

/// Writes a unit: <https://www.freedesktop.org/software/systemd/man/systemd.service.html#Command%20lines>
fn unit(command: &[String]) -> String {
    let quote = |(number, word): (usize, &String)| {
        let word = word.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
        // No variables are expanded in the program's own path.
        let word = if number == 0 { word } else { word.replace('$', "$$") };
        format!("\"{word}\"")
    };
    let command = command.iter().enumerate().map(quote).collect::<Vec<_>>().join(" ");
    format!(
        "[Unit]\nDescription=OpenRouter's free models for every AI tool on this machine\n\n[Service]\nExecStart={command}\nRestart=on-failure\nRestartSec=30\n\n[Install]\nWantedBy=default.target\n"
    )
}

/// Writes an agent: launchd.plist(5).
fn agent(command: &[String]) -> String {
    let word = |word: &String| {
        let word = word.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("    <string>{word}</string>\n")
    };
    let command = command.iter().map(word).collect::<String>();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{NAME}</string>
  <key>ProgramArguments</key>
  <array>
{command}  </array>
  <key>RunAtLoad</key>
  <true/>
</dict>
</plist>
"#
    )
}

/// Writes a script: a console program has a window unless something without one starts it hidden.
fn script(command: &[String]) -> String {
    let quote = |word: &String| {
        // A backslash before a quote would be taken for its escape.
        let end = if word.ends_with('\\') { "\\" } else { "" };
        format!("\"\"{word}{end}\"\"")
    };
    let command = command.iter().map(quote).collect::<Vec<_>>().join(" ");
    format!("CreateObject(\"WScript.Shell\").Run \"{command}\", 0, False\r\n")
}

/// The file that starts the proxy.
struct Entry {
    file: PathBuf,
    /// The link to the file by which systemd enables it.
    link: Option<PathBuf>,
    /// Folders below this one are removed when they are empty.
    base: PathBuf,
}

impl Entry {
    fn of_this_user() -> Option<Self> {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        Some(match SYSTEM {
            System::Systemd => {
                let (base, config) = match folder("XDG_CONFIG_HOME") {
                    Some(config) => (config.clone(), config),
                    None => (home.clone()?, home?.join(".config")),
                };
                let units = config.join("systemd/user");
                let name = format!("{NAME}.service");
                let link = units.join("default.target.wants").join(&name);
                Self { file: units.join(name), link: Some(link), base }
            }
            System::Launchd => {
                let base = home?.join("Library");
                Self { file: base.join(format!("LaunchAgents/{NAME}.plist")), link: None, base }
            }
            System::Startup => {
                let base = folder("APPDATA")?.join(r"Microsoft\Windows\Start Menu\Programs\Startup");
                Self { file: base.join(format!("{NAME}.vbs")), link: None, base }
            }
        })
    }

    fn line(&self) -> String {
        let file = self.file.display();
        either(format!("  entry: {file}\n"), format!("  文件：{file}\n"))
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let folder = |path: &Path| path.parent().map_or(Ok(()), fs::create_dir_all);
        folder(&self.file)?;
        fs::write(&self.file, text)?;
        #[cfg(unix)]
        if let Some(link) = &self.link {
            folder(link)?;
            if !link.is_symlink() {
                std::os::unix::fs::symlink(&self.file, link)?;
            }
        }
        Ok(())
    }

    /// Starts the proxy now. Returns whether the system could.
    fn start(&self) -> bool {
        let file = self.file.to_string_lossy();
        match SYSTEM {
            System::Systemd => {
                said_yes("systemctl", &["--user", "daemon-reload"])
                    && said_yes("systemctl", &["--user", "start", NAME])
            }
            System::Launchd => said_yes("launchctl", &["load", &file]),
            System::Startup => said_yes("wscript", &["//B", "//Nologo", &file]),
        }
    }

    /// Ends the proxy that the entry has started (not on Windows), and removes the entry.
    fn remove(&self) -> io::Result<()> {
        match SYSTEM {
            System::Systemd if self.file.exists() => {
                said_yes("systemctl", &["--user", "stop", NAME]);
            }
            System::Launchd if self.file.exists() => {
                said_yes("launchctl", &["unload", &self.file.to_string_lossy()]);
            }
            _ => {}
        }
        for path in self.link.iter().chain([&self.file]) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Folders with anything else in them stay.
            let folders = path.ancestors().skip(1).take_while(|folder| *folder != self.base);
            let _ = folders.map(fs::remove_dir).take_while(Result::is_ok).count();
        }
        if SYSTEM == System::Systemd {
            said_yes("systemctl", &["--user", "daemon-reload"]);
        }
        Ok(())
    }
}

fn said_yes(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(home: &str) -> Vec<String> {
        command_line(
            Path::new("/我的 盘/local-api-proxy"),
            Path::new(home),
            &Args { port: Some(1), ..Args::default() },
        )
    }

    #[test]
    fn paths_with_blanks_and_other_signs() {
        let text = unit(&words("/a \"b\" 50% $HOME"));
        let expected = r#"ExecStart="/我的 盘/local-api-proxy" "--dir" "/a \"b\" 50%% $$HOME" "--port" "1""#;
        assert!(text.lines().any(|line| line == expected), "{text}");

        let text = agent(&words("/a & <b>"));
        assert!(text.contains("<string>/a &amp; &lt;b&gt;</string>\n    <string>--port</string>"), "{text}");

        let expected = r#"CreateObject("WScript.Shell").Run """/我的 盘/local-api-proxy"" ""--dir"" ""D:\\"" ""--port"" ""1""", 0, False"#;
        assert_eq!(script(&words("D:\\")).trim_end(), expected);
    }
}
