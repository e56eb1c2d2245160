from ..llm.clients import claude
from ...app.llm import clients as again


async def plan():
    await claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    await again.raw.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
