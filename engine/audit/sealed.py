"""Judges what was salvaged of a segment: files, index, every message, and where it belongs in its publisher's chain."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from relight.engine.archive.models import Manifest
from relight.engine.archive.salvage import Harmed, Salvaged
from relight.engine.archive.segment import index_of
from relight.engine.audit.models import Finding, Kind
from relight.engine.audit.sealed_chains import Chains, Place
from relight.engine.log.links import Link, document_of, link_of
from relight.engine.log.numbers import Numbers
from relight.engine.log.reader import Message

HEALED_ID = re.compile(r"#h\d+\Z")
LOST = "recorder.lost"


@dataclass(slots=True)
class Judged:
    """What the segments so far come to. `ends`: of an incarnation, the sequence from which a later one replaced it."""

    told: Callable[[Finding], None]
    ends: Mapping[int, int]
    chains: Chains
    events: int = 0
    healed: int = 0
    replaced: int = 0
    elsewhere: defaultdict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))
    """Numbers that only what was replaced holds."""
    lost: defaultdict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))
    """Numbers of which somebody declared that they will not come."""

    def judge(self, part: Salvaged) -> None:
        """The next segment."""
        segment = part.step.segment
        for fault in part.step.faults:
            self._tell(Kind.DAMAGED, segment, detail=fault)
        if not part.harmed or part.index is None:
            for fault in part.faults:
                self._tell(Kind.DAMAGED, segment, detail=fault)
        self._tell_harmed(part)
        links = [link_of(entry) if isinstance(entry, Message) else None for entry in part.entries]
        if part.sound and part.step.manifest is not None:
            self._compare(part, part.step.manifest, links)
        end = self._end(part)
        for entry, link in zip(part.entries, links, strict=True):
            gone = end is not None and entry.seq is not None and entry.seq >= end
            if isinstance(entry, Harmed):
                if entry.publisher is not None and entry.pseq is not None and not gone:
                    self.chains.harmed(entry.publisher, entry.pseq)
            else:
                self._take(entry, link, segment, gone=gone)

    def standing(self, part: Salvaged) -> Iterator[tuple[Message, Link]]:
        """Events that no later incarnation replaced."""
        end = self._end(part)
        for message in part.messages:
            link = link_of(message)
            if link is not None and (end is None or message.seq < end):
                yield message, link

    def _end(self, part: Salvaged) -> int | None:
        manifest = part.step.manifest
        return self.ends.get(manifest.incarnation) if manifest is not None and part.step.vouched else None

    def _take(self, message: Message, link: Link | None, segment: int, *, gone: bool) -> None:
        self.events += 1
        if gone:
            self.replaced += 1
            if link is not None:
                self.elsewhere[link.publisher].add(link.pseq, link.pseq)
            return
        if link is None:
            self._tell(Kind.INSERTED, segment, seq=message.seq, detail="it has no envelope that belongs there")
            return
        healed = "#h" in message.message_id and HEALED_ID.search(message.message_id) is not None
        self.healed += healed
        if LOST.encode() in message.body:
            self._note_lost(message)
        self.chains.see(link, Place(seq=message.seq, segment=segment, copy=healed))

    def _note_lost(self, message: Message) -> None:
        match document_of(message):
            case {
                "type": "recorder.lost",
                "data": {"publisher": str(whose), "first_pseq": int(first), "events": int(n)},
            }:
                self.lost[whose].add(first, first + n - 1)

    def _tell_harmed(self, part: Salvaged) -> None:
        """Runs of numbers by publisher, in the order in which they stand."""
        detail = "; ".join(part.faults)
        found: dict[str | None, list[list[Harmed]]] = {}
        for harmed in part.harmed:
            runs = found.setdefault(harmed.publisher, [])
            if runs and (harmed.publisher is None or (harmed.pseq or 0) == (runs[-1][-1].pseq or 0) + 1):
                runs[-1].append(harmed)
            else:
                runs.append([harmed])
        for run in sorted((run for runs in found.values() for run in runs), key=lambda run: run[0].seq or 0):
            first, last = run[0], run[-1]
            what = (
                detail if first.publisher else f"{detail}: {len(run)} messages, of which nothing tells whose they are"
            )
            self._tell(
                Kind.DAMAGED,
                part.step.segment,
                publisher=first.publisher,
                first_pseq=first.pseq,
                last_pseq=last.pseq,
                seq=first.seq,
                detail=what,
            )

    def _compare(self, part: Salvaged, manifest: Manifest, links: list[Link | None]) -> None:
        """A signed segment that does not describe its own messages was sealed so."""
        messages = part.messages
        index, spans = index_of(messages, links)
        said = (
            manifest.messages,
            manifest.first_seq,
            manifest.last_seq,
            manifest.last_sha256,
            manifest.first_timestamp_ns,
            manifest.last_timestamp_ns,
        )
        first, last = messages[0], messages[-1]
        found = (len(messages), first.seq, last.seq, last.sha256, first.timestamp_ns, last.timestamp_ns)
        if (index, spans, found) != (part.index, manifest.spans, said):
            self._tell(Kind.DAMAGED, manifest.segment, detail="its manifest or index does not describe its messages")
        if any(one >= other for one, other in zip(index.seqs, index.seqs[1:], strict=False)):
            self._tell(Kind.DAMAGED, manifest.segment, detail="its sequences do not ascend")

    def _tell(
        self,
        kind: Kind,
        segment: int,
        *,
        publisher: str | None = None,
        first_pseq: int | None = None,
        last_pseq: int | None = None,
        seq: int | None = None,
        detail: str,
    ) -> None:
        self.told(
            Finding(
                kind=kind,
                where="archive",
                publisher=publisher,
                first_pseq=first_pseq,
                last_pseq=last_pseq,
                seq=seq,
                segment=segment,
                detail=detail,
            )
        )
