"""Every place where a client is constructed or a model is called, judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relight.engine.coverage.javascript import calling, members, packages
from relight.engine.coverage.javascript.evaluation import Evaluation
from relight.engine.coverage.javascript.tree import CLASSES, Node, arguments, name_of, unquoted
from relight.engine.coverage.javascript.values import (
    Address,
    Class,
    Client,
    ClientClass,
    Family,
    Foreign,
    Function,
    Generate,
    Http,
    Method,
    Object,
    Values,
    Wrapper,
)
from relight.engine.coverage.models import Guarded, Kind

LOOKING = frozenset({"expect", "mocked", "spyOn", "assert", "log", "debug", "info", "isMockFunction", "typeOf", "vi"})
"""Foreign functions that look at a method without calling it."""
NAMED_SO = re.compile(r"anthropic|claude", re.IGNORECASE)
ASKING = re.compile(r"(^|\.)(messages|beta\.messages)\.(create|stream|parse|countTokens|toolRunner)$")
BATCHES = re.compile(r"(^|\.)messages\.batches\.(create|list|retrieve|results|cancel|delete)$")


@dataclass(frozen=True, slots=True)
class Place:
    """One site before it is worded. `clients` are those that may be called there, or the one that is constructed."""

    node: Node
    kind: Kind
    what: str
    family: Family
    clients: frozenset[Client]
    wrapper: str | None = None
    """the wrapper in whose definition or arguments it stands"""
    unresolved: bool = False
    """what it is called on is not known: its name and arguments tell"""


@dataclass(slots=True)
class Places:
    """All of a program's; `wrapped` says which construction was handed to which wrapper."""

    evaluation: Evaluation
    found: list[Place] = field(default_factory=list)
    wrapped: dict[Node, str] = field(default_factory=dict)
    _handed: list[tuple[Node, Method]] = field(default_factory=list)
    _called_again: set[Node] = field(default_factory=set)

    def collect(self) -> list[Place]:
        for file in self.evaluation.program.files.values():
            for node in file.tree.root.walk():
                if node.kind == "new_expression":
                    self._constructed(node)
                elif node.kind == "call_expression":
                    self._called(node)
        for node, method in self._handed:
            if node not in self._called_again:
                self._add(node, Kind.CALL, ".".join(method.path), method.client.family, {method.client})
        return self.found

    def _add(self, node: Node, kind: Kind, what: str, family: Family, clients: set[Client]) -> None:
        if any(place.node is node and place.kind is kind for place in self.found[-2:]):
            return
        self.found.append(Place(node, kind, what, family, frozenset(clients), self.within_wrapper(node)))

    def within_wrapper(self, node: Node) -> str | None:
        """The wrapper whose definition, or whose argument that is a function, holds the node."""
        inside_function = False
        place = node
        for above in node.above():
            if place.kind in ("arrow_function", "function_expression"):
                inside_function = True
            if above.kind == "call_expression" and inside_function and place is not calling.callee(above):
                for value in self.evaluation.of(calling.callee(above)):
                    if isinstance(value, Wrapper):
                        return value.entry
            if (named := self.evaluation.program.guarded.get(above)) is not None:
                return named
            name = above.field("name")
            if name is not None and (bare := self.evaluation.program.guarding.bare(name.text)) is not None:
                return bare
            place = above
        return None

    def _constructed(self, node: Node) -> None:
        function = calling.callee(node)
        values = self.evaluation.of(function)
        for value in values:
            if isinstance(value, ClientClass) and value.family is not Family.AI_SDK:
                client = Client(value.family, node, value.guarded, value.note)
                self._add(node, Kind.CLIENT, value.name, value.family, {client})
            elif isinstance(value, Class):
                self._of_class(node, value.node, None)
            elif isinstance(value, Wrapper):
                self._wrap(node, value)
                for declared, entry in self.evaluation.program.guarded.items():
                    if entry == value.entry and declared.kind in CLASSES:
                        self._of_class(node, declared, entry)
        if not values or all(isinstance(value, Foreign | Method) for value in values):
            self._hand_over(node)

    def _of_class(self, node: Node, of: Node, guarded_by: str | None) -> None:
        if (extended := members.client_class(self.evaluation, of)) is not None:
            name = of.field("name")
            guarded = Guarded.YES if guarded_by is not None else extended.guarded
            client = Client(extended.family, node, guarded, guarded_by or extended.note)
            self._add(node, Kind.CLIENT, extended.name if name is None else name.text, extended.family, {client})

    def _called(self, node: Node) -> None:
        function = calling.callee(node)
        holder, name = calling.property_of(function)
        values = self.evaluation.of(function)
        if holder is not None and name in ("call", "apply"):
            values |= calling.callables(self.evaluation.of(holder))
        methods = [value for value in values if isinstance(value, Method)]
        self._called_again |= {method.handed for method in methods if method.handed is not None}
        calls = [method for method in methods if packages.is_call(method)]
        if calls:
            clients = {method.client for method in calls}
            path = max((method.path for method in calls), key=len)
            path = path[1:] if path[0].startswith("[") else path
            self._add(node, Kind.CALL, ".".join(path), calls[0].client.family, clients)
        for value in values:
            match value:
                case Wrapper():
                    self._wrap(node, value)
                case ClientClass():
                    client = Client(value.family, node, value.guarded, value.note)
                    self._add(node, Kind.CLIENT, value.name, value.family, {client})
                case Generate():
                    self._generate(node, value)
                case Http():
                    self._http(node, value)
                case Client() if value.family is Family.HTTP:
                    self._add(node, Kind.CALL, name, Family.HTTP, {value})
                case _:
                    pass
        if not calls and all(isinstance(value, Foreign) for value in values):
            self._not_understood(node, holder, name, values)
        if name not in LOOKING and all(isinstance(value, Foreign | Method) for value in values):
            self._hand_over(node)

    def _wrap(self, node: Node, wrapper: Wrapper) -> None:
        handed = self.evaluation.all_of(arguments(node))
        for value in calling.held_by(self.evaluation, handed):
            client = value.client if isinstance(value, Method) else value
            if isinstance(client, Client) and client.site is not None:
                self.wrapped.setdefault(client.site, wrapper.entry)
            elif (extended := getattr(value, "client", None)) is not None and extended.site is not None:
                self.wrapped.setdefault(extended.site, wrapper.entry)
            elif isinstance(value, Function):
                for made in self.evaluation.holds(("return", value.node, "")):
                    if isinstance(made, Client) and made.site is not None:
                        self.wrapped.setdefault(made.site, wrapper.entry)

    def _generate(self, node: Node, function: Generate) -> None:
        given = [value for value in self.evaluation.all_of(arguments(node)[:1]) if isinstance(value, Object)]
        models = [model for value in given for model in members.of(self.evaluation, value, "model")]
        clients = {model for model in models if isinstance(model, Client) and model.family is Family.AI_SDK}
        if clients:
            self._add(node, Kind.CALL, function.name, Family.AI_SDK, clients)

    def _http(self, node: Node, function: Http) -> None:
        handed = calling.held_by(self.evaluation, self.evaluation.all_of(arguments(node)))
        if Address() not in handed:
            return
        if members.makes_http_clients(function):
            self._add(node, Kind.CLIENT, function.name, Family.HTTP, {Client(Family.HTTP, node)})
        else:
            self._add(node, Kind.CALL, function.name, Family.HTTP, {Client(Family.HTTP, None)})

    def _not_understood(self, node: Node, holder: Node | None, name: str, values: Values) -> None:
        function = calling.callee(node)
        if function is None or holder is None:
            return
        handed = self.evaluation.all_of(arguments(node)[:1])
        foreign = [value for value in self.evaluation.of(_root(holder)) if isinstance(value, Foreign)]
        if Address() in handed and name in packages.HTTP_METHODS and not foreign:
            self._add(node, Kind.CALL, name, Family.HTTP, {Client(Family.HTTP, None)})
            return
        path = re.sub(r"\s|\?|!", "", function.text)
        if not (ASKING.search(path) or BATCHES.search(path)):
            return
        if self.evaluation.of(holder) or not (NAMED_SO.search(path) or self._like_a_request(node)):
            return
        what = path[max(path.rfind("messages."), 0) :]
        wrapper = self.within_wrapper(node)
        self.found.append(Place(node, Kind.CALL, what, Family.SDK, frozenset(), wrapper, unresolved=True))

    def _like_a_request(self, node: Node) -> bool:
        """A literal with what only Anthropic's API wants, or with the name of one of its models."""
        for value in self.evaluation.all_of(arguments(node)[:1]):
            if isinstance(value, Object) and value.node.kind == "object":
                names = set()
                for child in value.node.children:
                    key, given = child.field("key"), child.field("value")
                    if key is not None and given is not None:
                        names.add(name_of(key))
                        if name_of(key) == "model" and (model := unquoted(given)) and "claude" in model:
                            return True
                    elif child.kind == "shorthand_property_identifier":
                        names.add(child.text)
                if {"max_tokens", "messages"} <= names:
                    return True
        return False

    def _hand_over(self, node: Node) -> None:
        """A method handed to a function that is not among the files is called by it, unless its result is."""
        for value in self.evaluation.all_of(arguments(node)):
            if isinstance(value, Method) and packages.is_call(value) and value.handed is None:
                self._handed.append((node, value))


def _root(node: Node) -> Node:
    while (inner := node.field("object") or node.field("function")) is not None:
        node = inner
    return node
