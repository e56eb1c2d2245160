from app.deps import Deps

PROMPT = {"role": "user", "content": "which?"}


async def rerank(deps: Deps, documents):
    scores = []
    for document in documents:
        reply = await deps.cheap.messages.create(  # expect: call unguarded
            model="m", max_tokens=1, messages=[PROMPT | {"content": document}]
        )
        scores.append(reply)
    return scores


async def answer(deps, question):
    create = deps.claude.beta.messages.create
    return await create(model="m", max_tokens=1, messages=[question], betas=["x"])  # expect: call guarded
