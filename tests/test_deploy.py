"""The files in deploy/: valid to their own checkers, and true to the settings, commands and routes that there are."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import stack
import yaml
from conftest import lacking
from nats.aio.client import Client
from nats.aio.msg import Msg
from typer.main import get_group

from relight.engine.cli.main import app
from relight.engine.embedded.binaries import nats_server
from relight.engine.embedded.ports import free_port
from relight.engine.errors import Unreachable
from relight.engine.log.content import ContentReader
from relight.engine.log.topology import connect
from relight.engine.proving.answering import answering
from relight.engine.proving.building import polling_prober
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.servers import Servers
from relight.engine.settings import Settings

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
PROBES = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
NATS_PASSWORDS = {"NATS_PASSWORD": "p1", "NATS_AGENT_PASSWORD": "p2", "NATS_SYSTEM_PASSWORD": "p3"}
IMAGE = re.compile(r"[a-z]+(:[a-z0-9.-]+)?")
"""Whose registry is the reader's choice."""


def checked(*command: str | Path, **environment: str) -> str:
    """What the checker said; fails with it unless the exit code is 0."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents() -> dict[str, dict[str, Any]]:
    """Every Kubernetes document, by kind and name."""
    files = (file for file in sorted(KUBERNETES.glob("*.yaml")) if file.name != "kustomization.yaml")
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents().values() if document["kind"] == kind]


def workloads() -> list[dict[str, Any]]:
    return of_kind("Deployment") + of_kind("Job")


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    return found


def settings_env() -> dict[str, str]:
    lines = (KUBERNETES / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items()


def selects(selector: dict[str, Any], workload: dict[str, Any]) -> bool:
    wanted = selector.get("matchLabels", selector)
    return wanted.items() <= workload["spec"]["template"]["metadata"]["labels"].items()


def test_every_setting_that_is_named_in_deploy_is_one() -> None:
    named = {
        name
        for file in DEPLOY.rglob("*")
        if file.is_file()
        for name in re.findall(r"\bRELIGHT_[A-Z][A-Z_]*[A-Z]", file.read_text())
    }
    assert named
    assert named - {f"RELIGHT_{name.upper()}" for name in Settings.model_fields} == set()


def test_every_metric_that_the_page_alerts_on_is_one() -> None:
    text = "".join(file.read_text() for file in (DEPLOY.parent / "engine").rglob("*.py"))
    if '"/metrics"' not in text:
        lacking("/metrics")
    page = (DEPLOY / "README.md").read_text()
    named = re.findall(r"\brelight_[a-z0-9_]+", page[page.index("## What to alert on") :])
    assert len(named) > 10
    assert [name for name in named if f'"{name.removesuffix("_total")}"' not in text] == []


def test_the_settings_of_the_pods_are_valid() -> None:
    secret = {"RELIGHT_NATS_URL": "nats://nats", "RELIGHT_DATABASE_URL": "postgresql://postgres"}
    assert not Settings.from_environment(settings_env() | secret).spool


class TestContainerfile:
    text = (DEPLOY / "Containerfile").read_text()
    final = text[text.rindex("\nFROM ") :]

    def test_hadolint_finds_nothing(self) -> None:
        assert checked(BIN / "hadolint", "--no-color", "--failure-threshold", "style", DEPLOY / "Containerfile") == ""

    def test_the_dependencies_are_wheels_of_known_hash(self) -> None:
        assert "--require-hashes" in self.text
        assert "--only-binary :all:" in self.text

    def test_the_final_stage_installs_nothing_and_runs_as_a_number(self) -> None:
        assert not re.search(r"\b(apt-get|apk|pip|gcc|make)\b", self.final)
        assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", self.final, re.MULTILINE)
        assert "STOPSIGNAL SIGTERM" in self.final
        assert "HEALTHCHECK" in self.final
        assert "'/livez'" in self.final
        assert self.final.endswith('ENTRYPOINT ["relight"]\nCMD ["serve"]\n')

    def test_no_image_names_a_registry(self) -> None:
        images = re.findall(r"^FROM (\S+)", self.text, re.MULTILINE)
        images += [service["image"] for _, service in services()]
        images += [container["image"] for workload in workloads() for container in containers(workload)]
        assert [image for image in images if not IMAGE.fullmatch(image)] == []

    def test_what_it_copies_is_there_and_is_sent(self) -> None:
        allowed = {
            line.removeprefix("!")
            for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
            if line.startswith("!")
        }
        copied = [
            source
            for words in re.findall(r"^COPY (?!--)(.+)$", self.text, re.MULTILINE)
            for source in words.split()[:-1]
        ]
        assert set(copied) == allowed
        assert all((DEPLOY.parent / source).exists() for source in copied)


class TestCompose:
    def test_the_official_schema_accepts_it(self) -> None:
        checked(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")

    def test_the_server_accepts_its_configuration_and_asks_for_each_password(self) -> None:
        config = DEPLOY / "nats.conf"
        assert "is valid" in checked(nats_server(), "-t", "-c", config, **NATS_PASSWORDS)
        assert re.search(r"^  sync_interval: always$", config.read_text(), re.MULTILINE)
        for lacking_one in NATS_PASSWORDS:
            given = {name: value for name, value in (os.environ | NATS_PASSWORDS).items() if name != lacking_one}
            assert subprocess.run([nats_server(), "-t", "-c", config], env=given, capture_output=True).returncode != 0

    async def test_agents_of_that_server_are_told_what_is_proven_and_cannot_say_it_themselves(
        self, spools: Path
    ) -> None:
        with stack.folder() as folder:
            port, monitor, config = free_port(), free_port(), folder / "nats.conf"
            text = (DEPLOY / "nats.conf").read_text().replace("/data", str(folder))
            config.write_text(text.replace("0.0.0.0:4222", f"127.0.0.1:{port}").replace(":8222", f":{monitor}"))
            process = subprocess.Popen(
                [nats_server(), "-c", config], env=NATS_PASSWORDS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                at = f"@127.0.0.1:{port}"
                client = await stack.until(partial(_connected, f"nats://relight:p1{at}"), "the server is up")
                servers = Servers(nats=None, monitors=(), database=None, ours=False, system=f"nats://system:p3{at}")
                prober = polling_prober(client, servers, ttl_s=60, name="prober")
                assert prober is not None
                options = RecorderOptions(nats_url=f"nats://agent:p2{at}", region="eu", tenant="acme", spools=spools)
                async with answering(client, prober), Recorder(options) as recorder:
                    await recorder.record(stack.failed(1)).reached(Ack.REPLICATED)
                    content = recorder.content(b"what an agent saw")
                    await stack.until(lambda: _stored(client, content.sha256), "agents may store contents")
                agent = await connect(options.nats_url, name="liar")
                seen: list[str] = []
                listening = await agent.subscribe(">", cb=partial(_note, seen))
                await client.request("ev.eu.breakers.acme.failed", b"{}", timeout=2)
                await client.publish("told.to.all", b"")
                await stack.until(lambda: "told.to.all" in seen)
                assert [subject for subject in seen if subject.startswith(("ev.", "ctl.", "proof."))] == []
                await listening.unsubscribe()
                await agent.close()
                await client.close()
            finally:
                process.terminate()
                process.wait(20)

    def test_secrets_come_from_outside_and_the_example_names_them(self) -> None:
        text = (DEPLOY / "compose.yaml").read_text()
        example = (DEPLOY / "env.example").read_text()
        assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == set(re.findall(r"\$\{(\w+):\?", text))
        assert re.findall(r"://\w+:[^$@\s]+@", text) == []

    @pytest.mark.parametrize("name", [name for name, _ in services()])
    def test_a_service_may_do_no_more_than_it_must(self, name: str) -> None:
        service = dict(services())[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert service["healthcheck"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))

    def test_the_service_is_given_time_to_drain(self) -> None:
        relight = dict(services())["relight"]
        drain_s = float(relight["environment"]["RELIGHT_DRAIN_S"])
        assert int(relight["stop_grace_period"].removesuffix("s")) > drain_s + Settings().unready_s


class TestKubernetes:
    @pytest.mark.parametrize("name", documents())
    def test_kubernetes_accepts_it(self, name: str) -> None:
        kubernetes_validate.validate(documents()[name], kubernetes_validate.latest_version(), strict=True)

    def test_kustomize_is_told_of_every_file(self) -> None:
        told = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
        assert {*told["resources"], "kustomization.yaml"} == {file.name for file in KUBERNETES.glob("*.yaml")}
        [generated] = told["configMapGenerator"]
        assert all((KUBERNETES / file).exists() for file in generated["envs"])
        for workload in workloads():
            for container in containers(workload):
                assert {"configMapRef": {"name": generated["name"]}} in container["envFrom"]
                assert {"secretRef": {"name": workload["metadata"]["name"]}} in container["envFrom"]
                assert container["image"] in {image["name"] for image in told["images"]}

    def test_no_pod_is_privileged_or_holds_a_token(self) -> None:
        for workload in workloads():
            pod = workload["spec"]["template"]["spec"]
            assert pod["automountServiceAccountToken"] is False
            assert pod["serviceAccountName"] in {account["metadata"]["name"] for account in of_kind("ServiceAccount")}
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in containers(workload):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["resources"]["requests"].keys() == {"cpu", "memory"}
                assert "memory" in container["resources"]["limits"]

    def test_no_pod_is_given_variables_of_services(self) -> None:
        """`RELIGHT_PORT` and the like, of the service `relight`, are no settings: the pod would not start."""
        assert [
            pod["metadata"]["name"] for pod in workloads() if pod["spec"]["template"]["spec"]["enableServiceLinks"]
        ] == []

    def test_every_container_that_stays_has_the_three_probes(self) -> None:
        for deployment in of_kind("Deployment"):
            for container in containers(deployment):
                ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
                assert ports["http"] == settings_env()["RELIGHT_HTTP_PORT"]
                for probe, path in PROBES.items():
                    assert container[probe]["httpGet"] == {"path": path, "port": "http"}

    def test_a_pod_is_given_time_to_drain_and_another_comes_first(self) -> None:
        settings = Settings.from_environment(settings_env())
        for deployment in of_kind("Deployment"):
            spec = deployment["spec"]
            probe = containers(deployment)[0]["readinessProbe"]
            assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > settings.unready_s + settings.drain_s + 5
            assert settings.unready_s > probe["periodSeconds"] * probe["failureThreshold"]
            assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
            assert len(spec["template"]["spec"]["topologySpreadConstraints"]) == 2

    def test_every_deployment_has_a_disruption_budget_that_leaves_one(self) -> None:
        for deployment in of_kind("Deployment"):
            [budget] = [
                budget for budget in of_kind("PodDisruptionBudget") if selects(budget["spec"]["selector"], deployment)
            ]
            assert selects(deployment["spec"]["selector"], deployment)
            assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]

    def test_the_service_leads_to_the_api_alone_and_the_network_policy_covers_all(self) -> None:
        [service], [policy] = of_kind("Service"), of_kind("NetworkPolicy")
        behind = [pod["metadata"]["name"] for pod in workloads() if selects(service["spec"]["selector"], pod)]
        assert behind == ["relight-api"]
        assert all(selects(policy["spec"]["podSelector"], pod) for pod in workloads())

    @pytest.mark.parametrize("name", ["relight-api", "relight-projector"])
    async def test_what_a_pod_starts_answers_its_probes_and_ends_by_sigterm(self, name: str, database: str) -> None:
        if "serve" not in get_group(app).commands:
            lacking("relight serve")
        [container] = containers(documents()[f"Deployment/{name}"])
        port = free_port()
        with stack.folder() as home:
            async with stack.nats_server() as nats:
                environment = settings_env() | {
                    "RELIGHT_HOME": str(home),
                    "RELIGHT_HTTP_HOST": "127.0.0.1",
                    "RELIGHT_HTTP_PORT": str(port),
                    "RELIGHT_UNREADY_S": "0",
                    "RELIGHT_NATS_URL": nats.url,
                    "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
                    "RELIGHT_DATABASE_URL": database,
                }
                process = await asyncio.create_subprocess_exec(
                    str(BIN / "relight"), *container["args"], env={"PATH": os.environ["PATH"], **environment}
                )
                try:
                    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
                        for probe in PROBES:
                            path = container[probe]["httpGet"]["path"]
                            await stack.until(partial(_answers, client, path), path)
                finally:
                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.wait_for(process.wait(), stack.DEADLINE_S) == 0


async def _connected(url: str) -> Client | None:
    try:
        return await connect(url, name="test")
    except Unreachable:
        return None


async def _stored(client: Client, sha256: str) -> bool:
    return await ContentReader(client.jetstream()).look_up("acme", sha256) is not None


async def _note(seen: list[str], message: Msg) -> None:
    seen.append(message.subject)


async def _answers(client: aiohttp.ClientSession, path: str) -> bool:
    try:
        async with client.get(path) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False
