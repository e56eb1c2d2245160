"""What an agents' run with an annotated mistake means: a failed task, a decision for each turn, and an incident.

Steps of one agent that follow each other are a turn, and its one decision; each is a checkpoint of it. The outcome of
the turn with the mistake is a failure, that of every other `unknown`. The log has no times: event n of a run is put n
milliseconds after 1970-01-01T00:00Z, which nobody takes for the run's, and says `time_known: false`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

import orjson
from pydantic import JsonValue

from relight.engine.importers.identity import EPOCH, Fact
from relight.events.base import Event
from relight.events.decisions import DecisionBegun, DecisionCheckpointed, DecisionOutcomeKnown, Outcome
from relight.events.incidents import IncidentOpened, Severity
from relight.events.tasks import TaskFailed
from relight.events.values import Content

SOURCE = "agent-log"
ANNOTATOR = "agent-log annotation"
"""The log does not name who annotated it."""
SEVERITY = Severity.MEDIUM
"""One task was lost, and nothing else is known to be affected."""
UNTYPED = "annotated_mistake"
"""The error class of a mistake whose type the log does not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`role` as the log has it; `speaker` is the agent in it, or the name beside it."""

    speaker: str
    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """The decisive one: by whom and at which step, from 0, according to the annotation."""

    agent: str
    step: int
    reason: str
    type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRun:
    """A run as it was read; it is a file's only row."""

    question: str | None
    question_id: str | None
    steps: tuple[Step, ...]
    mistake: Mistake

    @property
    def ordinal(self) -> int:
        return 1

    @property
    def text(self) -> bytes:
        """All that was read, so that neither the file's name nor its layout makes it another run."""
        steps = [[step.speaker, step.role, step.content] for step in self.steps]
        mistake = [self.mistake.agent, self.mistake.step, self.mistake.reason, self.mistake.type]
        return orjson.dumps([self.question, self.question_id, steps, mistake])

    def facts(self, key: str) -> Sequence[Fact]:
        return _Telling(self, key).facts()


class _Telling:
    """Tells one run's facts in order; each is known by its number."""

    def __init__(self, run: AgentRun, task: str) -> None:
        self._run = run
        self._task = task
        self._facts: list[Fact] = []

    def facts(self) -> list[Fact]:
        lost = 0
        for turn, (agent, steps) in enumerate(groupby(enumerate(self._run.steps), lambda step: step[1].speaker)):
            numbered = dict(steps)
            outcome = self._turn(turn, agent, numbered)
            lost = outcome if self._run.mistake.step in numbered else lost
        self._annotation(lost)
        return self._facts

    def _turn(self, turn: int, agent: str, steps: dict[int, Step]) -> int:
        """Returns the number of its outcome."""
        decision, mistake = f"{self._task}-turn-{turn}", self._run.mistake
        opening = DecisionBegun(
            decision=decision, decision_type="agent_turn", agent=agent, task=self._task, context=self._context(turn)
        )
        # Once is enough: every turn of a run is about the same question.
        begun = self._say(opening, content=self._run.question if turn == 0 else None)
        for number, step in steps.items():
            state: dict[str, JsonValue] = {"step": number, "agent": agent, "role": step.role, "time_known": False}
            if number == mistake.step:
                state["mistake"] = {"agent": mistake.agent, "reason": mistake.reason, "type": mistake.type}
            checkpoint = DecisionCheckpointed(
                decision=decision, checkpoint_type="step", state_snapshot=state, content=_digest(step.content)
            )
            self._say(checkpoint, content=step.content, cause=begun)
        outcome = DecisionOutcomeKnown(decision=decision, outcome=Outcome.UNKNOWN)
        if mistake.step in steps:
            outcome = DecisionOutcomeKnown(
                decision=decision, outcome=Outcome.FAILURE, error_class=mistake.type or UNTYPED
            )
        return self._say(outcome, cause=begun)

    def _annotation(self, lost: int) -> None:
        """What the annotation says of the turn whose outcome has this number."""
        step, description = self._run.mistake.step, _described(self._run)
        opened = IncidentOpened(
            incident=f"{self._task}-mistake",
            executed_by=ANNOTATOR,
            incident_name=f"mistake at step {step} of {self._task}",
            severity=SEVERITY,
            affected_domains=(f"task:{self._task}",),
            description=description,
        )
        incident = self._say(opened, cause=lost)
        self._say(TaskFailed(task=self._task, reason=description), cause=incident)

    def _context(self, turn: int) -> dict[str, JsonValue]:
        run = self._run
        context: dict[str, JsonValue] = {"source": SOURCE, "turn": turn, "time_known": False}
        if run.question_id is not None:
            context["question_id"] = run.question_id
        if run.question is not None:
            context["question"] = _digest(run.question).model_dump()
        return context

    def _say(self, event: Event, *, content: str | None = None, cause: int | None = None) -> int:
        number = len(self._facts)
        self._facts.append(
            Fact(
                event=event,
                time=EPOCH + timedelta(milliseconds=number),
                content=None if content is None else content.encode(),
                correlation=self._task,
                cause=cause,
            )
        )
        return number


def _digest(text: str) -> Content:
    body = text.encode()
    return Content(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))


def _described(run: AgentRun) -> str:
    """Agent, step and reason; and who spoke, where that was another."""
    mistake, step = run.mistake, run.steps[run.mistake.step]
    said = f"{mistake.agent} made the decisive mistake at step {mistake.step}: {mistake.reason}"
    if step.speaker == mistake.agent:
        return said
    # `Orchestrator (-> WebSurfer)` tells more than its speaker; beside a name the role is `user` or `assistant`.
    spoken_by = step.role if step.role.startswith(step.speaker) else step.speaker
    return f"{said} [The annotation names {mistake.agent}, but step {mistake.step} was spoken by {spoken_by}.]"
