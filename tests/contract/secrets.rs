//! The key is nowhere but in the one header that carries it.

use std::fs;

use crate::fixture::*;

#[test]
fn the_key_is_nowhere() {
    let upstream = Upstream::start(|request, answer| match request.number {
        1 => answer.say("hi"),
        2 => answer.stream("hi there"),
        3 => answer.json(401, r#"{"error":{"code":401,"message":"No auth credentials found"}}"#),
        _ => answer.close(),
    });
    let more = "RETRIES=0\nALL_PROXY=\nPROXY_API_KEY=proxys-own-secret-key";
    let proxy = Proxy::recording(&upstream, more);
    let send = |path: &str, body: &str| {
        let method = if body.is_empty() { "GET" } else { "POST" };
        proxy.connect().exchange(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer proxys-own-secret-key\r\n\
             Cookie: session=secret-cookie\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let mut seen = String::new();
    for body in [HELLO, HELLO_STREAM, HELLO, HELLO] {
        seen.push_str(send("/v1/chat/completions", body).text());
    }
    assert_eq!(upstream.calls(), 4);
    for path in ["/", "/health", "/debug", "/debug/calls", "/debug/settings", "/debug/stats"] {
        seen.push_str(send(path, "").text());
    }
    let calls = send("/debug/calls", "").json();
    for call in calls["calls"].as_array().unwrap() {
        let id = call["message_id"].as_str().unwrap();
        seen.push_str(send(&format!("/debug/calls/{id}"), "").text());
    }
    proxy.write_env(&env(
        &upstream,
        &format!("{more}\nHTTP_PROXY=http://me:pass-of-proxy@127.0.0.1:1\nCACHE_DIR=cache"),
    ));
    seen.push_str(send("/v1/chat/completions", HELLO).text());
    seen.push_str(send("/debug/settings", "").text());
    proxy.wait_for_console("HTTP_PROXY = 127.0.0.1:1");
    for (name, _) in proxy.files(8) {
        seen.push_str(&name);
        seen.push_str(&fs::read_to_string(proxy.dir.join("cache").join(name)).unwrap());
    }
    seen.push_str(&proxy.console());
    for secret in [KEY, &KEY[..20], "proxys-own", "secret-cookie", "pass-of-proxy", "Bearer"] {
        let found = seen.find(secret).map(|at| &seen[at.saturating_sub(80)..at]);
        // The advice how to send a key is no key.
        let advice = found.is_some_and(|before| secret == "Bearer" && before.ends_with("Authorization: "));
        assert!(found.is_none() || advice, "{secret} after {found:?}");
    }
    assert!(seen.contains("...wxyz"), "masked, it is shown");
}

#[test]
fn a_key_that_others_repeat_is_hidden() {
    let upstream = Upstream::start(|request, answer| {
        let repeated = if request.body.contains("repeat") { KEY } else { "" };
        answer.json(401, &format!(r#"{{"error":{{"code":401,"message":"No auth for you {repeated}"}}}}"#));
    });
    let proxy = Proxy::recording(&upstream, "");
    proxy.chat(HELLO).assert_status(401);
    proxy.chat(&HELLO.replace("hello", "repeat")).assert_status(401);
    // Pasted where a model's name belongs, and into a base URL.
    proxy.chat(&HELLO.replace(MODEL, KEY)).assert_status(401);
    proxy.get(&format!("/{KEY}")).assert_status(404);
    let mut seen = String::new();
    for (name, _) in proxy.files(6) {
        seen.push_str(&fs::read_to_string(proxy.dir.join("cache").join(name)).unwrap());
    }
    let calls = proxy.get("/debug/calls");
    seen.push_str(calls.text());
    for call in calls.json()["calls"].as_array().unwrap() {
        let id = call["message_id"].as_str().unwrap();
        seen.push_str(proxy.get(&format!("/debug/calls/{id}")).text());
    }
    proxy.signal("INT");
    proxy.wait_for_console("stopped");
    let console = proxy.console();
    assert_eq!(console.matches("No auth for you").count(), 3);
    assert!(
        console.contains("No auth for you ...wxyz") && console.contains("...wxyz is not free"),
        "{console}"
    );
    assert!(seen.contains("No auth for you ...wxyz") && seen.contains("GET /...wxyz"), "{seen}");
    assert!(!console.contains(KEY) && !seen.contains(KEY));
}

/// JSON has many spellings of the same text.
#[test]
fn a_key_is_hidden_however_it_is_escaped() {
    const OTHER: &str = "gsk/backup-key/0123456789+qrst";
    let escaped = |key: &str| key.bytes().map(|b| format!("\\u{b:04x}")).collect::<String>();
    let told = [escaped(KEY), OTHER.replace('/', "\\/"), KEY.replacen('k', "\\u006B", 1)].join(" ");
    let upstream = Upstream::start({
        let told = told.clone();
        move |request, answer| {
            if request.streams() {
                answer.stream_head();
                answer.piece(&delta("x").replace(r#""x""#, &format!("\"{told}\"")));
                answer.piece(&last_delta());
                answer.piece("data: [DONE]\n\n");
                answer.end();
            } else {
                answer.json(200, &completion("x").replace(r#""x""#, &format!("\"{told}\"")))
            }
        }
    });
    let more = format!(
        "REUSE_ANSWERS=60\nBACKUPS=mine\nMINE_BASE_URL=http://127.0.0.1:1\nMINE_MODEL=x\nMINE_API_KEY={OTHER}"
    );
    let proxy = Proxy::recording(&upstream, &more);
    let asks = |stream: bool| {
        format!(r#"{{"stream":{stream},"messages":[{{"role":"user","content":"is it {told}?"}}]}}"#)
    };
    for stream in [false, true] {
        proxy.chat(&asks(stream)).assert_status(200);
    }
    let mut seen = proxy.get("/debug/calls").text().to_owned();
    for call in proxy.get("/debug/calls").json()["calls"].as_array().unwrap() {
        let id = call["message_id"].as_str().unwrap();
        seen.push_str(proxy.get(&format!("/debug/calls/{id}")).text());
    }
    proxy.files(4);
    for entry in walk(&proxy.dir.join("cache")) {
        seen.push_str(&String::from_utf8_lossy(&fs::read(entry).unwrap()));
    }
    seen.push_str(&proxy.console());
    assert!(seen.contains("...wxyz"));
    // Read as JSON reads it.
    let plain = seen.replace("\\\\", "\\").replace("\\/", "/");
    let plain = (0x21..0x7f_u8).fold(plain, |text, b| {
        text.replace(&format!("\\u{b:04x}"), &(b as char).to_string())
            .replace(&format!("\\u{b:04X}"), &(b as char).to_string())
    });
    for key in [KEY, OTHER] {
        assert!(!plain.contains(key), "{key}");
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// What clients and upstreams write could move a terminal's cursor, or change its title.
#[test]
fn nothing_from_outside_acts_on_the_terminal() {
    let upstream = Upstream::start(|_, answer| {
        answer.json(400, r#"{"error":{"code":400,"message":"no \u001b[2J\u0007\u009b31m \u202e gnp"}}"#);
    });
    let proxy = Proxy::before(&upstream, "");
    proxy.chat(r#"{"model":"x\u001b]0;title\u0007/y","messages":[{"role":"user","content":"x"}]}"#);
    proxy.connect().exchange("GET /v1/\u{202e}x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    proxy.wait_for_console("400 ");
    let console = proxy.console();
    let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!console.contains(acts), "{console:?}");
}

/// Google's clients send a key in the query. Hints about a body repeat the address.
#[test]
fn a_key_in_the_query_is_in_no_hint() {
    let upstream = Upstream::saying("never asked");
    let proxy = Proxy::recording(&upstream, "");
    const THEIRS: &str = "AIzaSyA-a-key-of-a-client-0123456789";
    for path in [
        "/v1beta/models/gemini-2.5-flash:generateContent",
        "/v1/chat/completions",
        "/v1/messages/count_tokens",
    ] {
        for body in ["{contents:[]}", "'{}'", "{'a':1}", "\u{201c}", "@body.json", r#"{\"a\":1}"#] {
            let refused = proxy.post(&format!("{path}?alt=sse&key={THEIRS}"), body);
            assert_eq!(refused.status, 400, "{body}");
            assert!(!refused.text().contains(THEIRS), "{}", refused.text());
        }
    }
    for call in proxy.get("/debug/calls").json()["calls"].as_array().unwrap() {
        let id = call["message_id"].as_str().unwrap();
        assert!(!proxy.get(&format!("/debug/calls/{id}")).text().contains(THEIRS));
    }
    assert!(!proxy.get("/debug/calls").text().contains(THEIRS));
    assert!(!proxy.console().contains(THEIRS), "{}", proxy.console());
}
