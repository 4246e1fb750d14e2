//! Checks that events are the same however their bytes arrive, that the prelude doesn't lose, add or reorder any bytes,
//! and that no event surprises the reader of any API.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::sse::{Events, Prelude};
use local_api_proxy::dialect::{Needs, UpstreamError, ClientRequest, native_dialects, translated};
use local_api_proxy::error::ApiError;
use serde_json::Value;

/// With both needs, answers are looked at most closely.
const NEEDS: Needs = Needs { tools: true, images: false, structured: true };

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (stream, sizes) = input;
    let collect = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        pieces.for_each(|piece| events.feed(piece, |data| seen.push(data.map(str::to_owned))));
        events.finish(|data| seen.push(data.map(str::to_owned)));
        seen
    };
    let whole = collect(&mut std::iter::once(&stream[..]));
    let pieces = pieces(&stream, &sizes);
    assert_eq!(whole, collect(&mut pieces.iter().copied()));

    // The bytes that are held and those that are passed on are all that was taken, each in their order.
    let (mut prelude, mut passed, mut fed, mut asked) = (Prelude::default(), Vec::new(), 0, 0);
    for piece in &pieces {
        let taken = prelude.feed(piece, &mut passed, |_| {
            asked += 1;
            asked == 2
        });
        fed += taken.unwrap_or(piece.len());
        if taken.is_some() {
            break;
        }
    }
    let (held, _) = prelude.into_parts();
    // Except for a byte-order mark before everything, or as much of one as has arrived.
    let mark = stream[..fed].iter().zip(b"\xEF\xBB\xBF").take_while(|(byte, mark)| byte == mark).count();
    let mark = if mark == 3 || mark == fed { mark } else { 0 };
    assert_eq!(passed.len() + held.len() + mark, fed);
    let mut rest = stream[..fed].iter();
    assert!(held.iter().all(|b| rest.by_ref().any(|other| b == other)), "out of order");

    let error = ApiError::stopping();
    for dialect in native_dialects() {
        for assemble in [false, true] {
            let mut reader = dialect.reader(assemble, NEEDS);
            whole.iter().for_each(|data| reader.read(data.as_deref()));
            let last = reader.broken_off(&error);
            assert!(last.ends_with("\n\n"), "{last}");
            reader.answer();
        }
        whole.iter().flatten().for_each(|data| drop(dialect.read_answer(data, NEEDS)));
    }
    for translated in translated() {
        for streams in [false, true] {
            let mut translator = translated.translator(&ClientRequest {
                body: format!(r#"{{"model":"a","stream":{streams}}}"#),
                ..ClientRequest::default()
            });
            let mut told = String::new();
            for data in whole.iter().flatten() {
                told.push_str(&translator.event(data));
                translator.answer(data);
                translator.error_body(&UpstreamError::in_a_success(data));
            }
            told.push_str(&translator.end());
            if translator.content_type() != "application/x-ndjson" {
                continue; // what isn't written line by line has a fuzz target of its own
            }
            for line in told.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
            }
            assert!(serde_json::from_str::<Value>(translator.broken_off(&error).trim()).is_ok());
        }
    }
});

/// Cuts the stream into pieces of these sizes, and the rest.
fn pieces<'a>(mut stream: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes {
        let (piece, rest) = stream.split_at(stream.len().min(usize::from(*size)));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}
