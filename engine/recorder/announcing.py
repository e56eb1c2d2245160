"""Announces a recorder to its fleet: how far its events have come, and the ids of those that the stream lacks yet."""

import asyncio
import hashlib
import logging
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

import orjson
from nats.aio.client import Client
from pydantic import JsonValue

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError
from relight.engine.log.reader import TRANSIENT
from relight.engine.recorder.receipts import Watermark
from relight.engine.recorder.writer import Writer
from relight.engine.regions.heartbeats import PUBLISHER, heartbeat_subject
from relight.engine.spool.rows import Acked
from relight.engine.spool.slots import Slot, machine
from relight.engine.spool.spool import Spool

ANNOUNCE_S = 0.5
"""How often while there is something new."""
IDLE_TIMES = 10
"""Of that, how often while there is nothing new."""
MAX_IDS = 500
LAST_S = 0.5

log = logging.getLogger(__name__)


def place_of(folder: Path | None) -> str | None:
    """A folder of spools on a machine, by a name that stays when its disk is wiped; None without a folder."""
    if folder is None:
        return None
    return hashlib.sha256(f"{machine()}:{socket.gethostname()}:{folder.absolute()}".encode()).hexdigest()[:32]


class Announcer:
    """Of one identity; `run` in the uplink's loop, which the drainer's reading connection belongs to as well.

    `predecessor`: whose place it took in this process. An announcement has, beside what each heartbeat has, `spooled`
    and `acked` (numbers: written, acknowledged), `acked_seq` (where the latter stands), `ids` (of the numbers after
    `acked`), `waiting_ids` and `waiting` (taken and not numbered: their ids, and how many more), `durable`, `place`.
    """

    def __init__(
        self,
        client: Client,
        reader: Spool,
        writer: Writer,
        *,
        region: str,
        publisher: str,
        place: str | None,
        acked: Watermark,
        clock: Clock,
        every_s: float,
        predecessor: str | None = None,
    ) -> None:
        self._client = client
        self._reader = reader
        self._writer = writer
        self._region = region
        self._publisher = publisher
        self._place = place if reader.durable else None
        self._acked = acked
        self._clock = clock
        self._every_s = every_s
        self._predecessor = predecessor
        self._generation = secrets.randbits(53)
        self._sent = 0
        self._last_ack = (0, 0)

    def on_ack(self, acked: Acked) -> None:
        self._last_ack = (acked.last_pseq, acked.last_seq)

    async def run(self) -> None:
        """For ever; one that cannot be sent is not made up for."""
        said, quiet = None, 0
        self._last_ack = max(self._last_ack, self._reader.last_ack())
        while True:
            try:
                fields = self._fields()
                quiet = 0 if fields != said else quiet + 1
                if quiet % IDLE_TIMES == 0:
                    await self._send(fields, leaving=False)
                said = fields
            except (RecorderError, *TRANSIENT) as error:  # the drainer says what is wrong with the spool
                log.debug("not announced: %r", error, extra={"action": "unannounced"})
            await asyncio.sleep(self._every_s)

    async def leave(self) -> None:
        """The last one: this identity is written no more."""
        try:
            await self._send(self._fields(), leaving=True)
        except (RecorderError, *TRANSIENT) as error:
            log.debug("not announced: %r", error, extra={"action": "unannounced"})

    async def drained(self, slot: Slot) -> None:
        """That we drained what another process left behind: nothing of it is missing any more."""
        pseq, seq = slot.spool.last_ack()
        fields: dict[str, JsonValue] = {
            "spooled": pseq,
            "acked": pseq,
            "acked_seq": seq,
            "durable": True,
            "place": self._place,
            "drained_by": self._publisher,
        }
        said = {**_head(slot.publisher, self._region, secrets.randbits(53), 1, self._clock.now_us()), "leaving": True}
        try:
            await self._publish(slot.publisher, {**fields, **said})
        except TRANSIENT as error:
            log.debug("not announced: %r", error, extra={"action": "unannounced"})

    def _fields(self) -> dict[str, JsonValue]:
        """What waits is looked at first: what is written meanwhile is told of twice, rather than not at all."""
        waiting_ids, waiting = self._writer.waiting_ids(MAX_IDS)
        acked = self._acked.value
        ids = self._reader.ids_after(acked, MAX_IDS) if self._writer.last_pseq > acked else []
        pseq, seq = self._last_ack
        return {
            "spooled": max(self._writer.last_pseq, acked + len(ids)),
            "acked": acked,
            "acked_seq": seq if pseq == acked else 0,
            "ids": list(ids),
            "waiting_ids": list(waiting_ids),
            "waiting": waiting,
            "durable": self._reader.durable,
            "place": self._place,
            "predecessor": self._predecessor,
        }

    async def _send(self, fields: Mapping[str, JsonValue], *, leaving: bool) -> None:
        self._sent += 1
        said = _head(self._publisher, self._region, self._generation, self._sent, self._clock.now_us())
        await self._publish(self._publisher, {**fields, **said, **({"leaving": True} if leaving else {})})

    async def _publish(self, publisher: str, said: Mapping[str, JsonValue]) -> None:
        if not self._client.is_connected:  # it would be kept, and tell of what was true once
            return
        subject = heartbeat_subject(self._region, PUBLISHER, publisher)
        async with asyncio.timeout(LAST_S):
            await self._client.publish(subject, orjson.dumps(said))


def _head(publisher: str, region: str, generation: int, seq: int, now_us: int) -> dict[str, JsonValue]:
    return {
        "id": publisher,
        "region": region,
        "kind": PUBLISHER,
        "generation": generation,
        "seq": seq,
        "sent_at_us": now_us,
    }
