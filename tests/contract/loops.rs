//! Section 3, "Never to itself".

use crate::fixture::*;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(port: u16, env: &str) -> Proxy {
    Start::new().env_file(env).arg("--port").arg(&port.to_string()).start()
}

#[test]
fn an_upstream_that_is_the_proxy_itself_is_refused_when_it_is_read() {
    for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "0.0.0.0"] {
        let port = free_port();
        let upstream = format!("OPENROUTER_BASE_URL=http://{host}:{port}/v1\n");
        let proxy = at(port, &format!("OPENROUTER_API_KEY={KEY}\n{upstream}"));
        proxy.wait_for_console("OPENROUTER_BASE_URL is this proxy's own address: there is no upstream");
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"] {
            let body = r#"{"model":"a/b:free","input":"x","messages":[{"role":"user","content":"x"}]}"#;
            proxy.post(path, body).assert_error(508, "loop_detected");
        }
        assert_eq!(proxy.post("/v1/messages", HELLO).status, 508);
        assert_eq!(proxy.post("/api/chat", HELLO).status, 508);
        assert_eq!(proxy.get("/v1/models").status, 200, "what needs no upstream");
        // Mended, it goes on without a restart; the same slip later keeps what was good.
        let other = Upstream::saying("hi");
        proxy.write_env(&env(&other, ""));
        assert_eq!(proxy.chat(HELLO).status, 200, "{host}");
        proxy.write_env(&format!("OPENROUTER_API_KEY={KEY}\n{upstream}"));
        assert_eq!(proxy.chat(HELLO).status, 200, "{host}");
        proxy.wait_for_console("OPENROUTER_BASE_URL must be another server's address");
    }
}

#[test]
fn a_backup_that_is_the_proxy_itself_is_left_out() {
    let port = free_port();
    let upstream =
        Upstream::start(|_, answer| answer.json(402, r#"{"error":{"code":402,"message":"no credits"}}"#));
    let mine = format!("BACKUPS=mine\nMINE_BASE_URL=http://localhost:{port}/v1\nMINE_MODEL=x");
    let proxy = at(port, &env(&upstream, &mine));
    proxy.wait_for_console("BACKUPS: mine is left out");
    assert_eq!(proxy.chat(HELLO).status, 402);
    assert_eq!(upstream.calls(), 1);
}

/// By another name it turns out at the first request, which is not tried again.
#[test]
fn one_that_turns_out_to_be_itself_is_told_at_once() {
    // What stands between two ports and is no program of ours.
    let relay = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = relay.local_addr().unwrap().port();
    let port = free_port();
    std::thread::spawn(move || {
        for client in relay.incoming().flatten() {
            let Ok(target) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
            join(client, target);
        }
    });
    let text =
        format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:{name}/v1\nRETRIES=2\n");
    let proxy = at(port, &text);
    let began = std::time::Instant::now();
    for body in [HELLO, HELLO_STREAM] {
        let response = proxy.chat(body);
        response.assert_error(508, "loop_detected");
        assert_eq!(response.header("x-proxy-attempts"), None);
    }
    assert_eq!(proxy.get("/v1/models").status, 200);
    assert!(began.elapsed() < GUARD);
}

#[test]
fn two_that_ask_each_other_are_told_at_once() {
    let (one, other) = (free_port(), free_port());
    let to =
        |port: u16| format!("OPENROUTER_API_KEY={KEY}\nOPENROUTER_BASE_URL=http://127.0.0.1:{port}/v1\n");
    let first = at(one, &to(other));
    let second = at(other, &to(one));
    for proxy in [&first, &second] {
        proxy.chat(HELLO).assert_error(508, "loop_detected");
        proxy.chat(HELLO_STREAM).assert_error(508, "loop_detected");
    }
}

fn join(client: std::net::TcpStream, target: std::net::TcpStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), target.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    std::thread::spawn(move || {
        let (mut from, mut to) = (target, client);
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
