"""What `relight topology render` writes, read by the real server."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import orjson
import pytest
import stack

from relight.engine.embedded.binaries import nats_server
from relight.engine.embedded.ports import free_port
from relight.engine.errors import TopologyRefused, Unreachable
from relight.engine.log.content import fetch_content
from relight.engine.log.topology import close, connect, ensure_content_bucket, ensure_stream
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.topology.loading import load_topology, parse_topology
from relight.engine.topology.rendering import CLIENT_PORT, MONITOR_PORT, ROUTE_PORT, rendered, variable, write_rendered

REAL = '[fleet]\nkind = "stretch"\n' + "".join(
    f'[regions.{name}]\nnats = "tls://{name}.example:4222"\ndatabase = "postgresql://{name}.example/relight"\n'
    for name in ("eu", "us", "ap")
)
PASSWORDS = {name: "secret" for name in ("RELIGHT_SERVICE_PASSWORD", "RELIGHT_SYSTEM_PASSWORD")} | {
    variable(region): "secret" for region in ("eu", "us", "ap")
}
OPENSSL = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configurations, and a certificate that is its own authority beside them."""
    path = tmp_path_factory.mktemp("rendered")
    write_rendered(parse_topology(REAL), path)
    made = [*OPENSSL, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        [*made, "-keyout", path / "server-key.pem", "-out", path / "server.pem"], check=True, capture_output=True
    )
    (path / "ca.pem").write_bytes((path / "server.pem").read_bytes())
    return path


@pytest.mark.parametrize("region", ["eu", "us", "ap"])
def test_the_real_server_takes_each_configuration(folder: Path, region: str) -> None:
    command = [nats_server(), "-t", "-c", folder / f"{region}.conf"]
    checked = subprocess.run(command, cwd=folder, env=PASSWORDS, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lacking = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, check=False)
    assert lacking.returncode != 0, "without its passwords a server must not start"


def test_every_server_has_its_tag_and_finds_the_others() -> None:
    files = rendered(parse_topology(REAL))
    assert 'server_tags: ["region:eu"]' in files["eu.conf"]
    assert 'unique_tag: "region:"' in files["eu.conf"]
    assert f'"nats-route://us.example:{ROUTE_PORT}"' in files["eu.conf"]
    assert "nats-route://eu.example" not in files["eu.conf"]
    assert all("sync_interval: always" in text and text.count("verify: true") == 1 for text in files.values())


def test_local_servers_are_not_rendered() -> None:
    with pytest.raises(TopologyRefused, match="whole_addresses"):
        rendered(load_topology("stretch"))


@asynccontextmanager
async def _serving(folder: Path, store: Path) -> AsyncIterator[int]:
    """The server of eu alone, on free ports; gives that of clients, once it declared stream and contents."""
    port = free_port()
    config = (folder / "eu.conf").read_text()
    begin, end = config.index("cluster {"), config.index("accounts {")
    config = (config[:begin] + config[end:]).replace(f"0.0.0.0:{CLIENT_PORT}", f"127.0.0.1:{port}")
    config = config.replace(f"127.0.0.1:{MONITOR_PORT}", f"127.0.0.1:{free_port()}").replace("/data", str(store))
    (folder / "alone.conf").write_text(config)
    with (store / "log").open("wb") as log:
        server = subprocess.Popen(
            [nats_server(), "-c", folder / "alone.conf"], cwd=folder, env=PASSWORDS, stdout=log, stderr=log
        )
    try:

        async def declared() -> bool:
            try:
                service = await connect(f"tls://relight:secret@localhost:{port}", name="relight test")
            except Unreachable:
                return False
            await ensure_stream(service.jetstream())
            await ensure_content_bucket(service.jetstream())
            await close(service)
            return True

        await stack.until(declared, "the server takes clients")
        yield port
    finally:
        server.kill()
        server.wait()


async def test_publishers_may_record_in_their_region_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    async with _serving(folder, tmp_path) as port:
        refused: list[str] = []

        async def on_error(error: Exception) -> None:
            refused.append(str(error).lower())

        agent = await nats.connect(f"tls://agent-eu:secret@localhost:{port}", error_cb=on_error)
        js = agent.jetstream(timeout=2)
        assert (await js.publish("ev.eu.breakers.acme.failed", b"{}")).seq == 1
        assert (await js.publish("ctl.breaker.acme.api", b"{}")).seq == 2
        asked = orjson.dumps({"last_by_subj": "ev.eu.>"})
        assert (await agent.request("$JS.API.DIRECT.GET.EV", asked, timeout=2)).data == b"{}"
        for subject in ("ev.us.breakers.acme.failed", "ctl.failover.-.agents", "hb.us.service.us", "proof.said"):
            await agent.publish(subject, b"{}")
        for subject in ("$JS.API.STREAM.PURGE.EV", "$JS.API.STREAM.DELETE.EV", "$SYS.REQ.SERVER.PING"):
            await agent.publish(subject, b"", reply="_INBOX.x")
        await agent.subscribe("ev.>")
        await agent.flush()
        await stack.until(lambda: len(refused) == 8, "the server refuses all of them")
        assert sum("permissions violation for publish" in error for error in refused) == 7
        assert sum("permissions violation for subscription" in error for error in refused) == 1
        assert (await js.stream_info("EV")).state.messages == 2
        await agent.close()


async def test_a_recorder_does_all_its_work_with_the_login_of_its_region(
    folder: Path, tmp_path: Path, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    async with _serving(folder, tmp_path) as port:
        url = f"tls://agent-eu:secret@localhost:{port}"
        async with Recorder(RecorderOptions(nats_url=url, region="eu", tenant="acme", spools=spools)) as recorder:
            content = recorder.content(b"a prompt")
            recorder.record(stack.failed(1))
            await stack.until(lambda: recorder.health().exposed_events == 0, "all is on the stream")
            client = await connect(url, name="relight test")
            assert await fetch_content(client.jetstream(), "acme", content) == b"a prompt"
            assert stack.numbers(await stack.on_stream(client)) == [1]
            await close(client)
        assert (tmp_path / "log").read_text().lower().count("violation") == 0
