"""Hashes and heads: what has been seen of each publisher, and where numbers are missing."""

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field

from relight.events.envelope import GENESIS

MAX_PSEQ = 1 << 62


def body_sha256(body: bytes) -> str:
    """What the publisher's next event says in `prev`."""
    return hashlib.sha256(body).hexdigest()


def message_sha256(subject: str, body: bytes) -> str:
    """Identifies a message where it stands on the stream."""
    return hashlib.sha256(b"%b\x00%b" % (subject.encode(), body)).hexdigest()


@dataclass(slots=True)
class PublisherHead:
    """What has been seen of one publisher: its highest number, the numbers missing below it, broken links."""

    highest_pseq: int = 0
    highest_sha256: str = GENESIS
    missing: list[tuple[int, int]] = field(default_factory=list)
    session: str = "unknown"
    refused_events: int = 0
    broken_links: int = 0

    @property
    def contiguous_pseq(self) -> int:
        """Every number up to it has been seen."""
        return self.missing[0][0] - 1 if self.missing else self.highest_pseq

    def see(self, pseq: int, prev: str, sha256: str) -> bool:
        """Takes note of an event; in any order, and any number of times. Whether it is seen for the first time."""
        if pseq > self.highest_pseq:
            if pseq > self.highest_pseq + 1:
                self.missing.append((self.highest_pseq + 1, pseq - 1))
            elif prev != self.highest_sha256:
                self.broken_links += 1
            self.highest_pseq, self.highest_sha256 = pseq, sha256
            return True
        i = bisect_right(self.missing, (pseq, MAX_PSEQ)) - 1
        if i < 0 or self.missing[i][1] < pseq:
            return False
        first, last = self.missing[i]
        self.missing[i : i + 1] = [(a, b) for a, b in ((first, pseq - 1), (pseq + 1, last)) if a <= b]
        return True
