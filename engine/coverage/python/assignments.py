"""Assignments: to names, attributes and items, here and in what outlives the function."""

from __future__ import annotations

import ast

from relight.engine.coverage.python.expressions import dotted_name
from relight.engine.coverage.python.libraries import Libraries
from relight.engine.coverage.python.state import qualified
from relight.engine.coverage.python.values import (
    NOTHING,
    Box,
    Class,
    Client,
    Frame,
    Handed,
    InsideModule,
    Instance,
    Made,
    Part,
    Place,
    Thing,
    Values,
    box,
    boxed,
    unboxed,
)


class Assignments(Libraries):
    """What a name, an attribute or an item is from now on."""

    def assign(self, target: ast.expr, values: Values, frame: Frame, of: ast.expr | None = None) -> None:
        match target:
            case ast.Name(id=name):
                self._assign_name(name, values, frame)
            case ast.Attribute():
                self._assign_attribute(target, values, frame)
            case ast.Subscript(value=base, slice=key):
                self._assign_item(base, key, values, frame)
            case ast.Starred(value=inner):
                self.assign(inner, boxed(values), frame)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                whole = any(isinstance(element, ast.Starred) for element in elements)
                loose = frozenset(v for v in values if isinstance(v, Handed | Made))
                for number, element in enumerate(elements):
                    self.assign(element, unboxed(values, None if whole else str(number)) | loose, frame)
            case _:
                pass

    def _assign_name(self, name: str, values: Values, frame: Frame) -> None:
        if frame is frame.module.frame and (whole := qualified(frame.module, name)) in self.guarding_names:
            by = f"{whole}, which configuration says guards"
            at = Place(frame.module.path, 1, 1)
            clients = frozenset(self._through(value, at, by) for value in values if isinstance(value, Client))
            for value in values:
                if isinstance(value, Client):
                    self.guarded_at.setdefault(value.place, (at, by))
            values = clients or frozenset({self.guarded_client(at, by, in_test=frame.module.source.in_test)})
        if name in frame.globals_:
            self.grow(frame.module.assigned_elsewhere, name, values)
        if name in frame.nonlocals:
            here = frame.around
            while here is not None:
                if name in here.names and here is not frame.module.frame:
                    here.names[name] |= values
                    break
                here = here.around
        frame.names[name] = values
        for dotted in [key for key in frame.names if key.startswith(name + ".")]:
            del frame.names[dotted]
            frame.assigned.pop(dotted, None)

    def _assign_attribute(self, target: ast.Attribute, values: Values, frame: Frame) -> None:
        holders = self.evaluate(target.value, frame)
        dotted = dotted_name(target)
        known = False
        for holder in holders:
            match holder:
                case InsideModule(module):
                    self.grow(module.assigned_elsewhere, target.attr, values)
                    known = True
                case Thing():
                    self.keep_in(holder, target.attr, values)
                    known = True
                case Instance() | Class() | Client():
                    known = True
                    if dotted is None:
                        of = holder.of if isinstance(holder, Instance | Client) else holder
                        if of is not None:
                            self.grow(of.attributes, target.attr, values)
                case _:
                    pass
        if dotted is not None:
            frame.names[dotted] = values
            if known:
                before, _ = frame.assigned.get(dotted, (NOTHING, ""))
                frame.assigned[dotted] = (before | holders, target.attr)
        kept = frozenset(value for value in values if isinstance(value, Client | Part | Instance | Box))
        if not known and kept:
            before_name = target.value.attr if isinstance(target.value, ast.Attribute) else ""
            before_name = target.value.id if isinstance(target.value, ast.Name) else before_name
            # A container is found by its own name alone: `app.config["x"]` is `current_app.config["x"]`.
            for key in ((before_name, target.attr), *((("", target.attr),) if any_box(kept) else ())):
                if not kept <= self.attributes.get(key, NOTHING):
                    self.attributes[key] = self.attributes.get(key, NOTHING) | kept
                    self.growth += 1

    def _assign_item(self, base: ast.expr, key: ast.expr, values: Values, frame: Frame) -> None:
        literal = str(key.value) if isinstance(key, ast.Constant) else None
        self.evaluate(key, frame)
        if not values:
            return
        entries: set[tuple[str | None, Values]] = {(literal, values)}
        known = self.evaluate(base, frame)
        for value in known:
            if isinstance(value, Box):
                entries |= {entry for entry in value.entries if literal is None or entry[0] != literal}
        others = frozenset(value for value in known if not isinstance(value, Box))
        self.assign(base, others | {box(entries)}, frame)
        if isinstance(base, ast.Name) and base.id not in frame.names and frame.module.frame is not None:
            self.grow(frame.module.assigned_elsewhere, base.id, values)
        elif isinstance(base, ast.Name) and frame is not frame.module.frame and not self._is_local(base.id, frame):
            self.grow(frame.module.assigned_elsewhere, base.id, frozenset({box(entries)}))

    @staticmethod
    def _is_local(name: str, frame: Frame) -> bool:
        module = frame.module.frame
        return module is None or name not in module.names


def any_box(values: Values) -> bool:
    return any(isinstance(value, Box) for value in values)
