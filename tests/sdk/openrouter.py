"""An OpenRouter for the SDKs to be tried against: what it answers is told by the last words (script.py), how by the path (dialects/)."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import free_models
import script
from dialects import MIDWAY, chat, completions, embeddings, messages, responses

DIALECTS = {
    "/api/v1/chat/completions": chat,
    "/api/v1/completions": completions,
    "/api/v1/messages": messages,
    "/api/v1/responses": responses,
}


class Received(NamedTuple):
    """A request as it came."""

    headers: dict
    """By lower-case name."""
    raw: bytes
    body: dict
    path: str
    """With its query."""


class OpenRouter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received = []
    aborted = 0
    holding = threading.Event()
    """A request that says "held" has come."""
    release = threading.Event()
    """Until it is set, the requests that say "held" wait."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        quota = {"limit": 50, "remaining": 38, "used": 12}
        pages = {
            "/api/v1/key": {"label": "test", "free_model_daily_requests": quota},
            "/api/v1/models": free_models.CHAT,
            "/api/v1/embeddings/models": free_models.EMBEDDING,
            # For tests that aren't in this process; no page of OpenRouter's.
            "/received": [{"headers": r.headers, "body": r.body, "path": r.path} for r in self.received],
        }
        if path == "/api/v1/key" and "refused" in self.headers.get("Authorization", ""):
            return self.send(401, chat.error(401, "User not found."))
        if path in pages:
            return self.send(200, {"data": pages[path]})
        self.send(404, chat.error(404, "Not Found"))

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.note(Received(headers, raw, request, self.path))
        path = self.path.partition("?")[0]
        model = request["model"] if request["model"].endswith(":free") else free_models.FREE[0]
        if path == "/api/v1/embeddings":
            return self.embed(request, model)
        if path not in DIALECTS:
            return self.send(404, chat.error(404, "Not Found"))
        dialect = DIALECTS[path]
        asked = dialect.asked(request)
        words = asked.words
        if words.startswith("error "):
            status = int(words.split()[1])
            headers = {"Retry-After": "0"} if status in (429, 503) else {}
            return self.send(status, dialect.error(status, script.ERRORS[status]), headers)
        if words == "the day's limit":
            midnight = (int(time.time()) // 86_400 + 1) * 86_400
            limit = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{midnight}000"}
            return self.send(429, dialect.error(429, script.DAY, limit))
        if words == "never":
            return self.never()
        if words == "held":
            OpenRouter.holding.set()
            assert OpenRouter.release.wait(120)
        answer = dialect.answer(request, self.reply(asked), model)
        if not request.get("stream"):
            return self.send(200, answer, {"X-Generation-Id": "gen-1"})
        pieces = dialect.events(answer)
        self.open()
        if words.startswith("slowly "):
            return self.slowly(pieces)
        if words.startswith("fails midway"):
            pieces = [*list(pieces)[:MIDWAY], dialect.broken(answer, "Provider disconnected")]
        if words.startswith("breaks off"):
            return self.break_off(list(pieces)[:MIDWAY])
        for piece in pieces:
            self.piece(piece)
        self.piece("")

    def note(self, received):
        """A request has come."""
        OpenRouter.received.append(received)

    def reply(self, asked):
        """What the model says to it."""
        return script.reply(asked)

    def embed(self, request, model):
        if model not in [entry["id"] for entry in free_models.EMBEDDING]:
            error = embeddings.error(400, f"{model} is not an embedding model")
            error["error"]["availability"] = {"code": "wrong_endpoint", "retryable": False}
            return self.send(400, error)
        self.send(200, embeddings.answer(request, model))

    def send(self, status, body, headers={}):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def open(self):
        """Begins a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Generation-Id", "gen-1")
        self.end_headers()
        self.piece(": OPENROUTER PROCESSING\n\n")

    def slowly(self, pieces):
        """A stream that only ends when nobody reads it."""
        try:
            for piece in pieces:
                self.piece(piece)
                time.sleep(0.02)
        except OSError:
            OpenRouter.aborted += 1
            self.close_connection = True

    def break_off(self, pieces):
        """The connection ends where neither HTTP nor the API says that the answer is whole."""
        for piece in pieces:
            self.piece(piece)
        self.close_connection = True

    def never(self):
        """No answer, until nobody waits for it any more."""
        if not self.connection.recv(1):
            OpenRouter.aborted += 1
        self.close_connection = True

    def chunk(self, choices):
        """A chunk of chat completions, for a test that writes its own stream."""
        frame = {"id": "gen-1", "created": 1770000000, "model": "a/b:free", "provider": "P"}
        self.piece(chat.chunk(frame, choices))

    def piece(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def start(port=0):
    server = ThreadingHTTPServer(("127.0.0.1", port), OpenRouter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


if __name__ == "__main__":
    print(start(), flush=True)
    threading.Event().wait()
