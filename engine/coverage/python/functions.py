"""Runs a function's body in the abstract: what it returns for these arguments, and the places that it comes by."""

from __future__ import annotations

import ast

from relight.engine.coverage.models import Evidence, Guarded
from relight.engine.coverage.python.cargo import Cargo, cargo_of, of_interest
from relight.engine.coverage.python.clients import Clients
from relight.engine.coverage.python.sdk import client_class
from relight.engine.coverage.python.state import Arguments, Edge
from relight.engine.coverage.python.values import (
    NIL,
    NOTHING,
    Alias,
    Box,
    Class,
    Client,
    Frame,
    Function,
    Handed,
    Instance,
    Made,
    Nil,
    Outside,
    Provider,
    Text,
    Values,
    box,
    boxed,
    unboxed,
)

DEEPEST = 14
MOST_WITHIN_ITSELF = 2
MOST_IN_ALL = 10_000
MOST_FOR_EACH = 10
"""Runs in one pass, and for each function that there is: beyond, only calls that hand over clients are followed."""
MOST_RUNS = {Cargo.NOTHING: 8, Cargo.OBJECTS: 12, Cargo.FUNCTIONS: 100, Cargo.CLIENTS: 500}
"""Of one function in one pass, by what the calls hand over: only calls with clients may be as many as they like."""
ALONE = Arguments(alone=True)
CONTAINERS = frozenset(
    {
        *(
            "list",
            "tuple",
            "set",
            "frozenset",
            "dict",
            "List",
            "Tuple",
            "Set",
            "Dict",
            "Sequence",
            "Iterable",
            "Mapping",
        ),
        *("Iterator", "AsyncIterator", "Generator", "AsyncGenerator", "Collection", "deque", "defaultdict"),
    }
)
SEEN_THROUGH = frozenset(
    {
        "Optional",
        "Union",
        "Annotated",
        "Final",
        "ClassVar",
        "Awaitable",
        "Coroutine",
        "Required",
        "NotRequired",
        "Mapped",
    }
)
FACTORIES = frozenset({"Callable", "type", "Type"})


class Functions(Clients):
    """Calls of functions of the files."""

    def call_function(self, function: Function, arguments: Arguments, at: ast.AST, frame: Frame) -> Values:
        caller = frame.function.node if frame.function else None
        self.edges.add(Edge(function.node, caller, frame.module, at))
        return self.run_function(function, arguments)

    def run_function(self, function: Function, arguments: Arguments) -> Values:
        """What it gives; the same arguments again are not looked at again in one pass."""
        arguments = arguments if arguments.verbatim else of_interest(arguments)
        key = (function, arguments)
        if key in self.memo:
            return self.memo[key]
        cargo = cargo_of(arguments, function.bound)
        if not function.module.concerned and cargo < Cargo.OBJECTS:
            return NOTHING
        within = self.nested.get(function.node, 0)
        if key in self.running or self.depth > DEEPEST or within >= MOST_WITHIN_ITSELF:
            return NOTHING
        counted = (function.node, cargo)
        self.runs[counted] = self.runs.get(counted, 0) + 1
        if self.runs[counted] > MOST_RUNS[cargo] and not arguments.alone:
            return NOTHING
        self.done += 1
        if self.done > self.most and cargo < Cargo.CLIENTS and not arguments.alone:
            self.not_followed.setdefault(function.module, function.node.lineno)
            return NOTHING
        self.running.add(key)
        self.depth += 1
        self.nested[function.node] = within + 1
        try:
            result = self._run(function, arguments)
        finally:
            self.depth -= 1
            self.nested[function.node] = within
            self.running.discard(key)
        self.memo[key] = result
        return result

    def _run(self, function: Function, arguments: Arguments) -> Values:
        node = function.node
        frame = Frame(function.module, {}, function.around, function)
        self._bind(function, arguments, frame)
        if isinstance(node, ast.Lambda):
            result = self.evaluate(node.body, frame)
            self.finish(frame)
            return result
        if self.run_body(node.body, frame):
            frame.returned |= NIL
        self.finish(frame)
        result = boxed(frame.yielded) if frame.generates else frame.returned
        if result <= NIL and node.returns is not None and function.module.frame is not None:
            result |= self.annotated(node.returns, function.around or function.module.frame, function.name, node)
        return result

    def finish(self, frame: Frame) -> None:
        """Makes known what it assigned, and looks into the functions inside that nobody here called."""
        self.publish(frame)
        for function in frame.nested:
            self.run_function(function, ALONE)
        frame.nested.clear()

    def publish(self, frame: Frame) -> None:
        for dotted, (holders, name) in frame.assigned.items():
            values = frame.names.get(dotted, NOTHING)
            for holder in holders:
                of = holder.of if isinstance(holder, Instance | Client) else holder
                if isinstance(of, Class):
                    self.grow(of.attributes, name, values)
                    self.grow(self.fields, name, frozenset(v for v in values if isinstance(v, Client)))

    def _bind(self, function: Function, arguments: Arguments, frame: Frame) -> None:
        node = function.node
        positional = list(arguments.positional)
        if function.bound is not None and function.kind != "static":
            positional.insert(0, frozenset({function.bound}))
        elif function.owner is not None and function.kind != "static" and not positional:
            owner = function.owner
            positional.insert(0, frozenset({owner}) if function.kind == "class" else self.instance_of(owner))
        parameters = [*node.args.posonlyargs, *node.args.args]
        defaults = [None] * (len(parameters) - len(node.args.defaults)) + list(node.args.defaults)
        spread = NOTHING
        for keyword, values in arguments.keywords:
            if keyword is None:
                spread |= values
        named, taken = arguments.names(), set[str]()
        open_ended = arguments.alone or bool(arguments.starred) or any(not isinstance(v, Box) for v in spread)
        for number, (parameter, default) in enumerate(zip(parameters, defaults, strict=True)):
            given = number < len(positional) or parameter.arg in named
            values = positional[number] if number < len(positional) else arguments.starred
            values |= arguments.get(parameter.arg)
            taken.add(parameter.arg)
            missing = None if given or open_ended else default
            frame.names[parameter.arg] = values or self._not_given(function, parameter, default, missing, frame, spread)
        for parameter, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            taken.add(parameter.arg)
            values = arguments.get(parameter.arg)
            missing = None if parameter.arg in named or open_ended else default
            frame.names[parameter.arg] = values or self._not_given(function, parameter, default, missing, frame, spread)
        if node.args.vararg is not None:
            rest = positional[len(parameters) :]
            if open_ended and not rest:
                rest = [frozenset({self._handed(function, node.args.vararg, frame)})]
            numbered = [(str(number), values) for number, values in enumerate(rest)]
            whole = boxed(*rest, arguments.starred) if arguments.starred else frozenset({box(numbered)})
            frame.names[node.args.vararg.arg] = whole
        if node.args.kwarg is not None:
            entries: set[tuple[str | None, Values]] = {
                (name, values) for name, values in arguments.keywords if name is not None and name not in taken
            }
            for value in spread:
                entries |= value.entries if isinstance(value, Box) else set()
            rest_of_all: Values = frozenset({box(entries)})
            if open_ended:
                rest_of_all |= {self._handed(function, node.args.kwarg, frame)}
            frame.names[node.args.kwarg.arg] = rest_of_all

    def _not_given(
        self,
        function: Function,
        parameter: ast.arg,
        default: ast.expr | None,
        certain: ast.expr | None,
        frame: Frame,
        spread: Values,
    ) -> Values:
        """What a parameter is where this call does not say: from `**`, its default (surely, if `certain`), its
        annotation, or whatever."""
        from_spread: Values = NOTHING
        for value in spread:
            if isinstance(value, Box):
                from_spread |= NOTHING.union(*(held for key, held in value.entries if key == parameter.arg))
        if from_spread:
            return from_spread
        around = function.around or function.module.frame or frame
        values = self._provided(self.evaluate(default, around))
        if any(not isinstance(value, Text | Nil | Made | Outside) for value in values) or (certain and values):
            return values
        if function.module.source.in_test and (fixed := self._by_fixture(function, parameter.arg)):
            return fixed
        typed = self.annotated(parameter.annotation, around, parameter.arg, parameter)
        if not typed and parameter.type_comment:
            typed = self.annotated(_parsed(parameter.type_comment), around, parameter.arg, parameter)
        return values | (typed or frozenset({self._handed(function, parameter, frame)}))

    def _by_fixture(self, function: Function, name: str) -> Values:
        """What pytest hands to a test for a parameter of this name."""
        found: Values = NOTHING
        for fixture in self.fixtures.get(name, ()):
            file = fixture.module.source.file
            near = fixture.module is function.module or (
                file.name == "conftest.py" and function.module.source.file.is_relative_to(file.parent)
            )
            if near and fixture.node is not function.node:
                given = self.run_function(fixture, Arguments(alone=True))
                found |= unboxed(given) | frozenset(value for value in given if not isinstance(value, Box))
        return found - NIL

    def _handed(self, function: Function, parameter: ast.arg, frame: Frame) -> Handed:
        return Handed(parameter.arg, function.name, self.place(parameter, frame))

    def annotated(self, node: ast.expr | None, frame: Frame, name: str, at: ast.AST) -> Values:
        """What something is by its annotation."""
        match node:
            case None:
                return NOTHING
            case ast.Constant(value=str() as text):
                return self.annotated(_parsed(text), frame, name, at)
            case ast.BinOp(left=left, right=right):
                return self.annotated(left, frame, name, at) | self.annotated(right, frame, name, at)
            case ast.Subscript(value=base, slice=inner):
                return self._subscripted(base, inner, frame, name, at)
            case ast.Name() | ast.Attribute():
                found = NOTHING
                for value in self.evaluate(node, frame):
                    match value:
                        case Alias(aliased, there) if aliased not in self.aliases:
                            self.aliases.add(aliased)
                            found |= self.annotated(aliased, there, name, at)
                            self.aliases.discard(aliased)
                        case Outside(dotted) if client_class(dotted):
                            found |= {self._by_type(dotted.rpartition(".")[2], name, at, frame)}
                        case Outside(dotted) if dotted.startswith(("relight.", "langchain")):
                            found |= {Made(dotted)}
                        case Class():
                            found |= self.instance_of(value)
                return found
            case _:
                return NOTHING

    def _subscripted(self, base: ast.expr, inner: ast.expr, frame: Frame, name: str, at: ast.AST) -> Values:
        last = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if last == "Annotated":
            provided = NOTHING.union(*(self._provided(self.evaluate(part, frame)) for part in parts[1:]))
            provided = frozenset(value for value in provided if not isinstance(value, Text | Outside | Made))
            return provided or self.annotated(parts[0], frame, name, at)
        inside = NOTHING.union(*(self.annotated(part, frame, name, at) for part in parts))
        if not inside:
            return NOTHING
        if last in CONTAINERS:
            return boxed(inside)
        if last in FACTORIES:
            return frozenset({Provider(inside)})
        return inside if last in SEEN_THROUGH else self.annotated(base, frame, name, at)

    def _by_type(self, what: str, name: str, at: ast.AST, frame: Frame) -> Client:
        place = self.place(at, frame)
        why = f"its client is `{name}` ({place}), which comes from outside these files"
        trail = (Evidence(place.path, place.line, f"`{name}` is a client by its annotation"),)
        return Client(what, place, Guarded.UNKNOWN, None, True, frame.module.source.in_test, why=why, trail=trail)

    def instance_of(self, of: Class) -> Values:
        """Any instance of a class of the files; of a client's subclass, those that were made."""
        base = self.client_base(of)
        if base is None:
            return frozenset({Instance(of)})
        if of.instances:
            return of.instances
        at = of.node
        assert of.module.frame is not None
        place = self.place(at, of.module.frame)
        why = f"{of.name} is a client by its base {base}, and no other place constructs one ({place})"
        trail = (Evidence(place.path, place.line, f"{of.name} comes from {base}"),)
        in_test = of.module.source.in_test
        return frozenset({Client(of.name, place, Guarded.UNKNOWN, None, True, in_test, of=of, why=why, trail=trail)})


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None
