"""What a call hands over: clients, functions, objects, or nothing that matters here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import IntEnum

from relight.engine.coverage.python.sdk import ANTHROPIC, RELIGHT, client_class
from relight.engine.coverage.python.state import Arguments
from relight.engine.coverage.python.values import (
    Alias,
    Bound,
    Box,
    Class,
    Function,
    Handed,
    InsideModule,
    Instance,
    Made,
    Nil,
    Outside,
    Partial,
    Provider,
    Something,
    Super,
    Text,
    Thing,
    Value,
    Values,
)


class Cargo(IntEnum):
    """The more of it, the better one has to look."""

    NOTHING = 0
    OBJECTS = 1
    FUNCTIONS = 2
    CLIENTS = 3


def cargo_of(arguments: Arguments, bound: Value | None) -> Cargo:
    """Of the weightiest argument. An object whose method is called counts if a client may come by its class."""
    most = _most(value for values in arguments.all() for value in values)
    if isinstance(bound, Instance | Class) or bound is None:
        return most
    return max(most, _of(bound))


def _most(values: Iterable[Value]) -> Cargo:
    return max((_of(value) for value in values), default=Cargo.NOTHING)


def _of(value: Value) -> Cargo:
    match value:
        case Text() | Nil() | Handed() | Something() | InsideModule() | Alias() | Super():
            return Cargo.NOTHING
        case Thing() | Bound():
            return Cargo.OBJECTS
        case Provider(gives):
            return _most(gives)
        case Partial(function, before, keywords):
            given = (one for values in (*before, *(held for _, held in keywords)) for one in values)
            return max(_of(function), _most(given))
        case Instance(of):
            return Cargo.OBJECTS if of.module.concerned else Cargo.NOTHING
        case Class(module=module):
            return Cargo.OBJECTS if module.concerned else Cargo.NOTHING
        case Function(module=module):
            return Cargo.FUNCTIONS if module.concerned else Cargo.NOTHING
        case Outside(dotted) | Made(dotted):
            return Cargo.CLIENTS if _matters(dotted) else Cargo.NOTHING
        case Box(entries):
            return _most(held for _, values in entries for held in values)
        case _:
            return Cargo.CLIENTS


def of_interest(arguments: Arguments) -> Arguments:
    """Without what would only make the same run look like another one."""
    return replace(
        arguments,
        positional=tuple(_kept(values) for values in arguments.positional),
        keywords=tuple(
            (name, values if name == "middleware" else _kept(values)) for name, values in arguments.keywords
        ),
        starred=_kept(arguments.starred),
    )


def _kept(values: Values) -> Values:
    return frozenset(value for value in values if _tells(value)) if values else values


def _tells(value: Value) -> bool:
    match value:
        case Text(text):
            return text.isdigit() or "anthropic" in text or "claude" in text
        case Handed() | Nil():
            return False
        case Outside(dotted) | Made(dotted):
            return _matters(dotted)
        case _:
            return True


def _matters(dotted: str) -> bool:
    """Libraries, classes and objects that are worth handing on."""
    return dotted == ANTHROPIC or dotted.startswith(f"{RELIGHT}.") or client_class(dotted) is not None
