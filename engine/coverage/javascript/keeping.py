"""What containers and frameworks are told to keep, and under which name it is asked for again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from relight.engine.coverage.javascript import members
from relight.engine.coverage.javascript.tree import Node, arguments, name_of, unquoted
from relight.engine.coverage.javascript.values import NOTHING, Class, Function, Instance, Object, Value, Values

if TYPE_CHECKING:
    from relight.engine.coverage.javascript.evaluation import Evaluation

REGISTERING = frozenset(
    {
        *("addSingleton", "constant", "decorate", "decorateRequest", "factory", "instance", "provide", "register"),
        *("registerInstance", "registerSingleton", "set", "singleton", "value"),
    }
)
BOUND_TO = frozenset({"to", "toConstantValue", "toDynamicValue", "toFactory", "toProvider", "toSelf", "toConstant"})
LISTING = frozenset({"add", "push", "set", "unshift"})
"""What puts something into a list, a set or a map."""
PROVIDERS = frozenset({"useFactory", "useValue", "useClass", "asValue", "asFunction"})


def provided(evaluation: Evaluation, literal: Node) -> Iterator[tuple[str, Values]]:
    """Of a provider: `{ provide: TOKEN, useFactory: () => … }`."""
    token = None
    for pair in literal.children:
        key = pair.field("key")
        if pair.kind == "pair" and key is not None and name_of(key) in ("provide", "token"):
            token = evaluation.token(pair.field("value"))
    if token is not None:
        yield token, made(evaluation, frozenset({Object(literal)}))


def registered(
    evaluation: Evaluation, node: Node, name: str, holder: Node | None, handed: Sequence[Node]
) -> Iterator[tuple[str, Values]]:
    """Of a call that tells a container: `container.register(TOKEN, …)`, `container.bind(TOKEN).toConstantValue(…)`."""
    if name in BOUND_TO and holder is not None:
        inner: Node | None = holder
        while inner is not None and inner.kind == "call_expression":
            function = inner.field("function")
            listed = arguments(inner)
            if listed and (token := evaluation.token(listed[0])) is not None:
                yield token, made(evaluation, evaluation.all_of(handed))
            inner = function.field("object") if function is not None else None
    elif name in REGISTERING and len(handed) > 1 and (token := evaluation.token(handed[0])) is not None:
        yield token, made(evaluation, evaluation.all_of(handed[1:]))
    elif name in REGISTERING and handed and handed[0].kind == "object":
        for child in handed[0].children:
            key = child.field("key")
            if key is not None and (named := name_of(key)) is not None:
                yield named, made(evaluation, evaluation.of(child.field("value")))
            elif child.kind == "shorthand_property_identifier":
                yield child.text, made(evaluation, evaluation.of(child))


def made(evaluation: Evaluation, values: Values) -> Values:
    """What a container makes of what it was told: of a factory what it returns, of a class an instance."""
    found: set[Value] = set()
    for value in values:
        match value:
            case Function():
                found |= evaluation.holds(("return", value.node, ""))
            case Class():
                found.add(Instance(value.node))
            case Object() if value.node.kind == "object":
                inside = [members.of(evaluation, value, name) for name in PROVIDERS]
                found |= made(evaluation, NOTHING.union(*inside)) if any(inside) else {value}
            case _:
                found.add(value)
    return frozenset(found)


def index_name(target: Node) -> str:
    """What an assignment in brackets sets: the name in them, or anything in there."""
    index = target.field("index")
    return (None if index is None else unquoted(index)) or "[]"
