"""Statements, in the order in which they run: what names are after them."""

from __future__ import annotations

import ast
from collections.abc import Callable

from relight.engine.coverage.python.assignments import Assignments
from relight.engine.coverage.python.expressions import dotted_name
from relight.engine.coverage.python.state import Arguments
from relight.engine.coverage.python.values import (
    NOTHING,
    Box,
    Client,
    Frame,
    Function,
    Handed,
    Instance,
    Made,
    Nil,
    Something,
    Text,
    Value,
    Values,
    boxed,
    unboxed,
)

Names = dict[str, Values]
MOST_UNROLLED = 8
"""Elements of a list that a loop is gone through for, one by one and in their order."""


class Statements(Assignments):
    """Executes in the abstract: branches are joined, loops are gone through twice."""

    def run_body(self, body: list[ast.stmt], frame: Frame) -> bool:
        """Whether what comes after it may be reached."""
        for statement in body:
            how = self._STATEMENTS.get(type(statement))
            if how is None:
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        self.evaluate(child, frame)
            elif how(self, statement, frame) is False:
                return False
        return True

    def _expression(self, node: ast.Expr, frame: Frame) -> None:
        self.evaluate(node.value, frame)

    def _return(self, node: ast.Return, frame: Frame) -> bool:
        frame.returned |= self.evaluate(node.value, frame)
        self.publish(frame)
        return False

    def _raise(self, node: ast.Raise, frame: Frame) -> bool:
        self.evaluate(node.exc, frame)
        return False

    def _leave(self, node: ast.stmt, frame: Frame) -> bool:
        return False

    def _assign(self, node: ast.Assign, frame: Frame) -> None:
        values = self.evaluate(node.value, frame)
        if node.type_comment and not values:
            values = self.annotated(ast.Constant(node.type_comment), frame, "it", node)
        for target in node.targets:
            self.assign(target, values, frame, node.value)

    def _annotated_assign(self, node: ast.AnnAssign, frame: Frame) -> None:
        values = self.evaluate(node.value, frame)
        known = any(not isinstance(value, Text | Made | Handed | Nil) for value in values)
        if node.value is not None and not known:
            values |= self.annotated(node.annotation, frame, dotted_name(node.target) or "it", node)
        if node.value is not None or isinstance(node.target, ast.Attribute):
            self.assign(node.target, values, frame, node.value)

    def _augmented_assign(self, node: ast.AugAssign, frame: Frame) -> None:
        both = ast.BinOp(left=_loaded(node.target), op=node.op, right=node.value)
        self.assign(node.target, self.evaluate(ast.copy_location(both, node), frame), frame)

    def _delete(self, node: ast.Delete, frame: Frame) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                frame.names.pop(target.id, None)

    def _global(self, node: ast.Global, frame: Frame) -> None:
        frame.globals_.update(node.names)

    def _nonlocal(self, node: ast.Nonlocal, frame: Frame) -> None:
        frame.nonlocals.update(node.names)

    def _if(self, node: ast.If, frame: Frame) -> bool:
        self.evaluate(node.test, frame)
        before = dict(frame.names)
        self.narrow(node.test, frame)
        first = self.run_body(node.body, frame)
        after_first, frame.names = frame.names, before
        second = self.run_body(node.orelse, frame)
        if first and second:
            _join(frame, after_first)
        elif first:
            _replace(frame, after_first)
        return first or second

    def narrow(self, test: ast.expr, frame: Frame) -> None:
        """`isinstance(x, AsyncAnthropic)` says what x is."""
        match test:
            case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), kinds]):
                listed = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
                known = self.look_up(name, frame)
                if not any(isinstance(value, Client) for value in known):
                    for kind in listed:
                        typed = self.annotated(kind, frame, name, test)
                        if any(isinstance(value, Client | Made) for value in typed):
                            frame.names[name] = typed
            case _:
                pass

    def _for(self, node: ast.For | ast.AsyncFor, frame: Frame) -> bool:
        in_order = _in_order(self.evaluate(node.iter, frame))
        if in_order is not None:
            for element in in_order:
                self.assign(node.target, element, frame)
                self.run_body(node.body, frame)
            self.run_body(node.orelse, frame)
            return True
        for _ in range(2):
            elements = unboxed(self.evaluate(node.iter, frame))
            before = dict(frame.names)
            self.assign(node.target, elements, frame)
            self.run_body(node.body, frame)
            _join(frame, before)
        self.run_body(node.orelse, frame)
        return True

    def _while(self, node: ast.While, frame: Frame) -> bool:
        for _ in range(2):
            self.evaluate(node.test, frame)
            before = dict(frame.names)
            self.run_body(node.body, frame)
            _join(frame, before)
        self.run_body(node.orelse, frame)
        for_ever = isinstance(node.test, ast.Constant) and bool(node.test.value)
        return not for_ever or any(isinstance(inner, ast.Break) for inner in ast.walk(node))

    def _with(self, node: ast.With | ast.AsyncWith, frame: Frame) -> bool:
        for item in node.items:
            values = self.evaluate(item.context_expr, frame)
            given = unboxed(values) | frozenset(value for value in values if not isinstance(value, Box))
            entered: Values = NOTHING
            for value in given:
                entered |= self._entered(value, frame) or frozenset({value})
            if item.optional_vars is not None:
                self.assign(item.optional_vars, entered, frame)
        return self.run_body(node.body, frame)

    def _entered(self, value: Value, frame: Frame) -> Values:
        """What a class's own `__enter__` gives."""
        if not isinstance(value, Instance):
            return NOTHING
        found: Values = NOTHING
        for name in ("__enter__", "__aenter__"):
            for method in self.attribute(frozenset({value}), name, frame):
                if isinstance(method, Function):
                    found |= self.run_function(method, Arguments())
        return found

    def _try(self, node: ast.Try, frame: Frame) -> bool:
        before = dict(frame.names)
        reached = self.run_body(node.body, frame)
        after_body = dict(frame.names)
        if reached:
            reached = self.run_body(node.orelse, frame)
        ends = [dict(frame.names)] if reached else []
        for handler in node.handlers:
            frame.names = dict(before)
            _join(frame, after_body)
            if self.run_body(handler.body, frame):
                ends.append(dict(frame.names))
        frame.names = ends[0] if ends else {**before, **after_body}
        for end in ends[1:]:
            _join(frame, end)
        finished = self.run_body(node.finalbody, frame)
        return bool(ends) and finished

    def _match(self, node: ast.Match, frame: Frame) -> bool:
        subject = self.evaluate(node.subject, frame)
        before, ends = dict(frame.names), []
        whole = False
        for case in node.cases:
            frame.names = dict(before)
            self._capture(case.pattern, subject, frame)
            self.evaluate(case.guard, frame)
            whole = whole or (case.guard is None and isinstance(case.pattern, ast.MatchAs) and not case.pattern.pattern)
            if self.run_body(case.body, frame):
                ends.append(dict(frame.names))
        if not whole:
            ends.append(before)
        frame.names = ends[0] if ends else before
        for end in ends[1:]:
            _join(frame, end)
        return bool(ends)

    def _capture(self, pattern: ast.pattern, subject: Values, frame: Frame) -> None:
        match pattern:
            case ast.MatchAs(pattern=inner, name=name):
                if isinstance(inner, ast.MatchClass):
                    typed = self.annotated(inner.cls, frame, name or "it", inner.cls)
                    known = any(isinstance(value, Client) for value in subject)
                    subject = subject if known else typed or subject
                if name is not None:
                    frame.names[name] = subject
                if inner is not None:
                    self._capture(inner, subject, frame)
            case ast.MatchOr(patterns=inner):
                for each in inner:
                    self._capture(each, subject, frame)
            case ast.MatchSequence(patterns=inner):
                for number, each in enumerate(inner):
                    self._capture(each, unboxed(subject, str(number)), frame)
            case ast.MatchMapping(keys=keys, patterns=inner):
                for key, each in zip(keys, inner, strict=True):
                    literal = str(key.value) if isinstance(key, ast.Constant) else None
                    self._capture(each, unboxed(subject, literal), frame)
            case ast.MatchClass(kwd_attrs=names, kwd_patterns=inner):
                for name, each in zip(names, inner, strict=True):
                    self._capture(each, self.attribute(subject, name, frame), frame)
            case ast.MatchStar(name=str() as name):
                frame.names[name] = boxed(unboxed(subject))
            case _:
                pass

    _STATEMENTS: dict[type[ast.stmt], Callable[..., bool | None]] = {
        ast.Expr: _expression,
        ast.Return: _return,
        ast.Raise: _raise,
        ast.Break: _leave,
        ast.Continue: _leave,
        ast.Assign: _assign,
        ast.AnnAssign: _annotated_assign,
        ast.AugAssign: _augmented_assign,
        ast.Delete: _delete,
        ast.Global: _global,
        ast.Nonlocal: _nonlocal,
        ast.If: _if,
        ast.For: _for,
        ast.AsyncFor: _for,
        ast.While: _while,
        ast.With: _with,
        ast.AsyncWith: _with,
        ast.Try: _try,
        ast.TryStar: _try,
        ast.Match: _match,
    }


def _in_order(values: Values) -> list[Values] | None:
    """The elements of one short list or tuple that stands in the source and holds what is called or passed on."""
    if len(values) != 1:
        return None
    [value] = values
    if not isinstance(value, Box) or not 0 < len(value.entries) <= MOST_UNROLLED:
        return None
    numbered = {key: held for key, held in value.entries}
    if set(numbered) != {str(number) for number in range(len(numbered))} or len(numbered) != len(value.entries):
        return None
    held = [numbered[str(number)] for number in range(len(numbered))]
    return held if any(not isinstance(one, Text | Nil | Something) for each in held for one in each) else None


def _join(frame: Frame, other: Names) -> None:
    """After two ways that lead here a name may be what it was after either."""
    names = frame.names
    for name, values in other.items():
        known = names.get(name)
        if known is None:
            names[name] = values
        elif known is not values:
            names[name] = known | values


def _replace(frame: Frame, names: Names) -> None:
    frame.names = names


def _loaded(node: ast.expr) -> ast.expr:
    """The same expression, read instead of written."""
    match node:
        case ast.Name(id=name):
            return ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)
        case ast.Attribute(value=value, attr=attr):
            return ast.copy_location(ast.Attribute(value=value, attr=attr, ctx=ast.Load()), node)
        case ast.Subscript(value=value, slice=key):
            return ast.copy_location(ast.Subscript(value=value, slice=key, ctx=ast.Load()), node)
        case _:
            return node
