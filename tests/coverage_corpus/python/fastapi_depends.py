"""FastAPI's dependencies."""

from typing import Annotated

import relight
from anthropic import AsyncAnthropic
from fastapi import Depends, FastAPI

app = FastAPI()


def get_safe():
    return relight.guarded(AsyncAnthropic())  # expect: client guarded


async def get_raw():
    client = AsyncAnthropic()  # expect: client unguarded
    try:
        yield client
    finally:
        await client.close()


Safe = Annotated[AsyncAnthropic, Depends(get_safe)]


@app.post("/safe")
async def safe(text: str, client: Safe):
    return await client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call guarded


@app.post("/raw")
async def raw(text: str, client: AsyncAnthropic = Depends(get_raw)):
    return await client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


@app.get("/inline")
async def inline(client: Annotated[AsyncAnthropic, Depends(get_safe)]):
    return await client.messages.count_tokens(model="m", messages=[])  # expect: call guarded
