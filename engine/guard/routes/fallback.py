"""Where a call may go instead: what a caller says of it, checked as the guard is built."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from anthropic import APIRequest, AsyncCallNext, CallNext
from anthropic._base_client import SyncAPIClient

from relight.engine.errors import GuardError
from relight.engine.guard.clients.clients import AnyClient, is_async, is_client, provider_of, region_of, speaks_invoke
from relight.engine.guard.facts import Dependency, Failure
from relight.engine.guard.routes.sending import async_sender, sender

Send = CallNext | AsyncCallNext
Adapt = Callable[[APIRequest], APIRequest]
Body = Mapping[str, Any]

REFUSAL = "refusal"
"""A model's own: its `stop_reason`. It is no failure, and leads on only where a fallback is `on` it."""
EQUALLY_REFUSED = frozenset(
    {
        Failure.INVALID_REQUEST,
        Failure.TOO_LARGE,
        Failure.CLIENT_ERROR,
        Failure.CANCELLED,
        Failure.ABANDONED,
        Failure.DEADLINE,
        Failure.BUDGET,
        Failure.CIRCUIT_OPEN,
    }
)
"""No other route changes anything about these."""
IF_ASKED = frozenset((Failure.AUTHENTICATION, Failure.PERMISSION, Failure.NOT_FOUND, Failure.UNKNOWN, REFUSAL))
"""What one provider may refuse and another not: these lead only to a fallback that is `on` them."""
CHAT, COUNT = "/v1/messages", "/v1/messages/count_tokens"
"""What any client can do: nothing there was made before, at the provider that the caller asked."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """Another place for calls whose own cannot take them: another client (region, provider, address), another model.

    `model`: by which name to ask; where there is none, the caller's, or what `models` makes of it. Bedrock and Vertex
    have names of their own, so it needs one of both there. `on`: failures after which this is tried at once, before
    the retries: `("overloaded", "authentication")`, or `"refusal"`, the stop reason. `adapt` changes the body for it.
    Raises `GuardError` when it says too little, or something that cannot be.
    """

    client: AnyClient | None = None
    model: str | None = field(default=None, kw_only=True)
    reason: str | None = field(default=None, kw_only=True)
    """What stands in the record, before what was the matter with those that were asked first."""
    retries: int | None = field(default=None, kw_only=True)
    """Instead of the policy's."""
    on: Collection[Failure | str] = field(default=(), kw_only=True)
    models: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    region: str | None = field(default=None, kw_only=True)
    """Its name in the breaker's; the client's own where nothing is said."""
    adapt: Callable[[Body], Body] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.client is None and self.model is None and not self.models:
            raise GuardError("a Fallback needs a client or a model: what else would be different?")
        if self.client is not None and not is_client(self.client):
            raise GuardError(
                f"a Fallback's client is one of the SDK's, not {type(self.client).__name__}; a model is named by model="
            )
        if self.retries is not None and self.retries < 0:
            raise GuardError(f"retries of a Fallback must be 0 or more, not {self.retries}")
        object.__setattr__(self, "on", frozenset(_condition(said) for said in self._said()))

    def _said(self) -> Collection[Failure | str]:
        return (self.on,) if isinstance(self.on, str) else self.on

    def name_of(self, model: str, provider: str) -> str | None:
        """By which name it is asked for what the caller calls `model`; None: it does not know."""
        if self.model is not None:
            return self.model
        if (mapped := self.models.get(model)) is not None:
            return mapped
        return model if self.client is not None and provider_of(self.client) == provider else None


def _condition(said: Failure | str) -> Failure | str:
    if said == REFUSAL:
        return REFUSAL
    try:
        failure = Failure(said)
    except ValueError:
        known = ", ".join(sorted({*Failure, REFUSAL} - EQUALLY_REFUSED))
        raise GuardError(f"on={said!r} of a Fallback is no failure; choose from {known}") from None
    if failure in EQUALLY_REFUSED:
        raise GuardError(f"on={failure.value!r} of a Fallback: any other route would refuse or end that call equally")
    return failure


@dataclass(frozen=True, slots=True)
class Place:
    """A fallback as the chain uses it: with what sends there."""

    fallback: Fallback
    send: Send | None
    """None: the caller's own client."""
    provider: str | None
    region: str | None
    counts: bool

    @property
    def on(self) -> frozenset[str]:
        return frozenset(self.fallback.on)

    def named_after(self, first: Dependency) -> Dependency:
        """Its name where nobody knows what it would be asked for."""
        return Dependency(self.provider or first.provider, self.region or first.region, first.model)

    def adapting(self, model: str) -> Adapt:
        """Makes of the caller's request the one that is sent here; the caller's own is not changed."""

        def adapt(request: APIRequest) -> APIRequest:
            body: Body = {**cast("Body", request.json), "model": model}
            options = request.options.model_copy()
            options.json_data = dict(self.fallback.adapt(body)) if self.fallback.adapt else body
            options.idempotency_key = None
            return APIRequest(
                options=options,
                cast_to=request.cast_to,
                stream=request.stream,
                stream_cls=request.stream_cls,
                retries_taken=request.retries_taken,
            )

        return adapt

    def asked_for(self, request: APIRequest, first: Dependency) -> Dependency | str:
        """Whom this request would be sent to; a text says why it cannot be."""
        path = request.url.partition("?")[0]
        other_model = self.fallback.model is not None
        if request.method != "post" or path not in (CHAT, COUNT):
            return f"{path} is only known to the client that was asked"
        if path == COUNT and not self.counts:
            return "it counts no tokens"
        if path == COUNT and other_model and self.send is None:
            return "another model's tokens are others"
        model = self.fallback.name_of(first.model, first.provider)
        if model is None:
            return f"nobody said what it calls {first.model}: see models= of its Fallback"
        return Dependency(self.provider or first.provider, self.region or first.region, model)


def places(fallbacks: Sequence[Fallback], *, provider: str | None, asynchronous: bool | None) -> tuple[Place, ...]:
    """The fallbacks, ready to be sent to; the client that they stand in for is of this provider and kind, if known.

    Raises `GuardError` for one that could never be used.
    """
    return tuple(_place(fallback, provider=provider, asynchronous=asynchronous) for fallback in fallbacks)


def asynchronous_of(fallbacks: Sequence[Fallback]) -> bool | None:
    """Which kind of client they can stand in for; None: any. Raises `GuardError` where they disagree."""
    kinds = {is_async(fallback.client) for fallback in fallbacks if fallback.client is not None}
    if len(kinds) > 1:
        raise GuardError("some fallbacks' clients are async and some are not; a Guard needs them of its client's kind")
    return next(iter(kinds), None)


def _place(fallback: Fallback, *, provider: str | None, asynchronous: bool | None) -> Place:
    client = fallback.client
    if client is None:
        return Place(fallback, None, None, fallback.region, counts=True)
    if asynchronous is not None and is_async(client) != asynchronous:
        first, second = ("an async", "a sync") if asynchronous else ("a sync", "an async")
        raise GuardError(f"{type(client).__name__}, {second} client, cannot be the fallback of {first} one")
    theirs = provider_of(client)
    if theirs != (provider or "anthropic") and fallback.model is None and not fallback.models:
        raise GuardError(
            f"{theirs} has its own names for models: in the Fallback to {type(client).__name__}, name one by model=, "
            f"or all that you call by models={{'…': '…'}}; where {theirs} is guarded itself, say provider='{theirs}'"
        )
    send: Send = async_sender(client) if is_async(client) else sender(_sync(client))
    return Place(fallback, send, theirs, fallback.region or region_of(client), counts=not speaks_invoke(client))


def _sync(client: AnyClient) -> SyncAPIClient:
    assert isinstance(client, SyncAPIClient)
    return client
