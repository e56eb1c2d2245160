"""Counts model calls by the place that makes them, and by whether a Guard is in the client, while Relight is open."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import wraps
from typing import Any

from anthropic._base_client import AsyncAPIClient, BaseClient, SyncAPIClient
from anthropic.resources import messages
from anthropic.resources.beta import messages as beta_messages

from relight.engine.guard.counting.places import CREATED_AT, Places
from relight.engine.guard.guard import Guard
from relight.engine.recorder.recorder import Recorder
from relight.events.decisions import DecisionCallsCounted

EVERY_S = 60.0
CALLS_MODELS = ("/v1/messages", "/v1/complete")

Counts = dict[tuple[str, bool], int]


class CallCounter:
    """Adds up; microseconds a call, from any thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._counts: Counts = {}
        self._since: datetime = recorder.clock.now()

    def count(self, site: str, guarded: bool) -> None:
        key = (site, guarded)
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1

    def record(self) -> None:
        """Records what was counted since the last time, each place by an event of its own."""
        with self._lock:
            counts, self._counts = self._counts, {}
            since, self._since = self._since, self._recorder.clock.now()
        for (site, guarded), calls in sorted(counts.items()):
            self._recorder.record(DecisionCallsCounted(site=site, guarded=guarded, calls=calls, since=since))


@asynccontextmanager
async def counting_calls(recorder: Recorder, *, every_s: float = EVERY_S) -> AsyncIterator[CallCounter]:
    """Counts every call of this process until the `with` ends; what was counted is recorded then at the latest."""
    counter = CallCounter(recorder)

    async def now_and_then() -> None:
        while True:
            await asyncio.sleep(every_s)
            counter.record()

    _WATCH.begin(counter)
    recording = asyncio.create_task(now_and_then(), name="relight: counted calls")
    try:
        yield counter
    finally:
        recording.cancel()
        with suppress(asyncio.CancelledError):
            await recording
        _WATCH.end(counter)
        counter.record()


class _Watch:
    """The SDK's methods, wrapped as long as anybody counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: tuple[CallCounter, ...] = ()
        self._places = Places()
        self._wrapped = contextlib.ExitStack()

    def begin(self, counter: CallCounter) -> None:
        with self._lock:
            if not self._counters:
                self._wrap()
            self._counters = (*self._counters, counter)

    def end(self, counter: CallCounter) -> None:
        with self._lock:
            self._counters = tuple(one for one in self._counters if one is not counter)
            if not self._counters:
                self._wrapped.close()

    def _seen(self, client: BaseClient[Any, Any], options: Any) -> None:
        if not any(part in options.url for part in CALLS_MODELS):
            return
        site = self._places.of_caller(sys._getframe(1))
        if site is None:
            return
        guarded = any(isinstance(entry, Guard) for entry in client.middleware)
        for counter in self._counters:
            counter.count(site, guarded)

    def _wrap(self) -> None:
        self._replace(SyncAPIClient, "request", self._counted)
        self._replace(AsyncAPIClient, "request", self._counted_async)
        for resource in (messages.AsyncMessages, beta_messages.AsyncMessages):
            for name in ("create", "parse", "count_tokens"):
                self._replace(resource, name, self._carrying_place)
        for batches in (messages.AsyncBatches, beta_messages.AsyncBatches):
            for name in ("create", "retrieve", "cancel", "delete", "results"):
                self._replace(batches, name, self._carrying_place)

    def _replace(self, owner: type, name: str, wrapping: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(owner, name)
        replaced = wrapping(original)
        setattr(owner, name, replaced)

        def put_back() -> None:
            # Somebody may have wrapped it once more; then ours stays within, and counts nothing.
            if owner.__dict__.get(name) is replaced:
                setattr(owner, name, original)

        self._wrapped.callback(put_back)

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def request(client: Any, cast_to: Any, options: Any, **how: Any) -> Any:
            self._seen(client, options)
            return original(client, cast_to, options, **how)

        return request

    def _counted_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        async def request(client: Any, cast_to: Any, options: Any, **how: Any) -> Any:
            self._seen(client, options)
            return await original(client, cast_to, options, **how)

        return request

    def _carrying_place(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Of a coroutine that may be awaited by a task alone (`asyncio.gather`), where it was made."""

        @wraps(original)
        def make(resource: Any, *arguments: Any, **options: Any) -> Any:
            coroutine = original(resource, *arguments, **options)
            if not asyncio.iscoroutine(coroutine):
                return coroutine
            return _carried(self._places.of_caller(sys._getframe(1)), coroutine)

        return make


async def _carried(place: str | None, coroutine: Coroutine[Any, Any, Any]) -> Any:
    before = CREATED_AT.set(place)
    try:
        return await coroutine
    finally:
        CREATED_AT.reset(before)


_WATCH = _Watch()
