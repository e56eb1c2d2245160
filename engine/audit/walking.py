"""Walks messages in the stream's order, each publisher's chain by its numbers and hashes; does no I/O."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from relight.engine.audit.chain import Chain
from relight.engine.audit.envelopes import UNREADABLE, Place, hashes_in, named_by_source, place_of, token_of_tenant
from relight.engine.audit.runs import Run
from relight.engine.log.links import document_of
from relight.engine.log.reader import Message
from relight.events.envelope import GENESIS

Vouched = Mapping[str, Mapping[int, tuple[str, str]]]
"""Hashes that others hold than the stream: by publisher and number, and who holds them."""
Ranges = list[tuple[int, int]]

OTHER_IDENTITY = "its publisher or number was changed: by the hash that it gives it follows another event"
NOTHING_KNOWN: Vouched = {}


@dataclass(frozen=True, slots=True)
class Stray:
    """A message that is no event, or of which nothing tells whose; `publisher` and `pseq` as far as it is readable."""

    seq: int
    publisher: str | None
    pseq: int | None
    fault: str


@dataclass(slots=True)
class Walk:
    """What was seen. Memory grows with publishers and with what is not right, not with events.

    `vouched`: see `Vouched`. `known`: publishers that somebody vouches for. `marks`: sequences of which the hash of the
    message (subject, NUL, body) is known; `held` are those where it was that. `tenant`: of whom chains are marked.
    """

    vouched: Vouched = field(default_factory=dict)
    known: Container[str] = ()
    marks: Mapping[int, str] = field(default_factory=dict)
    tenant: str | None = None
    chains: dict[str, Chain] = field(default_factory=dict)
    strays: list[Stray] = field(default_factory=list)
    absent: Ranges = field(default_factory=list)
    """Sequences at which nothing stands."""
    held: list[int] = field(default_factory=list)
    passing_seq: int | None = None
    passed: dict[str, int] = field(default_factory=dict)
    """The highest number of each publisher up to sequence `passing_seq`."""
    messages: int = 0
    last_seq: int = 0
    _fronts: dict[str, tuple[Chain, Run]] = field(default_factory=dict)

    def take(self, messages: Iterable[Message]) -> None:
        """The next messages, in ascending sequence."""
        chains, fronts, known = self.chains, self._fronts, self.known
        for message in messages:
            if self.passing_seq is not None and message.seq > self.passing_seq:
                self._pass()
            if message.seq != self.last_seq + 1:
                self.absent.append((self.last_seq + 1, message.seq - 1))
            self.last_seq = message.seq
            self.messages += 1
            if message.seq in self.marks and message.sha256 == self.marks[message.seq]:
                self.held.append(message.seq)
            place = place_of(message, known)
            chain = chains.get(place.publisher or "")
            run = chain.runs[-1] if chain is not None and chain.runs else None
            if (
                chain is None
                or run is None
                or place.fault
                or place.pseq != run.last + 1
                or place.prev != run.sha256
                or run.doubted is not None
                or run.bad
                or place.healed
                or self.tenant is not None
                or place.pseq in chain.verdicts.vouched
            ):
                self._look(message, place)
                continue
            # What nearly every event is: the next one of its publisher, with the hash of the one before.
            fronts.pop(run.sha256, None)
            run.before, run.before_seq, run.before_vouched = run.sha256, run.seq, run.vouched
            run.last, run.sha256, run.vouched = run.last + 1, place.sha256, False
            run.seq, run.timestamp_ns = message.seq, message.timestamp_ns
            fronts[run.sha256] = (chain, run)

    def end(self, last_seq: int) -> None:
        """No more will come up to this sequence."""
        if last_seq > self.last_seq:
            self.absent.append((self.last_seq + 1, last_seq))
            self.last_seq = last_seq
        if self.passing_seq is not None:
            self._pass()
        for chain in self.chains.values():
            for run in chain.runs:
                chain.verdicts.end(run)

    def _pass(self) -> None:
        self.passed = {publisher: chain.runs[-1].last for publisher, chain in self.chains.items()}
        self.passing_seq = None

    def _look(self, message: Message, place: Place) -> None:
        chain, number, place = self._owner(message, place)
        if chain is None or number is None:
            self.strays.append(Stray(message.seq, place.publisher, place.pseq, place.fault))
            return
        if not chain.runs and chain.publisher not in self.known:
            chain.named = place.named or named_by_source(document_of(message).get("source"))
        chain.seat(number, place, message, place.fault)
        if self.tenant is not None and not chain.of_tenant:
            chain.of_tenant = token_of_tenant(message) == self.tenant

    def _owner(self, message: Message, place: Place) -> tuple[Chain | None, int | None, Place]:
        """Whose event this is, and which: by the hash of the one before it, else as it says itself."""
        hashes = [] if place.prev is None else [place.prev]
        if place.fault in UNREADABLE:
            hashes += hashes_in(message.body)
        for sha256 in hashes:
            front = self._fronts.get(sha256)
            if front is not None:
                chain, run = front
                fault = place.fault
                if (place.publisher, place.pseq) != (chain.publisher, run.last + 1):
                    fault = fault or OTHER_IDENTITY
                return chain, run.last + 1, place._replace(prev=sha256, fault=fault)
        publisher, number = place.publisher, place.pseq
        if publisher is None:
            return None, None, place
        if GENESIS in hashes and number != 1 and not self._has_begun(publisher):
            number, place = 1, place._replace(prev=GENESIS, fault=place.fault or OTHER_IDENTITY)
        return (None if number is None else self._chain(publisher)), number, place

    def _has_begun(self, publisher: str) -> bool:
        chain = self.chains.get(publisher)
        return chain is not None and bool(chain.runs) and chain.runs[0].first == 1

    def _chain(self, publisher: str) -> Chain:
        chain = self.chains.get(publisher)
        if chain is None:
            chain = Chain(publisher, self.vouched.get(publisher, {}), self._fronts)
            self.chains[publisher] = chain
        return chain
