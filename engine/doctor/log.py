"""The servers, and NATS: what recording needs, tried out on a stream and a store that are made for it and go again."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ObjectStoreConfig, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from relight.engine.doctor.models import Finding, fail, inapplicable, ok, warn
from relight.engine.doctor.patient import Patient
from relight.engine.health.limits import CLOCK_OFFSET_MS
from relight.engine.health.models import Status
from relight.engine.health.stream import look_at_stream
from relight.engine.log.declared import setting_faults
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.proving.monitors import varz

OLDEST_NATS = (2, 12)
"""Atomic batches came with it."""
THROW_AWAY_S = 60.0
LOOK_EVERY_S = 0.05
BODY = b"relight doctor" * 64
NOT_TRIED = "allow this login $JS.API.> and relight.doctor.>, or take it for granted that it can publish"

T = TypeVar("T")


async def servers(patient: Patient) -> Finding:
    patient.opened = found = await patient.stack.enter_async_context(patient.openers.serving())
    if found.ours:
        return ok("started for this examination; `relight up` would run them in the foreground")
    if patient.settings.nats_url:
        return ok("those of RELIGHT_NATS_URL and RELIGHT_DATABASE_URL")
    return ok("those of the running `relight up` of this home")


async def nats(patient: Patient) -> Finding:
    patient.client = client = await patient.openers.nats(patient.servers.nats_url)
    patient.stack.push_async_callback(client.close)
    began = time.monotonic()
    await client.flush(timeout=5)
    took_ms = (time.monotonic() - began) * 1_000
    version = client.connected_server_version
    found = f"nats-server {version.major}.{version.minor}.{version.patch}, round trip {took_ms:.1f} ms"
    if (version.major, version.minor) < OLDEST_NATS:
        return fail(found, f"upgrade it to {'.'.join(map(str, OLDEST_NATS))} or newer: atomic batches are needed")
    return ok(found)


async def jetstream(patient: Patient) -> Finding:
    try:
        account = await _jetstream(patient).account_info()
    except (NatsError, TimeoutError) as error:
        return fail(f"JetStream does not answer: {_said(error)}", "turn it on (jetstream {}), for this account too")
    limit = account.limits.max_storage
    if limit > 0 and account.storage > 0.8 * limit:
        return warn(f"{account.storage / limit:.0%} of the account's storage is used", "raise its limit")
    return ok(f"on, {account.streams} streams, {account.storage >> 20} MiB stored")


async def clock(patient: Patient) -> Finding:
    look = await look_at_stream(patient.nats, patient.clock)
    if look.offset_ms is not None:
        return offset("the stream", look.offset_ms, look.response_ms or 0)
    for url in patient.servers.monitors:
        began_us = patient.clock.now_us()
        match await asyncio.to_thread(varz, url):
            case {"now": str(now)}:
                took_ms = (patient.clock.now_us() - began_us) / 1_000
                there_us = datetime.fromisoformat(now).timestamp() * 1_000_000
                return offset("the server", (there_us - began_us) / 1_000 - took_ms / 2, took_ms)
    return inapplicable("there is no stream yet that would tell the server's time, nor a monitoring address")


def offset(whose: str, offset_ms: float, response_ms: float) -> Finding:
    """Known to within half a round trip."""
    found = f"{abs(offset_ms):.0f} ms {'ahead of' if offset_ms > 0 else 'behind'} ours (+- {response_ms / 2:.1f})"
    if abs(offset_ms) > CLOCK_OFFSET_MS:
        return fail(
            f"{whose}'s clock is {found}",
            "run NTP on both machines: what is 60 s ahead of the stream becomes a dead letter",
        )
    return ok(found)


async def stream(patient: Patient) -> Finding:
    try:
        info = await _jetstream(patient).stream_info(STREAM)
    except NotFoundError:
        return warn(f"stream {STREAM} is not declared yet", "`relight up` declares it; check its replicas then")
    faults = setting_faults(info.config)
    if faults:
        return fail(f"stream {STREAM}: {'; '.join(faults)}", f"correct it with `nats stream edit {STREAM}`")
    replicas = info.config.num_replicas or 1
    return ok(f"stream {STREAM} as required, {replicas} replica(s), {info.state.messages:,} messages")


async def publish(patient: Patient) -> Finding:
    """Acknowledged, compare-and-set, read back: on memory, so that nothing stays even if this process dies."""
    js, subject = _jetstream(patient), f"relight.doctor.{patient.tag}"
    name = patient.tag.replace("-", "_")
    async with _thrown_away(patient, name, subject) as refused:
        if refused is not None:
            return warn(f"no stream of its own could be made: {refused}", NOT_TRIED)
        began = time.monotonic()
        acknowledged = await js.publish(subject, BODY, timeout=5, headers={"Nats-Msg-Id": patient.tag})
        took_ms = (time.monotonic() - began) * 1_000
        held = await js.get_msg(name, acknowledged.seq)
        if held.data != BODY:
            return fail("a message came back with other bytes", "look at that server's log and disk")
        with suppress(APIError):
            await js.publish(subject, BODY, timeout=5, headers={"Nats-Expected-Last-Subject-Sequence": "7"})
            return fail("a compare-and-set append won although it had to lose", "upgrade the server")
    return ok(f"acknowledged in {took_ms:.1f} ms, read back, a stale compare-and-set refused")


@asynccontextmanager
async def _thrown_away(patient: Patient, name: str, subject: str) -> AsyncIterator[str | None]:
    """Makes the stream; gives why that was refused, if it was."""
    js = _jetstream(patient)
    config = StreamConfig(
        name=name, subjects=[subject], storage=StorageType.MEMORY, max_age=THROW_AWAY_S, duplicate_window=THROW_AWAY_S
    )
    try:
        await _permitted(patient.nats, js.add_stream(config=config))
    except (NatsError, TimeoutError) as error:
        yield _said(error)
        return
    try:
        yield None
    finally:
        await js.delete_stream(name)


async def content(patient: Patient) -> Finding:
    js, bucket = _jetstream(patient), patient.tag
    config = ObjectStoreConfig(storage=StorageType.MEMORY, ttl=THROW_AWAY_S)
    try:
        store = await _permitted(patient.nats, js.create_object_store(bucket, config=config))
    except (NatsError, TimeoutError) as error:
        return warn(f"no object store of its own could be made: {_said(error)}", "allow this login $JS.API.> and $O.>")
    try:
        await store.put("probe", BODY)
        if (await store.get("probe")).data != BODY:
            return fail("an object came back with other bytes", "look at that server's log and disk")
    finally:
        await js.delete_object_store(bucket)
    return ok(f"{len(BODY)} bytes put, read back and removed")


async def service(patient: Patient) -> Finding:
    if patient.servers.ours:
        return inapplicable("none runs: the servers were started for this examination")
    health = await patient.openers.service(patient.client)
    if health is None:
        return inapplicable("none answers; start one with `relight up`")
    found = f"{health.service_id} (relight {health.release}) is {health.status}"
    match health.status:
        case Status.HEALTHY:
            return ok(found)
        case Status.DEGRADED:
            return warn(f"{found}: {'; '.join(health.reasons)}", "see `relight status`")
        case Status.UNHEALTHY:
            return fail(f"{found}: {'; '.join(health.reasons)}", "see `relight status`")


def _jetstream(patient: Patient) -> JetStreamContext:
    return patient.nats.jetstream(timeout=REQUEST_TIMEOUT_S)


async def _permitted(client: Client, asking: Coroutine[Any, Any, T]) -> T:
    """What `asking` gives. A request that is not permitted gets no answer: the server says so beside it."""
    before, task = client.last_error, asyncio.ensure_future(asking)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_EVERY_S)
            said = client.last_error
            if not task.done() and said is not before and "permissions violation" in str(said).lower():
                raise NatsError(str(said))
        return task.result()
    finally:
        task.cancel()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
