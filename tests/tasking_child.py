"""Worker processes to be killed: forked once everything is imported, each works on a queue and prints what it does."""

import asyncio
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import orjson

from relight.engine.errors import TaskFenced
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.tasks.task import Task
from relight.engine.tasks.working import Working
from relight.events.catalog import prepare

HOW: dict[str, Any] = orjson.loads(sys.argv[1])


def say(what: str, **more: Any) -> None:
    os.write(1, orjson.dumps({"what": what, "pid": os.getpid(), **more}) + b"\n")  # one write: lines stay whole


def fails(task: Task) -> bool:
    """One attempt in so many, by chance that the test can tell beforehand."""
    every = HOW.get("fails_every")
    return every is not None and zlib.crc32(f"{task.id} {task.attempt}".encode()) % every == 0


async def main(number: int) -> None:
    spools = Path(HOW["folder"]) / f"child-{os.getpid()}"
    options = RecorderOptions(nats_url=HOW["nats_url"], region=HOW.get("region", "eu"), tenant="-", spools=spools)
    with Recorder(options) as recorder:
        working = Working(recorder)

        @working.register(HOW["queue"], concurrency=HOW.get("concurrency", 1), backoff_s=0.05)
        async def work(task: Task) -> str:
            say("begun", task=task.id, tenant=task.tenant, epoch=task.epoch)
            try:
                await asyncio.sleep(HOW.get("takes_s", 0.0))
                if fails(task):
                    raise RuntimeError("as it was asked to")
                if HOW.get("has_an_effect"):
                    async with task.effect("charge") as key:
                        say("effect", task=task.id, epoch=task.epoch, key=key)
            except asyncio.CancelledError:
                say("cancelled", task=task.id, epoch=task.epoch)
                raise
            except TaskFenced as error:
                say("fenced", task=task.id, epoch=task.epoch, owner=error.owner, new_epoch=error.new_epoch)
                raise
            say("done", task=task.id, epoch=task.epoch)
            return task.id

        async with working.working(drain_s=2) as worker:
            say("works", id=worker.id)
            await asyncio.sleep(3600)


if __name__ == "__main__":
    prepare()
    for number in range(HOW["workers"]):
        if os.fork() == 0:
            asyncio.run(main(number))
            os._exit(0)
    for _ in range(HOW["workers"]):
        os.wait()
