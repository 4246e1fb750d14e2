//! Section 12: `run`, `connect` and `autostart`.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::fixture::*;

/// A tool that says what it was given, calls the proxy and ends with 7.
const TOOL: &str = r#"#!/bin/sh
env
for argument; do echo "argument: $argument"; done
root=${ANTHROPIC_BASE_URL:-${GOOGLE_GEMINI_BASE_URL:-${OPENAI_BASE_URL%/v1}}}
curl -s --noproxy '*' "$root/v1/chat/completions" -H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -d '{"messages":[{"role":"user","content":"hello"}]}'
echo
for file in "$2" "$GEMINI_CLI_HOME/.gemini/settings.json"; do [ -f "$file" ] && cat "$file"; done
exit 7
"#;

/// The home folder's `bin` has these programs, and `PATH` nothing before them.
fn with_tools(start: Start, tools: &[(&str, &str)]) -> Start {
    let bin = start.folder("bin");
    for (name, text) in tools {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let temporary = start.folder("temporary");
    start.environment("TMPDIR", temporary.to_str().unwrap()).environment("SECRET_OF_MINE", "kept")
}

fn run(start: &Start, before: &[&str], words: &[&str]) -> Output {
    let mut command = start.command();
    let bin = start.home().join("bin");
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", bin.display()));
    command.args(before).arg("run").args(words);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_tool_with_a_proxy_of_its_own() {
    let upstream = Upstream::saying("hi from the model");
    let settings = env(&upstream, "CACHE_DIR=cache\nPORT=1");
    let start = with_tools(Start::new().env_file(settings), &[("claude", TOOL)]);
    let before = names_in(start.home());
    let output = run(&start, &[], &["claude", "-p", "hello world"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(said.contains("hi from the model"), "{said}");
    assert_eq!(text(&output.stderr), "");
    for line in [
        "ANTHROPIC_AUTH_TOKEN=x",
        "CLAUDE_CODE_DISABLE_TERMINAL_TITLE=1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
        "SECRET_OF_MINE=kept",
        "argument: --settings",
        "argument: -p",
        "argument: hello world",
        "NO_PROXY=localhost,localhost,127.0.0.1,::1",
    ] {
        assert!(said.lines().any(|l| l == line), "{line} in {said}");
    }
    assert!(!said.contains("ANTHROPIC_BASE_URL=http://localhost:1\n"), "a port of its own: {said}");
    assert!(!said.contains("local-api-proxy 0"), "it keeps out of the terminal: {said}");
    assert!(said.contains(r#""ANTHROPIC_AUTH_TOKEN": "x""#), "the settings that win over the user's: {said}");
    assert!(is_empty(&start.home().join("temporary")), "what was written for the tool is gone");
    let log = fs::read_to_string(start.home().join("cache/run.log")).unwrap();
    assert!(log.contains("200 some/model:free"), "{log}");
    let mut after = names_in(start.home());
    after.retain(|name| name != "cache");
    assert_eq!(after, before);
    upstream.wait_for(1);
}

#[test]
fn a_tool_with_the_proxy_that_runs() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "PROXY_API_KEY=the-proxy's-key");
    // It has settings of its own, with the same address and key.
    let settings = format!(
        "PORT={}\nPROXY_API_KEY=the-proxy's-key\nCACHE_DIR=cache\nOPENROUTER_API_KEY={KEY}",
        proxy.port
    );
    let start = with_tools(Start::new().env_file(settings), &[("claude", TOOL)]);
    let output = run(&start, &[], &["claude"]);
    let said = text(&output.stdout);
    assert!(said.contains(&format!("ANTHROPIC_BASE_URL=http://localhost:{}\n", proxy.port)), "{said}");
    assert!(
        said.contains("ANTHROPIC_AUTH_TOKEN=the-proxy's-key\n") && said.contains(r#""content":"hi""#),
        "{said}"
    );
    proxy.wait_for_console("200 some/model:free");
    assert!(!start.home().join("cache").exists(), "no proxy of its own");
}

#[test]
fn a_home_of_its_own_goes_with_the_tool() {
    let upstream = Upstream::saying("hi");
    let start = with_tools(Start::new().env_file(env(&upstream, "PORT=1")), &[("gemini", TOOL)]);
    let output = run(&start, &[], &["gemini"]);
    let said = text(&output.stdout);
    assert!(said.contains(r#""selectedType":"gemini-api-key""#), "{said}");
    assert!(is_empty(&start.home().join("temporary")));
}

#[test]
fn how_a_tool_ends() {
    let upstream = Upstream::saying("hi");
    let killed = "#!/bin/sh\nkill -KILL $$\n";
    let asked = "#!/bin/sh\ntrap 'echo asked to end; exit 3' TERM\necho ready\nkill -TERM $PPID\nwhile :; do sleep 0.05; done\n";
    // Ctrl+C is sent to both; the tool makes nothing of it.
    let goes_on = "#!/bin/sh\ntrap '' INT\nkill -INT $PPID\nsleep 0.1\nexit 5\n";
    let not_executable = "\u{7f}ELF nothing that the system can run\n";
    let tools = [("claude", killed), ("codex", asked), ("aider", goes_on), ("llm", not_executable)];
    let start = with_tools(Start::new().env_file(env(&upstream, "PORT=1")), &tools);
    assert_eq!(run(&start, &[], &["claude"]).status.code(), Some(128 + 9));
    let output = run(&start, &[], &["codex"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout).contains("asked to end")),
        (Some(3), true),
        "{output:?}"
    );
    assert_eq!(run(&start, &[], &["aider"]).status.code(), Some(5));
    let output = run(&start, &[], &["llm"]);
    assert_eq!(output.status.code(), Some(126), "{output:?}");
}

#[test]
fn a_tool_that_is_unknown_or_missing() {
    let start = with_tools(Start::new().env_file("TEST_MODE=true"), &[]);
    for words in [&["emacs"][..], &[]] {
        let output = run(&start, &[], words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        for name in ["claude", "codex", "opencode", "aider", "qwen", "gemini", "crush", "llm"] {
            assert!(said.contains(&format!("\n  {name} ")), "{said}");
        }
        assert!(said.contains("npm install -g @anthropic-ai/claude-code"), "{said}");
    }
    let output = run(&start, &[], &["crush"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("npm install -g @charmland/crush"), "{output:?}");
}

#[test]
fn without_network_or_key() {
    let start = with_tools(Start::new(), &[("claude", TOOL)]);
    let output = run(&start, &["--offline"], &["claude"]);
    assert!(text(&output.stdout).contains("chat.completion"), "{output:?}");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn connect_says_what_to_write_where() {
    let start = Start::new().env_file("PORT=5123\nPROXY_API_KEY=not-to-be-shown\nOPENROUTER_API_KEY=x");
    let connect = |words: &[&str]| start.command().arg("connect").args(words).output().unwrap();
    let all = text(&connect(&[]).stdout);
    for part in [
        "Claude Code",
        "~/.codex/config.toml",
        "Cherry Studio",
        "\"ANTHROPIC_BASE_URL\": \"http://localhost:5123\"",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert!(
        !all.contains("not-to-be-shown") && all.contains("<PROXY_API_KEY>") && !all.contains("5000"),
        "{all}"
    );
    let one = text(&connect(&["codex"]).stdout);
    assert!(one.contains("base_url = \"http://localhost:5123/v1\"") && !one.contains("Claude"), "{one}");
    let unknown = connect(&["emacs"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("codex"), "{unknown:?}");
}

/// Whatever a session there is on this machine isn't asked: nothing is in `PATH`.
#[cfg(target_os = "linux")]
#[test]
fn autostart_leaves_nothing_behind() {
    let start = Start::new().env_file("PORT=1\nTEST_MODE=true");
    let user = start.folder("my 家");
    let autostart = |action: &str| {
        let mut command = start.command();
        command.env("HOME", &user).env("PATH", "").args(["autostart", action]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(&output.stdout)
    };
    assert!(autostart("status").starts_with("off\nnot running"));
    assert!(autostart("on").starts_with("on: "));
    let unit = user.join(".config/systemd/user/local-api-proxy.service");
    let written = fs::read_to_string(&unit).unwrap();
    assert!(written.contains(&format!("\" \"--dir\" \"{}\"\n", start.home().display())), "{written}");
    let link = user.join(".config/systemd/user/default.target.wants/local-api-proxy.service");
    assert_eq!(fs::canonicalize(link).unwrap(), fs::canonicalize(&unit).unwrap());
    let status = autostart("status");
    assert!(status.starts_with("on\n") && status.contains(unit.to_str().unwrap()), "{status}");
    fs::write(&unit, written.replace("--dir", "--elsewhere")).unwrap();
    assert!(autostart("status").starts_with("on, but for another"));
    assert!(autostart("off").starts_with("off"));
    assert!(is_empty(&user), "{:?}", names_in(&user));
    assert!(autostart("off").starts_with("off"));

    let mut wrong = start.command();
    assert_eq!(wrong.args(["autostart", "maybe"]).output().unwrap().status.code(), Some(2));
}

/// As far as there is a systemd that says whether the unit is one.
#[cfg(target_os = "linux")]
#[test]
fn systemd_takes_the_unit() {
    let start = Start::new().env_file("PORT=1\nTEST_MODE=true");
    let user = start.folder("a \"b\" 50% $HOME 家");
    let mut command = start.command();
    command.env("HOME", &user).env("PATH", "").args(["autostart", "on"]);
    assert!(command.output().unwrap().status.success());
    let unit = user.join(".config/systemd/user/local-api-proxy.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--user"]).arg(unit).env("XDG_RUNTIME_DIR", start.folder("runtime"));
    if let Ok(output) = analyze.output() {
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
