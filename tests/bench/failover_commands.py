"""How many orders on one fleet's routing are answered a second, and how often one comes before another."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from measuring import Bench, Figure

TESTS = Path(__file__).parent.parent
PROCESSES = 4


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    sys.path.append(str(TESTS))
    import clusters
    import commanding_child
    from routing_history import Judge
    from stack import on_stream

    from relight.engine.policies.failover_commands import Rule
    from relight.engine.recorder.recorder import Recorder, RecorderOptions
    from relight.engine.regions.commands import FailoverCommands
    from relight.events.catalog import decode

    rates: list[float] = []
    rulings: list[float] = []
    superseded: list[float] = []
    for round in range(bench.count(5, 1)):
        async with clusters.cluster(*[clusters.STRONG] * 3) as members, clusters.joined(members[0]) as client:
            await clusters.declare(client)
            await clusters.settled(client)
            options = RecorderOptions(nats_url=members[0].url, region="eu", tenant="-", spools=None)
            async with Recorder(options) as recorder:
                commands = FailoverCommands(recorder, "agents")
                await commands.declare(commanding_child.FLEET)
                await commands.override(Rule.TARGET_READY, for_s=3_600, ordered_by="kim", reason="nobody says so here")
            script = str(TESTS / "commanding_child.py")
            children = [
                await asyncio.create_subprocess_exec(
                    *(sys.executable, script, members[n % 3].url, str(100 * round + n), "250"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                for n in range(PROCESSES)
            ]
            for child in children:
                assert child.stdout is not None
                await child.stdout.readline()
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"go\n")
            outputs = [json.loads((await child.communicate())[0]) for child in children]
            messages = [one for one in await on_stream(client) if one.subject == "ctl.failover.-.agents"]
        Judge(dead=frozenset({commanding_child.DEAD})).judge([decode(message.body) for message in messages])
        came = sum((Counter(output["came"]) for output in outputs), Counter[str]())
        longest_s = max(output["s"] for output in outputs)
        rates.append(PROCESSES * 250 / longest_s)
        rulings.append((len(messages) - 2) / longest_s)
        superseded.append(came["superseded"] / max(1, len(messages) - 2))
    note = f"1,000 orders by {PROCESSES} processes on three servers that fsync, all given within a second"
    yield Figure(name="orders on a routing answered", unit="/s", ours=rates, note=note)
    yield Figure(name="of them ruled", unit="/s", ours=rulings, note="the others were refused with their rule")
    yield Figure(name="superseded, for each ruling", unit="", ours=superseded, note="each of them was checked again")
