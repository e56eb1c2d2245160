"""How events reach the stream: one atomic batch where possible, singly where the server says so."""

from collections.abc import Sequence

import orjson
import uuid_utils
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from relight.engine.errors import RecorderError
from relight.engine.log.answers import answered
from relight.engine.log.spool import Spooled
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.events.envelope import CONTENT_TYPE

MAX_BATCH_EVENTS = 1_000  # the server takes no more in one batch
MAX_BATCH_BYTES = 4 << 20
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
    last = len(events)
    for number, event in enumerate(events, 1):
        headers = {
            **HEADERS,
            "Nats-Msg-Id": event.id,
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(number),
        }
        if number == 1 and after_seq is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(after_seq)
        if number < last:
            await client.publish(event.subject, event.body, headers=headers)
        else:
            headers["Nats-Batch-Commit"] = "1"
            return (await request(client, event.subject, event.body, headers))[0]
    raise ValueError("a batch has at least one event")


async def publish_one(client: Client, js: JetStreamContext, event: Spooled) -> int:
    """Stores one event and returns where it stands; a `duplicate` answer is believed only after looking there."""
    for attempt in range(MAX_HEALS):
        message_id = event.id if attempt == 0 else f"{event.id}#h{attempt}"
        seq, duplicate = await request(client, event.subject, event.body, {**HEADERS, "Nats-Msg-Id": message_id})
        if not duplicate or await answered(
            client, stands(js, seq, event.subject, event.body), within_s=REQUEST_TIMEOUT_S + 1
        ):
            return seq
    raise RecorderError(
        f"event {event.id}: the stream calls it a duplicate {MAX_HEALS} times and holds it nowhere; look at its store"
    )


async def stands(js: JetStreamContext, seq: int, subject: str, body: bytes) -> bool:
    """Whether these bytes stand there."""
    try:
        found = await js.get_msg(STREAM, seq)
    except NotFoundError:
        return False
    return found.subject == subject and found.data == body


async def request(client: Client, subject: str, body: bytes, headers: dict[str, str]) -> tuple[int, bool]:
    """One acknowledged publish: its sequence, and whether the stream calls it a duplicate."""
    asking = client.request(subject, body, timeout=REQUEST_TIMEOUT_S, headers=headers)
    reply = await answered(client, asking, within_s=REQUEST_TIMEOUT_S + 1)
    answer = orjson.loads(reply.data)
    if error := answer.get("error"):
        raise StreamRefused(int(error.get("err_code", error.get("code", 0))), str(error.get("description")))
    return int(answer["seq"]), bool(answer.get("duplicate"))
