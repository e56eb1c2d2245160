"""What a client of the SDK is: its provider, its region, whether it is asynchronous."""

from typing import Any, TypeGuard

from anthropic._base_client import AsyncAPIClient, BaseClient, SyncAPIClient

AnyClient = SyncAPIClient | AsyncAPIClient
"""Anthropic, Bedrock, Vertex and the rest; those of Bedrock and Vertex are no subclasses of `Anthropic`."""

PROVIDERS = {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai"}
"""OpenTelemetry's names, by what stands in the name of a client's class; Foundry and the like are `anthropic`."""
ANTHROPIC = "anthropic"
ANYWHERE = "global"
HOST = "api.anthropic.com"


def provider_of(client: object) -> str:
    """`anthropic`, `aws.bedrock` or `gcp.vertex_ai`."""
    name = _class_name(client)
    return next((provider for part, provider in PROVIDERS.items() if part in name), ANTHROPIC)


def region_of(client: AnyClient) -> str:
    """The region that the client names; else the host that it asks, `global` for Anthropic's own."""
    region: object = getattr(client, "aws_region", None) or getattr(client, "region", None)
    if isinstance(region, str):
        return region
    url = client.base_url
    if url.host == HOST:
        return ANYWHERE
    return url.host if url.port is None else f"{url.host}:{url.port}"


def speaks_invoke(client: object) -> bool:
    """Whether it rewrites messages to Bedrock's InvokeModel, which counts no tokens."""
    return provider_of(client) == "aws.bedrock" and "mantle" not in _class_name(client)


def is_async(client: object) -> TypeGuard[AsyncAPIClient]:
    return isinstance(client, AsyncAPIClient)


def is_client(client: object) -> TypeGuard[AnyClient]:
    return isinstance(client, BaseClient)


def unguarded(client: AnyClient) -> tuple[Any, ...]:
    """The client's middlewares but for a `Guard`: below another guard its attempts would multiply."""
    return tuple(entry for entry in client.middleware if not is_guard(entry))


def is_guard(middleware: object) -> bool:
    """By name: this file cannot import the guard, which imports it."""
    kinds = type(middleware).__mro__
    return any(kind.__name__ == "Guard" and kind.__module__.startswith("relight.engine.guard") for kind in kinds)


def _class_name(client: object) -> str:
    """Of the SDK's class, of which the client's own may be a subclass."""
    for kind in type(client).__mro__:
        if kind.__module__.startswith("anthropic."):
            return kind.__name__.lower()
    return type(client).__name__.lower()
