"""What a call returns, and what a construction makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from relight.engine.coverage.javascript import frames, members, packages, types
from relight.engine.coverage.javascript.tree import Node, arguments, unquoted
from relight.engine.coverage.javascript.values import (
    NOTHING,
    Address,
    Class,
    Client,
    ClientClass,
    Family,
    Function,
    Guarding,
    Http,
    Instance,
    Method,
    Object,
    ResourceClass,
    Shape,
    Value,
    Values,
    Wrapper,
)
from relight.engine.coverage.models import Guarded

if TYPE_CHECKING:
    from relight.engine.coverage.javascript.evaluation import Evaluation
    from relight.engine.coverage.javascript.frames import Frame

MOST_PLUMBING = 12
"""Functions and objects that a foreign function may return: of more, none is followed."""
REBOUND = frozenset({"bind", "call", "apply"})
LOOKED_UP = frozenset({"get", "resolve", "inject", "getInstance", "make", "use", "useContext", "retrieve"})
CONTINUED = frozenset({"then", "catch", "finally"})
MAPPED = frozenset({"map", "flatMap"})
REQUIRING = frozenset({"require", "requireActual", "importActual"})
PASSED_ON = (Client, Method, Function, Object, Instance, ClientClass, Class, Address, Guarding)


def callee(node: Node) -> Node | None:
    """What is called, without parentheses and assertions around it."""
    found = node.field("function") or node.field("constructor")
    while found is not None and found.kind in ("parenthesized_expression", "non_null_expression") and found.children:
        if found.children[0].kind == "sequence_expression":
            return found.children[0].children[-1]
        found = found.children[0]
    return found


def property_of(node: Node | None) -> tuple[Node | None, str]:
    """What a method is called on, and its name; the name alone of a function."""
    if node is None:
        return None, ""
    if node.kind == "member_expression" and (name := node.field("property")) is not None:
        return node.field("object"), name.text
    return None, node.text if node.kind == "identifier" else ""


def called(evaluation: Evaluation, node: Node, frame: Frame) -> Values:
    function = callee(node)
    holder, name = property_of(function)
    if function is None or function.kind == "super":
        return NOTHING
    if (loaded := _loaded(evaluation, node, function, name)) is not None:
        return loaded
    if holder is not None and name in REBOUND and (rebound := callables(evaluation.of(holder, frame))):
        return rebound if name == "bind" else _results(evaluation, node, rebound, arguments(node)[1:], frame)[0]
    if holder is not None and name in CONTINUED:
        return _continued(evaluation, node, holder, name, frame)
    values = evaluation.of(function, frame)
    found, understood = _results(evaluation, node, values, arguments(node), frame)
    return found if understood else found | foreign(evaluation, node, frame)


def constructed(evaluation: Evaluation, node: Node, frame: Frame) -> Values:
    function = callee(node)
    if function is None:
        return NOTHING
    if function.kind == "identifier" and function.text == "Promise":
        return evaluation.holds(("promise", node, ""))
    found: set[Value] = set()
    understood = False
    for value in evaluation.of(function, frame):
        understood = True
        match value:
            case ClientClass():
                found.add(Client(value.family, node, value.guarded, value.note))
            case Class():
                extended = members.client_class(evaluation, value.node)
                own = None if extended is None else Client(extended.family, node, extended.guarded, extended.note)
                found.add(Instance(value.node, own))
            case ResourceClass():
                for client in evaluation.all_of(arguments(node), frame):
                    if isinstance(client, Client):
                        found.add(Method(client, value.path))
            case Wrapper():
                found |= wrapped(evaluation, value, evaluation.all_of(arguments(node), frame))
            case Function():
                found.add(Object(value.node))
                found |= evaluation.holds(("return", value.node, ""))
            case Client():
                found.add(value)
            case _:
                understood = False
    if not understood:
        found |= {Object(node)} | foreign(evaluation, node, frame)
    return frozenset(found)


def callables(values: Values) -> Values:
    return frozenset(value for value in values if isinstance(value, Function | Method | Wrapper | Guarding))


def _loaded(evaluation: Evaluation, node: Node, function: Node, name: str) -> Values | None:
    """What `require` and `import()` give; None where it is neither."""
    if function.kind != "import" and name not in REQUIRING:
        return None
    specifier = unquoted(node_arguments[0]) if (node_arguments := arguments(node)) else None
    if specifier is None:
        return None
    return evaluation.imported(specifier, "*" if function.kind == "import" else "=", evaluation.file(node))


def _continued(evaluation: Evaluation, node: Node, holder: Node, name: str, frame: Frame) -> Values:
    values = evaluation.of(holder, frame)
    if name != "then":
        return values
    found: Values = NOTHING
    for callback in evaluation.all_of(arguments(node), frame):
        if isinstance(callback, Function):
            found |= frames.returns(evaluation, callback.node, [values], frame)
    return found


def _results(
    evaluation: Evaluation, node: Node, values: Values, handed: Sequence[Node], frame: Frame
) -> tuple[Values, bool]:
    """What calling any of these returns, and whether it is understood what is called."""
    found: Values = NOTHING
    understood = False
    for value in values:
        understood = True
        match value:
            case Function():
                found |= frames.returns(evaluation, value.node, [evaluation.of(each, frame) for each in handed], frame)
            case Method():
                found |= packages.called(value)
            case Client():
                provider = value.family is Family.AI_SDK and not value.is_model
                found |= packages.model_of(value) if provider else frozenset({value})
            case Wrapper():
                found |= wrapped(evaluation, value, evaluation.all_of(handed, frame))
            case Guarding():
                result = frames.returns(evaluation, value.node, [evaluation.of(each, frame) for each in handed], frame)
                found |= guarded(result, value.entry)
            case ClientClass():
                found |= {Client(value.family, node, value.guarded, value.note)}
            case Http() if members.makes_http_clients(value):
                if Address() in held_by(evaluation, evaluation.all_of(handed, frame)):
                    found |= {Client(Family.HTTP, node)}
            case Shape():
                found |= types.returned(evaluation, value.node)
            case _:
                understood = False
    return found, understood


def held_by(evaluation: Evaluation, values: Values) -> Values:
    """These, and what stands in the object literals among them."""
    objects = frozenset(value for value in values if isinstance(value, Object))
    return values | members.elements(evaluation, objects)


def guarded(values: Values, entry: str) -> Values:
    """The same, guarded."""
    found: set[Value] = set()
    for value in values:
        match value:
            case Client() | ClientClass():
                found.add(replace(value, guarded=Guarded.YES, note=entry))
            case Method():
                found.add(replace(value, client=replace(value.client, guarded=Guarded.YES, note=entry)))
            case Instance() if value.client is not None:
                found.add(replace(value, client=replace(value.client, guarded=Guarded.YES, note=entry)))
            case _:
                pass
    return frozenset(found)


def wrapped(evaluation: Evaluation, wrapper: Wrapper, handed: Values) -> Values:
    """What a wrapper makes of what it is handed: the same client, guarded, or one of its own."""
    found = set(guarded(held_by(evaluation, handed), wrapper.entry))
    for value in handed:
        if isinstance(value, Function):
            found.add(Guarding(value.node, wrapper.entry))
            found |= guarded(evaluation.holds(("return", value.node, "")), wrapper.entry)
        elif isinstance(value, Class) and (extended := members.client_class(evaluation, value.node)) is not None:
            found.add(replace(extended, guarded=Guarded.YES, note=wrapper.entry))
    return frozenset(found) or frozenset({members.obtained(wrapper)})


def foreign(evaluation: Evaluation, node: Node, frame: Frame) -> Values:
    """What a function that is not among the files may return: what it was handed, or had been told to keep."""
    handed = arguments(node)
    function = callee(node)
    holder, name = property_of(function)
    found: set[Value] = set()
    if holder is not None:
        receiver = evaluation.of(holder, frame)
        listed = frozenset(value for value in receiver if isinstance(value, Object | Shape))
        found |= {Object(node)} if name in MAPPED and listed else members.elements(evaluation, listed) | listed
    if handed and name in LOOKED_UP and (token := evaluation.token(handed[0])) is not None:
        found |= evaluation.named(token)
    for value in _handed(evaluation, node, frame):
        match value:
            case Client():
                found.add(value if value.through else replace(value, through=name or "a function"))
            case Method():
                found.add(value if value.handed else replace(value, handed=node))
            case Function():
                found.add(value)
                found |= evaluation.holds(("return", value.node, ""))
            case _:
                found.add(value)
    if len(plumbing := [value for value in found if not isinstance(value, Client | Method)]) > MOST_PLUMBING:
        found.difference_update(plumbing)
    if (listed_types := node.field("type_arguments")) is not None and not found and node.kind == "call_expression":
        for child in listed_types.children:
            found |= types.of_type(evaluation, child)
    return frozenset(found)


def _handed(evaluation: Evaluation, node: Node, frame: Frame) -> Iterator[Value]:
    for value in held_by(evaluation, evaluation.all_of(arguments(node), frame)):
        if isinstance(value, PASSED_ON):
            yield value
