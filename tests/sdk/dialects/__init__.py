"""What each of OpenRouter's APIs says on the wire. One module an API, each with the same four things:

- `asked(request)`: what the script has to know of a request,
- `answer(request, reply, model)`: the whole answer to it,
- `events(answer)`: the same answer as a stream, piece by piece,
- `error(status, message, limit)` and `broken(answer, message)`: an error before anything was said, and one in mid-stream.
"""

import json
import re

CREATED = 1770000000

MIDWAY = 5
"""How many pieces come before an error in mid-stream: in each API the first word is among them, the end isn't."""


def sse(data, event=None):
    """One server-sent event."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(data)}\n\n"


def words(text):
    """A text in the pieces in which a model says it."""
    return [word for word in re.findall(r"\S*\s*", text or "") if word]


def halves(text):
    """Arguments come in pieces that aren't JSON each."""
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def last_text(content):
    """The text that a user's message ends with (Codex and Claude Code put their own remarks first); "image" when a picture is shown."""
    if isinstance(content, str):
        return content
    kinds = [part["type"] for part in content]
    if any(kind in ("image", "image_url", "input_image") for kind in kinds):
        return "image"
    return next((part["text"] for part in reversed(content) if "text" in part), "")


def said(content):
    """All the text of a tool's result, which may be a string or parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])
