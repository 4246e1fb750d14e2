//! Disks that are full, hang, or go away.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use crate::assert_serves;
use crate::fixture::*;

fn today() -> String {
    chrono::Local::now().format("%Y%m%d").to_string()
}

/// At any moment: before a file, in the middle of one, before the day's count.
#[test]
fn a_folder_deleted_while_it_runs_comes_back() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::recording(&upstream, "");
    let cache = proxy.dir.join("cache");
    assert_serves(&proxy);
    proxy.files(2);
    for _ in 0..200 {
        // Not before it is there again, and what is saved in it meanwhile keeps it from going.
        eventually("the folder to go", || fs::remove_dir_all(&cache).ok());
        assert_serves(&proxy);
    }
    proxy.files(2);
    assert!(!proxy.console().contains("can't be saved"), "{}", proxy.console());
    assert_eq!(proxy.get("/debug/stats").json()["files_not_saved"], 0);
}

/// A FIFO that nobody writes to: whoever opens it waits.
#[test]
fn a_pipe_in_place_of_the_days_count_holds_nobody_up() {
    let upstream = Upstream::saying("hi");
    let start = Start::new().env_file(env(&upstream, "CACHE_DIR=cache")).file("DEBUG_MODE.txt", "");
    let cache = start.folder("cache");
    let fifo = cache.join(format!("CALLS_{}.json", today()));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let proxy = start.start();
    for _ in 0..20 {
        assert_serves(&proxy);
    }
    assert_eq!(proxy.get("/debug/stats").json()["count"], 20, "what this run knows");
    proxy.files(40);
}

#[test]
fn a_full_disk_is_said_once_and_used_again_when_there_is_room() {
    let upstream = Upstream::saying("hi");
    let start = Start::new().env_file(env(&upstream, "CACHE_DIR=cache")).file("DEBUG_MODE.txt", "");
    start.folder("cache");
    // Seen by the proxy alone.
    let Some(proxy) = start.with_small_disk("cache", "256k") else {
        println!("not tried: this user can't mount anything");
        return;
    };
    let cache = PathBuf::from(format!("/proc/{}/root", proxy.id()))
        .join(proxy.dir.join("cache").strip_prefix("/").unwrap());
    fs::write(cache.join("ballast"), vec![0; 200 << 10]).unwrap();
    for _ in 0..60 {
        assert_serves(&proxy);
    }
    proxy.wait_for_console("can't be saved");
    assert!(proxy.get("/debug/stats").json()["files_not_saved"].as_u64() > Some(0));
    assert_eq!(proxy.console().matches("can't be saved").count(), 1, "{}", proxy.console());
    fs::remove_file(cache.join("ballast")).unwrap();
    eventually("room", || {
        assert_serves(&proxy);
        proxy.console().contains("can be saved again").then_some(())
    });
}

#[test]
#[ignore = "fifty starts and kills"]
fn fifty_kills_under_load() {
    let upstream = Upstream::saying("hi");
    let mut home = None;
    let mut random = 88_172_645_463_325_252_u64;
    for round in 0..50 {
        let start = home.take().map_or_else(
            || Start::new().env_file(env(&upstream, "CACHE_DIR=cache")).file("DEBUG_MODE.txt", ""),
            Start::from,
        );
        let proxy = start.start();
        let cache = proxy.dir.join("cache");
        let responses = names_in(&cache).iter().filter(|name| name.contains("_RESPONSE_")).count();
        let count = proxy.get("/debug/stats").json()["count"].as_u64().unwrap();
        assert_eq!(count as usize, responses, "round {round}");
        for name in fs::read_dir(&cache).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if name.extension().is_some_and(|extension| extension == "json") && round % 10 == 9 {
                let text = fs::read_to_string(&name).unwrap();
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{name:?}: {e}"));
            }
        }
        let port = proxy.port;
        let clients = (0..4).map(|_| {
            thread::spawn(move || {
                let length = HELLO.len();
                let request = format!(
                    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{HELLO}"
                );
                let mut stream = TcpStream::connect(("127.0.0.1", port))?;
                let mut answer = [0; 4096];
                // Until the proxy is killed.
                while stream.write_all(request.as_bytes()).is_ok() && stream.read(&mut answer)? > 0 {}
                std::io::Result::Ok(())
            })
        });
        let clients = clients.collect::<Vec<_>>();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(std::time::Duration::from_millis(random % 300));
        home = Some(proxy.kill());
        clients.into_iter().for_each(|client| drop(client.join().unwrap()));
    }
}
