"""Breakers as operators see them: in health, in metrics and in status, and who voted for them."""

from collections.abc import Sequence
from typing import Any

from folding import id_at, moment
from nats.aio.client import Client
from observing import found, probing
from prometheus_client import CollectorRegistry
from rich.console import Console
from stack import encoded, nats_server, projecting

from relight.engine.cli.status import _shown
from relight.engine.health.breakers import MAX_NAMED
from relight.engine.health.document import document, flat, read_document
from relight.engine.health.metrics import register_metrics
from relight.engine.health.models import CheckStatus, Health
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import run
from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerHalfOpened, BreakerOpened, BreakerReset, BreakerTripped
from relight.events.decisions import DecisionTaken

MODEL = "anthropic/-/claude-haiku-4-5"


def opened(service: str) -> BreakerOpened:
    return BreakerOpened(service_name=service, reason="quorum", failure_count=5, next_retry_at=moment(60))


def tripped(process: str) -> BreakerTripped:
    return BreakerTripped(
        service_name=MODEL,
        process=process,
        fault_domain=f"host-of-{process}",
        reason="5 failures in a row",
        failure_count=5,
        retry_at=moment(30),
    )


def reset(process: str) -> BreakerReset:
    return BreakerReset(service_name=MODEL, process=process, fault_domain=f"host-of-{process}", reason="answered")


async def published(client: Client, facts: Sequence[tuple[str, Event]]) -> None:
    """Of tenants, in order; each ruling is the first one of its subject."""
    for tick, (tenant, data) in enumerate(facts, 1):
        publisher, rev = f"p-{tick}", 1 if data.POLICY else None
        subject, body = encoded(data, id=id_at(tick), time=moment(tick), publisher=publisher, tenant=tenant, rev=rev)
        await client.jetstream().publish(subject, body)


def gauge(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """The samples of one family, by their label."""
    return {
        ",".join(sample.labels.values()): sample.value
        for family in registry.collect()
        if family.name == name
        for sample in family.samples
    }


async def test_breakers_that_are_not_closed_stand_in_health_metrics_and_status_and_degrade_nothing(
    database: str,
) -> None:
    half = BreakerHalfOpened(service_name="crm", reason="its time has come", failure_count=5, opened_at=moment(1))
    closed = BreakerClosed(service_name="well", reason="answered")
    others = [("zebra", opened("secret-of-another-tenant")), ("-", opened("platform"))]
    async with nats_server() as nats, projecting(nats, database) as work:
        await published(work.client, [("acme", opened(MODEL)), ("acme", half), ("acme", closed), *others])
        await work.caught_up()
        async with probing(nats, database, client=work.client, tenant="acme") as probe:
            registry = CollectorRegistry()
            register_metrics(registry, probe)
            health = await probe.check()
    assert not [check for check in health.checks if check.component == "breakers" and check.status != CheckStatus.PASS]
    assert (health.figures.open_breakers, health.figures.half_open_breakers) == (3, 1)
    open_since = {"state": "open", "since": moment(1).isoformat(), "retry_at": moment(60).isoformat()}
    assert found(health, "breakers:ruling", MODEL).observed == open_since
    assert found(health, "breakers:ruling", "crm").observed == {"state": "half_open", "since": moment(1).isoformat()}
    assert read_document(document(health)).figures == health.figures
    assert flat(health).open_breakers == 3
    assert gauge(registry, "relight_breakers") == {"open": 3, "half_open": 1}
    assert gauge(registry, "relight_breaker_open") == {MODEL: 1, "crm": 0, "platform": 1}
    assert MODEL not in str(gauge(registry, "relight_check_severity")), "one series for a breaker is enough"
    said = _printed(health)
    assert f"breakers:ruling {MODEL}" in said
    assert "secret" not in said + str(gauge(registry, "relight_breaker_open")) + document(health).decode()


async def test_of_many_breakers_some_are_named_and_all_counted(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as work:
        await published(work.client, [("acme", opened(f"tool-{n}")) for n in range(MAX_NAMED + 5)])
        await work.caught_up()
        async with probing(nats, database, client=work.client, tenant="acme") as probe:
            health = await probe.check()
    named = [check.id for check in health.checks if check.key == "breakers:ruling"]
    assert (len(named), named[0]) == (MAX_NAMED, f"tool-{MAX_NAMED + 4}")
    assert health.figures.open_breakers == MAX_NAMED + 5


async def test_votes_are_told_with_who_took_theirs_back(database: str) -> None:
    votes: list[Event] = [tripped("p-a"), tripped("p-b"), reset("p-a"), tripped("p-a")]
    async with nats_server() as nats, projecting(nats, database) as work:
        await published(work.client, [("acme", vote) for vote in votes])
        await work.caught_up()
        async with await open_pool(database, PoolOptions(size=2)) as pool:
            asked: dict[str, Any] = {"service": MODEL}
            rows = [row.model_dump() for row in await run(pool, "breakers.votes", tenant="acme", arguments=asked)]
            none = await run(pool, "breakers.votes", tenant="acme", arguments=asked | {"since": moment(60)})
    assert [(row["process"], row["voted_at"], row["withdrawn_at"]) for row in rows] == [
        ("p-a", moment(4), None),
        ("p-b", moment(2), None),
        ("p-a", moment(1), moment(3)),
    ]
    assert rows[2]["withdrawn_because"] == "answered"
    assert (rows[1]["fault_domain"], rows[1]["failure_count"]) == ("host-of-p-b", 5)
    assert (rows[1]["reason"], rows[1]["retry_at"]) == ("5 failures in a row", moment(30))
    assert none == []


async def test_decisions_of_a_task_come_in_the_order_in_which_they_were_made(database: str) -> None:
    def taken(decision: str) -> DecisionTaken:
        return DecisionTaken(decision=decision, decision_type="agent_call", agent="a", task="t", decision_taken="call")

    async with nats_server() as nats, projecting(nats, database) as work:
        for tick, (decision, at) in enumerate({"second": 7, "first": 3, "third": 7}.items(), 1):
            subject, body = encoded(taken(decision), id=id_at(tick), time=moment(at), publisher=f"p-{tick}")
            await work.client.jetstream().publish(subject, body)
        await work.caught_up()
        async with await open_pool(database, PoolOptions(size=2)) as pool:
            rows = await run(pool, "decisions.of_task", tenant="acme", arguments={"task": "t"})
    assert [row.model_dump()["decision"] for row in rows] == ["first", "second", "third"]


def _printed(health: Health) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(_shown(health))
    return captured.get()
