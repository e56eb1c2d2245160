"""Which declaration a name in a file means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node, Tree, parameters, unquoted

BLOCKS = frozenset(
    {"program", "statement_block", "for_statement", "for_in_statement", "catch_clause", "switch_body", "class_body"}
)
SCOPES = BLOCKS | FUNCTIONS | CLASSES | {"function_signature", "interface_declaration", "type_alias_declaration"}
HOISTED_TO = FUNCTIONS | {"program"}
NAMES = frozenset({"identifier", "shorthand_property_identifier_pattern"})


@dataclass(eq=False, slots=True)
class Binding:
    """One declared name. `definition` is all that is ever assigned to it where it is a `const` with a plain name."""

    name: str
    declared: Node
    definition: Node | None = None
    imported: tuple[str, str] | None = None
    """specifier and the name exported there; `*` for all of the module"""
    wrapper: str | None = None
    """the entry of the configuration that names it"""


class Scopes:
    """The declarations of one file, values and types apart."""

    def __init__(self, tree: Tree) -> None:
        self._values: dict[Node, dict[str, Binding]] = {}
        self._types: dict[Node, dict[str, Binding]] = {}
        for node in tree.root.walk():
            self._declare(node)

    def value(self, name: str, place: Node) -> Binding | None:
        return _seek(self._values, name, place)

    def type(self, name: str, place: Node) -> Binding | None:
        return _seek(self._types, name, place) or _seek(self._values, name, place)

    def of_module(self, root: Node) -> dict[str, Binding]:
        return self._values.get(root, {})

    def _declare(self, node: Node) -> None:
        match node.kind:
            case "import_statement":
                self._imports(node)
            case "variable_declarator":
                self._variable(node)
            case "for_in_statement" if node.tokens & {"const", "let", "var"}:
                self._pattern(node.field("left"), node)
            case "catch_clause":
                self._pattern(node.field("parameter"), node)
            case "interface_declaration" | "type_alias_declaration" | "enum_declaration":
                name = node.field("name") or node.first("identifier")
                if name is not None:
                    self._add(self._types, _enclosing(node, BLOCKS), Binding(name.text, node))
            case "type_parameter":
                if (name := node.field("name")) is not None:
                    self._add(self._types, _enclosing(node, SCOPES), Binding(name.text, node))
            case "internal_module" if (name := node.first("identifier")) is not None:
                self._add(self._values, _enclosing(node, BLOCKS), Binding(name.text, node))
            case kind if kind in FUNCTIONS or kind == "function_signature":
                self._function(node)
            case kind if kind in CLASSES and (name := node.field("name")) is not None:
                inside = node if kind == "class" else _enclosing(node, BLOCKS)
                self._add(self._values, inside, Binding(name.text, node))

    def _function(self, node: Node) -> None:
        name = node.field("name")
        if name is not None and node.kind != "method_definition":
            inside = _enclosing(node, BLOCKS) if node.kind.endswith(("declaration", "signature")) else node
            self._add(self._values, inside, Binding(name.text, node))
        for parameter in parameters(node):
            self._pattern(parameter, node)

    def _variable(self, node: Node) -> None:
        name, declaration = node.field("name"), node.parent
        if name is None or declaration is None:
            return
        hoisted = declaration.kind == "variable_declaration"
        constant = "const" in declaration.tokens and name.kind == "identifier"
        for found in names_in(name):
            definition = node.field("value") if constant else None
            inside = _enclosing(node, HOISTED_TO if hoisted else BLOCKS)
            self._add(self._values, inside, Binding(found.text, found, definition))

    def _pattern(self, pattern: Node | None, inside: Node) -> None:
        if pattern is not None:
            for found in names_in(pattern):
                self._add(self._values, inside, Binding(found.text, found))

    def _imports(self, node: Node) -> None:
        required = node.first("import_require_clause")
        if required is not None:
            name, source = required.first("identifier"), required.first("string")
            self._import(node, name, source, "=")
            return
        clause, source = node.first("import_clause"), node.field("source")
        for part in clause.children if clause is not None else ():
            match part.kind:
                case "identifier":
                    self._import(node, part, source, "default")
                case "namespace_import":
                    self._import(node, part.first("identifier"), source, "*")
                case "named_imports":
                    for specifier in part.children:
                        name = specifier.field("name")
                        alias = specifier.field("alias") or name
                        if name is not None:
                            self._import(node, alias, source, unquoted(name) or name.text)

    def _import(self, node: Node, name: Node | None, source: Node | None, exported: str) -> None:
        if name is not None and source is not None and (specifier := unquoted(source)) is not None:
            inside = _enclosing(node, BLOCKS)
            self._add(self._values, inside, Binding(name.text, name, imported=(specifier, exported)))

    def _add(self, table: dict[Node, dict[str, Binding]], scope: Node, binding: Binding) -> None:
        names = table.setdefault(scope, {})
        # A signature's overloads, or a `var` twice: one binding, whose later body counts.
        if (earlier := names.get(binding.name)) is not None and earlier.declared.kind != "function_signature":
            return
        names[binding.name] = binding


def names_in(pattern: Node) -> Iterator[Node]:
    """The names that a pattern binds; defaults and keys are none."""
    if pattern.kind in NAMES:
        yield pattern
    elif pattern.kind in ("assignment_pattern", "object_assignment_pattern"):
        if (left := pattern.field("left")) is not None:
            yield from names_in(left)
    elif pattern.kind == "pair_pattern":
        if (value := pattern.field("value")) is not None:
            yield from names_in(value)
    elif pattern.kind in ("required_parameter", "optional_parameter"):
        if (inner := pattern.field("pattern")) is not None:
            yield from names_in(inner)
    elif pattern.kind in ("object_pattern", "array_pattern", "rest_pattern"):
        for child in pattern.children:
            yield from names_in(child)


def _enclosing(node: Node, kinds: frozenset[str]) -> Node:
    found = node
    for above in node.above():
        found = above
        if above.kind in kinds:
            break
    return found


def _seek(table: dict[Node, dict[str, Binding]], name: str, place: Node) -> Binding | None:
    node: Node | None = place
    while node is not None:
        if (names := table.get(node)) is not None and (found := names.get(name)) is not None:
            return found
        node = node.parent
    return None
