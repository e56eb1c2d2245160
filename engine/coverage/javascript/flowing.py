"""Lets values flow through a program until nothing new does: assignments, arguments, returns, what containers keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from relight.engine.coverage.javascript import calling, frames, keeping, members, types
from relight.engine.coverage.javascript.evaluation import Evaluation, Key
from relight.engine.coverage.javascript.scopes import Binding
from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node, arguments, around, parameters
from relight.engine.coverage.javascript.values import (
    NOTHING,
    Class,
    Client,
    ClientClass,
    Foreign,
    Function,
    Guarding,
    Instance,
    Method,
    Object,
    Resolver,
    Values,
    Wrapper,
)

MOST_VISITS = 40
"""Of each node, on average."""
MOST_HELD = 24
"""Values in one place: more are held only if they are clients. What holds so much is a program's plumbing."""
ALWAYS_HELD = (Client, ClientClass, Method, Wrapper)


class Flow:
    """Runs the whole of a program's data flow, whatever the order of its statements."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._nodes = [
            node
            for file in evaluation.program.files.values()
            for node in file.tree.root.walk()
            if node.kind in HANDLED or node.kind in FUNCTIONS or node.kind in CLASSES
        ]
        self._waiting = deque(self._nodes)
        self._listed = set(self._nodes)

    def run(self) -> bool:
        """Whether all of it has flowed: a program of absurd depth is given up on."""
        visits_left = MOST_VISITS * len(self._nodes)
        while self._waiting and visits_left:
            node = self._waiting.popleft()
            self._listed.discard(node)
            self._evaluation.visiting(node, self._visit)
            visits_left -= 1
        return not self._waiting

    def add(self, key: Key, values: Values) -> None:
        if not values or values <= (held := self._evaluation.held(key)):
            return
        if len(held) >= MOST_HELD:
            values = frozenset(value for value in values if isinstance(value, ALWAYS_HELD))
            if values <= held:
                return
        for node in self._evaluation.grow(key, values):
            if node not in self._listed:
                self._listed.add(node)
                self._waiting.append(node)

    def _visit(self, node: Node) -> None:
        evaluation = self._evaluation
        match node.kind:
            case "variable_declarator":
                self._bind(node.field("name"), evaluation.of(node.field("value")))
                self._bind(node.field("name"), types.of_type(evaluation, node.field("type")))
            case "assignment_expression" | "augmented_assignment_expression":
                self._assign(node.field("left"), evaluation.of(node.field("right")))
            case "return_statement" | "yield_expression":
                function = around(node, FUNCTIONS)
                if function is not None and node.children:
                    self.add(("return", function, ""), evaluation.of(node.children[0]))
            case "for_in_statement":
                self._bind(node.field("left"), members.elements(evaluation, evaluation.of(node.field("right"))))
            case "call_expression" | "new_expression":
                self._call(node)
            case "jsx_opening_element" | "jsx_self_closing_element":
                self._element(node)
            case "object":
                self._keep(keeping.provided(evaluation, node))
            case kind if kind in FUNCTIONS:
                self._function(node)
            case _:
                for parent in members.parents(evaluation, node):
                    if isinstance(parent, Class):
                        below = evaluation.holds(("subclasses", node, ""))
                        self.add(("subclasses", parent.node, ""), below | {Class(node)})

    def _bind(self, pattern: Node | None, values: Values) -> None:
        if pattern is not None and (values or pattern.kind in ("object_pattern", "array_pattern")):
            self._bound(frames.bound(self._evaluation, pattern, values))

    def _bound(self, held: Iterable[tuple[Binding, Values]]) -> None:
        for binding, values in held:
            self.add(binding, values)

    def _keep(self, kept: Iterable[tuple[str, Values]]) -> None:
        for name, values in kept:
            self.add(("named", None, name), values)

    def _assign(self, target: Node | None, values: Values) -> None:
        if target is None:
            return
        match target.kind:
            case "identifier":
                if self._evaluation.file(target).scopes.value(target.text, target) is None:
                    self.add(("named", None, target.text), values)
                else:
                    self._bind(target, values)
            case "member_expression" | "subscript_expression":
                self._assign_member(target, values)
            case "object_pattern" | "array_pattern":
                self._bind(target, values)
            case _:
                pass

    def _assign_member(self, target: Node, values: Values) -> None:
        evaluation, holder = self._evaluation, target.field("object")
        property_node = target.field("property")
        name = property_node.text if property_node is not None else keeping.index_name(target)
        if holder is None:
            return
        if (exported := _exported(target)) is not None:
            self.add(("exports", evaluation.file(target), exported), values)
            return
        if holder.kind == "member_expression" and (inner := holder.field("property")) and inner.text == "prototype":
            self._assign_prototype(evaluation.of(holder.field("object")), name, values)
            return
        held = evaluation.of(holder)
        if all(isinstance(value, Foreign) for value in held):
            self.add(("named", None, name), values)
        for value in held:
            match value:
                case Instance():
                    self.add(("field", value.of, name), values)
                case Object() | Function():
                    self.add(("field", value.node, name), values)
                case Class():
                    self.add(("static", value.node, name), values)
                case _:
                    pass

    def _assign_prototype(self, owners: Values, name: str, values: Values) -> None:
        for owner in owners:
            if isinstance(owner, Function | Class):
                self.add(("field", owner.node, name), values)
                this = Object(owner.node) if isinstance(owner, Function) else Instance(owner.node)
                for value in values:
                    if isinstance(value, Function):
                        self.add(("this", value.node, ""), frozenset({this}))

    def _function(self, node: Node) -> None:
        evaluation, body = self._evaluation, node.field("body")
        if node.kind == "arrow_function" and body is not None and body.kind != "statement_block":
            self.add(("return", node, ""), evaluation.of(body))
        owner = around(node, CLASSES) if node.kind == "method_definition" else None
        for parameter in parameters(node):
            pattern = parameter.field("pattern") or parameter
            annotation = parameter.field("type")
            self._bind(pattern, types.of_type(evaluation, annotation) | evaluation.of(parameter.field("value")))
            self._bind(pattern, members.injected(evaluation, parameter))
            if owner is None:
                continue
            if annotation is not None and annotation.children:
                # A container hands in what is registered under the type's own name.
                self._bind(pattern, evaluation.named(annotation.children[0].text))
            if "readonly" in parameter.tokens or parameter.first("accessibility_modifier") is not None:
                binding = evaluation.file(pattern).scopes.value(pattern.text, pattern)
                if binding is not None:
                    self.add(("field", owner, pattern.text), evaluation.holds(binding))

    def _call(self, node: Node) -> None:
        evaluation, function = self._evaluation, calling.callee(node)
        if function is None:
            return
        handed = arguments(node)
        holder, name = calling.property_of(function)
        if function.kind == "super":
            self._construct_parent(node, handed)
        elif holder is not None and name in ("call", "apply") and calling.callables(evaluation.of(holder)):
            listed = handed[1:]
            if name == "apply" and listed:
                self._hand_values(evaluation.of(holder), [members.elements(evaluation, evaluation.of(listed[0]))] * 4)
            else:
                self._hand(evaluation.of(holder), listed)
        elif holder is not None and name in calling.CONTINUED:
            self._call_back(handed, evaluation.of(holder))
        elif function.text == "Promise" and node.kind == "new_expression":
            for executor in evaluation.all_of(handed):
                if isinstance(executor, Function):
                    self._hand_values(frozenset({executor}), [frozenset({Resolver(node)})])
        else:
            self._call_values(node, function, handed)

    def _call_values(self, node: Node, function: Node, handed: Sequence[Node]) -> None:
        evaluation = self._evaluation
        values = evaluation.of(function)
        self._hand(values, handed)
        understood = False
        for value in values:
            if isinstance(value, Class) and (begun := members.constructor(evaluation, value.node)) is not None:
                self._hand(frozenset({Function(begun)}), handed)
            elif isinstance(value, Resolver) and handed:
                self.add(("promise", value.promise, ""), evaluation.of(handed[0]))
            understood = understood or not isinstance(value, Foreign | Client | Method)
        if not understood:
            self._call_foreign(node, function, handed)

    def _call_foreign(self, node: Node, function: Node, handed: Sequence[Node]) -> None:
        """Callbacks of a function that is not understood get what is held where it is called, or handed in beside."""
        evaluation = self._evaluation
        holder, name = calling.property_of(function)
        receiver = evaluation.of(holder)
        inside = members.elements(evaluation, receiver)
        beside = frozenset(value for value in evaluation.all_of(handed) if isinstance(value, Client | Method))
        given = inside | beside | frozenset(value for value in receiver if isinstance(value, Client))
        for callback in evaluation.all_of(handed):
            if isinstance(callback, Function):
                places = [NOTHING, given] if name.startswith("reduce") else [given]
                self._hand_values(frozenset({callback}), places)
                if name in calling.MAPPED and inside:
                    self.add(("field", node, "[]"), evaluation.holds(("return", callback.node, "")))
        self._keep(keeping.registered(evaluation, node, name, holder, handed))
        if name in keeping.LISTING:
            for value in receiver:
                if isinstance(value, Object):
                    self.add(("field", value.node, "[]"), evaluation.all_of(handed))
        if node.kind == "new_expression":
            self.add(("field", node, "[]"), members.elements(evaluation, evaluation.all_of(handed)))
            listed = node.field("type_arguments")
            for child in listed.children if listed is not None else ():
                self.add(("field", node, "[]"), types.of_type(evaluation, child))

    def _call_back(self, handed: Sequence[Node], values: Values) -> None:
        for callback in self._evaluation.all_of(handed[:1]):
            if isinstance(callback, Function):
                self._hand_values(frozenset({callback}), [values])

    def _construct_parent(self, node: Node, handed: Sequence[Node]) -> None:
        if (owner := around(node, CLASSES)) is None:
            return
        for parent in members.parents(self._evaluation, owner):
            if isinstance(parent, Class) and (begun := members.constructor(self._evaluation, parent.node)) is not None:
                self._hand(frozenset({Function(begun)}), handed)

    def _hand(self, functions: Values, handed: Sequence[Node]) -> None:
        if any(isinstance(value, Function | Guarding) for value in functions):
            given = [self._evaluation.of(each) for each in handed]
            spread = next((place for place, each in enumerate(handed) if each.kind == "spread_element"), None)
            if spread is not None:
                inside = members.elements(self._evaluation, given[spread]) | given[spread]
                given = [*given[:spread], *([inside] * 6)]
            self._hand_values(functions, given)

    def _hand_values(self, functions: Values, given: Sequence[Values]) -> None:
        for function in functions:
            if isinstance(function, Function | Guarding):
                self._bound(frames.entered(self._evaluation, function.node, given))

    def _element(self, node: Node) -> None:
        """A component is called with its attributes; a context's provider keeps its value."""
        evaluation, name = self._evaluation, node.field("name")
        given = {
            child.children[0].text: evaluation.of(child.children[1].children[0])
            for child in node.children
            if child.kind == "jsx_attribute" and len(child.children) > 1 and child.children[1].children
        }
        if name is None or not any(given.values()):
            return
        for attribute, values in given.items():
            self.add(("field", node, attribute), values)
        self._hand_values(evaluation.of(name), [frozenset({Object(node)})])
        if name.text.endswith(".Provider"):
            self._keep([(name.text.removesuffix(".Provider"), given.get("value", NOTHING))])


HANDLED = frozenset(
    {
        *("assignment_expression", "augmented_assignment_expression", "call_expression", "for_in_statement"),
        *("jsx_opening_element", "jsx_self_closing_element", "new_expression", "object", "return_statement"),
        *("variable_declarator", "yield_expression"),
    }
)


def _exported(target: Node) -> str | None:
    """The name that an assignment exports in CommonJS; `=` for all of it."""
    text = target.text
    if text == "module.exports":
        return "="
    for prefix in ("module.exports.", "exports."):
        if text.startswith(prefix) and "." not in text[len(prefix) :]:
            return text[len(prefix) :]
    return None
