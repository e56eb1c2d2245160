"""Submits tasks: the payload is durable before the ruling that names it, and the same id is submitted once."""

from dataclasses import dataclass

import orjson
from pydantic import JsonValue, ValidationError

from relight.engine import scope
from relight.engine.errors import TaskRefused
from relight.engine.log.control import Tail
from relight.engine.policies.reassignment import MAX_ATTEMPTS, submitted
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.rulings import TaskLog, known_state
from relight.events.tasks import TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A task that stands on the stream. `tail` is its last ruling: `query(…, after=submitted.tail)` shows it."""

    tenant: str
    task: str
    tail: Tail

    @property
    def state(self) -> TaskState:
        return known_state(self.tail, self.tenant, self.task)


class Submitter:
    """Of one recorder; its coroutine is for the recorder's loop."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tasks = TaskLog(recorder)

    async def submit(
        self,
        queue: str,
        payload: bytes | JsonValue = None,
        *,
        tenant: str,
        task: str | None = None,
        priority: int = 0,
        delay_s: float = 0,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> Submitted:
        """Raises `TaskRefused`, `Unreachable`, `AckTimeout`; after the latter two, the same `task` again is safe."""
        name = task or self._recorder.clock.next_id()
        here = scope.current()
        body = None
        try:
            if payload is not None:
                body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
            ruling = submitted(
                name,
                queue,
                now=self._recorder.clock.now(),
                priority=priority,
                max_attempts=max_attempts,
                delay_s=delay_s,
            )
        except TypeError as error:
            raise TaskRefused(f"task {name}: its payload is no JSON: {error}; give bytes, or values of JSON") from None
        except (ValidationError, OverflowError) as error:
            said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            raise TaskRefused(f"task {name} for queue {queue}: {said}") from None
        with scope.entered(tenant=tenant, correlation=here.correlation or self._recorder.clock.next_id()):
            if body is not None:
                content = await self._tasks.keep(tenant, body)
                state = ruling.state and ruling.state.model_copy(update={"payload": content})
                ruling = ruling.model_copy(update={"payload": content, "state": state})
            tail = await self._tasks.submit(tenant, ruling)
        return Submitted(tenant=tenant, task=name, tail=tail)
