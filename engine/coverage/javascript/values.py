"""What an expression may hold, as far as it matters to where clients go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from relight.engine.coverage.javascript.tree import Node
from relight.engine.coverage.models import Guarded

if TYPE_CHECKING:
    from relight.engine.coverage.javascript.modules import File


class Family(StrEnum):
    """How Anthropic is reached."""

    SDK = "the Anthropic SDK"
    AI_SDK = "the Vercel AI SDK"
    LANGCHAIN = "LangChain"
    HTTP = "plain HTTP"


@dataclass(frozen=True, slots=True)
class Client:
    """A client, or what stands for one: a model of LangChain or of the AI SDK, an HTTP client with Anthropic's host.

    `site` is where it was constructed; None where only its type, a package or the configuration tells of it. `note`
    says what decided about `guarded`.
    """

    family: Family
    site: Node | None
    guarded: Guarded = Guarded.NO
    note: str = ""
    through: str = ""
    """the first foreign function that it was handed to and came out of"""
    of_type: bool = False
    """known by a type alone: whatever else is found in the same place says more"""
    obtained: bool = False
    """came out of a wrapper that was given none: its shape is not known"""
    is_model: bool = False
    """a language model of the AI SDK, as opposed to what makes them"""


@dataclass(frozen=True, slots=True)
class Method:
    """A part of a client, `messages`, or a method of one, `messages.create`."""

    client: Client
    path: tuple[str, ...]
    handed: Node | None = None
    """the call of a foreign function that it came through"""


@dataclass(frozen=True, slots=True)
class ClientClass:
    """A class whose instances are clients."""

    family: Family
    name: str
    guarded: Guarded = Guarded.NO
    note: str = ""


@dataclass(frozen=True, slots=True)
class Package:
    """All of a package that is not among the files."""

    name: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """A name of a package, or of a file, that is not among the files."""

    package: str
    name: str


@dataclass(frozen=True, slots=True)
class Generate:
    """A function of the AI SDK that calls the model it is given."""

    name: str


@dataclass(frozen=True, slots=True)
class Http:
    """A function or library that sends what it is given to the address it is given."""

    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """A string with Anthropic's host in it."""


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What the configuration names as guarding."""

    entry: str


@dataclass(frozen=True, slots=True)
class Guarding:
    """A function that was handed to a wrapper: what it returns is guarded."""

    node: Node
    entry: str


@dataclass(frozen=True, slots=True)
class ResourceClass:
    """A class of the SDK that is made of a client: `new Messages(client)`."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    node: Node


@dataclass(frozen=True, slots=True)
class Class:
    node: Node


@dataclass(frozen=True, slots=True)
class Instance:
    """Of a class among the files; `client` is what it is as well if that class extends a client's."""

    of: Node
    client: Client | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """An object or array literal, a Map, a Set, or `this` of a function: known by where it is made."""

    node: Node


@dataclass(frozen=True, slots=True)
class Shape:
    """Something of an interface or object type."""

    node: Node


@dataclass(frozen=True, slots=True)
class Module:
    file: File


@dataclass(frozen=True, slots=True)
class Resolver:
    """The `resolve` that a promise's executor is given."""

    promise: Node


Value = (
    Client
    | Method
    | ClientClass
    | Package
    | Foreign
    | Generate
    | Http
    | Address
    | Wrapper
    | Guarding
    | ResourceClass
    | Function
    | Class
    | Instance
    | Object
    | Shape
    | Module
    | Resolver
)
Values = frozenset[Value]
NOTHING: Values = frozenset()
