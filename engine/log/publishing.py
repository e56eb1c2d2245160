"""How events reach the stream: one atomic batch where possible, singly where the server says so."""

import asyncio
from collections.abc import Sequence

import orjson
import uuid_utils
from nats.aio.client import Client
from nats.errors import ConnectionClosedError
from nats.js import JetStreamContext

from relight.engine.errors import RecorderError
from relight.engine.log.answers import answered
from relight.engine.log.standing import stands
from relight.engine.log.topology import EXPECTED_LAST, REQUEST_TIMEOUT_S, STREAM
from relight.engine.spool.spool import Spooled
from relight.events.envelope import CONTENT_TYPE

MAX_BATCH_EVENTS = 1_000  # the server takes no more in one batch
MAX_BATCH_BYTES = 4 << 20
FRAMED_AT_ONCE = 100
"""Events, some 0.2 ms of Python: a call of record() may have to wait for so long."""
HEADERS = {"Content-Type": CONTENT_TYPE}
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""JetStream error codes: wrong last sequence (by subject, or as a constant)."""
MAX_HEALS = 10


class StreamRefused(RecorderError):
    """The stream answered a publish with an error; `code` is JetStream's."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"stream {STREAM} refused a publish: {description} (error {code})")
        self.code = code


async def publish_batch(client: Client, events: Sequence[Spooled], *, after_seq: int | None = None) -> int:
    """Stores all of `events`, or none; returns the sequence of the last.

    With `after_seq`, only if that is where the last message of the first event's subject stands (0: there is none).
    Raises `StreamRefused`, `nats.errors.Error`, `TimeoutError`; after the latter two it may have been stored.
    """
    batch_id = uuid_utils.uuid4().hex
    await _send(client, events[:-1], batch_id, after_seq)
    headers = {**_batch_headers(events[-1], batch_id, len(events), after_seq), "Nats-Batch-Commit": "1"}
    return (await request(client, events[-1].subject, events[-1].body, headers))[0]


async def _send(client: Client, events: Sequence[Spooled], batch_id: str, after_seq: int | None) -> None:
    """The batch's messages before its last, which nobody answers.

    In few pieces, past `Client.publish`, which checks and writes every header of every message anew: a third of what
    draining took. Should nats-py rename the methods, only the speed goes.
    """
    command, flush = getattr(client, "_send_command", None), getattr(client, "_flush_pending", None)
    if command is None or flush is None or any(len(event.body) > client.max_payload for event in events):
        for number, event in enumerate(events, 1):
            headers = _batch_headers(event, batch_id, number, after_seq)
            await client.publish(event.subject, event.body, headers=headers)
    elif not client.is_connected:
        raise ConnectionClosedError
    else:
        for first in range(0, len(events), FRAMED_AT_ONCE):
            part = events[first : first + FRAMED_AT_ONCE]
            await command(framed(part, batch_id, first=first + 1, after_seq=after_seq))
            await flush()
            await asyncio.sleep(0)  # here other threads get their turn, those that record above all


def framed(events: Sequence[Spooled], batch_id: str, *, first: int = 1, after_seq: int | None = None) -> bytes:
    """Messages of a batch, from its `first` on, as NATS' protocol has them."""
    head = f"NATS/1.0\r\nContent-Type: {CONTENT_TYPE}\r\nNats-Batch-Id: {batch_id}\r\n".encode()
    condition = b"" if after_seq is None or first > 1 else f"{EXPECTED_LAST}: {after_seq}\r\n".encode()
    parts: list[bytes] = []
    for number, (_, id, subject, body, _, _) in enumerate(events, first):
        headers = b"%b%bNats-Msg-Id: %b\r\nNats-Batch-Sequence: %d\r\n\r\n" % (head, condition, id.encode(), number)
        size = len(headers)
        parts += (b"HPUB %b %d %d\r\n" % (subject.encode(), size, size + len(body)), headers, body, b"\r\n")
        condition = b""
    return b"".join(parts)


def _batch_headers(event: Spooled, batch_id: str, number: int, after_seq: int | None) -> dict[str, str]:
    headers = {
        **HEADERS,
        "Nats-Msg-Id": event.id,
        "Nats-Batch-Id": batch_id,
        "Nats-Batch-Sequence": str(number),
    }
    return headers if after_seq is None or number > 1 else {**headers, EXPECTED_LAST: str(after_seq)}


async def publish_one(client: Client, js: JetStreamContext, event: Spooled) -> int:
    """Stores one event and returns where it stands; a `duplicate` answer is believed only after looking there."""
    for attempt in range(MAX_HEALS):
        message_id = event.id if attempt == 0 else f"{event.id}#h{attempt}"
        seq, duplicate = await request(client, event.subject, event.body, {**HEADERS, "Nats-Msg-Id": message_id})
        if not duplicate or await answered(client, stands(js, seq, event), within_s=REQUEST_TIMEOUT_S + 1):
            return seq
    raise RecorderError(
        f"event {event.id}: the stream calls it a duplicate {MAX_HEALS} times and holds it nowhere; look at its store"
    )


async def request(client: Client, subject: str, body: bytes, headers: dict[str, str]) -> tuple[int, bool]:
    """One acknowledged publish: its sequence, and whether the stream calls it a duplicate."""
    asking = client.request(subject, body, timeout=REQUEST_TIMEOUT_S, headers=headers)
    reply = await answered(client, asking, within_s=REQUEST_TIMEOUT_S + 1)
    answer = orjson.loads(reply.data)
    if error := answer.get("error"):
        raise StreamRefused(int(error.get("err_code", error.get("code", 0))), str(error.get("description")))
    return int(answer["seq"]), bool(answer.get("duplicate"))
