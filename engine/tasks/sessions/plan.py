"""A task's plan: its steps in order, each with a name of its own."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from relight.engine.errors import TaskRefused

StepT = TypeVar("StepT", bound=str | Callable[..., Any])


def names_of(plan: Sequence[StepT]) -> list[str]:
    """Raises `TaskRefused` where a step has no name, or two have the same."""
    names: list[str] = []
    for number, step in enumerate(plan):
        name = step if isinstance(step, str) else getattr(step, "__name__", "")
        if not name or name == "<lambda>":
            raise TaskRefused(f"step {number} of the plan has no name: use a named function, or a name")
        if name in names:
            raise TaskRefused(f"step {name} is in the plan twice: steps are told by their names, give it another one")
        names.append(name)
    return names


def check_resumable(names: Sequence[str], step: int, last: str | None) -> None:
    """Raises `TaskRefused` where the plan is not the one that the checkpoint was taken in."""
    if step > len(names):
        raise TaskRefused(f"the plan has {len(names)} steps, the last checkpoint is after {step}: it was changed")
    if step and last is not None and names[step - 1] != last:
        raise TaskRefused(
            f"the last checkpoint is after step {step}, {last}, which is {names[step - 1]} in this plan: a plan may"
            " change only after the steps that are done"
        )
