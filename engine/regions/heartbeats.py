"""Heartbeats: signs of life over core NATS, which waits for no leader of a stream and for no disk."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson
from pydantic import BaseModel, ConfigDict, JsonValue

from relight.engine.errors import RelightError
from relight.engine.log.reader import TRANSIENT
from relight.events.subjects import token
from relight.events.values import Count, Key, Name

if TYPE_CHECKING:
    from relight.engine.recorder.recorder import Recorder  # which announces itself in this form

HEARTBEATS = "hb"
SERVICE, WORKER, PUBLISHER = "service", "worker", "publisher"
HEARTBEAT_S = 0.5
MAX_HEARTBEAT_BYTES = 64 * 1024
_GENERATION_BITS = 53
"""As many as every reader of JSON keeps."""

log = logging.getLogger(__name__)


class Heartbeat(BaseModel):
    """What a sender says of itself; its free fields are in `fields`.

    `generation` is one start of a process: the next one has another. `seq` counts its heartbeats from 1. `sent_at_us`
    is the sender's wall clock, for people: nothing is decided by it. `leaving`: it stops on purpose, and this is its
    last.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Key
    region: Name
    kind: Name
    generation: Count
    seq: Count
    sent_at_us: Count
    leaving: bool = False

    @property
    def fields(self) -> Mapping[str, JsonValue]:
        return self.model_extra or {}


def heartbeat_subject(region: str, kind: str, id: str) -> str:
    """`hb.<region>.<kind>.<id>`"""
    return f"{HEARTBEATS}.{token(region)}.{token(kind)}.{token(id)}"


class Heartbeats:
    """Sends one sender's, from the recorder's own loop: whoever keeps the process's own loop busy delays none.

    `fields` is called in that loop for each of them, and has to be quick; where it raises, the heartbeat goes without.
    """

    def __init__(
        self,
        recorder: "Recorder",
        kind: str,
        id: str,
        fields: Callable[[], Mapping[str, JsonValue]] = dict,
        *,
        every_s: float = HEARTBEAT_S,
    ) -> None:
        self._recorder = recorder
        self._kind = kind
        self._id = id
        self._fields = fields
        self._every_s = every_s
        self._region = recorder.options.region
        self._subject = heartbeat_subject(self._region, kind, id)
        self.generation = secrets.randbits(_GENERATION_BITS)
        self.sent = 0
        self.failure: str | None = "no heartbeat was sent yet"
        """Why none goes out now."""

    async def run(self) -> None:
        """For ever; one that cannot be sent is not made up for."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            await self._send(leaving=False)
            due_s = max(due_s + self._every_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def leave(self) -> None:
        """The last one: this process stops on purpose, so that nobody has to suspect it. In the recorder's loop."""
        await self._send(leaving=True)

    async def _send(self, *, leaving: bool) -> None:
        try:
            client = await self._recorder.client()
            self.sent += 1  # also where it does not get out: whoever hears the next one knows that one is missing
            async with asyncio.timeout(self._every_s):
                await client.publish(self._subject, self._body(leaving))
            self.failure = None
        except (RelightError, *TRANSIENT) as error:
            self._missed(error)
        except Exception as error:  # a daemon's edge: a process that works is not to be taken for dead
            log.exception("a heartbeat of %s was not sent", self._id, extra={"action": "heartbeat_failed"})
            self._missed(error)

    def _missed(self, error: Exception) -> None:
        self.failure = str(error) or type(error).__name__

    def _body(self, leaving: bool) -> bytes:
        said = {
            "id": self._id,
            "region": self._region,
            "kind": self._kind,
            "generation": self.generation,
            "seq": self.sent,
            "sent_at_us": self._recorder.clock.now_us(),
            **({"leaving": True} if leaving else {}),
        }
        try:
            body = orjson.dumps({**self._fields(), **said})
            if len(body) <= MAX_HEARTBEAT_BYTES:
                return body
            log.warning("a heartbeat of %s has %d bytes", self._id, len(body), extra={"action": "heartbeat_too_large"})
        except Exception:
            log.exception("%s cannot say more than that it lives", self._id, extra={"action": "heartbeat_fields"})
        return orjson.dumps(said)
