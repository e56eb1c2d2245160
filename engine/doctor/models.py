"""What the doctor found: one result for each step, and what they come to."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Outcome(StrEnum):
    """`skipped`: a step that it needs did not succeed; `inapplicable`: there is nothing of that kind here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"
    INAPPLICABLE = "inapplicable"


class Finding(BaseModel):
    """What a step came to; `advice` says what to do where it is not ok."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    found: str
    advice: str | None = None


def ok(found: str) -> Finding:
    return Finding(outcome=Outcome.OK, found=found)


def warn(found: str, advice: str) -> Finding:
    return Finding(outcome=Outcome.WARN, found=found, advice=advice)


def fail(found: str, advice: str) -> Finding:
    return Finding(outcome=Outcome.FAIL, found=found, advice=advice)


def inapplicable(found: str) -> Finding:
    return Finding(outcome=Outcome.INAPPLICABLE, found=found)


class Result(BaseModel):
    """A step: its name, what was done, and the finding."""

    model_config = ConfigDict(frozen=True)

    check: str
    did: str
    outcome: Outcome
    found: str
    advice: str | None = None
    took_ms: float


class SettingUsed(BaseModel):
    """A setting as it is; passwords are not shown. `checked_by` is the step that uses it."""

    model_config = ConfigDict(frozen=True)

    variable: str
    value: str
    given: bool
    checked_by: str


class Report(BaseModel):
    """Everything, in the order in which it was done."""

    model_config = ConfigDict(frozen=True)

    results: tuple[Result, ...]
    settings: tuple[SettingUsed, ...]

    def count(self, *outcomes: Outcome) -> int:
        return sum(result.outcome in outcomes for result in self.results)

    @property
    def applicable(self) -> int:
        return len(self.results) - self.count(Outcome.INAPPLICABLE)

    @property
    def percent(self) -> int:
        """Of the applicable steps that are ok, rounded down: 100 is all of them."""
        return 100 * self.count(Outcome.OK) // max(1, self.applicable)

    def passes(self, *, strict: bool = False) -> bool:
        """Nothing failed or had to be skipped; `strict`: nor is there anything to warn of."""
        bad = (Outcome.FAIL, Outcome.SKIPPED, *((Outcome.WARN,) if strict else ()))
        return self.count(*bad) == 0
