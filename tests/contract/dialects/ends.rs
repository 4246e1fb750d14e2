//! How a stream ends, in each dialect: as it should, or broken off.

use super::*;

/// What may stand behind the dialect's own end, or not.
const DONES: [&str; 8] = [
    "",
    "data: [DONE]\n\n",
    "data: [DONE]\n",
    "data: [DONE]",
    "data: [DONE]\r\n\r\n",
    "data:[DONE]\n\n",
    ": OPENROUTER PROCESSING\n\ndata: [DONE]\n\n",
    "\n",
];

#[test]
fn a_whole_stream_is_handed_on_as_it_ends_in_every_dialect() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| {
            let (number, how) = subject(request).split_once(' ').unwrap();
            let done = DONES[number.parse::<usize>().unwrap()];
            let events = [dialect.opening, dialect.saying, dialect.ending].concat();
            match how {
                "apart" => {
                    answer.events(&events);
                    // In two pieces, since that is how networks are.
                    let (one, two) = done.split_at(done.len() / 2);
                    [one, two].iter().filter(|piece| !piece.is_empty()).for_each(|piece| answer.piece(piece));
                }
                _ => answer.events(&[events.concat() + done]),
            }
            if how == "cut" {
                return answer.close(); // without the last chunk, which says that it was whole
            }
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        for (number, done) in DONES.iter().enumerate() {
            for how in ["together", "apart", "cut"] {
                // Where nothing but the finish was said, more may have been to come.
                let said_its_end =
                    done.contains("[DONE]") || [RESPONSES.name, MESSAGES.name].contains(&dialect.name);
                if how == "cut" && !said_its_end {
                    continue;
                }
                let body = (dialect.request)(MODEL, &format!("«{number} {how}»"), true);
                let response = proxy.post(dialect.path, &body);
                let expected = [dialect.opening, dialect.saying, dialect.ending].concat().concat() + done;
                assert_eq!(
                    (response.status, response.text()),
                    (200, &*expected),
                    "{} {done:?} {how}",
                    dialect.name
                );
            }
        }
    });
}

/// Other ends that a dialect knows.
#[test]
fn every_end_of_a_dialect_is_one() {
    const ENDS: [(&Dialect, &str); 5] = [
        (
            &RESPONSES,
            "data: {\"type\":\"response.incomplete\",\"sequence_number\":10,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"incomplete\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"},\"output\":[]}}\n\n",
        ),
        (
            &RESPONSES,
            "data: {\"type\":\"response.done\",\"sequence_number\":10,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\",\"output\":[]}}\n\n",
        ),
        (
            &RESPONSES,
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":10,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\",\"output\":[]}}\n\n",
        ),
        (&CHAT, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"),
        (&COMPLETIONS, "data: {\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"length\"}]}\n\n"),
    ];
    for (dialect, end) in ENDS {
        let upstream = Upstream::start(move |_, answer| {
            answer.events(&[dialect.opening, dialect.saying, &[end]].concat());
            answer.end();
        });
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.post(dialect.path, &dialect.request("hello", true));
        let expected = [dialect.opening, dialect.saying, &[end]].concat().concat();
        assert_eq!(response.text(), expected, "{}", dialect.name);
    }
}

/// After each event that says something, and in the middle of it.
#[test]
fn a_stream_broken_off_ends_with_the_dialects_own_error() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| {
            let (count, how) = subject(request).split_once(' ').unwrap();
            let count = count.parse::<usize>().unwrap();
            answer.events(&[dialect.opening, &dialect.saying[..count]].concat());
            let next = dialect.saying.get(count).unwrap_or(&dialect.ending[0]);
            match how {
                "in the next event" => answer.piece(&next[..next.len() / 2]),
                "in its name" => answer.piece(&next[..3]),
                "in a chunk" => answer.raw(format!("{:x}\r\n{}", next.len(), &next[..next.len() - 3])),
                _ => {}
            }
            match how {
                "ended" => answer.end(),
                "reset" => answer.reset(),
                _ => answer.close(),
            }
        });
        let proxy = Proxy::before(&upstream, "");
        let mut calls = 0;
        for count in 1..=dialect.saying.len() {
            let whole = [dialect.opening, &dialect.saying[..count]].concat().concat();
            for how in ["closed", "ended", "reset", "in the next event", "in its name", "in a chunk"] {
                let name = format!("{}, {count} events, {how}", dialect.name);
                let body = (dialect.request)(MODEL, &format!("«{count} {how}»"), true);
                let response = proxy.post(dialect.path, &body);
                assert_eq!(response.status, 200, "{name}");
                assert_broken_off(dialect, response.text(), &whole, &name);
                calls += 1;
            }
        }
        assert_eq!(upstream.calls(), calls, "{}: never again after a part of it has gone out", dialect.name);
    });
}

#[test]
fn an_error_of_the_upstreams_in_the_middle_arrives_as_it_is() {
    in_every_dialect(|dialect| {
        for (event, _) in dialect.failures {
            for done in ["", DONE] {
                let upstream = Upstream::start(move |_, answer| {
                    answer.events(&[[dialect.opening, dialect.saying, &[event, done]].concat().concat()]);
                    answer.end();
                });
                let proxy = Proxy::before(&upstream, "");
                let response = proxy.post(dialect.path, &dialect.request("hello", true));
                let expected = [dialect.opening, dialect.saying, &[event, done]].concat().concat();
                assert_eq!((response.status, response.text()), (200, &*expected), "{}", dialect.name);
                assert_eq!(upstream.calls(), 1, "{}", dialect.name);
            }
        }
    });
}

/// SDKs take no other event first.
#[test]
fn a_response_that_fails_before_it_has_begun_begins_first() {
    let upstream = Upstream::start(|_, answer| {
        answer.events(&[COMMENT]);
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "RETRIES=0");
    let response = proxy.post(RESPONSES.path, &RESPONSES.request("hello", true));
    let events = events_in(response.text());
    let [created, failed] = &*events else { panic!("{}", response.text()) };
    assert_eq!((created.0, failed.0), (Some("response.created"), Some("response.failed")));
    let [created, failed] = [created, failed].map(|(_, data)| serde_json::from_str::<Value>(data).unwrap());
    assert_eq!((&created["sequence_number"], &failed["sequence_number"]), (&0.into(), &1.into()));
    assert_eq!(created["response"]["status"], "in_progress");
    let (begun, ended) = (&created["response"], &failed["response"]);
    assert!(begun["id"].is_string() && begun["id"] == ended["id"] && ended["model"].is_string(), "{failed}");
}

/// What was done by then is told again, for those who read only the end.
#[test]
fn a_broken_off_response_holds_what_was_done() {
    let upstream = Upstream::start(|_, answer| {
        answer.events(&[RESPONSES.opening.concat(), RESPONSES.saying.concat()]);
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.post(RESPONSES.path, &RESPONSES.request("hello", true));
    let last = serde_json::from_str::<Value>(events_in(response.text()).last().unwrap().1).unwrap();
    let plain = serde_json::from_str::<Value>(RESPONSES.plain).unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["output"]),
        (&"response.failed".into(), &plain["output"]),
        "{last}"
    );
}

/// The next number, whatever the last one was.
#[test]
fn a_broken_off_response_goes_on_counting() {
    let upstream = Upstream::start(|_, answer| {
        let late = RESPONSES.saying[2].replace(r#""sequence_number":5"#, r#""sequence_number":4711"#);
        answer.events(&[RESPONSES.opening.concat(), RESPONSES.saying[0].into(), late]);
        answer.close();
    });
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.post(RESPONSES.path, &RESPONSES.request("hello", true));
    let last = serde_json::from_str::<Value>(events_in(response.text()).last().unwrap().1).unwrap();
    assert_eq!(last["sequence_number"], 4712, "{last}");
}
