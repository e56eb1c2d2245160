"""What a client's calls depend on: a provider by OpenTelemetry's name, and a region; and what a path asks for."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from anthropic._base_client import BaseClient

ANTHROPIC = "anthropic"
GLOBAL = "global"
CHAT = "chat"
_OWN_HOSTS = frozenset({"api.anthropic.com"})
_WORD = re.compile(r"[a-z_]+")


def endpoint(client: BaseClient[Any, Any]) -> tuple[str, str]:
    """Provider and region; a client of another address has its host for a region, since it may fail alone.

    A platform that Anthropic itself runs on another's ground is a region of anthropic's, as `aws.us-east-1`.
    """
    provider, platform = client._gen_ai_provider_name, client._otel_platform
    url = client.base_url
    host = url.host if url.port is None else f"{url.host}:{url.port}"
    for name in ("aws_region", "region", "_location"):
        if isinstance(region := getattr(client, name, None), str) and region:
            break
    else:
        region = GLOBAL if host in _OWN_HOSTS or not host else host
    return provider, f"{platform}.{region}" if platform and provider == ANTHROPIC else region


@lru_cache(maxsize=1_024)
def operation(method: str, path: str) -> str:
    """`chat` for a message, else the last word of the path that is no id, as `count_tokens` or `batches`."""
    words = [word for word in path.partition("?")[0].split("/") if _WORD.fullmatch(word)]
    if not words:
        return method.lower()
    return CHAT if words[-1] == "messages" and method.lower() == "post" else words[-1]


def model_of(body: object) -> str:
    """The model that a request names; `-` where it names none."""
    model = body.get("model") if isinstance(body, Mapping) else None
    return model if isinstance(model, str) and model else "-"
