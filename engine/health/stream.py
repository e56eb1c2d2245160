"""NATS and the stream: whether they answer, whether it is declared as the guarantees need it, and how full it is."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import orjson
from nats.aio.client import Client
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from relight.engine.clock import Clock
from relight.engine.health.limits import FOLLOW_UP_S, LOOK_S, STREAM_NEARLY_FULL
from relight.engine.health.models import Check, Kind
from relight.engine.health.postgres import clock_check
from relight.engine.log.answers import answered
from relight.engine.log.declared import setting_faults as setting_faults
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import STREAM


@dataclass(frozen=True, kw_only=True)
class StreamLook:
    """`failure`: NATS itself; `absent`: what JetStream says of the stream. `used` is the fullest limit, 0 to 1."""

    failure: str | None = None
    absent: str | None = None
    response_ms: float | None = None
    offset_ms: float | None = None
    server_now: datetime | None = None
    last_seq: int | None = None
    used: float | None = None
    faults: tuple[str, ...] = ()


async def look_at_stream(client: Client, clock: Clock) -> StreamLook:
    """Within `LOOK_S`."""
    began, began_us = time.monotonic(), clock.now_us()
    asking = client.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout=LOOK_S)
    try:
        answer = await answered(client, asking, within_s=LOOK_S)
        took_us = (time.monotonic() - began) * 1_000_000
        said = orjson.loads(answer.data)
    except (*TRANSIENT, ValueError) as error:
        return StreamLook(failure=str(error) or type(error).__name__)
    server_now = _moment(said.get("ts"))
    met = StreamLook(
        response_ms=took_us / 1_000,
        server_now=server_now,
        offset_ms=None if server_now is None else _offset_ms(server_now, began_us + took_us / 2),
    )
    if "error" in said:
        return replace(met, absent=str(said["error"].get("description", said["error"])))
    info = StreamInfo.from_response(said)
    return replace(
        met,
        last_seq=info.state.last_seq,
        used=_used(info),
        faults=tuple(setting_faults(info.config)),
    )


async def first_after(client: Client, seq: int) -> datetime | None:
    """When the stream took the first message after `seq`; None where none stands there any more.

    Raises a `nats.errors.Error` or `TimeoutError` within `FOLLOW_UP_S`.
    """
    asking = client.jetstream(timeout=FOLLOW_UP_S).get_msg(STREAM, seq + 1, subject=">", next=True)
    try:
        return (await answered(client, asking, within_s=FOLLOW_UP_S)).time
    except NotFoundError:
        return None


def stream_checks(look: StreamLook, now: datetime) -> Iterator[Check]:
    nats = partial(Check, component="nats", kind=Kind.DATASTORE, time=now)
    stream = partial(Check, component="stream", kind=Kind.DATASTORE, time=now)
    if look.failure is not None or look.response_ms is None:
        yield nats(measurement="responseTime", unit="ms").failed(
            True,
            f"NATS does not answer ({look.failure}): events wait in their spools; is it up, with JetStream and a"
            " leader, and the network between?",
        )
        return
    yield nats(measurement="responseTime", observed=round(look.response_ms, 3), unit="ms")
    if look.offset_ms is not None:
        yield clock_check("nats", look.offset_ms, now)
    if look.absent is not None:
        yield stream(measurement="settings").failed(
            True,
            f"stream {STREAM} cannot be asked ({look.absent}): is JetStream on? `relight up` creates it",
        )
        return
    yield stream(measurement="lastSequence", observed=look.last_seq)
    yield stream(measurement="settings", observed=list(look.faults) or "as required").warned(
        look.faults, f"stream {STREAM}: {'; '.join(look.faults)}; correct it with `nats stream edit {STREAM}`"
    )
    if look.used is not None:
        yield stream(measurement="utilization", observed=round(look.used * 100, 1), unit="percent").warned(
            look.used >= STREAM_NEARLY_FULL,
            f"stream {STREAM} is {look.used:.0%} full, and refuses events when it is: raise its limits",
        )


def _used(info: StreamInfo) -> float | None:
    config, state = info.config, info.state
    shares = [
        held / limit
        for held, limit in ((state.bytes, config.max_bytes), (state.messages, config.max_msgs))
        if limit is not None and limit > 0
    ]
    return max(shares, default=None)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _offset_ms(there: datetime, here_us: float) -> float:
    return ((there - _EPOCH) / timedelta(microseconds=1) - here_us) / 1_000
