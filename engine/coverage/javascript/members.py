"""What a property of a value may hold."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, assert_never

from relight.engine.coverage.javascript import types
from relight.engine.coverage.javascript.packages import HTTP_MAKERS, below, exported
from relight.engine.coverage.javascript.tree import Node, name_of
from relight.engine.coverage.javascript.values import (
    NOTHING,
    Address,
    Class,
    Client,
    ClientClass,
    Family,
    Foreign,
    Function,
    Generate,
    Guarding,
    Http,
    Instance,
    Method,
    Module,
    Object,
    Package,
    Resolver,
    ResourceClass,
    Shape,
    Value,
    Values,
    Wrapper,
)
from relight.engine.coverage.models import Guarded

if TYPE_CHECKING:
    from relight.engine.coverage.javascript.evaluation import Evaluation

HOLDERS = frozenset({"current", "value", "deref"})
"""A ref's own properties: what it holds passed through the function that made it."""
LISTS = frozenset({"array", "call_expression", "new_expression"})
FIELDS = frozenset({"public_field_definition", "field_definition"})
MOST_ANCESTORS = 12


def of_all(evaluation: Evaluation, values: Values, name: str) -> Values:
    return NOTHING.union(*(of(evaluation, value, name) for value in values)) if values else NOTHING


def of(evaluation: Evaluation, value: Value, name: str) -> Values:
    match value:
        case Client():
            if name in HOLDERS:
                return frozenset({value})
            return below(value, (), name)
        case Method():
            return below(value.client, value.path, name)
        case ClientClass():
            if name in ("default", value.name):
                return frozenset({value})
            return exported("@anthropic-ai/sdk", name) if value.family is Family.SDK else NOTHING
        case Package():
            return evaluation.of_package(value.name, name)
        case Foreign() | Generate() | Address() | Resolver() | ResourceClass() | Guarding():
            return NOTHING
        case Http():
            return frozenset({value if name == "default" else Http(f"{value.name}.{name}")})
        case Wrapper():
            return below(obtained(value), (), name)
        case Function():
            return evaluation.holds(("field", value.node, name))
        case Class():
            return evaluation.once((value, name), lambda: _static(evaluation, value.node, name))
        case Instance():
            return evaluation.once((value, name), lambda: _of_instance(evaluation, value, name))
        case Object():
            return evaluation.once((value, name), lambda: _of_object(evaluation, value.node, name))
        case Shape():
            return evaluation.once((value, name), lambda: types.member(evaluation, value.node, name))
        case Module():
            return evaluation.exported(value.file, name)
        case _:
            assert_never(value)


def obtained(wrapper: Wrapper) -> Client:
    """What a wrapper gives that was handed no client."""
    return Client(Family.SDK, None, Guarded.YES, wrapper.entry, obtained=True)


def makes_http_clients(value: Http) -> bool:
    return value.name.rpartition(".")[2] in HTTP_MAKERS


def elements(evaluation: Evaluation, values: Values, index: str | None = None) -> Values:
    """What is in a list, a map or an object; `index` is the expression that chose, where it is no number."""
    found: set[Value] = set()
    for value in values:
        match value:
            case Object():
                found |= evaluation.once((value, "[]"), partial(_inside, evaluation, value.node))
            case Shape():
                found |= types.elements(evaluation, value.node)
            case Client() | Method() if index is not None:
                path = value.path if isinstance(value, Method) else ()
                client = value.client if isinstance(value, Method) else value
                found |= below(client, path, f"[{index}]")
            case Client() | Method() | Instance():
                # A rest parameter, or what a foreign function made a list of: it is held without its list.
                found.add(value)
            case _:
                pass
    return frozenset(found)


def _inside(evaluation: Evaluation, node: Node) -> Values:
    """What a list, a map or an object literal has in it."""
    found = evaluation.holds(("field", node, "[]"))
    for child in node.children if node.kind in ("array", "object") else ():
        inner = evaluation.of(child.field("value") or child)
        found |= elements(evaluation, inner) if child.kind == "spread_element" else inner
    return found


def parents(evaluation: Evaluation, of: Node) -> Values:
    """What a class extends."""
    heritage = of.first("class_heritage")
    if heritage is None or not heritage.children:
        return NOTHING
    clause = heritage.first("extends_clause")
    extended = clause.children[0] if clause is not None and clause.children else heritage.children[0]
    return NOTHING if extended.kind == "implements_clause" else evaluation.of(extended)


def lineage(evaluation: Evaluation, of: Node) -> list[Node]:
    """A class and the classes among the files that it extends, the nearest first."""
    found = [of]
    for node in found:
        for parent in parents(evaluation, node):
            if isinstance(parent, Class) and parent.node not in found and len(found) < MOST_ANCESTORS:
                found.append(parent.node)
    return found


def client_class(evaluation: Evaluation, of: Node) -> ClientClass | None:
    """The client's class that a class extends in the end."""
    for node in lineage(evaluation, of):
        for parent in parents(evaluation, node):
            if isinstance(parent, ClientClass):
                return parent
            if isinstance(parent, Wrapper):
                return ClientClass(Family.SDK, parent.entry, Guarded.YES, parent.entry)
    return None


def declared(evaluation: Evaluation, of: Node, name: str) -> list[Node]:
    """The members of this name that a class declares itself."""
    if (known := evaluation.declared_members.get(of)) is None:
        known = evaluation.declared_members[of] = {}
        body = of.field("body")
        for child in body.children if body is not None else ():
            named = child.field("name") or child.field("property")
            if named is not None and (own := name_of(named)) is not None:
                known.setdefault(own, []).append(child)
    return known.get(name, [])


def constructor(evaluation: Evaluation, of: Node) -> Node | None:
    """The constructor that `new` runs: its own, or the nearest one above."""
    for node in lineage(evaluation, of):
        for member in declared(evaluation, node, "constructor"):
            if member.kind == "method_definition":
                return member
    return None


def _static(evaluation: Evaluation, of: Node, name: str) -> Values:
    found: Values = NOTHING
    for node in lineage(evaluation, of):
        found |= evaluation.holds(("static", node, name))
        for member in declared(evaluation, node, name):
            if "static" in member.tokens:
                found |= _declared_value(evaluation, member)
    return found


def _of_instance(evaluation: Evaluation, value: Instance, name: str) -> Values:
    found: Values = NOTHING
    above = lineage(evaluation, value.of)
    # What an abstract class uses is set by those that extend it.
    subclasses = evaluation.holds(("subclasses", value.of, ""))
    for node in [*above, *(sub.node for sub in subclasses if isinstance(sub, Class))]:
        found |= evaluation.holds(("field", node, name))
        for member in declared(evaluation, node, name):
            if "static" not in member.tokens:
                found |= _declared_value(evaluation, member)
    if value.client is not None and not any(isinstance(each, Function) for each in found):
        found |= below(value.client, (), name)
    return found


def _declared_value(evaluation: Evaluation, member: Node) -> Values:
    if member.kind == "method_definition":
        if "get" in member.tokens:
            return evaluation.holds(("return", member, "")) or types.of_type(evaluation, member.field("return_type"))
        return NOTHING if "set" in member.tokens else frozenset({Function(member)})
    if member.kind in FIELDS:
        found = evaluation.of(member.field("value")) | types.of_type(evaluation, member.field("type"))
        return found | injected(evaluation, member)
    return types.of_type(evaluation, member.field("return_type"))


def injected(evaluation: Evaluation, member: Node) -> Values:
    """What a decorator with a token puts in: `@Inject('CLIENT')`."""
    found: Values = NOTHING
    for decorator in member.children:
        if decorator.kind == "decorator" and (call := decorator.first("call_expression")) is not None:
            listed = call.field("arguments")
            if listed is not None and listed.children and (token := evaluation.token(listed.children[0])) is not None:
                found |= evaluation.named(token)
    return found


def _of_object(evaluation: Evaluation, node: Node, name: str) -> Values:
    found = evaluation.holds(("field", node, name))
    if node.kind == "array" and name.isdigit():
        return found | elements(evaluation, frozenset({Object(node)}))
    for child in node.children if node.kind in ("object", "statement_block") else ():
        match child.kind:
            case "pair" if (key := child.field("key")) is not None and name_of(key) == name:
                found |= evaluation.of(child.field("value"))
            case "shorthand_property_identifier" if child.text == name:
                found |= evaluation.of(child)
            case "method_definition" if (key := child.field("name")) is not None and name_of(key) == name:
                getter = "get" in child.tokens
                found |= evaluation.holds(("return", child, "")) if getter else frozenset({Function(child)})
            case "spread_element":
                found |= of_all(evaluation, evaluation.of(child), name)
            case _:
                pass
    if node.kind == "internal_module" and (body := node.first("statement_block")) is not None:
        binding = evaluation.file(node).scopes.value(name, body)
        found |= NOTHING if binding is None else evaluation.value(binding)
    return found
