"""Checks an archive by itself: root, keys, manifests, files, every event, and every publisher's chain."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from relight.engine.archive.models import KEYS, ROOT, SEGMENTS, Manifest, manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.salvage import salvage_archive, salvage_segment
from relight.engine.archive.store import ArchiveStore
from relight.engine.archive.walking import Step, walk_manifests
from relight.engine.audit.archive_files import check_contents, check_witnesses
from relight.engine.audit.models import Finding, Kind
from relight.engine.audit.sealed import Judged
from relight.engine.audit.sealed_chains import Chains, Place
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.links import Link
from relight.engine.log.reader import Message

Advanced = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A segment that somebody saw sealed: it has to be there, and be this one."""

    segment: int
    manifest_sha256: str
    said_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of an archive from elsewhere; nothing by default.

    `trust`: id of the key that has to be the archive's first, or of one that sealed since. `archive`: its identity, by
    the `archives` table. `heads`: from that table, and what witnesses keep at home. `publishers`: a number and that
    event's SHA-256 of each, from `sealed_heads`.
    """

    trust: str | None = None
    archive: str | None = None
    heads: Sequence[KnownHead] = ()
    publishers: Mapping[str, tuple[int, str]] = field(default_factory=dict)


class Checked(BaseModel):
    """What was looked at, and what was found: nothing of `findings` is as it should be.

    `events` counts messages that are as they were sealed; of them `healed` were published again under a fresh id,
    `repeated` are of a number seen before, `replaced` are of an incarnation of the stream that was rewound.
    `unsealed`: numbers of which there are files without a manifest, beyond the last: an archiver is at work, or was
    interrupted, or the manifest was taken away. `unchecked`: repeated numbers that were too many to compare.
    """

    model_config = ConfigDict(frozen=True)

    place: str
    archive: str | None = None
    keys: list[str] = []
    segments: int = 0
    last_segment: int = 0
    events: int = 0
    publishers: int = 0
    healed: int = 0
    repeated: int = 0
    replaced: int = 0
    unchecked: int = 0
    contents: int = 0
    witnessed_segment: int | None = None
    unsealed: list[int] = []
    findings: list[Finding] = []


NOTHING_KNOWN = Known()


async def check_archive(
    store: ArchiveStore,
    *,
    known: Known = NOTHING_KNOWN,
    contents: bool = True,
    advanced: Advanced = lambda done, of: None,
) -> Checked:
    """Everything in it, one segment in memory at a time; `advanced` is told of segments done, and in all.

    One damaged file never stops the rest. Raises `ArchiveUnreachable`, and `ArchiveDamaged` where there is no archive.
    """
    findings: list[Finding] = []
    try:
        reader = await ArchiveReader.open_damaged(store)
    except ArchiveDamaged as error:
        if not await store.has(ROOT) and not await store.names(KEYS):
            raise
        return Checked(place=store.place, findings=[_damaged(str(error))])
    findings += [_damaged(f"{fault.name}: {fault.detail}") for fault in reader.faults]
    if known.archive is not None and known.archive != reader.root.archive:
        findings.append(
            _damaged(f"this is archive {reader.root.archive}, not {known.archive}: it was put in its place")
        )
    check = _Check(reader, known, findings, advanced)
    witnessed = await check_witnesses(reader, findings.append)
    for statement in witnessed:
        said_by = f"witness {statement.witness} in region {statement.region}"
        check.expect(KnownHead(segment=statement.segment, manifest_sha256=statement.manifest_sha256, said_by=said_by))
    await check.segments()
    found = check.judged
    return Checked(
        place=store.place,
        archive=reader.root.archive,
        keys=[statement.key for statement in reader.keyring.keys],
        segments=check.there,
        last_segment=check.last,
        events=found.events,
        publishers=len(found.chains),
        healed=found.healed,
        repeated=found.chains.repeats + found.chains.copies,
        replaced=found.replaced,
        unchecked=found.chains.unchecked,
        contents=await check_contents(store, findings.append) if contents else 0,
        witnessed_segment=max((statement.segment for statement in witnessed), default=None),
        unsealed=await _unsealed(store, check.last),
        findings=findings,
    )


class _Check:
    def __init__(self, reader: ArchiveReader, known: Known, findings: list[Finding], advanced: Advanced) -> None:
        self._reader = reader
        self._known = known
        self._findings = findings
        self._advanced = advanced
        self._heads: defaultdict[int, list[KnownHead]] = defaultdict(list)
        for head in known.heads:
            self.expect(head)
        self._sealed_by = {reader.root.key}
        self.there = 0
        self.last = 0
        self.judged = Judged(findings.append, {}, Chains(findings.append))

    def expect(self, head: KnownHead) -> None:
        self._heads[head.segment].append(head)

    async def segments(self) -> None:
        of = len(await self._reader.segments())
        self.judged.ends = await _ends(self._reader)
        async for part in salvage_archive(self._reader):
            self._compare_head(part.step)
            self.judged.judge(part)
            if part.step.is_there:
                self.there += 1
                self.last = part.step.last
            if part.step.vouched and part.step.manifest is not None:
                self._sealed_by.add(part.step.manifest.key)
            self._advanced(self.there, max(of, self.there))
        for segment, heads in sorted(self._heads.items()):
            if segment > self.last:
                self._tell_cut(segment, heads[0])
        if self._known.trust is not None and self._known.trust not in self._sealed_by:
            self._findings.append(
                _damaged(
                    f"key {self._known.trust}, which is to be trusted, sealed nothing here, and the first key is"
                    f" {self._reader.root.key}: this is another archive, or it was rewritten"
                )
            )
        await self._compare_again()
        self.judged.chains.end(known=self._known.publishers, elsewhere=self.judged.elsewhere, lost=self.judged.lost)

    def _compare_head(self, step: Step) -> None:
        for head in self._heads.get(step.segment, ()):
            if step.sha256 is not None and step.sha256 != head.manifest_sha256:
                detail = (
                    f"{head.said_by} saw another segment {step.segment}: the archive was rewritten from here or before"
                )
                self._findings.append(Finding(kind=Kind.ALTERED, where="archive", segment=step.segment, detail=detail))

    def _tell_cut(self, segment: int, head: KnownHead) -> None:
        detail = (
            f"{head.said_by} saw segment {segment}, and the last one here is {self.last}: the archive was cut short"
        )
        self._findings.append(Finding(kind=Kind.TRUNCATED, where="archive", segment=self.last + 1, detail=detail))

    async def _compare_again(self) -> None:
        """Numbers that came once more long after the first time: whether they are the same event."""
        again = dict(self.judged.chains.again)
        if not again:
            return
        async for step in walk_manifests(self._reader):
            if step.manifest is not None and not _may_hold(step.manifest, again):
                continue
            for message, link in self.judged.standing(await salvage_segment(self._reader, step)):
                for sha256, place in again.pop((link.publisher, link.pseq), {}).items():
                    if sha256 != link.sha256:
                        self._tell_fork(link, message, place)

    def _tell_fork(self, link: Link, message: Message, place: Place) -> None:
        self._findings.append(
            Finding(
                kind=Kind.FORKED,
                where="archive",
                publisher=link.publisher,
                first_pseq=link.pseq,
                last_pseq=link.pseq,
                seq=place.seq,
                segment=place.segment,
                detail=f"another event of this number stands at sequence {message.seq}",
            )
        )


def _may_hold(manifest: Manifest, numbers: Iterable[tuple[str, int]]) -> bool:
    spans = {span.publisher: span for span in manifest.spans}
    return any(
        publisher in spans and spans[publisher].first_pseq <= pseq <= spans[publisher].last_pseq
        for publisher, pseq in numbers
    )


async def _ends(reader: ArchiveReader) -> dict[int, int]:
    """Of each incarnation that was rewound: the sequence from which a later one replaced it."""
    try:
        head = await reader.head()
    except ArchiveDamaged:
        head = None
    if head is not None and head.incarnation == 1:
        return {}
    begins: dict[int, int] = {}
    async for step in walk_manifests(reader):
        if step.vouched and step.manifest is not None:
            incarnation, first_seq = step.manifest.incarnation, step.manifest.first_seq
            begins[incarnation] = min(first_seq, begins.get(incarnation, first_seq))
    return {one: min(seq for other, seq in begins.items() if other > one) for one in begins if one != max(begins)}


async def _unsealed(store: ArchiveStore, last: int) -> list[int]:
    names = await store.names(SEGMENTS, after=manifest_name(last) if last else "")
    numbers = {name.removeprefix(SEGMENTS).partition("-")[0] for name in names if not name.endswith(".json")}
    return sorted(int(number) for number in numbers if number.isdecimal() and int(number) > last)


def _damaged(detail: str) -> Finding:
    return Finding(kind=Kind.DAMAGED, where="archive", detail=detail)
