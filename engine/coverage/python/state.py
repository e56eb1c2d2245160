"""What one reading of a program knows so far; the interpreter's parts share it."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.models import Evidence, Guarded, Kind
from relight.engine.coverage.python.modules import Module, Modules
from relight.engine.coverage.python.values import (
    NOTHING,
    Bound,
    Box,
    Class,
    Client,
    Frame,
    Function,
    FunctionNode,
    GuardMiddleware,
    Instance,
    MiddlewareOf,
    Other,
    Part,
    Partial,
    Place,
    Provider,
    Thing,
    Value,
    Values,
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one way to a place says of it. `handed`: only that its caller decides; others outweigh that."""

    guarded: Guarded
    why: str
    trail: tuple[Evidence, ...] = ()
    handed: bool = False
    in_test: bool = False
    warning: str | None = None


@dataclass(slots=True)
class Found:
    """A place, with everything that was judged of it."""

    module: Module
    node: ast.expr
    kind: Kind
    what: str
    judgements: list[Judgement] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Edge:
    """A function calls another one, or a handler is registered."""

    callee: FunctionNode
    caller: FunctionNode | None
    module: Module
    node: ast.AST


class State(ABC):
    """Nothing here is ever run or imported: names, assignments and calls are followed in the syntax."""

    def __init__(self, modules: Modules, config: CoverageConfig) -> None:
        self.modules = modules
        self.config = config
        self.guarding_names = config.guarding_names
        self.client_names = config.client_names
        self.found: dict[tuple[str, int, int, Kind], Found] = {}
        self.memo: dict[object, Values] = {}
        self.running: set[object] = set()
        self.runs: dict[tuple[FunctionNode, int], int] = {}
        """How often a function was looked into in this pass, by how much its calls hand over."""
        self.nested: dict[FunctionNode, int] = {}
        """How often a function is being looked into at the moment."""
        self.aliases: set[ast.expr] = set()
        """Type aliases that are being looked into: one may name itself."""
        self.done = 0
        self.most = 0
        """How many functions were looked into in this pass, and how many may be."""
        self.not_followed: dict[Module, int] = {}
        """Where so many functions were handed around that not all of them were followed."""
        self.depth = 0
        self.attributes: dict[tuple[str, str], Values] = {}
        """Of objects that are not known, by the last two names: `state.client`."""
        self.fields: dict[str, Values] = {}
        """Clients in attributes of any class, by the attribute's name."""
        self.registered: dict[str, Values] = {}
        """What containers were told to give for a class, by its name."""
        self.things: dict[Place, dict[str, Values]] = {}
        """What is kept in objects of libraries that only keep things, by where they were made."""
        self.fixtures: dict[str, list[Function]] = {}
        """Functions that give tests what they ask for by a parameter's name."""
        self.edges: set[Edge] = set()
        self.called_raw: dict[Place, Place] = {}
        """Where a client that was constructed there was called without a guard."""
        self.guarded_at: dict[Place, tuple[Place, str]] = {}
        """Where a client that was constructed there was given to a guard, and how."""
        self.perhaps_guarded_at: dict[Place, tuple[Place, str]] = {}
        """The same, where it is not known whether that guards."""
        self.constructed: dict[Place, Client] = {}
        """What `super().__init__` of a client's subclass came to, by where the object was made."""
        self.too_deep: dict[Module, int | None] = {}
        """What is nested too deeply to be followed, and from which line on."""
        self.growth = 0
        """How often something that outlives a pass became more."""

    @abstractmethod
    def evaluate(self, node: ast.expr | None, frame: Frame) -> Values: ...

    @abstractmethod
    def annotated(self, node: ast.expr | None, frame: Frame, name: str, at: ast.AST) -> Values: ...

    @abstractmethod
    def run_function(self, function: Function, arguments: Arguments) -> Values: ...

    @abstractmethod
    def attribute(self, values: Values, name: str, frame: Frame) -> Values: ...

    @abstractmethod
    def call_function(self, function: Function, arguments: Arguments, at: ast.AST, frame: Frame) -> Values: ...

    @abstractmethod
    def call_value(self, value: Value, arguments: Arguments, at: ast.Call, frame: Frame) -> Values: ...

    @abstractmethod
    def execute_module(self, module: Module) -> Frame: ...

    @abstractmethod
    def run_body(self, body: list[ast.stmt], frame: Frame) -> bool: ...

    @abstractmethod
    def assign(self, target: ast.expr, values: Values, frame: Frame, of: ast.expr | None = None) -> None: ...

    @abstractmethod
    def module_attribute(self, module: Module, name: str) -> Values: ...

    def place(self, node: ast.AST, frame: Frame) -> Place:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        return Place(frame.module.path, line, column + 1)

    def judge(self, node: ast.expr, frame: Frame, kind: Kind, what: str, judgement: Judgement) -> None:
        """Notes what this way to the place says of it."""
        key = (frame.module.path, node.lineno, node.col_offset, kind)
        found = self.found.get(key)
        if found is None:
            found = self.found[key] = Found(frame.module, node, kind, what)
        if judgement not in found.judgements:
            found.judgements.append(judgement)

    def kept_in(self, thing: Thing, name: str) -> Values:
        """An attribute of a namespace; a method where it has such ones."""
        if thing.methods and name in {"get", "set", "put", "put_nowait", "get_nowait", "reset"}:
            return frozenset({Bound(thing, name)})
        return self.things.get(thing.place, {}).get(name, NOTHING)

    def keep_in(self, thing: Thing, name: str, values: Values) -> None:
        self.grow(self.things.setdefault(thing.place, {}), name, values)

    def grow(self, store: dict[str, Values], name: str, values: Values) -> None:
        """More for a name that outlives the pass."""
        known = store.get(name, NOTHING)
        if not values <= known:
            store[name] = _widened(known | values)
            self.growth += any(_matters(value) for value in values - known)


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a call hands over; `nodes` are the expressions, where somebody wants to look at one."""

    positional: tuple[Values, ...] = ()
    keywords: tuple[tuple[str | None, Values], ...] = ()
    """None: `**`"""
    starred: Values = NOTHING
    """What `*` brings, at unknown positions."""
    alone: bool = False
    """Nobody calls: what is not given may be anything, and not only its default."""
    verbatim: bool = False
    """A string among them matters."""

    def get(self, name: str, position: int | None = None) -> Values:
        """By keyword, by position, or from what `**` brings."""
        for keyword, values in self.keywords:
            if keyword == name:
                return values
        if position is not None and position < len(self.positional):
            return self.positional[position]
        return NOTHING

    def names(self) -> set[str]:
        return {keyword for keyword, _ in self.keywords if keyword is not None}

    def all(self) -> list[Values]:
        return [*self.positional, *(values for _, values in self.keywords), self.starred]


def forget_functions(store: dict[str, Values]) -> None:
    """Those of the last pass, with the frames around them: this pass makes them anew."""
    for name, values in store.items():
        kept = frozenset(value for value in values if not _is_of_pass(value))
        if len(kept) < len(values):
            store[name] = kept


def _is_of_pass(value: Value) -> bool:
    match value:
        case Function():
            return True
        case Partial(function, _, _):
            return _is_of_pass(function)
        case Box(entries):
            return any(_is_of_pass(held) for _, values in entries for held in values)
        case _:
            return False


MOST_VALUES = 48


def _widened(values: Values) -> Values:
    """Of something that may be very many things, only what leads to a client."""
    return values if len(values) <= MOST_VALUES else frozenset(value for value in values if _matters(value))


def _matters(value: Value) -> bool:
    """Whether another pass could find more by it; functions are made anew in each."""
    match value:
        case Box(entries):
            return any(_matters(held) for _, values in entries for held in values)
        case Partial(function, before, keywords):
            given = (*before, *(values for _, values in keywords))
            return _matters(function) or any(_matters(one) for values in given for one in values)
        case Provider(gives):
            return any(_matters(one) for one in gives)
        case Client() | Part() | GuardMiddleware() | MiddlewareOf() | Instance() | Other() | Thing():
            return True
        case _:
            return False


def qualified(module: Module, name: str) -> str:
    return f"{module.name}.{name}" if module.name else name


def qualified_class(of: Class) -> str:
    return qualified(of.module, of.name)
