//! Measures what the proxy costs, beside the direct call and nginx (`proxy_pass`, unbuffered: the practical limit).
//!
//! `cargo bench` runs everything in interleaved rounds and prints one table and the ratios to nginx.
//! `cargo bench -- --rounds 1` is a quick run. Upstream and load generator are processes of their own; the "direct"
//! line shows what they can do with nothing between them.
//!
//! Where the CPU time of a chunk goes while 500 streams run (`perf record -g`), with one receive and one send for each
//! chunk: 27 % is the switch to the stream's own thread and away from it, which an event loop shares among all streams
//! that have become ready; 27 % is sending, 22 % receiving (half of both is the kernel's acknowledgements); 17 % is
//! user code, of which less than 10 % is the proxy's own and ureq's.
//!
//! How much of that a blocking thread for each stream must cost was measured separately, in interleaved runs of 50
//! chunks a stream, beginning and end included: nginx 12 µs; a thread for each stream with nothing but `recv` and
//! `send` in a loop, without a line of HTTP, 18 µs; the same in one event loop 8 µs; the proxy 22 µs (with 250 chunks:
//! 11, 16.5, 18.5). Without the immediate acknowledgements that spare clients of a small upstream 40 ms a piece, the
//! proxy would take 21.5; with the batch scheduling class, 20 at twice the latency; with another optimization level,
//! huge pages, or larger thread caches of the allocator, the same. What the threads gain is the median of a chunk's
//! latency: 0.1 ms, while the event loops have 1 to 4.

#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

mod load;
mod target;
mod upstream;

use std::collections::BTreeMap;
use std::process::ExitCode;

use load::{CHAT, Load, Report};
use target::{Kind, Target};

/// The size of a usual answer, and of one with an image in it.
const SMALL_BYTES: usize = 587;
const LARGE_BYTES: usize = 100_000;
/// The size of a request with images in it.
const UPLOAD_BYTES: usize = 20_000_000;
/// The number of chunks in a stream, and the time between them.
const CHUNKS: usize = 50;
const CHUNK_INTERVAL_MS: u64 = 20;
/// The size of an agent's request, with the conversation so far, and the number of its tools.
const AGENT_BYTES: usize = 1_000_000;
const AGENT_TOOLS: usize = 60;
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("The benchmark reads /proc and uses nginx: it runs on Linux.");
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench").collect::<Vec<_>>();
    match args.first().map(String::as_str) {
        Some("upstream") => {
            upstream::run();
            ExitCode::SUCCESS
        }
        Some("load") => {
            load::run(&args[1..]);
            ExitCode::SUCCESS
        }
        Some("--rounds") => compare(args.get(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(5)),
        _ => compare(5),
    }
}

/// The measured numbers by the name of their row, one for each round.
type Rows = BTreeMap<&'static str, Vec<f64>>;

fn compare(rounds: usize) -> ExitCode {
    let upstream = target::Upstream::start();
    let mut kinds = vec![Kind::Direct, Kind::Proxy];
    if target::nginx_is_there() {
        kinds.insert(1, Kind::Nginx)
    } else {
        println!("nginx is not installed (Debian: nginx-light): measured without it\n")
    }
    let mut results = kinds.iter().map(|_| Rows::new()).collect::<Vec<_>>();
    for round in 1..=rounds {
        for (kind, rows) in kinds.iter().zip(&mut results) {
            eprintln!("round {round} of {rounds}: {kind:?}");
            measure(*kind, upstream.port, rows);
        }
    }
    print_table(&kinds, &results);
    ExitCode::SUCCESS
}

fn measure(kind: Kind, upstream: u16, rows: &mut Rows) {
    let mut put = |name: &'static str, value: f64| rows.entry(name).or_default().push(value);
    let (target, first_answer) = Target::start(kind, upstream, "");
    put("ready, ms", first_answer.as_secs_f64() * 1e3);
    put("memory idle, MB", target.memory_mb());
    let load = |target: &Target, load: Load| target::run_load(target.port, &load);

    let one = load(&target, Load::requests(SMALL_BYTES, 1, 1500));
    put("1 connection, p50 µs", one.p50_us);
    put("1 connection, p99 µs", one.p99_us);
    put("1 connection 100 KB, p50 µs", load(&target, Load::requests(LARGE_BYTES, 1, 500)).p50_us);
    let busy = |target: &Target| {
        load(target, Load::requests(SMALL_BYTES, 32, 2_000)); // warm-up
        cpu_of(target, Load::requests(SMALL_BYTES, 32, 20_000))
    };
    let (many, cpu) = busy(&target);
    put("32 connections, requests/s", many.per_second);
    put("32 connections, CPU µs a request", cpu);
    let upload = load(&target, Load::upload(UPLOAD_BYTES, 5));
    put("20 MB request, ms", upload.p50_us / 1e3);
    put("20 MB request, memory MB", target.peak_mb());
    for (streams, name) in [(1, "1 stream"), (50, "50 streams"), (200, "200 streams")] {
        stream_rows(streams, name, &load(&target, Load::streams(streams, CHAT)), &mut put);
    }
    drop(target);

    // As many workers as streams, so that no stream waits for the end of another.
    let (target, _) = Target::start(kind, upstream, "WORKERS=512");
    let (report, cpu) = cpu_of(&target, Load::streams(500, CHAT));
    put("500 streams, CPU µs a chunk", cpu);
    stream_rows(500, "500 streams", &report, &mut put);
    put("500 streams, memory MB", target.peak_mb());
    drop(target);

    if kind != Kind::Proxy {
        return;
    }
    let (target, _) = Target::start(kind, upstream, "");
    for (path, stream, plain, agent) in [
        (
            CHAT,
            "200 streams of chat, CPU µs a chunk",
            "1 MB of chat, CPU µs",
            "1 MB of chat, 60 tools, CPU µs",
        ),
        (
            RESPONSES,
            "200 streams of responses, CPU µs a chunk",
            "1 MB of responses, CPU µs",
            "1 MB of responses, 60 tools, CPU µs",
        ),
        (
            MESSAGES,
            "200 streams of messages, CPU µs a chunk",
            "1 MB of messages, CPU µs",
            "1 MB of messages, 60 tools, CPU µs",
        ),
    ] {
        put(stream, cpu_of(&target, Load::streams(200, path)).1);
        put(plain, cpu_of(&target, Load::agent(path, AGENT_BYTES, 0, 100)).1);
        put(agent, cpu_of(&target, Load::agent(path, AGENT_BYTES, AGENT_TOOLS, 100)).1);
    }
    drop(target);
    // The same requests for both, so that the difference between the two rows is the choice of the model.
    for (model, name) in
        [("openrouter/free", "the router: CPU µs a request"), ("best", "the best model: CPU µs a request")]
    {
        let (target, _) = Target::start(kind, upstream, &format!("MODEL={model}"));
        load(&target, Load::requests(SMALL_BYTES, 32, 2_000).of("gpt-4o")); // warm-up
        put(name, cpu_of(&target, Load::requests(SMALL_BYTES, 32, 50_000).of("gpt-4o")).1);
    }
    let (target, _) = Target::start(kind, upstream, "REUSE_ANSWERS=60");
    let (again, cpu) = busy(&target);
    put("answers again: requests/s", again.per_second);
    put("answers again: CPU µs a request", cpu);
    drop(target);
    let (target, _) = Target::start(kind, upstream, "CACHE_DIR=cache\nDEBUG");
    put("debug mode: requests/s", busy(&target).0.per_second);
    stream_rows(50, "debug mode: 50 streams", &load(&target, Load::streams(50, CHAT)), &mut put);
}

/// Returns the result of a load, and the CPU time for each of its requests or chunks.
fn cpu_of(target: &Target, load: Load) -> (Report, f64) {
    let before = target.cpu_us();
    let report = target::run_load(target.port, &load);
    let cpu = (target.cpu_us() - before) / report.done;
    (report, cpu)
}

fn stream_rows(streams: usize, name: &'static str, report: &Report, put: &mut impl FnMut(&'static str, f64)) {
    let mut put = |what: &str, value: f64| put(String::leak(format!("{name}, {what}")), value);
    put("chunk p50 ms", report.p50_us / 1e3);
    put("chunk p99 ms", report.p99_us / 1e3);
    put("first chunk p50 ms", report.first_us / 1e3);
    put("% intact", report.done / (streams * CHUNKS) as f64 * 100.0);
}

fn print_table(kinds: &[Kind], results: &[Rows]) {
    println!("\nmedian (least to most)");
    print!("{:<36}", "");
    kinds.iter().for_each(|kind| print!("{:>26}", format!("{kind:?}").to_lowercase()));
    println!("{:>14}", "proxy/nginx");
    let names = results.iter().flat_map(Rows::keys).collect::<std::collections::BTreeSet<_>>();
    let number = |value: f64| match value {
        0.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    };
    for name in names {
        print!("{name:<36}");
        let mut medians = Vec::new();
        for rows in results {
            let mut values = rows.get(name).cloned().unwrap_or_default();
            values.sort_by(f64::total_cmp);
            let median = values.get(values.len() / 2).copied();
            medians.push(median);
            let cell = median.map(|median| {
                format!("{} ({} to {})", number(median), number(values[0]), number(values[values.len() - 1]))
            });
            print!("{:>26}", cell.unwrap_or_default());
        }
        if let [direct, Some(nginx), Some(proxy)] = medians[..] {
            print!("{:>14.2}", proxy / nginx);
            if let (true, Some(direct)) = (name.starts_with("1 connection"), direct) {
                print!("   added: {:.2}", (proxy - direct) / (nginx - direct));
            }
        }
        println!();
    }
    println!("\nexecutable: {} bytes", target::executable_size());
}
