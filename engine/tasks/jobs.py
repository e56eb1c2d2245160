"""What a process works on: a function for each queue, and how its failures are treated."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import JsonValue

from relight.engine.policies.reassignment import BACKOFF_S
from relight.engine.tasks.task import Task

Result = bytes | JsonValue
Handler = Callable[[Task], Awaitable[Result]]
"""What it returns is the task's result: bytes as they are, all else as JSON. An exception is a failed attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`concurrency`: tasks at the same time. `retries`: attempts after the first, where the task allows as many; the
    first of them comes after `backoff_s`, each further one after twice as long. `tenant`: only that one's tasks.
    `agent`: who acts, in what is recorded meanwhile."""

    queue: str
    handler: Handler
    concurrency: int = 1
    retries: int | None = None
    backoff_s: float = BACKOFF_S
    tenant: str | None = None
    agent: str | None = None

    @property
    def max_attempts(self) -> int | None:
        return None if self.retries is None else self.retries + 1
