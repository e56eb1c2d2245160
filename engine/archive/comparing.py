"""Compares what stands on the stream with what was sealed, message by message, in one pass over both."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.timeline import sealed_messages, stretches
from relight.engine.errors import TrimRefused
from relight.engine.log.reader import Message, Reader
from relight.events.subjects import CONTROLS

READ_BATCH = 5_000

Advanced = Callable[[int, int], None]


@dataclass(slots=True)
class Compared:
    """What stands on the stream up to a sequence and may go: `below` says of each control subject with several
    messages there which is its last one, whatever was appended since."""

    observations: int = 0
    rulings: int = 0
    body_bytes: int = 0
    below: dict[str, int] = field(default_factory=dict)


async def compare(reader: Reader, archive: ArchiveReader, through: int, advanced: Advanced | None = None) -> Compared:
    """Raises `TrimRefused` for the first message that was not sealed as it stands; `ArchiveDamaged`."""
    found, sealed = Compared(), _Sealed(sealed_messages(archive, await stretches(archive), through_seq=through))
    last: dict[str, Message] = {}
    async for batch in reader.through(through, limit=READ_BATCH):
        for message in batch:
            beside = await sealed.at(message.seq)
            if beside is None or (beside.subject, beside.body) != (message.subject, message.body):
                raise TrimRefused(
                    f"message {message.seq} of the stream is not in archive {archive.store.place} as it stands:"
                    f" {'it was never sealed' if beside is None else 'other bytes were sealed'}. Nothing was trimmed;"
                    " `relight verify` says which of them is right"
                )
            goes: Message | None = message
            if message.subject.startswith(f"{CONTROLS}."):
                goes, last[message.subject] = last.get(message.subject), message
                if goes is not None:
                    found.rulings += 1
                    found.below[message.subject] = message.seq
            else:
                found.observations += 1
            found.body_bytes += len(goes.body) if goes else 0
        if advanced is not None and batch:
            advanced(batch[-1].seq, through)
    return found


class _Sealed:
    def __init__(self, segments: AsyncIterator[Sequence[Message]]) -> None:
        self._segments = segments
        self._at_hand: dict[int, Message] = {}
        self._through = 0

    async def at(self, seq: int) -> Message | None:
        """Asked in ascending order."""
        while seq > self._through:
            messages = await anext(self._segments, None)
            if messages is None:
                return None
            self._at_hand = {message.seq: message for message in messages}
            self._through = messages[-1].seq
        return self._at_hand.get(seq)
