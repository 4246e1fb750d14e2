"""The official OpenAI SDK for Python, unchanged, with any key and a model that isn't free."""

import openai
import pytest
from openrouter import OpenRouter
from pydantic import BaseModel

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def client(base_url):
    return openai.OpenAI(base_url=base_url, api_key="any-key")


def ask(client, words, **more):
    messages = [{"role": "user", "content": words}]
    return client.chat.completions.create(model="gpt-4o", messages=messages, **more)


def test_plain(client):
    answer = ask(client, "你好")
    assert answer.choices[0].message.content == "You said: 你好"
    assert answer.model == "a/b:free"
    assert answer.usage.total_tokens == 7
    headers, _, request = OpenRouter.received[-1]
    assert request["model"] == "openrouter/free"
    assert headers["authorization"] == "Bearer sk-or-v1-sdk-tests"


def test_streamed(client):
    chunks = list(ask(client, "hello there", stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content)
    assert text == "You said: hello there"
    assert chunks[-1].usage.total_tokens == 7


def test_tool_call(client):
    answer = ask(client, "weather?", tools=[TOOL])
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "北京"}')


def test_tool_call_streamed(client):
    arguments = ""
    for chunk in ask(client, "weather?", tools=[TOOL], stream=True):
        if chunk.choices and chunk.choices[0].delta.tool_calls:
            arguments += chunk.choices[0].delta.tool_calls[0].function.arguments
    assert arguments == '{"city": "北京"}'


def test_structured_output(client):
    class Weather(BaseModel):
        city: str
        degrees: int

    messages = [{"role": "user", "content": "weather?"}]
    answer = client.chat.completions.parse(model="gpt-4o", messages=messages, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="北京", degrees=21)


def test_image(client):
    content = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    answer = ask(client, content)
    assert answer.choices[0].message.content == "You said: image"
    assert OpenRouter.received[-1][2]["messages"][0]["content"] == content


@pytest.mark.parametrize(
    "status, exception",
    [(400, openai.BadRequestError), (401, openai.AuthenticationError), (402, openai.APIStatusError), (429, openai.RateLimitError)],
)
def test_errors_of_the_upstream(client, status, exception):
    before = len(OpenRouter.received)
    with pytest.raises(exception) as raised:
        ask(client, f"error {status}")
    assert raised.value.status_code == status
    # The proxy's three tries of a 429 aren't multiplied by the SDK's own.
    assert len(OpenRouter.received) - before == (3 if status == 429 else 1)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["openrouter/free", "a/b:free"]
    assert client.models.retrieve("a/b:free").id == "a/b:free"


def test_async_client(base_url):
    import asyncio

    async def many():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="any") as client:
            messages = [{"role": "user", "content": "hi"}]
            calls = [client.chat.completions.create(model="m", messages=messages) for _ in range(50)]
            return await asyncio.gather(*calls)

    assert {answer.choices[0].message.content for answer in asyncio.run(many())} == {"You said: hi"}
