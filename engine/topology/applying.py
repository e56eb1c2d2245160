"""Makes what runs into what a topology says; whatever is so already is left alone."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from nats.js import JetStreamContext

from relight.engine import scope
from relight.engine.errors import Superseded
from relight.engine.log.content import BUCKET_STREAM
from relight.engine.log.control import ControlLog
from relight.engine.log.topology import STREAM, ensure_content_bucket, ensure_stream
from relight.engine.policies.failover_commands import Declare
from relight.engine.policies.federation import observe_queue
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.commands import FailoverCommands
from relight.engine.topology.differences import (
    Difference,
    Found,
    Subject,
    copies_of,
    declared_fleet,
    differences,
    is_declared,
    queues_of,
)
from relight.engine.topology.model import QueueOptions, Topology
from relight.engine.topology.servers_seen import SeenServer
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverPolicyDeclared, Routing
from relight.events.queues import QueueDeclared

POLICY = "federation-1"
TRIES = 8

T = TypeVar("T")


class Applying:
    """For one topology, by a recorder of its fleet; `servers` are those that were looked at."""

    def __init__(self, recorder: Recorder, topology: Topology, servers: tuple[SeenServer, ...]) -> None:
        self._recorder = recorder
        self._topology = topology
        self._servers = servers
        self._commands = FailoverCommands(recorder, topology.fleet.name)

    async def plan(self) -> list[Difference]:
        """What `apply` would change, and what it cannot. Raises `Unreachable`."""
        return differences(self._topology, await self._found())

    async def apply(self, *, ordered_by: str) -> list[Difference]:
        """What was changed, and what is left for others; declaring is compare-and-set, so it may run twice at once.

        Raises `Unreachable`, `FailoverRefused`.
        """
        due = await self.plan()
        for difference in due:
            match difference.about:
                case Subject.STREAM:
                    await self._js(self._stream)
                case Subject.CONTENT:
                    await self._js(self._content)
                case Subject.FLEET:
                    await self._fleet(ordered_by)
                case Subject.QUEUE:
                    queue = next(one for one in self._topology.queues if one.name == difference.name)
                    await self._control(partial(self._queue, queue=queue))
                case Subject.SERVER:
                    pass  # its own configuration says it
        return due

    async def _js(self, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        asking: Coroutine[Any, Any, T] = self._recorder.with_jetstream(work)
        return await asyncio.wrap_future(self._recorder.in_loop(asking))

    async def _control(self, work: Callable[[ControlLog], Awaitable[T]]) -> T:
        asking: Coroutine[Any, Any, T] = self._recorder.with_control(work)
        return await asyncio.wrap_future(self._recorder.in_loop(asking))

    async def _found(self) -> Found:
        names = [queue.name for queue in self._topology.queues]
        stream, content, routing, queues = await asyncio.gather(
            self._js(partial(copies_of, stream=STREAM)),
            self._js(partial(copies_of, stream=BUCKET_STREAM)),
            self._commands.state(),
            self._control(partial(queues_of, names=names)),
        )
        return Found(stream=stream, content=content, servers=self._servers, routing=routing, queues=queues)

    async def _stream(self, js: JetStreamContext) -> None:
        await ensure_stream(js, replicas=self._topology.replicas)
        await self._copied(js, STREAM)

    async def _content(self, js: JetStreamContext) -> None:
        await ensure_content_bucket(js)
        await self._copied(js, BUCKET_STREAM)

    async def _copied(self, js: JetStreamContext, stream: str) -> None:
        config = (await js.stream_info(stream)).config
        if config.num_replicas != self._topology.replicas:
            await js.update_stream(config.evolve(num_replicas=self._topology.replicas))

    async def _fleet(self, ordered_by: str) -> None:
        before = (await self._commands.state()).routing
        wanted = declared_fleet(self._topology, ordered_by)
        ruled = await self._commands.declare(wanted)
        if ruled.made:
            with scope.entered(tenant=PLATFORM):
                for event in _policies(before, wanted):
                    self._recorder.record(event)

    async def _queue(self, control: ControlLog, queue: QueueOptions) -> None:
        for _ in range(TRIES):
            tail = await control.tail(QueueDeclared, tenant=PLATFORM, entity=queue.name)
            if is_declared(queue, None if tail.event is None else observe_queue(None, tail.event)):
                return
            event = QueueDeclared(
                queue_name=queue.name,
                primary_region=queue.primary,
                replica_regions=queue.replicas,
                is_active=True,
                reason="the topology says so",
            )
            try:
                with scope.entered(tenant=PLATFORM):
                    await control.append(event, after=tail, tenant=PLATFORM, policy_version=POLICY)
                return
            except Superseded:
                continue
        raise Superseded(f"{TRIES} times another ruling on queue {queue.name} came first: try again")


def _policies(before: Routing | None, wanted: Declare) -> list[FailoverPolicyDeclared]:
    """Those that are new or other than they were, and those that are withdrawn, as the tables show them."""
    old = {policy.policy_name: policy for policy in before.policies} if before is not None else {}
    new = {policy.policy_name: policy for policy in wanted.policies}
    changed = [policy for name, policy in (old | new).items() if old.get(name) != new.get(name)]
    return [
        FailoverPolicyDeclared(
            policy_name=policy.policy_name,
            source_region=policy.source_region,
            fallback_regions=policy.fallback_regions,
            conditions=policy.conditions,
            is_active=policy.policy_name in new,
            declared_by=wanted.ordered_by,
        )
        for policy in changed
    ]
