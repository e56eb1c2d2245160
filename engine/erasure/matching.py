"""Which contents a demand means, from the events that refer to them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from relight.engine.archive.contents import references
from relight.engine.archive.seen_contents import erasure_in
from relight.engine.erasure.demand import Demand
from relight.engine.log.links import document_of
from relight.engine.log.reader import Message

DECISIONS = "decisions."


@dataclass(slots=True)
class Uses:
    """Of one content: how many events of the demand refer to it, and how many others of that tenant."""

    matching: int = 0
    others: int = 0


@dataclass(slots=True)
class Matching:
    """Sees messages of stream and archives, in any order and repeatedly; an event counts once.

    `recorded` are the contents that this erasure has on record already.
    """

    demand: Demand
    recorded: set[str] = field(default_factory=set)
    _seen: set[bytes] = field(default_factory=set)
    _decisions: set[str] = field(default_factory=set)
    """What the demand's agent decided on."""
    _uses: dict[str, Uses] = field(default_factory=lambda: defaultdict(Uses))
    _open: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """Events of decisions whose agent is not known yet: decision, contents."""

    def see(self, messages: Iterable[Message]) -> None:
        for message in messages:
            said = erasure_in(message)
            if said is not None and (said.erasure, said.of_tenant) == (self.demand.erasure, self.demand.tenant):
                self.recorded.update(said.contents)
            document = document_of(message) if self._may_matter(message) else {}
            if document.get("tenant") == self.demand.tenant:
                self._see_event(message, document)

    def uses(self) -> dict[str, Uses]:
        """By SHA-256, of every content of the tenant that an event refers to."""
        found = {sha256: Uses(uses.matching, uses.others) for sha256, uses in self._uses.items()}
        for decision, contents in self._open:
            for sha256 in contents:
                uses = found.setdefault(sha256, Uses())
                if decision in self._decisions:
                    uses.matching += 1
                else:
                    uses.others += 1
        return found

    def _may_matter(self, message: Message) -> bool:
        """Parsing every message would take most of the time."""
        return bool(references(message)) or (self.demand.agent is not None and b'"agent"' in message.body)

    def _see_event(self, message: Message, document: dict[str, object]) -> None:
        data = document.get("data")
        agent = data.get("agent") if isinstance(data, dict) else None
        subject, kind = str(document.get("subject")), str(document.get("type"))
        if agent is not None and agent == self.demand.agent and kind.startswith(DECISIONS):
            self._decisions.add(subject)
        contents = tuple(sorted(reference.sha256 for reference in references(message)))
        identity = bytes.fromhex(message.sha256)
        if not contents or identity in self._seen:
            return
        self._seen.add(identity)
        if self.demand.agent is not None and agent is None and kind.startswith(DECISIONS) and self._is_meant(document):
            self._open.append((subject, contents))
            return
        meant = self._is_meant(document) and self.demand.agent in (None, agent)
        for sha256 in contents:
            if meant:
                self._uses[sha256].matching += 1
            else:
                self._uses[sha256].others += 1

    def _is_meant(self, document: dict[str, object]) -> bool:
        """But for the agent."""
        demand = self.demand
        if not demand.by_event:
            return demand.is_everything
        return demand.correlation in (None, document.get("correlationid")) and demand.entity in (
            None,
            document.get("subject"),
        )
