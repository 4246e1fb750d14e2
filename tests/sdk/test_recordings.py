"""Requests as real tools sent them, once more: Codex CLI 0.169, Claude Code 2.1, opencode 1.18, Ollama's Python client 0.6,
Java 17's HttpClient, curl 7.88; what speaks Google's API is tried by cargo test. Recorded on loopback, made anonymous: texts are filler, `lorem*5` for "lorem" and so on."""

import http.client
import json
import pathlib
import re
import urllib.parse

import pytest
from dialects.embeddings import vector

FILLER = "lorem ipsum dolor sit amet consectetur "
CALLS = [
    pytest.param(call, id=f"{file.stem}-{number}")
    for file in sorted((pathlib.Path(__file__).parent / "requests").glob("*.json"))
    for number, call in enumerate(json.loads(file.read_text("utf-8")), 1)
]
GOOGLES = [param for param in CALLS if re.match("google|gemini|pi-google|rust-genai", param.id)]
FORWARDED = [param for param in CALLS if param.values[0]["path"].startswith("/v1/") and param not in GOOGLES]
OLLAMA = [param for param in CALLS if param.values[0]["path"].startswith("/api/")]
# Codex offers a search that OpenRouter would bill; all that the others offer is run by themselves.
PAID = "web_search"
SECRET = "the-client-s-own-secret"


def filled(value):
    if isinstance(value, dict):
        return {name: filled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner) for inner in value]
    if isinstance(value, str) and (marked := re.fullmatch(r"lorem\*(\d+)", value)):
        length = int(marked[1])
        return (FILLER * (length // len(FILLER) + 1))[:length]
    return value


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def without_blanks(text):
    """Blanks between fields may go, those in strings may not."""
    return re.sub(r'("(?:\\.|[^"\\])*")|\s+', r"\1", text)


@pytest.fixture(scope="module")
def send(start):
    # A recording's second request goes on with the first one's conversation and would go to its model.
    address = urllib.parse.urlsplit(start(STICKY_MINUTES="0")).netloc

    def send(call):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.putrequest(call["method"], call["path"], skip_accept_encoding=True)
        for name, value in [*call["headers"], ["Authorization", f"Bearer {SECRET}"], ["x-api-key", SECRET], ["Cookie", f"a={SECRET}"]]:
            connection.putheader(name, value)
        body = compact(filled(call["body"])).encode() if call["body"] is not None else b""
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer, answer.read().decode()

    return send


@pytest.mark.parametrize("call", FORWARDED)
def test_only_the_model_and_paid_tools_are_changed_on_the_way(send, received, call):
    answer, text = send(call)
    assert answer.status == 200, text
    [arrived] = received()
    assert arrived.path == f"/api{call['path']}"

    expected = filled(call["body"])
    if "tools" in expected:
        expected["tools"] = [tool for tool in expected["tools"] if tool.get("type") != PAID]
    if "model" in expected:
        expected["model"] = "openrouter/free"
        assert without_blanks(arrived.raw.decode()) == compact(expected)
    else:
        filled_in = {"model": "openrouter/free"}
        assert without_blanks(arrived.raw.decode()) in (compact({**filled_in, **expected}), compact({**expected, **filled_in}))


@pytest.mark.parametrize("call", FORWARDED)
def test_the_proxy_s_key_goes_upstream_and_the_client_s_secrets_and_its_connection_s_headers_dont(send, received, call):
    send(call)
    headers = received()[0].headers
    assert headers["authorization"] == "Bearer sk-or-v1-sdk-tests"
    assert headers["content-type"] == "application/json"
    assert SECRET not in str(headers)
    assert not {"upgrade", "http2-settings", "te"} & set(headers)
    assert "upgrade" not in headers.get("connection", "").lower()
    said = {name.lower(): value for name, value in call["headers"]}
    for name in ("anthropic-version", "anthropic-beta"):
        assert headers.get(name) == said.get(name)


@pytest.mark.parametrize("call", FORWARDED)
def test_the_answer_comes_as_the_upstream_gave_it(send, call):
    answer, text = send(call)
    if not call["body"].get("stream"):
        assert json.loads(text)["choices"][0]["message"]["content"] == "You said: lorem"
        return
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert text.startswith(": OPENROUTER PROCESSING\n\n") and text.endswith("data: [DONE]\n\n")
    ends = {"/v1/messages": "message_stop", "/v1/responses": "response.completed", "/v1/chat/completions": '"usage"'}
    assert ends[call["path"].partition("?")[0]] in text.split("\n\n")[-3]


def test_codex_keeps_its_own_tools_and_its_images(send, received):
    [tools, image] = [next(p.values[0] for p in CALLS if p.id == id) for id in ("codex-tools-1", "codex-image-1")]
    send(tools)
    send(image)
    first, second = received()
    assert {tool["type"] for tool in tools["body"]["tools"]} == {"function", "namespace", PAID}
    assert {tool["type"] for tool in first.body["tools"]} == {"function", "namespace"}
    assert len(first.body["tools"]) == len(tools["body"]["tools"]) - 1
    assert first.body["tool_choice"] == "auto" and first.body["parallel_tool_calls"] is True
    assert "input_image" in [part["type"] for part in second.body["input"][-1]["content"]]


def test_claude_code_looks_first_whether_anybody_is_there(send, received):
    [look] = [param.values[0] for param in CALLS if param.id == "claude-code-tools-1"]
    assert (look["method"], look["path"]) == ("HEAD", "/")
    answer, text = send(look)
    assert (answer.status, text) == (200, "")
    assert received() == []


@pytest.mark.parametrize("call", OLLAMA)
def test_ollama_s_calls_are_translated(send, received, call):
    answer, text = send(call)
    said, arrived = json.loads(text), [(r.path, r.body.get("messages", r.body.get("input")), r.body["model"]) for r in received()]
    chat = ("/api/v1/chat/completions", [{"role": "user", "content": "lorem"}], "openrouter/free")
    generate = ("/api/v1/chat/completions", [{"role": "user", "content": "hello"}], "openrouter/free")
    embed = ("/api/v1/embeddings", "hello", "n/embed:free")
    match call["path"]:
        case "/api/chat":
            assert (answer.status, said["message"]["content"], arrived) == (200, "You said: lorem", [chat])
        case "/api/generate":
            assert (answer.status, said["response"], arrived) == (200, "You said: hello", [generate])
        case "/api/embed":
            assert answer.status == 200 and said["embeddings"] == [vector("hello")]
            # One text or a list of one: the same to the upstream.
            assert arrived in ([embed], [(embed[0], ["hello"], embed[2])])
        case "/api/pull":
            assert (answer.status, said, arrived) == (200, {"status": "success"}, [])
        case _:
            assert (answer.status, arrived) == (200, [])


def test_every_recording_is_tried():
    # Google's are tried by tests/contract/gemini.rs.
    tried = len(FORWARDED) + len(OLLAMA) + 1
    assert tried == len(CALLS) - len(GOOGLES) == 21
