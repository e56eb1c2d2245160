"""Whether the stream was trimmed: the stream itself says so, with no database asked."""

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from relight.engine.log.reader import OBSERVED
from relight.engine.log.topology import STREAM
from relight.events.subjects import OBSERVATIONS

SAID = f"{OBSERVATIONS}.*.recorder.*.trimmed"
LOOKED_AT = 1_000
"""Rulings right before the first observation: on a stream that was restored whole, all of them are there."""


async def trimmed_through(js: JetStreamContext) -> int:
    """Observations up to this sequence are gone, and all that follows is there; 0 where nobody trimmed.

    A stream that was restored holds the event that says so, and is whole all the same. Raises what `get_msg` does.
    """
    try:
        await js.get_msg(STREAM, subject=SAID)
        first = (await js.get_msg(STREAM, 1, subject=OBSERVED, next=True)).seq or 1
    except NotFoundError:
        return 0
    looked_to = max(0, first - 1 - LOOKED_AT)
    for seq in range(first - 1, looked_to, -1):
        try:
            await js.get_msg(STREAM, seq)
        except NotFoundError:
            return seq
    return looked_to
