//! Checks that a head, and a chunked body, mean the same however their bytes arrive, and that a head with two meanings
//! is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::client::chunks::Chunks;
use local_api_proxy::client::head::{Head, MAX_HEAD_BYTES, Scan};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, sizes) = input;
    let whole = Scan::default().find_end(&bytes);
    let (mut scan, mut peek, mut piecemeal) = (Scan::default(), 0, Ok(None));
    for size in sizes.iter().map(|size| usize::from(*size)).chain([bytes.len()]) {
        peek = bytes.len().min(peek + size);
        piecemeal = scan.find_end(&bytes[..peek]);
        if !matches!(piecemeal, Ok(None)) {
            break;
        }
    }
    match (&whole, &piecemeal) {
        (Ok(whole), Ok(piecemeal)) => assert_eq!(whole, piecemeal),
        // What is refused in one piece is also refused in several, though perhaps for another of its mistakes.
        (whole, piecemeal) => assert!(whole.is_err() && piecemeal.is_err(), "{whole:?} {piecemeal:?}"),
    }
    let Ok(Some(length)) = whole else { return };
    assert!(length <= MAX_HEAD_BYTES + 16);
    if let Ok(head) = Head::parse(bytes[..length].to_vec()) {
        assert!(head.path.starts_with('/') || head.path == "*");
        assert!(head.values("content-length").count() == 0 || head.values("transfer-encoding").count() == 0);
        assert!(head.values("host").count() <= 1);
    }

    let body = &bytes[length..];
    let (mut chunks, mut read) = (Chunks::default(), Vec::new());
    let whole = chunks.feed(body, &mut read).map(|taken| (taken, chunks.is_whole(), read.clone()));
    let (mut chunks, mut read, mut taken, mut fed) = (Chunks::default(), Vec::new(), 0, 0);
    for size in sizes.iter().map(|size| usize::from(*size)).chain([body.len()]) {
        fed = body.len().min(fed + size);
        match chunks.feed(&body[taken..fed], &mut read) {
            Ok(more) => taken += more,
            Err(_) => {
                assert!(whole.is_err());
                return;
            }
        }
        if chunks.is_whole() {
            break;
        }
    }
    if let Ok((taken_at_once, is_whole, at_once)) = whole {
        assert_eq!((taken_at_once, is_whole), (taken, chunks.is_whole()));
        assert_eq!(at_once, read);
    }
});
