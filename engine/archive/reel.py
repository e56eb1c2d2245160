"""An archive as one stream: every message in the order of its sequence, and what an earlier incarnation alone holds."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from hashlib import sha256

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.reel_survey import Survey
from relight.engine.archive.salvage import Harmed, Salvaged, salvage_archive, salvage_segment
from relight.engine.archive.walking import walk_manifests
from relight.engine.audit.models import Finding, Kind
from relight.engine.log.links import document_of, link_of
from relight.engine.log.reader import Message
from relight.events.subjects import CONTROLS

_HEALED = re.compile(r"(.+)#h(\d+)")
COPIES_AT_ONCE = 1_000


class Reel:
    """Of one archive. `messages` is run to its end, then `copies`; `findings` names what cannot be had.

    Where the stream was rewound once, sequences of the later incarnation stand, and events that only the earlier one
    holds follow at the end, as healed copies.
    """

    def __init__(self, reader: ArchiveReader, survey: Survey) -> None:
        self.survey = survey
        self.findings: list[Finding] = []
        self.last_seq = 0
        self._reader = reader
        self._replaced: set[bytes] = set()
        self._tails: dict[str, Message | None] = {}
        """Of the subjects of rulings that were replaced: the last one that stands."""

    async def messages(self) -> AsyncIterator[list[Message]]:
        """Segment by segment, in ascending sequence; what cannot be had leaves holes."""
        self.findings = [_damaged(f"{fault.name}: {fault.detail}") for fault in self._reader.faults]
        self.last_seq = 0
        await self._find_replaced()
        placing = _Placing(self.survey)
        async for salvaged in salvage_archive(self._reader):
            self.findings += _findings(salvaged)
            standing = [message for message in placing.told_apart(salvaged)[0] if self._fits(message, salvaged)]
            self._note(standing)
            if standing:
                yield standing

    async def copies(self) -> AsyncIterator[list[Message]]:
        """What stands nowhere any more, under fresh message ids and sequences behind all others; and behind old rulings
        the one that was the last of its subject: compare-and-set and every watcher rest on that."""
        seq = self.last_seq
        links: dict[str, list[Message]] = {}
        async for lost in self._lost():
            for message in lost:
                if message.subject in self._tails:
                    links.setdefault(message.subject, []).append(message)
            copies = [_copy(message, seq + number) for number, message in enumerate(lost, 1)]
            seq += len(copies)
            yield copies
        tails = [
            tail
            for subject, lost in links.items()
            if (tail := self._tails[subject]) is not None and not _goes_on(tail, lost)
        ]
        for first in range(0, len(tails), COPIES_AT_ONCE):
            part = tails[first : first + COPIES_AT_ONCE]
            yield [_copy(message, seq + first + number) for number, message in enumerate(part, 1)]

    async def _find_replaced(self) -> None:
        self._replaced, self._tails = set(), {}
        async for replaced in self._told_replaced():
            for message in replaced:
                self._replaced.add(_identity(message))
                if message.subject.startswith(f"{CONTROLS}."):
                    self._tails[message.subject] = None

    async def _lost(self) -> AsyncIterator[list[Message]]:
        """What was replaced and stands nowhere else, each once."""
        if not self._replaced:
            return
        async for replaced in self._told_replaced():
            lost = []
            for message in replaced:
                if (identity := _identity(message)) in self._replaced:
                    self._replaced.discard(identity)
                    lost.append(message)
            if lost:
                yield lost

    async def _told_replaced(self) -> AsyncIterator[list[Message]]:
        """Reads only segments of which a part was replaced, unless there are some that nobody vouches for."""
        if not self.survey.was_rewound:
            return
        placing = _Placing(self.survey)
        if not self.survey.all_vouched:
            async for salvaged in salvage_archive(self._reader):
                yield placing.told_apart(salvaged)[1]
            return
        async for step in walk_manifests(self._reader):
            manifest = step.manifest
            if manifest is None or manifest.last_seq > self.survey.through_seq(manifest.incarnation):
                yield placing.told_apart(await salvage_segment(self._reader, step))[1]

    def _note(self, standing: Iterable[Message]) -> None:
        if not self._replaced:
            return
        for message in standing:
            self._replaced.discard(_identity(message))
            if message.subject in self._tails:
                self._tails[message.subject] = message

    def _fits(self, message: Message, salvaged: Salvaged) -> bool:
        fault = None
        if message.seq <= self.last_seq:
            fault = f"sequence {message.seq} is taken"
        elif not f"{message.subject}{message.message_id}".isprintable():
            fault = "its subject or message id is no text"
        if fault is None:
            self.last_seq = message.seq
            return True
        link = link_of(message)
        harmed = Harmed(seq=message.seq, publisher=link and link.publisher, pseq=link and link.pseq)
        self.findings.append(_harm(harmed, salvaged.step.segment, f"cannot be put back: {fault}"))
        return False


class _Placing:
    """Tells what of each segment stands from what a later incarnation has replaced; segments in order."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._incarnation = 1

    def told_apart(self, salvaged: Salvaged) -> tuple[list[Message], list[Message]]:
        manifest = salvaged.step.manifest
        if salvaged.step.vouched and manifest is not None:
            self._incarnation = manifest.incarnation
        # One that nobody vouches for is taken to go on where the one before ended.
        through_seq = self._survey.through_seq(self._incarnation)
        messages = salvaged.messages
        return (
            [message for message in messages if message.seq <= through_seq],
            [message for message in messages if message.seq > through_seq],
        )


def _identity(message: Message) -> bytes:
    return sha256(b"%b\x00%b" % (message.subject.encode(errors="surrogateescape"), message.body)).digest()


def _copy(message: Message, seq: int) -> Message:
    """With the message id of a healed copy, one that this event has not had."""
    base, attempt = message.message_id, 0
    if found := _HEALED.fullmatch(base):
        base, attempt = found[1], int(found[2])
    if not base:
        said = document_of(message).get("id")
        base = said if isinstance(said, str) and said.isprintable() else message.sha256
    return replace(message, seq=seq, message_id=f"{base}#h{attempt + 1}")


def _goes_on(tail: Message, lost: list[Message]) -> bool:
    """Whether these rulings follow the tail, each the one before."""
    before = link_of(tail)
    for message in lost:
        link = link_of(message)
        if before is None or link is None or (link.pseq, link.prev) != (before.pseq + 1, before.sha256):
            return False
        before = link
    return True


def _findings(salvaged: Salvaged) -> Iterator[Finding]:
    """What is wrong with the segment's files, and each run of messages that is lost with them."""
    step = salvaged.step
    for fault in (*step.faults, *salvaged.faults):
        yield _damaged(fault, step.segment)
    last: Finding | None = None
    for harmed in salvaged.harmed:
        finding = _harm(harmed, step.segment, "cannot be read any more")
        if last is not None and _follows(finding, last):
            last = last.model_copy(update={"last_pseq": finding.last_pseq})
            continue
        if last is not None:
            yield last
        last = finding
    if last is not None:
        yield last


def _follows(finding: Finding, last: Finding) -> bool:
    if finding.publisher != last.publisher:
        return False
    return last.last_pseq is not None and finding.first_pseq == last.last_pseq + 1


def _harm(harmed: Harmed, segment: int, detail: str) -> Finding:
    return Finding(
        kind=Kind.DAMAGED,
        where="archive",
        publisher=harmed.publisher,
        first_pseq=harmed.pseq,
        last_pseq=harmed.pseq,
        seq=harmed.seq,
        segment=segment,
        detail=detail,
    )


def _damaged(detail: str, segment: int | None = None) -> Finding:
    return Finding(kind=Kind.DAMAGED, where="archive", segment=segment, detail=detail)
