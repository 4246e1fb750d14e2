//! Section 2: the free-model rule, as the upstream sees it. What it does to each field is told by its unit tests.

use crate::fixture::*;

#[test]
fn what_is_free_arrives_byte_for_byte() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let long = "x".repeat(100_000);
    let body = format!(
        r#"{{ "messages" : [{{"role":"user","content":"\u4f60\ud800 {long}"}}], "model":"a/b:free","temperature":0.10000000000000000555,"seed":123456789012345678901234567890,"x-unknown":{{"b":1,"a":[1.0,1e5]}} }}"#
    );
    assert_eq!(proxy.chat(&body).status, 200);
    assert_eq!(upstream.last().body, body);
}

#[test]
fn what_is_paid_becomes_free_and_visible() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "MODEL=my/choice:free");
    for _ in 0..2 {
        let response = proxy.chat(r#"{"model":"gpt-4o","preset":"p","n":1.50}"#);
        assert_eq!(response.header("x-proxy-model"), Some("gpt-4o -> my/choice:free"));
        assert_eq!(upstream.last().body, r#"{"model":"my/choice:free","n":1.50}"#);
    }
    proxy.chat(r#"{"model":"other-paid"}"#);
    proxy.wait_for_console("other-paid is not free");
    assert_eq!(proxy.console().matches("gpt-4o is not free").count(), 1, "said once for each model");

    let free = proxy.chat(HELLO);
    assert_eq!(free.header("x-proxy-model"), None);
}

#[test]
fn tricks_with_keys_are_no_way_around() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    for body in [
        r#"{"model":"a:free","model":"gpt-4o"}"#,
        r#"{"model":"a:free","\u006dodel":"gpt-4o"}"#,
        r#"{"\u006d\u006f\u0064\u0065\u006c":"gpt-4o"}"#,
        r#"{"model":["gpt-4o"]}"#,
        r#"{"model":"@preset/mine:free"}"#,
        r#"{"model":"a:free:online"}"#,
    ] {
        assert_eq!(proxy.chat(body).status, 200);
        let sent = upstream.last();
        assert_eq!(sent.json()["model"], "openrouter/free", "{body}");
        assert_eq!(sent.body.matches("openrouter/free").count(), 1, "{body} became {}", sent.body);
        assert!(!sent.body.contains("gpt"), "{body} became {}", sent.body);
    }
}

#[test]
fn models_header_is_printable() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.chat(r#"{"model":"模型\r\nset-cookie: a=b"}"#);
    assert_eq!(response.header("set-cookie"), None);
    assert_eq!(response.header("x-proxy-model"), Some("????set-cookie: a=b -> openrouter/free"));
}

#[test]
fn paid_models_only_where_they_are_allowed() {
    let upstream = Upstream::saying("hi");
    let proxy = Proxy::before(&upstream, "ALLOW_PAID_MODELS=true\nMODEL=openai/gpt-4o");
    let paid = r#"{"model":"openai/o3","plugins":[{"id":"web"}],"tools":[{"type":"openrouter:web_search"}]}"#;
    proxy.chat(paid);
    assert_eq!(upstream.last().body, paid);
    proxy.chat("{}");
    assert_eq!(upstream.last().body, r#"{"model":"openai/gpt-4o"}"#);

    proxy.write_env(&env(&upstream, "MODEL=openai/gpt-4o"));
    proxy.chat(paid);
    assert_eq!(upstream.last().body, r#"{"model":"openrouter/free"}"#);
    proxy.wait_for_console("MODEL must be");
}
