"""POST /embeddings: no stream, no words, no script."""

import base64
import json
import struct
from zlib import crc32

from .chat import error  # noqa: F401


def vector(text):
    """Four numbers that float32 holds exactly, other ones for another text."""
    return [byte / 256 for byte in crc32(text.encode()).to_bytes(4, "big")]


def answer(request, model):
    given = request["input"]
    texts = [given] if isinstance(given, str) else [text if isinstance(text, str) else json.dumps(text) for text in given]
    data = []
    for index, text in enumerate(texts):
        numbers = vector(text)
        if request.get("encoding_format") == "base64":
            numbers = base64.b64encode(struct.pack("<4f", *numbers)).decode()
        data.append({"object": "embedding", "index": index, "embedding": numbers})
    usage = {"prompt_tokens": 3, "total_tokens": 3, "cost": 0}
    return {"id": "gen-1", "object": "list", "data": data, "model": model, "provider": "P", "usage": usage}
