"""Good answers: derived from the request, so that the same request gets the same one and others can be told apart.

Tokens are counted simply: one for every four bytes, rounded up. Input is the system prompt, the messages and the tools,
as JSON; output is the content's own text, thinking included.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from relight.engine.fake.asked import Api, Asked
from relight.engine.fake.steps import Step

BYTES_A_TOKEN = 4
QUOTED_CHARACTERS = 60
IDS = {Api.ANTHROPIC: "msg_fake", Api.BEDROCK: "msg_bdrk_fake", Api.VERTEX: "msg_vrtx_fake"}
WORDS = ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima")
_NOT_CONTENT = ("stream", "metadata", "anthropic_version", "anthropic_beta")


def message(asked: Asked, step: Step) -> dict[str, Any]:
    """A whole message, as a plain answer has it."""
    mark = fingerprint(asked)
    stop_reason: str = step.stop_reason or "end_turn"
    content: list[dict[str, Any]] = []
    if stop_reason != "refusal":
        if _thinks(asked.body):
            content.append({"type": "thinking", "thinking": f"Thinking about {mark}.", "signature": f"sig-{mark}"})
        tool = _tool(asked.body) if step.text is None and step.stop_reason in (None, "tool_use") else None
        if tool is None:
            content.append({"type": "text", "text": _text(asked, step, mark)})
        else:
            stop_reason = "tool_use"
            arguments = _example(tool.get("input_schema", {}))
            content.append({"type": "tool_use", "id": f"toolu_fake_{mark}", "name": tool["name"], "input": arguments})
        stop_reason = _cut(asked.body, content, stop_reason, free=step.output_tokens is not None)
    refused = {"type": "refusal", "category": None, "explanation": None} if stop_reason == "refusal" else None
    return {
        "id": f"{IDS[asked.api]}_{mark}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": refused,
        "usage": _usage(asked, step, content),
    }


def fingerprint(asked: Asked) -> str:
    """Twelve hex digits of the model and what it is asked: the same for every API, streamed or not."""
    body = {name: value for name, value in asked.body.items() if name not in _NOT_CONTENT}
    body["model"] = asked.model
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def tokens(text: str | bytes) -> int:
    size = len(text.encode() if isinstance(text, str) else text)
    return -(-size // BYTES_A_TOKEN)


def input_tokens(body: Mapping[str, Any]) -> int:
    counted = {name: body[name] for name in ("system", "messages", "tools") if body.get(name)}
    return tokens(orjson.dumps(counted))


def _thinks(body: Mapping[str, Any]) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def _tool(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tool to use: the one chosen, else the first; none once there is a result, and where none may be used."""
    choice: Mapping[str, Any] = body.get("tool_choice") or {}
    tools = [tool for tool in body.get("tools") or () if isinstance(tool, dict) and "input_schema" in tool]
    if choice.get("type") == "none" or _has_result(body.get("messages")):
        return None
    if choice.get("type") == "tool":
        tools = [tool for tool in tools if tool.get("name") == choice.get("name")]
    return tools[0] if tools else None


def _has_result(messages: object) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else {}
    content = last.get("content") if isinstance(last, dict) else None
    blocks = content if isinstance(content, list) else []
    return any(isinstance(block, dict) and block.get("type") == "tool_result" for block in blocks)


def _example(schema: Mapping[str, Any]) -> Any:
    """A value that fits a JSON schema, as far as tools' inputs go; only what is required."""
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties") or {}
            return {name: _example(properties.get(name) or {}) for name in schema.get("required") or ()}
        case "array":
            return []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "example"


def _text(asked: Asked, step: Step, mark: str) -> str:
    if step.text is not None:
        return step.text
    text = f"Answer {mark} to: {_said(asked.body.get('messages'))}"
    if step.output_tokens is None:
        return text
    words = text.split(" ")
    while tokens(" ".join(words)) < step.output_tokens:
        words.append(WORDS[len(words) % len(WORDS)])
    return " ".join(words)


def _said(messages: object) -> str:
    """The beginning of the last text of the conversation."""
    last = messages[-1] if isinstance(messages, list) and messages else {}
    content = last.get("content", "") if isinstance(last, dict) else ""
    if isinstance(content, list):
        texts = [block.get("text", "") for block in content if isinstance(block, dict) and block.get("type") == "text"]
        content = " ".join(map(str, texts))
    return str(content)[:QUOTED_CHARACTERS]


def _cut(body: Mapping[str, Any], content: Sequence[dict[str, Any]], stop_reason: str, *, free: bool) -> str:
    """Cuts a text at `max_tokens`, unless the step says how long it is; gives the reason why it stops."""
    limit = body.get("max_tokens")
    last = content[-1]
    if free or not isinstance(limit, int) or last["type"] != "text" or tokens(last["text"]) <= limit:
        return stop_reason
    last["text"] = last["text"].encode()[: limit * BYTES_A_TOKEN].decode(errors="ignore")
    return "max_tokens"


def _usage(asked: Asked, step: Step, content: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens(asked.body) if step.input_tokens is None else step.input_tokens,
        "output_tokens": _output_tokens(content) if step.output_tokens is None else step.output_tokens,
        "cache_creation_input_tokens": step.cache_write_tokens or 0,
        "cache_read_input_tokens": step.cache_read_tokens or 0,
        "service_tier": "standard",
    }


def _output_tokens(content: Sequence[Mapping[str, Any]]) -> int:
    return sum(
        tokens(block.get("text") or block.get("thinking") or orjson.dumps(block.get("input"))) for block in content
    )
