"""Google's official SDK for Python, unchanged: the free models behind the Gemini API."""

import pytest
from dialects.embeddings import vector
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

MODEL = "gemini-2.5-flash"


@pytest.fixture(params=["v1beta", "v1"])
def client(root, request):
    options = types.HttpOptions(base_url=root, api_version=request.param)
    return genai.Client(api_key="any-key", http_options=options)


def ask(client, words, **config):
    return client.models.generate_content(model=MODEL, contents=words, config=config or None)


def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
      city: Its name.
    """
    return f"sunny in {city}"


class Weather(BaseModel):
    city: str
    degrees: int


def test_a_plain_answer_has_text_and_numbers(client, received):
    answer = ask(client, "你好")
    assert answer.text == "You said: 你好"
    usage = answer.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (3, 4, 7)
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.model_version and answer.response_id == "gen-1"
    [call] = received()
    assert call.path == "/api/v1/chat/completions"
    assert call.body == {"model": "openrouter/free", "messages": [{"role": "user", "content": "你好"}]}
    assert call.headers["authorization"] == "Bearer sk-or-v1-sdk-tests"


def test_a_stream_ends_with_the_numbers(client):
    events = list(client.models.generate_content_stream(model=MODEL, contents="hello there"))
    assert "".join(event.text for event in events) == "You said: hello there"
    assert len(events) > 3 and events[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert events[-1].usage_metadata.total_token_count == 7


def test_functions_are_called_by_themselves(client, received):
    answer = ask(client, "weather?", tools=[get_weather])
    assert answer.text == "The tool said: sunny in 北京"
    first, second = received()
    [function] = [tool["function"] for tool in first.body["tools"]]
    assert function["name"] == "get_weather" and function["parameters"]["properties"]["city"]["type"] == "string"
    call, result = second.body["messages"][-2:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]


def test_functions_in_a_stream_and_with_all_that_can_be_said_of_them(client, received):
    declared = types.FunctionDeclaration(
        name="get_weather",
        parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING", nullable=True)}, required=["city"]),
    )
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY", allowed_function_names=["get_weather"])),
    )
    events = list(client.models.generate_content_stream(model=MODEL, contents="weather?", config=config))
    [call] = [call for event in events for call in event.function_calls or []]
    assert (call.name, call.args) == ("get_weather", {"city": "北京"})
    [sent] = received()
    assert sent.body["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert sent.body["tools"][0]["function"]["parameters"]["properties"] == {"city": {"type": ["string", "null"]}}


def test_a_schema_is_kept_to(client, received):
    answer = ask(client, "weather?", response_mime_type="application/json", response_schema=Weather)
    assert answer.parsed == Weather(city="北京", degrees=21)
    schema = received()[0].body["response_format"]["json_schema"]["schema"]
    assert (schema["type"], schema["properties"]["degrees"]["type"]) == ("object", "integer")


def test_thoughts_are_told_apart(client, received):
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_budget=100)
    answer = ask(client, "hello", thinking_config=thinking)
    thought, text = answer.candidates[0].content.parts
    assert (thought.thought, thought.text) == (True, "Let me think.")
    assert text.text == answer.text == "You said: hello"
    assert received()[0].body["reasoning"] == {"max_tokens": 100}


def test_a_conversation_goes_on(client, received):
    chat = client.chats.create(model=MODEL, config={"system_instruction": "Be brief."})
    assert chat.send_message("one").text == "You said: one"
    assert "".join(event.text for event in chat.send_message_stream("two")) == "You said: two"
    said = [(message["role"], message["content"]) for message in received()[-1].body["messages"]]
    assert said == [("system", "Be brief."), ("user", "one"), ("assistant", "You said: one"), ("user", "two")]


def test_images_and_files(client, received):
    image = types.Part.from_bytes(data=b"\xfb\xff", mime_type="image/png")
    pdf = types.Part.from_bytes(data=b"%PDF", mime_type="application/pdf")
    assert ask(client, [image, pdf, "look"]).text == "You said: image"
    sent = received()[0].body
    assert sent["messages"][0]["content"][0] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,+/8="}}
    assert sent["plugins"] == [{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]


def test_tokens_are_counted_without_a_call(client, received):
    assert 5 < client.models.count_tokens(model=MODEL, contents="How many tokens does this sentence have?").total_tokens < 12
    assert received() == []


def test_embeddings(client, received):
    answer = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    assert [embedding.values for embedding in answer.embeddings] == [vector("a"), vector("b")]
    assert received()[0].body == {"model": "n/embed:free", "input": ["a", "b"]}


def test_models_are_listed_and_shown(client):
    models = {model.name: model for model in client.models.list()}
    assert models["models/a/b:free"].display_name == "A: B (free)" and "models/paid/x" not in models
    assert client.models.get(model="a/b:free").input_token_limit == 131072
    assert client.models.get(model=MODEL).name == f"models/{MODEL}"


@pytest.mark.parametrize(("status", "name"), [(400, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")])
def test_errors_are_the_sdks_own(start, status, name):
    options = types.HttpOptions(base_url=start(RETRIES="0"))
    client = genai.Client(api_key="any-key", http_options=options)
    with pytest.raises(errors.APIError) as plain:
        ask(client, f"error {status}")
    with pytest.raises(errors.APIError) as streamed:
        list(client.models.generate_content_stream(model=MODEL, contents=f"error {status}"))
    for error in (plain.value, streamed.value):
        assert (error.code, error.status) == (status, name)


def test_an_error_in_the_middle_of_a_stream(client):
    words = []
    with pytest.raises(errors.APIError) as error:
        for event in client.models.generate_content_stream(model=MODEL, contents="fails midway, word by word as it comes"):
            words.append(event.text)
    assert words and error.value.code >= 500


def test_googles_own_search_is_refused_in_words(client, received):
    with pytest.raises(errors.ClientError, match="Google's own tools"):
        ask(client, "news?", tools=[types.Tool(google_search=types.GoogleSearch())])
    assert received() == []
