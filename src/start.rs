//! Starts the proxy that the command line asks for, and ends it after Ctrl+C.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::client::listen::{self, ListenError};
use crate::console::{self, print_line, say};
use crate::first_key::{self, KeepTerminal};
use crate::language::{either, is_chinese};
use crate::live::watcher;
use crate::live::{Live, Snapshot};
use crate::machine::is_loopback_host;
use crate::record::calls::Calls;
use crate::record::files::Files;
use crate::relay::shared::Shared;
use crate::server;
use crate::server::panel;
use crate::settings::Settings;
use crate::settings::args::Args;
use crate::settings::env_file;
use crate::tools;

/// The exit status after flags that don't exist, as of most programs.
const MISUSED: u8 = 2;
/// The exit status after a second Ctrl+C, as shells number it: 128 + SIGINT.
const INTERRUPTED: i32 = 130;
/// How long the end of the program waits for a disk that hangs; what is still queued then is lost.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// How long another program on the proxy's port may take to say what it is.
const WHO_ARE_YOU_LIMIT: Duration = Duration::from_millis(1000);

/// A proxy that is running.
pub struct Running {
    shared: Arc<Shared>,
    signals: Receiver<()>,
    /// Restores the terminal on which the key is asked for.
    _terminal: Option<KeepTerminal>,
}

/// Starts the proxy. An error is one sentence for the user: what is wrong and the way out.
pub fn start(args: Args) -> Result<Running, String> {
    let home = home_folder(&args)?;
    let opens_panel = args.open;
    // The usual soft limit of descriptors is for programs that use select(2).
    #[cfg(unix)]
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let signals = signals()?;
    let live = Arc::new(Live::start(home, args));
    let snapshot = live.snapshot();
    refuse_to_be_open(&snapshot.settings)?;
    let listen = &snapshot.settings.listen;
    let listeners = listen::bind(listen).map_err(|error| explain(&error, &listen.host, opens_panel))?;
    let url = listen::url(&listen.host, listen::port(&listeners));
    let asks = first_key::is_to_be_asked(&snapshot.settings);
    live.listens_on(listen::port(&listeners));
    greet(&live, &snapshot, &url, asks);
    let shared = serve(&live, listeners)?;
    first_key::check(&live, &snapshot);
    if opens_panel {
        open_panel(&url);
    }
    let terminal = asks.then(KeepTerminal::new);
    if asks {
        // Requests are served meanwhile, and the main thread waits for Ctrl+C.
        let ask = move || {
            first_key::ask(&live);
        };
        thread::Builder::new().name("first key".into()).spawn(ask).map_err(no_thread)?;
    }
    Ok(Running { shared, signals, _terminal: terminal })
}

/// Serves these sockets with the settings of `live`, on threads of its own.
pub fn serve(live: &Arc<Live>, listeners: Vec<TcpListener>) -> Result<Arc<Shared>, String> {
    report_panics();
    let files = Files::start(Arc::clone(live)).map_err(no_thread)?;
    let shared = server::start(Arc::clone(live), Calls::new(files), listeners).map_err(no_thread)?;
    watcher::start(Arc::clone(live)).map_err(no_thread)?;
    Ok(shared)
}

/// Refuses to let other machines in without `PROXY_API_KEY`: they would use the user's key.
fn refuse_to_be_open(settings: &Settings) -> Result<(), String> {
    let host = &settings.listen.host;
    if is_loopback_host(host) || settings.proxy_api_key.is_some() {
        return Ok(());
    }
    Err(either(
        format!(
            "HOST={host} lets other machines in, and every one of them could use your key. Set PROXY_API_KEY in .env to \
             a key that they must send, or leave HOST out."
        ),
        format!(
            "HOST={host} 会让其他机器也能访问，它们都能使用你的密钥。请在 .env 中设置 PROXY_API_KEY，让它们必须发送这个密钥；或者不要设置 HOST。"
        ),
    ))
}

fn no_thread(error: std::io::Error) -> String {
    either(
        format!("the system gives no more threads ({error}). Close other programs or lower WORKERS in .env."),
        format!("系统无法再创建线程（{error}）。请关闭其他程序，或在 .env 中降低 WORKERS。"),
    )
}

impl Running {
    /// Serves until the first signal, then ends in order; a second signal ends it at once.
    pub fn until_stopped(self) -> ExitCode {
        let _ = self.signals.recv();
        self.shared.in_flight.stop();
        if !self.shared.in_flight.is_idle() {
            say(either(
                "stopping: requests under way get 10 s to finish (Ctrl+C again to stop at once)",
                "正在停止：进行中的请求还有 10 秒（再按一次 Ctrl+C 立即停止）",
            ));
        }
        let signals = self.signals;
        let _ = thread::Builder::new().name("stop".into()).spawn(move || {
            if signals.recv().is_ok() {
                std::process::exit(INTERRUPTED);
            }
        });
        finish(&self.shared);
        say(either("stopped", "已停止"));
        console::flush();
        ExitCode::SUCCESS
    }
}

/// Begins nothing new, waits for the requests in flight, and saves the queued debug files.
pub fn finish(shared: &Shared) {
    shared.in_flight.stop();
    shared.in_flight.wait_for_all();
    if !shared.calls.files().flush(FLUSH_LIMIT) {
        say(either(
            "some debug files could not be saved: the disk didn't answer",
            "部分调试文件未能保存：磁盘没有响应",
        ));
    }
}

/// Returns the folder for `.env`: `--dir`, or else the current folder, or the executable's if only that one has a
/// `.env`.
pub fn home_folder(args: &Args) -> Result<PathBuf, String> {
    if let Some(dir) = &args.dir {
        let shown = dir.display();
        let missing = || {
            either(
                format!("--dir {shown}: there is no such folder."),
                format!("--dir {shown}：没有这个文件夹。"),
            )
        };
        return if dir.is_dir() { Ok(dir.clone()) } else { Err(missing()) };
    }
    let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let executable = std::env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent);
    let holds_env = |dir: &Path| dir.join(env_file::NAME).metadata().is_ok_and(|file| !file.is_dir());
    match beside {
        Some(beside) if !holds_env(&current) && holds_env(beside) => Ok(beside.to_owned()),
        _ => Ok(current),
    }
}

/// Catches Ctrl+C, and SIGTERM, SIGHUP or the closing of the console window.
fn signals() -> Result<Receiver<()>, String> {
    let (signal, signals) = bounded(2);
    let failed = |e: &dyn std::fmt::Display| {
        either(format!("signals can't be handled: {e}."), format!("无法处理系统信号：{e}。"))
    };
    #[cfg(unix)]
    terminations(signal.clone()).map_err(|e| failed(&e))?;
    ctrlc::set_handler(move || {
        let _ = signal.try_send(());
    })
    .map_err(|e| failed(&e))?;
    Ok(signals)
}

/// Catches the signals that ctrlc handles only together with SIGHUP, also where nohup(1) has that one ignored.
#[cfg(unix)]
fn terminations(signal: crossbeam_channel::Sender<()>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    let wanted = if hangup_is_ignored() { &[SIGTERM][..] } else { &[SIGTERM, SIGHUP] };
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    let pass_on = move || {
        for _ in signals.forever() {
            let _ = signal.try_send(());
        }
    };
    thread::Builder::new().name("signals".into()).spawn(pass_on).map(drop)
}

/// Returns whether SIGHUP is ignored, because the program is to outlive its terminal, as Linux tells it
/// ([proc_pid_status(5)](https://man7.org/linux/man-pages/man5/proc_pid_status.5.html)).
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is signal 1.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Has panics reported in one line each.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let current = thread::current();
        let name = current.name().unwrap_or("a thread without a name");
        say(either(
            format_args!("internal error in {name} at {place}; other requests are not affected"),
            format_args!("{name} 在 {place} 发生内部错误；其他请求不受影响"),
        ));
    }));
}

fn greet(live: &Live, snapshot: &Snapshot, url: &str, asks_for_key: bool) {
    let settings = &snapshot.settings;
    console::set_title(&format!("local-api-proxy {url}/v1"));
    // A Chinese character takes two columns.
    let line = |english: &str, chinese: &str, value: String| {
        if is_chinese() {
            print_line(format!("  {chinese}  {value}"))
        } else {
            print_line(format!("  {english:<9}{value}"))
        }
    };
    print_line(format!("local-api-proxy {}", env!("CARGO_PKG_VERSION")));
    line("address", "地址", format!("{url}/v1"));
    line("model", "模型", settings.model.clone());
    line(
        "key",
        "密钥",
        match (&settings.key, settings.test_mode) {
            (_, true) => either(
                "none needed: the built-in test model answers (TEST_MODE)",
                "不需要：由内置的测试模型回答（TEST_MODE）",
            )
            .into(),
            (Some(key), _) => key.masked(),
            (None, _) if asks_for_key => either("none yet", "尚未设置").into(),
            (None, _) if !settings.backups.is_empty() => {
                either("none: the backups answer", "没有：由备用服务器回答").into()
            }
            (None, _) => {
                let file = live.home().join(env_file::NAME);
                let file = file.display();
                either(
                    format!(
                        "MISSING: put OPENROUTER_API_KEY=sk-or-v1-... into {file} (free keys: https://openrouter.ai/keys)"
                    ),
                    format!(
                        "缺少：请在 {file} 中写入 OPENROUTER_API_KEY=sk-or-v1-...（免费申请：https://openrouter.ai/keys）"
                    ),
                )
            }
        },
    );
    if !settings.backups.is_empty() {
        let mut names = settings.backups.iter().map(|backup| backup.name.as_str()).collect::<Vec<_>>();
        names.dedup();
        line("backups", "备用", names.join(", "));
    }
    if let Some(proxy) = settings.proxy(&settings.base_url).filter(|_| !settings.test_mode) {
        let address = proxy.address();
        line("via", "经由", either(format!("the proxy {address}"), format!("代理 {address}")));
    }
    line(
        "debug",
        "调试",
        match (snapshot.debug, &settings.cache_dir) {
            (false, _) => either(
                "off (create an empty file DEBUG_MODE.txt to switch it on)",
                "关闭（创建空文件 DEBUG_MODE.txt 即可打开）",
            )
            .into(),
            (true, None) => either(
                "on; no files are saved (CACHE_DIR is not set)",
                "打开；不保存文件（没有设置 CACHE_DIR）",
            )
            .into(),
            (true, Some(dir)) => {
                let dir = dir.display();
                either(format!("on, files in {dir}"), format!("打开，文件保存在 {dir}"))
            }
        },
    );
    if snapshot.debug {
        line("panel", "面板", format!("{url}/debug"));
    }
}

/// Explains why listening failed. A port is often taken by this proxy itself, started twice.
fn explain(error: &ListenError, host: &str, opens_panel: bool) -> String {
    if let ListenError::Taken(address) = error
        && runs_at(*address)
    {
        let url = listen::url(host, address.port());
        if opens_panel {
            open_panel(&url);
        }
        return either(
            format!(
                "local-api-proxy is already running at {url}/v1. Use that one, or stop it first; to run a second one, \
                 give it another PORT."
            ),
            format!(
                "local-api-proxy 已经在 {url}/v1 运行。请直接使用它，或先停止它；要再运行一个，请设置另一个 PORT。"
            ),
        );
    }
    error.to_string()
}

/// Whether a proxy serves at the address of these settings.
pub fn is_running(settings: &Settings) -> bool {
    let host = match settings.listen.host.as_str() {
        "0.0.0.0" | "::" => "localhost",
        host => host,
    };
    let addresses = (host, settings.listen.port).to_socket_addrs();
    settings.listen.port != 0 && addresses.into_iter().flatten().any(runs_at)
}

fn runs_at(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, WHO_ARE_YOU_LIMIT)?;
        stream.set_read_timeout(Some(WHO_ARE_YOU_LIMIT))?;
        stream.set_write_timeout(Some(WHO_ARE_YOU_LIMIT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(&format!(r#""name":"{}""#, panel::NAME)))
}

/// Opens the panel in the browser, if the system has one.
fn open_panel(url: &str) {
    let (program, argument) = match std::env::consts::OS {
        "windows" => ("rundll32", Some("url.dll,FileProtocolHandler")),
        "macos" => ("open", None),
        _ => ("xdg-open", None),
    };
    let mut browser = Command::new(program);
    browser.args(argument).arg(format!("{url}/debug"));
    browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = browser.spawn() {
        say(either(
            format!("the panel is at {url}/debug; {program} can't be started to open it ({error})"),
            format!("面板地址：{url}/debug（无法运行 {program} 打开它：{error}）"),
        ));
    }
}

/// Prints what to write into which file of a tool, or of all, with the address of these settings.
pub fn connect(args: Args, tool: Option<&str>) -> ExitCode {
    let home = match home_folder(&args) {
        Ok(home) => home,
        Err(reason) => return fail(&reason),
    };
    let known = tool.map(|name| tools::find(name).ok_or(name)).transpose();
    let tool = match known {
        Ok(tool) => tool,
        Err(name) => {
            let names = tools::TOOLS.iter().map(|tool| tool.name).collect::<Vec<_>>().join(", ");
            return misused(&either(
                format!("{name} is not in the list. It has: {names}"),
                format!("列表中没有 {name}。列表中有：{names}"),
            ));
        }
    };
    // Errors in the settings are reported only where the proxy starts.
    console::hold();
    let settings = &Live::start(home, args).snapshot().settings;
    let url = listen::url(&settings.listen.host, settings.listen.port);
    print(&tools::connect::text(tool, &url, settings.proxy_api_key.is_some()))
}

/// Prints the output of a command. Nothing happens if nobody reads it.
pub fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints one sentence on what failed.
pub fn fail(reason: &str) -> ExitCode {
    complain(reason);
    ExitCode::FAILURE
}

/// Prints one sentence on what is wrong with the command line.
pub fn misused(reason: &str) -> ExitCode {
    complain(reason);
    ExitCode::from(MISUSED)
}

fn complain(reason: &str) {
    console::flush();
    let _ = writeln!(std::io::stderr(), "local-api-proxy: {reason}");
    #[cfg(windows)]
    if was_double_clicked() {
        // The window closes together with the program.
        let _ = write!(std::io::stderr(), "{}", either("\nPress Enter to close. ", "\n按回车关闭。"));
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

/// Whether Explorer has started this program, not a shell.
#[cfg(windows)]
fn was_double_clicked() -> bool {
    use winsafe::{HPROCESSLIST, co};
    let mut parents = std::collections::HashMap::new();
    let Ok(mut processes) = HPROCESSLIST::CreateToolhelp32Snapshot(co::TH32CS::SNAPPROCESS, None) else {
        return false;
    };
    for process in processes.iter_processes().map_while(Result::ok) {
        let name = process.szExeFile().to_ascii_lowercase();
        parents.insert(process.th32ProcessID, (process.th32ParentProcessID, name));
    }
    let own = parents.get(&std::process::id());
    own.and_then(|(parent, _)| parents.get(parent)).is_some_and(|(_, name)| name == "explorer.exe")
}
