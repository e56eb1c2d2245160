"""A receipt as text for whoever reads it at night: counts first, then what to do, then ids."""

from collections.abc import Iterable, Iterator, Sequence

from relight.engine.log.numbers import Numbers
from relight.engine.regions.receipts.models import Closing, Named, PublisherReceipt, Receipt, Runs


def lines(receipt: Receipt, closing: Closing | None) -> Iterator[str]:
    """Of the receipt, and of how it was closed where it is."""
    yield f"failover {receipt.failover}: {receipt.source_region} to {receipt.target_region}"
    yield f"receipt of {receipt.made_at:%Y-%m-%d %H:%M:%S}Z, of the stream up to {receipt.through_seq}"
    yield ""
    yield from _counts(receipt)
    yield ""
    if closing is not None:
        yield from _closed(closing)
    elif receipt.open:
        yield (
            f"It is open: it closes by itself when {receipt.source_region} returns and its spools are drained."
            f" Where that will not happen: relight failover gone {receipt.source_region} --by NAME --reason WHY"
        )
    else:
        yield "Nothing is missing."
    for part in receipt.publishers:
        yield ""
        yield from _publisher(part)


def _counts(receipt: Receipt) -> Iterator[str]:
    parts = receipt.publishers
    waiting = sum(len(one.waiting_ids) + one.waiting for one in parts)
    open_ended = sum(one.open_from is not None for one in parts)
    in_doubt = _sum(one.in_doubt for one in parts) + waiting
    yield f"publishers  {len(parts)}"
    yield f"confirmed   {_sum(one.confirmed for one in parts)} events"
    yield f"absent      {_sum(one.absent for one in parts)} events (in a spool of the lost region)"
    yield f"in doubt    {in_doubt} events (in memory when last heard of, or not looked for)"
    yield f"open ended  {open_ended} publishers (what they recorded after their last announcement nobody knows)"
    if not receipt.complete:
        yield "The stream could not be read to its end in time: what was not found is in doubt, not absent."
    if receipt.forgotten:
        yield f"{receipt.forgotten} publishers were announced and are not remembered: of them only the stream tells."


def _closed(closing: Closing) -> Iterator[str]:
    by = f" by {closing.declared_by}" if closing.declared_by else ""
    how = f"{closing.source_region} was declared gone{by}" if closing.how == "gone" else "returned"
    yield f"closed      {closing.closed_at:%Y-%m-%d %H:%M:%S}Z, {how}: {closing.reason}"
    yield f"recovered   {closing.recovered_events} events"
    yield f"lost        {closing.lost_events} events"
    yield f"in doubt    {closing.in_doubt_events} events"
    for one in closing.publishers:
        yield ""
        yield f"{one.publisher}: {one.why}"
        yield from _listed("recovered", one.recovered, one.recovered_ids)
        yield from _listed("lost", one.lost, one.lost_ids)
        yield from _listed("in doubt", one.in_doubt, one.in_doubt_ids)
        if one.open_from is not None:
            yield f"  from number {one.open_from} on nobody knows how many there were"


def _publisher(part: PublisherReceipt) -> Iterator[str]:
    kept = "a spool" if part.durable else "memory only"
    heard = f"last heard {part.announced_at:%H:%M:%S.%f}Z" if part.announced_at is not None else "never heard"
    yield f"{part.publisher} ({kept}, {heard})"
    yield f"  confirmed: {Numbers(part.confirmed) or 'none'}"
    if part.last_id is not None:
        yield f"    the last is {part.last_id}, sha256 {part.last_sha256}"
    yield from _ids(part.confirmed_ids)
    yield from _listed("absent", part.absent, part.absent_ids)
    yield from _listed("in doubt", part.in_doubt, part.in_doubt_ids)
    if part.waiting_ids or part.waiting:
        yield f"  in doubt, without a number: {len(part.waiting_ids) + part.waiting}"
        yield from _ids([(0, id) for id in part.waiting_ids])
    yield "  it ended in order" if part.open_from is None else f"  from number {part.open_from} on nobody knows"


def _listed(name: str, numbers: Runs, ids: Sequence[Named]) -> Iterator[str]:
    if numbers or ids:
        yield f"  {name}: {Numbers(numbers) if numbers else 'without numbers'}"
        yield from _ids(ids)


def _ids(ids: Sequence[Named]) -> Iterator[str]:
    for pseq, id in ids:
        yield f"    {pseq or '-':>8}  {id}"


def _sum(runs: Iterable[Runs]) -> int:
    return sum(Numbers(one).count for one in runs)
