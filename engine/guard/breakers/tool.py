"""A breaker around any dependency of a tool: as a decorator, or around a block, with and without a loop."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import NamedTuple, ParamSpec, Self, TypeVar, cast

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


class _Entered(NamedTuple):
    """A block that is being run; `around` is the one that it is inside of."""

    tool: "ToolBreaker"
    permit: Permit
    started_us: int
    started_ns: int
    around: "_Entered | None"


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
            _entered.set(_Entered(self, answer, now_us, time.perf_counter_ns(), _entered.get()))
            return

    def _left(self, error: BaseException | None) -> None:
        entered = _entered.get()
        if entered is None or entered.tool is not self:
            raise RuntimeError(f"breaker {self._breaker.name} is left in another context than it was entered in")
        _entered.set(entered.around)
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


def _circuit_open(refused: Refused, now_us: int) -> CircuitOpen:
    ruled_by = "the fleet" if refused.fleet else "this process"
    return refused_until(
        f"breaker {refused.breaker} lets no call pass before {moment(refused.retry_at_us):%H:%M:%S}Z, as {ruled_by}"
        f" ruled: {refused.reason}",
        retry_at_us=refused.retry_at_us,
        now_us=now_us,
        members={"breaker": refused.breaker, "refused": refused.reason, "ruled_by": ruled_by},
    )
