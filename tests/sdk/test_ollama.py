"""The official Ollama client for Python, unchanged: the free models behind Ollama's API."""

import base64
import json
import urllib.request

import ollama
import pytest
from dialects.embeddings import vector
from pydantic import BaseModel

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def client(root):
    return ollama.Client(host=root)


def ask(client, words, **more):
    return client.chat(model="llama3.2", messages=[{"role": "user", "content": words}], **more)


def weather(city: str) -> str:
    """The weather in a city.

    Args:
      city: Its name.
    """
    return f"sunny in {city}"


def measured(last):
    assert last.done is True
    assert (last.prompt_eval_count, last.eval_count) == (3, 4)
    assert last.total_duration > 0 and last.eval_duration >= 0 and last.load_duration >= 0 and last.prompt_eval_duration >= 0
    return last.done_reason


def test_a_plain_chat_has_text_and_numbers(client, received):
    answer = ask(client, "你好")
    assert (answer.message.role, answer.message.content) == ("assistant", "You said: 你好")
    assert measured(answer) == "stop"
    assert answer.model and answer.created_at
    [call] = received()
    assert call.path == "/api/v1/chat/completions"
    assert call.body["model"] == "openrouter/free"
    assert call.body["messages"] == [{"role": "user", "content": "你好"}]
    assert call.headers["authorization"] == "Bearer sk-or-v1-sdk-tests"


def test_a_streamed_chat_ends_with_the_numbers(client):
    parts = list(ask(client, "hello there", stream=True))
    assert "".join(part.message.content for part in parts) == "You said: hello there"
    assert len(parts) > 3 and [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert measured(parts[-1]) == "stop"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_goes_there_and_back_with_arguments_as_objects(client, received, streamed):
    def said(conversation):
        answer = client.chat(model="llama3.2", messages=conversation, tools=[weather], stream=streamed)
        parts = list(answer) if streamed else [answer]
        text = "".join(part.message.content or "" for part in parts)
        return text, [call for part in parts for call in part.message.tool_calls or []]

    conversation = [{"role": "user", "content": f"weather, streamed: {streamed}?"}]
    _, [call] = said(conversation)
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "北京"})
    conversation.append({"role": "assistant", "content": "", "tool_calls": [call]})
    conversation.append({"role": "tool", "tool_name": "weather", "content": weather(**call.function.arguments)})
    assert said(conversation) == ("The tool said: sunny in 北京", [])
    first, second = received()
    assert first.body["tools"][0]["function"]["name"] == "weather"
    # Chat completions know a call by its id, Ollama's clients by the order; the arguments are a text there.
    made, result = second.body["messages"][-2:]
    assert json.loads(made["tool_calls"][0]["function"]["arguments"]) == {"city": "北京"}
    assert (result["role"], result["content"]) == ("tool", "sunny in 北京")
    assert result["tool_call_id"] == made["tool_calls"][0]["id"]


def test_images_become_data_urls(client, received):
    message = {"role": "user", "content": "what is this?", "images": [base64.b64decode(PIXEL)]}
    assert client.chat(model="llava", messages=[message]).message.content == "You said: image"
    [content] = [message["content"] for message in received()[0].body["messages"]]
    assert {"type": "text", "text": "what is this?"} in content
    [image] = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    assert image == f"data:image/png;base64,{PIXEL}"


def test_format_json_asks_for_an_object(client, received):
    assert json.loads(ask(client, "weather?", format="json").message.content) == {"city": "北京", "degrees": 21}
    assert received()[0].body["response_format"] == {"type": "json_object"}


def test_a_schema_becomes_structured_output(client, received):
    class Weather(BaseModel):
        city: str
        degrees: int

    answer = ask(client, "weather?", format=Weather.model_json_schema())
    assert Weather.model_validate_json(answer.message.content) == Weather(city="北京", degrees=21)
    asked = received()[0].body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["schema"] == Weather.model_json_schema()


@pytest.mark.parametrize("think", [True, "high"])
def test_thinking_comes_beside_the_text(client, received, think):
    answer = ask(client, "hard one", think=think)
    assert (answer.message.thinking, answer.message.content) == ("Let me think.", "You said: hard one")
    assert received()[0].body["reasoning"]
    parts = list(ask(client, "hard one", think=think, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "Let me think."
    assert "".join(part.message.content or "" for part in parts) == "You said: hard one"


def test_thinking_can_be_switched_off(client):
    assert not ask(client, "easy one", think=False).message.thinking


def test_options_that_chat_has_are_handed_on_and_the_rest_is_ignored(client, received):
    options = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "num_predict": 50, "num_ctx": 4096, "mirostat": 1}
    ask(client, "hello", options=options, keep_alive="5m")
    [call] = received()
    expected = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "max_tokens": 50}
    assert {name: call.body[name] for name in expected} == expected
    assert not {"options", "num_ctx", "num_predict", "mirostat", "keep_alive"} & set(call.body)


def test_generate_plain_and_streamed(client, received):
    answer = client.generate(model="llama3.2", prompt="hello there", system="Be brief.")
    assert answer.response == "You said: hello there"
    assert measured(answer) == "stop"
    assert [message["role"] for message in received()[0].body["messages"]] == ["system", "user"]
    parts = list(client.generate(model="llama3.2", prompt="hello there", stream=True))
    assert "".join(part.response for part in parts) == "You said: hello there"
    assert measured(parts[-1]) == "stop"


def test_no_prompt_loads_the_model_without_a_call(client, received):
    loaded = [client.generate(model="llama3.2"), client.chat(model="llama3.2", messages=[])]
    assert [(answer.done, answer.done_reason) for answer in loaded] == [(True, "load")] * 2
    assert received() == []


def test_embeddings_of_one_text_and_of_many(client, received):
    assert client.embed(model="nomic-embed-text", input="one").embeddings == [vector("one")]
    assert client.embed(model="nomic-embed-text", input=["one", "two"]).embeddings == [vector("one"), vector("two")]
    assert [(call.path, call.body["model"]) for call in received()] == [("/api/v1/embeddings", "n/embed:free")] * 2


def test_without_an_embedding_model_the_error_lists_the_free_ones(start):
    client = ollama.Client(host=start(EMBEDDING_MODEL=""))
    with pytest.raises(ollama.ResponseError, match="n/embed:free") as raised:
        client.embed(model="nomic-embed-text", input="one")
    assert raised.value.status_code == 400


def test_the_list_has_the_free_models(client):
    models = client.list().models
    assert [model.model for model in models] == ["openrouter/free", "best", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"]
    assert all(model.modified_at and model.digest and model.size is not None and model.details for model in models)


@pytest.mark.parametrize(
    "name, capabilities, context",
    [
        ("a/b:free", {"completion", "tools", "vision"}, 131072),
        ("c/tools:free", {"completion", "tools"}, 262144),
        ("d/eyes:free", {"completion", "vision"}, 32768),
        ("e/words:free", {"completion"}, 8192),
    ],
)
def test_show_says_what_a_model_can(client, name, capabilities, context):
    shown = client.show(name)
    assert set(shown.capabilities) & {"completion", "tools", "vision"} == capabilities
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] == context
    assert shown.modelinfo["general.basename"]
    assert shown.details


def test_the_version_is_one_that_tools_accept(root):
    version = json.load(urllib.request.urlopen(f"{root}/api/version"))["version"]
    # VS Code takes nothing older.
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)


def test_no_model_is_loaded(client):
    assert list(client.ps().models) == []


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "status, message",
    [
        (400, "Bad thing"),
        (401, "No auth credentials found"),
        (402, "Insufficient credits"),
        (404, "No such thing"),
        (429, "Provider returned error"),
        (503, "No instances available"),
    ],
)
def test_errors_of_the_upstream_are_one_sentence(client, received, status, message, streamed):
    with pytest.raises(ollama.ResponseError) as raised:
        answer = ask(client, f"error {status}", stream=streamed)
        list(answer)
    assert raised.value.status_code == status
    assert message in raised.value.error
    # This client doesn't try again by itself.
    assert len(received()) == (3 if status in (429, 503) else 1)


@pytest.mark.parametrize("words", ["fails midway, word by word", "breaks off, word by word"])
def test_a_stream_that_fails_raises_after_its_first_words(client, words):
    text = ""
    with pytest.raises(ollama.ResponseError) as raised:
        for part in ask(client, words, stream=True):
            text += part.message.content
    assert text.startswith("You ")
    assert raised.value.error and "{" not in raised.value.error, "a sentence"


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.create("mine", from_="llama3.2"),
        lambda client: client.copy("llama3.2", "mine"),
        lambda client: client.delete("llama3.2"),
    ],
    ids=["create", "copy", "delete"],
)
def test_models_cannot_be_changed(client, received, change):
    with pytest.raises(ollama.ResponseError) as raised:
        change(client)
    assert raised.value.status_code == 501
    assert raised.value.error and "\n" not in raised.value.error
    assert received() == []


def test_a_model_that_is_pulled_is_there(client, received):
    assert client.pull("llama3.2").status == "success"
    assert [step.status for step in client.pull("llama3.2", stream=True)][-1] == "success"
    assert received() == []


def test_the_day_s_limit_is_found_out_once_and_told_at_once(start, received):
    client = ollama.Client(host=start())
    for words in ("the day's limit", "hello"):
        with pytest.raises(ollama.ResponseError, match=r"\d\d:\d\d") as raised:
            ask(client, words)
        assert raised.value.status_code == 429
    assert len(received()) == 1


def test_without_a_key_the_error_says_what_to_do(start):
    with pytest.raises(ollama.ResponseError, match="OPENROUTER_API_KEY") as raised:
        ask(ollama.Client(host=start(OPENROUTER_API_KEY="")), "hello")
    assert raised.value.status_code == 401


def test_the_async_client_streams_as_well(root):
    import asyncio

    async def words():
        answer = await ollama.AsyncClient(host=root).chat(model="x:latest", messages=[{"role": "user", "content": "hi"}], stream=True)
        return "".join([part.message.content async for part in answer])

    assert asyncio.run(words()) == "You said: hi"
