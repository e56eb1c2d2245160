"""The losses that are known, kept in PostgreSQL: since when, how often they were asked for, and whether in vain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from relight.engine.log.numbers import Missing, Numbers
from relight.engine.tables.connecting import Connection

ASKED_IN_VAIN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A run of one publisher's numbers that does not stand on the stream."""

    publisher: str
    first_pseq: int
    last_pseq: int
    noticed_at: datetime
    asked: int = 0
    from_archive: bool = False
    lost: bool = False

    @property
    def events(self) -> int:
        return self.last_pseq - self.first_pseq + 1


def missing_of(losses: Iterable[Loss]) -> dict[str, Numbers]:
    runs: dict[str, list[tuple[int, int]]] = {}
    for loss in losses:
        runs.setdefault(loss.publisher, []).append((loss.first_pseq, loss.last_pseq))
    return {publisher: Numbers(found) for publisher, found in runs.items()}


def of_those(losses: Iterable[Loss], missing: Missing) -> list[Loss]:
    """What of these losses is among the missing."""
    return [
        replace(loss, first_pseq=first, last_pseq=last)
        for loss in losses
        for first, last in Numbers([(loss.first_pseq, loss.last_pseq)]).within(missing.get(loss.publisher, Numbers()))
    ]


def noticed(losses: Sequence[Loss], missing: Missing, now: datetime) -> list[Loss]:
    """What is missing: those that were known, as they were, and new ones."""
    known = missing_of(losses)
    return of_those(losses, missing) + [
        Loss(publisher=publisher, first_pseq=first, last_pseq=last, noticed_at=now)
        for publisher, numbers in missing.items()
        for first, last in numbers.minus(known.get(publisher, Numbers()))
    ]


def asked(losses: Iterable[Loss], now: datetime, *, everywhere: bool, lost_after: timedelta) -> list[Loss]:
    """They were asked for once more, in vain; `everywhere`: in all places that there are."""
    return [
        replace(
            loss,
            asked=loss.asked + 1,
            from_archive=False,
            lost=loss.lost or (everywhere and loss.asked + 1 >= ASKED_IN_VAIN and now - loss.noticed_at >= lost_after),
        )
        for loss in losses
    ]


async def load_losses(connection: Connection) -> list[Loss]:
    rows = await connection.fetch("SELECT * FROM stream_losses ORDER BY publisher, first_pseq")
    return [Loss(**dict(row)) for row in rows]


async def keep_losses(connection: Connection, losses: Sequence[Loss]) -> None:
    """These and no others."""
    async with connection.transaction():
        await connection.execute("DELETE FROM stream_losses")
        await connection.executemany(
            "INSERT INTO stream_losses VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                (
                    loss.publisher,
                    loss.first_pseq,
                    loss.last_pseq,
                    loss.noticed_at,
                    loss.asked,
                    loss.from_archive,
                    loss.lost,
                )
                for loss in losses
            ],
        )
