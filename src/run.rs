//! The command `run`: starts a tool of the terminal with all that it needs to reach the proxy, without changing any
//! file of the tool's.
//!
//! The tool uses the proxy that serves at the address of the settings. If there is none, this process serves for as
//! long as the tool runs, and leaves the terminal to the tool.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;

use crate::client::listen;
use crate::console;
use crate::first_key::{self, Asked};
use crate::language::either;
use crate::live::Live;
use crate::relay::shared::Shared;
use crate::settings::args::Args;
use crate::settings::{Listen, Secret, Settings};
use crate::start;
use crate::tools::{self, Launch, Placeholders, Tool, connect};

/// Exit statuses, as shells number them.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
const INTERRUPTED: u8 = 130;
/// The file in `CACHE_DIR` to which the lines of a proxy in this process go.
const LOG: &str = "run.log";

/// Runs the tool to its end, and returns the tool's exit status.
pub fn run(args: Args, tool: Option<&OsStr>, arguments: &[OsString]) -> ExitCode {
    let found = tool.and_then(|name| tools::find(name.to_str()?));
    let Some((tool, launch)) = found.and_then(|tool| Some((tool, tool.launch.as_ref()?))) else {
        let unknown = tool.map(|name| {
            let name = name.display();
            either(format!("{name} can't be started by run."), format!("run 不能启动 {name}。"))
        });
        let reason = unknown.unwrap_or_else(|| either("run needs a tool.", "run 需要一个工具名。").into());
        return start::misused(&format!("{reason}\n\n{}", connect::launchable().trim_end()));
    };
    let Some(program) = find_program(tool.name) else {
        let (name, install) = (tool.name, tool.install);
        start::fail(&either(
            format!("{name} is not installed, or not in PATH. It is installed by:  {install}"),
            format!("没有安装 {name}，或它不在 PATH 中。安装方法：{install}"),
        ));
        return NOT_FOUND.into();
    };
    match Session::begin(args) {
        Ok(session) => session.run(tool, launch, &program, arguments),
        Err(code) => code,
    }
}

/// The proxy that the tool uses.
struct Session {
    /// The proxy's address, without a slash at its end.
    root: String,
    key: Option<Secret>,
    /// The proxy in this process, if the tool uses that.
    own: Option<Arc<Shared>>,
}

impl Session {
    fn begin(args: Args) -> Result<Self, ExitCode> {
        let fail = |reason: String| start::fail(&reason);
        let home = start::home_folder(&args).map_err(fail)?;
        let offline = args.offline;
        console::hold();
        let live = Arc::new(Live::start(home, args));
        let snapshot = live.snapshot();
        let settings = &snapshot.settings;
        let key = settings.proxy_api_key.clone();
        if !offline && start::is_running(settings) {
            console::release(None);
            let root = listen::url(&settings.listen.host, settings.listen.port);
            return Ok(Self { root, key, own: None });
        }
        if first_key::is_to_be_asked(settings) {
            console::show();
            if first_key::ask(&live) == Asked::Interrupted {
                return Err(INTERRUPTED.into());
            }
            console::flush();
        }
        console::release(log_file(settings));
        let listeners =
            listen::bind(&Listen { host: "localhost".into(), port: 0, ..settings.listen.clone() });
        let listeners = listeners.map_err(|error| fail(error.to_string()))?;
        let port = listen::port(&listeners);
        live.listens_on(port);
        let own = start::serve(&live, listeners).map_err(fail)?;
        first_key::check(&live, &live.snapshot());
        Ok(Self { root: listen::url("localhost", port), key, own: Some(own) })
    }

    fn run(self, tool: &Tool, launch: &Launch, program: &Path, arguments: &[OsString]) -> ExitCode {
        let folder = match Folder::of(launch) {
            Ok(folder) => folder,
            Err(error) => {
                return start::fail(&either(
                    format!("the folder for temporary files can't be used: {error}."),
                    format!("无法使用临时文件夹：{error}。"),
                ));
            }
        };
        let path = folder.path.to_string_lossy();
        let key = self.key.as_ref().map_or("x", Secret::expose);
        let filling = Placeholders { root: &self.root, key, folder: &path };
        let started = folder.write(launch, &filling).and_then(|()| {
            let mut command = Command::new(program);
            command.args(launch.arguments.iter().map(|text| filling.fill(text))).args(arguments);
            for (name, value) in launch.environment {
                match *value {
                    "" => command.env_remove(name),
                    value => command.env(name, filling.fill(value)),
                };
            }
            pass_by_proxies(&mut command, &self.root);
            start(command)
        });
        let status = started.and_then(|mut child| child.wait());
        if let Some(own) = &self.own {
            start::finish(own);
            console::flush();
        }
        match status {
            Ok(status) => exit_code(status),
            Err(error) => {
                let (name, program) = (tool.name, program.display());
                start::fail(&either(
                    format!("{name} can't be started ({program}): {error}."),
                    format!("无法启动 {name}（{program}）：{error}。"),
                ));
                NOT_EXECUTABLE.into()
            }
        }
    }
}

/// Opens the file for the lines of the proxy in this process; `None` if they go nowhere.
fn log_file(settings: &Settings) -> Option<File> {
    let dir = settings.cache_dir.as_deref()?;
    fs::create_dir_all(dir).ok()?;
    OpenOptions::new().create(true).append(true).open(dir.join(LOG)).ok()
}

/// Excludes the proxy's address from the proxies that `HTTP_PROXY` and its like name: they can't reach this machine's
/// own address.
fn pass_by_proxies(command: &mut Command, root: &str) {
    let host =
        root.split("://").nth(1).and_then(|rest| rest.rsplit_once(':')).map_or("localhost", |(host, _)| host);
    for name in ["NO_PROXY", "no_proxy"] {
        let before = std::env::var(name).ok().filter(|before| !before.is_empty());
        let before = before.map(|before| before + ",").unwrap_or_default();
        command.env(name, format!("{before}{host},localhost,127.0.0.1,::1"));
    }
}

/// A temporary folder, which is removed when the tool ends.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Creates the folder, if there is something to write. Only its user may read it, because a key may be in it.
    fn of(launch: &Launch) -> io::Result<Self> {
        if launch.files.is_empty() {
            return Ok(Self { path: PathBuf::new() });
        }
        #[cfg_attr(not(unix), expect(unused_mut, reason = "folders of Windows are their user's"))]
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let mut number = 0;
        loop {
            let name = format!("local-api-proxy-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match builder.create(&path) {
                // The folder was left by another process that had this id, or put there by somebody.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
                made => return made.map(|()| Self { path }),
            }
        }
    }

    fn write(&self, launch: &Launch, filling: &Placeholders<'_>) -> io::Result<()> {
        for (name, text) in launch.files {
            let path = self.path.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
            fs::write(path, filling.fill(text))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Starts the tool. From here on Ctrl+C is left to the tool; other signals to this process are passed on to it.
#[cfg(unix)]
fn start(mut command: Command) -> io::Result<Child> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    // Handlers, because the tool would inherit that signals are ignored.
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let child = command.spawn()?;
    let tool = i32::try_from(child.id()).map(Pid::from_raw);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever().filter(|signal| *signal != SIGINT) {
            if let (Ok(tool), Ok(signal)) = (tool, Signal::try_from(signal)) {
                let _ = kill(tool, signal);
            }
        }
    })?;
    Ok(child)
}

/// Starts the tool. Ctrl+C goes to all programs of the console, and the tool decides what to do about it.
#[cfg(not(unix))]
fn start(mut command: Command) -> io::Result<Child> {
    ctrlc::set_handler(|| ()).map_err(io::Error::other)?;
    command.spawn()
}

fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX).into();
    }
    let code = status.code().unwrap_or(1);
    match u8::try_from(code) {
        Ok(code) => code.into(),
        // Exit codes of Windows have 32 bits.
        Err(_) => std::process::exit(code),
    }
}

/// Finds a program in `PATH`. On Windows it has an extension of `PATHEXT`: npm's programs are `.cmd` files, which std
/// doesn't look for by itself.
fn find_program(name: &str) -> Option<PathBuf> {
    let extensions = match std::env::var("PATHEXT") {
        Ok(extensions) if cfg!(windows) => extensions,
        _ if cfg!(windows) => ".COM;.EXE;.BAT;.CMD".into(),
        _ => String::new(),
    };
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).find_map(|folder| {
        let mut candidates = extensions.split(';').map(|extension| folder.join(format!("{name}{extension}")));
        candidates.find(|path| is_program(path))
    })
}

fn is_program(path: &Path) -> bool {
    let Ok(file) = fs::metadata(path) else {
        return false;
    };
    #[cfg(unix)]
    let executable = std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let executable = true;
    file.is_file() && executable
}
