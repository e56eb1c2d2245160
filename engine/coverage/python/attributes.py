"""What an attribute of a value may be, and what classes of the files hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from relight.engine.coverage.models import Guarded
from relight.engine.coverage.python.sdk import DERIVING, called, client_class, leads_to_calls
from relight.engine.coverage.python.state import Arguments, State
from relight.engine.coverage.python.values import (
    NIL,
    NOTHING,
    BaseInit,
    Box,
    Class,
    Client,
    Frame,
    Function,
    Handed,
    InsideModule,
    Instance,
    Made,
    MiddlewareOf,
    Other,
    OtherMethod,
    Outside,
    Part,
    Provider,
    Super,
    Text,
    Thing,
    Value,
    Values,
)

LONGEST_PATH = 5


class Attributes(State):
    """Reads attributes as Python does, without its descriptors but for methods and properties."""

    def attribute(self, values: Values, name: str, frame: Frame) -> Values:
        return NOTHING.union(*(self._of_value(value, name, frame) for value in values - NIL))

    def attribute_of(self, node: ast.Attribute, values: Values, frame: Frame) -> Values:
        """As `attribute`, and of objects that are not known by what was assigned to attributes of such a name."""
        values = values - NIL
        found = self.attribute(values, node.attr, frame)
        if all(isinstance(value, Handed | Made | Outside) for value in values):
            found |= self.attributes.get((_before(node.value), node.attr), NOTHING)
            if not any(isinstance(value, Client | Instance | Box) for value in found):
                found |= self.attributes.get(("", node.attr), NOTHING)
            if not any(isinstance(value, Client | Instance) for value in found):
                only_handed = all(isinstance(value, Handed) for value in values) and bool(values)
                found |= self._by_field(node.attr) if only_handed else NOTHING
        return found

    def _by_field(self, name: str) -> Values:
        """Of an object that was handed in and may be any: clients that some class keeps under this name."""
        clients = [value for value in self.fields.get(name, NOTHING) if isinstance(value, Client)]
        raw = bool(clients) and all(client.guarded is Guarded.NO for client in clients)
        return frozenset(
            replace(client, handed=True)
            if raw
            else replace(
                client,
                handed=True,
                guarded=Guarded.UNKNOWN,
                why=f"it is attribute `{name}` of something that is handed in, and it is not known of what",
            )
            for client in clients
        )

    def _of_value(self, value: Value, name: str, frame: Frame) -> Values:
        match value:
            case InsideModule(module):
                return self.module_attribute(module, name)
            case Outside(dotted):
                return frozenset({Outside(f"{dotted}.{name}")})
            case Made(dotted, path):
                return frozenset({Made(dotted, (*path, name))}) if len(path) < LONGEST_PATH else NOTHING
            case Handed(path=path):
                return frozenset({replace(value, path=(*path, name))}) if len(path) < LONGEST_PATH else NOTHING
            case Client():
                return self._of_client(value, name, frame)
            case Part(client, path):
                longer = (*path, name)
                return frozenset({Part(client, longer)}) if called(longer) or leads_to_calls(longer) else NOTHING
            case Instance(of):
                return self._bound(value, of, name, frame)
            case Class():
                return self._of_class(value, name, frame)
            case Super(of, me):
                return self._of_super(of, me, name, frame)
            case Other():
                return frozenset({OtherMethod(value, name)})
            case OtherMethod(of):
                return frozenset({OtherMethod(of, name)})
            case Provider():
                return frozenset({value})
            case Thing():
                return self.kept_in(value, name)
            case _:
                return NOTHING

    def _of_client(self, client: Client, name: str, frame: Frame) -> Values:
        if client.of is not None:
            found = self._bound(client, client.of, name, frame)
            if found:
                return found
        if name in {"middleware", "_middleware"}:
            return frozenset({MiddlewareOf(client)})
        if name in DERIVING or called((name,)) or leads_to_calls((name,)):
            return frozenset({Part(client, (name,))})
        return NOTHING

    def _bound(self, me: Value, of: Class, name: str, frame: Frame) -> Values:
        """An attribute of an instance: assigned ones, methods, what stands in the body; then in subclasses."""
        found = NOTHING
        for each in self.line_of(of):
            assigned = each.attributes.get(name, NOTHING)
            standing = each.body.get(name, NOTHING)
            if assigned - NIL:
                standing -= NIL  # the class's `client = None` is what stands there before
            found |= assigned
            for value in standing:
                match value:
                    case Function(kind="property"):
                        found |= self.call_function(replace(value, bound=me), Arguments(), each.node, frame)
                    case Function(kind="static"):
                        found |= {value}
                    case Function(kind="class"):
                        found |= {replace(value, bound=each)}
                    case Function(owner=owner) if owner is not None and not isinstance(value.node, ast.Lambda):
                        found |= {replace(value, bound=me)}
                    case _:
                        found |= {value}
            if found:
                return found
        for below in of.subclasses:
            for each in self.line_of(below):
                found |= each.attributes.get(name, NOTHING)
                found |= frozenset(v for v in each.body.get(name, NOTHING) if not isinstance(v, Function))
        return found - NIL or self._of_annotation(of, name) or self._delegated(me, of, name, frame)

    def _of_annotation(self, of: Class, name: str) -> Values:
        for each in self.line_of(of):
            if name in each.annotations and each.module.frame is not None:
                node = each.annotations[name]
                if typed := self.annotated(node, each.module.frame, name, node):
                    return typed
        return NOTHING

    def _delegated(self, me: Value, of: Class, name: str, frame: Frame) -> Values:
        """What `__getattr__` gives for this name."""
        for each in self.line_of(of):
            for value in each.body.get("__getattr__", NOTHING):
                if isinstance(value, Function):
                    asked = Arguments((frozenset({Text(name)}),), verbatim=True)
                    return self.run_function(replace(value, bound=me), asked)
        return NOTHING

    def _of_class(self, of: Class, name: str, frame: Frame) -> Values:
        for each in self.line_of(of):
            found = each.attributes.get(name, NOTHING)
            for value in each.body.get(name, NOTHING):
                if isinstance(value, Function) and value.kind == "class":
                    found |= {replace(value, bound=of)}
                else:
                    found |= {value}
            if found:
                return found
        return NOTHING

    def _of_super(self, of: Class, me: Value, name: str, frame: Frame) -> Values:
        for each in self.line_of(of)[1:]:
            if name in each.body or name in each.attributes:
                return self._bound(me, each, name, frame)
        if isinstance(me, Client):
            if name == "__init__":
                return frozenset({BaseInit(me)})
            return self._of_client(replace(me, of=None), name, frame)
        return NOTHING

    def line_of(self, of: Class) -> list[Class]:
        """The class and its bases among the files, in the order in which attributes are looked for."""
        line: list[Class] = []
        waiting = [of]
        while waiting:
            here = waiting.pop(0)
            if here not in line:
                line.append(here)
                waiting[:0] = [base for bases in here.bases for base in bases if isinstance(base, Class)]
        return line

    def outside_bases(self, of: Class) -> Iterator[str]:
        """Names of the libraries' classes that it comes from."""
        for each in self.line_of(of):
            for bases in each.bases:
                for base in bases:
                    if isinstance(base, Outside):
                        yield base.dotted

    def client_base(self, of: Class) -> str | None:
        """The SDK's client class that this class comes from."""
        return next((name for dotted in self.outside_bases(of) if (name := client_class(dotted))), None)


def _before(node: ast.expr) -> str:
    """The last name of what an attribute is read of."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""
