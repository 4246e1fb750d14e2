//! Section 9: no body, however it nests and however much of the same it holds, stops the program or takes more work than
//! its length. What a body costs is told by the guard of each exchange: work that grows faster than the body takes minutes.

use crate::dialects::{DIALECTS, plain_answer};
use crate::fixture::*;

fn answering() -> Upstream {
    Upstream::start(|request, answer| answer.json(200, plain_answer(&request.path)))
}

/// `inside`, wrapped so many times.
fn nested(open: &str, inside: &str, close: &str, depth: usize) -> String {
    [open.repeat(depth), inside.to_owned(), close.repeat(depth)].concat()
}

const DEPTH: usize = 10_000;
const ELEMENTS: usize = 60_000;

/// One element for each number, with `#` in its place.
fn many(element: &str) -> String {
    let elements = (0..ELEMENTS).map(|number| element.replace('#', &number.to_string()));
    format!("[{}]", elements.collect::<Vec<_>>().join(","))
}

/// Asks each path for each body.
#[track_caller]
fn all_are_answered(paths: &[&str], bodies: &[String]) {
    let upstream = answering();
    let proxy = Proxy::before(&upstream, "EMBEDDING_MODEL=e:free");
    for path in paths {
        for body in bodies {
            let shown = &body[..body.len().min(100)];
            let response = proxy.post(path, body);
            assert!(
                [200, 400, 404, 413].contains(&response.status),
                "{} for {shown} at {path}",
                response.status
            );
        }
    }
    assert_eq!(proxy.get("/health").status, 200);
}

#[test]
fn whatever_nests_stops_nobody() {
    let namespaces = nested(r#"{"type":"namespace","name":"n","tools":["#, r#"{"type":"mcp"}"#, "]}", DEPTH);
    let choices = nested(r#"{"type":"allowed_tools","tools":["#, r#"{"type":"mcp"}"#, "]}", DEPTH);
    let chats = nested(r#"{"type":"allowed_tools","allowed_tools":{"tools":["#, "1", "]}}", DEPTH);
    let results = nested(r#"{"type":"tool_result","content":["#, r#"{"type":"file"}"#, "]}", DEPTH);
    let documents = nested(r#"{"type":"document","source":{"type":"content","content":["#, "", "]}}", DEPTH);
    let arrays = nested("[", r#""file""#, "]", 100_000);
    let objects = nested(r#"{"a":"#, "1", "}", DEPTH);
    let paths = DIALECTS.iter().map(|dialect| dialect.path);
    let others = ["/v1/embeddings", "/v1/messages/count_tokens", "/api/chat", "/api/generate", "/api/show"];
    let paths = paths.chain(others).collect::<Vec<_>>();
    all_are_answered(
        &paths,
        &[
            format!(r#"{{"model":"a:free","tools":[{namespaces}]}}"#),
            format!(r#"{{"model":"a:free","tools":{namespaces}}}"#),
            format!(r#"{{"model":"a:free","input":[{{"type":"additional_tools","tools":[{namespaces}]}}]}}"#),
            format!(r#"{{"model":"a:free","input":{{"type":"tool_search_output","tools":[{namespaces}]}}}}"#),
            format!(
                r#"{{"model":"a:free","tools":[{{"type":"mcp"}},{{"type":"function","name":"f"}}],"tool_choice":{choices}}}"#
            ),
            format!(r#"{{"model":"a:free","tool_choice":{chats}}}"#),
            format!(
                r#"{{"model":"a:free","messages":[{{"role":"user","content":[{results}]}}],"input":[{results}]}}"#
            ),
            format!(
                r#"{{"model":"a:free","messages":[{{"role":"user","content":[{documents}]}}],"system":[{documents}]}}"#
            ),
            format!(r#"{{"model":"a:free","messages":{arrays},"input":{arrays},"prompt":{arrays}}}"#),
            format!(
                r#"{{"model":"a:free","metadata":{objects},"response_format":{objects},"thread":{objects}}}"#
            ),
            format!(r#"{{"model":{arrays},"models":{arrays},"plugins":{objects},"fallbacks":{objects}}}"#),
            format!(
                r#"{{"models":[{objects}],"plugins":[{objects}],"fallbacks":[{arrays}],"include":[{arrays}]}}"#
            ),
            arrays.clone(),
            objects.clone(),
        ],
    );
}

#[test]
fn work_grows_as_the_body_does() {
    let functions = many(r##"{"type":"function","name":"f#","function":{"name":"f#"}}"##);
    let some_went = format!(r#"[{{"type":"mcp"}},{}"#, &functions[1..]);
    let paid = many(r##"{"type":"web_search_#"}"##);
    let told = many(r##""file_#_call.results""##);
    let fields = many(r##""a#":#"##).replace(['[', ']'], "");
    let same = vec![r#""tools":[]"#; ELEMENTS].join(",");
    let parts = many(
        r##"{"role":"user","content":[{"type":"text","text":"#"},{"type":"image","source":{"url":"http://x/#.pdf"}}]}"##,
    );
    let brought = many(r##"{"type":"additional_tools","tools":[{"type":"mcp","name":"#"}]}"##);
    let lists = [many(r##""a#""##), many(r##"{"model":"a#"}"##), many(r##"{"id":"a#"}"##)];
    all_are_answered(
        &["/v1/chat/completions", "/v1/responses", "/v1/messages"],
        &[
            format!(
                r#"{{"tools":{some_went},"tool_choice":{{"type":"allowed_tools","tools":{functions}}}}}"#
            ),
            format!(
                r#"{{"tools":{some_went},"tool_choice":{{"type":"allowed_tools","allowed_tools":{{"tools":{functions}}}}}}}"#
            ),
            format!(
                r#"{{"tools":{paid},"include":{told},"tool_choice":{{"type":"allowed_tools","tools":{functions}}}}}"#
            ),
            format!(r#"{{"tools":[{{"type":"namespace","name":"n","tools":{functions}}}]}}"#),
            format!(
                r#"{{"tools":[{{"type":"function",{fields}}},{{"type":"function",{same}}}],{fields},{same}}}"#
            ),
            format!(
                r#"{{"model":"o3","models":{},"fallbacks":{},"plugins":{}}}"#,
                lists[0], lists[1], lists[2]
            ),
            format!(r#"{{"messages":{parts},"input":{brought}}}"#),
            format!(r#"{{"model":"{}"}}"#, "a".repeat(4 << 20)),
        ],
    );
}
