"""Which sequences of the stream were gone before they could be sealed."""

from collections.abc import Sequence

NAMED = 1_000
"""So many ranges are told one by one; the count goes on."""


class Coverage:
    """Takes the sequences of each segment; what lies below the highest one ever sealed is sealed already."""

    def __init__(
        self, highest_seq: int = 0, missing: Sequence[tuple[int, int]] = (), missing_messages: int = 0
    ) -> None:
        self.highest_seq = highest_seq
        self.missing = list(missing)
        self.missing_messages = missing_messages

    def add(self, seqs: Sequence[int]) -> list[tuple[int, int]]:
        """The ranges that are found to be missing now, each from its first to its last sequence."""
        if seqs[0] == self.highest_seq + 1 and seqs[-1] - seqs[0] == len(seqs) - 1:
            self.highest_seq = seqs[-1]
            return []
        found = []
        for seq in seqs:
            if seq > self.highest_seq:
                if seq > self.highest_seq + 1:
                    found.append((self.highest_seq + 1, seq - 1))
                self.highest_seq = seq
        self.missing += found[: NAMED - len(self.missing)]
        self.missing_messages += sum(last - first + 1 for first, last in found)
        return found


def named(ranges: Sequence[tuple[int, int]], *, most: int = 5) -> str:
    """Ranges as people read them: `12, 40-52 and 3 more`."""
    said = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    return ", ".join(said) + (f" and {len(ranges) - most} more" if len(ranges) > most else "")
