"""What an expression may be, as far as matters here: clients, what leads to them, and what surely is something else."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relight.engine.coverage.models import Evidence, Guarded

if TYPE_CHECKING:
    from relight.engine.coverage.python.modules import Module

Values = frozenset["Value"]
"""Everything that an expression may be; empty when nothing is known of it."""
NOTHING: Values = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Text:
    """A string that may name a module, an attribute, an address or a model."""

    text: str


@dataclass(frozen=True, slots=True)
class InsideModule:
    """A module of the files at hand."""

    module: Module


@dataclass(frozen=True, slots=True)
class Outside:
    """A name of a library, `functools.partial`."""

    dotted: str


@dataclass(frozen=True, slots=True)
class Made:
    """Something that a library's function or class gave; `path` are the attributes read of it since."""

    dotted: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handed:
    """What whoever calls hands in: a parameter, or an attribute of one."""

    name: str
    function: str
    place: Place
    path: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class Frame:
    """Names of one run of a function, or of a module; dotted ones are attributes assigned to (`self.client`)."""

    module: Module
    names: dict[str, Values]
    around: Frame | None = None
    function: Function | None = None
    globals_: set[str] = field(default_factory=set)
    nonlocals: set[str] = field(default_factory=set)
    returned: Values = NOTHING
    yielded: Values = NOTHING
    generates: bool = False
    nested: list[Function] = field(default_factory=list)
    assigned: dict[str, tuple[Values, str]] = field(default_factory=dict)
    """Attributes that were assigned, by their dotted names: to what, and which."""


FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the files; `bound` is what its first parameter is."""

    node: FunctionNode
    module: Module
    around: Frame | None
    owner: Class | None = None
    bound: Value | None = None
    kind: str = "plain"
    """`plain`, `static`, `class` or `property`"""
    name: str = field(default="<lambda>", compare=False)


@dataclass(eq=False, slots=True)
class Class:
    """A class of the files. `attributes` are those that its methods assign, over all instances."""

    node: ast.ClassDef
    module: Module
    name: str
    bases: tuple[Values, ...] = ()
    body: dict[str, Values] = field(default_factory=dict)
    attributes: dict[str, Values] = field(default_factory=dict)
    annotations: dict[str, ast.expr] = field(default_factory=dict)
    subclasses: list[Class] = field(default_factory=list)
    instances: Values = NOTHING
    """Clients that were made of it, where it is a subclass of one of the SDK's."""


@dataclass(frozen=True, slots=True)
class Instance:
    of: Class


@dataclass(frozen=True, slots=True)
class Client:
    """A client of Anthropic's SDK, or a copy of one, from the place where it was constructed.

    `handed`: it is one by its annotation only, and where it was made is not known.
    `retries`: 0 where its own retries are off, None where that is not known.
    """

    what: str
    place: Place
    guarded: Guarded
    retries: int | None
    handed: bool = False
    in_test: bool = False
    by_hand: bool = False
    """A Guard stands in its middleware, where nobody else turns its own retries off."""
    of: Class | None = None
    why: str = field(default="", compare=False)
    trail: tuple[Evidence, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Part:
    """An attribute of a client, `client.messages.create`, on the way to a call or at one."""

    client: Client
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuardMiddleware:
    place: Place


@dataclass(frozen=True, slots=True)
class MiddlewareOf:
    client: Client


@dataclass(frozen=True, slots=True)
class Box:
    """A list, tuple, set or dict: what stands in it, by its key where that is a literal."""

    entries: frozenset[tuple[str | None, Values]]
    depth: int = field(default=1, compare=False)
    """Of boxes within boxes, itself included."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A function with some arguments given."""

    function: Value
    arguments: tuple[Values, ...]
    keywords: tuple[tuple[str | None, Values], ...]


@dataclass(frozen=True, slots=True)
class Provider:
    """Something that gives these when it is called or asked for: a provider of a container, a dependency."""

    gives: Values


@dataclass(frozen=True, slots=True)
class Other:
    """Another library's way to a model of Anthropic's; `methods` are those that call it.

    `through`: the clients that it was made with, which decide about it.
    """

    what: str
    place: Place
    methods: frozenset[str]
    guarded: Guarded
    why: str = field(compare=False)
    through: Values = NOTHING


@dataclass(frozen=True, slots=True)
class OtherMethod:
    of: Other
    name: str


@dataclass(frozen=True, slots=True)
class Super:
    """`super()` in a method of a class."""

    of: Class
    me: Value


@dataclass(frozen=True, slots=True)
class BaseInit:
    """`super().__init__` that leads to the SDK's own client class."""

    me: Client


@dataclass(frozen=True, slots=True)
class Thing:
    """A library's object that keeps what is put into it: a namespace, a context variable, a queue."""

    place: Place
    methods: bool
    """It is asked by `get` and `set`, and not by attributes."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`set` or `get` of a thing."""

    thing: Thing
    name: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A type by another name."""

    node: ast.expr
    frame: Frame


@dataclass(frozen=True, slots=True)
class Nil:
    """None."""


@dataclass(frozen=True, slots=True)
class Something:
    """An element of a container of which nothing is known."""


Value = (
    Text
    | InsideModule
    | Outside
    | Made
    | Handed
    | Function
    | Class
    | Instance
    | Client
    | Part
    | GuardMiddleware
    | MiddlewareOf
    | Box
    | Partial
    | Provider
    | Other
    | OtherMethod
    | Super
    | BaseInit
    | Alias
    | Thing
    | Bound
    | Something
    | Nil
)


NIL: Values = frozenset({Nil()})


DEEPEST_BOX = 4
MOST_ENTRIES = 200


def box(entries: Iterable[tuple[str | None, Values]]) -> Box:
    """A container; not deeper than matters, and of a long table of constants nothing."""
    kept = frozenset(entries)
    if len(kept) > MOST_ENTRIES:
        kept = frozenset((key, held) for key, held in kept if not all(isinstance(v, Text | Nil) for v in held))
    depth = 1 + max((v.depth for _, held in kept for v in held if isinstance(v, Box)), default=0)
    if depth > DEEPEST_BOX:
        kept = frozenset((key, frozenset(v for v in held if not isinstance(v, Box))) for key, held in kept)
        depth = 1
    return Box(kept, depth)


def boxed(*values: Values) -> Values:
    """A container of these."""
    whole: Values = NOTHING.union(*values)
    return frozenset({box([(None, whole)])})


def unboxed(values: Values, key: str | None = None) -> Values:
    """What stands in containers; under this key, or under any."""
    found: set[Value] = set()
    for value in values:
        if isinstance(value, Box):
            for name, held in value.entries:
                if key is None or name is None or name == key:
                    found |= held
    return frozenset(found)


def texts(values: Values) -> list[str]:
    return sorted(value.text for value in values if isinstance(value, Text))
