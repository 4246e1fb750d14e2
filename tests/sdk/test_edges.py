"""Clients that ask for more than HTTP/1.1, or send their body in another form. While each is at it, others are answered as ever."""

import gzip
import json
import pathlib
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
import zlib

import pytest
from openrouter import OpenRouter

HERE = pathlib.Path(__file__).parent
# Nothing here takes a second; a client that hangs shall fail its test instead of holding it up.
GUARD = 60


def body(words, **more):
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": words}], **more})


def plain_request(root):
    request = urllib.request.Request(f"{root}/v1/chat/completions", body("in between").encode())
    answer = json.load(urllib.request.urlopen(request, timeout=GUARD))
    assert answer["choices"][0]["message"]["content"] == "You said: in between"


@pytest.fixture
def while_others_are_answered(root):
    """Runs a command whose request says "held", and meanwhile a plain one; gives what the command printed."""
    OpenRouter.release.clear()
    OpenRouter.holding.clear()
    started = []

    def run(*command, given=None):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        ended = []
        reader = threading.Thread(target=lambda: ended.append(process.communicate(given)), daemon=True)
        reader.start()
        assert OpenRouter.holding.wait(GUARD), f"the request never reached the upstream: {ended}"
        plain_request(root)
        assert not ended, "it is still at it"
        OpenRouter.release.set()
        reader.join(GUARD)
        assert process.returncode == 0, ended
        return ended[0][0].decode()

    yield run
    OpenRouter.release.set()
    for process in started:
        process.kill()


def text_of(answer):
    return json.loads(answer)["choices"][0]["message"]["content"]


def test_java_s_client_with_its_defaults_is_answered(root, while_others_are_answered):
    printed = while_others_are_answered("java", HERE / "edges/Client.java", root, body("held"), body("again"))
    first, second = printed.splitlines()
    assert first.startswith("200 HTTP_1_1 {") and text_of(first.split(" ", 2)[2]) == "You said: held"
    assert text_of(second.split(" ", 2)[2]) == "You said: again"


@pytest.mark.parametrize(
    "options",
    [
        ["--http2"],
        ["-H", "Connection: Upgrade"],
        ["-H", "Connection: Upgrade", "-H", "Upgrade: something/9"],
        ["-H", "Connection: keep-alive, Upgrade", "-H", "Upgrade: h2c"],
        ["-H", "Expect: 100-continue"],
        ["--http1.0"],
        ["--compressed"],
        ["-H", "Transfer-Encoding: chunked"],
    ],
    ids=" ".join,
)
def test_curl_is_answered_over_http_1_1_whatever_else_it_asks_for(root, while_others_are_answered, options):
    shown = ["-sS", "-w", r"\n%{http_version} %{http_code}", f"{root}/v1/chat/completions", "-d", body("held")]
    answer, protocol = while_others_are_answered("curl", *options, *shown).rsplit("\n", 1)
    assert text_of(answer) == "You said: held"
    assert protocol in ("1.1 200", "1 200")


def test_curl_streams_though_it_asks_to_upgrade(root, while_others_are_answered):
    answer = while_others_are_answered("curl", "--http2", "-sSN", f"{root}/v1/chat/completions", "-d", body("held", stream=True))
    assert answer.startswith(": OPENROUTER PROCESSING\n\n") and answer.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "encoding, compress",
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_compressed_body_is_understood(root, received, while_others_are_answered, encoding, compress):
    sent = ["-sS", f"{root}/v1/chat/completions", "-H", f"Content-Encoding: {encoding}", "--data-binary", "@-"]
    given = compress(body("held").encode())
    assert text_of(while_others_are_answered("curl", *sent, given=given)) == "You said: held"
    arrived = received()[0]
    assert arrived.raw.decode() == body("held").replace("gpt-4o", "openrouter/free")
    assert "content-encoding" not in arrived.headers


def test_another_encoding_is_refused_with_those_that_would_do(root):
    sent = ["-sS", "-w", r"\n%{http_code}", f"{root}/v1/chat/completions", "-H", "Content-Encoding: br", "-d", "{}"]
    answer, status = subprocess.run(["curl", *sent], capture_output=True, text=True, timeout=GUARD).stdout.rsplit("\n", 1)
    error = json.loads(answer)["error"]
    assert (status, error["code"]) == ("415", "bad_request")
    assert "gzip" in error["message"]


def test_http_2_without_asking_fails_at_once(root):
    command = ["curl", "--http2-prior-knowledge", "-sS", f"{root}/v1/chat/completions", "-d", body("hello")]
    curl = subprocess.run(command, capture_output=True, text=True, timeout=GUARD)
    # CURLE_HTTP2, CURLE_GOT_NOTHING, CURLE_SEND_ERROR, CURLE_RECV_ERROR: curl doesn't show an answer in HTTP/1.1 here,
    # and its versions take it differently.
    assert curl.returncode in (16, 52, 55, 56), (curl.returncode, curl.stderr)
    assert curl.stderr.startswith("curl: (") and curl.stdout == ""
    plain_request(root)


def connected(root):
    address = urllib.parse.urlsplit(root)
    return socket.create_connection((address.hostname, address.port), timeout=GUARD)


def whole(connection):
    """Everything up to the end of the connection."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data.decode()


def test_the_preface_of_http_2_is_answered_with_505_and_the_end(root):
    with connected(root) as connection:
        # RFC 9113, 3.4: the preface, and an empty SETTINGS frame.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        plain_request(root)
        head, _, answer = whole(connection).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 505 ")
    error = json.loads(answer)["error"]
    assert error["code"] == "bad_request" and "HTTP/1.1" in error["message"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime?model=gpt-4o", "/v1/chat/completions"])
def test_a_websocket_is_refused_with_426(root, received, path):
    handshake = [
        f"GET {path} HTTP/1.1",
        f"Host: {urllib.parse.urlsplit(root).netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Authorization: Bearer any-key",
    ]
    with connected(root) as connection:
        connection.sendall("\r\n".join([*handshake, "", ""]).encode())
        plain_request(root)
        # The end of the writing side: whatever the proxy does with the connection, `whole` sees an end.
        connection.shutdown(socket.SHUT_WR)
        head, _, answer = whole(connection).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 426 ")
    assert json.loads(answer)["error"]["code"] == "upgrade_unsupported"
    assert [call.body["messages"][0]["content"] for call in received()] == ["in between"]


def test_a_half_sent_body_holds_nobody_up(root):
    with connected(root) as connection:
        head = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 999"]
        connection.sendall("\r\n".join([*head, "", "{"]).encode())
        for _ in range(20):
            plain_request(root)
