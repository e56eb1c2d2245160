"""What an archive holds, and how far it is behind the stream."""

from datetime import datetime
from typing import Self

from nats.aio.client import Client
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from relight.engine.archive.sealed import Sealed
from relight.engine.archive.segment import Head
from relight.engine.errors import Unreachable
from relight.engine.log.reader import BEGINNING, TRANSIENT, Anchor, Reader
from relight.engine.log.topology import STREAM


class OnStream(BaseModel):
    """`agrees`: what stands at the last sealed sequence is what was sealed there; else the stream was put back."""

    last_seq: int
    lag_events: int
    lag_s: float
    agrees: bool


class ArchiveStatus(BaseModel):
    """`missing`: sequences, first and last, that were gone before they were sealed; `broken_chains`: publishers of
    whom something is sealed above a hole; `stream`: null where no server is known."""

    archive: str
    place: str
    key: str | None
    segments: int
    incarnation: int
    sealed_seq: int
    sealed_at: datetime | None
    events: int
    size_bytes: int
    publishers: int
    broken_chains: int
    forks: int
    missing_messages: int
    missing: tuple[tuple[int, int], ...]
    unread_segments: tuple[int, ...]
    stream: OnStream | None

    @classmethod
    def of(cls, sealed: Sealed, *, place: str, stream: OnStream | None) -> Self:
        return cls(
            archive=sealed.head.archive,
            place=place,
            key=sealed.key or None,
            segments=sealed.head.segment,
            incarnation=sealed.head.incarnation,
            sealed_seq=sealed.head.last_seq,
            sealed_at=sealed.sealed_at,
            events=sealed.messages,
            size_bytes=sealed.size_bytes,
            publishers=len(sealed.chains.heads),
            broken_chains=sealed.chains.holes,
            forks=sealed.chains.forks,
            missing_messages=sealed.coverage.missing_messages,
            missing=tuple(sealed.coverage.missing),
            unread_segments=tuple(sorted(sealed.unread)),
            stream=stream,
        )


async def stream_beyond(client: Client, head: Head, *, now: datetime) -> OnStream:
    """Raises `Unreachable`."""
    js = client.jetstream(timeout=5)
    try:
        reader = Reader(client, BEGINNING)
        state = await reader.state()
        agrees = await reader.holds(Anchor(head.last_seq, head.last_sha256))
        lag_s = 0.0
        try:
            first = await js.get_msg(STREAM, head.last_seq + 1, subject=">", next=True)
            lag_s = 0.0 if first.time is None else max(0.0, (now - first.time).total_seconds())
        except NotFoundError:
            pass
    except (*TRANSIENT, NotFoundError) as error:
        raise Unreachable(f"stream {STREAM} cannot be read ({error!r}): is NATS up?") from error
    return OnStream(
        last_seq=state.last_seq, lag_events=max(0, state.last_seq - head.last_seq), lag_s=lag_s, agrees=agrees
    )
