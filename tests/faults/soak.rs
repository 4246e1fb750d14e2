//! Weeks, compressed: memory, threads and descriptors don't grow.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::assert_serves;
use crate::fixture::*;

/// `SOAK_SECONDS` sets another length.
const SHORT: u64 = 120;
/// A minute, or a third of a shorter run.
fn warm_up(length: Duration) -> Duration {
    (length / 3).min(Duration::from_secs(60))
}

/// What is always in use: of what comes and goes with the load, the least that is seen.
fn usage(proxy: &Proxy) -> Usage {
    let looks = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(10));
        proxy.usage()
    });
    let least = looks.reduce(|least, now| Usage {
        resident_kib: least.resident_kib.min(now.resident_kib),
        peak_kib: now.peak_kib,
        threads: least.threads.min(now.threads),
        descriptors: least.descriptors.min(now.descriptors),
    });
    least.unwrap()
}

#[test]
#[ignore = "takes minutes"]
fn mixed_load_for_a_while() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(SHORT));
    let upstream = Upstream::forgetful(|request, answer| {
        if request.body.contains("fail") {
            answer.json(402, r#"{"error":{"code":402,"message":"no"}}"#);
        } else if request.body.contains("break") {
            answer.stream_head();
            answer.piece(&delta("half"));
            answer.close();
        } else {
            answer.fitting(request, "some words of an answer that goes on for a little while");
        }
    });
    // In memory: how fast a disk makes and removes thousands of files isn't what is tried. What waits for it takes room.
    let disk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let cache = format!("CACHE_DIR={}", disk.path().display());
    let proxy = Start::new().env_file(env(&upstream, &cache)).file("DEBUG_MODE.txt", "").start();
    let stop = AtomicBool::new(false);
    let done = AtomicUsize::new(0);
    let load = |kind: usize| {
        let mut number = 0_usize;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let mut client = proxy.connect();
            match kind {
                0 => (0..20).for_each(|_| assert_eq!(client.chat(HELLO).status, 200)),
                1 => (0..20).for_each(|_| assert_eq!(client.chat(HELLO_STREAM).status, 200)),
                2 => {
                    client.send_chat(HELLO_STREAM);
                    client.head().assert_status(200);
                    client.reset();
                }
                3 => client.chat(&HELLO.replace("hello", "fail")).assert_status(402),
                _ => {
                    client.chat(&HELLO_STREAM.replace("hello", "break")).assert_status(200);
                    let seen = proxy.get("/debug/calls").status;
                    assert!(seen == 200 || seen == 403, "{seen}"); // debug mode is off at times
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
            // A machine has other things to do, too.
            thread::sleep(Duration::from_millis(20 + number as u64 % 5));
        }
    };
    thread::scope(|scope| {
        (0..5).for_each(|kind| drop(scope.spawn(move || load(kind))));
        let began = Instant::now();
        let mut first = None;
        let debug = proxy.dir.join("DEBUG_MODE.txt");
        while began.elapsed() < length {
            thread::sleep(Duration::from_millis(500));
            proxy.write_env(&env(&upstream, &format!("{cache}\nMODEL=other/model:free")));
            proxy.write_env(&env(&upstream, &cache));
            match began.elapsed().as_secs() % 20 {
                0..3 => drop(fs::remove_file(&debug)),
                _ => fs::write(&debug, "").unwrap(),
            }
            if first.is_none() && began.elapsed() > warm_up(length) {
                first = Some(usage(&proxy));
            }
            for entry in fs::read_dir(disk.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_file(entry.path());
            }
        }
        let (first, last) = (first.unwrap(), usage(&proxy));
        stop.store(true, Ordering::Relaxed);
        println!("{} rounds\nthen {first:?}\nnow  {last:?}", done.load(Ordering::Relaxed));
        let grown = |then: usize, now: usize, spare: usize| now > then + then / 10 + spare;
        assert!(!grown(first.resident_kib, last.resident_kib, 1024), "memory");
        assert!(!grown(first.threads, last.threads, 8), "threads");
        assert!(!grown(first.descriptors, last.descriptors, 16), "descriptors");
    });
    assert_serves(&proxy);
    assert!(!proxy.console().contains("internal error"), "{}", proxy.console());
}
