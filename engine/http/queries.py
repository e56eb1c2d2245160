"""`/v1/queries`: every declared query over HTTP, page by page, with the position that its answer is of."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from relight.engine.errors import QueryError, RequestRefused
from relight.engine.http import cursors, etags
from relight.engine.http.gate import READS, Gate
from relight.engine.http.limits import Turns
from relight.engine.http.parameters import first, given_once
from relight.engine.http.schemas import answer_model, query_parameters, responses
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.recorder.receipts import numbered
from relight.engine.tables.paging import KeyValue, Page, PagePosition, Pages, ask
from relight.engine.tables.pools import Pool
from relight.engine.tables.queries import Argument, find, parse
from relight.events.values import Name
from relight.projections.catalog import projections, queries
from relight.projections.query import DEFAULT_LIMIT, MAX_LIMIT, Query

PATH = "/v1/queries"
OWN_PARAMETERS = ("tenant", "limit", "cursor", "wait", "timeout")
"""What every query takes beside its own parameters; the names are not for a query's own."""
WAIT_S, MAX_WAIT_S = 10.0, 30.0
MAX_PUBLISHER = 1_500

_names = TypeAdapter(Name)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What queries are answered from."""

    pool: Pool
    turns: Turns
    watermarks: ProjectedWatermarks


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The parameters of one request, read and found valid."""

    tenant: str
    values: Mapping[str, Argument]
    limit: int
    after: tuple[KeyValue, ...] | None
    belongs_to: str


def query_routes(gate: Gate, sources: Sources) -> APIRouter:
    """One route for each declared query, so that each is an operation of its own in the API's document."""
    router = APIRouter(tags=["queries"])
    for query in queries().values():
        _add(router, gate, sources, query)

    @router.get(
        PATH,
        operation_id="queries.list",
        summary="Which queries are there?",
        responses=responses(200, dict[str, list[dict[str, Any]]], "every query, by name"),
    )
    async def listed(request: Request) -> Response:
        async with gate.admitted(request, READS):
            given_once(request, ())
            return Response(_LISTED, media_type="application/json")

    @router.get(f"{PATH}/{{name}}", include_in_schema=False)
    async def unknown(request: Request, name: str) -> Response:
        async with gate.admitted(request, READS):
            try:
                find(name)
            except QueryError as error:
                raise RequestRefused("not-found", str(error)) from None
            raise AssertionError(f"{name} has a route of its own")

    return router


def _add(router: APIRouter, gate: Gate, sources: Sources, query: Query) -> None:
    pages = Pages(query)
    columns = tuple(query.row.model_fields)
    path = f"{PATH}/{query.name}"

    async def answer(request: Request) -> Response:
        async with gate.admitted(request, READS, tenant=first(request, "tenant")) as caller:
            given = given_once(request, (*OWN_PARAMETERS, *query.parameters))
            asked = _asked(pages, given, caller.tenant)
            await _wait(sources.watermarks, given)
            if_none_match = request.headers.get("if-none-match")
            build = _build(caller.tenant)

            def is_known(position: PagePosition) -> bool:
                return etags.names(if_none_match, _tag(position, build))

            async with sources.turns.turn(caller.token.tenant):
                found = await ask(
                    sources.pool,
                    pages,
                    tenant=asked.tenant,
                    role=caller.database_role,
                    values=asked.values,
                    limit=asked.limit,
                    after=asked.after,
                    unless=is_known if if_none_match is not None else None,
                )
            if isinstance(found, PagePosition):
                return Response(status_code=304, headers=_headers(_tag(found, build)))
            return _answered(query, columns, asked, found, _tag(found.position, build), path, given)

    router.add_api_route(
        path,
        answer,
        methods=["GET"],
        operation_id=query.name,
        summary=query.question,
        response_model=None,
        responses=responses(200, answer_model(query), "rows, in the query's order", not_modified=True),
        openapi_extra={"parameters": query_parameters(query)},
    )


def _answered(
    query: Query,
    columns: Sequence[str],
    asked: Asked,
    page: Page,
    tag: str,
    path: str,
    given: Mapping[str, str],
) -> Response:
    # No validation here: that rows are as declared is tested, and would cost as much as all the rest.
    next_cursor = None if page.next is None else cursors.encode(asked.belongs_to, page.next)
    body = orjson.dumps(
        {
            "query": query.name,
            "tenant": asked.tenant,
            "position": str(page.position),
            "rows": [{name: row[name] for name in columns} for row in page.rows],
            "next": next_cursor,
        },
        option=orjson.OPT_UTC_Z,
    )
    headers = _headers(tag)
    if next_cursor is not None:
        again = {name: value for name, value in given.items() if name not in ("wait", "timeout", "cursor")}
        headers["Link"] = f'<{path}?{urlencode(again | {"cursor": next_cursor}, quote_via=quote)}>; rel="next"'
    return Response(body, 200, headers, "application/json")


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Vary": "Authorization"}


def _tag(position: PagePosition, build: str) -> str:
    return f"{position}.{position.generation}-{build}"


def _build(tenant: str) -> str:
    """What besides the position an answer depends on: whose rows, and the release and projections that make it."""
    return hashlib.sha256(f"{_RELEASE}\x00{tenant}".encode()).hexdigest()[:12]


def _asked(pages: Pages, given: Mapping[str, str], tenant: str) -> Asked:
    """Raises `RequestRefused`, `QueryError`."""
    query = pages.query
    try:
        _names.validate_python(tenant)
    except ValidationError as error:
        raise RequestRefused("invalid-parameter", f"tenant: {error.errors(include_url=False)[0]['msg']}") from None
    values = parse(query, {name: value for name, value in given.items() if name not in OWN_PARAMETERS})
    belongs_to = cursors.fingerprint(query.name, pages.order, tenant, values)
    cursor = given.get("cursor")
    return Asked(
        tenant=tenant,
        values=values,
        limit=_limit(given.get("limit")),
        after=None if cursor is None else cursors.decode(belongs_to, cursor, pages.columns),
        belongs_to=belongs_to,
    )


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and 1 <= int(text) <= MAX_LIMIT):
        raise RequestRefused("invalid-parameter", f"limit: a whole number from 1 to {MAX_LIMIT}, not {text[:20]!r}")
    return int(text)


async def _wait(watermarks: ProjectedWatermarks, given: Mapping[str, str]) -> None:
    """Until the event of the receipt is in the tables. Raises `DeadLettered`, `RequestRefused`."""
    within_s = _timeout_s(given.get("timeout"))
    if (token := given.get("wait")) is None:
        return
    try:
        publisher, pseq = numbered(token)
        if len(publisher) > MAX_PUBLISHER:
            raise ValueError("no receipt: it is too long")
    except ValueError as error:
        raise RequestRefused("invalid-parameter", f"wait: {error}") from None
    try:
        async with asyncio.timeout(within_s):
            await watermarks.reached(publisher, pseq)
    except TimeoutError:
        raise RequestRefused(
            "not-in-time",
            f"event {pseq} of {publisher} was not projected within {within_s:g} s: ask again, or without wait",
            headers={"Retry-After": "1"},
        ) from None


def _timeout_s(text: str | None) -> float:
    if text is None:
        return WAIT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_WAIT_S:
        raise RequestRefused("invalid-parameter", f"timeout: seconds, more than 0 and at most {MAX_WAIT_S:g}")
    return seconds


_RELEASE = "\x00".join([version("relight"), *(f"{p.name}={p.version}" for p in projections())])
_LISTED = orjson.dumps(
    {
        "queries": [
            {
                "name": query.name,
                "question": query.question,
                "href": f"{PATH}/{query.name}",
                "parameters": {
                    name: {
                        "type": p.type.__name__,
                        "required": p.required,
                        "default": p.default,
                        "help": p.help,
                    }
                    for name, p in query.parameters.items()
                },
                "columns": list(query.row.model_fields),
            }
            for query in queries().values()
        ]
    }
)
