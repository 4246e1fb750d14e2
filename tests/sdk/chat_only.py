"""A server that knows chat completions and nothing else, as most backups do: another path is a 404, a field that it
doesn't know a 400. What it answers is told by the last words (script.py), and these:

    think …                         thoughts as `<think>…</think>` before the text
    reason …                        thoughts as `reasoning_content`
"""

import re
import threading
from http.server import ThreadingHTTPServer

import script
from dialects import chat
from openrouter import OpenRouter

FIELDS = {
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "stop", "tools", "tool_choice",
    "parallel_tool_calls", "response_format", "frequency_penalty", "presence_penalty",
}
MESSAGES = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
PARTS = {"text": {"type", "text"}, "image_url": {"type", "image_url"}, "file": {"type", "file"}}
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Unknown(Exception):
    pass


def only(value, allowed, where):
    for name in value:
        if name not in allowed:
            raise Unknown(f"{where}: property '{name}' is unsupported")


def check(request):
    """Raises at what a strict server refuses."""
    only(request, FIELDS, "request")
    only(request.get("stream_options") or {}, {"include_usage"}, "stream_options")
    waiting = []
    for number, message in enumerate(request["messages"]):
        role = message["role"]
        if role not in MESSAGES or role == "system" and number:
            raise Unknown(f"messages.{number}: a {role} message can't stand here")
        only(message, MESSAGES[role], f"messages.{number}")
        if role == "tool":
            if message["tool_call_id"] not in waiting or not isinstance(message["content"], str):
                raise Unknown(f"messages.{number}: no result of a call")
            waiting.remove(message["tool_call_id"])
        elif waiting:
            raise Unknown(f"messages.{number}: {waiting} have no results")
        content = message["content"]
        for part in content if isinstance(content, list) else []:
            only(part, PARTS.get(part["type"], ()), f"messages.{number}.content")
        for call in message.get("tool_calls") or []:
            only(call, {"id", "type", "function"}, f"messages.{number}.tool_calls")
            waiting.append(call["id"])
    if waiting:
        raise Unknown(f"{waiting} have no results")
    for tool in request.get("tools") or []:
        only(tool, {"type", "function"}, "tools")
        only(tool["function"], {"name", "description", "parameters"}, "tools.function")
        if not NAME.fullmatch(tool["function"]["name"]):
            raise Unknown(f"tools: {tool['function']['name']}")


class ChatOnly(OpenRouter):
    received = []

    def do_POST(self):
        if self.path != "/v1/chat/completions":
            self.rfile.read(int(self.headers["content-length"]))
            message = f"Unknown request URL: POST {self.path}. Please check the URL for typos."
            return self.send(404, {"error": {"message": message, "type": "invalid_request_error", "code": "unknown_url"}})
        self.path = "/api" + self.path
        try:
            super().do_POST()
        except Unknown as unknown:
            self.send(400, {"error": {"message": str(unknown), "type": "invalid_request_error"}})

    def note(self, received):
        ChatOnly.received.append(received)
        check(received.body)

    def reply(self, asked):
        for command, thinks in (("think ", True), ("reason ", False)):
            if asked.words.startswith(command):
                said = script.reply(asked._replace(words=asked.words.removeprefix(command)))
                if thinks:
                    return said._replace(text=f"<think>{script.THOUGHTS}</think>\n\n{said.text}")
                return said._replace(thoughts=script.THOUGHTS)
        return script.reply(asked)


def start(port=0):
    server = ThreadingHTTPServer(("127.0.0.1", port), ChatOnly)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


if __name__ == "__main__":
    print(start(), flush=True)
    threading.Event().wait()
