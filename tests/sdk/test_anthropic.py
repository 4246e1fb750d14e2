"""The official Anthropic SDK for Python, unchanged, with any key and a model that isn't free. Its base URL has no /v1."""

import datetime
import re

import anthropic
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def client(root):
    return anthropic.Anthropic(base_url=root, api_key="any-key")


def said(words, **more):
    return {"model": "claude-opus-4-8", "max_tokens": 2048, "messages": [{"role": "user", "content": words}], **more}


def test_a_plain_message_has_text_model_and_usage(client, received):
    answer = client.messages.create(**said("你好", system="Be brief."))
    assert [(block.type, block.text) for block in answer.content] == [("text", "You said: 你好")]
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", "a/b:free", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 4)
    [call] = received()
    assert call.path == "/api/v1/messages"
    assert call.body == {**said("你好", system="Be brief."), "model": "openrouter/free"}
    assert call.headers["authorization"] == "Bearer sk-or-v1-sdk-tests"
    assert call.headers["anthropic-version"] == client.default_headers["anthropic-version"]
    assert "any-key" not in str(call.headers)


def test_a_streamed_message_brings_every_event_in_order(client):
    # The `data: [DONE]` behind it has no event's name, so the SDK passes over it.
    kinds = [event.type for event in client.messages.create(**said("hello there"), stream=True)]
    deltas = ["content_block_delta"] * 4
    assert kinds == ["message_start", "content_block_start", *deltas, "content_block_stop", "message_delta", "message_stop"]


def test_the_stream_helper_puts_the_message_together(client):
    with client.messages.stream(**said("hello there")) as stream:
        words = list(stream.text_stream)
        answer = stream.get_final_message()
    assert words == ["You ", "said: ", "hello ", "there"]
    assert answer.content[0].text == "You said: hello there"
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 3, 4)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_goes_there_and_back(client, received, streamed):
    def ask(conversation):
        asked = said(None, tools=[WEATHER], tool_choice={"type": "auto"}) | {"messages": conversation}
        if not streamed:
            return client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            return stream.get_final_message()

    conversation = [{"role": "user", "content": f"weather, streamed: {streamed}?"}]
    answer = ask(conversation)
    [call] = answer.content
    assert (answer.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "weather", {"city": "北京"})
    conversation.append({"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]})
    conversation.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]})
    assert ask(conversation).content[0].text == "The tool said: sunny"
    first, second = received()
    assert second.body["messages"] == conversation
    assert first.body["tools"] == second.body["tools"] == [WEATHER]
    assert (first.body["model"], second.body["model"]) == ("openrouter/free", "a/b:free"), "the model that began it"


@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_runner_calls_a_function_and_goes_on(client, received, stream):
    cities = []

    @beta_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "sunny"

    asked = said(f"weather by the runner, streamed: {stream}?", tools=[weather], stream=stream)
    answer = client.beta.messages.tool_runner(**asked).until_done()
    assert (cities, answer.content[0].text) == (["北京"], "The tool said: sunny")
    # By default the SDK lets Anthropic's server keep the conversation and sends only what is new, until it is told that
    # nobody does.
    first, second = received()
    assert first.body["thread"] == {"type": "create"} and "thread" not in second.body
    assert [message["role"] for message in second.body["messages"]] == ["user", "assistant", "user"]
    assert second.body["tools"] == first.body["tools"]


def test_a_thread_of_its_own_is_refused_where_it_would_lose_the_conversation(client, received):
    thread = client.beta.messages.thread(**said("my name is Ann"))
    thread.send()
    with pytest.raises(anthropic.BadRequestError, match="send the whole conversation"):
        thread.send({"role": "user", "content": "what is my name?"})
    assert len(received()) == 1


def test_beta_headers_and_the_query_reach_the_upstream(client, received):
    betas = ["context-management-2025-06-27", "effort-2025-11-24"]
    # Older SDKs and Claude Code write this query.
    client.beta.messages.create(**said("hello"), betas=betas, extra_query={"beta": "true"})
    [call] = received()
    assert call.path == "/api/v1/messages?beta=true"
    assert call.headers["anthropic-beta"].replace(" ", "") == "context-management-2025-06-27,effort-2025-11-24"


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_comes_in_a_block_of_its_own(client, streamed):
    asked = said("hard one", thinking={"type": "enabled", "budget_tokens": 1024})
    if streamed:
        with client.messages.stream(**asked) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**asked)
    thinking, text = answer.content
    assert (thinking.type, thinking.thinking, thinking.signature) == ("thinking", "Let me think.", "c2lnbmF0dXJl")
    assert text.text == "You said: hard one"


def test_images_reach_the_upstream_untouched(client, received):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    content = [image, {"type": "text", "text": "what is this?"}]
    assert client.messages.create(**said(content)).content[0].text == "You said: image"
    assert received()[0].body["messages"][0]["content"] == content


def test_structured_output_is_parsed(client, received):
    class Weather(BaseModel):
        city: str
        degrees: int

    with client.messages.stream(**said("weather?"), output_format=Weather) as stream:
        assert stream.get_final_message().parsed_output == Weather(city="北京", degrees=21)
    assert received()[0].body["output_config"]["format"]["type"] == "json_schema"


def test_paid_tools_never_reach_the_upstream(client, received):
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    # Run by the client, not by Anthropic.
    bash = {"type": "bash_20250124", "name": "bash"}
    client.messages.create(**said("weather?", tools=[search, WEATHER, bash]))
    client.messages.create(**said("news?", tools=[search], tool_choice={"type": "tool", "name": "web_search"}, service_tier="auto"))
    first, second = (call.body for call in received())
    assert first["tools"] == [WEATHER, bash]
    assert second == {**said("news?"), "model": "openrouter/free"}


def test_tokens_are_counted_without_a_call(client, received):
    def count(words, **more):
        messages = [{"role": "user", "content": words}]
        return client.messages.count_tokens(model="claude-opus-4-8", messages=messages, **more).input_tokens

    short = count("hello")
    assert 0 < short < count("hello " * 100) < count("hello " * 1000)
    assert short < count("hello", system="You are brief and you are kind.")
    assert short < count("hello", tools=[WEATHER])
    assert client.beta.messages.count_tokens(model="claude-opus-4-8", messages=said("hello")["messages"]).input_tokens == short
    assert received() == []


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "status, exception, kind",
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.PaymentRequiredError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (503, anthropic.ServiceUnavailableError, "overloaded_error"),
    ],
)
def test_errors_of_the_upstream_have_their_own_types(client, received, status, exception, kind, streamed):
    with pytest.raises(exception) as raised:
        client.messages.create(**said(f"error {status}"), stream=streamed)
    assert (raised.value.status_code, raised.value.type) == (status, kind)
    # The proxy's three tries aren't multiplied by the SDK's own.
    assert len(received()) == (3 if status in (429, 503) else 1)


@pytest.mark.parametrize("words", ["fails midway, word by word", "breaks off, word by word"])
def test_a_stream_that_fails_raises_after_its_first_words(client, words):
    text = ""
    with pytest.raises(anthropic.APIStatusError) as raised:
        with client.messages.stream(**said(words)) as stream:
            for word in stream.text_stream:
                text += word
    assert raised.value.type == "api_error"
    assert text.startswith("You ")


def test_models_are_the_free_ones_and_say_all_that_the_sdk_reads(client):
    models = list(client.models.list(limit=1000))
    assert [model.id for model in models] == ["openrouter/free", "best", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"]
    assert models[2].display_name == "A: B (free)"
    assert all(model.display_name and isinstance(model.created_at, datetime.datetime) for model in models)


def test_a_replaced_model_shows_in_a_header(client):
    raw = client.messages.with_raw_response.create(**said("hi"))
    assert raw.headers["x-proxy-model"] == "claude-opus-4-8 -> openrouter/free"


def test_the_day_s_limit_is_found_out_once_and_told_at_once(start, received):
    client = anthropic.Anthropic(base_url=start(), api_key="any-key")
    for words in ("the day's limit", "hello"):
        with pytest.raises(anthropic.RateLimitError) as raised:
            client.messages.create(**said(words))
        assert raised.value.type == "rate_limit_error"
        assert re.search(r"\d\d:\d\d", raised.value.api_message)
        assert int(raised.value.response.headers["retry-after"]) > 0
    assert len(received()) == 1


def test_without_a_key_the_error_has_anthropic_s_shape(start):
    client = anthropic.Anthropic(base_url=start(OPENROUTER_API_KEY=""), api_key="any-key")
    with pytest.raises(anthropic.AuthenticationError) as raised:
        client.messages.create(**said("hello"))
    assert (raised.value.body["type"], raised.value.type) == ("error", "authentication_error")
    assert "OPENROUTER_API_KEY" in raised.value.api_message


def test_too_large_a_body_has_anthropic_s_own_error(start):
    client = anthropic.Anthropic(base_url=start(MAX_BODY_MB="1"), api_key="any-key")
    with pytest.raises(anthropic.ContentTooLargeError) as raised:
        client.messages.create(**said("x" * (2 << 20)))
    assert raised.value.type == "request_too_large"


@pytest.mark.parametrize("credential", [{"api_key": "the-proxy-s-key"}, {"auth_token": "the-proxy-s-key"}])
def test_the_proxy_s_own_key_is_taken_in_both_headers(start, credential):
    root = start(PROXY_API_KEY="the-proxy-s-key")
    assert anthropic.Anthropic(base_url=root, **credential).messages.create(**said("hello")).content[0].text == "You said: hello"
    [name] = credential
    with pytest.raises(anthropic.AuthenticationError) as raised:
        anthropic.Anthropic(base_url=root, **{name: "another"}).messages.create(**said("hello"))
    assert raised.value.type == "authentication_error"
