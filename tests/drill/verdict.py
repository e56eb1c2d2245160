"""Figures of a drill, and whether what was promised was kept."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One line of the report; `kept` None: a figure that nobody promised."""

    phase: str
    name: str
    figure: str
    asked: str = ""
    kept: bool | None = None
    detail: str = ""


@dataclass(kw_only=True)
class Report:
    """What all phases found; `figures` has everything for machines."""

    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.kept is False]

    def figure(self, phase: str, name: str, figure: str, detail: str = "") -> None:
        self.verdicts.append(Verdict(phase=phase, name=name, figure=figure, detail=detail))

    def promise(self, phase: str, name: str, figure: str, *, kept: bool, asked: str, detail: str = "") -> None:
        self.verdicts.append(
            Verdict(phase=phase, name=name, figure=figure, asked=asked, kept=kept, detail="" if kept else detail)
        )

    def as_json(self) -> dict[str, Any]:
        return {"verdicts": [asdict(verdict) for verdict in self.verdicts], "figures": self.figures}


def ms(value: float | None) -> str:
    return "none" if value is None else f"{value:,.1f} ms"


def s(value: float | None) -> str:
    return "never" if value is None else f"{value:,.2f} s"
