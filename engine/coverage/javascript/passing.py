"""What flows where something is called: arguments into parameters, values into callbacks and containers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relight.engine.coverage.javascript import calling, frames, keeping, members, types
from relight.engine.coverage.javascript.evaluation import Evaluation
from relight.engine.coverage.javascript.memory import Key
from relight.engine.coverage.javascript.tree import CLASSES, Node, arguments, around
from relight.engine.coverage.javascript.values import (
    NOTHING,
    Class,
    Client,
    Foreign,
    Function,
    Guarding,
    Method,
    Object,
    Resolver,
    Values,
)

Flows = Iterator[tuple[Key, Values]]
"""Places, and what they hold from now on beside what they hold."""


def of_call(evaluation: Evaluation, node: Node) -> Flows:
    function = calling.callee(node)
    if function is None:
        return
    handed = arguments(node)
    holder, name = calling.property_of(function)
    if function.kind == "super":
        yield from _construct_parent(evaluation, node, handed)
    elif holder is not None and name in ("call", "apply") and calling.callables(evaluation.of(holder)):
        listed = handed[1:]
        if name == "apply" and listed:
            yield from _hand_values(
                evaluation, evaluation.of(holder), [members.elements(evaluation, evaluation.of(listed[0]))] * 4
            )
        else:
            yield from _hand(evaluation, evaluation.of(holder), listed)
    elif holder is not None and name in calling.CONTINUED:
        yield from _call_back(evaluation, handed, evaluation.of(holder))
    elif function.text == "Promise" and node.kind == "new_expression":
        for executor in evaluation.all_of(handed):
            if isinstance(executor, Function):
                yield from _hand_values(evaluation, frozenset({executor}), [frozenset({Resolver(node)})])
    else:
        yield from _call_values(evaluation, node, function, handed)


def _call_values(evaluation: Evaluation, node: Node, function: Node, handed: Sequence[Node]) -> Flows:
    values = evaluation.of(function)
    yield from _hand(evaluation, values, handed)
    understood = False
    for value in values:
        if isinstance(value, Class) and (begun := members.constructor(evaluation, value.node)) is not None:
            yield from _hand(evaluation, frozenset({Function(begun)}), handed)
        elif isinstance(value, Resolver) and handed:
            yield ("promise", value.promise, ""), evaluation.of(handed[0])
        understood = understood or not isinstance(value, Foreign | Client | Method)
    if not understood:
        yield from _call_foreign(evaluation, node, function, handed)


def _call_foreign(evaluation: Evaluation, node: Node, function: Node, handed: Sequence[Node]) -> Flows:
    """Callbacks of a function that is not understood get what is held where it is called, or handed in beside."""
    holder, name = calling.property_of(function)
    receiver = evaluation.of(holder)
    inside = members.elements(evaluation, receiver)
    beside = frozenset(value for value in evaluation.all_of(handed) if isinstance(value, Client | Method))
    given = inside | beside | frozenset(value for value in receiver if isinstance(value, Client))
    for callback in evaluation.all_of(handed):
        if isinstance(callback, Function):
            places = [NOTHING, given] if name.startswith("reduce") else [given]
            yield from _hand_values(evaluation, frozenset({callback}), places)
            if name in calling.MAPPED and inside:
                yield ("field", node, "[]"), evaluation.holds(("return", callback.node, ""))
    for kept, values in keeping.registered(evaluation, node, name, holder, handed):
        yield ("named", None, kept), values
    if name in keeping.LISTING:
        for value in receiver:
            if isinstance(value, Object):
                yield ("field", value.node, "[]"), evaluation.all_of(handed)
    if node.kind == "new_expression":
        yield ("field", node, "[]"), members.elements(evaluation, evaluation.all_of(handed))
        listed = node.field("type_arguments")
        for child in listed.children if listed is not None else ():
            yield ("field", node, "[]"), types.of_type(evaluation, child)


def _call_back(evaluation: Evaluation, handed: Sequence[Node], values: Values) -> Flows:
    for callback in evaluation.all_of(handed[:1]):
        if isinstance(callback, Function):
            yield from _hand_values(evaluation, frozenset({callback}), [values])


def _construct_parent(evaluation: Evaluation, node: Node, handed: Sequence[Node]) -> Flows:
    if (owner := around(node, CLASSES)) is None:
        return
    for parent in members.parents(evaluation, owner):
        if isinstance(parent, Class) and (begun := members.constructor(evaluation, parent.node)) is not None:
            yield from _hand(evaluation, frozenset({Function(begun)}), handed)


def _hand(evaluation: Evaluation, functions: Values, handed: Sequence[Node]) -> Flows:
    if any(isinstance(value, Function | Guarding) for value in functions):
        given = [evaluation.of(each) for each in handed]
        spread = next((place for place, each in enumerate(handed) if each.kind == "spread_element"), None)
        if spread is not None:
            inside = members.elements(evaluation, given[spread]) | given[spread]
            given = [*given[:spread], *([inside] * 6)]
        yield from _hand_values(evaluation, functions, given)


def _hand_values(evaluation: Evaluation, functions: Values, given: Sequence[Values]) -> Flows:
    for function in functions:
        if isinstance(function, Function | Guarding):
            yield from frames.entered(evaluation, function.node, given)


def of_element(evaluation: Evaluation, node: Node) -> Flows:
    """A component is called with its attributes; a context's provider keeps its value."""
    name = node.field("name")
    given = {
        child.children[0].text: evaluation.of(child.children[1].children[0])
        for child in node.children
        if child.kind == "jsx_attribute" and len(child.children) > 1 and child.children[1].children
    }
    if name is None or not any(given.values()):
        return
    for attribute, values in given.items():
        yield ("field", node, attribute), values
    yield from _hand_values(evaluation, evaluation.of(name), [frozenset({Object(node)})])
    if name.text.endswith(".Provider"):
        yield ("named", None, name.text.removesuffix(".Provider")), given.get("value", NOTHING)
