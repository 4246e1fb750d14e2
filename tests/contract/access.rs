//! Section 8: who gets in.

use crate::fixture::*;

fn get(proxy: &Proxy, path: &str, headers: &str) -> Response {
    proxy.connect().exchange(&format!("GET {path} HTTP/1.1\r\n{headers}\r\n"))
}

#[test]
fn only_own_names() {
    let proxy = Start::new().arg("--offline").file("DEBUG_MODE.txt", "").start();
    for host in ["localhost", "localhost:5000", "127.0.0.1", "[::1]:5000", "my.localhost", "192.168.1.9:5000"]
    {
        assert_eq!(get(&proxy, "/v1/models", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for path in ["/v1/models", "/debug", "/debug/calls", "/health", "/nowhere"] {
        let refused = get(&proxy, path, "Host: rebound.example.com\r\n");
        refused.assert_error(403, "forbidden_host");
        assert!(refused.text().contains("rebound.example.com"));
    }
    // The target counts as much as the header.
    get(&proxy, "http://evil.example/v1/models", "Host: localhost\r\n").assert_error(403, "forbidden_host");
    assert_eq!(get(&proxy, "http://localhost/v1/models", "Host: localhost\r\n").status, 200);
    get(&proxy, "/v1/models", "").assert_error(400, "bad_request");
    get(&proxy, "/v1/models", "Host: localhost\r\nHost: localhost\r\n").assert_error(400, "bad_request");
}

#[test]
fn only_allowed_pages() {
    let proxy = Start::new().arg("--offline").env_file("ALLOWED_ORIGINS=https://app.example.com").start();
    for origin in [
        "http://localhost:3000",
        "https://127.0.0.1:8443",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://x",
        "chrome-extension://y",
        "https://app.example.com",
    ] {
        let response = get(&proxy, "/v1/models", &format!("Host: localhost\r\nOrigin: {origin}\r\n"));
        assert_eq!(response.status, 200, "{origin}");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
        assert_eq!(response.header("vary"), Some("Origin"));
    }
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "https://app.example.com.evil.example",
    ] {
        let response = get(&proxy, "/v1/models", &format!("Host: localhost\r\nOrigin: {origin}\r\n"));
        response.assert_error(403, "forbidden_origin");
        assert_eq!(response.header("access-control-allow-origin"), None, "{origin}");
    }
    // An error, too, is shown to a page that may see it.
    let wrong = get(&proxy, "/nowhere", "Host: localhost\r\nOrigin: http://localhost:3000\r\n");
    wrong.assert_error(404, "not_found");
    assert_eq!(wrong.header("access-control-allow-origin"), Some("http://localhost:3000"));
}

/// Browsers take no answer that names the page twice.
#[test]
fn a_page_is_named_once_however_its_request_arrives() {
    let proxy = Start::new().arg("--offline").start();
    let mut client = proxy.connect();
    let length = HELLO.len();
    client.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: app://x\r\nContent-Length: {length}\r\n\r\n"
    ));
    for piece in HELLO.as_bytes().chunks(length.div_ceil(3)) {
        std::thread::sleep(std::time::Duration::from_millis(50)); // so that each comes alone
        client.send(piece);
    }
    let answer = client.response();
    answer.assert_status(200);
    let names = answer.headers.iter().filter(|(name, _)| name == "access-control-allow-origin");
    assert_eq!(names.count(), 1);
}

#[test]
fn preflights_are_answered() {
    let proxy = Start::new().env_file("PROXY_API_KEY=open-sesame-1234\nTEST_MODE=true").start();
    let ask = |path: &str, origin: &str| {
        proxy.connect().exchange(&format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\
             Access-Control-Request-Private-Network: true\r\n\r\n"
        ))
    };
    for path in ["/v1/chat/completions", "/v1/models", "/v1/embeddings", "*"] {
        let response = ask(path, "http://localhost:3000");
        assert_eq!(response.status, 204);
        assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"));
        assert_eq!(
            response.header("access-control-allow-headers"),
            Some("authorization,content-type,x-stainless-os")
        );
        assert_eq!(response.header("access-control-allow-methods"), Some("GET, HEAD, POST, OPTIONS"));
        assert_eq!(response.header("access-control-allow-private-network"), Some("true"));
    }
    let refused = ask("/v1/chat/completions", "https://evil.example");
    refused.assert_error(403, "forbidden_origin");
    assert!(refused.text().contains("https://evil.example"), "it says what to add to ALLOWED_ORIGINS");
    let nowhere = ask("/v1/chat/completions", "null");
    nowhere.assert_error(403, "forbidden_origin");
    assert!(
        !nowhere.text().contains("ALLOWED_ORIGINS"),
        "nobody should allow all pages that hide their origin"
    );
}

#[test]
fn a_browser_that_asks_its_user_for_the_key_is_not_refused() {
    let start = Start::new().env_file("PROXY_API_KEY=k\nTEST_MODE=true").file("DEBUG_MODE.txt", "");
    let proxy = start.start();
    for (credentials, status) in
        [("", 401), ("Authorization: Basic eDp4\r\n", 401), ("Authorization: Basic eDpr\r\n", 200)]
    {
        for path in ["/debug", "/debug/icon.png"] {
            assert_eq!(get(&proxy, path, &format!("Host: localhost\r\n{credentials}")).status, status);
        }
    }
    let stats = get(&proxy, "/debug/stats", "Host: localhost\r\nx-api-key: k\r\n").json();
    assert_eq!(stats["refused"], 2, "those with a wrong key");
    assert!(proxy.console().contains("/debug"), "and they are said");
}

#[test]
fn the_proxys_own_key() {
    let proxy = Start::new()
        .env_file("PROXY_API_KEY=open-sesame-1234\nTEST_MODE=true")
        .file("DEBUG_MODE.txt", "")
        .start();
    // base64 of "anybody:open-sesame-1234"
    let basic = "Authorization: Basic YW55Ym9keTpvcGVuLXNlc2FtZS0xMjM0\r\n";
    for right in [
        "Authorization: Bearer open-sesame-1234\r\n",
        "authorization: bearer open-sesame-1234\r\n",
        "x-api-key: open-sesame-1234\r\n",
        "api-key: open-sesame-1234\r\n",
        basic,
    ] {
        let response = get(&proxy, "/v1/models", &format!("Host: any.name.example\r\n{right}"));
        assert_eq!(response.status, 200, "{right}");
        assert_eq!(get(&proxy, "/debug", &format!("Host: localhost\r\n{right}")).status, 200, "{right}");
    }
    for wrong in [
        "",
        "Authorization: Bearer open-sesame-1235\r\n",
        "Authorization: Bearer \r\n",
        "x-api-key: x\r\n",
        "Authorization: Basic !!!\r\n",
    ] {
        for path in ["/v1/models", "/debug", "/debug/stats", "/", "/nowhere"] {
            get(&proxy, path, &format!("Host: localhost\r\n{wrong}")).assert_error(401, "invalid_proxy_key");
        }
    }
    let asks = get(&proxy, "/debug", "Host: localhost\r\n");
    assert!(asks.header("www-authenticate").is_some_and(|h| h.starts_with("Basic ")));
    assert_eq!(get(&proxy, "/health", "Host: localhost\r\n").status, 200);
}

#[test]
fn the_clients_key_is_not_the_proxys() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "PROXY_API_KEY=open-sesame-1234");
    let length = HELLO.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer open-sesame-1234\r\nContent-Length: {length}\r\n\r\n{HELLO}"
    );
    assert_eq!(proxy.connect().exchange(&request).status, 200);
    assert_eq!(upstream.last().header("authorization"), Some(format!("Bearer {KEY}").as_str()));
}

#[test]
fn others_are_not_let_in_without_a_key() {
    let said = Start::new().env_file("HOST=0.0.0.0\nTEST_MODE=true\nPORT=0").refused();
    assert!(said.contains("PROXY_API_KEY") && said.contains("HOST=0.0.0.0"), "{said}");

    let proxy = Start::new().env_file("HOST=0.0.0.0\nTEST_MODE=true\nPROXY_API_KEY=open-sesame-1234").start();
    // Taking the key away from a socket that is open to others would let everybody in.
    proxy.write_env("HOST=0.0.0.0\nTEST_MODE=true\n");
    proxy.wait_for_console("PROXY_API_KEY stays");
    proxy.get("/v1/models").assert_error(401, "invalid_proxy_key");
}

#[test]
fn other_pages_do_not_see_the_panel() {
    let proxy = Start::new().arg("--offline").file("DEBUG_MODE.txt", "").start();
    let port = proxy.port;
    let own = format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n");
    assert_eq!(get(&proxy, "/debug/calls", &own).status, 200);
    let other = format!("Host: localhost:{port}\r\nOrigin: http://localhost:3000\r\n");
    get(&proxy, "/debug/calls", &other).assert_error(403, "forbidden_origin");
}

/// Behind a server in front, everybody would be this machine.
#[test]
fn the_panel_answers_nothing_that_is_forwarded() {
    let fields = [
        "X-Forwarded-For: 10.0.0.7",
        "x-forwarded-proto: https",
        "Forwarded: for=10.0.0.7",
        "X-Real-IP: 10.0.0.7",
        "Via: 1.1 nginx",
        "CF-Connecting-IP: 10.0.0.7",
    ];
    let proxy = Start::new().arg("--offline").file("DEBUG_MODE.txt", "").start();
    for path in ["/debug", "/debug/calls", "/debug/stats"] {
        assert_eq!(proxy.get(path).status, 200);
        for field in fields {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
            proxy.connect().exchange(&head).assert_error(403, "forbidden_host");
        }
    }
    let forwarded = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{}\r\nContent-Length: {}\r\n\r\n{HELLO}",
        fields[0],
        HELLO.len()
    );
    assert_eq!(proxy.connect().exchange(&forwarded).status, 200, "others are served");
    // With a key the browser is asked for it.
    let start = Start::new().arg("--offline").env_file("PROXY_API_KEY=k\n").file("DEBUG_MODE.txt", "");
    let proxy = start.start();
    let ask = |more: &str| {
        let head = format!("GET /debug HTTP/1.1\r\nHost: localhost\r\n{}\r\n{more}\r\n", fields[0]);
        proxy.connect().exchange(&head).status
    };
    assert_eq!([ask(""), ask("x-api-key: k\r\n")], [401, 200]);
}

#[test]
fn containers_and_phones_get_in() {
    let proxy = Start::new().arg("--offline").start();
    for (host, origin) in [
        ("host.docker.internal", "http://localhost:3000"),
        ("host.containers.internal", "capacitor://localhost"),
        ("localhost", "ionic://localhost"),
    ] {
        let head =
            format!("GET /v1/models HTTP/1.1\r\nHost: {host}:{}\r\nOrigin: {origin}\r\n\r\n", proxy.port);
        let response = proxy.connect().exchange(&head);
        assert_eq!(response.status, 200, "{host} {origin}");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
    }
}
