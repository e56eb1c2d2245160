"""What a thing of a declared type may be; whatever is found to be handed in says more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relight.engine.coverage.javascript.packages import exported
from relight.engine.coverage.javascript.tree import CLASSES, Node, name_of, unquoted
from relight.engine.coverage.javascript.values import (
    NOTHING,
    Class,
    Client,
    ClientClass,
    Function,
    Instance,
    Method,
    ResourceClass,
    Shape,
    Value,
    Values,
)
from relight.engine.coverage.models import Guarded

if TYPE_CHECKING:
    from relight.engine.coverage.javascript.evaluation import Evaluation

LISTS = frozenset({"Array", "ReadonlyArray", "Map", "ReadonlyMap", "WeakMap", "Set", "Record", "Iterable", "Iterator"})
CALLABLE = frozenset({"function_type", "method_signature", "function_signature", "abstract_method_signature"})


def of_type(evaluation: Evaluation, node: Node | None) -> Values:
    """What something of this type may be; a client known by its type alone may or may not be guarded."""
    return NOTHING if node is None else evaluation.once(node, lambda: _of_type(evaluation, node))


def _of_type(evaluation: Evaluation, node: Node) -> Values:
    match node.kind:
        case "type_annotation" | "parenthesized_type" | "readonly_type" | "optional_type" | "constraint":
            return of_type(evaluation, node.children[0] if node.children else None)
        case "union_type" | "intersection_type":
            return NOTHING.union(*(of_type(evaluation, child) for child in node.children))
        case "type_identifier" | "identifier":
            return _named(evaluation, node, node.text)
        case "nested_type_identifier":
            return _nested(evaluation, node)
        case "generic_type":
            return _generic(evaluation, node)
        case "type_query":
            return evaluation.of(node.children[0] if node.children else None)
        case "lookup_type" if len(node.children) > 1:
            key = node.children[1].children[0] if node.children[1].children else node.children[1]
            name = unquoted(key)
            held = of_type(evaluation, node.children[0])
            return NOTHING if name is None else NOTHING.union(*(evaluation.member(value, name) for value in held))
        case "object_type" | "array_type" | "tuple_type" | "function_type":
            return frozenset({Shape(node)})
        case _:
            return NOTHING


def member(evaluation: Evaluation, shape: Node, name: str) -> Values:
    """A property of an interface or an object type, those that it extends included."""
    body = shape.field("body") or shape
    found: Values = NOTHING
    for child in body.children:
        named = child.field("name")
        if named is not None and name_of(named) == name:
            found |= frozenset({Shape(child)}) if child.kind in CALLABLE else of_type(evaluation, child.field("type"))
    if not found and (extended := shape.first("extends_type_clause")) is not None:
        for parent in extended.children:
            found |= NOTHING.union(*(evaluation.member(value, name) for value in of_type(evaluation, parent)))
    return found


def elements(evaluation: Evaluation, shape: Node) -> Values:
    """What is in a list or map of this type."""
    if shape.kind == "generic_type":
        listed = shape.field("type_arguments")
        return NOTHING.union(*(of_type(evaluation, child) for child in (listed.children if listed else ())))
    if shape.kind in ("array_type", "tuple_type"):
        return NOTHING.union(*(of_type(evaluation, child) for child in shape.children))
    if (index := shape.first("index_signature")) is not None:
        return of_type(evaluation, index.children[-1])
    return NOTHING


def returned(evaluation: Evaluation, shape: Node) -> Values:
    """What a function of this type returns."""
    if shape.kind == "function_type":
        return of_type(evaluation, shape.children[-1])
    return of_type(evaluation, shape.field("return_type"))


def instances(values: Values) -> Values:
    """What things of these classes are."""
    found: set[Value] = set()
    for value in values:
        match value:
            case ClientClass():
                guarded = Guarded.YES if value.guarded is Guarded.YES else Guarded.UNKNOWN
                found.add(Client(value.family, None, guarded, value.note or value.name, of_type=True))
            case Class():
                found.add(Instance(value.node))
            case Client() | Method() | Instance() | Shape():
                found.add(value)
            case _:
                pass
    return frozenset(found)


def _named(evaluation: Evaluation, node: Node, name: str) -> Values:
    binding = evaluation.file(node).scopes.type(name, node)
    if binding is None:
        return NOTHING
    return declared(evaluation, binding.declared) or instances(evaluation.value(binding))


def declared(evaluation: Evaluation, node: Node) -> Values:
    """What something is whose type is declared here."""
    match node.kind:
        case "interface_declaration":
            return frozenset({Shape(node)})
        case "type_alias_declaration":
            return of_type(evaluation, node.field("value"))
        case "type_parameter":
            return of_type(evaluation, node.field("constraint"))
        case kind if kind in CLASSES:
            return frozenset({Instance(node)})
        case _:
            return NOTHING


def _nested(evaluation: Evaluation, node: Node) -> Values:
    module, name = node.field("module"), node.field("name")
    if module is None or name is None or module.kind != "identifier":
        return NOTHING
    found: set[Value] = set()
    for value in evaluation.of(module):
        if isinstance(value, ClientClass):
            for exported_value in exported("@anthropic-ai/sdk", name.text):
                if isinstance(exported_value, ResourceClass):
                    [client] = instances(frozenset({value}))
                    assert isinstance(client, Client)
                    found.add(Method(client, exported_value.path))
                else:
                    found |= instances(frozenset({exported_value}))
        else:
            found |= instances(evaluation.member(value, name.text))
    return frozenset(found)


def _generic(evaluation: Evaluation, node: Node) -> Values:
    name, listed = node.field("name"), node.field("type_arguments")
    first = listed.children[0] if listed is not None and listed.children else None
    if name is None or first is None:
        return NOTHING
    match name.text:
        case "InstanceType":
            return instances(of_type(evaluation, first))
        case "ReturnType":
            found = of_type(evaluation, first)
            functions = [value.node for value in found if isinstance(value, Function)]
            shapes = [value.node for value in found if isinstance(value, Shape)]
            held = [evaluation.holds(("return", function, "")) for function in functions]
            return NOTHING.union(*held, *(returned(evaluation, shape) for shape in shapes))
        case text if text in LISTS:
            return frozenset({Shape(node)})
        case _:
            own = of_type(evaluation, name)
            return own or of_type(evaluation, first)
