"""The official OpenAI SDK for Python, unchanged, with any key and a model that isn't free. Responses: test_openai_responses.py"""

import openai
import pytest
from dialects.embeddings import vector
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
    last = OpenRouter.received[-1]
    assert last.path == "/api/v1/chat/completions"
    assert last.body["model"] == "openrouter/free"
    assert last.headers["authorization"] == "Bearer sk-or-v1-sdk-tests"


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
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (402, openai.APIStatusError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
def test_errors_of_the_upstream(client, received, status, exception):
    with pytest.raises(exception) as raised:
        ask(client, f"error {status}")
    assert raised.value.status_code == status
    # The proxy's three tries aren't multiplied by the SDK's own.
    assert len(received()) == (3 if status in (429, 503) else 1)


def test_a_tool_s_result_goes_back_and_the_conversation_goes_on(client, received):
    asked = [{"role": "user", "content": "weather?"}]
    message = client.chat.completions.create(model="gpt-4o", messages=asked, tools=[TOOL]).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    answer = client.chat.completions.create(model="gpt-4o", messages=[*asked, message, result], tools=[TOOL])
    assert answer.choices[0].message.content == "The tool said: sunny"
    first, second = received()
    assert second.body["messages"][-1] == result
    assert (first.body["model"], second.body["model"]) == ("openrouter/free", "a/b:free"), "the model that began it"


def test_reasoning_arrives_beside_the_text(client):
    message = ask(client, "hard one", reasoning_effort="high").choices[0].message
    assert (message.reasoning, message.content) == ("Let me think.", "You said: hard one")


@pytest.mark.parametrize("words", ["fails midway, word by word and on", "breaks off, word by word and on"])
def test_a_stream_that_fails_raises_after_its_first_words(client, words):
    text = ""
    with pytest.raises(openai.APIError):
        for chunk in ask(client, words, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text and f"You said: {words}".startswith(text)


def test_legacy_completions_plain_and_streamed(client, received):
    answer = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="once upon a time")
    assert (answer.object, answer.choices[0].text) == ("text_completion", "You said: once upon a time")
    chunks = list(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="once upon a time", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "You said: once upon a time"
    assert chunks[-1].usage.total_tokens == 7
    assert [(r.path, r.body["model"]) for r in received()] == [("/api/v1/completions", "openrouter/free")] * 2


def test_errors_of_legacy_completions_have_their_own_types(client):
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="m", prompt="error 400")
    with pytest.raises(openai.APIError):
        list(client.completions.create(model="m", prompt="fails midway, word by word and on", stream=True))


def test_embeddings_are_the_same_as_floats_and_as_base64(client, received):
    floats = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"], encoding_format="float")
    # Left out, the SDK asks for base64 and decodes it.
    decoded = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert [item.embedding for item in decoded.data] == [vector("one"), vector("two")]
    assert decoded.data == floats.data
    assert [r.body["encoding_format"] for r in received()] == ["float", "base64"]
    assert {r.body["model"] for r in received()} == {"n/embed:free"}, "EMBEDDING_MODEL"


def test_a_free_embedding_model_is_asked_for_as_it_is(client, received):
    answer = client.embeddings.create(model="o/embed:free", input="one")
    assert answer.model == received()[0].body["model"] == "o/embed:free"


def test_without_an_embedding_model_the_error_lists_the_free_ones(start, received):
    client = openai.OpenAI(base_url=f"{start(EMBEDDING_MODEL='')}/v1", api_key="any-key")
    with pytest.raises(openai.BadRequestError, match="n/embed:free.*o/embed:free") as raised:
        client.embeddings.create(model="text-embedding-3-small", input="one")
    assert "paid/embed" not in raised.value.message
    assert received() == []
    assert client.embeddings.create(model="o/embed:free", input="one").model == "o/embed:free"


def test_models_are_the_free_ones_and_say_all_that_the_sdk_reads(client):
    models = list(client.models.list())
    assert [model.id for model in models] == ["openrouter/free", "best", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"]
    assert all(model.object == "model" and model.owned_by and model.created for model in models)
    assert client.models.retrieve("a/b:free").id == "a/b:free"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("paid/x")


def test_a_replaced_model_shows_in_a_header(client):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert raw.headers["x-proxy-model"] == "gpt-4o -> openrouter/free"


def test_the_day_s_limit_is_found_out_once_and_told_at_once(start, received):
    client = openai.OpenAI(base_url=f"{start()}/v1", api_key="any-key")
    for words in ("the day's limit", "hello"):
        with pytest.raises(openai.RateLimitError, match=r"\d\d:\d\d") as raised:
            ask(client, words)
        assert raised.value.code == "rate_limit_exceeded"
        assert int(raised.value.response.headers["retry-after"]) > 0
    assert len(received()) == 1


def test_without_a_key_the_sdk_says_what_to_do(start):
    client = openai.OpenAI(base_url=f"{start(OPENROUTER_API_KEY='')}/v1", api_key="any-key")
    with pytest.raises(openai.AuthenticationError, match="OPENROUTER_API_KEY") as raised:
        ask(client, "hello")
    assert raised.value.code == "missing_api_key"


def test_async_client(base_url):
    import asyncio

    async def many():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="any") as client:
            messages = [{"role": "user", "content": "hi"}]
            calls = [client.chat.completions.create(model="m", messages=messages) for _ in range(50)]
            return await asyncio.gather(*calls)

    assert {answer.choices[0].message.content for answer in asyncio.run(many())} == {"You said: hi"}
