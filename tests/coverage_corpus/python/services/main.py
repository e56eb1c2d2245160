import relight
from anthropic import AsyncAnthropic

from services.service import Chat, Summaries


async def main():
    raw = AsyncAnthropic()  # expect: client unguarded
    chat = Chat(relight.guarded(AsyncAnthropic()))  # expect: client guarded
    await chat.answer("x")
    await Summaries(chat, raw).run()
