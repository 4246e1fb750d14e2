"""What the model of these tests answers: the user's last words decide, so that each test reads by itself.

    anything                        "You said: anything"; JSON where structured output is asked for
    (tools are offered)             a call of the first tool, for the city 北京
    call NAME ARGUMENTS             a call of that tool with just these arguments
    (a tool's result comes last)    "The tool said: result"
    error STATUS                    that error at once, in the API's own shape
    the day's limit                 429 of the account itself, until midnight UTC
    fails midway, word by word …    some words, then the API's own error in mid-stream
    breaks off, word by word …      some words, then the connection ends
    held                            the answer comes when `OpenRouter.release` is set
    slowly …                        a stream that only ends when nobody reads it
    never                           nothing, until nobody waits for it any more
"""

from typing import NamedTuple

CITY = '{"city": "北京"}'
WEATHER = '{"city": "北京", "degrees": 21}'
THOUGHTS = "Let me think."

# What OpenRouter says with these; `type` and `error_type` as its errors page lists them.
ERRORS = {
    400: "Bad thing",
    401: "No auth credentials found",
    402: "Insufficient credits",
    403: "Forbidden thing",
    404: "No such thing",
    429: "Provider returned error",
    500: "Internal Server Error",
    503: "No instances available",
}


DAY = "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"


class Asked(NamedTuple):
    """What a request says, whichever API it speaks."""

    words: str
    """The user's last words."""
    tools: dict
    """The kind (`function`, `custom`) of each tool that may be called, by name."""
    result: str | None
    """What a tool gave back, where that is the last thing said."""
    structured: bool
    thinking: bool


class Call(NamedTuple):
    name: str
    arguments: str
    kind: str


class Reply(NamedTuple):
    """What the model answers. Either `text` or `call` is set."""

    thoughts: str | None
    text: str | None
    call: Call | None


def reply(asked):
    thoughts = THOUGHTS if asked.thinking else None
    if asked.words.startswith("slowly "):
        return Reply(thoughts, " ".join(map(str, range(10_000))), None)
    if asked.result is not None:
        return Reply(thoughts, f"The tool said: {asked.result}", None)
    command, name, arguments = (asked.words.split(" ", 2) + ["", ""])[:3]
    if command == "call" and name in asked.tools:
        return Reply(thoughts, None, Call(name, arguments, asked.tools[name]))
    if asked.structured:
        return Reply(thoughts, WEATHER, None)
    if asked.tools:
        name, kind = next(iter(asked.tools.items()))
        return Reply(thoughts, None, Call(name, CITY, kind))
    return Reply(thoughts, f"You said: {asked.words}", None)
