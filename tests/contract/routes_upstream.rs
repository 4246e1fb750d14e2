//! Section 4: ways to the upstream: TLS with a company's root, an HTTP proxy, a SOCKS5 proxy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::fixture::*;

/// A name that only the proxies here know: what is on loopback is never asked through one.
const ELSEWHERE: &str = "upstream.test";

/// Settings by which the upstream is on another machine.
fn elsewhere(upstream: &Upstream, host: &str, more: &str) -> String {
    env(upstream, more).replace("//localhost:", &format!("//{host}:"))
}

/// A root certificate in PEM, and a server's configuration that it vouches for.
fn company_tls() -> (String, rustls::ServerConfig) {
    let certified =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), ELSEWHERE.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (certified.cert.pem(), config)
}

#[test]
fn tls_with_an_extra_root() {
    let (root, config) = company_tls();
    let upstream = Upstream::with_tls(config, |request, answer| answer.fitting(request, "safely"));
    let proxy = Start::new()
        .env_file(env(&upstream, "SSL_CERT_FILE=company.pem\nRETRIES=0"))
        .file("company.pem", root)
        .start();
    for _ in 0..3 {
        assert_eq!(proxy.chat(HELLO).text(), completion("safely"));
        assert!(proxy.chat(HELLO_STREAM).text().ends_with("data: [DONE]\n\n"));
    }
    let large = format!(r#"{{"model":"a:free","x":"{}"}}"#, "y".repeat(1 << 20));
    assert_eq!(proxy.chat(&large).status, 200);
    assert_eq!(upstream.last().body, large);
    // The start's look at the key may be under way beside the first request.
    let connections = upstream.received().iter().map(|r| r.connection).max();
    assert!(connections < Some(4), "{connections:?} for seven requests");

    // Without it nobody vouches for the server.
    proxy.write_env(&env(&upstream, "RETRIES=0"));
    let refused = proxy.chat(HELLO);
    refused.assert_error(502, "upstream_unreachable");
    assert!(refused.text().contains("TLS"), "{}", refused.text());
}

/// Copies bytes both ways until one side ends.
fn join(client: TcpStream, target: TcpStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), target.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || {
        let (mut from, mut to) = (target, client);
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

/// A proxy that tells what it was asked.
struct Middle {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    refuses: Arc<AtomicBool>,
}

impl Middle {
    fn start(serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let tell = Arc::clone(&asked);
        let refuses = Arc::<AtomicBool>::default();
        let refuse = Arc::clone(&refuses);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if refuse.load(Ordering::SeqCst) {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
                } else {
                    serve(stream, &tell);
                }
            }
        });
        Self { port, asked, refuses }
    }

    /// From now on nobody gets through.
    fn refuse(&self) {
        self.refuses.store(true, Ordering::SeqCst);
    }

    fn http() -> Self {
        Self::start(|mut stream, asked| {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let Some(target) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
                return;
            };
            let (_, port) = target.rsplit_once(':').unwrap();
            let target = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
            asked.lock().unwrap().push(head);
            if stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok() {
                join(stream, target);
            }
        })
    }

    /// SOCKS5 (RFC 1928) with user and password (RFC 1929).
    fn socks() -> Self {
        Self::start(|stream, asked| {
            // A proxy that is ended asks no further, also amid the handshake.
            let _ = Self::speak_socks(stream, asked);
        })
    }

    fn speak_socks(mut stream: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let take = |stream: &mut TcpStream, count: usize| -> std::io::Result<Vec<u8>> {
            let mut bytes = vec![0; count];
            stream.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let methods = take(&mut stream, 2)?[1] as usize;
        let methods = take(&mut stream, methods)?;
        let mut user = String::new();
        if methods.contains(&2) {
            stream.write_all(&[5, 2])?;
            let length = take(&mut stream, 2)?[1] as usize;
            user = String::from_utf8(take(&mut stream, length)?).unwrap();
            let length = take(&mut stream, 1)?[0] as usize;
            let password = String::from_utf8(take(&mut stream, length)?).unwrap();
            user = format!("{user}:{password}@");
            stream.write_all(&[1, 0])?;
        } else {
            stream.write_all(&[5, 0])?;
        }
        let host = match take(&mut stream, 4)?[3] {
            1 => take(&mut stream, 4)?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
            3 => {
                let length = take(&mut stream, 1)?[0] as usize;
                String::from_utf8(take(&mut stream, length)?).unwrap()
            }
            _ => {
                take(&mut stream, 16)?;
                "::1".to_owned()
            }
        };
        let port = take(&mut stream, 2)?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        asked.lock().unwrap().push(format!("{user}{host}:{port}"));
        let target = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        join(stream, target);
        Ok(())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[test]
fn through_an_http_proxy() {
    let (root, config) = company_tls();
    let upstream = Upstream::with_tls(config, |request, answer| answer.fitting(request, "through"));
    let middle = Middle::http();
    let settings =
        format!("SSL_CERT_FILE=company.pem\nHTTP_PROXY=http://me:secret@127.0.0.1:{}", middle.port);
    let start = Start::new().env_file(elsewhere(&upstream, ELSEWHERE, &settings));
    let proxy = start.file("company.pem", root).start();
    assert_eq!(proxy.chat(HELLO).text(), completion("through"));
    assert!(proxy.chat(HELLO_STREAM).text().ends_with("data: [DONE]\n\n"));
    let asked = eventually("the look at the key", || Some(middle.asked()).filter(|asked| asked.len() > 1));
    // From here on only what passes it by arrives.
    middle.refuse();
    assert!(asked[0].starts_with(&format!("CONNECT {ELSEWHERE}:{} ", upstream.port())), "{asked:?}");
    assert!(asked[0].contains("Proxy-Authorization: Basic bWU6c2VjcmV0"), "{asked:?}");

    proxy.write_env(&elsewhere(
        &upstream,
        ELSEWHERE,
        &format!("{settings}\nNO_PROXY=x {ELSEWHERE}\nRETRIES=0"),
    ));
    let refused = proxy.chat(HELLO);
    assert!(
        refused.text().contains(&format!("{ELSEWHERE}: its name can't be looked up")),
        "{}",
        refused.text()
    );

    // What is on this machine is none of a proxy's business.
    proxy.write_env(&env(&upstream, &settings));
    assert_eq!(proxy.chat(HELLO).status, 200);
}

#[test]
fn through_a_socks5_proxy() {
    let upstream = Upstream::saying("through");
    let middle = Middle::socks();
    let port = upstream.port();
    for (scheme, host) in [("socks5", "192.0.2.1"), ("socks5h", "192.0.2.1"), ("socks5h", ELSEWHERE)] {
        let settings = format!("ALL_PROXY={scheme}://me:secret@127.0.0.1:{}", middle.port);
        let proxy = Start::new().env_file(elsewhere(&upstream, host, &settings)).start();
        assert_eq!(proxy.chat(HELLO).text(), completion("through"));
        assert_eq!(middle.asked().pop().unwrap(), format!("me:secret@{host}:{port}"));
    }
    // With socks5:// the name is looked up here.
    let settings = format!("ALL_PROXY=socks5://127.0.0.1:{}\nRETRIES=0", middle.port);
    let proxy = Start::new().env_file(elsewhere(&upstream, ELSEWHERE, &settings)).start();
    let refused = proxy.chat(HELLO);
    assert!(
        refused.text().contains(&format!("{ELSEWHERE}: its name can't be looked up")),
        "{}",
        refused.text()
    );
    // A proxy whose own name is unknown is named itself.
    proxy.write_env(&elsewhere(
        &upstream,
        "192.0.2.1",
        "ALL_PROXY=socks5h://no-such-name.invalid:1\nRETRIES=0",
    ));
    let refused = proxy.chat(HELLO);
    assert!(
        refused.text().contains("the proxy no-such-name.invalid:1: its name can't"),
        "{}",
        refused.text()
    );
}

#[test]
fn proxies_of_the_environment_count() {
    let upstream = Upstream::saying("through");
    let middle = Middle::http();
    let address = format!("http://127.0.0.1:{}", middle.port);
    // curl and those that follow it go by the lower-case one.
    let start = Start::new().env_file(elsewhere(&upstream, ELSEWHERE, "RETRIES=0"));
    let start = start.environment("HTTP_PROXY", "http://127.0.0.1:1").environment("http_proxy", &address);
    let proxy = start.start();
    assert_eq!(proxy.chat(HELLO).status, 200);
    assert!(!middle.asked().is_empty());
}

/// Which way it failed is told behind a good connection as before it.
#[test]
fn a_proxy_that_has_gone_is_named() {
    let upstream = Upstream::start(|request, answer| {
        answer.fitting(request, "hi");
        answer.close();
    });
    let middle = Middle::http();
    let settings = format!("ALL_PROXY=http://127.0.0.1:{}\nRETRIES=0", middle.port);
    let proxy = Start::new().env_file(elsewhere(&upstream, ELSEWHERE, &settings)).start();
    assert_eq!(proxy.chat(HELLO).status, 200);
    upstream.wait_for_closed(1);
    // Its port is still taken, but nobody answers there any more: as if another program had come.
    // The look at the key may have left a connection, which serves or breaks off once more.
    middle.refuse();
    let is_new = |refused: &Response| refused.text().contains("upstream_unreachable");
    let refused = eventually("a call on a new connection", || Some(proxy.chat(HELLO)).filter(is_new));
    refused.assert_error(502, "upstream_unreachable");
    assert!(refused.text().contains(&format!("the proxy 127.0.0.1:{}: ", middle.port)), "{}", refused.text());
}

#[test]
fn pooled_connections_that_closed_are_replaced() {
    let upstream = Upstream::start(|request, answer| {
        answer.fitting(request, "hi");
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    for number in 0..100 {
        let body = if number % 2 == 0 { HELLO } else { HELLO_STREAM };
        let response = proxy.chat(body);
        response.assert_status(200);
        assert_eq!(response.header("x-proxy-attempts"), None);
        upstream.wait_for_closed(number + 1);
    }
    assert_eq!(upstream.calls(), 100);
}
