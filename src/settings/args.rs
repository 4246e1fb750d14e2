//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use super::values::parse_host;
use crate::language::either;

/// Printed by `--help`; fits one screen.
pub const HELP: &str = "\
local-api-proxy: OpenRouter's free models for every OpenAI-compatible tool on this machine

Usage: local-api-proxy [OPTIONS]                     serve
       local-api-proxy run TOOL [ARGUMENTS ...]      start a tool through the proxy: claude, codex, opencode,
                                                     aider, qwen, gemini, crush, llm; nothing of it is changed
       local-api-proxy connect [TOOL]                what to write where, for each tool
       local-api-proxy autostart on|off|status       start with your session, without a window

  --dir DIR      home folder: where .env, DEBUG_MODE.txt and a relative CACHE_DIR are
                 (default: the current folder, unless only the executable's holds a .env)
  --host HOST    address to listen on (default: localhost, that is 127.0.0.1 and ::1)
  --port PORT    port to listen on (default: 5000; 0: any free one)
  --offline      answer from a built-in model, without network or key, to try things out
  --open         open the panel in the browser
  --help         print this
  --version      print the version and the commit that it was built from

Put your key into .env beside the executable:

  OPENROUTER_API_KEY=sk-or-v1-...          (free, from https://openrouter.ai/keys)

then point any OpenAI-compatible tool at http://localhost:5000/v1 with any API key and any model.
Settings are read again whenever .env is saved. An empty file DEBUG_MODE.txt beside it switches
debug mode on: see http://localhost:5000/debug
";

/// [`HELP`] in Chinese.
pub const HELP_IN_CHINESE: &str = "\
local-api-proxy：让本机的所有 AI 工具使用 OpenRouter 的免费模型

用法：local-api-proxy [选项]                          启动代理
      local-api-proxy run 工具 [参数 ...]             通过代理启动工具：claude、codex、opencode、aider、
                                                      qwen、gemini、crush、llm；不改动工具的任何文件
      local-api-proxy connect [工具]                  各个工具要写入的设置
      local-api-proxy autostart on|off|status         登录时自动启动，没有窗口

  --dir DIR      主文件夹：.env、DEBUG_MODE.txt 和相对路径的 CACHE_DIR 所在之处
                 （默认：当前文件夹；如果只有程序所在的文件夹中有 .env，则为后者）
  --host HOST    监听的地址（默认：localhost，即 127.0.0.1 和 ::1）
  --port PORT    监听的端口（默认：5000；0 表示任意空闲端口）
  --offline      由内置模型回答，不需要网络和密钥，用于试用
  --open         在浏览器中打开面板
  --help         显示本帮助
  --version      显示版本及其对应的提交

请把密钥写入程序旁边的 .env：

  OPENROUTER_API_KEY=sk-or-v1-...          （免费申请：https://openrouter.ai/keys）

然后把任何 OpenAI 兼容的工具指向 http://localhost:5000/v1，API 密钥和模型随意填写。
每次保存 .env 后设置立即生效。在它旁边创建空文件 DEBUG_MODE.txt 即可打开调试模式，
参见 http://localhost:5000/debug
";

/// Flags of the command line; each wins over the same setting in `.env`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Args {
    /// `--dir`: the home folder.
    pub dir: Option<PathBuf>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--offline`: the same as `TEST_MODE=true`.
    pub offline: bool,
    /// `--open`: the panel is opened in the browser.
    pub open: bool,
}

impl Args {
    /// Returns the value that a flag gives to this setting, if one does.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        match name {
            "HOST" => self.host.clone(),
            "PORT" => self.port.map(|port| port.to_string()),
            "TEST_MODE" => self.offline.then(|| "true".to_owned()),
            _ => None,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Serve(Args),
    /// `run`: start a tool with these arguments; without one, list them.
    Run(Args, Option<OsString>, Vec<OsString>),
    /// `connect`: print what to write where, for this tool or for all.
    Connect(Args, Option<String>),
    /// `autostart`.
    Autostart(Args, Autostart),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The action of `autostart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autostart {
    /// Start with the user's session from now on.
    On,
    /// Don't start with it any more.
    Off,
    /// Say whether it is on, and whether the proxy runs.
    Status,
}

/// Reads the command line, without the program's own name. An error is one sentence for the user.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut parsed = Args::default();
    let mut command = None;
    while let Some(arg) = parser.next().map_err(explain)? {
        match (command.as_deref(), arg) {
            (_, Short('h') | Long("help")) => return Ok(Command::Help),
            (_, Short('V') | Long("version")) => return Ok(Command::Version),
            (_, Long("offline")) => parsed.offline = true,
            (_, Long("open")) => parsed.open = true,
            (_, Long("dir")) => parsed.dir = Some(value(&mut parser)?.into()),
            (_, Long("host")) => {
                let host = value(&mut parser)?;
                let host = host.to_str().and_then(parse_host);
                parsed.host = Some(host.ok_or(either(
                    "--host needs localhost, an IP address or a host name, without a port (that is --port)",
                    "--host 需要 localhost、IP 地址或主机名，不带端口（端口用 --port）",
                ))?);
            }
            (_, Long("port")) => {
                let port = value(&mut parser)?;
                let port = port.to_str().and_then(|port| port.parse().ok());
                parsed.port = Some(port.ok_or(either(
                    "--port needs a number from 0 to 65535",
                    "--port 需要 0 到 65535 之间的数字",
                ))?);
            }
            (None, Value(word)) if COMMANDS.iter().any(|name| word == *name) => {
                command = word.into_string().ok()
            }
            // The arguments that follow are the tool's.
            (Some("run"), Value(tool)) => {
                let arguments = parser.raw_args().map_err(explain)?.collect();
                return Ok(Command::Run(parsed, Some(tool), arguments));
            }
            (Some("connect"), Value(tool)) => {
                return end(parser, Command::Connect(parsed, Some(tool.to_string_lossy().into_owned())));
            }
            (Some("autostart"), Value(word)) => {
                let action = match word.to_str() {
                    Some("on") => Autostart::On,
                    Some("off") => Autostart::Off,
                    Some("status") => Autostart::Status,
                    _ => return Err(autostart_usage()),
                };
                return end(parser, Command::Autostart(parsed, action));
            }
            (_, other) => return Err(explain(other.unexpected())),
        }
    }
    match command.as_deref() {
        None => Ok(Command::Serve(parsed)),
        Some("run") => Ok(Command::Run(parsed, None, Vec::new())),
        Some("connect") => Ok(Command::Connect(parsed, None)),
        Some(_) => Err(autostart_usage()),
    }
}

const COMMANDS: [&str; 3] = ["run", "connect", "autostart"];

/// Returns `command` if nothing follows.
fn end(mut parser: lexopt::Parser, command: Command) -> Result<Command, String> {
    match parser.next().map_err(explain)? {
        None => Ok(command),
        Some(more) => Err(explain(more.unexpected())),
    }
}

fn autostart_usage() -> String {
    either("autostart needs one of: on, off, status", "autostart 需要 on、off 或 status").to_owned()
}

fn value(parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(explain)
}

fn explain(error: lexopt::Error) -> String {
    use lexopt::Error::{MissingValue, UnexpectedArgument, UnexpectedOption, UnexpectedValue};
    let english = error.to_string();
    let chinese = match &error {
        MissingValue { option } => format!("选项 {} 缺少值", option.as_deref().unwrap_or_default()),
        UnexpectedOption(option) => format!("没有选项 {option}"),
        UnexpectedArgument(argument) => format!("多余的参数 {}", argument.display()),
        UnexpectedValue { option, .. } => format!("选项 {option} 不带值"),
        other => other.to_string(),
    };
    either(english, chinese)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Command, String> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn both_spellings_of_a_value() {
        let expected = Args { port: Some(8080), dir: Some("my folder".into()), ..Args::default() };
        let spaced = run(&["--port", "8080", "--dir", "my folder"]);
        assert_eq!(spaced, Ok(Command::Serve(expected.clone())));
        let joined = run(&["--port=8080", "--dir=my folder"]);
        assert_eq!(joined, Ok(Command::Serve(expected)));
    }

    #[test]
    fn what_follows_a_tool_is_the_tools() {
        let args = Args { port: Some(1), ..Args::default() };
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let expected = Command::Run(args, Some("claude".into()), words(&["-p", "--port=2", "--", "hi"]));
        assert_eq!(
            run(&["run", "--port", "1", "claude", "-p", "--port=2", "--", "hi"]),
            Ok(expected.clone())
        );
        assert_eq!(run(&["--port", "1", "run", "claude", "-p", "--port=2", "--", "hi"]), Ok(expected));
        assert_eq!(run(&["connect"]), Ok(Command::Connect(Args::default(), None)));
        assert!(run(&["connect", "codex", "x"]).unwrap_err().contains('x'));
        assert!(run(&["autostart"]).unwrap_err().contains("status"));
        assert!(run(&["start"]).unwrap_err().contains("start"));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(run(&["--port", "65536"]).unwrap_err().contains("65535"));
        assert!(run(&["--prot", "1"]).unwrap_err().contains("--prot"));
        assert!(run(&["--dir"]).unwrap_err().contains("--dir"));
        for host in ["", "localhost:5000", "a b"] {
            assert!(run(&["--host", host]).unwrap_err().contains("--host needs"), "{host}");
        }
    }
}
