"""Lets values flow through a program until nothing new does: assignments, arguments, returns, what containers keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from relight.engine.coverage.javascript import frames, keeping, members, passing, types
from relight.engine.coverage.javascript.evaluation import Evaluation
from relight.engine.coverage.javascript.memory import Key
from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node, around, parameters
from relight.engine.coverage.javascript.values import (
    Class,
    Client,
    ClientClass,
    Foreign,
    Function,
    Instance,
    Method,
    Object,
    Values,
    Wrapper,
)

MOST_VISITS = 40
"""Of each node, on average."""
MOST_HELD = 12
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
                self._flow(passing.of_call(evaluation, node))
            case "jsx_opening_element" | "jsx_self_closing_element":
                self._flow(passing.of_element(evaluation, node))
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
            self._flow(frames.bound(self._evaluation, pattern, values))

    def _flow(self, flows: Iterable[tuple[Key, Values]]) -> None:
        for key, values in flows:
            self.add(key, values)

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
