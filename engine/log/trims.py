"""Whether the stream was trimmed: the stream itself says so, with no database asked."""

import orjson
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from relight.engine.log.reader import OBSERVED
from relight.engine.log.topology import STREAM
from relight.events.subjects import OBSERVATIONS

SAID = f"{OBSERVATIONS}.*.recorder.*.trimmed"
LOOKED_AT = 1_000
"""Rulings right before the first observation: on a stream that was restored whole, all of them are there."""


async def trimmed_through(js: JetStreamContext) -> int:
    """Observations up to this sequence are gone, all that follows is there, and an event says that it was trimmed so.

    0 where nobody trimmed; a stream that was restored holds such events, and is whole all the same. Raises what
    `get_msg` does.
    """
    try:
        said = await js.get_msg(STREAM, 1, subject=SAID, next=True)
    except NotFoundError:
        return 0
    gone = await _gone_through(js)
    while gone:
        seq = said.seq or 0
        if gone <= _through(said.data or b"") < seq:
            return gone
        try:
            said = await js.get_msg(STREAM, seq + 1, subject=SAID, next=True)
        except NotFoundError:
            break
    return 0


async def _gone_through(js: JetStreamContext) -> int:
    first = (await js.get_msg(STREAM, 1, subject=OBSERVED, next=True)).seq or 1
    looked_to = max(0, first - 1 - LOOKED_AT)
    for seq in range(first - 1, looked_to, -1):
        try:
            await js.get_msg(STREAM, seq)
        except NotFoundError:
            return seq
    return looked_to


def _through(body: bytes) -> int:
    try:
        match orjson.loads(body):
            case {"data": {"through_seq": int(through)}}:
                return through
    except ValueError:
        pass
    return 0
