"""What an archive's manifests say of the stream that it holds, before any message is read."""

from dataclasses import dataclass

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.walking import walk_manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Of the segments that can be believed; `turns`: each incarnation, and the first sequence that it holds."""

    segments: int
    messages: int
    all_vouched: bool
    turns: tuple[tuple[int, int], ...]

    def through_seq(self, incarnation: int) -> int:
        """Up to where that incarnation's messages stand: what a later one begins with has replaced the rest."""
        return min((first for other, first in self.turns if other > incarnation), default=1 << 62) - 1

    @property
    def was_rewound(self) -> bool:
        return len(self.turns) > 1


async def survey(reader: ArchiveReader) -> Survey:
    """Raises `ArchiveUnreachable`."""
    segments = messages = 0
    all_vouched = True
    turns: dict[int, int] = {}
    async for step in walk_manifests(reader):
        manifest = step.manifest
        if not step.vouched or manifest is None:
            all_vouched = False
            continue
        segments, messages = segments + 1, messages + manifest.messages
        incarnation = manifest.incarnation
        turns[incarnation] = min(turns.get(incarnation, manifest.first_seq), manifest.first_seq)
    return Survey(
        segments=segments,
        messages=messages,
        all_vouched=all_vouched,
        turns=tuple(sorted(turns.items())),
    )
