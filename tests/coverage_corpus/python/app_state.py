"""Clients kept on the application."""

from contextlib import asynccontextmanager

import relight
from anthropic import AsyncAnthropic
from fastapi import FastAPI, Request


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.claude = relight.guarded(AsyncAnthropic())  # expect: client guarded
    app.state.plain = AsyncAnthropic()  # expect: client unguarded
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/ask")
async def ask(request: Request):
    await request.app.state.claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    await request.app.state.plain.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
