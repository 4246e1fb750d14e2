//! Events are the same however the bytes arrive, and the prelude loses, adds and reorders none of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::dialect::chat::{Assembly, Facts};
use local_api_proxy::dialect::sse::{Events, Found, Prelude};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (stream, sizes) = input;
    let collect = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        pieces.for_each(|piece| events.feed(piece, |data| seen.push(data.map(str::to_owned))));
        seen
    };
    let whole = collect(&mut std::iter::once(&stream[..]));
    let pieces = pieces(&stream, &sizes);
    assert_eq!(whole, collect(&mut pieces.iter().copied()));

    let (mut prelude, mut passed, mut fed, mut found) = (Prelude::default(), Vec::new(), 0, false);
    for piece in &pieces {
        fed += piece.len();
        if let Found::First(first) = prelude.feed(piece, &mut passed) {
            assert_eq!(Some(&first), whole.first());
            found = true;
            break;
        }
    }
    passed.extend(prelude.into_held());
    assert_eq!(passed, stream[..fed]);
    assert!(found || whole.is_empty());

    let (mut facts, mut assembly) = (Facts::default(), Assembly::default());
    for data in &whole {
        facts.add_event(data.as_deref());
        data.iter().for_each(|data| assembly.add(data));
    }
    assembly.finish();
});

/// Cut into pieces of these sizes, and the rest.
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
