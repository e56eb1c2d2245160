"""Calls: of functions and classes of the files, of clients, and of what cannot be told apart from a client."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace

from relight.engine.coverage.models import Guarded, Kind
from relight.engine.coverage.python.guessing import Guessing
from relight.engine.coverage.python.other_sdks import (
    NAMES_A_MODEL,
    is_something_else,
)
from relight.engine.coverage.python.sdk import called, is_guard_class
from relight.engine.coverage.python.state import Arguments, Judgement, qualified, qualified_class
from relight.engine.coverage.python.values import (
    NOTHING,
    BaseInit,
    Bound,
    Box,
    Class,
    Client,
    Frame,
    Function,
    GuardMiddleware,
    Handed,
    Instance,
    Made,
    Other,
    OtherMethod,
    Outside,
    Part,
    Partial,
    Provider,
    Text,
    Value,
    Values,
    box,
    boxed,
    texts,
    unboxed,
)

CONTENT = "*"
"""The name of what a context variable or a queue holds."""
MOST_OF_ONE = 6
TEXT_METHODS = frozenset({"format", "strip", "rstrip", "lstrip", "lower", "upper", "encode", "replace", "removesuffix"})


class Calls(Guessing):
    """One call expression: what it gives, and whether it is a place to list."""

    def call(self, node: ast.Call, frame: Frame) -> Values:
        callees = self.evaluate(node.func, frame)
        arguments = self._arguments(node, frame)
        if (special := self._of_receiver(node, callees, arguments, frame)) is not None:
            return special
        result = NOTHING
        for callee in _few_of_each(callees):
            result |= self.call_value(callee, arguments, node, frame)
        if not any(isinstance(callee, Part | OtherMethod | Function | Class) for callee in callees):
            self.plain_http(node, callees, arguments, frame)
            self.looks_like_one(node, callees, frame)
        return result

    def _arguments(self, node: ast.Call, frame: Frame) -> Arguments:
        positional: list[Values] = []
        starred: Values = NOTHING
        for argument in node.args:
            values = self.evaluate(argument, frame)
            if isinstance(argument, ast.Starred):
                starred |= unboxed(values) | frozenset(v for v in values if not isinstance(v, Box))
            else:
                positional.append(values)
        keywords = tuple((keyword.arg, self.evaluate(keyword.value, frame)) for keyword in node.keywords)
        return Arguments(tuple(positional), keywords, starred)

    def call_value(self, value: Value, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        match value:
            case Outside(dotted):
                return self.call_outside(dotted, arguments, at, frame)
            case Made():
                return self.call_made(value, arguments, at, frame)
            case Function():
                name = qualified(value.module, value.name)
                if name in self.guarding_names or value.name in self._guarding_here(value):
                    by = f"{name}, which configuration says guards"
                    for inner in self.call_function(value, arguments, at, frame):
                        if isinstance(inner, Client):
                            self.guarded_at.setdefault(inner.place, (self.place(value.node, frame), by))
                    return self.guarded(arguments, at, frame, by)
                if name in self.client_names:
                    return frozenset({self.construct(name, Arguments(), at, frame)})
                return self.call_function(value, arguments, at, frame)
            case Class():
                return self.instantiate(value, arguments, at, frame)
            case Instance(of):
                return self.call_all(self.attribute(frozenset({value}), "__call__", frame), arguments, at, frame)
            case Part(client, (how,)) if how in {"with_options", "copy", "with_middleware"}:
                return frozenset({self.derive(client, how, arguments, at, frame)})
            case Part():
                return self.call_part(value, arguments, at, frame)
            case Partial(function, before, keywords):
                whole = replace(
                    arguments,
                    positional=(*before, *arguments.positional),
                    keywords=(*arguments.keywords, *(pair for pair in keywords if pair[0] not in arguments.names())),
                )
                return self.call_value(function, whole, at, frame)
            case Provider(gives):
                return gives
            case OtherMethod(of, name) if name not in of.methods:
                # A chain, a bound model, one with tools: it still leads to the same model.
                return frozenset({of})
            case OtherMethod(of, name):
                return self.call_other(of, name, at, frame, arguments)
            case Other() if "__call__" in value.methods:
                return self.call_other(value, "__call__", at, frame, arguments)
            case BaseInit(me):
                if me.of is not None:
                    self.constructed[me.place] = self.construct(me.what, arguments, at, frame, me.of)
                    self.found.pop((frame.module.path, at.lineno, at.col_offset, Kind.CLIENT), None)
                return NOTHING
            case Bound(thing, name):
                if name in {"set", "put", "put_nowait"}:
                    self.keep_in(thing, CONTENT, arguments.get("value", 0) | arguments.get("item", 0))
                    return NOTHING
                return self.things.get(thing.place, {}).get(CONTENT, NOTHING) | arguments.get("default", 0)
            case Handed():
                return self._call_handed(value, arguments, at, frame)
            case _:
                return NOTHING

    def call_all(self, values: Values, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        return NOTHING.union(*(self.call_value(value, arguments, at, frame) for value in values))

    @abstractmethod
    def call_outside(self, dotted: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values: ...

    @abstractmethod
    def call_made(self, made: Made, arguments: Arguments, at: ast.Call, frame: Frame) -> Values: ...

    def _guarding_here(self, function: Function) -> set[str]:
        """Names of functions of its module that configuration names by an import path of another root."""
        module = function.module.name
        return {
            name.rpartition(".")[2]
            for name in self.guarding_names
            if module and name.rpartition(".")[0].endswith("." + module)
        }

    def call_other(
        self, of: Other, name: str, at: ast.Call, frame: Frame, arguments: Arguments | None = None
    ) -> Values:
        if arguments is not None and names_a_model(arguments, ("modelId", -1)) is False:
            return NOTHING
        what = of.what if name == "__call__" else f"{of.what.rpartition('.')[2]}.{name}"
        clients = [value for value in of.through if isinstance(value, Client)]
        for client in clients:
            judgement = Judgement(client.guarded, client.why, client.trail, client.handed, client.in_test)
            self.judge(at, frame, Kind.CALL, what, judgement)
        if not clients:
            self.judge(at, frame, Kind.CALL, what, Judgement(of.guarded, of.why, in_test=frame.module.source.in_test))
        return NOTHING

    def instantiate(self, of: Class, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        name = qualified_class(of)
        if name in self.guarding_names:
            return self.guarded(arguments, at, frame, f"{name}, which configuration says guards")
        if any(is_guard_class(dotted) for dotted in self.outside_bases(of)):
            self.handed_to_guard(arguments, at, frame, of.name)
            return frozenset({GuardMiddleware(self.place(at, frame))})
        init = next((each.body["__init__"] for each in self.line_of(of) if "__init__" in each.body), NOTHING)
        if self.client_base(of) is not None:
            return self._instantiate_client(of, init, arguments, at, frame)
        me = Instance(of)
        for value in init:
            if isinstance(value, Function):
                self.call_function(replace(value, bound=me), arguments, at, frame)
        if not init:
            self._fields(of, arguments)
        others = [dotted for dotted in self.outside_bases(of) if is_something_else(dotted)]
        return frozenset({me}) if not others else frozenset({me, Made(others[0])})

    def _instantiate_client(self, of: Class, init: Values, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        if not init:
            made = self.construct(of.name, arguments, at, frame, of)
        else:
            place = self.place(at, frame)
            draft = Client(of.name, place, Guarded.NO, None, in_test=frame.module.source.in_test, of=of)
            for value in init:
                if isinstance(value, Function):
                    self.call_function(replace(value, bound=draft), arguments, at, frame)
            inner = self.constructed.get(place)
            why = inner.why if inner else f"{of.name} is constructed at {place} without a Guard"
            guarded, retries = (inner.guarded, inner.retries) if inner else (Guarded.NO, None)
            made = replace(draft, guarded=guarded, retries=retries, why=why, by_hand=guarded is Guarded.YES, trail=())
            self.note_client(made, at, frame)
        of.instances = frozenset(
            value for value in of.instances if not isinstance(value, Client) or value.place != made.place
        ) | {made}
        return frozenset({made})

    def _fields(self, of: Class, arguments: Arguments) -> None:
        """A dataclass or model without `__init__`: its fields take the arguments, in their order."""
        names = list(dict.fromkeys(name for each in reversed(self.line_of(of)) for name in each.annotations))
        for number, name in enumerate(names):
            values = arguments.get(name, number)
            if values:
                self.grow(of.attributes, name, values)
                self.grow(self.fields, name, frozenset(v for v in values if isinstance(v, Client)))

    def _call_handed(self, value: Handed, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        if value.path[-1:] == ("guarded",):
            given = arguments.get("client", 0)
            for client in given:
                if isinstance(client, Client):
                    self.perhaps_guarded_at.setdefault(
                        client.place, (self.place(at, frame), f"guarded() of `{value.name}`")
                    )
            why = f"it passes through guarded() of `{value.name}`, and these files do not show that this is Relight's"
            return frozenset(
                replace(client, guarded=Guarded.UNKNOWN, why=why) for client in given if isinstance(client, Client)
            )
        self.passed_on(arguments, at, frame, "something that is handed in")
        given = self.resolved(value.path[-1] if value.path else "", arguments)
        return given or frozenset({replace(value, path=(*value.path[:3], "()"))})

    @abstractmethod
    def resolved(self, name: str, arguments: Arguments) -> Values:
        """What a container gives that is asked for a client's class, `container.resolve(AsyncAnthropic)`."""

    def passed_on(self, arguments: Arguments, at: ast.Call, frame: Frame, to: str) -> Values:
        """Methods handed to something that will call them: the call is made from there, and listed here."""
        rest = len(arguments.positional) + len(arguments.keywords)
        calls_it = rest > 1
        found: Values = NOTHING
        for values in (*arguments.all(),):
            for value in values:
                inner = value.function if isinstance(value, Partial) else value
                if isinstance(inner, Part) and called(inner.path):
                    if calls_it or isinstance(value, Partial):
                        self.call_part(inner, Arguments(), at, frame, f"; it is handed to {to}, which makes the call")
                    else:
                        found |= {value}
                elif isinstance(inner, OtherMethod) and inner.name in inner.of.methods and calls_it:
                    self.call_other(inner.of, inner.name, at, frame)
                elif isinstance(value, Client):
                    found |= {value}
        return found

    def _of_receiver(self, node: ast.Call, callees: Values, arguments: Arguments, frame: Frame) -> Values | None:
        """Methods of containers and strings, which have no values of their own here."""
        if not isinstance(node.func, ast.Attribute) or callees:
            return None
        method, base = node.func.attr, node.func.value
        receiver = self.evaluate(base, frame)
        if any(isinstance(value, Text) for value in receiver) and method in TEXT_METHODS:
            return receiver
        if not any(isinstance(value, Box) for value in receiver):
            return None
        first = arguments.get("", 0)
        match method:
            case "append" | "add" | "appendleft" | "put" | "put_nowait":
                self._more(base, first, frame)
                return NOTHING
            case "extend" | "update":
                self._more(base, unboxed(first), frame)
                return NOTHING
            case "insert":
                self._more(base, arguments.get("", 1), frame)
                return NOTHING
            case "get" | "pop" | "setdefault" | "popleft":
                key = texts(first)
                if method == "setdefault":
                    self._more(base, arguments.get("", 1), frame)
                return unboxed(receiver, key[0] if len(key) == 1 else None) | arguments.get("", 1)
            case "values" | "copy" | "union":
                return receiver
            case "items":
                pair = box({("0", NOTHING), ("1", unboxed(receiver))})
                return boxed(frozenset({pair}))
            case _:
                return NOTHING

    def _more(self, base: ast.expr, values: Values, frame: Frame) -> None:
        """A container has more in it from now on, wherever it stands."""
        if values:
            known = self.evaluate(base, frame)
            longer = {box([*one.entries, (None, values)]) if isinstance(one, Box) else one for one in known}
            self.assign(base, frozenset(longer) or boxed(values), frame)


def _few_of_each(callees: Values) -> Iterable[Value]:
    """A function that was made over and over, by a decorator or in a loop, is looked into a few times only."""
    if len(callees) <= MOST_OF_ONE:
        yield from callees
        return
    seen: dict[object, int] = {}
    for callee in callees:
        made_by = callee.node if isinstance(callee, Function) else callee
        seen[made_by] = seen.get(made_by, 0) + 1
        if seen[made_by] <= MOST_OF_ONE:
            yield callee


def names_a_model(arguments: Arguments, by: tuple[str, int]) -> bool | None:
    """Whether the model named is one of Anthropic's; None where the sources do not say."""
    keyword, position = by
    found = texts(arguments.get(keyword, position if position >= 0 else None))
    if not found:
        return None
    return any(NAMES_A_MODEL.search(text) for text in found)
