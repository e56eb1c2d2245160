"""Names exactly what was changed where an archive holds the events: what the chain alone narrows down at best."""

from collections.abc import Iterable, Mapping

from relight.engine.audit.archived import Hashes
from relight.engine.audit.chain import Chain
from relight.engine.audit.copies import Seen
from relight.engine.audit.runs import ONE_OF_TWO, OTHER_BYTES, Changed
from relight.engine.log.numbers import Ranges, merged

MAX_COMPARED = 200_000
"""Numbers of one publisher below one of which somebody holds another hash: the first that differs is among them."""
NOT_AS_SEALED = f"{OTHER_BYTES}the archive holds"


def doubtful(chains: Iterable[Chain]) -> dict[str, Ranges]:
    """Numbers that are to be compared: what is not right, its neighbours, and all below back to the last that is."""
    found = {}
    for chain in chains:
        changed, vouched = chain.verdicts.changed, chain.verdicts.vouched
        ranges = [(max(1, number - 1), number + 1) for number in changed]
        for number in changed:
            if number in vouched:
                sound = max((n for n in vouched if n < number and n not in changed), default=0)
                ranges.append((max(sound + 1, number - MAX_COMPARED), number))
        if ranges:
            found[chain.publisher] = merged(ranges)
    return found


def refine(chain: Chain, asked: Ranges, archived: Hashes, seen: Mapping[tuple[str, int], list[Seen]]) -> None:
    """Of what differs from the archive this is said; and where one of two was changed, it is told which."""
    changed = chain.verdicts.changed
    compared = _compared(chain.publisher, asked, archived, seen)
    for number, (seq, right) in compared.items():
        event = changed.get(number)
        if right is None:
            if event is not None and event.or_before and compared.get(number - 1, (0, None))[1] is not None:
                del changed[number]
        elif event is None:
            changed[number] = Changed(seq, NOT_AS_SEALED, right)
        else:
            event.right, event.or_before = event.right or right, False
            if event.why == ONE_OF_TWO or event.why.startswith(OTHER_BYTES):
                event.seq, event.why = seq, NOT_AS_SEALED


def _compared(
    publisher: str, asked: Ranges, archived: Hashes, seen: Mapping[tuple[str, int], list[Seen]]
) -> dict[int, tuple[int, str | None]]:
    """Of each number that both have: where it stands, and the archive's hash where that is another."""
    found: dict[int, tuple[int, str | None]] = {}
    for first, last in asked:
        for number in range(first, last + 1):
            hashes, there = archived.get((publisher, number)), seen.get((publisher, number))
            if hashes and there:
                found[number] = (there[0].seq, None if there[0].sha256 in hashes else min(hashes))
    return found
