"""Server-sent events out of a generator."""

from anthropic import AsyncAnthropic
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

claude = AsyncAnthropic()  # expect: client unguarded


async def deltas(prompt):
    async with claude.messages.stream(model="m", max_tokens=1, messages=[prompt]) as stream:  # expect: call unguarded
        async for text in stream.text_stream:
            yield f"data: {text}\n\n"


async def endpoint(request):
    return StreamingResponse(deltas(request.query_params["q"]))


app = Starlette(routes=[Route("/stream", endpoint)])
