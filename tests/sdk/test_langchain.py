"""LangChain's ChatOpenAI, unchanged."""

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


@pytest.fixture
def chat(base_url):
    return ChatOpenAI(base_url=base_url, api_key="any-key", model="gpt-4o")


def test_plain_and_streamed(chat):
    assert chat.invoke("hello").content == "You said: hello"
    pieces = [chunk.content for chunk in chat.stream("hello")]
    assert "".join(pieces) == "You said: hello"


def test_tools(chat):
    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return "sunny"

    calls = chat.bind_tools([weather]).invoke("weather?").tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [("weather", {"city": "北京"})]


def test_structured_output(chat):
    class Weather(BaseModel):
        city: str
        degrees: int

    answer = chat.with_structured_output(Weather, method="json_schema").invoke("weather?")
    assert answer == Weather(city="北京", degrees=21)
