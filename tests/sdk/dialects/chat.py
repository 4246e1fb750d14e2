"""POST /chat/completions"""

from script import Asked

from . import CREATED, halves, last_text, said, sse, words

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def asked(request):
    last = request["messages"][-1]
    user = next((m for m in reversed(request["messages"]) if m["role"] == "user"), {"content": ""})
    offered = [] if request.get("tool_choice") == "none" else request.get("tools") or []
    reasoning = request.get("reasoning") or {}
    return Asked(
        words=last_text(user["content"]),
        tools={tool["function"]["name"]: "function" for tool in offered if tool["type"] == "function"},
        result=said(last["content"]) if last["role"] == "tool" else None,
        structured=(request.get("response_format") or {}).get("type") in ("json_object", "json_schema"),
        thinking="reasoning_effort" in request or bool(reasoning) and reasoning.get("enabled") is not False and reasoning.get("effort") != "none",
    )


def answer(request, reply, model):
    message = {"role": "assistant", "content": reply.text, "refusal": None, "reasoning": reply.thoughts}
    if reply.call:
        function = {"name": reply.call.name, "arguments": reply.call.arguments}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "index": 0, "function": function}]
    finish = "tool_calls" if reply.call else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish, "native_finish_reason": finish, "logprobs": None}
    return {"id": "gen-1", "object": "chat.completion", "created": CREATED, "model": model, "provider": "P", "choices": [choice], "usage": USAGE}


def chunk(answer, choices, **more):
    frame = {key: answer[key] for key in ("id", "created", "model", "provider")}
    return sse({**frame, "object": "chat.completion.chunk", "choices": choices, **more})


def events(answer):
    [choice] = answer["choices"]
    message = choice["message"]
    deltas = [{"role": "assistant", "content": "", "reasoning": word} for word in words(message["reasoning"])]
    deltas += [{"role": "assistant", "content": word} for word in words(message["content"])]
    for call in message.get("tool_calls", []):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        deltas.append({"role": "assistant", "content": None, "tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in halves(arguments)]
    for delta in deltas:
        yield chunk(answer, [{"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None}])
    yield chunk(answer, [{"index": 0, "delta": {"content": ""}, "finish_reason": choice["finish_reason"]}])
    yield chunk(answer, [], usage=answer["usage"])
    yield "data: [DONE]\n\n"


def error(status, message, limit=None):
    metadata = {"provider_code": 429, "provider_name": "P"} if status == 429 else {}
    if limit:
        metadata = {"headers": limit, "error_type": "rate_limit_exceeded"}
    return {"error": {"code": status, "message": message, "metadata": metadata}}


def broken(answer, message):
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return chunk(answer, [choice], error={"code": 502, "message": message})
