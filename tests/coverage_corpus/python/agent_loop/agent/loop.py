"""The agent's loop."""

from dataclasses import dataclass, field

from anthropic import Anthropic

from agent import config
from agent.tools import TOOLS


@dataclass
class Agent:
    recorder: object
    model: str = config.MODEL
    client: Anthropic = field(init=False)

    def __post_init__(self):
        self.client = Anthropic(max_retries=0, middleware=config.middleware(self.recorder))  # expect: client guarded

    def run(self, messages):
        while True:
            reply = self.client.messages.create(  # expect: call guarded
                model=self.model, max_tokens=1, messages=messages, tools=list(TOOLS)
            )
            if reply.stop_reason != "tool_use":
                return reply
            for block in reply.content:
                if block.type == "tool_use":
                    TOOLS[block.name](self, **block.input)
