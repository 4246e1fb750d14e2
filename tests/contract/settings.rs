//! Section 4: settings.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::fixture::*;

/// Writes `text` to a file in one of the ways that editors have.
fn write(dir: &std::path::Path, name: &str, text: &str, way: usize) {
    let path = dir.join(name);
    match way {
        0 => {
            // In place: the new text over the old one, then the length.
            use std::io::Write;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_len(text.len() as u64).unwrap();
        }
        1 => fs::write(&path, text).unwrap(),
        2 => {
            let new = dir.join("new-file");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        }
        _ => {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
        }
    }
}

#[test]
fn the_very_next_request_uses_the_new_settings() {
    let upstream = Upstream::saying("hi");
    for way in 0..4 {
        let proxy = Proxy::before(&upstream, "MODEL=m/start:free");
        let mut client = proxy.connect();
        for number in 100..350 {
            // Always of the same length, often within one tick of the file system's clock.
            write(&proxy.dir, ".env", &env(&upstream, &format!("MODEL=m/{number}:free")), way);
            client.chat("{}");
            assert_eq!(upstream.last().json()["model"], format!("m/{number}:free"), "way {way}");
        }
    }
}

#[test]
fn the_very_next_request_knows_the_debug_mode() {
    let proxy = Start::new().arg("--offline").start();
    let file = proxy.dir.join("DEBUG_MODE.txt");
    for _ in 0..100 {
        fs::write(&file, "").unwrap();
        assert_eq!(proxy.get("/debug").status, 200);
        fs::remove_file(&file).unwrap();
        proxy.get("/debug").assert_error(403, "debug_disabled");
    }
    proxy.wait_for_console("debug mode is on");
}

#[test]
fn debug_mode_is_a_setting_too() {
    let proxy = Start::new().arg("--offline").env_file("DEBUG_MODE=true\n").start();
    assert_eq!(proxy.get("/debug").status, 200);
    proxy.write_env("DEBUG_MODE=false\n");
    proxy.get("/debug").assert_error(403, "debug_disabled");
    proxy.wait_for_console("debug mode is off");
    fs::write(proxy.dir.join("DEBUG_MODE.txt"), "").unwrap();
    assert_eq!(proxy.get("/debug").status, 200, "either will do");
    proxy.write_env("DEBUG_MODE=true\n");
    assert_eq!(proxy.get("/debug").status, 200);
    fs::remove_file(proxy.dir.join("DEBUG_MODE.txt")).unwrap();
    assert_eq!(proxy.get("/debug").status, 200);
}

#[test]
fn the_panel_says_where_a_setting_comes_from_and_what_it_means() {
    let start = Start::new().arg("--offline").env_file("DEBUG_MODE=true\nRETRIES=3\nMAX_WAIT=never\n");
    let proxy = start.environment("MODEL", "a/b:free").start();
    let answer = proxy.get("/debug/settings").json();
    let of = |name: &str| {
        let mut settings = answer["settings"].as_array().unwrap().iter();
        settings.find(|setting| setting["name"] == name).unwrap().clone()
    };
    for (name, value, default, source) in [
        ("RETRIES", "3", "2", "file"),
        ("MODEL", "a/b:free", "openrouter/free", "environment"),
        ("PORT", &proxy.port.to_string(), "5000", "flag"),
        ("TEST_MODE", "true", "false", "flag"),
        ("QUEUE", "256", "256", "default"),
        ("MAX_WAIT", "65", "65", "kept"),
    ] {
        let setting = of(name);
        assert_eq!((&setting["value"], &setting["default"]), (&value.into(), &default.into()), "{setting}");
        assert_eq!(setting["source"], source, "{setting}");
        assert_eq!(setting["needs_restart"], matches!(name, "PORT" | "QUEUE"));
        assert!(setting["meaning"]["en"].is_string() && setting["meaning"]["zh"].is_string());
    }
}

#[test]
fn a_half_written_file_breaks_no_request() {
    let upstream = Upstream::start(|request, answer| {
        let right = request.header("authorization") == Some(&format!("Bearer {KEY}"));
        answer.json(if right { 200 } else { 401 }, &completion("hi"));
    });
    let proxy = Proxy::before(&upstream, "");
    let text = env(&upstream, "MODEL=a/b:free");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut client = proxy.connect();
            let mut asked = 0;
            while !done.load(Ordering::SeqCst) {
                assert_eq!(client.chat(HELLO).status, 200);
                asked += 1;
            }
            asked
        });
        let path = proxy.dir.join(".env");
        for cut in (0..text.len()).step_by(7) {
            for part in ["", &text[..cut]] {
                fs::write(&path, part).unwrap();
                thread::yield_now();
            }
            fs::write(&path, &text).unwrap();
            fs::remove_file(&path).unwrap();
            thread::yield_now();
            fs::write(&path, &text).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        assert!(asking.join().unwrap() > 0);
    });
}

#[test]
fn removing_the_key_takes_it_away_in_the_end() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    fs::write(proxy.dir.join(".env"), "").unwrap();
    assert_eq!(proxy.chat(HELLO).status, 200, "an editor may be in the middle of saving");
    eventually("the end of the grace", || (proxy.chat(HELLO).status != 200).then_some(()));
    proxy.wait_for_console("OPENROUTER_API_KEY = not set");
}

/// A file caught while it is written may lack the key, or hold its beginning.
#[test]
fn a_key_that_vanishes_counts_after_two_seconds_a_new_one_at_once() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let utf16 =
        |text: &str| [vec![0xFF, 0xFE], text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat();
    let rest = format!("OPENROUTER_BASE_URL={}\r\n", upstream.url());
    let whole = utf16(&format!("# \u{94a5}\r\nOPENROUTER_API_KEY={KEY}\r\n{rest}"));
    let path = proxy.dir.join(".env");
    let key_ends = utf16(&format!("# \u{94a5}\r\nOPENROUTER_API_KEY={KEY}")).len();
    // Every length counts: by the half of a character, the half of a pair of them, within the key's name, within the key.
    for len in (1..key_ends).step_by(3) {
        fs::write(&path, &whole).unwrap();
        assert_eq!(proxy.chat(HELLO).status, 200);
        fs::write(&path, &whole[..len]).unwrap();
        assert_eq!(proxy.chat(HELLO).status, 200, "with the first {len} bytes");
        assert_eq!(upstream.last().header("authorization"), Some(&*format!("Bearer {KEY}")));
    }
    // Another key has been written to its end.
    proxy.write_env(&format!("OPENROUTER_API_KEY=sk-or-v1-another\n{rest}"));
    assert_eq!(proxy.chat(HELLO).status, 200);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer sk-or-v1-another"));
    // Taken away, from a file that is whole.
    proxy.write_env(&rest);
    assert_eq!(proxy.chat(HELLO).status, 200, "it may be written yet");
    eventually("the key to be gone", || (proxy.chat(HELLO).status == 401).then_some(()));
    proxy.chat(HELLO).assert_error(401, "missing_api_key");
}

type Encode<'a> = &'a dyn Fn(&str) -> Vec<u8>;

#[test]
fn every_encoding_and_slip() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let lines = format!(
        "# 注释\r\nexport OPENROUTER_API_KEY = \"{KEY}\"\r\nOPENROUTER_BASE_URL='{}'  # comment\r\nnonsense\r\nMODEL=x/NUMBER:free",
        upstream.url()
    );
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let encodings: [Encode; 4] = [
        &|text| text.into(),
        &|text| [&[0xEF, 0xBB, 0xBF], text.as_bytes()].concat(),
        &|text| [vec![0xFF, 0xFE], utf16(text)].concat(),
        &|text| [vec![0xFE, 0xFF], text.encode_utf16().flat_map(u16::to_be_bytes).collect()].concat(),
    ];
    for (number, encode) in encodings.iter().enumerate() {
        let text = lines.replace("NUMBER", &number.to_string());
        fs::write(proxy.dir.join(".env"), encode(&text)).unwrap();
        assert_eq!(proxy.chat("{}").status, 200);
        assert_eq!(upstream.last().json()["model"], format!("x/{number}:free"));
        assert_eq!(upstream.last().header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    }
    proxy.wait_for_console(".env line 4 can't be understood and is skipped");
}

#[test]
fn out_of_range_keeps_the_last_good_value_and_says_so() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MODEL=good/one:free");
    proxy.write_env(&env(&upstream, "MODEL=openai/gpt-4o\nRETRIES=1000"));
    proxy.chat("{}");
    assert_eq!(upstream.last().json()["model"], "good/one:free");
    proxy.wait_for_console("MODEL must be");
    proxy.wait_for_console("RETRIES must be a number from 0 to 10");
}

#[test]
fn the_console_names_what_changed() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    // Without a request: the watcher notices.
    proxy.write_env(&env(&upstream, "MODEL=a/b:free\nWORKERS=3").replace(KEY, "sk-or-v1-another-key-9876"));
    proxy.wait_for_console("MODEL = a/b:free");
    proxy.wait_for_console("OPENROUTER_API_KEY = ...9876");
    proxy.wait_for_console("WORKERS = 3 (needs a restart)");
    assert!(!proxy.console().contains("another-key"));
}

#[test]
fn requests_under_way_finish_with_what_they_began_with() {
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let asked = std::sync::Mutex::new(asked);
    let upstream = Upstream::start(move |request, answer| {
        if request.streams() {
            answer.stream_head();
            answer.piece(&delta("begun "));
            asked.lock().unwrap().recv().unwrap();
            answer.piece(&last_delta());
            answer.piece("data: [DONE]\n\n");
            answer.end();
        } else {
            answer.say("hi")
        }
    });
    let proxy = Proxy::before(&upstream, "");
    let mut client = proxy.connect();
    client.send_chat(HELLO_STREAM);
    client.read_head_and_until("begun");
    proxy.write_env(&env(&upstream, "UPSTREAM_TIMEOUT=9").replace(KEY, "sk-or-v1-another-key"));
    proxy.chat(HELLO);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer sk-or-v1-another-key"));
    ask.send(()).unwrap();
    assert!(client.rest_of_chunks().ends_with("data: [DONE]\n\n"));
}

#[test]
fn the_environment_fills_in_what_the_file_leaves_out() {
    let upstream = Upstream::saying("hi");
    let start = Start::new().env_file("MODEL=from/file:free\n");
    let proxy = start
        .environment("OPENROUTER_API_KEY", "sk-or-from-environment")
        .environment("OPENROUTER_BASE_URL", &upstream.url())
        .environment("MODEL", "from/environment:free")
        .start();
    proxy.chat("{}");
    let sent = upstream.last();
    assert_eq!(sent.json()["model"], "from/file:free");
    assert_eq!(sent.header("authorization"), Some("Bearer sk-or-from-environment"));
}

/// Nobody wants to read it at every save of another setting; a new slip is told.
#[test]
fn a_slip_is_said_once() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "RETRYS=3\nHTTP_PROXY=h:\nnonsense");
    for retries in 1..=3 {
        proxy.write_env(&env(
            &upstream,
            &format!("RETRYS=3\nHTTP_PROXY=h:\nnonsense\nRETRIES={retries}\nQUEUE=x{retries}"),
        ));
        proxy.chat(HELLO).assert_status(200);
    }
    proxy.wait_for_console("RETRIES = 3");
    let console = proxy.console();
    let said = ["RETRYS is no setting", "HTTP_PROXY must be", "can't be understood", "QUEUE must be"];
    assert_eq!(said.map(|text| console.matches(text).count()), [1, 1, 1, 3], "{console}");
}

#[test]
fn misnamed_files_get_a_hint() {
    let proxy = Start::new().file(".env.txt", "A=1").file("DEBUG_MODE.txt.txt", "").start();
    proxy.wait_for_console("found .env.txt");
    proxy.wait_for_console("found DEBUG_MODE.txt.txt");
    // Also where there is another one, without a key.
    let proxy = Start::new().env_file("OPENROUTER_API_KEY=").file(".env.txt", "OPENROUTER_API_KEY=x").start();
    proxy.wait_for_console("found .env.txt");
}

#[test]
fn localhost_is_both_addresses() {
    let proxy = Start::new().arg("--offline").start();
    for host in ["127.0.0.1", "::1"] {
        std::net::TcpStream::connect((host, proxy.port)).unwrap();
    }
}

#[test]
fn a_taken_port_is_said_in_one_sentence() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(other) = std::net::TcpListener::bind(address) else {
            continue;
        };
        let port = other.local_addr().unwrap().port().to_string();
        let said = Start::new().arg("--offline").arg("--port").arg(&port).refused();
        assert!(said.contains(&format!("port {port} is taken")), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
    let first = Start::new().arg("--offline").start();
    let said = Start::new().arg("--offline").arg("--port").arg(&first.port.to_string()).refused();
    assert!(said.contains(&format!("already running at http://localhost:{}/v1", first.port)), "{said}");

    let said = Start::new()
        .arg("--offline")
        .arg("--host")
        .arg("192.0.2.1")
        .environment("PROXY_API_KEY", "k")
        .refused();
    assert!(said.contains("192.0.2.1 is not an address of this machine"), "{said}");
    let said = Start::new().arg("--prot=1").refused();
    assert!(said.contains("--prot") && said.contains("--help"), "{said}");
}

#[test]
fn the_home_folder_is_where_the_settings_are() {
    let upstream = Upstream::saying("hi");
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".env"), env(&upstream, "CACHE_DIR=my cache")).unwrap();
    fs::write(home.path().join("DEBUG_MODE.txt"), "").unwrap();
    // The current folder holds a `.env`: no --dir is needed.
    let start = Start::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_local-api-proxy"));
    command.args(["--port", "0"]).current_dir(home.path()).env_clear().stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    while !line.contains("/v1") {
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    }
    let port = line.rsplit_once(':').unwrap().1.trim().strip_suffix("/v1").unwrap().parse().unwrap();
    assert_eq!(Connection::to(port).chat(HELLO).status, 200);
    eventually("the files", || (names_in(&home.path().join("my cache")).len() == 2).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(start);
}

/// A setting that can't be used as it stands is named once, with what counts in its place.
#[test]
fn what_cannot_be_used_is_said_with_what_counts() {
    let upstream = Upstream::saying("hi");
    let bad = "HTTP_PROXY=127.0.0.1:notaport\nHTTPS_PROXY=localhost:99999\nSSL_CERT_FILE=broken.pem\nPORT=70000\nFALLBACK_MODELS=a:free,openai/gpt-4o,b:free\nRETRIES=many\n";
    let start = Start::new().env_file(env(&upstream, bad));
    let proxy =
        start.file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").start();
    for (setting, counts) in [
        ("HTTP_PROXY must be", "not set"),
        ("HTTPS_PROXY must be", "not set"),
        ("SSL_CERT_FILE must be", "not set"),
        ("PORT must be", "0"),
        ("RETRIES must be", "2"),
        ("FALLBACK_MODELS: openai/gpt-4o", ""),
    ] {
        proxy.wait_for_console(setting);
        let console = proxy.console();
        let lines = console.lines().filter(|line| line.contains(setting)).collect::<Vec<_>>();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with(counts) && !lines[0].contains("as it was"), "{lines:?}");
    }
    assert_eq!(proxy.chat(HELLO).status, 200);
    proxy.write_env(&env(&upstream, "RETRIES=1"));
    proxy.wait_for_console("RETRIES = 1");
    proxy.write_env(&env(&upstream, "RETRIES=-1"));
    proxy.wait_for_console("it stays as it was: 1");
}

#[test]
fn slips_in_the_file_get_the_sentence_that_mends_them() {
    let slips = "sk-or-v1-secret-key-1234\nMODEL: a/b:free\nRETRYS=3\nOPENROUTER_API_KEY=sk-or-v1-...\n";
    let proxy = Start::new().env_file(slips).start();
    for said in [
        ".env line 1 is only a key: write OPENROUTER_API_KEY=",
        ".env line 2 is skipped: write MODEL=value",
        "RETRYS is no setting and isn't used: RETRIES is one",
        "OPENROUTER_API_KEY must be your own key",
    ] {
        proxy.wait_for_console(said);
    }
    assert!(!proxy.console().contains("secret"));
    proxy.chat(HELLO).assert_error(401, "missing_api_key");

    let start = Start::new();
    start.folder(".env");
    let proxy = start.start();
    proxy.wait_for_console(".env can't be read: it is a folder");
    proxy.chat(HELLO).assert_error(401, "missing_api_key");
    let said = Start::new().arg("--host").arg("").refused();
    assert!(said.contains("--host needs localhost"), "{said}");
}

/// Whoever reads Chinese gets no line in English.
#[test]
fn the_console_is_chinese_where_the_system_is() {
    let reset = now_ms() + 3_600_000;
    let upstream = Upstream::start(move |request, answer| {
        match request.number {
        1 => answer.json(503, r#"{"error":{"code":503,"message":"忙"}}"#),
        2 => answer.json(429, &format!(r#"{{"error":{{"code":429,"message":"忙","metadata":{{"headers":{{"X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}"}}}}}}}}"#)),
        _ => answer.fitting(request, "hi"),
    }
    });
    let start = Start::new().env_file(env(&upstream, "RETRYS=1\nMODEL: x\nnonsense")).file(".env.txt", "");
    let mut proxy = start.environment("LANG", "zh_CN.UTF-8").start();
    proxy.chat(r#"{"model":"gpt-4o","messages":[]}"#);
    proxy.chat("'{messages:[]}'");
    proxy.get("/nowhere");
    proxy.get("/nowhere");
    fs::write(proxy.dir.join("DEBUG_MODE.txt"), "").unwrap();
    proxy.write_env(&env(&upstream, "RETRIES=x\nWORKERS=3\nMODEL=a/b:free"));
    proxy.chat(HELLO);
    proxy.write_env("OPENROUTER_BASE_URL=http://127.0.0.1:1/v1\nOPENROUTER_API_KEY=sk-or-v1-...\nRETRIES=1");
    proxy.chat(HELLO);
    proxy.write_env(
        "OPENROUTER_BASE_URL=http://127.0.0.1:1/v1\nOPENROUTER_API_KEY=sk-or-v1-0a1b2c\nRETRIES=1",
    );
    proxy.chat(HELLO);
    fs::remove_file(proxy.dir.join("DEBUG_MODE.txt")).unwrap();
    proxy.wait_for_console("调试模式已关闭");
    proxy.signal("TERM");
    proxy.wait();
    let console = proxy.console();
    let chinese = |line: &&str| line.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    let lines = console.lines().filter(|line| !line.starts_with("local-api-proxy "));
    let english = lines.filter(|line| !chinese(line)).collect::<Vec<_>>();
    assert!(console.lines().count() > 12 && english.is_empty(), "{english:#?} in\n{console}");
    let latin = console.split(|c: char| !c.is_ascii_lowercase() && c != ' ' && c != '\'');
    let mut texts = latin.map(str::trim).filter(|text| !text.starts_with("curl http"));
    let sentence = texts.find(|text| text.split_whitespace().count() > 1);
    assert_eq!(sentence, None, "in\n{console}");
    let said = Start::new().environment("LANG", "zh_CN.UTF-8").arg("--prot=1").refused();
    assert!(said.contains("没有选项"), "{said}");
}

#[cfg(unix)]
fn make_pipe(path: &std::path::Path) {
    let _ = fs::remove_file(path);
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// 1Password's local `.env` is a pipe, of which each opening asks the user.
#[cfg(unix)]
#[test]
fn a_pipe_is_read_once_and_holds_nobody_up() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MODEL=a/b:free");
    let pipe = proxy.dir.join(".env");
    // Made in the file's place, as `mv` does it.
    let made = proxy.dir.join("made");
    make_pipe(&made);
    fs::rename(&made, &pipe).unwrap();
    for _ in 0..3 {
        assert_eq!(proxy.get("/health").status, 200);
        proxy.chat("{}").assert_status(200);
        assert_eq!(upstream.last().json()["model"], "a/b:free", "what was good last");
    }
    proxy.wait_for_console(".env is a pipe: it is read once");
    fs::write(&pipe, env(&upstream, "MODEL=c/d:free")).unwrap();
    proxy.wait_for_console("MODEL = c/d:free");
    proxy.chat("{}").assert_status(200);
    assert_eq!(upstream.last().json()["model"], "c/d:free");
    for _ in 0..3 {
        proxy.chat("{}").assert_status(200);
    }
    assert_eq!(proxy.console().matches("is a pipe").count(), 1, "nobody opens it again");
    // Another one is another file.
    make_pipe(&made);
    fs::rename(&made, &pipe).unwrap();
    proxy.chat("{}").assert_status(200);
    fs::write(&pipe, env(&upstream, "MODEL=e/f:free")).unwrap();
    eventually("the new settings", || {
        proxy.chat("{}").assert_status(200);
        (upstream.last().json()["model"] == "e/f:free").then_some(())
    });
}

#[cfg(unix)]
#[test]
fn it_starts_with_a_pipe_whether_or_not_somebody_writes() {
    let upstream = Upstream::saying("hi");
    let start = Start::new();
    let pipe = start.folder("x").parent().unwrap().join(".env");
    make_pipe(&pipe);
    let text = env(&upstream, "MODEL=a/b:free");
    let (path, written) = (pipe.clone(), text.clone());
    let writer = thread::spawn(move || fs::write(path, written).unwrap());
    let proxy = start.start();
    writer.join().unwrap();
    proxy.chat("{}").assert_status(200);
    assert_eq!(upstream.last().json()["model"], "a/b:free");

    let start = Start::new();
    let pipe = start.folder("x").parent().unwrap().join(".env");
    make_pipe(&pipe);
    let proxy = start.start();
    proxy.wait_for_console("is a pipe: it is read once");
    proxy.chat(HELLO).assert_error(401, "missing_api_key");
    fs::write(&pipe, text).unwrap();
    eventually("the settings", || (proxy.chat(HELLO).status == 200).then_some(()));
}

#[cfg(unix)]
#[test]
fn a_certificate_file_that_is_a_pipe_holds_nobody_up() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    make_pipe(&proxy.dir.join("company.pem"));
    proxy.write_env(&env(&upstream, "SSL_CERT_FILE=company.pem"));
    for _ in 0..3 {
        proxy.chat(HELLO).assert_status(200);
    }
    proxy.wait_for_console("company.pem is a pipe");
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(proxy.dir.join("company.pem"), certified.cert.pem()).unwrap();
    eventually("the certificates", || {
        proxy.chat(HELLO).assert_status(200);
        proxy.console().contains("SSL_CERT_FILE = ").then_some(())
    });
}

#[test]
fn a_file_of_a_million_slips_takes_a_few_lines() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let nonsense = "x\n".repeat(1_000_000);
    proxy.write_env(&format!("{}{nonsense}", env(&upstream, "MODEL=a/b:free")));
    proxy.chat("{}").assert_status(200);
    assert_eq!(upstream.last().json()["model"], "a/b:free");
    proxy.wait_for_console("999980 further lines can't be understood");
    assert!(proxy.console().lines().count() < 60);
    let many = |prefix: &str| (0..100_000).map(|n| format!("{prefix}_{n}=1\n")).collect::<String>();
    for prefix in ["A", "B"] {
        proxy.write_env(&format!("{}{}", env(&upstream, &format!("MODEL={prefix}/b:free")), many(prefix)));
        proxy.chat("{}").assert_status(200);
        assert_eq!(upstream.last().json()["model"], format!("{prefix}/b:free"));
    }
}

#[cfg(not(windows))]
#[test]
fn a_line_in_another_encoding_is_refused_with_its_number() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let comment = b"# \xd7\xa2\xca\xcd\nCACHE_DIR=\xbb\xba\xb4\xe6\n";
    fs::write(proxy.dir.join(".env"), [comment, env(&upstream, "MODEL=a/b:free").as_bytes()].concat())
        .unwrap();
    proxy.chat("{}").assert_status(200);
    assert_eq!(upstream.last().json()["model"], "a/b:free");
    proxy.wait_for_console(".env line 2 is skipped: it isn't UTF-8");
    assert!(!proxy.console().contains("CACHE_DIR =") && !proxy.console().contains('\u{FFFD}'));
}
