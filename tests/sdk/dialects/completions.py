"""POST /completions"""

from script import Asked

from . import CREATED, chat, sse, words

error = chat.error


def asked(request):
    prompt = request["prompt"]
    return Asked(prompt if isinstance(prompt, str) else prompt[-1], {}, None, False, False)


def answer(request, reply, model):
    choice = {"text": reply.text, "index": 0, "finish_reason": "stop", "logprobs": None}
    return {"id": "gen-1", "object": "text_completion", "created": CREATED, "model": model, "provider": "P", "choices": [choice], "usage": chat.USAGE}


def chunk(answer, text, finish=None, **more):
    frame = {key: answer[key] for key in ("id", "object", "created", "model", "provider")}
    return sse({**frame, "choices": [{"text": text, "index": 0, "finish_reason": finish, "logprobs": None}], **more})


def events(answer):
    for word in words(answer["choices"][0]["text"]):
        yield chunk(answer, word)
    yield chunk(answer, "", "stop", usage=answer["usage"])
    yield "data: [DONE]\n\n"


def broken(answer, message):
    return chunk(answer, "", "error", error={"code": 502, "message": message})
