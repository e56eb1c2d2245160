"""Everybody beside the stream who knows of events on it: tables, archives, spools; and where they contradict."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relight.engine.audit.archived import Archived
from relight.engine.audit.judging import Circumstances, Expected
from relight.engine.audit.known import Allowed, TablesKnow
from relight.engine.audit.models import Finding, Kind
from relight.engine.log.numbers import Ranges, merged

TABLES, SPOOL = "the table publisher_heads", "a spool of this machine"


@dataclass(slots=True)
class Holders:
    """`vouched`: hashes by publisher and number, and who holds them. `expected`: the highest number anybody knows of,
    by publisher. `folded`: the highest that the tables or an archive know of. `contradictions`: two hashes of one."""

    vouched: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)
    expected: dict[str, Expected] = field(default_factory=dict)
    folded: dict[str, int] = field(default_factory=dict)
    contradictions: list[Finding] = field(default_factory=list)

    def add(self, holder: str, publisher: str, pseq: int, sha256: str) -> None:
        known = self.vouched.setdefault(publisher, {}).setdefault(pseq, (sha256, holder))
        if known[0] != sha256:
            self.contradictions.append(
                Finding(
                    kind=Kind.ALTERED,
                    where="tables" if TABLES in (holder, known[1]) else "archive",
                    publisher=publisher,
                    first_pseq=pseq,
                    last_pseq=pseq,
                    detail=f"{known[1]} and {holder} hold different hashes of it",
                )
            )
        if pseq >= (highest := self.expected.get(publisher, Expected(0, "", ""))).highest:
            self.expected[publisher] = highest if highest.highest == pseq else Expected(pseq, sha256, holder)
        if holder != SPOOL:
            self.folded[publisher] = max(pseq, self.folded.get(publisher, 0))

    def circumstances(self, allowed: Allowed, archived: Archived, *, passed: bool) -> Circumstances:
        """`passed`: the tables' position stands on the stream."""
        sealed: dict[str, Ranges] = dict(allowed.sealed_numbers)
        for publisher, ranges in archived.numbers.items():
            sealed[publisher] = merged((*sealed.get(publisher, []), *ranges))
        return Circumstances(
            expected=self.expected,
            passed=self.folded if passed else None,
            lost=allowed.lost,
            sealed=sealed,
            trimmed_seq=allowed.trimmed_seq,
        )


def holders_of(tables: TablesKnow, archived: Archived, spools: Mapping[str, tuple[int, str]]) -> Holders:
    """The tables are the first to be believed: they read an event when it was new."""
    holders = Holders()
    for publisher, head in tables.heads.items():
        holders.add(TABLES, publisher, head.pseq, head.sha256)
    for publisher, sealed in tables.sealed:
        holders.add(f"archive {sealed.archive}", publisher, sealed.pseq, sealed.sha256)
    for publisher, hashes in archived.hashes.items():
        for pseq, sha256 in hashes.items():
            holders.add(f"archive {archived.archive}", publisher, pseq, sha256)
    for publisher, (pseq, sha256) in spools.items():
        holders.add(SPOOL, publisher, pseq, sha256)
    return holders
