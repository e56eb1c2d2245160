"""Waits, as a process, until events are visible: `visible_process.py DATABASE_URL`, lines `<monotonic ns> <event id>`.

Polls by primary key, and only while something is waited for; says at the end how long each took and how far apart the
polls were, in milliseconds.
"""

import asyncio
import json
import sys
import time

import asyncpg

PAUSE_S = 0.001
SQL = "SELECT event_id::text FROM decision_audit_logs WHERE tenant = 'acme' AND event_id = ANY($1::uuid[])"


async def main(url: str) -> None:
    connection = await asyncpg.connect(url)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    waiting: dict[str, int] = {}
    fresh_ms, poll_ms = [], []

    async def take() -> None:
        while line := await reader.readline():
            recorded_ns, event_id = line.decode().split()
            waiting[event_id] = int(recorded_ns)

    await connection.fetch(SQL, [])
    taking = asyncio.create_task(take())
    print("ready", flush=True)
    polled_ns = None
    while waiting or not taking.done():
        if not waiting:
            polled_ns = None
            await asyncio.sleep(PAUSE_S)
            continue
        found = await connection.fetch(SQL, list(waiting))
        now_ns = time.monotonic_ns()
        if polled_ns is not None:
            poll_ms.append((now_ns - polled_ns) / 1e6)
        polled_ns = now_ns
        for (event_id,) in found:
            fresh_ms.append((now_ns - waiting.pop(event_id)) / 1e6)
        await asyncio.sleep(PAUSE_S)
    print(json.dumps({"fresh_ms": fresh_ms, "poll_ms": poll_ms}), flush=True)
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
