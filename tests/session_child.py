"""An owner of a task in a process of its own: goes through its steps, and hangs in the one that it is told to."""

import asyncio
import json
import sys
from pathlib import Path

from sessioning import PLAN, TENANT, Refunds, bytes_of, claimed, went_on

from relight.engine import scope
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions

nats_url, spools, region, task_id, hangs_in = sys.argv[1:6]


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main() -> None:
    options = RecorderOptions(nats_url=nats_url, region=region, tenant=TENANT, spools=Path(spools), ack_timeout_s=20)
    async with Recorder(options) as recorder:
        with scope.entered(tenant=TENANT, agent="refunds"):
            task = await claimed(recorder, task_id, f"w-{region}")
            async with task.session(Refunds) as session:
                say(at=session.step, state=bytes_of(session.state).hex(), epoch=task.epoch)
                async for step in session.remaining(PLAN):
                    if step == hangs_in:
                        async with task.effect(f"charge in {step}"):
                            pass
                        await task.did("announced").reached(Ack.SPOOLED)
                        say(hangs=step, state=bytes_of(session.state).hex())
                        await asyncio.Event().wait()
                    if step == "step-11":
                        async with task.effect(f"charge in {step}"):
                            pass
                    await session.checkpoint(went_on(session.state, step))
                say(ended=session.step, state=bytes_of(session.state).hex())


asyncio.run(main())
