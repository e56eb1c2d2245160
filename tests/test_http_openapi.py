"""The API's document is complete and true: schemathesis calls what it says, with what it says and with the contrary."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
import stack
from hypothesis import HealthCheck, Phase, settings
from jsonschema import Draft202012Validator
from serving import OPERATOR, Served, served

from relight.projections.catalog import queries

EXAMPLES = 6
"""Of each operation, in each of both directions."""


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
    assert len(ids) == len(set(ids)) or [id for id in ids if ids.count(id) > 1] == ["health", "health"]


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
