from aiohttp import web

from app import deps as dependencies
from app.retrieve import answer, rerank

routes = web.RouteTableDef()


@routes.post("/ask")
async def ask(request):
    documents = await rerank(request.app["deps"], ["a"])
    async with dependencies.make_deps({"region": "eu", "key": "k"}) as deps:
        return web.json_response(await answer(deps, documents))
