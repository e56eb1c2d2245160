"""The API's document is complete and true: schemathesis calls what it says, with what it says and with the contrary."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import schemathesis
import stack
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import OPERATOR, Served, served

from relight.projections.catalog import queries

EXAMPLES = 12
"""Of each operation, in each of both directions."""

REFUSALS = [400, 401, 403, 404, 405, 413, 414, 415, 422, 429, 431]
CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str) -> AsyncIterator[Served]:
    with stack.folder() as spools:
        async with served(shared_database, spools) as api:
            yield api


@pytest.mark.asyncio(loop_scope="module")
async def test_every_query_is_an_operation_with_its_parameters_and_its_rows(api: Served) -> None:
    document = (await api.ask("/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    for query in queries().values():
        operation = document["paths"][f"/v1/queries/{query.name}"]["get"]
        assert operation["operationId"] == query.name
        assert operation["security"] == [{"token": []}]
        parameters = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert {name: parameters[name]["required"] for name in query.parameters} == {
            name: p.required for name, p in query.parameters.items()
        }
        assert {"tenant", "limit", "cursor", "wait", "timeout", "If-None-Match"} <= parameters.keys()
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        answer = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        row = document["components"]["schemas"][answer["properties"]["rows"]["items"]["$ref"].rpartition("/")[2]]
        assert list(row["properties"]) == list(query.row.model_fields)
        assert "304" in operation["responses"]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.asyncio(loop_scope="module")
async def test_the_document_names_no_foreign_address_and_needs_no_token(api: Served) -> None:
    async with api.http.get(f"{api.url}/openapi.json") as response:
        assert response.status == 200
        text = await response.text()
    assert "http://" not in text
    assert "https://" not in text


class Background:
    """The API in a loop and thread of its own, since schemathesis calls it without a loop."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])
        self.url = self.token = ""

    async def _run(self) -> None:
        with stack.folder() as spools:
            async with served(self._database, spools) as api:
                self.url, self.token = api.url, await api.token(OPERATOR)
                self._ready.set()
                await self._stop.wait()

    def __enter__(self) -> "Background":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self._loop.close()


@pytest.fixture(scope="module")
def background(shared_database: str) -> Iterator[Background]:
    with Background(shared_database) as running:
        yield running


def operations() -> list[str]:
    """Every operation, by its method and path, but the stream without end."""
    return [
        "GET /v1/queries",
        *(f"GET /v1/queries/{name}" for name in queries()),
        "POST /v1/events",
        "GET /v1/event-types",
        "GET /v1/problems/{kind}",
    ]


@pytest.mark.parametrize("label", operations())
def test_an_operation_does_what_the_document_says_whatever_it_is_sent(background: Background, label: str) -> None:
    schema = schemathesis.openapi.from_url(f"{background.url}/openapi.json", config=CONFIG)
    method, path = label.split(" ")
    operation = schema[path][method]
    headers = {"Authorization": f"Bearer {background.token}"}
    excluded = [positive_data_acceptance]  # not every text is a cursor, a receipt or an event

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def calls(case: schemathesis.Case) -> None:
            case.call_and_validate(
                base_url=background.url, headers=headers, excluded_checks=excluded, timeout=stack.DEADLINE_S
            )

        calls()
