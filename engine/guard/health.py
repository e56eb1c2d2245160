"""What guards and journals know of themselves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self
from weakref import WeakSet


@dataclass(frozen=True, kw_only=True)
class GuardHealth:
    """`multiplying_clients` retry themselves, `doubled_clients` are served by two guards: there, attempts multiply.

    `retried_outside`: calls that came again from a client which retries itself. `faults`: how often which of the
    guard's own parts failed; no call failed for it.
    """

    multiplying_clients: int = 0
    doubled_clients: int = 0
    retried_outside: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_all(cls, found: "Iterable[GuardHealth]") -> Self:
        """Of several guards together."""
        healths = list(found)
        faults: dict[str, int] = {}
        for health in healths:
            for part, times in health.faults.items():
                faults[part] = faults.get(part, 0) + times
        return cls(
            multiplying_clients=sum(health.multiplying_clients for health in healths),
            doubled_clients=sum(health.doubled_clients for health in healths),
            retried_outside=sum(health.retried_outside for health in healths),
            faults=faults,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, a sentence each."""
        said = []
        if self.multiplying_clients:
            said.append(
                f"attempts would multiply: {self.multiplying_clients} clients retry beside their guard; "
                "use relight.guarded(client), or max_retries=0"
            )
        if self.retried_outside and not self.multiplying_clients:
            said.append(f"attempts multiply: {self.retried_outside} calls were retried by their client")
        if self.doubled_clients:
            said.append(f"attempts would multiply: {self.doubled_clients} clients have two guards; leave one")
        said += [f"the guard's {part} failed {times} times: see the log" for part, times in self.faults.items()]
        return tuple(said)


@dataclass(frozen=True, kw_only=True)
class JournalHealth:
    """`unrecorded` facts came while the recorder did not run. `unpriced`: answers of models whose price is not known.

    `let_go`: bodies of which no more than a digest was recorded, since too much waited for the disk.
    `refused_contents`: those that could not be read or redacted.
    """

    unrecorded: int = 0
    let_go: int = 0
    refused_contents: int = 0
    unpriced: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_all(cls, found: "Iterable[JournalHealth]") -> Self:
        """Of several journals together."""
        healths = list(found)
        unpriced: dict[str, int] = {}
        for health in healths:
            for model, answers in health.unpriced.items():
                unpriced[model] = unpriced.get(model, 0) + answers
        return cls(
            unrecorded=sum(health.unrecorded for health in healths),
            let_go=sum(health.let_go for health in healths),
            refused_contents=sum(health.refused_contents for health in healths),
            unpriced=unpriced,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, a sentence each."""
        said = []
        if self.unrecorded:
            said.append(f"{self.unrecorded} facts of calls came while the recorder did not run, and are not recorded")
        if self.let_go:
            said.append(
                f"of {self.let_go} prompts and answers no more than a digest is kept: the disk does not keep up"
            )
        if self.refused_contents:
            said.append(f"{self.refused_contents} prompts and answers could not be redacted or read: see the log")
        if self.unpriced:
            models = ", ".join(sorted(self.unpriced)[:NAMED])
            more = f" and {len(self.unpriced) - NAMED} more" if len(self.unpriced) > NAMED else ""
            said.append(f"what {models}{more} cost is not known: add them to RELIGHT_PRICES_FILE")
        return tuple(said)


NAMED = 5
"""Of the models without a price."""


class _Guard(Protocol):
    def health(self) -> GuardHealth: ...


class _Journal(Protocol):
    def health(self) -> JournalHealth: ...


class Guarding:
    """The guards and journals beside one recorder, as long as anybody uses them."""

    def __init__(self) -> None:
        self.guards: WeakSet[_Guard] = WeakSet()
        self.journals: WeakSet[_Journal] = WeakSet()
