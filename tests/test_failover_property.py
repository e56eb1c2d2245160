"""Whatever is asked of a fleet's routing, by whomever and in whatever order, no rule is ever broken."""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from folding import id_at, moment
from hypothesis import given, settings
from hypothesis import strategies as st
from routed_subject import FLEET, NAMES, Subject, declared, start
from routing_history import Judge

from relight.engine.policies.failover import check, decide
from relight.engine.policies.failover_commands import (
    OVERRIDABLE,
    Abort,
    Back,
    Command,
    Complete,
    Life,
    Restore,
    Rule,
    Sight,
    Sights,
    Suspend,
)
from relight.engine.policies.routing import under_way
from relight.events.failover import (
    Manner,
    StandIn,
)


class Asker:
    """Asks for anything, sensible or not, and may hold an older state than the subject has."""

    def __init__(self, subject: Subject, chance: random.Random) -> None:
        self.subject, self.chance, self.state = subject, chance, subject.state

    def ask(self, seconds: float) -> str:
        chance = self.chance
        if chance.random() < 0.7:
            self.state = self.subject.state
        around = self._around()
        commands = self._commands(chance.choice(KINDS), seconds, around)
        outcome = "nothing"
        for command in commands:
            outcome = self.subject.ask(command, seconds, around, after=self.state)
        return outcome

    def _around(self) -> dict[str, Sight]:
        life = [Life.ALIVE] * 12 + [Life.SUSPECTED, Life.ISOLATED, Life.UNKNOWN]
        going = self._going
        return {
            name: Sight(
                life=self.chance.choice(life),
                caught_up=self.chance.random() < 0.8,
                suspected_by=self.chance.randrange(4),
                ready_for=going.failover if going is not None and self.chance.random() < 0.6 else None,
            )
            for name in NAMES
        }

    @property
    def _going(self) -> StandIn | None:
        assert self.state.routing is not None
        return under_way(self.state.routing)

    def _commands(self, kind: str, seconds: float, around: Sights) -> list[Command]:
        chance, going, routing = self.chance, self._going, self.state.routing
        assert routing is not None
        one, other = chance.choice((*NAMES, *NAMES, "mars")), chance.choice((*NAMES, *NAMES, "mars"))
        failover = going.failover if going else id_at(999)
        now = moment(0) + timedelta(seconds=seconds)
        match kind:
            case "start":
                return [start(one, other, manner=chance.choice(list(Manner)))]
            case "go on":
                source = going.source_region if going and chance.random() < 0.8 else one
                return [start(source, other, failover=failover, manner=chance.choice((Manner.FORCED, *Manner)))]
            case "complete":
                return [Complete(failover=failover, reason="done")]
            case "abort":
                return [Abort(failover=failover, reason="no", ordered_by="kim")]
            case "back":
                return [Back(source=one, reason="well", ordered_by="kim")]
            case "suspend":
                suspended = tuple(chance.sample([rule.value for rule in Rule if rule in OVERRIDABLE], 2))
                until = now + timedelta(seconds=chance.choice((-1, 5, 30, 90_000)))
                return [Suspend(rules=suspended, expires_at=until, ordered_by="kim", reason="must be")]
            case "restore":
                by = chance.choice((None, "kim"))
                return [Restore(override=one.override, reason="", ordered_by=by) for one in routing.overrides[:1]]
            case "declare":
                fewer = replace(FLEET, regions=FLEET.regions[:3], policies=())
                return [chance.choice((FLEET, replace(FLEET, max_failovers=1), fewer))]
            case _:
                due = decide(self.state, now, around)
                for command in due:
                    broken = [result for result in check(self.state, command, now, around) if not result.passes]
                    assert not broken, "what is due by itself keeps every rule"
                return due


KINDS = ("start",) * 6 + ("go on", "complete", "complete", "complete", "abort", "back", "back", "decide", "decide")
KINDS += ("suspend", "restore", "declare")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_is_asked_in_whatever_order_no_rule_is_ever_broken(seed: int) -> None:
    """Four who ask 250 times, on older states as on the newest: what is appended follows the newest alone."""
    subject, _ = asked(seed)
    Judge().judge(subject.events)


def test_what_is_asked_leads_to_failovers_and_loses_races() -> None:
    subject, outcomes = asked(7)
    assert Judge().judge(subject.events).failovers >= 3
    assert outcomes["superseded"] > 0


def asked(seed: int) -> tuple[Subject, Counter[str]]:
    chance = random.Random(seed)
    subject = declared()
    askers = [Asker(subject, chance) for _ in range(4)]
    seconds, outcomes = 0.0, Counter[str]()
    for _ in range(250):
        seconds += chance.choice((-3, 0, 0.5, 2, 15))
        outcomes[chance.choice(askers).ask(seconds)] += 1
    return subject, outcomes
