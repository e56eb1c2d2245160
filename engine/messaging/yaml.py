"""JSON documents as YAML 1.2: texts as JSON writes them, which YAML reads alike."""

from collections.abc import Iterator
from typing import Any

import orjson

TAKEN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that one reader of YAML or another takes for no text."""


def as_yaml(document: dict[str, Any]) -> str:
    """For people: nothing reads it back but tests."""
    return "".join(f"{line}\n" for line in _lines(document))


def _lines(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _under(f"{_scalar(name)}:", item)
    else:
        for item in value:
            first, *rest = list(_lines(item)) if _nested(item) else [_scalar(item)]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _under(head: str, item: Any) -> Iterator[str]:
    if not _nested(item):
        yield f"{head} {_scalar(item)}"
        return
    yield head
    yield from (f"  {line}" for line in _lines(item))


def _nested(item: Any) -> bool:
    return isinstance(item, dict | list) and bool(item)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and value.isascii() and value.isalpha() and value.lower() not in TAKEN:
        return value
    return orjson.dumps(value).decode()
