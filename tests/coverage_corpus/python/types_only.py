"""Types of the SDK's, and no client."""

from typing import Literal, Protocol

import anthropic
from anthropic.types import Message, MessageParam, ToolParam

Model = Literal["claude-opus-4-8", "claude-haiku-4-5"]
URL = "https://docs.anthropic.com"


class Sends(Protocol):
    def create(self, *, model: Model, messages: list[MessageParam]) -> Message: ...


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def tool(name: str) -> ToolParam:
    return {"name": name, "input_schema": {"type": "object"}}


def retried(error: Exception) -> bool:
    return isinstance(error, anthropic.RateLimitError | anthropic.APIConnectionError)


def send(sends: Sends, messages: list[MessageParam]) -> Message:
    return sends.create(model="claude-opus-4-8", messages=messages)
