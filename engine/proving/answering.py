"""Says over NATS what a prober found, to whoever asks, and to all when it changes."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from relight.engine.proving.models import Attestation
from relight.engine.proving.prober import Prober
from relight.engine.proving.questions import PUSHED, QUESTION, Answer, Notice, Question

QUEUE = "probers"


@asynccontextmanager
async def answering(client: Client, prober: Prober) -> AsyncIterator[None]:
    """The prober is at work, and answers, until the `with` ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(message: Msg) -> None:
        with suppress(ValidationError, NatsError, OSError):
            question = Question.model_validate_json(message.data)
            found = await prober.attest(fresh=question.fresh)
            await message.respond(Answer(nonce=question.nonce, attestation=found).model_dump_json().encode())

    async def on_question(message: Msg) -> None:
        # Beside each other: while one waits for the servers, those who may have what is held are answered.
        _kept(tasks, answer(message))

    async def push(attestation: Attestation) -> None:
        with suppress(NatsError, OSError):
            await client.publish(PUSHED, Notice(proven=attestation.proven).model_dump_json().encode())

    prober.changed = lambda attestation: _kept(tasks, push(attestation))
    listening = await client.subscribe(QUESTION, queue=QUEUE, cb=on_question)
    running = asyncio.create_task(prober.run(), name="prober")
    try:
        yield
    finally:
        running.cancel()
        with suppress(NatsError, OSError):
            await listening.unsubscribe()
        for task in tasks:
            task.cancel()
        await asyncio.wait([running, *tasks])
        await prober.close()


def _kept(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
