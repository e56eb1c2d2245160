"""What an audit finds: every event that is not as its publisher recorded it, by publisher and number."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Kind(StrEnum):
    """What is wrong."""

    MISSING = "missing"
    """numbers that were used, with later ones of that publisher there"""
    TRUNCATED = "truncated"
    """numbers that were used, with none after them there: the tail is cut"""
    ALTERED = "altered"
    """other bytes than those that the next event, the tables' head or the archive vouches for"""
    INSERTED = "inserted"
    """what no publisher of ours wrote there"""
    REORDERED = "reordered"
    """after a higher number of its publisher, and no healed copy"""
    FORKED = "forked"
    """two events of one number"""
    DAMAGED = "damaged"
    """a part of the archive that cannot be read, or is not as it was signed"""


class Finding(BaseModel):
    """One run of numbers `first_pseq`..`last_pseq` of a publisher, or what has no readable number.

    `seq`: where it stands on the stream, if it does; `segment`: in which one of the archive.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    where: Literal["stream", "archive", "tables"]
    publisher: str | None = None
    first_pseq: int | None = None
    last_pseq: int | None = None
    seq: int | None = None
    segment: int | None = None
    detail: str = ""

    @property
    def events(self) -> int:
        """How many numbers; 1 where there is none to read."""
        if self.first_pseq is None or self.last_pseq is None:
            return 1
        return self.last_pseq - self.first_pseq + 1
