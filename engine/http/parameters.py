"""Reads query strings strictly: what is unknown, given twice or no UTF-8 is refused rather than guessed."""

from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request

from relight.engine.errors import RequestRefused

MAX_PARAMETERS = 50


def pairs(request: Request) -> list[tuple[str, str]]:
    """Names and values in their order. Raises `RequestRefused`."""
    if not (text := request.scope["query_string"]):
        return []
    try:
        return parse_qsl(text.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise RequestRefused(
            "malformed", f"the query string is not UTF-8, or has more than {MAX_PARAMETERS} parameters"
        ) from None


def given_once(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The parameters, each one of `known` and given once. Raises `RequestRefused`."""
    given: dict[str, str] = {}
    for name, value in pairs(request):
        if name not in known:
            there_is = f"there is {', '.join(known)}" if known else "there is none"
            raise RequestRefused("invalid-parameter", f"there is no parameter {name[:80]!r} here; {there_is}")
        if name in given:
            raise RequestRefused("invalid-parameter", f"{name} is given twice: give it once")
        given[name] = value
    return given


def first(request: Request, name: str) -> str | None:
    """The first value of this name, however many there are: who asks is settled before what is asked."""
    return next((value for found, value in pairs(request) if found == name), None)
