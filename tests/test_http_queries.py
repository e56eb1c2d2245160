"""Queries over HTTP: rows as declared, ETags that are positions, waiting for a receipt, pages, and parameters that are
refused rather than guessed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
import pytest_asyncio
import stack
from serving import OPERATOR, Served, answered, served

from relight.engine.http.etags import names
from relight.engine.recorder.receipts import Ack
from relight.projections.catalog import queries, tables
from relight.projections.query import MAX_LIMIT, Query

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOON = "2026-01-01T12:00:00Z"
METACHARACTERS = [
    "' OR 1=1 --",
    "'; DROP TABLE api_tokens; --",
    "$1",
    "%s{0}\\",
    "a.*.>",
    "../../etc/passwd",
    "\x01\x7f",
    "\u202e\U0001f600",
    "<script>",
    "a\r\nSet-Cookie: x=1",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str, fill: Callable[..., Awaitable[None]]) -> AsyncIterator[Served]:
    connection = await asyncpg.connect(shared_database)
    for table in tables():
        await fill(connection, table, 300, "(ARRAY['acme', 'other', '-'])[1 + n % 3]")
        for name in {"replicated_to", "revoked_at"} & table.columns().keys():
            await connection.execute(f"UPDATE {table.name} SET {name} = NULL WHERE tenant = 'acme'")
    await connection.close()
    with stack.folder() as spools:
        async with served(shared_database, spools) as api:
            yield api


def hot(query: Query) -> dict[str, Any]:
    values: dict[type, object] = {str: "hot", int: 1, datetime: NOON}
    return {name: values[p.type] for name, p in query.parameters.items() if p.default is None}


@pytest.mark.parametrize("query", queries().values(), ids=queries())
async def test_every_query_answers_with_rows_as_declared_of_the_tenant_and_the_platform(
    api: Served, query: Query
) -> None:
    answer = await api.query(query.name, **hot(query), limit=MAX_LIMIT)
    assert answer.status == 200
    said = answer.json
    assert (said["query"], said["tenant"], said["next"]) == (query.name, "acme", None)
    rows = [query.row.model_validate_json(stack.orjson.dumps(row)) for row in said["rows"]]
    assert rows
    assert [row.model_dump(mode="json") for row in rows] == said["rows"]
    assert {row["tenant"] for row in said["rows"]} <= {"acme", "-"}


async def test_the_list_names_every_query_and_where_it_is(api: Served) -> None:
    listed = (await api.ask("/v1/queries")).json["queries"]
    assert [query["name"] for query in listed] == list(queries())
    assert listed[0]["href"] == f"/v1/queries/{listed[0]['name']}"


async def test_an_unknown_query_is_not_found_and_the_nearest_is_named(api: Served) -> None:
    detail = (await api.query("breakers.open")).problem(404, "not-found")
    assert "did you mean breakers.open_now" in detail


async def test_an_etag_stands_until_the_position_moves(api: Served) -> None:
    first = await api.query("breakers.open_now")
    assert first.headers["Vary"] == "Authorization"
    tag = first.headers["ETag"]
    assert tag.startswith(f'"{first.json["position"]}.')
    for header in (tag, f'"x", W/{tag}', "*", f", {tag},"):
        again = await api.query("breakers.open_now", headers={"If-None-Match": header})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == tag
    receipt = api.recorder.record(stack.failed(1))
    await receipt.reached(Ack.PROJECTED)
    moved = await api.query("breakers.open_now", headers={"If-None-Match": tag})
    assert moved.status == 200
    assert moved.headers["ETag"] != tag


async def test_another_tenants_etag_is_another(api: Served) -> None:
    await api.projecting.caught_up()
    mine = await api.query("breakers.open_now")
    theirs = await api.query("breakers.open_now", tenant="other", headers={"If-None-Match": mine.headers["ETag"]})
    assert theirs.status == 200
    assert theirs.json["position"] == mine.json["position"]


async def test_a_304_asks_no_table_but_a_wrong_parameter_is_refused_all_the_same(
    api: Served, shared_database: str
) -> None:
    tag = (await api.query("breakers.open_now")).headers["ETag"]
    admin = await asyncpg.connect(shared_database)
    try:
        async with admin.transaction():
            await admin.execute("LOCK TABLE circuit_breaker_states IN ACCESS EXCLUSIVE MODE")
            again = await api.query("breakers.open_now", headers={"If-None-Match": tag})
            assert again.status == 304
        refused = await api.query("breakers.open_now", limit=0, headers={"If-None-Match": tag})
        refused.problem(422, "invalid-parameter")
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (None, False),
        ("*", True),
        ('"a"', True),
        ('W/"a"', True),
        ('"b" , "a"', True),
        (', "b",, "a" ,', True),
        ('"b"', False),
        ("a", False),
        ('"a', False),
        ('"b" "a"', False),
        ('"aa"', False),
    ],
)
async def test_if_none_match_is_read_as_rfc_9110_says(header: str | None, named: bool) -> None:
    assert names(header, "a") is named


async def test_waiting_for_a_receipt_reads_your_own_write(api: Served) -> None:
    for n in range(5):
        receipt = api.recorder.record(stack.failed(n, service="waited"))
        await receipt.reached(Ack.SPOOLED)
        answer = await api.query("breakers.history", service="waited", wait=receipt.token)
        assert len(answer.json["rows"]) == n + 1


async def test_a_wait_ends_at_its_timeout(api: Served) -> None:
    answer = await api.query("breakers.open_now", wait=f"999@{api.recorder.publisher}", timeout="0.2")
    assert answer.problem(504, "not-in-time").startswith("event 999 of ")
    assert answer.headers["Retry-After"] == "1"


async def test_waiting_for_a_dead_letter_says_so(api: Served) -> None:
    client, publisher = api.projecting.client, "p-dead"
    subject, body = stack.encoded(stack.failed(1), id=api.clock.next_id(), time=api.clock.now(), publisher=publisher)
    broken = body.replace(b'"service_name":"api"', b'"service_name":""')
    await client.jetstream().publish(subject, broken)
    answer = await api.query("breakers.open_now", wait=f"1@{publisher}")
    assert "is a dead letter" in answer.problem(422, "dead-letter")


async def test_pages_are_followed_by_link_or_by_cursor(api: Served) -> None:
    whole = (await api.query("breakers.history", service="hot")).json["rows"]
    found, url = [], "/v1/queries/breakers.history?service=hot&limit=7"
    while url:
        async with api.http.get(api.url + url, headers=await api.bearer()) as response:
            said = await response.json()
            link = response.links.get("next")
        found += said["rows"]
        assert (link is None) == (said["next"] is None)
        url = "" if link is None else str(link["url"]).removeprefix(api.url)
        assert "cursor=" in url or not url
    assert found == whole
    assert len(found) > 7


async def cursor_of(api: Served) -> str:
    return str((await api.query("breakers.history", service="hot", limit=3)).json["next"])


async def test_a_cursor_of_another_query_tenant_or_argument_is_refused(api: Served) -> None:
    cursor = await cursor_of(api)
    assert (await api.query("breakers.history", service="hot", cursor=cursor)).status == 200
    assert (await api.query("breakers.history", service="hot", limit=1, cursor=cursor)).status == 200
    for answer in (
        await api.query("breakers.history", service="cold", cursor=cursor),
        await api.query("incidents.open_now", cursor=cursor),
        await api.query("breakers.history", service="hot", cursor=cursor, tenant="other"),
        await api.ask(
            "/v1/queries/breakers.history?service=hot&tenant=other&cursor=" + cursor, role=OPERATOR, tenant="-"
        ),
    ):
        assert answer.problem(422, "invalid-parameter").startswith("cursor: none of this query")


async def test_garbage_for_a_cursor_is_refused(api: Served) -> None:
    cursor = await cursor_of(api)
    garbage = ["", "x", "=" * 10, cursor[:-2], cursor + "AA", cursor[::-1], "A" * 5_000, "é", *METACHARACTERS]
    for text in [*garbage, *(cursor[:i] + ("A" if cursor[i] != "A" else "B") + cursor[i + 1 :] for i in (0, 20, 30))]:
        refused = await api.query("breakers.history", service="hot", cursor=text)
        refused.problem(422, "invalid-parameter")


@pytest.mark.parametrize(
    ("query_string", "status", "kind", "detail"),
    [
        ("servise=x", 422, "invalid-parameter", "there is no parameter 'servise' here; there is tenant, limit"),
        ("", 422, "invalid-parameter", "breakers.history needs service: the dependency's name"),
        ("service=a&service=b", 422, "invalid-parameter", "service is given twice: give it once"),
        ("service=a%00b", 422, "invalid-parameter", "breakers.history: service is text"),
        ("service=%ff", 400, "malformed", "the query string is not UTF-8"),
        ("service=%ed%a0%80", 400, "malformed", "the query string is not UTF-8"),
        ("&".join(f"p{n}=" for n in range(60)), 400, "malformed", "more than 50 parameters"),
        ("service=a&limit=0", 422, "invalid-parameter", "limit: a whole number from 1 to 10000"),
        ("service=a&limit=10001", 422, "invalid-parameter", "limit: "),
        ("service=a&limit=1e3", 422, "invalid-parameter", "limit: "),
        ("service=a&limit=%D9%A1", 422, "invalid-parameter", "limit: "),
        ("service=a&limit=", 422, "invalid-parameter", "limit: "),
        ("service=a&timeout=0", 422, "invalid-parameter", "timeout: "),
        ("service=a&timeout=nan", 422, "invalid-parameter", "timeout: "),
        ("service=a&timeout=31", 422, "invalid-parameter", "timeout: "),
        ("service=a&wait=x", 422, "invalid-parameter", "wait: no receipt"),
        ("service=a&wait=1@" + "x" * 2_000, 422, "invalid-parameter", "wait: no receipt"),
        ("service=a&wait=-1@p", 422, "invalid-parameter", "wait: no receipt"),
        ("service=a&wait=1@a%0Ab", 422, "invalid-parameter", "wait: no receipt"),
        ("service=a&tenant=", 403, "not-allowed", "of another tenant"),
    ],
)
async def test_a_wrong_parameter_is_refused(
    api: Served, query_string: str, status: int, kind: str, detail: str
) -> None:
    async with api.http.get(
        f"{api.url}/v1/queries/breakers.history?{query_string}", headers=await api.bearer()
    ) as response:
        assert detail in (await answered(response)).problem(status, kind)


async def test_a_parameters_type_is_checked_and_named(api: Served) -> None:
    answer = await api.query("certification.in_force", at="yesterday")
    assert "at is a time with its zone, as in 2026-01-31T09:00:00Z" in answer.problem(422, "invalid-parameter")


@pytest.mark.parametrize("text", METACHARACTERS)
async def test_metacharacters_are_data_wherever_they_stand(api: Served, text: str) -> None:
    answer = await api.query("breakers.history", service=text)
    assert (answer.status, answer.json["rows"]) == (200, [])
    for name in ("limit", "timeout", "wait", "cursor"):
        (await api.query("breakers.history", service="hot", **{name: text})).problem(422, "invalid-parameter")
    refused = await api.ask(f"/v1/queries/breakers.history?service=hot&tenant={quote(text)}")
    refused.problem(403, "not-allowed")
    asked = await api.ask(f"/v1/queries/breakers.history?service=hot&tenant={quote(text)}", role=OPERATOR, tenant="-")
    if text.isprintable() or "\u202e" in text:
        assert {row["tenant"] for row in asked.json["rows"]} == {"-"}
    else:
        asked.problem(422, "invalid-parameter")
    assert (await api.ask(f"/v1/queries/{quote(text, safe='')}")).status == 404
    header = "".join(character for character in text if character.isascii() and character.isprintable())
    assert (await api.query("breakers.open_now", headers={"If-None-Match": header})).status == 200


async def test_the_platforms_operator_asks_for_any_tenant(api: Served) -> None:
    answer = await api.ask("/v1/queries/breakers.history?service=hot&tenant=other", role=OPERATOR, tenant="-")
    assert answer.json["tenant"] == "other"
    assert {row["tenant"] for row in answer.json["rows"]} == {"other", "-"}


async def test_queries_at_once_are_all_answered(api: Served) -> None:
    answers = await asyncio.gather(*(api.query("breakers.history", service="hot", limit=5) for _ in range(100)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
