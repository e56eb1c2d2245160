"""What an expression may be: names, attributes, literals, and everything that passes a value on."""

from __future__ import annotations

import ast
import builtins
from abc import abstractmethod
from collections.abc import Callable

from relight.engine.coverage.python.attributes import Attributes
from relight.engine.coverage.python.other_sdks import HOST
from relight.engine.coverage.python.sdk import CLIENT_CLASSES
from relight.engine.coverage.python.values import (
    NIL,
    NOTHING,
    Alias,
    Box,
    Frame,
    Function,
    Outside,
    Provider,
    Something,
    Text,
    Value,
    Values,
    box,
    boxed,
    texts,
    unboxed,
)

BUILTINS = frozenset(dir(builtins))
LONGEST_TEXT = 200
MOST_WAYS = 4
"""Which a container may be put together of alternatives."""


class Expressions(Attributes):
    """Evaluates; never runs."""

    def evaluate(self, node: ast.expr | None, frame: Frame) -> Values:
        if node is None:
            return NOTHING
        how = self._HOW.get(type(node))
        if how is not None:
            return how(self, node, frame)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.evaluate(child, frame)
        return NOTHING

    def look_up(self, name: str, frame: Frame) -> Values:
        """A name as Python finds it: here, around, in the module, built in."""
        here: Frame | None = frame
        while here is not None:
            if name in here.names:
                return here.names[name] | self._set_elsewhere(here, name)
            if here.around is None and (found := self._set_elsewhere(here, name)):
                return found
            here = here.around
        module = frame.module
        if module.frame is not None and name in module.frame.names:
            return self.module_attribute(module, name)
        if name in CLIENT_CLASSES and "*anthropic" in (module.frame.names if module.frame else {}):
            return frozenset({Outside(f"anthropic.{name}")})
        return frozenset({Outside(f"builtins.{name}")}) if name in BUILTINS else NOTHING

    @staticmethod
    def _set_elsewhere(frame: Frame, name: str) -> Values:
        return frame.module.assigned_elsewhere.get(name, NOTHING) if frame is frame.module.frame else NOTHING

    def _name(self, node: ast.Name, frame: Frame) -> Values:
        return self.look_up(node.id, frame)

    def _constant(self, node: ast.Constant, frame: Frame) -> Values:
        match node.value:
            case None:
                return NIL
            case bool():
                return NOTHING
            case str() as text if len(text) <= LONGEST_TEXT:
                return frozenset({Text(text)})
            case int() as number if 0 <= number < 100:
                return frozenset({Text(str(number))})
            case _:
                return NOTHING

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Values:
        dotted = dotted_name(node)
        if dotted is not None:
            root = dotted.partition(".")[0]
            here: Frame | None = frame
            while here is not None:
                if dotted in here.names:
                    return here.names[dotted]
                if root in here.names:
                    break
                here = here.around
        return self.attribute_of(node, self.evaluate(node.value, frame), frame)

    def _joined(self, node: ast.JoinedStr, frame: Frame) -> Values:
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
            elif isinstance(part, ast.FormattedValue):
                found = texts(self.evaluate(part.value, frame))
                text += found[0] if found else "…"
        return frozenset({Text(text[:LONGEST_TEXT])})

    def _binary(self, node: ast.BinOp, frame: Frame) -> Values:
        left, right = self.evaluate(node.left, frame), self.evaluate(node.right, frame)
        if isinstance(node.op, ast.Add):
            a, b = texts(left), texts(right)
            if any(HOST in text for text in (*a, *b)):
                return frozenset({Text("".join((*a[:1], *b[:1])))})
            if any(isinstance(value, Box) for value in (*left, *right)):
                return frozenset(box([*one, *other]) for one in _alternatives(left) for other in _alternatives(right))
        if isinstance(node.op, ast.Mod):
            return left
        return frozenset(value for value in left | right if not isinstance(value, Text | Box))

    def _either(self, node: ast.BoolOp, frame: Frame) -> Values:
        return NOTHING.union(*(self.evaluate(value, frame) for value in node.values))

    def _conditional(self, node: ast.IfExp, frame: Frame) -> Values:
        self.evaluate(node.test, frame)
        before = dict(frame.names)
        self.narrow(node.test, frame)
        first = self.evaluate(node.body, frame)
        frame.names = before
        return first | self.evaluate(node.orelse, frame)

    @abstractmethod
    def narrow(self, test: ast.expr, frame: Frame) -> None: ...

    def _walrus(self, node: ast.NamedExpr, frame: Frame) -> Values:
        values = self.evaluate(node.value, frame)
        self.assign(node.target, values, frame, node.value)
        return values

    def _await(self, node: ast.Await, frame: Frame) -> Values:
        return self.evaluate(node.value, frame)

    def _starred(self, node: ast.Starred, frame: Frame) -> Values:
        return self.evaluate(node.value, frame)

    def _yield(self, node: ast.Yield, frame: Frame) -> Values:
        frame.generates = True
        frame.yielded |= self.evaluate(node.value, frame)
        return NOTHING

    def _yield_from(self, node: ast.YieldFrom, frame: Frame) -> Values:
        frame.generates = True
        values = self.evaluate(node.value, frame)
        frame.yielded |= unboxed(values)
        return values

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set, frame: Frame) -> Values:
        numbered = not any(isinstance(element, ast.Starred) for element in node.elts)
        ways: list[list[tuple[str | None, Values]]] = [[]]
        for number, element in enumerate(node.elts):
            values = self.evaluate(element, frame)
            if isinstance(element, ast.Starred):
                ways = [[*way, *more] for way in ways for more in _alternatives(values)][:MOST_WAYS]
            else:
                entry = (str(number) if numbered else None, values or frozenset({Something()}))
                for way in ways:
                    way.append(entry)
        return frozenset(box(way) for way in ways)

    def _dict(self, node: ast.Dict, frame: Frame) -> Values:
        entries: set[tuple[str | None, Values]] = set()
        for key, value in zip(node.keys, node.values, strict=True):
            values = self.evaluate(value, frame)
            if key is None:
                for spread in values:
                    if isinstance(spread, Box):
                        entries |= spread.entries
                if not any(isinstance(spread, Box) for spread in values):
                    entries.add((None, frozenset({Something()})))
                continue
            self.evaluate(key, frame)
            literal = str(key.value) if isinstance(key, ast.Constant) else None
            if literal is not None:
                entries = {entry for entry in entries if entry[0] != literal}
            entries.add((literal, values))
        return frozenset({box(entries)})

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Values:
        values = self.evaluate(node.value, frame)
        for value in values:
            if isinstance(value, Outside) and value.dotted.rpartition(".")[2] in {"Provide", "Provider", "Closing"}:
                return self._provided(self.evaluate(node.slice, frame))
            if isinstance(value, Outside) and value.dotted.partition(".")[0] in {"typing", "typing_extensions"}:
                return frozenset({Alias(node, frame)})
        key: str | None = None
        match node.slice:
            case ast.Constant(value=literal):
                key = str(literal)
            case ast.Name():
                found = texts(self.evaluate(node.slice, frame))
                key = found[0] if len(found) == 1 else None
            case _:
                self.evaluate(node.slice, frame)
        if isinstance(node.slice, ast.Slice):
            return values
        if dotted_name(node.value) in {"sys.modules"}:
            return frozenset({Outside(key)}) if key else NOTHING
        return unboxed(values, key)

    @staticmethod
    def _provided(values: Values) -> Values:
        return NOTHING.union(*(v.gives if isinstance(v, Provider) else frozenset({v}) for v in values))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, frame: Frame) -> Values:
        self._generators(node.generators, frame)
        return boxed(self.evaluate(node.elt, frame))

    def _dict_comprehension(self, node: ast.DictComp, frame: Frame) -> Values:
        self._generators(node.generators, frame)
        self.evaluate(node.key, frame)
        return boxed(self.evaluate(node.value, frame))

    def _generators(self, generators: list[ast.comprehension], frame: Frame) -> None:
        for generator in generators:
            self.assign(generator.target, unboxed(self.evaluate(generator.iter, frame)), frame)
            for condition in generator.ifs:
                self.evaluate(condition, frame)

    def _lambda(self, node: ast.Lambda, frame: Frame) -> Values:
        function = Function(node, frame.module, frame)
        frame.nested.append(function)
        return frozenset({function})

    def _call(self, node: ast.Call, frame: Frame) -> Values:
        return self.call(node, frame)

    @abstractmethod
    def call(self, node: ast.Call, frame: Frame) -> Values: ...

    _HOW: dict[type[ast.expr], Callable[..., Values]] = {
        ast.Name: _name,
        ast.Constant: _constant,
        ast.Attribute: _attribute,
        ast.JoinedStr: _joined,
        ast.BinOp: _binary,
        ast.BoolOp: _either,
        ast.IfExp: _conditional,
        ast.NamedExpr: _walrus,
        ast.Await: _await,
        ast.Starred: _starred,
        ast.Yield: _yield,
        ast.YieldFrom: _yield_from,
        ast.List: _sequence,
        ast.Tuple: _sequence,
        ast.Set: _sequence,
        ast.Dict: _dict,
        ast.Subscript: _subscript,
        ast.ListComp: _comprehension,
        ast.SetComp: _comprehension,
        ast.GeneratorExp: _comprehension,
        ast.DictComp: _dict_comprehension,
        ast.Lambda: _lambda,
        ast.Call: _call,
    }


def _alternatives(values: Values) -> list[list[tuple[str | None, Values]]]:
    """What `*values` and `… + values` bring: each container it may be, without its positions; else what it is."""
    others = frozenset(value for value in values if not isinstance(value, Box | Text))
    ways: list[list[tuple[str | None, Values]]] = []
    for value in values:
        if isinstance(value, Box) and len(ways) < MOST_WAYS:
            ways.append([(None, held) for _, held in value.entries])
    if others or not ways:
        ways.append([(None, others or frozenset({Something()}))])
    return ways


def dotted_name(node: ast.expr) -> str | None:
    """`self.client` of attributes of a name; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def last_of(value: Value) -> str | None:
    return value.dotted.rpartition(".")[2] if isinstance(value, Outside) else None
