"""A seeded mix of faults, `10% 529, 2% reset_before_headers`: which request meets which is the same in every run."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from relight.engine.fake.steps import Fault, Step

_SHARE = re.compile(r"(?P<percent>[0-9]+(\.[0-9]+)?) ?% ?(?P<what>[a-z_]+|[0-9]{3})")


@dataclass(frozen=True, slots=True)
class Share:
    """So many of a hundred requests get this step."""

    percent: float
    step: Step


def parse_mix(text: str) -> tuple[Share, ...]:
    """Raises `ValueError` with a sentence."""
    shares = tuple(_share(part.strip()) for part in text.split(",") if part.strip())
    if (total := sum(share.percent for share in shares)) > 100:
        raise ValueError(f"the shares add up to {total:g} %, which is more than 100 %")
    return shares


def _share(text: str) -> Share:
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no share: write as in '10% 529, 2% {Fault.RESET_BEFORE_HEADERS}'")
    what, percent = match["what"], float(match["percent"])
    if what.isdecimal():
        if not 400 <= int(what) <= 599:
            raise ValueError(f"{what} is no status of an error: those are 400 to 599")
        return Share(percent, Step(status=int(what)))
    if what not in set(Fault):
        raise ValueError(f"{what!r} is neither a status nor a fault: the faults are {', '.join(Fault)}")
    fault = Fault(what)
    return Share(percent, Step(fault=fault, error_type="overloaded_error" if fault is Fault.ERROR_EVENT else None))


def drawn(shares: Sequence[Share], seed: int, number: int) -> Step:
    """What request `number` meets."""
    point = random.Random(f"{seed}:{number}").random() * 100
    for share in shares:
        point -= share.percent
        if point < 0:
            return share.step
    return Step()
