"""Frames of a streamed answer, whatever the wire puts around them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

SSE = "text/event-stream"
AWS = "application/vnd.amazon.eventstream"

PLAIN_EVENTS = ("content_block_delta", "content_block_start", "content_block_stop", "ping")
"""What nobody has to look into once an answer has begun to be handed out."""


class Frame(NamedTuple):
    """One event: its name, empty where it has none, and its data, which is JSON."""

    event: str
    data: bytes


class FramesBroken(ValueError):
    """The bytes are no frames of this kind: after those in `frames` no more can be found."""

    def __init__(self, message: str, frames: Sequence[Frame] = ()) -> None:
        super().__init__(message)
        self.frames = frames


class Frames(Protocol):
    """Splits bytes into frames, however they are cut into chunks."""

    telling: bytes
    """A chunk that begins so tells something that has its time, as the end of an answer."""
    lots: int
    """So many others may be fed together, as one."""

    def feed(self, chunk: bytes, *, skip: bool = False) -> Sequence[Frame]:
        """The frames that `chunk` completes; with `skip` those of `PLAIN_EVENTS` may be left out, which is faster.

        Raises `FramesBroken`; nothing may be fed any more then.
        """

    def unreadable(self, chunk: bytes) -> bool:
        """Whether a frame within `chunk` has data that is no JSON, as far as that can be seen of it alone."""


class NoFrames:
    """Of a body that is no stream of events at all, as a proxy's page."""

    telling = b""
    lots = 0

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type

    def feed(self, chunk: bytes, *, skip: bool = False) -> Sequence[Frame]:
        raise FramesBroken(f"a body of type {self._content_type or 'unknown'} is no stream of events")

    def unreadable(self, chunk: bytes) -> bool:
        return False
