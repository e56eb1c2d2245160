"""Runs the steps in their order; what needs a step that did not succeed is skipped, and says so."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from relight.engine.doctor import log, machine, proof, rows, tables
from relight.engine.doctor.models import Finding, Outcome, Report, Result, fail
from relight.engine.doctor.patient import Patient
from relight.engine.doctor.settings import settings_used
from relight.engine.errors import RelightError

STEP_S = 15.0
START_S = 120.0
"""Of servers that have to be started, and brought up to date."""
GIVE_UP_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """`did` says what is done, for people."""

    name: str
    did: str
    look: Callable[[Patient], Coroutine[Any, Any, Finding]]
    needs: tuple[str, ...] = ()
    within_s: float = STEP_S


def _step(name: str, did: str, look: Callable[[Patient], Coroutine[Any, Any, Finding]], *needs: str) -> Step:
    return Step(name=name, did=did, look=look, needs=needs)


STEPS: Sequence[Step] = (
    _step("settings", "read every RELIGHT_* variable", machine.configured),
    _step("home", "wrote and read a file in RELIGHT_HOME", machine.home, "settings"),
    _step("disk", "compared free space with what spools may take", machine.disk, "home"),
    _step("spool", "wrote, fsynced and read a spool in a slot of its own", machine.spool, "home"),
    _step("http", "listened on the address of the HTTP API", machine.http, "settings"),
    Step(
        name="servers",
        did="found the servers, or started them",
        look=log.servers,
        needs=("settings",),
        within_s=START_S,
    ),
    _step("nats", "connected and measured a round trip", log.nats, "servers"),
    _step("jetstream", "asked for the account", log.jetstream, "nats"),
    _step("nats_clock", "compared the stream's clock with ours", log.clock, "jetstream"),
    _step("stream", "compared the stream's settings with the required ones", log.stream, "jetstream"),
    _step("publish", "published to a stream made for it, and read back", log.publish, "jetstream"),
    _step("content", "put an object into a store made for it, and read it back", log.content, "jetstream"),
    _step("fsync", "asked every replica's server, and the service's prober", proof.fsync, "stream"),
    _step("postgres", "connected and asked for the version", tables.postgres, "servers"),
    _step("session", "opened a session as the projector does", tables.session, "postgres"),
    _step("postgres_clock", "compared its clock with ours", tables.clock, "postgres"),
    _step("durability", "read fsync, full_page_writes, synchronous_commit", tables.durability, "postgres"),
    _step("timeouts", "had a statement cancelled, and read the server's timeouts", tables.timeouts, "postgres"),
    _step("connections", "took every connection of a pool at once", tables.connections, "postgres"),
    _step("migrations", "compared the database's with this release's", tables.migrations, "postgres"),
    _step("roles", "became each of the roles", rows.roles, "migrations"),
    _step("row_security", "read the policies of all tables", rows.row_security, "migrations"),
    _step("tenancy", "wrote a row, read it as two tenants, rolled it back", rows.tenancy, "roles"),
    _step("service", "asked a running service for its health", log.service, "servers"),
)


async def examine(patient: Patient, *, began: Callable[[Step], None], ended: Callable[[Result], None]) -> Report:
    """All steps; `began` and `ended` are told of each."""
    results: dict[str, Result] = {}
    for step in STEPS:
        began(step)
        results[step.name] = result = await _taken(step, patient, results)
        ended(result)
    return Report(results=tuple(results.values()), settings=tuple(settings_used(patient.settings)))


async def _taken(step: Step, patient: Patient, before: dict[str, Result]) -> Result:
    lacking = list(_lacking(step, before))
    at = time.monotonic()
    if lacking:
        finding = Finding(outcome=Outcome.SKIPPED, found=f"needs {', '.join(lacking)}", advice=None)
    else:
        finding = await _looked(step, patient)
    return Result(
        check=step.name,
        did=step.did,
        outcome=finding.outcome,
        found=finding.found,
        advice=finding.advice,
        took_ms=round((time.monotonic() - at) * 1_000, 1),
    )


def _lacking(step: Step, before: dict[str, Result]) -> Iterator[str]:
    for name in step.needs:
        if before[name].outcome in (Outcome.FAIL, Outcome.SKIPPED):
            yield name


async def _looked(step: Step, patient: Patient) -> Finding:
    looking = asyncio.create_task(step.look(patient))
    # A server that hangs would also keep the end of a transaction waiting: its session is cut off first.
    done, _ = await asyncio.wait([looking], timeout=step.within_s)
    if not done:
        patient.cut_off()
        looking.cancel()
        await asyncio.wait([looking], timeout=GIVE_UP_S)
        return fail(f"no answer within {step.within_s:g} s", "is that server up, and the network between?")
    try:
        return looking.result()
    except RelightError as error:
        said, _, advice = str(error).partition(": ")
        return fail(said, advice or "correct that, and run it again")
    except TimeoutError as error:
        return fail(f"no answer in time ({error!r})", "is that server up, and the network between?")
    except Exception as error:  # whatever a server says, the other steps are taken all the same
        return fail(f"{type(error).__name__}: {error}", "correct that, and run it again")
