"""What a request asks for: which API, which operation, which model."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

import orjson


class Api(StrEnum):
    """Whose paths and framing."""

    ANTHROPIC = "anthropic"
    BEDROCK = "aws.bedrock"
    VERTEX = "gcp.vertex_ai"


class Operation(StrEnum):
    MESSAGE = "message"
    COUNT_TOKENS = "count_tokens"
    CREATE_BATCH = "create_batch"
    LIST_BATCHES = "list_batches"
    RETRIEVE_BATCH = "retrieve_batch"
    BATCH_RESULTS = "batch_results"
    CANCEL_BATCH = "cancel_batch"
    UNKNOWN = "unknown"
    """no path of the API: 404, and no step is used up"""


@dataclass(frozen=True, slots=True)
class Asked:
    api: Api
    operation: Operation
    body: dict[str, Any] = field(default_factory=dict)
    """The request's JSON; empty where it has none."""
    model: str = ""
    streams: bool = False
    batch: str = ""
    wrong: str | None = None
    """Why the API would refuse it with 400."""


_BATCHES = "/v1/messages/batches"
_BATCH = re.compile(rf"{_BATCHES}/(?P<id>[^/]+)(?P<rest>/results|/cancel)?")
_BEDROCK = re.compile(r"/model/(?P<model>[^/]+)/invoke(?P<streams>-with-response-stream)?")
_VERTEX = re.compile(
    r"/projects/[^/]+/locations/[^/]+/publishers/anthropic/models/(?P<model>[^/]+):(?P<verb>rawPredict|streamRawPredict)"
)
_REQUIRED = ("messages", "max_tokens")


def asked(method: str, target: str, raw: bytes) -> Asked:
    """`target` as it stands in the request line. A path may have a prefix, as those of proxies and other clouds do."""
    path = target.partition("?")[0]
    if match := _found(_BEDROCK, path):
        return _message(Api.BEDROCK, raw, model=unquote(match["model"]), streams=bool(match["streams"]))
    if match := _found(_VERTEX, path):
        if match["model"] == "count-tokens":
            return _message(Api.VERTEX, raw, operation=Operation.COUNT_TOKENS)
        streams = match["verb"] == "streamRawPredict"
        return _message(Api.VERTEX, raw, model=unquote(match["model"]), streams=streams)
    if method == "POST" and path.endswith("/v1/messages"):
        return _message(Api.ANTHROPIC, raw)
    if method == "POST" and path.endswith("/v1/messages/count_tokens"):
        return _message(Api.ANTHROPIC, raw, operation=Operation.COUNT_TOKENS)
    if path.endswith(_BATCHES):
        if method == "GET":
            return Asked(Api.ANTHROPIC, Operation.LIST_BATCHES)
        body, wrong = _json(raw)
        if wrong is None and not isinstance(body.get("requests"), list):
            wrong = "requests: Field required"
        return Asked(Api.ANTHROPIC, Operation.CREATE_BATCH, body=body, wrong=wrong)
    if match := _found(_BATCH, path):
        operations = {
            ("GET", None): Operation.RETRIEVE_BATCH,
            ("GET", "/results"): Operation.BATCH_RESULTS,
            ("POST", "/cancel"): Operation.CANCEL_BATCH,
        }
        if operation := operations.get((method, match["rest"])):
            return Asked(Api.ANTHROPIC, operation, batch=unquote(match["id"]))
    return Asked(Api.ANTHROPIC, Operation.UNKNOWN)


def _found(pattern: re.Pattern[str], path: str) -> re.Match[str] | None:
    match = pattern.search(path)
    return match if match is not None and match.end() == len(path) else None


def _message(
    api: Api, raw: bytes, *, operation: Operation = Operation.MESSAGE, model: str = "", streams: bool = False
) -> Asked:
    body, wrong = _json(raw)
    if api is Api.ANTHROPIC or operation is Operation.COUNT_TOKENS:
        model, streams = str(body.get("model") or ""), bool(body.get("stream"))
        if wrong is None and not model:
            wrong = "model: Field required"
    required = _REQUIRED if operation is Operation.MESSAGE else _REQUIRED[:1]
    for name in required:
        if wrong is None and not body.get(name):
            wrong = f"{name}: Field required"
    return Asked(api, operation, body=body, model=model, streams=streams, wrong=wrong)


def _json(raw: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        loaded = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}, "The request body is not valid JSON"
    return (loaded, None) if isinstance(loaded, dict) else ({}, "The request body is no JSON object")
