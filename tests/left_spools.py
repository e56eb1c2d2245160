"""A spool that a recorder left behind, with events that no server has."""

import asyncio
from pathlib import Path

from stack import failed, options

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder

EVENTS = 60


async def left_behind(nats: EmbeddedNats, spools: Path) -> str:
    """A spool of `opened`, `EVENTS` events and `closed` that no server has; gives its publisher."""
    await nats.kill()
    recorder = Recorder(options(nats, spools))
    recorder.start()
    for n in range(EVENTS):
        recorder.record(failed(n))
    await recorder.record(failed(EVENTS)).reached(Ack.SPOOLED)
    wal = (spools / "slot-0.db-wal").read_bytes()
    await asyncio.to_thread(recorder.stop, deadline_s=0.1)
    (spools / "wal").write_bytes(wal)
    await nats.start()
    return recorder.publisher
