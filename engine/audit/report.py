"""What an audit came to: its findings, what they mean for whoever heals, and what it cannot say."""

from collections.abc import Mapping

from pydantic import AwareDatetime, BaseModel, ConfigDict

from relight.engine.audit.models import Finding

Numbers = Mapping[str, tuple[tuple[int, int], ...]]
"""By publisher: ranges of numbers, first and last."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class DeclaredLoss(Part):
    """Numbers that somebody decided will not come: known, and no finding."""

    publisher: str
    first_pseq: int
    last_pseq: int
    decided_by: str
    reason: str


class TailInDoubt(Part):
    """A publisher that began and did not say that it ended: more of it may have been lost with its disk."""

    publisher: str
    last_pseq: int
    heard_at: AwareDatetime


class Checked(Part):
    """What was looked at. `healed_copies` and `repeated` (sent again by their publisher after long) are no findings,
    nor is a dead letter whose event stands there whole as a healed copy (`mended`)."""

    messages: int = 0
    events: int = 0
    publishers: int = 0
    last_seq: int = 0
    position_seq: int = 0
    archived_publishers: int = 0
    healed_copies: int = 0
    repeated: int = 0
    mended: int = 0


class Audit(Part):
    """Of stream, tables and archive. `missing`: numbers that do not stand on the stream, declared losses and
    trimmed numbers apart; `harmed`: those whose right bytes do not, the missing ones among them.

    What it cannot say: `unvouched_events` (nobody else holds their hash: the last of a publisher that no table knows,
    the neighbour of a changed one), `tails_in_doubt`, `absent_sequences` (at which the stream holds nothing, beside
    those that were trimmed), and whether the tables have read this very stream (`position_holds`).
    """

    findings: tuple[Finding, ...] = ()
    missing: Numbers = {}
    harmed: Numbers = {}
    declared_lost: tuple[DeclaredLoss, ...] = ()
    only_archived: Numbers = {}
    tails_in_doubt: tuple[TailInDoubt, ...] = ()
    unvouched_events: int = 0
    absent_sequences: int = 0
    position_holds: bool = True
    checked: Checked = Checked()

    @property
    def is_clean(self) -> bool:
        return not self.findings
