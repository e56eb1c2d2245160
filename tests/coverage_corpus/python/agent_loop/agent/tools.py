"""Tools that ask a model themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.loop import Agent

TOOLS = {}


def tool(function):
    TOOLS[function.__name__] = function
    return function


@tool
def summarize(agent: Agent, text: str) -> str:
    reply = agent.client.messages.create(model=agent.model, max_tokens=1, messages=[text])  # expect: call guarded
    return reply.content[0].text
