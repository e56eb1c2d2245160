"""The breakers of a process: one for each dependency, all beside one recorder, and what can be seen of them."""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import Self
from weakref import WeakSet

import uuid_utils
from pydantic import TypeAdapter, ValidationError

from relight.engine import scope
from relight.engine.errors import RecorderError
from relight.engine.guard.breakers.breaker import Breaker, BreakerHealth
from relight.engine.guard.breakers.fleet import Fleet
from relight.engine.guard.facts import Dependency
from relight.engine.guard.recording.journal import Journal
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.recorder.recorder import Recorder
from relight.events.base import Event
from relight.events.errors import InvalidEvent
from relight.events.values import Key

JOIN_AGAIN_S = 0.5
MAX_MODELS, MAX_TOOLS = 200, 1_000
"""Breakers of one process. Requests name their models, and whoever sends them may make names up: each breaker would be
held for ever, and followed by the whole fleet."""
OTHER = "other"
_names = TypeAdapter[str](Key)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BreakersHealth:
    """`breakers` are those that are not closed, `refused_calls` of all of them.

    `failure`: why rulings of the fleet do not arrive now. `unrecorded`: votes that no recorder took. `shared`: how
    often one was asked for beyond the number that there may be, and got the one that all such share.
    """

    process: str
    fault_domain: str
    breakers: tuple[BreakerHealth, ...]
    refused_calls: int
    failure: str | None
    unrecorded: int
    shared: int = 0


class Breakers:
    """Safe to use from any thread. It follows the fleet's rulings in the recorder's own loop, and ends with that.

    `process` names this process to the fleet for as long as it lives; a fork()ed child has another name, and breakers
    that know of nothing.
    """

    def __init__(
        self, recorder: Recorder, policy: BreakerPolicy | None = None, *, fault_domain: str | None = None
    ) -> None:
        self.policy = policy or BreakerPolicy()
        self.fault_domain = fault_domain or recorder.options.fault_domain or socket.gethostname()
        self._recorder = recorder
        self.now_us = recorder.clock.now_us
        self._breakers: dict[str, Breaker] = {}
        self._models: set[str] = set()
        self._warned: set[str] = set()
        self._regions: dict[str, str] = {}
        """Where what a breaker guards lies."""
        self._begin()
        _all.add(self)

    @classmethod
    def beside(cls, recorder: Recorder) -> Self:
        """The recorder's, which all that is guarded beside it shares: a process votes once."""
        return recorder.beside(cls, partial(cls, recorder))

    @property
    def journal(self) -> Journal:
        """Where calls of what is no model are written down."""
        return self._recorder.beside(Journal, partial(Journal, self._recorder))

    def _begin(self) -> None:
        self.process = f"{socket.gethostname()}/{os.getpid()}/{uuid_utils.uuid4().hex[:8]}"
        self.joined = False
        self.unrecorded = 0
        self._off: Mapping[str, str] = {}
        self.shared = 0
        self._join_at = 0.0
        self._joining = threading.Lock()
        self._fleet = Fleet(self._recorder, process=self.process, breakers=self._breakers)
        for breaker in self._breakers.values():
            breaker.begin_anew()

    def of(self, name: str, policy: BreakerPolicy | None = None, *, region: str | None = None) -> Breaker:
        """The breaker of this dependency; `policy` and `region` count where it is named for the first time.

        Beyond `MAX_TOOLS` names it is the one called `other`. Raises `InvalidEvent` for what is no name.
        """
        is_new = name not in self._breakers and name not in self._models
        if is_new and len(self._breakers) - len(self._models) >= MAX_TOOLS:
            name = self._share(name, OTHER)
        if (found := self._breakers.get(name)) is None:
            try:
                _names.validate_python(name)
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]["msg"]
                raise InvalidEvent(f"breaker {name!r}: {fault}; choose another name") from None
            if region is not None:
                self._regions[name] = region
            found = self._breakers.setdefault(name, Breaker(name, policy or self.policy, self))
            found.switch_off(self._off.get(region or ""))
            self.join()
            self._fleet.wake()
        elif policy is not None and policy is not found.policy and policy != found.policy and name not in self._warned:
            self._warned.add(name)
            log.warning(
                "breaker %s keeps the policy that it was made with", name, extra={"action": "breaker_policy_kept"}
            )
        return found

    def of_model(self, dependency: Dependency, policy: BreakerPolicy | None = None) -> Breaker:
        """`of` for a model that a request names; beyond `MAX_MODELS` its provider's region has one for all others."""
        name = dependency.name
        if name not in self._breakers and len(self._models) >= MAX_MODELS:
            name = self._share(name, replace(dependency, model=OTHER).name)
        self._models.add(name)
        try:
            return self.of(name, policy, region=dependency.region)
        except InvalidEvent:
            self._models.discard(name)
            raise

    def _share(self, name: str, other: str) -> str:
        if not self.shared:
            log.warning(
                "breaker %.200r is one too many: it and all that follow share the breaker %s",
                name,
                other,
                extra={"action": "breaker_shared"},
            )
        self.shared += 1
        return other

    def switch_off(self, regions: Mapping[str, str]) -> None:
        """No call is to go to these regions, each for a reason; to all others they may."""
        self._off = dict(regions)
        for name, region in list(self._regions.items()):
            if (breaker := self._breakers.get(name)) is not None:
                breaker.switch_off(self._off.get(region))

    def health(self) -> BreakersHealth:
        """What is not closed, and what was refused."""
        breakers = list(self._breakers.values())
        found = [health for breaker in breakers if (health := breaker.health()) is not None]
        return BreakersHealth(
            process=self.process,
            fault_domain=self.fault_domain,
            breakers=tuple(sorted(found, key=lambda health: health.name)),
            refused_calls=sum(breaker.refused_calls for breaker in breakers),
            failure=self._fleet.failure if self.joined else "the recorder is not running",
            unrecorded=self.unrecorded,
            shared=self.shared,
        )

    def join(self) -> None:
        """Follows the fleet, unless that is done already, or has ended just now. Never blocks."""
        if self.joined or not self._joining.acquire(blocking=False):
            return
        try:
            if time.monotonic() < self._join_at:
                return
            self._join_at = time.monotonic() + JOIN_AGAIN_S
            following = self._fleet.run()
            try:
                # In no caller's scope: what the fleet rules is not part of what this call belongs to.
                future: Future[None] = Context().run(self._recorder.in_loop, following)
            except RecorderError:
                following.close()
                return
            self.joined = True
            future.add_done_callback(partial(self._left, self._fleet))
        finally:
            self._joining.release()

    def ask(self, name: str) -> None:
        """The fleet's probes are to be leased for a call that waits."""
        self._fleet.ask(name)

    def record(self, event: Event) -> None:
        """Under the recorder's own tenant, whoever's call it was."""
        try:
            with scope.entered(tenant=self._recorder.options.tenant):
                self._recorder.record(event)
        except RecorderError as error:
            self.unrecorded += 1
            log.warning("%s of %s is not recorded: %s", event.TYPE, event.entity, error, extra={"action": "no_vote"})

    def _left(self, fleet: Fleet, ended: "Future[None]") -> None:
        """In whatever thread, and maybe under the recorder's lock: the next call that is made joins again."""
        if fleet is self._fleet and ended.done():
            self.joined = False
            for breaker in list(self._breakers.values()):
                breaker.link(False)

    def _after_fork(self) -> None:
        self._begin()


_all: "WeakSet[Breakers]" = WeakSet()


def _after_fork_in_child() -> None:
    for breakers in list(_all):
        breakers._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
