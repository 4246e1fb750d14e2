//! The target of a measurement: a process with a port, its memory and its CPU time.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{Load, Report};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_local-api-proxy");
/// The length of a clock tick in `/proc/PID/stat`: there are 100 a second on every Linux of today.
const TICK_US: f64 = 10_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The upstream itself.
    Direct,
    Nginx,
    Proxy,
}

pub struct Upstream {
    child: Child,
    pub port: u16,
}

impl Upstream {
    pub fn start() -> Self {
        let mut child = ourselves().arg("upstream").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ourselves() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

pub fn run_load(port: u16, load: &Load) -> Report {
    let output = ourselves().arg("load").args(load.args(port)).stderr(Stdio::inherit()).output().unwrap();
    Report::parse(&String::from_utf8(output.stdout).unwrap())
}

pub fn nginx_is_there() -> bool {
    Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

pub fn executable_size() -> u64 {
    fs::metadata(EXECUTABLE).unwrap().len()
}

pub struct Target {
    pub port: u16,
    child: Option<Child>,
    dir: PathBuf,
}

impl Target {
    /// Starts the target. Also returns how long its first answer took.
    pub fn start(kind: Kind, upstream: u16, settings: &str) -> (Self, Duration) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("local-api-proxy-bench-{port}"));
        fs::create_dir_all(&dir).unwrap();
        let mut command = match kind {
            Kind::Direct => return (Self { port: upstream, child: None, dir }, Duration::ZERO),
            Kind::Nginx => {
                fs::write(dir.join("nginx.conf"), nginx_conf(port, upstream)).unwrap();
                let mut command = Command::new("nginx");
                command.arg("-p").arg(&dir).args(["-c", "nginx.conf", "-e", "error.log"]);
                command
            }
            Kind::Proxy => {
                let (settings, debug) = match settings.strip_suffix("DEBUG") {
                    Some(settings) => (settings, true),
                    None => (settings, false),
                };
                let base = format!("OPENROUTER_BASE_URL=http://127.0.0.1:{upstream}/v1");
                fs::write(dir.join(".env"), format!("OPENROUTER_API_KEY=sk-or-v1-x\n{base}\n{settings}\n"))
                    .unwrap();
                if debug {
                    fs::write(dir.join("DEBUG_MODE.txt"), "").unwrap();
                }
                let mut command = Command::new(EXECUTABLE);
                command.arg("--dir").arg(&dir).args(["--port", &port.to_string()]);
                command
            }
        };
        let began = Instant::now();
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let target = Self { port, child: Some(child), dir };
        while answer(port).is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        (target, began.elapsed())
    }

    /// Returns the process and its children (nginx's workers).
    fn processes(&self) -> Vec<u32> {
        let Some(child) = &self.child else { return Vec::new() };
        let id = child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id).chain(children.split_whitespace().filter_map(|id| id.parse().ok())).collect()
    }

    /// Returns user and system time so far.
    pub fn cpu_us(&self) -> f64 {
        let ticks = |id: u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
            let after_name = &stat[stat.rfind(')').unwrap()..];
            let field = |n: usize| after_name.split(' ').nth(n).unwrap().parse::<f64>().unwrap();
            field(12) + field(13)
        };
        self.processes().into_iter().map(ticks).sum::<f64>() * TICK_US
    }

    pub fn memory_mb(&self) -> f64 {
        self.status("VmRSS:")
    }

    pub fn peak_mb(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> f64 {
        let kib = |id: u32| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
        };
        self.processes().into_iter().map(kib).sum::<f64>() / 1000.0
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn answer(port: u16) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut byte = [0];
    (stream.read(&mut byte).ok()? == 1).then_some(())
}

fn nginx_conf(port: u16, upstream: u16) -> String {
    format!(
        "daemon off; master_process on; worker_processes 2; pid nginx.pid; error_log error.log crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; client_max_body_size 64m; client_body_buffer_size 64k; keepalive_requests 1000000;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
            upstream up {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location = /health {{ return 200; }}
                location / {{
                    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";
                    proxy_buffering off; proxy_request_buffering off;
                }}
            }}
        }}"
    )
}
