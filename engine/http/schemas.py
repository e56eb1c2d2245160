"""What the API's document says of parameters, answers and problems."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, Field, create_model

from relight.engine.problems import KINDS, MEDIA_TYPE, Problem
from relight.projections.query import DEFAULT_LIMIT, MAX_LIMIT, Query, Row

RowT = TypeVar("RowT", bound=Row)
TYPES: Mapping[type, Mapping[str, str]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    datetime: {"type": "string", "format": "date-time"},
}
PROBLEMS = (400, 401, 403, 404, 405, 408, 413, 414, 415, 422, 429, 431, 500, 503, 504)
RATE_HEADERS = {
    "RateLimit-Policy": "the policy, as the IETF's draft on rate limit headers says it",
    "RateLimit": "what is left of it, by the same draft",
}


class Answer(BaseModel, Generic[RowT]):
    """A page of a query's rows."""

    query: str
    tenant: str = Field(description="whose rows these are, beside the platform's")
    position: str = Field(description="how far the stream was folded: incarnation.seq")
    rows: list[RowT]
    next: str | None = Field(description="`cursor` of the next page; null on the last one")


def answer_model(query: Query) -> type[BaseModel]:
    """The answer of this query."""
    name = "".join(part.capitalize() for part in query.name.replace("_", ".").split("."))
    return create_model(f"{name}Answer", __base__=Answer[query.row])  # type: ignore[name-defined]


def query_parameters(query: Query) -> list[dict[str, Any]]:
    """The query's own parameters, then those that every query takes."""
    own = [
        _parameter(
            name,
            p.help,
            dict(TYPES[p.type]) | ({} if p.default is None else {"default": p.default}),
            required=p.required,
        )
        for name, p in query.parameters.items()
    ]
    return [*own, *COMMON_PARAMETERS]


def responses(
    status: int, model: Any, description: str, *, not_modified: bool = False, receipt: bool = False
) -> dict[int | str, dict[str, Any]]:
    """What an operation answers: success as said, and every problem."""
    headers = _headers(RATE_HEADERS)
    success: dict[str, Any] = {"description": description, "headers": headers}
    if model is not None:
        success["model"] = model
    if receipt:
        success["headers"] = headers | _headers({"Relight-Receipt": "the last event's receipt, for `wait`"})
    found: dict[int | str, dict[str, Any]] = {status: success}
    if not_modified:
        success["headers"] = headers | _headers(
            {"ETag": "the position, and what else an answer depends on", "Link": "the next page, rel=next"}
        )
        found[304] = {"description": "nothing has changed since If-None-Match", "headers": _headers({"ETag": "as is"})}
    return found | {code: problem(code) for code in PROBLEMS}


def problem(status: int) -> dict[str, Any]:
    """One problem's response."""
    titles = [kind.title for kind in KINDS.values() if kind.status == status]
    found: dict[str, Any] = {
        "description": "; or: ".join(titles) or {405: "This method is not served here"}[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
    }
    headers = {401: "WWW-Authenticate", 403: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}
    if status in headers:
        found["headers"] = _headers({headers[status]: "what to do"})
    return found


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}


def _parameter(
    name: str, description: str, schema: Mapping[str, Any], *, required: bool = False, where: str = "query"
) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "description": description, "schema": dict(schema)}


TENANT = _parameter(
    "tenant",
    "whose rows; by default the token's, and only the platform's operator may name another",
    {"type": "string", "minLength": 1, "maxLength": 64},
)
COMMON_PARAMETERS = [
    TENANT,
    _parameter(
        "limit",
        "rows on a page",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    _parameter("cursor", "`next` of the page before", {"type": "string", "maxLength": 4_096}),
    _parameter("wait", "a receipt: answers once that event is in the tables", {"type": "string", "maxLength": 2_000}),
    _parameter(
        "timeout",
        "seconds that `wait` may take",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 30, "default": 10},
    ),
    _parameter("If-None-Match", "ETags; 304 when one of them is the current one", {"type": "string"}, where="header"),
]
ACK = _parameter(
    "ack",
    "how certain the events have to be before the answer",
    {"type": "string", "enum": ["spooled", "replicated", "projected"], "default": "replicated"},
)
BINARY_HEADERS = [
    _parameter(f"ce-{name}", f"binary mode: the attribute {name}", {"type": "string"}, where="header")
    for name in ("specversion", "id", "source", "type", "time", "subject", "dataversion")
]
SUBSYSTEM = _parameter("subsystem", "only of this one", {"type": "string"})
LAST_EVENT_ID = _parameter(
    "Last-Event-ID", "where to go on: the last `id` received", {"type": "string"}, where="header"
)


def change_responses(data: type[BaseModel], media_type: str) -> dict[int | str, dict[str, Any]]:
    """What following the changes answers: a stream whose events hold `data`."""
    description = f"a stream without end; `data` of each event: {orjson.dumps(data.model_json_schema()).decode()}"
    found = responses(200, None, description)
    found[200]["content"] = {media_type: {"schema": {"type": "string"}}}
    return found
