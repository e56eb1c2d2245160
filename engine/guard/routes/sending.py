"""One attempt through another client, for a caller who asked the first one."""

import re
from typing import Any, cast

from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware
from anthropic._base_client import AsyncAPIClient, SyncAPIClient
from anthropic._models import FinalRequestOptions

from relight.engine.guard.clients.clients import unguarded

CREDENTIALS = frozenset(
    (
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-amz-security-token",
        "x-api-key",
        "x-goog-api-key",
        "x-goog-user-project",
    )
)
"""Headers of a request that are meant for the provider it was made for, and for nobody else."""
_SECRETIVE = re.compile(r"auth|cookie|credential|passw|secret|signature|token|(^|[-_])(key|pat|jwt)($|[-_])|apikey")
"""In the names of those that gateways of somebody's own are opened with."""


class _Whole:
    """An answer of any status. The SDK hands on what a middleware returns as it is, unless it is an `APIResponse`."""

    __slots__ = ("response",)

    def __init__(self, response: APIResponse[Any] | AsyncAPIResponse[Any]) -> None:
        self.response = response


class _HandOver(Middleware):
    """The outermost middleware: errors in the status come back as answers, bodies of streams unread."""

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        return cast("APIResponse[Any]", _Whole(call_next(request)))

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        return cast("AsyncAPIResponse[Any]", _Whole(await call_next(request)))


def is_credential(name: str) -> bool:
    """Whether a header of that name may open something."""
    return name.lower() in CREDENTIALS or _SECRETIVE.search(name.lower()) is not None


def sender(client: SyncAPIClient) -> CallNext:
    """Sends a request of another client through this one, with its middlewares, and once."""
    once = _once(client)

    def send(request: APIRequest) -> APIResponse[Any]:
        answered: object = once.request(
            request.cast_to, _options(request), stream=request.stream, stream_cls=request.stream_cls
        )
        return cast("APIResponse[Any]", answered.response if isinstance(answered, _Whole) else answered)

    return send


def async_sender(client: AsyncAPIClient) -> AsyncCallNext:
    """`sender` for asynchronous clients."""
    once = _once(client)

    async def send(request: APIRequest) -> AsyncAPIResponse[Any]:
        answered: object = await once.request(
            request.cast_to, _options(request), stream=request.stream, stream_cls=request.stream_cls
        )
        return cast("AsyncAPIResponse[Any]", answered.response if isinstance(answered, _Whole) else answered)

    return send


def _once(client: Any) -> Any:
    """Its connections, its credentials; no retries, no guard, and no span: the call has that of the first client."""
    return client.with_options(max_retries=0, middleware=[_HandOver(), *unguarded(client)], open_telemetry=False)


def _options(request: APIRequest) -> FinalRequestOptions:
    """The body is not copied: it may be megabytes, and clients that rewrite it do so in a copy of theirs."""
    options = request.options.model_copy()
    options.max_retries = 0
    options.headers = {name: value for name, value in request.headers.items() if not is_credential(name)}
    return options
