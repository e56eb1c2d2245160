"""The outermost layer of the API: every answer's headers, and no error that gets past it."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relight.engine.http.problems import response_to

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
EXTRA = "relight.headers"
"""Key of the scope: headers that an answer gets whatever comes of it."""


class Edge:
    """A pure ASGI middleware: BaseHTTPMiddleware would cost a task and a queue for each request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        extra: list[tuple[bytes, bytes]] = []
        scope[EXTRA] = extra
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                said = {name.lower() for name, _ in headers}
                headers += [header for header in (*extra, *SECURITY) if header[0] not in said]
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            return  # nobody is there to be told
        except Exception as error:  # the edge: whatever it is becomes a problem, and a line in the log
            answer = response_to(error)
            if started:
                raise
            await answer(scope, receive, sending)
