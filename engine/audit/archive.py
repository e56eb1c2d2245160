"""Checks an archive by itself: root, keys, manifests, files, every event, and every publisher's chain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from relight.engine.archive.store import ArchiveStore
from relight.engine.audit.models import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A segment that somebody saw sealed: it has to be there, and be this one."""

    segment: int
    manifest_sha256: str
    said_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of an archive from elsewhere; nothing by default.

    `trust`: id of a key that has to be the archive's first, or one that sealed since. `archive`: its identity, from
    the `archives` table. `heads`: from that table, and what witnesses saw. `publishers`: highest number and that
    event's SHA-256, from `sealed_heads`. `witnesses`: ids of witnesses' keys whose statements have to hold.
    """

    trust: str | None = None
    archive: str | None = None
    heads: Sequence[KnownHead] = ()
    publishers: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    witnesses: Sequence[str] = ()


class Checked(BaseModel):
    """What was looked at, and what was found: nothing of `findings` is as it should be."""

    model_config = ConfigDict(frozen=True)

    place: str
    archive: str | None
    segments: int
    events: int
    publishers: int
    findings: list[Finding]


NOTHING_KNOWN = Known()


async def check_archive(
    store: ArchiveStore,
    *,
    known: Known = NOTHING_KNOWN,
    contents: bool = True,
    advanced: Callable[[int, int], None] = lambda done, of: None,
) -> Checked:
    """Everything in it, one segment at a time; `advanced` is told of segments done and segments in all.

    One damaged file never stops the rest: only a store that does not answer does (`ArchiveUnreachable`).
    """
    raise NotImplementedError
