"""What one call of a function returns: what its parameters hold in this call counts, not what they hold in any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relight.engine.coverage.javascript import members, types
from relight.engine.coverage.javascript.scopes import Binding
from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node, name_of, parameters
from relight.engine.coverage.javascript.values import NOTHING, Client, Method, Object, Values

if TYPE_CHECKING:
    from relight.engine.coverage.javascript.evaluation import Evaluation

DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One call of a function: what its parameters hold in it."""

    function: Node | None = None
    values: Mapping[Binding, Values] = field(default_factory=dict)
    depth: int = 0


NO_FRAME = Frame()


def returns(evaluation: Evaluation, function: Node, handed: Sequence[Values], frame: Frame) -> Values:
    """What a call returns that hands in these; by its declared type where nothing is known to be returned."""
    found: Values = NOTHING
    if frame.depth < DEEPEST and any(handed) and _depends(evaluation, function):
        inner = Frame(function, dict(entered(evaluation, function, handed)), frame.depth + 1)
        found = evaluation.all_of(returned(function), inner)
    found = found or evaluation.holds(("return", function, ""))
    return found or types.of_type(evaluation, function.field("return_type"))


def entered(evaluation: Evaluation, function: Node, handed: Sequence[Values]) -> Iterator[tuple[Binding, Values]]:
    """What each parameter holds when these are handed in."""
    for place, parameter in enumerate(parameters(function)):
        pattern = parameter.field("pattern") or parameter
        if pattern.kind == "this":
            continue
        if pattern.kind == "rest_pattern":
            values = NOTHING.union(*handed[place:])
        else:
            values = handed[place] if place < len(handed) else NOTHING
        if not values and (default := parameter.field("value")) is not None:
            values = evaluation.of(default)
        yield from bound(evaluation, pattern, values)


def bound(evaluation: Evaluation, pattern: Node, values: Values) -> Iterator[tuple[Binding, Values]]:
    """What each name of a pattern holds when it is given these."""
    match pattern.kind:
        case "identifier" | "shorthand_property_identifier_pattern":
            binding = evaluation.file(pattern).scopes.value(pattern.text, pattern)
            if binding is not None:
                yield binding, values
        case "assignment_pattern" | "object_assignment_pattern":
            if (left := pattern.field("left")) is not None:
                default = evaluation.of(pattern.field("right"))
                if left.kind == "shorthand_property_identifier_pattern":
                    values = evaluation.named_in(values, left.text)
                yield from bound(evaluation, left, values | default)
        case "object_pattern":
            for part in pattern.children:
                yield from _part(evaluation, part, values)
        case "array_pattern":
            for place, part in enumerate(pattern.children):
                yield from bound(evaluation, part, _at(evaluation, values, place))
        case "rest_pattern" | "required_parameter" | "optional_parameter":
            inner = pattern.field("pattern") or (pattern.children[0] if pattern.children else None)
            if inner is not None:
                yield from bound(evaluation, inner, values)
        case _:
            pass


def _part(evaluation: Evaluation, part: Node, values: Values) -> Iterator[tuple[Binding, Values]]:
    match part.kind:
        case "shorthand_property_identifier_pattern":
            yield from bound(evaluation, part, evaluation.named_in(values, part.text))
        case "pair_pattern":
            key, inner = part.field("key"), part.field("value")
            if key is not None and inner is not None and (name := name_of(key)) is not None:
                yield from bound(evaluation, inner, evaluation.named_in(values, name))
        case _:
            yield from bound(evaluation, part, values)


def _at(evaluation: Evaluation, values: Values, place: int) -> Values:
    found: Values = NOTHING
    for value in values:
        if isinstance(value, Object) and value.node.kind == "array":
            children = value.node.children
            plain = all(child.kind != "spread_element" for child in children[: place + 1])
            if plain and place < len(children):
                found |= evaluation.of(children[place])
                continue
        if isinstance(value, Client | Method):
            found |= {value}
        else:
            found |= members.elements(evaluation, frozenset({value}))
    return found


def _depends(evaluation: Evaluation, function: Node) -> bool:
    """Whether what is returned names anything that the function declares."""
    if (known := evaluation.own_results.get(function)) is None:
        known = any(
            binding is not None and any(above is function for above in binding.declared.above())
            for result in returned(function)
            for node in result.walk()
            if node.kind in ("identifier", "shorthand_property_identifier")
            for binding in [evaluation.file(node).scopes.value(node.text, node)]
        )
        evaluation.own_results[function] = known
    return known


def returned(function: Node) -> Iterator[Node]:
    """The expressions that a function returns or yields."""
    body = function.field("body")
    if body is None:
        return
    if body.kind != "statement_block":
        yield body
        return
    waiting = [body]
    while waiting:
        node = waiting.pop()
        if node.kind in ("return_statement", "yield_expression") and node.children:
            yield node.children[0]
        waiting.extend(child for child in node.children if child.kind not in FUNCTIONS and child.kind not in CLASSES)
