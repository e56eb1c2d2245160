"""Calls of what is built in: attributes by name, containers, `super`, imports by name."""

from __future__ import annotations

import ast

from relight.engine.coverage.python.calls import Calls
from relight.engine.coverage.python.state import Arguments
from relight.engine.coverage.python.values import (
    NOTHING,
    Box,
    Class,
    Client,
    Frame,
    Function,
    InsideModule,
    Outside,
    Part,
    Partial,
    Provider,
    Super,
    Value,
    Values,
    box,
    boxed,
    texts,
    unboxed,
)


class Builtins(Calls):
    """Python's own functions, as far as they hand values on."""

    def call_builtin(self, name: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        first = arguments.get("", 0)
        match name:
            case "super":
                return self._super(frame)
            case "getattr":
                found: Values = NOTHING
                for text in texts(arguments.get("", 1)):
                    found |= self.attribute(first, text, frame)
                return found | arguments.get("", 2)
            case "setattr":
                for text in texts(arguments.get("", 1)):
                    target = ast.Attribute(value=at.args[0], attr=text, ctx=ast.Store())
                    self.assign(ast.copy_location(target, at), arguments.get("", 2), frame)
                return NOTHING
            case "__import__":
                return self.imported(texts(first), frame)
            case "list" | "tuple" | "set" | "frozenset" | "sorted" | "reversed" | "iter" | "aiter":
                return first
            case "dict":
                entries: set[tuple[str | None, Values]] = {
                    (key, values) for key, values in arguments.keywords if key is not None
                }
                spread = [values for key, values in arguments.keywords if key is None]
                for value in NOTHING.union(first, *spread):
                    entries |= value.entries if isinstance(value, Box) else set()
                return frozenset({box(entries)})
            case "next" | "anext" | "max" | "min":
                return unboxed(first)
            case "enumerate":
                return boxed(frozenset({box({("0", NOTHING), ("1", unboxed(first))})}))
            case "zip":
                numbered = {(str(number), unboxed(values)) for number, values in enumerate(arguments.positional)}
                return boxed(frozenset({box(numbered)}))
            case "map":
                rest = Arguments(tuple(unboxed(values) for values in arguments.positional[1:]))
                return boxed(self.call_all(frozenset(v for v in first if is_callable(v)), rest, at, frame))
            case "type":
                return frozenset(v.of for v in first if isinstance(v, Client) and v.of is not None)
            case "object" | "property":
                return first
            case _:
                return NOTHING

    @staticmethod
    def _super(frame: Frame) -> Values:
        here: Frame | None = frame
        while here is not None:
            function = here.function
            if function is not None and function.owner is not None and not isinstance(function.node, ast.Lambda):
                named = [*function.node.args.posonlyargs, *function.node.args.args]
                mine = here.names.get(named[0].arg, NOTHING) if named else NOTHING
                return frozenset(Super(function.owner, me) for me in mine)
            here = here.around
        return NOTHING

    def imported(self, names: list[str], frame: Frame) -> Values:
        """A module by a name that stands in the source."""
        found: Values = NOTHING
        for name in names:
            dotted = name if not name.startswith(".") else frame.module.package + name
            module = self.modules.find(dotted, frame.module)
            found |= {InsideModule(module) if module is not None else Outside(dotted)}
        return found


def is_callable(value: Value) -> bool:
    return isinstance(value, Function | Class | Partial | Part | Provider | Outside)
