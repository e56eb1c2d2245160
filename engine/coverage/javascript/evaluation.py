"""What an expression may hold, from what has flowed so far; nothing flows by asking."""

from __future__ import annotations

from collections.abc import Iterable

from relight.engine.coverage.javascript import calling, members, types
from relight.engine.coverage.javascript.frames import NO_FRAME, Frame
from relight.engine.coverage.javascript.memory import Memory
from relight.engine.coverage.javascript.modules import File, Program
from relight.engine.coverage.javascript.packages import ADDRESS, HTTP_GLOBALS, exported
from relight.engine.coverage.javascript.scopes import Binding
from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node, name_of, unquoted
from relight.engine.coverage.javascript.values import (
    NOTHING,
    Address,
    Class,
    Client,
    Family,
    Foreign,
    Function,
    Http,
    Instance,
    Module,
    Object,
    Value,
    Values,
    Wrapper,
)
from relight.engine.coverage.models import Guarded

DEEPEST = 120
"""Expressions nested deeper, as in generated code, hold nothing."""
TRANSPARENT = frozenset(
    {"await_expression", "non_null_expression", "parenthesized_expression", "satisfies_expression", "spread_element"}
)
HOLDING_NOTHING = frozenset({"comment", "false", "null", "number", "property_identifier", "regex", "true", "undefined"})
TYPES = frozenset({"interface_declaration", "type_alias_declaration"})
GLOBAL_OBJECTS = frozenset({"globalThis", "window", "global", "self"})
MODEL_OF_GATEWAY = "anthropic/"


class Evaluation(Memory):
    """Values of expressions."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.own_results: dict[Node, bool] = {}
        self.declared_members: dict[Node, dict[str, list[Node]]] = {}
        self._depth = 0

    def file(self, node: Node) -> File:
        return self.program.by_tree[node.tree]

    def of(self, node: Node | None, frame: Frame = NO_FRAME) -> Values:
        if node is None or node.kind in HOLDING_NOTHING or self._depth > DEEPEST:
            return NOTHING
        self._depth += 1
        try:
            if frame.function is not None:
                return self._of(node, frame)
            return self.once(("of", node), lambda: self._of(node, frame))
        finally:
            self._depth -= 1

    def all_of(self, nodes: Iterable[Node], frame: Frame = NO_FRAME) -> Values:
        return NOTHING.union(*(self.of(node, frame) for node in nodes))

    def named(self, name: str) -> Values:
        """What is kept under a name in something that is not understood: a container, a request, a global."""
        return self.holds(("named", None, name))

    def _of(self, node: Node, frame: Frame) -> Values:
        kind = node.kind
        if kind == "identifier" or kind == "shorthand_property_identifier":
            return self._identifier(node, frame)
        if kind in TRANSPARENT:
            return self.of(node.children[0] if node.children else None, frame)
        if kind in FUNCTIONS or kind == "function_signature":
            return frozenset({Function(node)})
        if kind in CLASSES:
            return frozenset({Class(node)})
        match kind:
            case "member_expression":
                return self._member(node, frame)
            case "subscript_expression":
                return self._subscript(node, frame)
            case "call_expression":
                return calling.called(self, node, frame)
            case "new_expression":
                return calling.constructed(self, node, frame)
            case "object" | "array":
                return frozenset({Object(node)})
            case "this":
                return self.this(node)
            case "super":
                return self.this(node)
            case "as_expression":
                return self.of(node.children[0], frame) | types.of_type(self, node.children[-1])
            case "type_assertion":
                return self.of(node.children[-1], frame) | types.of_type(self, node.children[0])
            case "ternary_expression":
                return self.of(node.field("consequence"), frame) | self.of(node.field("alternative"), frame)
            case "binary_expression":
                return self._binary(node, frame)
            case "assignment_expression":
                return self.of(node.field("right"), frame)
            case "augmented_assignment_expression":
                return self.of(node.field("left"), frame) | self.of(node.field("right"), frame)
            case "sequence_expression":
                return self.of(node.children[-1], frame)
            case "string" | "template_string":
                return self._string(node, frame)
            case _:
                return NOTHING

    def _identifier(self, node: Node, frame: Frame) -> Values:
        name = node.text
        if (entry := self.program.guarding.bare(name)) is not None:
            return frozenset({Wrapper(entry)})
        binding = self.file(node).scopes.value(name, node)
        if binding is None:
            if name in HTTP_GLOBALS:
                return frozenset({Http(name)})
            return self.named(name)
        if (values := frame.values.get(binding)) is not None:
            return values
        if binding.wrapper is not None:
            return frozenset({Wrapper(binding.wrapper)})
        if frame.function is not None and binding.definition is not None and _inside(binding, frame.function):
            return self.of(binding.definition, frame)
        return self.value(binding)

    def value(self, binding: Binding) -> Values:
        """What a declared name may hold."""
        if binding.imported is not None:
            specifier, name = binding.imported
            return self.imported(specifier, name, self.file(binding.declared))
        if binding.declared.kind in FUNCTIONS or binding.declared.kind == "function_signature":
            return self.holds(binding) | {Function(binding.declared)}
        if binding.declared.kind in CLASSES:
            return frozenset({Class(binding.declared)})
        if binding.declared.kind == "internal_module":
            return frozenset({Object(binding.declared)})
        if binding.declared.kind in TYPES:
            return types.declared(self, binding.declared)
        return self.holds(binding)

    def imported(self, specifier: str, name: str, importer: File) -> Values:
        """What an import of a module gives; `=` is what `require` gives, `*` all of it."""
        file = self.program.module(specifier, importer)
        if (entry := self.program.guarding.exported(specifier, file, name)) is not None:
            return frozenset({Wrapper(entry)})
        if (entry := self.program.clients.exported(specifier, file, name)) is not None:
            return frozenset({Client(Family.SDK, None, Guarded.NO, entry, obtained=True)})
        if file is not None:
            return frozenset({Module(file)}) if name in ("*", "=") else self.exported(file, name)
        if specifier.startswith((".", "/")):
            return frozenset({Foreign(specifier, name)})
        if name == "=":
            # What CommonJS gets is the default export with all others on it.
            whole = (value for value in exported(specifier, "default") if not isinstance(value, Foreign))
            return exported(specifier, name) | frozenset(whole)
        return exported(specifier, name)

    def of_package(self, package: str, name: str) -> Values:
        """What a package that is not among the files exports."""
        if (entry := self.program.guarding.exported(package, None, name)) is not None:
            return frozenset({Wrapper(entry)})
        if (entry := self.program.clients.exported(package, None, name)) is not None:
            return frozenset({Client(Family.SDK, None, Guarded.NO, entry, obtained=True)})
        return exported(package, name)

    def named_in(self, values: Values, name: str) -> Values:
        """A property of any of these; of what is not understood, what is kept under its name anywhere."""
        found = members.of_all(self, values, name)
        return found or (self.named(name) if all(isinstance(value, Foreign) for value in values) else NOTHING)

    def exported(self, file: File, name: str) -> Values:
        """What a file exports under a name."""
        return self.once((file, name), lambda: self._exported(file, name))

    def _exported(self, file: File, name: str) -> Values:
        for path, entry in self.program.guarding.in_file(file):
            if path == name:
                return frozenset({Wrapper(entry)})
        found = self.holds(("exports", file, name))
        if (export := file.exports.get(name)) is not None:
            if export.again is not None:
                found |= self.imported(*export.again, file)
            elif export.binding is not None:
                found |= self.value(export.binding)
            else:
                found |= self.of(export.expression)
            return found
        whole = self.holds(("exports", file, "=")) | self.of(getattr(file.exports.get("="), "expression", None))
        found |= whole if name == "default" else members.of_all(self, whole, name)
        for specifier in file.stars if name != "default" else ():
            again = self.imported(specifier, name, file)
            # A package's star may or may not have this name: a foreign one would only hide that nothing is known.
            found |= frozenset(value for value in again if not isinstance(value, Foreign))
        return found

    def _member(self, node: Node, frame: Frame) -> Values:
        holder, name_node = node.field("object"), node.field("property")
        if holder is None or name_node is None:
            return NOTHING
        name = name_node.text
        if (entry := self.program.guarding.bare(name)) is not None:
            return frozenset({Wrapper(entry)})
        if holder.kind == "identifier" and holder.text in GLOBAL_OBJECTS and name in HTTP_GLOBALS:
            return frozenset({Http(name)})
        return self.named_in(self.of(holder, frame), name)

    def _subscript(self, node: Node, frame: Frame) -> Values:
        values, index = self.of(node.field("object"), frame), node.field("index")
        if index is None:
            return NOTHING
        if (name := unquoted(index)) is not None:
            return self.named_in(values, name)
        return members.elements(self, values, None if index.kind == "number" else index.text)

    def _binary(self, node: Node, frame: Frame) -> Values:
        left, right = self.of(node.field("left"), frame), self.of(node.field("right"), frame)
        if "+" in node.tokens:
            return (left | right) & {Address()}
        return left | right

    def _string(self, node: Node, frame: Frame) -> Values:
        text = node.text
        if ADDRESS.search(text):
            return frozenset({Address()})
        if text[1:].startswith(MODEL_OF_GATEWAY):
            return frozenset({Client(Family.AI_SDK, None, is_model=True)})
        inside = (part.children[0] for part in node.children if part.kind == "template_substitution" and part.children)
        return self.all_of(inside, frame) & {Address()}

    def this(self, node: Node) -> Values:
        """What `this` is where the node stands."""
        place = node
        for above in node.above():
            if above.kind == "class_body" and above.parent is not None:
                static = "static" in place.tokens or place.kind == "class_static_block"
                return frozenset({Class(above.parent) if static else Instance(above.parent, self._self(above.parent))})
            if above.kind in FUNCTIONS and above.kind != "arrow_function":
                if above.kind == "method_definition":
                    if above.parent is not None and above.parent.kind == "object":
                        return frozenset({Object(above.parent)})
                else:
                    literal = above.parent
                    holder = literal.parent if literal is not None and literal.kind == "pair" else above
                    return self.holds(("this", above, "")) | {Object(holder or above)}
            place = above
        return NOTHING

    def _self(self, of: Node) -> Client | None:
        extended = members.client_class(self, of)
        if extended is None:
            return None
        return Client(extended.family, None, extended.guarded, extended.note or "`this` of a client's own class")

    def member(self, value: Value, name: str) -> Values:
        return members.of(self, value, name)

    def token(self, node: Node | None) -> str | None:
        """What a thing is registered under."""
        if node is None or node.kind not in ("string", "identifier", "member_expression", "call_expression"):
            return None
        return name_of(node) if node.kind == "string" else node.text


def _inside(binding: Binding, function: Node) -> bool:
    return any(above is function for above in binding.declared.above())
