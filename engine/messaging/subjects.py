"""Subjects of what comes in: their patterns, which name metrics and spans, and the tenant in them."""

from typing import Final
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError

from relight.engine.errors import RequestRefused
from relight.events.subjects import token
from relight.events.values import Name

EVENTS: Final = "in.>"
COMMANDS: Final = "cmd.>"
QUEUE: Final = "relight"
"""The queue group: of all replicas, one takes each message."""
WATERMARK, STATUS, QUERY, RULE = "watermark", "status", "query", "rule"
ANYBODYS = frozenset({WATERMARK, STATUS})
"""Commands that name no tenant."""
TENANTS = frozenset({QUERY, RULE})
"""Commands of one: `cmd.<command>.<tenant>`."""
_names = TypeAdapter(Name)


def pattern_of(subject: str) -> str:
    """The subject without whatever its sender chose: what may stand in a label or a span's name."""
    first, _, rest = subject.partition(".")
    if first == "in":
        return "in"
    if first == "cmd":
        command = rest.partition(".")[0]
        return f"cmd.{command}" if command in ANYBODYS | TENANTS else "cmd"
    return "reply"


def tenant_of_event(subject: str) -> str:
    """Whose event it is. Raises `RequestRefused`."""
    return _tenant(subject.removeprefix("in."), "in.<tenant>")


def command_of(subject: str) -> tuple[str, str | None]:
    """The command and whose it is. Raises `RequestRefused`."""
    command, dot, rest = subject.removeprefix("cmd.").partition(".")
    if command in ANYBODYS and not dot:
        return command, None
    if command in TENANTS:
        return command, _tenant(rest, f"cmd.{command}.<tenant>")
    known = ", ".join([*(f"cmd.{name}" for name in sorted(ANYBODYS)), *(f"cmd.{name}.…" for name in sorted(TENANTS))])
    raise RequestRefused("not-found", f"{_shown(subject)} is no command; there is {known}")


def _tenant(escaped: str, form: str) -> str:
    """A tenant has one escaped form; another one of it could slip past a permission given for the subject."""
    try:
        tenant = _names.validate_python(unquote(escaped, errors="strict"))
    except (ValidationError, UnicodeDecodeError):
        tenant = ""
    if not tenant or token(tenant) != escaped:
        raise RequestRefused(
            "no-tenant",
            f"{_shown(escaped)} is no tenant: the subject is {form}, percent-encoded but for letters, digits and -_~",
        )
    return tenant


def _shown(text: str) -> str:
    return repr(text[:80])
