"""A source file as a tree of nodes that can be walked upwards and compared by identity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from ast_grep_py import SgNode, SgRoot

FIELDS: dict[str, tuple[str, ...]] = {
    "arrow_function": ("parameter", "parameters", "return_type", "body"),
    "assignment_expression": ("left", "right"),
    "assignment_pattern": ("left", "right"),
    "augmented_assignment_expression": ("left", "right"),
    "binary_expression": ("left", "right"),
    "call_expression": ("function", "type_arguments", "arguments"),
    "catch_clause": ("parameter", "body"),
    "export_specifier": ("name", "alias"),
    "export_statement": ("source", "declaration", "value"),
    "field_definition": ("property", "value"),
    "for_in_statement": ("left", "right", "body"),
    "for_statement": ("initializer", "body"),
    "generic_type": ("name", "type_arguments"),
    "import_specifier": ("name", "alias"),
    "import_statement": ("source",),
    "interface_declaration": ("name", "body"),
    "jsx_opening_element": ("name",),
    "jsx_self_closing_element": ("name",),
    "member_expression": ("object", "property"),
    "method_definition": ("name", "parameters", "return_type", "body"),
    "method_signature": ("name", "parameters", "return_type"),
    "nested_type_identifier": ("module", "name"),
    "new_expression": ("constructor", "type_arguments", "arguments"),
    "object_assignment_pattern": ("left", "right"),
    "optional_parameter": ("pattern", "type", "value"),
    "pair": ("key", "value"),
    "pair_pattern": ("key", "value"),
    "property_signature": ("name", "type"),
    "public_field_definition": ("name", "type", "value"),
    "required_parameter": ("pattern", "type", "value"),
    "subscript_expression": ("object", "index"),
    "ternary_expression": ("condition", "consequence", "alternative"),
    "type_alias_declaration": ("name", "value"),
    "type_parameter": ("name", "constraint"),
    "variable_declarator": ("name", "type", "value"),
}
for _kind in ("function_declaration", "function_expression", "generator_function", "generator_function_declaration"):
    FIELDS[_kind] = ("name", "parameters", "return_type", "body")
FIELDS["function_signature"] = FIELDS["abstract_method_signature"] = ("name", "parameters", "return_type")
for _kind in ("class_declaration", "class", "abstract_class_declaration"):
    FIELDS[_kind] = ("name", "body")

FUNCTIONS = frozenset(
    {
        "arrow_function",
        "function_declaration",
        "function_expression",
        "generator_function",
        "generator_function_declaration",
        "method_definition",
    }
)
CLASSES = frozenset({"class_declaration", "class", "abstract_class_declaration"})
KEPT_TOKENS = frozenset(
    {"async", "const", "default", "get", "let", "readonly", "set", "static", "type", "typeof", "var", "=", "+"}
)


class Node:
    """One named node. `tokens` are the anonymous children that change its meaning: `static`, `get`, `type`, …"""

    __slots__ = ("children", "column", "end", "end_line", "fields", "kind", "line", "parent", "start", "tokens", "tree")

    def __init__(self, tree: Tree, parent: Node | None, raw: SgNode) -> None:
        self.tree = tree
        self.parent = parent
        self.kind = raw.kind()
        extent = raw.range()
        self.start, self.end = extent.start.index, extent.end.index
        self.line, self.column = extent.start.line + 1, extent.start.column + 1
        self.end_line = extent.end.line + 1
        self.children: list[Node] = []
        self.fields: dict[str, Node] = {}
        self.tokens: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        return self.tree.source[self.start : self.end]

    def field(self, name: str) -> Node | None:
        return self.fields.get(name)

    def first(self, *kinds: str) -> Node | None:
        """The first child of one of these kinds."""
        return next((child for child in self.children if child.kind in kinds), None)

    def walk(self) -> Iterator[Node]:
        """Itself and everything below, in the order of the source."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def above(self) -> Iterator[Node]:
        """Everything around it, the nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def __hash__(self) -> int:
        # By place, not by address: sets of nodes are then gone through in the same order in every run.
        return self.start * 31 + self.end

    def __repr__(self) -> str:
        return f"<{self.kind} {self.tree.path}:{self.line}>"


class Tree:
    """A file as it was read. `fault_line` is where it stops being TypeScript or JavaScript; None: nowhere."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.source = source
        raw, self.fault_line = _parsed(path, source)
        self.root = self._convert(raw)

    def _convert(self, raw: SgNode) -> Node:
        root = Node(self, None, raw)
        waiting = [(root, raw)]
        while waiting:
            node, raw = waiting.pop()
            tokens = set()
            by_extent: dict[tuple[int, int], Node] = {}
            for child in raw.children():
                kind = child.kind()
                if not child.is_named():
                    if kind in KEPT_TOKENS:
                        tokens.add(kind)
                elif kind != "comment":
                    made = Node(self, node, child)
                    node.children.append(made)
                    by_extent[made.start, made.end] = made
                    waiting.append((made, child))
            if tokens:
                node.tokens = frozenset(tokens)
            for name in FIELDS.get(node.kind, ()):
                if (found := raw.field(name)) is not None:
                    extent = found.range()
                    if (made_field := by_extent.get((extent.start.index, extent.end.index))) is not None:
                        node.fields[name] = made_field
        return root


def _parsed(path: str, source: str) -> tuple[SgNode, int | None]:
    """By the first grammar that takes all of it, else by the first; Flow's types in JavaScript need the second."""
    attempts = [_attempt(source, grammar) for grammar in _grammars(path)[:1]]
    if attempts[0][1] is not None:
        attempts += [_attempt(source, grammar) for grammar in _grammars(path)[1:]]
    return next((attempt for attempt in attempts if attempt[1] is None), attempts[0])


def _grammars(path: str) -> tuple[str, ...]:
    match PurePosixPath(path).suffix:
        case ".ts" | ".mts" | ".cts":
            return ("typescript",)
        case ".tsx":
            return ("tsx",)
        case _:
            return ("javascript", "tsx")


def _attempt(source: str, grammar: str) -> tuple[SgNode, int | None]:
    root = SgRoot(source, grammar).root()
    fault = root if root.kind() == "ERROR" else root.find(kind="ERROR")
    return root, None if fault is None else fault.range().start.line + 1


def unquoted(node: Node) -> str | None:
    """The text of a string or of a template without substitutions."""
    if node.kind == "string" or (node.kind == "template_string" and node.first("template_substitution") is None):
        return node.text[1:-1]
    return None


def name_of(node: Node) -> str | None:
    """A property's name where it stands in the source: `a`, `'a'`, `#a`, `['a']`; None if it is computed."""
    if node.kind in ("string", "template_string"):
        return unquoted(node)
    if node.kind == "computed_property_name":
        return unquoted(node.children[0]) if node.children else None
    return node.text


def arguments(call: Node) -> list[Node]:
    """Of a call or construction; none where it is a tagged template or has no parentheses."""
    found = call.field("arguments")
    return found.children if found is not None and found.kind == "arguments" else []


def parameters(function: Node) -> list[Node]:
    single = function.field("parameter")
    if single is not None:
        return [single]
    listed = function.field("parameters")
    return [] if listed is None else [child for child in listed.children if child.kind != "decorator"]


def around(node: Node, kinds: frozenset[str]) -> Node | None:
    """The nearest node of these kinds that holds it."""
    return next((above for above in node.above() if above.kind in kinds), None)
