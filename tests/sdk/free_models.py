"""The models that this OpenRouter has. `GET /models` tells no kind and no owner, as the real one's doesn't."""

from dialects import CREATED


def model(id, name, context=131072, inputs=("text",), can=(), outputs="text", price="0"):
    parameters = ["max_tokens", "temperature", "top_p", "stop", *can]
    return {
        "id": id,
        "canonical_slug": id.removesuffix(":free"),
        "name": name,
        "created": CREATED,
        "description": "",
        "context_length": context,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{outputs}",
            "input_modalities": list(inputs),
            "output_modalities": [outputs],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {"prompt": price, "completion": price, "request": "0", "image": "0"},
        "top_provider": {"context_length": context, "max_completion_tokens": None, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": sorted(parameters),
    }


TOOLS = ("tools", "tool_choice")
CHAT = [
    model("openrouter/free", "Free Models Router", 200000, ("text", "image"), (*TOOLS, "response_format", "structured_outputs")),
    model("a/b:free", "A: B (free)", 131072, ("text", "image"), (*TOOLS, "reasoning", "response_format", "structured_outputs")),
    model("c/tools:free", "C: Tools (free)", 262144, can=TOOLS),
    model("d/eyes:free", "D: Eyes (free)", 32768, ("text", "image")),
    model("e/words:free", "E: Words (free)", 8192),
    model("paid/x", "Paid: X", can=TOOLS, price="0.000001"),
]
EMBEDDING = [
    model("paid/embed", "Paid: Embed", 8192, outputs="embeddings", price="0.00000001"),
    model("n/embed:free", "N: Embed (free)", 32768, outputs="embeddings"),
    model("o/embed:free", "O: Embed (free)", 8192, outputs="embeddings"),
]
FREE = [entry["id"] for entry in CHAT if entry["id"].endswith(":free")]
