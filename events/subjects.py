"""Where an event is published: one subject follows from its body, and no value can inject a token."""

from functools import lru_cache
from urllib.parse import quote

OBSERVATIONS = "ev"
CONTROLS = "ctl"
STREAM_SUBJECTS = (f"{OBSERVATIONS}.>", f"{CONTROLS}.>")


@lru_cache(maxsize=16_384)
def token(value: str) -> str:
    """One subject token: percent-encoded (RFC 3986) but for letters, digits, `-`, `_` and `~`."""
    return quote(value, safe="").replace(".", "%2E")


@lru_cache(maxsize=16_384)
def observation_subject(region: str, type: str, tenant: str) -> str:
    """`ev.<region>.<subsystem>.<tenant>.<fact>`"""
    subsystem, _, fact = type.partition(".")
    return f"{OBSERVATIONS}.{token(region)}.{subsystem}.{token(tenant)}.{fact}"


def control_subject(policy: str, tenant: str, entity: str) -> str:
    """`ctl.<policy>.<tenant>.<entity>`: one literal subject for each invariant."""
    return f"{CONTROLS}.{policy}.{token(tenant)}.{token(entity)}"


def source_of(region: str, publisher: str) -> str:
    """The CloudEvents `source`, a URI: `relight://<region>/<publisher>`."""
    return f"relight://{token(region)}/{publisher}"
