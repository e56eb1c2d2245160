"""dependency_injector."""

import relight
from anthropic import AsyncAnthropic
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide, inject


class Asker:
    def __init__(self, client):
        self.client = client

    async def ask(self):
        return await self.client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


class Container(containers.DeclarativeContainer):
    config = providers.Configuration()
    raw = providers.Singleton(AsyncAnthropic, api_key=config.key)  # expect: client unguarded
    safe = providers.Singleton(relight.guarded, raw)
    asker = providers.Factory(Asker, client=raw)


@inject
async def with_wiring(client: AsyncAnthropic = Provide[Container.safe]):
    return await client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded


async def main():
    container = Container()
    await container.raw().messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    await container.safe().messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
    await container.asker().ask()
