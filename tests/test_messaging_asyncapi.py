"""The AsyncAPI document: valid by the official schema, true of the application, and a page that needs no other host."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import yaml
from conftest import lacking
from fastapi import FastAPI
from faststream.nats.subscriber.usecases.core_subscriber import CoreSubscriber
from nodejs import installed
from typer.testing import CliRunner

from relight.engine.cli.main import app as cli
from relight.engine.http.server import http_server
from relight.engine.messaging import page
from relight.engine.messaging.asyncapi import document
from relight.engine.messaging.broker import build_broker
from relight.events.base import Control
from relight.events.catalog import event_types

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
STATIC = Path(page.__file__).parent / "static"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def at(root: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        root = root[part]
    return root


def test_the_document_is_valid_by_the_official_schema_and_every_reference_leads_somewhere() -> None:
    told = document()
    official = json.loads((installed() / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text())
    jsonschema.Draft7Validator(official).validate(told)
    for reference in set(references(told)):
        assert at(told, reference) is not None, reference


def test_every_subscription_of_the_application_is_described_and_nothing_else_is_received() -> None:
    async def unused(message: Any) -> Any: ...

    told = document()
    broker = build_broker("nats://127.0.0.1", on_event=unused, on_command=unused, on_question=unused)
    patterns = {one.subject.template for one in broker.subscribers if isinstance(one, CoreSubscriber)}
    received = {
        at(told, operation["channel"]["$ref"])["address"]
        for operation in told["operations"].values()
        if operation["action"] == "receive"
    }

    def covers(pattern: str, address: str) -> bool:
        return address == pattern or (pattern.endswith(".>") and address.startswith(pattern[:-1]))

    for pattern in patterns:
        assert any(covers(pattern, address) for address in received), pattern
    for address in received:
        assert any(covers(pattern, address) for pattern in patterns), address


def test_every_event_is_described_where_it_is_sent_and_where_it_is_published() -> None:
    channels = document()["channels"]
    for type, cls in event_types().items():
        ruling = issubclass(cls, Control)
        assert f"recorded.{type}" in channels["rulings" if ruling else "observations"]["messages"]
        if not type.startswith("recorder."):
            assert f"sent.{type}" in channels["rule" if ruling else "events"]["messages"]


def test_the_command_prints_the_same_document_as_json_and_as_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIGHT_NATS_URL", "nats://me:hunter2@nats.example:4222")
    printed = CliRunner().invoke(cli, ["asyncapi"])
    as_yaml = CliRunner().invoke(cli, ["asyncapi", "--yaml"])
    assert printed.exit_code == as_yaml.exit_code == 0
    assert json.loads(printed.stdout) == yaml.safe_load(as_yaml.stdout)
    assert json.loads(printed.stdout)["servers"]["nats"]["host"] == "nats.example:4222"
    assert "hunter2" not in printed.stdout


async def test_the_page_loads_nothing_from_another_host() -> None:
    app = FastAPI(openapi_url=None)
    app.include_router(page.asyncapi_routes())
    async with http_server(app, host="127.0.0.1", port=0) as server, aiohttp.ClientSession() as client:

        async def got(path: str) -> tuple[int, str, str]:
            async with client.get(server.url + path) as answer:
                return answer.status, await answer.text(), answer.headers.get("Content-Security-Policy", "")

        status, text, policy = await got("/asyncapi")
        assert status == 200
        assert "default-src 'none'" in policy
        for path in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert re.match(r"/\w", path), path
            assert (await got(path))[0] == 200, path
        assert json.loads((await got("/asyncapi.json"))[1]) == document()
        assert (await got("/asyncapi/page.html"))[0] == (await got("/asyncapi/..%2fpage.py"))[0] == 404
    for file in STATIC.iterdir():
        assert not re.search(r"https?:|//\w+\.", file.read_text()), file


async def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    if BROWSER is None:
        lacking("chromium")
    app = FastAPI(openapi_url=None)
    app.include_router(page.asyncapi_routes())
    async with http_server(app, host="127.0.0.1", port=0) as server:
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        command += ["--virtual-time-budget=5000", "--dump-dom", f"{server.url}/asyncapi"]
        drawn = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert 'data-drawn="true"' in drawn.stdout, drawn.stdout[-500:] + drawn.stderr[-500:]
    for name in document()["operations"]:
        assert f"<h2>{name}</h2>" in drawn.stdout
