"""How long it takes from a region's SIGKILL to its isolation, and what heartbeats cost: `detecting.py [ROUNDS]`."""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import clusters
import stack
from region_child import REGIONS

from relight.engine.log.topology import connect
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, WORKER, Heartbeats
from relight.events.catalog import decode_message

CHILD = str(Path(__file__).parents[1] / "region_child.py")
COST_S = 20.0


class Child:
    def __init__(self, url: str, region: str) -> None:
        command = [sys.executable, CHILD, url, region, SERVICE, region, "default"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def standing(self, name: str) -> tuple[str, float] | None:
        found = [(one["standing"], one["at"]) for one in self.said if one.get("name") == name]
        return found[-1] if found else None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


async def seen(children: dict[str, Child], name: str, standing: str) -> float:
    """When the last of the others saw it."""
    others = [child for region, child in children.items() if region != name or len(children) == 1]

    def all_see() -> list[float]:
        found = [child.standing(name) for child in others]
        return [one[1] for one in found if one is not None and one[0] == standing] if None not in found else []

    await stack.until(lambda: len(all_see()) == len(others), f"{name} {standing}", within_s=60)
    return max(all_see())


async def rounds(count: int, seed: int) -> None:
    chance = random.Random(seed)
    async with AsyncExitStack() as opened:
        members = await opened.enter_async_context(clusters.cluster(*[clusters.STRONG] * 3))
        where = dict(zip(REGIONS, members, strict=True))
        async with clusters.joined(members[0]) as client:
            await clusters.declare(client)
        children = {region: Child(member.url, region) for region, member in where.items()}
        for child in children.values():
            opened.callback(child.end)
        for region in REGIONS:
            await seen(children, region, "alive")
        figures: list[dict[str, Any]] = []
        for _ in range(count):
            await asyncio.sleep(chance.uniform(3, 5))
            victim = chance.choice(REGIONS)
            survivor = next(where[region] for region in REGIONS if region != victim)
            client = await connect(survivor.url, name="relight bench")
            leading = await clusters.leader(client) == where[victim].name
            killed_at = time.time()
            children[victim].process.kill()
            where[victim].stop()
            seen_at = await seen(children, victim, "isolated")
            await stack.until(lambda: client.is_connected)  # noqa: B023
            events = [
                (one, decode_message(one.subject, one.body, one.timestamp_ms)) for one in await stack.on_stream(client)
            ]
            of_it = [
                (m, e) for m, e in events if e.data.entity == f"region:{victim}" and e.time.timestamp() > killed_at
            ]
            votes = [e.time.timestamp() - killed_at for _, e in of_it if e.type == "faults.suspected"]
            isolated = [m.timestamp_ms / 1_000 - killed_at for m, e in of_it if e.type == "faults.isolated"]
            wrong = [e for _, e in events if e.type == "faults.suspected" and e.time.timestamp() > killed_at]
            wrong = [e for e in wrong if e.data.entity != f"region:{victim}"]
            figures.append(
                {
                    "victim": victim,
                    "led_stream": leading,
                    "votes_s": [
                        round(one, 2) for one in sorted(votes)
                    ],  # none: they come after the ruling, for an election
                    "isolated_s": round(isolated[0], 2),
                    "all_know_s": round(seen_at - killed_at, 2),
                    "votes_on_others": len(wrong),
                }
            )
            print(json.dumps(figures[-1]), flush=True)
            await client.close()
            where[victim].start()
            children[victim].end()
            children[victim] = Child(where[victim].url, victim)
            opened.callback(children[victim].end)
            await seen(children, victim, "alive")
            for region in REGIONS:
                await seen({victim: children[victim]}, region, "alive")
        for name in ("isolated_s", "all_know_s"):
            values = [figure[name] for figure in figures]
            print(f"{name}: p50 {statistics.median(values):.2f}, max {max(values):.2f}, n {len(values)}", flush=True)


async def cost() -> None:
    """CPU of one process, in per cent of a core."""
    async with stack.nats_server() as nats:
        with Recorder(stack.options(nats)) as here, Recorder(stack.options(nats, region="us")) as others:
            await stack.until(lambda: here.health().failure is None and others.health().failure is None)

            async def measured(what: str) -> None:
                began, wall = time.process_time(), time.monotonic()
                await asyncio.sleep(COST_S)
                share = (time.process_time() - began) / (time.monotonic() - wall)
                print(f"{what}: {share * 100:.2f} % of a core", flush=True)

            await measured("two recorders alone")
            beats = Heartbeats(here, SERVICE, "eu")
            running = [here.in_loop(beats.run())]
            await measured("and one sends heartbeats every 0.5 s")
            heard = Heard(here)
            running.append(here.in_loop(heard.run()))
            await measured("and hears them")
            workers = [Heartbeats(others, WORKER, f"w{n}") for n in range(100)]
            running += [others.in_loop(worker.run()) for worker in workers]
            await measured("and a hundred workers send, in this process, too")
            for future in running:
                future.cancel()


if __name__ == "__main__":
    if sys.argv[1:] == ["cost"]:
        asyncio.run(cost())
    else:
        asyncio.run(rounds(int(sys.argv[1]) if sys.argv[1:] else 10, seed=1))
