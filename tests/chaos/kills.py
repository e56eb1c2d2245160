"""Kill rounds: a random victim at a random moment under load, again and again; then everything is counted."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from chaos_plan import ChaosPlan
from kept import NOTHING_ELSE, SERVERS, Kept, look
from kill_figures import Kill, Victim, tell
from killing import KillScene, NotAtRest, kill_scene, killed
from ledger import Told
from reporting import Report, Step

PUBLISHERS, PROJECTORS = 4, 2
LEAST_MOMENT_S = 0.02
"""After the round before, and once stream and tables go on after the last kill of what they need."""
STILL_S = 60.0
DOWN_S = (0.0, 0.3)
ADOPTING_S = (0.0, 0.4)
LOT: dict[Victim, int] = {"publisher": 4, "drainer": 2, "projector": 3, "NATS": 2, "PostgreSQL": 2}
"""How often each is drawn."""


async def play(plan: ChaosPlan, report: Report, step: Step) -> None:
    """Scenes of `plan.scene_rounds` kills each."""
    kills: list[Kill] = []
    kept, told, checks, began = Kept(), Counter[str](), 0, time.monotonic()
    still_s: dict[str, list[float]] = {"stream": [], "tables": []}
    while len(kills) < plan.rounds:
        number = len(kills) // plan.scene_rounds + 1
        rounds = min(plan.scene_rounds, plan.rounds - len(kills))
        name = f"scene {plan.seed}-{number}"
        scene = kill_scene(name, publishers=PUBLISHERS, projectors=PROJECTORS, logs=plan.logs, step=step)
        async with scene as here:
            playing = Playing(here, plan, number, first=len(kills), step=step)
            try:
                await playing.rounds(rounds)
                await playing.end()
            except NotAtRest as error:
                playing.kept.lacks(NOTHING_ELSE, [f"not at rest: {error}"])
        kills += playing.kills
        checks += playing.checks
        kept.add(playing.kept)
        told.update(playing.told)
        for what, seconds in playing.stood_still_s.items():
            still_s[what] += seconds
        if len(playing.kills) < rounds:
            break  # it came to nothing: no use in going on
    tell(report, plan, kills, kept, told, still_s, checks, time.monotonic() - began)


class Playing:
    """The rounds of one scene."""

    def __init__(self, scene: KillScene, plan: ChaosPlan, number: int, *, first: int, step: Step) -> None:
        self._scene, self._plan, self._number, self._first, self._step = scene, plan, number, first, step
        self._chance = random.Random(f"{plan.seed} scene {number}")
        self._began = time.monotonic()
        self._down: dict[str, asyncio.Task[None]] = {}
        self._standing: list[asyncio.Task[None]] = []
        self.stood_still_s: dict[str, list[float]] = {"stream": [], "tables": []}
        """From the kill of a server or projector until there was more."""
        self.kills: list[Kill] = []
        self.kept = Kept()
        self.told = Counter[str]()
        self.checks = 0

    async def rounds(self, rounds: int) -> None:
        for done in range(rounds):
            if done and done % self._plan.check_rounds == 0:
                await self.check()
            self._say(done, rounds)
            await asyncio.sleep(self._chance.uniform(LEAST_MOMENT_S, self._plan.moment_s))
            await self._round()

    def _say(self, done: int, rounds: int) -> None:
        if done % 10 == 0:
            so_far, scene = self._first + done, self._scene
            at = f"stream {scene.seq:,}, tables {scene.projected_seq:,}"
            self._step(f"{scene.name}: {so_far} of {self._plan.rounds} kills; {at}")

    async def _round(self) -> None:
        victim = self._chance.choices(list(LOT), list(LOT.values()))[0]
        draw, down_s = self._chance.random(), self._chance.uniform(*DOWN_S)
        kill, key = self._aimed(victim, draw, down_s)
        if (before := self._down.get(key)) is not None:
            await before  # who is down already is up again first; others may well be down meanwhile
        if victim != "publisher":
            await self._gone_on()
        await kill()

    async def _gone_on(self) -> None:
        """Kills must not come faster than what they hit can work, or nothing would be on its way."""
        standing, self._standing = self._standing, []
        await asyncio.gather(*standing)

    def _stands_still(self, what: Literal["stream", "tables"]) -> None:
        self._standing.append(asyncio.create_task(self._moves_again(what)))

    async def _moves_again(self, what: Literal["stream", "tables"]) -> None:
        scene, began = self._scene, time.monotonic()

        def seq() -> int:
            return scene.seq if what == "stream" else scene.projected_seq

        before = seq()
        while seq() <= before:
            if time.monotonic() - began > STILL_S:
                raise NotAtRest(f"{scene.name}: the {what} stood still at {before} for {STILL_S:g} s after a kill")
            await asyncio.sleep(0.01)
        self.stood_still_s[what].append(time.monotonic() - began)

    def _aimed(self, victim: Victim, draw: float, down_s: float) -> tuple[Callable[[], Coroutine[Any, Any, None]], str]:
        place = int(draw * (PROJECTORS if victim == "projector" else PUBLISHERS))
        match victim:
            case "publisher":
                return lambda: self._kill_publisher(place, down_s), f"publisher {place}"
            case "drainer":
                return lambda: self._kill_drainer(place, down_s), "drainer"
            case "projector":
                return lambda: self._kill_projector(place, down_s), f"projector {place}"
            case "NATS":
                return lambda: self._kill_nats(down_s), "NATS"
            case "PostgreSQL":
                return lambda: self._kill_postgres(draw, down_s), "PostgreSQL"

    async def _kill_publisher(self, place: int, down_s: float) -> None:
        publishing = self._scene.publishers[place]
        assert publishing.process is not None
        seen = self._seen()
        await killed(publishing.process)
        await self._note("publisher", "its recorder and drainer with it", down_s, seen)

        async def again() -> None:
            await asyncio.sleep(down_s)
            self._scene.start_publisher(publishing)

        self._restart(f"publisher {place}", again())

    async def _kill_drainer(self, place: int, down_s: float) -> None:
        """Two publishers die; whoever takes the spool of one and drains that of the other dies while it does."""
        scene = self._scene
        dying = [scene.publishers[place], scene.publishers[(place + 1) % PUBLISHERS]]
        for publishing in dying:
            if (restarting := self._down.get(f"publisher {publishing.number}")) is not None:
                await restarting
        for publishing in dying:
            assert publishing.process is not None
            await killed(publishing.process)
        adopter = scene.start_adopter()
        await asyncio.sleep(self._chance.uniform(*ADOPTING_S))
        seen = self._seen()
        await killed(adopter)
        await self._note("drainer", "two publishers, then whoever drains what they left", down_s, seen)

        async def again() -> None:
            await asyncio.sleep(down_s)
            for publishing in dying:
                scene.start_publisher(publishing)

        task = self._restart("drainer", again())
        for publishing in dying:
            self._down[f"publisher {publishing.number}"] = task

    async def _kill_projector(self, place: int, down_s: float) -> None:
        seen = self._seen()
        await killed(self._scene.projectors[place])
        self._stands_still("tables")
        await self._note("projector", "one of two", down_s, seen)

        async def again() -> None:
            await asyncio.sleep(down_s)
            self._scene.start_projector(place)

        self._restart(f"projector {place}", again())

    async def _kill_nats(self, down_s: float) -> None:
        scene, seen = self._scene, self._seen()
        await scene.nats.kill()
        self._stands_still("stream")
        await self._note("NATS", "the server", down_s, seen)

        async def again() -> None:
            await asyncio.sleep(down_s)
            await scene.nats.start()
            await scene.nats_held(seen[0])
            self.kept.counts[SERVERS] += 1

        self._restart("NATS", again())

    async def _kill_postgres(self, draw: float, down_s: float) -> None:
        scene, seen = self._scene, self._seen()
        backend = scene.a_backend(draw * 7 % 1)
        how = ("the server", "all its processes", "one session's process")[int(draw * 3)]
        if how == "one session's process" and backend is not None:
            os.kill(backend, signal.SIGKILL)
        elif how == "all its processes":
            await scene.kill_all_of_postgres()
        else:
            await scene.postgres.kill()
        self._stands_still("tables")
        await self._note("PostgreSQL", how, down_s, seen)

        async def again() -> None:
            if not scene.postgres.running:
                await asyncio.sleep(down_s)
                await scene.postgres.start()
                await scene.postgres_held(seen[1])
                self.kept.counts[SERVERS] += 1

        self._restart("PostgreSQL", again())

    def _seen(self) -> tuple[int, int]:
        return self._scene.seq, self._scene.projected_seq

    async def _note(self, victim: Victim, how: str, down_s: float, seen: tuple[int, int]) -> None:
        self.kills.append(
            Kill(
                round=self._first + len(self.kills) + 1,
                scene=self._number,
                victim=victim,
                how=how,
                at_s=time.monotonic() - self._began,
                seq=seen[0],
                projected_seq=seen[1],
                spooled_events=await asyncio.to_thread(self._scene.exposed),
                down_s=down_s,
            )
        )

    def _restart(self, key: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        self._down[key] = task = asyncio.create_task(work)
        return task

    async def _all_up(self) -> None:
        await self._gone_on()
        await asyncio.gather(*self._down.values())
        self._down.clear()

    async def check(self) -> None:
        """A checkpoint: nobody records, all is in the tables, everything is compared; then it goes on."""
        await self._at_rest()
        self._scene.go_on()

    async def end(self) -> None:
        """The last of them, after every publisher has said that it closes."""
        await self._all_up()
        await self._scene.rest()
        await self._scene.end_publishers()
        await self._at_rest()
        for kill in self.kills:
            kill.end_seq = self._scene.seq

    async def _at_rest(self) -> None:
        scene = self._scene
        await self._all_up()
        self._step(f"{scene.name}: at rest, comparing {scene.seq:,} events")
        await scene.rest()
        told = Told.read(scene.ledgers)
        found = await look(told, nats_url=scene.nats.url, database_url=scene.postgres.url)
        found.lacks(SERVERS, scene.went_back)
        found.counts[SERVERS] = self.kept.counts[SERVERS]
        self.checks += 1
        # Each check looks at the whole scene: the last one's counts stand, but whatever any of them found.
        for promise, lacking in self.kept.broken.items():
            found.lacks(promise, (one for one in lacking if one not in found.broken[promise]))
        self.kept = found
        self.told = Counter(
            spooled=len(told.spooled),
            replicated=len(told.replicated),
            projected=len(told.projected),
            contents=len(told.contents),
            won=len(told.won),
            superseded=len(told.superseded),
        )
