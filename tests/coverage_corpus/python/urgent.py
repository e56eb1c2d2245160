"""Places of different urgency."""

import relight
from anthropic import Anthropic, AsyncAnthropic
from celery import shared_task
from fastapi import APIRouter

router = APIRouter()
client = Anthropic()  # expect: client unguarded
aclient = AsyncAnthropic()  # expect: client unguarded


@router.post("/chat")
async def chat(text: str):
    return await aclient.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


@shared_task
def nightly(texts):
    for text in texts:
        client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


class ResearchAgent:
    def run(self, messages):
        response = client.messages.create(model="m", max_tokens=1, messages=messages)  # expect: call unguarded
        while response.stop_reason == "tool_use":
            response = client.messages.create(model="m", max_tokens=1, messages=messages)  # expect: call unguarded
        return response


def helper(text):
    return client.messages.create(model="m", max_tokens=1, messages=[text])  # expect: call unguarded


def once():
    return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


@router.get("/helped")
def helped(text: str):
    return helper(text)
