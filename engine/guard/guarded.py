"""One line of change: a client of the same type, whose calls are guarded."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from relight.engine.errors import GuardError
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.clients.clients import is_async, is_client, provider_of
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording.content import Redact
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight

ClientT = TypeVar("ClientT")


def guarded(
    client: ClientT,
    recorder: Recorder | Relight | SyncRelight,
    policy: GuardPolicy | None = None,
    *,
    provider: str | None = None,
    region: str | None = None,
    fallbacks: Sequence[Fallback] = (),
    budgets: Budgets | None = None,
    breakers: Breakers | None = None,
    redact: Sequence[Redact] = (),
) -> ClientT:
    """A copy of `client` that shares its connections; its own retries are off, its innermost middleware is a `Guard`.

    One that is guarded in the same way already comes back as it is. Raises `GuardError` for one that another guard
    serves, and for what is no client of the SDK's.
    """
    if not is_client(client):
        raise GuardError(f"a {type(client).__name__} is no client of the anthropic SDK: it cannot be guarded")
    guard = Guard(
        recorder,
        policy,
        provider=provider or provider_of(client),
        region=region,
        fallbacks=fallbacks,
        budgets=budgets,
        breakers=breakers,
        redact=redact,
        asynchronous=is_async(client),
    )
    others = [entry for entry in client.middleware if isinstance(entry, Guard)]
    if not others:
        middleware: tuple[object, ...] = (*client.middleware, guard)
    elif len(others) == 1 and others[0].does_as(guard):
        if client.max_retries == 0:
            return cast("ClientT", client)
        middleware = client.middleware
    else:
        raise GuardError(
            f"this {type(client).__name__} has a guard already, and with two of them its attempts would multiply: "
            "guard the client that it was made of"
        )
    return cast("ClientT", cast("Any", client).with_options(max_retries=0, middleware=middleware))
