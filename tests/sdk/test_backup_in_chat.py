"""The official SDKs against the proxy whose only server is one that knows chat completions and nothing else (chat_only.py):
what OpenAI's Responses API and Anthropic's Messages API ask is told there in chat completions, and the answers told back."""

import anthropic
import chat_only
import openai
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def chat_root(start):
    port = chat_only.start()
    backup = {"BACKUPS": "groq", "GROQ_BASE_URL": f"http://127.0.0.1:{port}/v1", "GROQ_API_KEY": "gsk_any", "GROQ_MODEL": "llama"}
    return start(OPENROUTER_API_KEY="", **backup)


@pytest.fixture
def claude(chat_root):
    return anthropic.Anthropic(base_url=chat_root, api_key="any-key")


@pytest.fixture
def gpt(chat_root):
    return openai.OpenAI(base_url=f"{chat_root}/v1", api_key="any-key")


@pytest.fixture
def received():
    before = len(chat_only.ChatOnly.received)
    return lambda: chat_only.ChatOnly.received[before:]


def said(words, **more):
    return {"model": "claude-opus-4-8", "max_tokens": 2048, "messages": [{"role": "user", "content": words}], **more}


def message(client, streamed, **asked):
    if not streamed:
        return client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


def response(client, streamed, **asked):
    if not streamed:
        return client.responses.create(model="gpt-4o", **asked)
    with client.responses.stream(model="gpt-4o", **asked) as stream:
        return stream.until_done().get_final_response()


both = pytest.mark.parametrize("streamed", [False, True])


@both
def test_a_message_has_text_model_and_usage(claude, received, streamed):
    answer = message(claude, streamed, **said("你好", system="Be brief.", stop_sequences=list("abcde")))
    assert [(block.type, block.text) for block in answer.content] == [("text", "You said: 你好")]
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", "a/b:free", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 4)
    [call] = received()
    assert call.body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]
    assert (call.body["model"], call.body["max_tokens"], call.body["stop"]) == ("llama", 2048, list("abcd"))
    assert call.headers["authorization"] == "Bearer gsk_any"


def test_a_streamed_message_brings_every_event_in_order(claude):
    kinds = [event.type for event in claude.messages.create(**said("hello there"), stream=True)]
    deltas = ["content_block_delta"] * 4
    assert kinds == ["message_start", "content_block_start", *deltas, "content_block_stop", "message_delta", "message_stop"]


@both
@pytest.mark.parametrize("how", ["think", "reason"])
def test_thoughts_come_by_themselves(claude, gpt, streamed, how):
    thinking, text = message(claude, streamed, **said(f"{how} hard one", thinking={"type": "enabled", "budget_tokens": 1024})).content
    assert (thinking.type, thinking.thinking, text.text) == ("thinking", "Let me think.", "You said: hard one")
    reasoning, answer = response(gpt, streamed, input=f"{how} hard one", reasoning={"summary": "auto"}).output
    assert (reasoning.summary[0].text, answer.content[0].text) == ("Let me think.", "You said: hard one")
    reasoning, _ = response(gpt, streamed, input=f"{how} hard one").output
    assert reasoning.content[0].text == "Let me think."


@both
def test_a_tool_call_goes_there_and_back(claude, received, streamed):
    asked = said(None, tools=[WEATHER], tool_choice={"type": "auto"})
    conversation = [{"role": "user", "content": f"weather, streamed: {streamed}?"}]
    answer = message(claude, streamed, **asked | {"messages": conversation})
    [call] = answer.content
    assert (answer.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "weather", {"city": "北京"})
    conversation.append({"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]})
    conversation.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]})
    assert message(claude, streamed, **asked | {"messages": conversation}).content[0].text == "The tool said: sunny"
    assert received()[-1].body["messages"][-1] == {"role": "tool", "tool_call_id": call.id, "content": "sunny"}


@both
def test_the_tool_runner_calls_a_function_and_goes_on(claude, streamed):
    cities = []

    @beta_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "sunny"

    asked = said(f"weather by the runner, streamed: {streamed}?", tools=[weather], stream=streamed)
    answer = claude.beta.messages.tool_runner(**asked).until_done()
    assert (cities, answer.content[0].text) == (["北京"], "The tool said: sunny")


def test_images_are_shown_also_those_of_results(claude, received):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert claude.messages.create(**said([image, {"type": "text", "text": "what is this?"}])).content[0].text == "You said: image"
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert received()[-1].body["messages"][0]["content"][0] == shown
    use = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    turns = [{"role": "user", "content": "look"}, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    claude.messages.create(model="m", max_tokens=9, messages=turns)
    assert received()[-1].body["messages"][-1]["content"][-1] == shown


@both
def test_structured_output_is_parsed(claude, gpt, received, streamed):
    if streamed:
        with claude.messages.stream(**said("weather?"), output_format=Weather) as stream:
            assert stream.get_final_message().parsed_output == Weather(city="北京", degrees=21)
        with gpt.responses.stream(model="gpt-4o", input="weather?", text_format=Weather) as stream:
            assert stream.until_done().get_final_response().output_parsed == Weather(city="北京", degrees=21)
    else:
        assert claude.messages.parse(**said("weather?"), output_format=Weather).parsed_output == Weather(city="北京", degrees=21)
        assert gpt.responses.parse(model="gpt-4o", input="weather?", text_format=Weather).output_parsed == Weather(city="北京", degrees=21)
    formats = [call.body["response_format"] for call in received()]
    assert [(one["type"], one["json_schema"]["strict"]) for one in formats] == [("json_schema", True)] * 2


@both
@pytest.mark.parametrize(
    "status, of_anthropic, kind, of_openai",
    [
        (400, anthropic.BadRequestError, "invalid_request_error", openai.BadRequestError),
        (401, anthropic.AuthenticationError, "authentication_error", openai.AuthenticationError),
        (403, anthropic.PermissionDeniedError, "permission_error", openai.PermissionDeniedError),
        (429, anthropic.RateLimitError, "rate_limit_error", openai.RateLimitError),
    ],
)
def test_errors_of_a_server_that_is_named(claude, gpt, status, of_anthropic, kind, of_openai, streamed):
    with pytest.raises(of_anthropic, match=r"thing|returned error|credentials") as raised:
        claude.with_options(max_retries=0).messages.create(**said(f"error {status}") | {"model": "groq/llama"}, stream=streamed)
    assert (raised.value.status_code, raised.value.type) == (status, kind)
    with pytest.raises(of_openai, match=r"thing|returned error|credentials"):
        gpt.with_options(max_retries=0).responses.create(model="groq/llama", input=f"error {status}", stream=streamed)


@pytest.mark.parametrize("words", ["fails midway, word by word", "breaks off, word by word"])
def test_a_stream_that_fails_says_so_after_its_first_words(claude, gpt, words):
    text = ""
    with pytest.raises(anthropic.APIStatusError):
        with claude.messages.stream(**said(words)) as stream:
            for word in stream.text_stream:
                text += word
    assert text.startswith("You ")
    events = list(gpt.responses.create(model="gpt-4o", input=words, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[-1].type, events[-1].response.status) == ("response.failed", "failed")
    assert events[-1].response.id == events[0].response.id


@both
def test_a_response_has_text_model_and_usage(gpt, received, streamed):
    answer = response(gpt, streamed, input="你好", instructions="Be brief.", max_output_tokens=99)
    assert (answer.status, answer.output_text) == ("completed", "You said: 你好")
    assert (answer.model, answer.usage.total_tokens) == ("a/b:free", 7)
    [call] = received()
    assert call.body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]
    assert call.body["max_tokens"] == 99


def test_a_streamed_response_brings_every_event_in_order(gpt):
    events = list(gpt.responses.create(model="gpt-4o", input="hello there", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    around = ["content_part.added", *["output_text.delta"] * 4, "output_text.done", "content_part.done"]
    assert kinds == ["created", "in_progress", "output_item.added", *around, "output_item.done", "completed"]


@both
def test_a_function_call_goes_there_and_back(gpt, streamed):
    conversation = [{"role": "user", "content": f"weather, streamed: {streamed}?"}]
    [call] = response(gpt, streamed, input=conversation, tools=[FUNCTION]).output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city": "北京"}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    assert response(gpt, streamed, input=[*conversation, call, result], tools=[FUNCTION]).output_text == "The tool said: sunny"


@both
def test_a_custom_tool_is_called_with_plain_text(gpt, streamed):
    patch = {"type": "custom", "name": "patch"}
    words = 'call patch {"input": "*** Begin Patch\\n\\"x\\""}'
    [call] = response(gpt, streamed, input=words, tools=[patch]).output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "patch", '*** Begin Patch\n"x"')
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    asked = [{"role": "user", "content": words}, call, result]
    assert response(gpt, streamed, input=asked, tools=[patch]).output_text == "The tool said: done"


@both
def test_what_stands_in_a_namespace_is_called_there(gpt, streamed):
    tools = [{"type": "namespace", "name": "shell", "description": "d", "tools": [{"type": "function", "name": "run", "parameters": SCHEMA}]}]
    [call] = response(gpt, streamed, input="call shell__run {}", tools=tools).output
    assert (call.type, call.namespace, call.name, call.arguments) == ("function_call", "shell", "run", "{}")
