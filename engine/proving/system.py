"""Asks every server through the system account, of which agents know nothing."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from relight.engine.errors import AccessRefused, Unreachable
from relight.engine.log.topology import STREAM, close
from relight.engine.proving.models import SILENT_S, Facts, ServerFacts, StreamFacts
from relight.engine.proving.sources import ASK_S, TRANSIENT, connected_server, said_of, stream_detail

ANSWERS_S = 1.0
"""So long a server may take; the others have answered within milliseconds."""
CONFIRM_S = 0.5
EVERYONE = "$SYS.REQ.SERVER.PING"
MEND = "correct RELIGHT_NATS_SYSTEM_URL"


class SystemAccount:
    """`connect` opens the connection when it is first needed; `client` is one of the account whose stream it is."""

    name = "system account"

    def __init__(self, client: Client, connect: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        self._client = client
        self._connect = connect
        self._system: Client | None = None
        self._connecting: asyncio.Task[Client] | None = None
        self._replicas: frozenset[str] = frozenset()
        """The servers that have one, as they were last told."""
        self._unheard_since: dict[tuple[str | None, str], float] = {}
        """By leader and replica."""

    async def look(self) -> Hashable | None:
        try:
            system = await self._connected()
            pulses, detail = await asyncio.gather(self._pulses(system), stream_detail(self._client))
        except (Unreachable, LookupError, *TRANSIENT):
            return None
        cluster = detail.get("cluster") or {}
        peers = frozenset(str(peer.get("name")) for peer in cluster.get("replicas") or ())
        beating = frozenset(pulse for pulse in pulses if pulse.name in self._replicas)
        return beating, cluster.get("leader"), peers, orjson.dumps(detail["config"])

    async def ask(self) -> Facts:
        try:
            system = await self._connected()
            pulses = await self._pulses(system)
        except AccessRefused:
            return Facts(faults=(f"the system account refuses the login: {MEND}",))
        except NoRespondersError:
            return Facts(faults=(f"the login is none of the system account, for no server answers it: {MEND}",))
        except (Unreachable, *TRANSIENT) as error:
            return Facts(
                missing=(f"the system account cannot be asked ({said_of(error)}): {MEND}, or start its server",)
            )
        return await self._asked(system, pulses)

    async def _asked(self, system: Client, pulses: "list[_Pulse]") -> Facts:
        """Who seems to be away is asked once more: it may be joining just now, and not have been heard of yet."""
        facts = self._silent_by_now(await self._round(system, pulses))
        if facts.stream is not None and facts.stream.silent - {server.name for server in facts.servers}:
            await asyncio.sleep(CONFIRM_S)
            try:
                facts = self._silent_by_now(await self._round(system, await self._pulses(system)))
            except TRANSIENT as error:
                return Facts(missing=(f"the system account cannot be asked ({said_of(error)})",))
        return facts

    def _silent_by_now(self, facts: Facts) -> Facts:
        """A leader hears of each living replica within a second: one that it never heard of is silent after some."""
        if (stream := facts.stream) is None:
            return facts
        now, before = time.monotonic(), self._unheard_since
        unheard = [(stream.leader, name) for name in stream.unheard]
        self._unheard_since = {key: before.get(key, now) for key in unheard}
        silent = {name for (_, name), since in self._unheard_since.items() if now - since > SILENT_S}
        return replace(facts, stream=replace(stream, silent=stream.silent | silent))

    async def _round(self, system: Client, pulses: "list[_Pulse]") -> Facts:
        ids = {pulse.server_id for pulse in pulses}

        def all_answered(found: Mapping[str, Mapping[str, Any]]) -> bool:
            return found.keys() >= ids

        try:
            account = await self._account(system)
            question = {"account": account, "accounts": True, "streams": True, "config": True}
            varz, jsz = await asyncio.gather(
                _answers(system, f"{EVERYONE}.VARZ", enough=all_answered),
                _answers(system, f"{EVERYONE}.JSZ", question, enough=all_answered),
            )
            stream = _told(account, jsz) or await self._untold()
        except LookupError as error:
            return Facts(faults=(f"stream {STREAM} cannot be asked: {error}",))
        except TRANSIENT as error:
            return Facts(missing=(f"stream {STREAM} cannot be asked: {said_of(error)}",))
        self._replicas = frozenset(stream.replicas)
        servers = tuple(ServerFacts.of(answer["data"]) for answer in varz)
        return Facts(servers=servers, stream=stream, everywhere=True)

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting], timeout=ASK_S)
        if self._system is not None:
            await close(self._system)

    async def _connected(self) -> Client:
        """Within the bound; an attempt that takes longer goes on meanwhile."""
        if self._system is not None and not self._system.is_closed:
            return self._system
        connecting = self._connecting or asyncio.create_task(self._connect())
        self._connecting = connecting
        done, _ = await asyncio.wait([connecting], timeout=ASK_S)
        if not done:
            raise TimeoutError(f"not connected within {ASK_S:g} s")
        if self._connecting is connecting:  # another may have waited for the same one
            self._connecting = None
        self._system = connecting.result()
        return self._system

    async def _pulses(self, system: Client) -> "list[_Pulse]":
        """Of every server, or at least of those that have a replica."""

        def all_answered(found: Mapping[str, Mapping[str, Any]]) -> bool:
            # A killed server is counted for a while, also beside its own successor.
            active = max(int(answer["statsz"].get("active_servers") or 1) for answer in found.values())
            names = {answer["server"]["name"] for answer in found.values()}
            return len(found) >= active or (bool(self._replicas) and names >= self._replicas)

        answers = await _answers(system, EVERYONE, enough=all_answered)
        if not answers:
            raise TimeoutError(f"no server answered within {ANSWERS_S:g} s")
        return [
            _Pulse(str(answer["server"]["name"]), str(answer["server"]["id"]), str(answer["statsz"]["start"]))
            for answer in answers
        ]

    async def _account(self, system: Client) -> str:
        """That of `client`, by the word of its server rather than of somebody in that account."""
        server_id, number = connected_server(self._client), self._client.client_id
        question = orjson.dumps({"cid": number, "auth": True})
        try:
            answer = await system.request(f"$SYS.REQ.SERVER.{server_id}.CONNZ", question, timeout=ANSWERS_S)
        except NoRespondersError:
            raise TimeoutError("RELIGHT_NATS_URL leads to a server that is none of the system account's") from None
        for connection in orjson.loads(answer.data)["data"].get("connections") or ():
            return str(connection.get("account"))
        raise TimeoutError("our own connection is not known to its server any more")

    async def _untold(self) -> StreamFacts:
        """Where the account has so many streams that no server's answer fits into one message."""
        return StreamFacts.of(await stream_detail(self._client), alone=connected_server(self._client))


@dataclass(frozen=True)
class _Pulse:
    name: str
    server_id: str
    started: str


async def _answers(
    system: Client,
    subject: str,
    question: object = None,
    *,
    enough: Callable[[Mapping[str, Mapping[str, Any]]], bool],
) -> list[dict[str, Any]]:
    """One from each server, by its id, until there are `enough` or the bound is reached. Raises `NoRespondersError`."""
    inbox, found, ended = system.new_inbox(), dict[str, dict[str, Any]](), asyncio.Event()
    refused = False

    async def on_answer(message: Msg) -> None:
        nonlocal refused
        if not message.data:
            refused = True
            ended.set()
            return
        answer = orjson.loads(message.data)
        found[str(answer["server"]["id"])] = answer
        if enough(found):
            ended.set()

    listening = await system.subscribe(inbox, cb=on_answer)
    try:
        await system.publish(subject, b"" if question is None else orjson.dumps(question), reply=inbox)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), ANSWERS_S)
    finally:
        with suppress(*TRANSIENT):
            await listening.unsubscribe()
    if refused and not found:
        raise NoRespondersError
    return list(found.values())


def _told(account: str, jsz: list[dict[str, Any]]) -> StreamFacts | None:
    """The stream by its leader's own server, else by any that has a replica."""
    told: StreamFacts | None = None
    for answer in jsz:
        name = str(answer["server"]["name"])
        for detail in answer.get("data", {}).get("account_details") or ():
            streams = detail.get("stream_detail") or () if account in (detail.get("name"), detail.get("id")) else ()
            for stream in streams:
                if stream.get("name") == STREAM:
                    facts = StreamFacts.of(stream, alone=name)
                    if facts.leader == name:
                        return facts
                    told = told or facts
    return told
