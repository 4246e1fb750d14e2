//! Tests that data from outside makes work in proportion to its length, whatever its form.

use super::*;

/// Returns the nanoseconds that this thread has run; 0 if the system doesn't say.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// Fails if four times the data makes much more than four times the work; sixteen times would be quadratic.
fn grows_as_size(name: &str, work: impl Fn(usize)) {
    const LITTLE: usize = 1500;
    /// A tolerance in nanoseconds: the system looks at the clock only now and then.
    const TICKS: u64 = 40_000_000;
    let took = |size| {
        let began = processor_time();
        work(size);
        processor_time() - began
    };
    // Other threads may use the processor's caches meanwhile.
    let grows = || took(4 * LITTLE) <= 10 * took(LITTLE) + TICKS;
    assert!((0..3).any(|_| grows()), "{name}");
}

#[test]
fn reading_a_stream_takes_work_as_it_has_events() {
    let forms: &[(&dyn Dialect, &str)] = &[
        (
            &chat::Chat,
            r##"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":#,"function":{"arguments":"x"}}]}}]}"##,
        ),
        (
            &chat::Chat,
            r##"{"choices":[{"index":0,"delta":{"reasoning_details":[{"text":"x"},{"index":#}]}}]}"##,
        ),
        (
            &chat::Chat,
            r##"{"choices":[{"index":0,"logprobs":{"content":[{"token":"x"},{"token":"#"}]},"delta":{}}]}"##,
        ),
        (&chat::Chat, r##"{"choices":[{"index":#,"delta":{"content":"x"}}]}"##),
        (&completions::Completions, r##"{"choices":[{"index":#,"text":"x"}]}"##),
        (
            &messages::Messages,
            r##"{"type":"content_block_start","index":#,"content_block":{"type":"text","text":"x"}}"##,
        ),
        (
            &messages::Messages,
            r##"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"#"}}"##,
        ),
        (&messages::Messages, r##"{"type":"message_delta","delta":{"a#":1},"usage":{"b#":1}}"##),
        (&responses::Responses, r##"{"type":"response.output_item.done","output_index":#,"item":{}}"##),
        (
            &responses::Responses,
            r##"{"type":"response.output_text.delta","output_index":#,"content_index":4000,"delta":"x"}"##,
        ),
        (
            &responses::Responses,
            r##"{"type":"response.output_text.delta","output_index":0,"content_index":18446744073709551615,"delta":"#"}"##,
        ),
    ];
    for (dialect, form) in forms {
        grows_as_size(form, |size| {
            let mut reader = dialect.reader(true, Needs { tools: true, ..Needs::default() });
            for number in (0..size).rev() {
                reader.read(Some(&form.replace('#', &number.to_string())));
            }
            assert!(reader.broken_off(&ApiError::stopping()).len() < 1 << 20);
            assert!(reader.answer().is_some());
        });
    }
}

#[test]
fn a_request_takes_work_as_it_is_long() {
    type Form = (&'static str, fn(usize) -> String);
    /// Returns a list of this many elements, each with its number in place of `#`.
    fn many(element: &str, size: usize) -> String {
        let list = (0..size).map(|number| element.replace('#', &number.to_string()));
        list.collect::<Vec<_>>().join(",")
    }
    fn nested(open: &str, close: &str, size: usize) -> String {
        open.repeat(size) + &close.repeat(size)
    }
    let forms: &[Form] = &[
        ("allowed tools", |size| {
            let tools = many(r##"{"type":"function","name":"f#"}"##, size);
            format!(
                r#"{{"tools":[{tools},{{"type":"mcp"}}],"tool_choice":{{"type":"allowed_tools","tools":[{tools}]}}}}"#
            )
        }),
        ("what is told beside", |size| {
            let (tools, told) = (many(r##"{"type":"web_#"}"##, size), many(r##""file_#_call.x""##, size));
            format!(r#"{{"tools":[{tools}],"include":[{told}]}}"#)
        }),
        ("fields", |size| format!("{{{}}}", many(r##""a#":#"##, size))),
        ("the same field", |size| format!("{{{}}}", many(r#""tools":[{"type":"mcp"}]"#, size))),
        ("a tool's fields", |size| format!(r#"{{"tools":[{{{}}}]}}"#, many(r##""a#":#"##, size))),
        ("models", |size| format!(r#"{{"models":[{}]}}"#, many(r##""a#""##, size))),
        ("fallbacks", |size| format!(r#"{{"fallbacks":[{}]}}"#, many(r##"{"model":"a#"}"##, size))),
        ("plugins", |size| format!(r#"{{"plugins":[{}]}}"#, many(r##"{"id":"a#"}"##, size))),
        ("tools on the way", |size| {
            format!(
                r#"{{"input":[{}]}}"#,
                many(r#"{"type":"additional_tools","tools":[{"type":"mcp"}]}"#, size)
            )
        }),
        ("parts", |size| {
            let parts = many(r##"{"type":"image","source":{"url":"x#.pdf"}}"##, size);
            format!(r#"{{"messages":[{{"content":[{parts}]}}],"input":[{parts}],"prompt":[{parts}]}}"#)
        }),
        ("arrays in arrays", |size| {
            let deep = format!("{}1{}", r#"["file","#.repeat(size), "]".repeat(size));
            format!(r#"{{"messages":{deep},"input":{deep},"prompt":{deep}}}"#)
        }),
        ("documents in documents", |size| {
            let deep = nested(r#"{"type":"document","source":{"content":["#, "]}}", size);
            format!(r#"{{"messages":[{deep}],"input":[{deep}],"prompt":[{deep}]}}"#)
        }),
        ("tools with like names", |size| {
            let long = "x".repeat(80);
            let tools =
                many(&format!(r##"{{"type":"function","name":"{long}#"}},{{"name":"{long}#"}}"##), size);
            format!(r#"{{"tools":[{tools}]}}"#)
        }),
        ("calls and their results", |size| {
            let calls = many(
                r##"{"type":"function_call","call_id":"same","name":"f"},{"type":"x_output","call_id":"same"}"##,
                size,
            );
            let uses = many(r##"{"role":"assistant","content":[{"type":"tool_use","id":"same"}]}"##, size);
            let results = many(r##"{"type":"tool_result","tool_use_id":"same"}"##, size);
            format!(r#"{{"input":[{calls}],"messages":[{uses},{{"content":[{results}]}}]}}"#)
        }),
        ("namespaces in namespaces", |size| {
            format!(r#"{{"tools":[{}]}}"#, nested(r#"{"type":"namespace","tools":["#, "]}", size))
        }),
        ("choices in choices", |size| {
            format!(r#"{{"tool_choice":{}}}"#, nested(r#"{"type":"allowed_tools","tools":["#, "]}", size))
        }),
    ];
    let rule = model_name::Rule { default_model: free_models::ROUTER, ..model_name::Rule::default() };
    for dialect in [&chat::Chat as &dyn Dialect, &responses::Responses, &messages::Messages] {
        for (name, form) in forms {
            grows_as_size(name, |size| {
                let Ok(request) = request::Request::parse(dialect, form(size), &rule) else {
                    panic!("{name}");
                };
                request.body("b:free");
                let body = request.body_for_other_servers(dialect, "b");
                if let Some(as_chat) = dialect.as_chat() {
                    let written = ClientRequest { body, ..ClientRequest::default() };
                    let _ = as_chat.translate(&written); // a request that nests too deeply isn't translated
                    as_chat.translator(&written);
                }
            });
        }
    }
}

#[test]
fn telling_a_stream_in_another_api_takes_work_as_it_has_events() {
    let forms = [
        r##"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":#,"id":"#","function":{"name":"f#","arguments":"{}"}}]}}]}"##,
        r##"{"choices":[{"index":#,"delta":{"content":"x"}}]}"##,
        r##"{"choices":[{"index":0,"delta":{"content":"<think>#"}}]}"##,
    ];
    let as_chat = native_dialects().filter_map(|dialect| dialect.as_chat());
    let of_chat = translated().filter(|translated| translated.native().path() == chat::Chat.path());
    for (number, translated) in of_chat.chain(as_chat).enumerate() {
        for form in forms {
            grows_as_size(&format!("{number}: {form}"), |size| {
                let mut translator =
                    translated.translator(&ClientRequest { body: "{}".into(), ..ClientRequest::default() });
                for number in (0..size).rev() {
                    translator.event(&form.replace('#', &number.to_string()));
                }
                translator.end();
            });
        }
    }
}
