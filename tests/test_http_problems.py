"""Problems: every error is a document that says what to do, the framework's own and ours, and none says too much."""

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import stack
from serving import Answered, Served, answered, served

from relight.engine import errors
from relight.engine.http.problems import response_to
from relight.engine.problems import ERRORS, KINDS
from relight.engine.tables.pools import Pool
from relight.events.errors import InvalidEvent

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str) -> AsyncIterator[Served]:
    with stack.folder() as spools:
        async with served(shared_database, spools) as api:
            yield api


async def call(api: Served, method: str, path: str, **headers: str) -> Answered:
    async with api.http.request(method, api.url + path, headers=await api.bearer() | headers) as response:
        return await answered(response)


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/v1", "/v1/", "/v1/queries/", "/docs", "/redoc", "/%00", "//x", "/.."]
)
async def test_what_is_not_served_is_not_found(api: Served, path: str) -> None:
    answer = await call(api, "GET", path)
    assert answer.json["type"] in ("about:blank", "/v1/problems/not-found")
    answer.problem(404, answer.json["type"].rpartition("/")[2])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/queries/breakers.open_now", "GET"),
        ("DELETE", "/v1/queries", "GET"),
        ("GET", "/v1/events", "POST"),
        ("PUT", "/v1/changes", "GET"),
        ("PATCH", "/v1/event-types", "GET"),
        ("TRACE", "/v1/queries", "GET"),
        ("OPTIONS", "/v1/queries", "GET"),
    ],
)
async def test_a_method_that_is_not_served_is_refused_and_the_others_are_named(
    api: Served, method: str, path: str, allowed: str
) -> None:
    answer = await call(api, method, path)
    assert "see the Allow header" in answer.problem(405, "about:blank")
    assert allowed in answer.headers["Allow"]


async def test_no_other_origin_is_let_in(api: Served) -> None:
    answer = await call(api, "GET", "/v1/queries", Origin="https://example.org")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "GET"}
    assert (await call(api, "OPTIONS", "/v1/queries", **preflight)).status == 405


async def test_every_answer_forbids_sniffing_and_storing(api: Served) -> None:
    for path in ("/v1/queries", "/v1/queries/breakers.open_now", "/nowhere", "/openapi.json", "/v1/event-types"):
        answer = await call(api, "GET", path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_an_error_of_ours_says_nothing_of_itself_but_where_the_log_has_it(
    api: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("the secret of postgresql://me:pass@host")

    await api.query("breakers.open_now")
    monkeypatch.setattr(Pool, "transaction", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api.query("breakers.open_now")
    detail = answer.problem(500, "internal")
    assert b"secret" not in answer.body
    instance = answer.json["instance"]
    assert instance in detail
    [line] = [record for record in caplog.records if instance in record.getMessage()]
    assert "the secret" in line.getMessage()


async def test_a_database_that_is_away_is_503_and_when_to_ask_again(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise errors.Unreachable("PostgreSQL at localhost:5432 refuses connections; start it")

    await api.query("breakers.open_now")
    monkeypatch.setattr(Pool, "transaction", away)
    answer = await api.query("breakers.open_now")
    assert "refuses connections" in answer.problem(503, "unavailable")
    assert answer.headers["Retry-After"] == "1"


async def test_every_kind_of_problem_is_described_at_its_type(api: Served) -> None:
    for kind, described in KINDS.items():
        async with api.http.get(f"{api.url}/v1/problems/{kind}") as response:
            assert await response.json() == {
                "type": f"/v1/problems/{kind}",
                "title": described.title,
                "status": described.status,
            }
    (await call(api, "GET", "/v1/problems/nope")).problem(404, "not-found")


async def test_every_error_that_the_api_can_meet_has_a_status_and_any_other_is_ours() -> None:
    assert {kind for _, kind in ERRORS} <= KINDS.keys()
    expected = {
        errors.QueryError: 422,
        errors.QueryFailed: 503,
        errors.Unreachable: 503,
        errors.PoolExhausted: 503,
        errors.TokenRefused: 401,
        errors.NotAllowed: 403,
        errors.IngestRefused: 422,
        errors.RecordRefused: 503,
        errors.SpoolUnusable: 503,
        errors.AckNotProven: 503,
        errors.AckTimeout: 504,
        errors.DeadLettered: 422,
        InvalidEvent: 422,
        errors.Rewound: 500,
        errors.Fenced: 500,
        ValueError: 500,
    }
    assert {kind: response_to(kind("what")).status_code for kind in expected} == expected


async def test_a_detail_that_is_no_header_text_does_no_harm_in_a_challenge() -> None:
    answer = response_to(errors.NotAllowed('a "quoted"\\ é\u20ac'))
    assert answer.headers["WWW-Authenticate"].isascii()
