"""A breaker around any dependency of a tool: as a decorator, or around a block, with and without a loop."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, cast

from relight.engine.errors import CircuitOpen
from relight.engine.guard.breakers.breaker import Breaker, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.recording.journal import Journal
from relight.engine.guard.routes.capacity import capacity_s
from relight.engine.guard.routes.refusals import moment, refused_until
from relight.engine.policies.breaker import BreakerPolicy

SOON_US = 250_000
"""A breaker that is about to know is waited for so long."""

P = ParamSpec("P")
R = TypeVar("R")
Counted = type[BaseException] | tuple[type[BaseException], ...]


class _Entered:
    """A block that is being run; `around` is the one that it is inside of."""

    __slots__ = ("around", "permit", "started_ns", "started_us", "tool")

    def __init__(self, tool: "ToolBreaker", permit: Permit, started_us: int, around: "_Entered | None") -> None:
        self.tool = tool
        self.permit = permit
        self.started_us = started_us
        self.started_ns = time.perf_counter_ns()
        self.around = around

    @property
    def open(self) -> bool:
        return self in self.tool._open


_entered: ContextVar[_Entered | None] = ContextVar("relight_tool_breakers", default=None)


class ToolBreaker:
    """`with`, `async with` and a decorator; may be used again, nested, and by many at once.

    `counts`: which exceptions say that the dependency failed; `ignores`: which of those do not. Any other exception
    says nothing of it. Raises `CircuitOpen` in place of a call that must not pass.
    """

    def __init__(
        self,
        breakers: Breakers,
        name: str,
        *,
        journal: Journal | None = None,
        counts: Counted = Exception,
        ignores: Counted = (),
        policy: BreakerPolicy | None = None,
    ) -> None:
        self._breakers = breakers
        self._breaker = breakers.of(name, policy)
        self._journal = journal or breakers.journal
        self._counts = counts
        self._ignores = ignores
        self._open: dict[_Entered, bool] = {}
        """Blocks that are being run, in whichever context, in the order in which they were entered."""

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function behind the breaker; each call is one of the dependency's."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator, whose calls end when it is read: put `with` inside of it"
            )
        if inspect.iscoroutinefunction(function):
            coroutine_function = cast(Callable[P, Awaitable[object]], function)

            @wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> object:
                async with self:
                    return await coroutine_function(*args, **kwargs)

            return cast(Callable[P, R], call_async)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return call

    def __enter__(self) -> Self:
        for wait_s in self._asking():
            time.sleep(wait_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(error)

    async def __aenter__(self) -> Self:
        for wait_s in self._asking():
            await asyncio.sleep(wait_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left(error)

    def _asking(self) -> Iterator[float]:
        """Asks, and yields how long to wait before asking again, until the caller's deadline. Raises `CircuitOpen`."""
        until_us = self._breakers.now_us() + max(SOON_US, capacity_s(0) * 1e6)
        if (deadline := deadline_us()) is not None:
            until_us = min(until_us, deadline)
        while True:
            now_us = self._breakers.now_us()
            answer = self._breaker.permit(now_us)
            if isinstance(answer, Refused):
                if answer.retry_at_us > until_us:
                    raise _circuit_open(answer, now_us)
                self._breaker.waited_for()
                yield min(max(0.0, (answer.retry_at_us - now_us) / 1e6), 1.0)  # it may close early
                continue
            entered = _Entered(self, answer, now_us, _still_open(_entered.get()))
            self._open[entered] = True
            _entered.set(entered)
            return

    def _left(self, error: BaseException | None) -> None:
        entered = self._leave()
        latency_us = (time.perf_counter_ns() - entered.started_ns) // 1_000
        failure = None if error is None else type(error).__name__
        if failure is None:
            self._breaker.succeeded(entered.permit, latency_us)
        elif isinstance(error, self._counts) and not isinstance(error, self._ignores):
            self._breaker.failed(entered.permit, failure)
        else:
            self._breaker.released(entered.permit)
            return
        name, started_us = self._breaker.name, entered.started_us
        self._journal.depended(name, started_us=started_us, latency_us=latency_us, failure=failure)

    def _leave(self) -> _Entered:
        """The innermost block of this context; where there is none, the last one that was entered in another.

        A generator may be ended by another task than began it, or by the garbage collector. Which of several blocks is
        meant is not known then, but each gives its permit back.
        """
        here = innermost = _still_open(_entered.get())
        while here is not None and here.tool is not self:
            here = _still_open(here.around)
        candidates = list(self._open)
        if here is not None:
            candidates.append(here)
        for entered in reversed(candidates):
            if self._open.pop(entered, False):  # atomic: another thread may be leaving one, too
                _entered.set(_still_open(innermost))
                return entered
        raise RuntimeError(f"breaker {self._breaker.name} is left more often than it was entered")


def _still_open(entered: _Entered | None) -> _Entered | None:
    """It, or the next one around it that was not left from another context meanwhile."""
    while entered is not None and not entered.open:
        entered = entered.around
    return entered


def _circuit_open(refused: Refused, now_us: int) -> CircuitOpen:
    ruled_by = "the fleet" if refused.fleet else "this process"
    return refused_until(
        f"breaker {refused.breaker} lets no call pass before {moment(refused.retry_at_us):%H:%M:%S}Z, as {ruled_by}"
        f" ruled: {refused.reason}",
        retry_at_us=refused.retry_at_us,
        now_us=now_us,
        members={"breaker": refused.breaker, "refused": refused.reason, "ruled_by": ruled_by},
    )
