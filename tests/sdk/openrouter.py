"""An OpenRouter for the SDKs to be tried against: what it does is told by the model's name in the last message."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
ERRORS = {
    400: "Bad thing",
    401: "No auth credentials found",
    402: "Insufficient credits",
    429: "Provider returned error",
}


class OpenRouter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received = []
    aborted = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.endswith("/key"):
            quota = {"limit": 50, "remaining": 38, "used": 12}
            return self.send(200, {"data": {"label": "test", "free_model_daily_requests": quota}})
        self.send(200, {"data": [{"id": "a/b:free", "name": "A"}, {"id": "paid/x", "name": "P"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(body)
        OpenRouter.received.append((dict(self.headers), body, request))
        last = request["messages"][-1]["content"]
        words = last if isinstance(last, str) else "image"
        if words.startswith("error "):
            status = int(words.split()[1])
            headers = {"Retry-After": "0"} if status == 429 else {}
            metadata = {"provider_code": 429} if status == 429 else {}
            return self.send(status, {"error": {"code": status, "message": ERRORS[status], "metadata": metadata}}, headers)
        if words.startswith("slowly "):
            return self.slowly()
        if words == "never":
            return self.never()
        message = {"role": "assistant", "content": f"You said: {words}"}
        finish = "stop"
        if request.get("tools"):
            function = request["tools"][0]["function"]["name"]
            call = {"id": "call_1", "type": "function", "function": {"name": function, "arguments": '{"city": "北京"}'}}
            message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        elif request.get("response_format", {}).get("type") == "json_schema":
            message["content"] = '{"city": "北京", "degrees": 21}'
        if request.get("stream"):
            return self.stream(message, finish)
        choice = {"index": 0, "message": message, "finish_reason": finish}
        self.send(200, {**self.frame("chat.completion"), "choices": [choice], "usage": USAGE})

    def frame(self, kind):
        return {"id": "gen-1", "object": kind, "created": 1770000000, "model": "a/b:free", "provider": "P"}

    def send(self, status, body, headers={}):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, message, finish):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.piece(": OPENROUTER PROCESSING\n\n")
        deltas = [{"role": "assistant", "content": word} for word in re.findall(r"\S*\s*", message["content"] or "") if word]
        for call in message.get("tool_calls", []):
            begun = {**call, "index": 0, "function": {"name": call["function"]["name"], "arguments": ""}}
            deltas.append({"role": "assistant", "content": None, "tool_calls": [begun]})
            for part in ('{"city": ', '"北京"}'):
                deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        for delta in deltas:
            self.chunk([{"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None}])
        self.chunk([{"index": 0, "delta": {"content": ""}, "finish_reason": finish}])
        self.chunk([], USAGE)
        self.piece("data: [DONE]\n\n")
        self.piece("")

    def slowly(self):
        """A stream that only ends when nobody reads it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number in range(10_000):
                self.chunk([{"index": 0, "delta": {"role": "assistant", "content": f"{number} "}, "finish_reason": None}])
                time.sleep(0.02)
        except OSError:
            OpenRouter.aborted += 1
            self.close_connection = True

    def never(self):
        """No answer, until nobody waits for it any more."""
        if not self.connection.recv(1):
            OpenRouter.aborted += 1
        self.close_connection = True

    def chunk(self, choices, usage=None):
        body = {**self.frame("chat.completion.chunk"), "choices": choices}
        if usage:
            body["usage"] = usage
        self.piece(f"data: {json.dumps(body)}\n\n")

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
