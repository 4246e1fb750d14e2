"""The Responses API of the official OpenAI SDK for Python, which is what OpenAI's newer tools speak."""

import openai
import pytest
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    "strict": True,
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def client(base_url):
    return openai.OpenAI(base_url=base_url, api_key="any-key")


def test_a_plain_response_has_text_model_and_usage(client, received):
    answer = client.responses.create(model="gpt-4o", input="你好", instructions="Be brief.")
    assert (answer.status, answer.output_text) == ("completed", "You said: 你好")
    assert (answer.model, answer.usage.total_tokens) == ("a/b:free", 7)
    [call] = received()
    assert call.path == "/api/v1/responses"
    assert call.body == {"model": "openrouter/free", "input": "你好", "instructions": "Be brief."}
    assert call.headers["authorization"] == "Bearer sk-or-v1-sdk-tests"


def test_a_streamed_response_brings_every_event_in_order(client):
    events = list(client.responses.create(model="gpt-4o", input="hello there", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = ["output_text.delta"] * 4
    around = ["content_part.added", *deltas, "output_text.done", "content_part.done"]
    assert kinds == ["created", "in_progress", "output_item.added", *around, "output_item.done", "completed"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "You said: hello there"


def test_the_stream_helper_puts_the_response_together(client):
    with client.responses.stream(model="gpt-4o", input="hello there", reasoning={"summary": "auto"}) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_response()
    assert answer.output_text == "You said: hello there"
    assert [(item.type, item.summary[0].text) for item in answer.output[:1]] == [("reasoning", "Let me think.")]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_function_call_goes_there_and_back(client, received, streamed):
    def ask(conversation):
        if not streamed:
            return client.responses.create(model="gpt-4o", input=conversation, tools=[WEATHER])
        with client.responses.stream(model="gpt-4o", input=conversation, tools=[WEATHER]) as stream:
            return stream.until_done().get_final_response()

    conversation = [{"role": "user", "content": f"weather, streamed: {streamed}?"}]
    [call] = ask(conversation).output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city": "北京"}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    item = {"type": "function_call", "id": call.id, "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
    assert ask([*conversation, item, result]).output_text == "The tool said: sunny"
    first, second = received()
    assert second.body["input"] == [*conversation, item, result]
    assert first.body["tools"] == second.body["tools"]
    assert (first.body["model"], second.body["model"]) == ("openrouter/free", "a/b:free"), "the model that began it"


def test_the_items_of_a_reasoning_model_go_back_as_they_came(client, received):
    thinking = {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "store": False}
    first = client.responses.create(model="gpt-5", input="weather while thinking?", tools=[WEATHER], **thinking)
    conversation = [{"role": "user", "content": "weather while thinking?"}, *first.output]
    conversation.append({"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "rain"})
    second = client.responses.create(model="gpt-5", input=conversation, tools=[WEATHER], **thinking)
    assert second.output_text == "The tool said: rain"
    assert received()[1].body["input"][1]["encrypted_content"] == "c2VjcmV0"
    assert received()[1].body["store"] is False


@pytest.mark.parametrize("streamed", [False, True])
def test_a_custom_tool_is_called_with_plain_text(client, streamed):
    asked = {"model": "gpt-5", "input": "call patch *** Begin Patch", "tools": [{"type": "custom", "name": "patch"}]}
    if streamed:
        events = list(client.responses.create(**asked, stream=True))
        pieces = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
        assert len(pieces) == 2 and "".join(pieces) == "*** Begin Patch"
        answer = events[-1].response
    else:
        answer = client.responses.create(**asked)
    assert [(item.type, item.name, item.input) for item in answer.output] == [("custom_tool_call", "patch", "*** Begin Patch")]


def test_paid_tools_never_reach_the_upstream(client, received):
    paid = [{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "image_generation"}]
    client.responses.create(model="gpt-4o", input="weather?", tools=[paid[0], WEATHER, *paid[1:]])
    client.responses.create(model="gpt-4o", input="news?", tools=paid, tool_choice="required", parallel_tool_calls=False)
    first, second = (call.body for call in received())
    assert first["tools"] == [WEATHER]
    assert second == {"model": "openrouter/free", "input": "news?"}


def test_structured_output_is_parsed(client, received):
    answer = client.responses.parse(model="gpt-4o", input="weather?", text_format=Weather)
    assert answer.output_parsed == Weather(city="北京", degrees=21)
    assert received()[0].body["text"]["format"]["name"] == "Weather"
    with client.responses.stream(model="gpt-4o", input="weather?", text_format=Weather) as stream:
        assert stream.until_done().get_final_response().output_parsed == Weather(city="北京", degrees=21)


def test_images_reach_the_upstream_untouched(client, received):
    content = [{"type": "input_text", "text": "what is this?"}, {"type": "input_image", "image_url": PIXEL, "detail": "auto"}]
    answer = client.responses.create(model="gpt-4o", input=[{"role": "user", "content": content}])
    assert answer.output_text == "You said: image"
    assert received()[0].body["input"][0]["content"] == content


@pytest.mark.parametrize("streamed", [False, True])
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
def test_errors_of_the_upstream_have_their_own_types(client, received, status, exception, streamed):
    with pytest.raises(exception) as raised:
        client.responses.create(model="gpt-4o", input=f"error {status}", stream=streamed)
    assert raised.value.status_code == status
    assert raised.value.code == {400: "invalid_prompt", 429: "rate_limit_exceeded", 503: "server_error"}.get(status, str(status))
    # The proxy's three tries aren't multiplied by the SDK's own.
    assert len(received()) == (3 if status in (429, 503) else 1)


@pytest.mark.parametrize("words", ["fails midway, word by word", "breaks off, word by word"])
def test_a_stream_that_fails_ends_with_response_failed(client, words):
    events = list(client.responses.create(model="gpt-4o", input=words, stream=True))
    assert events[-2].type == "response.output_text.delta" and events[-2].delta == "You "
    assert [event.sequence_number for event in events] == list(range(len(events)))
    failed = events[-1]
    assert (failed.type, failed.response.status, failed.response.error.code) == ("response.failed", "failed", "server_error")
    assert failed.response.id == events[0].response.id and failed.response.model == "a/b:free"


def test_the_day_s_limit_is_found_out_once_and_says_when_it_ends(start, received):
    client = openai.OpenAI(base_url=f"{start()}/v1", api_key="any-key")
    for words in ("the day's limit", "hello"):
        with pytest.raises(openai.RateLimitError, match=r"\d\d:\d\d") as raised:
            client.responses.create(model="gpt-4o", input=words)
        assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "usage_limit_reached")
        # Midnight UTC, in seconds.
        assert raised.value.body["resets_at"] % 86_400 == 0
    assert len(received()) == 1


def test_without_a_key_the_error_has_openai_s_shape(start):
    client = openai.OpenAI(base_url=f"{start(OPENROUTER_API_KEY='')}/v1", api_key="any-key")
    with pytest.raises(openai.AuthenticationError, match="OPENROUTER_API_KEY") as raised:
        client.responses.create(model="gpt-4o", input="hello")
    assert raised.value.code == "missing_api_key"


@pytest.mark.parametrize("path", ["", "/v1", "/v1/", "/api/v1"])
def test_the_base_url_may_be_written_any_usual_way(root, path):
    client = openai.OpenAI(base_url=root + path, api_key="any-key")
    assert client.responses.create(model="gpt-4o", input="hello").output_text == "You said: hello"
