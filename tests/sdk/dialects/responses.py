"""POST /responses"""

from script import Asked

from . import CREATED, MIDWAY, halves, last_text, said, sse, words

USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 7,
}
EMPTY = {
    "message": {"content": []},
    "reasoning": {"summary": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
}
"""What an item is at its beginning."""
CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded", 500: "server_error", 503: "server_error"}
"""Strings here, where chat has numbers; the spec has numbers here too."""


def asked(request):
    given = request["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    user = next(item for item in reversed(items) if item.get("role") == "user")
    last = items[-1]
    offered = [] if request.get("tool_choice") == "none" else request.get("tools") or []
    return Asked(
        words=last_text(user["content"]),
        tools={tool["name"]: tool["type"] for tool in offered if tool["type"] in ("function", "custom")},
        result=said(last["output"]) if last.get("type") in ("function_call_output", "custom_tool_call_output") else None,
        structured=((request.get("text") or {}).get("format") or {}).get("type") in ("json_object", "json_schema"),
        thinking=bool(request.get("reasoning")),
    )


def answer(request, reply, model):
    output = []
    if reply.thoughts:
        summary = [{"type": "summary_text", "text": reply.thoughts}]
        output.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "c2VjcmV0", "status": "completed"})
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}]
        output.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content})
    if reply.call and reply.call.kind == "custom":
        output.append({"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": reply.call.name, "input": reply.call.arguments})
    elif reply.call:
        call = {"call_id": "call_1", "name": reply.call.name, "arguments": reply.call.arguments, "status": "completed"}
        output.append({"type": "function_call", "id": "fc_1", **call})
    return {
        "id": "gen-1",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1,
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools") or [],
        "top_p": 1,
        "usage": USAGE,
    }


def events(answer):
    # No `event:` lines: OpenRouter's own examples have none, and every client reads `type`.
    for number, data in enumerate(numbered(answer)):
        yield sse({"type": data.pop("type"), "sequence_number": number, **data})
    yield "data: [DONE]\n\n"


def numbered(answer):
    opening = {**answer, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": opening}
    yield {"type": "response.in_progress", "response": opening}
    for index, item in enumerate(answer["output"]):
        begun = {**item, **EMPTY[item["type"]]}
        if "status" in begun:
            begun["status"] = "in_progress"
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        for kind, data in inside(item):
            yield {"type": f"response.{kind}", "item_id": item["id"], "output_index": index, **data}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": answer}


def inside(item):
    """What comes between an item's `added` and its `done`."""
    if item["type"] == "message":
        for index, part in enumerate(item["content"]):
            place = {"content_index": index}
            yield "content_part.added", {**place, "part": {**part, "text": ""}}
            for word in words(part["text"]):
                yield "output_text.delta", {**place, "delta": word, "logprobs": []}
            yield "output_text.done", {**place, "text": part["text"], "logprobs": []}
            yield "content_part.done", {**place, "part": part}
    elif item["type"] == "reasoning":
        for index, part in enumerate(item["summary"]):
            place = {"summary_index": index}
            yield "reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}
            for word in words(part["text"]):
                yield "reasoning_summary_text.delta", {**place, "delta": word}
            yield "reasoning_summary_text.done", {**place, "text": part["text"]}
            yield "reasoning_summary_part.done", {**place, "part": part}
    elif item["type"] == "function_call":
        for part in halves(item["arguments"]):
            yield "function_call_arguments.delta", {"delta": part}
        yield "function_call_arguments.done", {"name": item["name"], "arguments": item["arguments"]}
    else:
        for part in halves(item["input"]):
            yield "custom_tool_call_input.delta", {"delta": part}
        yield "custom_tool_call_input.done", {"input": item["input"]}


def error(status, message, limit=None):
    metadata = {"raw": message, "provider_name": "P"} if status == 429 else None
    if limit:
        metadata = {"headers": limit}
    return {"error": {"code": CODES.get(status, status), "message": message}, "metadata": metadata}


def broken(answer, message):
    failed = {**answer, "status": "failed", "output": [], "usage": None, "error": {"code": "server_error", "message": message}}
    # It comes in place of the event of that number.
    return sse({"type": "response.failed", "sequence_number": MIDWAY, "response": failed})

