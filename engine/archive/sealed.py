"""What follows from an archive's segments up to its head: chains, sequences, size."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from relight.engine.archive.chains import SealedChains, SealedHead
from relight.engine.archive.coverage import Coverage
from relight.engine.archive.look import ArchiverLook
from relight.engine.archive.models import Manifest
from relight.engine.archive.segment import Head
from relight.engine.log.links import Link


@dataclass(slots=True, kw_only=True)
class Sealed:
    """`unread` are segments that could not be read: what they hold is not counted as sealed."""

    head: Head
    sealed_at: datetime | None = None
    key: str = ""
    messages: int = 0
    size_bytes: int = 0
    chains: SealedChains = field(default_factory=SealedChains)
    coverage: Coverage = field(default_factory=Coverage)
    unread: set[int] = field(default_factory=set)

    def take(
        self, manifest: Manifest, head: Head, seqs: Sequence[int], links: Sequence[Link]
    ) -> tuple[dict[str, SealedHead], list[tuple[int, int]]]:
        """The segment after the head; gives the heads that moved and the sequences that are missing before it."""
        self.head, self.sealed_at, self.key = head, manifest.sealed_at, manifest.key
        self.messages += manifest.messages
        self.size_bytes += manifest.messages_file.size_bytes + manifest.index_file.size_bytes
        return self.chains.add(links), self.coverage.add(seqs)

    def told(self, look: ArchiverLook) -> ArchiverLook:
        """The same with what is known of the archive."""
        return replace(
            look,
            archive=self.head.archive,
            key=self.key or None,
            segment=self.head.segment,
            incarnation=self.head.incarnation,
            sealed_seq=self.head.last_seq,
            sealed_at=self.sealed_at,
            messages=self.messages,
            size_bytes=self.size_bytes,
            missing_messages=self.coverage.missing_messages,
            missing=tuple(self.coverage.missing),
            holes=self.chains.holes,
            forks=self.chains.forks,
            unread=tuple(sorted(self.unread)),
        )
