"""POST /messages"""

import json

from script import Asked

from . import halves, last_text, said, sse, words

# OpenRouter's errors page; an error in this shape has no number in it.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def asked(request):
    users = [m["content"] for m in request["messages"] if m["role"] == "user"]
    results = [] if isinstance(users[-1], str) else [part for part in users[-1] if part["type"] == "tool_result"]
    # While Claude Code is at work the user's words stand further back than the results of its tools.
    spoken = [c for c in users if isinstance(c, str) or any(part["type"] != "tool_result" for part in c)]
    offered = [] if (request.get("tool_choice") or {}).get("type") == "none" else request.get("tools") or []
    return Asked(
        words=last_text(spoken[-1]) if spoken else "",
        tools={tool["name"]: "function" for tool in offered if tool.get("type", "custom") == "custom"},
        result=said(results[-1]["content"]) if results else None,
        structured=bool((request.get("output_config") or {}).get("format")),
        thinking=(request.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
    )


def answer(request, reply, model):
    content = []
    if reply.thoughts:
        content.append({"type": "thinking", "thinking": reply.thoughts, "signature": "c2lnbmF0dXJl"})
    if reply.text:
        content.append({"type": "text", "text": reply.text, "citations": None})
    if reply.call:
        content.append({"type": "tool_use", "id": "toolu_1", "name": reply.call.name, "input": json.loads(reply.call.arguments)})
    usage = {"input_tokens": 3, "output_tokens": 4, "cache_creation_input_tokens": None, "cache_read_input_tokens": 0, "cost": 0}
    return {
        "id": "gen-1",
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": model,
        "stop_reason": "tool_use" if reply.call else "end_turn",
        "stop_sequence": None,
        "usage": usage,
        "provider": "P",
    }


def event(kind, **data):
    return sse({"type": kind, **data}, kind)


def events(answer):
    opening = {**answer, "content": [], "stop_reason": None, "usage": {**answer["usage"], "output_tokens": 0}}
    yield event("message_start", message=opening)
    yield event("ping")
    for index, block in enumerate(answer["content"]):
        if block["type"] == "text":
            begun = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in words(block["text"])]
        elif block["type"] == "thinking":
            begun = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": word} for word in words(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            begun = {**block, "input": {}}
            parts = halves(json.dumps(block["input"], ensure_ascii=False))
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        yield event("content_block_start", index=index, content_block=begun)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    # The numbers are totals; those that are null leave what `message_start` said.
    usage = {"input_tokens": None, "output_tokens": answer["usage"]["output_tokens"], "cache_read_input_tokens": None, "cost": 0}
    yield event("message_delta", delta={"stop_reason": answer["stop_reason"], "stop_sequence": None}, usage=usage)
    yield event("message_stop")
    # Seen after `message_stop`, and no event of Anthropic's: clients must not stumble over it.
    yield "data: [DONE]\n\n"


def error(status, message, limit=None):
    inner = {"type": TYPES.get(status, "api_error"), "message": message}
    # Beside `error`, not in it as in chat.
    metadata = {"metadata": {"headers": limit, "limit_source": "openrouter_free_tier_daily"}} if limit else {}
    return {"type": "error", "error": inner, "request_id": "gen-1", **metadata}


def broken(answer, message):
    return event("error", error={"type": "api_error", "message": message})
