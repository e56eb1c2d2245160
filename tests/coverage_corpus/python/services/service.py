"""A service that is given its client by main."""


class Chat:
    def __init__(self, llm, model="m"):
        self._llm = llm
        self.model = model

    async def answer(self, text):
        reply = await self._llm.messages.create(  # expect: call guarded
            model=self.model, max_tokens=1, messages=[text]
        )
        return reply


class Summaries:
    def __init__(self, chat: Chat, llm):
        self.chat = chat
        self.llm = llm

    async def run(self):
        await self.chat._llm.messages.count_tokens(model="m", messages=[])  # expect: call guarded
        return await self.llm.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
