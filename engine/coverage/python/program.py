"""A whole program: modules, definitions and imports; passes over it until nothing new is found."""

from __future__ import annotations

import ast

from relight.engine.coverage.python.functions import ALONE, MOST_FOR_EACH, MOST_IN_ALL
from relight.engine.coverage.python.modules import Module, origin
from relight.engine.coverage.python.sdk import ANTHROPIC, RELIGHT
from relight.engine.coverage.python.state import Arguments, forget_functions, qualified
from relight.engine.coverage.python.statements import Statements
from relight.engine.coverage.python.values import (
    NOTHING,
    Class,
    Client,
    Frame,
    Function,
    InsideModule,
    Outside,
    Partial,
    Place,
    Value,
    Values,
    texts,
    unboxed,
)

MOST_PASSES = 4
ALWAYS_OUTSIDE = frozenset({ANTHROPIC, RELIGHT, "boto3", "litellm", "httpx", "requests", "openai"})
"""Packages that a folder of the same name among the files does not replace."""


class Program(Statements):
    """Follows values through all modules; `found` has the places afterwards."""

    def read(self) -> None:
        for _ in range(MOST_PASSES):
            self.growth = 0
            self._one_pass()
            if not self.growth:
                break

    def _one_pass(self) -> None:
        self.found.clear()
        self.memo.clear()
        for store in (self.fields, self.registered, *self.things.values()):
            forget_functions(store)
        for module in self.modules.all:
            forget_functions(module.assigned_elsewhere)
            for of in module.classes.values():
                forget_functions(of.attributes)
        self.runs.clear()
        self.not_followed.clear()
        functions = sum(module.defines for module in self.modules.all if module.concerned)
        self.done, self.most = 0, MOST_IN_ALL + MOST_FOR_EACH * functions
        self.edges.clear()
        self.called_raw.clear()
        self.guarded_at.clear()
        self.perhaps_guarded_at.clear()
        for module in self.modules.all:
            module.state, module.functions = "new", []
        concerned = [module for module in self.modules.all if module.concerned]
        for module in concerned:
            try:
                self.execute_module(module)
            except RecursionError:
                self.too_deep[module] = None
        for module in concerned:
            for of in list(module.classes.values()):
                for name in ("__init__", "__post_init__", "__new__", "setUp", "setup_method"):
                    self._alone(of.body.get(name, NOTHING))
        for module in concerned:
            for function in list(module.functions):
                self._alone(frozenset({function}))

    def _alone(self, values: Values) -> None:
        """Looks into a function as nobody calls it: its parameters are what they say of themselves."""
        for value in values:
            if isinstance(value, Function) and not isinstance(value.node, ast.Lambda):
                try:
                    self.run_function(value, ALONE)
                except RecursionError:
                    self.too_deep[value.module] = value.node.lineno

    def execute_module(self, module: Module) -> Frame:
        if module.frame is not None and module.state != "new":
            return module.frame
        module.state = "running"
        module.frame = frame = Frame(module, {})
        self.run_body(module.tree.body, frame)
        self.finish(frame)
        module.state = "done"
        return frame

    def module_attribute(self, module: Module, name: str) -> Values:
        frame = self.execute_module(module)
        found = frame.names.get(name, NOTHING) | module.assigned_elsewhere.get(name, NOTHING)
        if found:
            return found
        inner = self.modules.find(f"{module.name}.{name}", module)
        if inner is not None and inner is not module:
            return frozenset({InsideModule(inner)})
        if "__getattr__" in frame.names:
            return NOTHING
        if f"*{ANTHROPIC}" in frame.names:
            return frozenset({Outside(f"{ANTHROPIC}.{name}")})
        return NOTHING

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef, frame: Frame) -> None:
        names = {_last(decorator) for decorator in node.decorator_list}
        kind = "plain"
        if names & {"property", "cached_property", "hybrid_property"}:
            kind = "property"
        elif "staticmethod" in names:
            kind = "static"
        elif "classmethod" in names:
            kind = "class"
        owner = _owner(frame)
        around = frame.around if owner is not None else frame
        name = f"{owner.name}.{node.name}" if owner is not None else node.name
        function = Function(node, frame.module, around, owner, None, kind, name)
        result: Values = frozenset({function})
        for default in (*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)):
            self.evaluate(default, frame)
        for decorator in reversed(node.decorator_list):
            result = self._decorated(decorator, result, frame) or result
        if around is None or frame is frame.module.frame or owner is not None:
            frame.module.functions.append(function)
        else:
            frame.nested.append(function)
        if frame.module.source.in_test:
            self._note_fixture(node, function)
        frame.names[node.name] = result

    def _note_fixture(self, node: ast.FunctionDef | ast.AsyncFunctionDef, function: Function) -> None:
        for decorator in node.decorator_list:
            if _last(decorator) != "fixture":
                continue
            named = [k.value for k in decorator.keywords if k.arg == "name"] if isinstance(decorator, ast.Call) else []
            name = next((str(one.value) for one in named if isinstance(one, ast.Constant)), node.name)
            known = self.fixtures.setdefault(name, [])
            known[:] = [one for one in known if one.node is not node] + [function]

    def _decorated(self, decorator: ast.expr, function: Values, frame: Frame) -> Values:
        """What a decorator of the files makes of it; those of libraries leave it as it is."""
        result: Values = NOTHING
        for value in self.evaluate(decorator, frame):
            inside = isinstance(value, Function) or (
                isinstance(value, Partial) and isinstance(value.function, Function)
            )
            if inside:
                at = ast.copy_location(ast.Call(func=decorator, args=[], keywords=[]), decorator)
                result |= self.call_value(value, Arguments((function,)), at, frame)
        return frozenset(value for value in result if isinstance(value, Function | Partial))

    def _define_class(self, node: ast.ClassDef, frame: Frame) -> None:
        for decorator in node.decorator_list:
            self.evaluate(decorator, frame)
        of = frame.module.classes.get(node)
        if of is None:
            of = frame.module.classes[node] = Class(node, frame.module, node.name)
        of.bases = tuple(self.evaluate(base, frame) for base in node.bases)
        for bases in of.bases:
            for base in bases:
                if isinstance(base, Class) and of not in base.subclasses:
                    base.subclasses.append(of)
        inner = Frame(frame.module, {}, frame)
        inner.names["*class"] = frozenset({of})
        frame.names[node.name] = frozenset({of})
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                of.annotations[statement.target.id] = statement.annotation
        self.run_body(node.body, inner)
        for function in inner.nested:
            self.run_function(function, ALONE)
        for name, values in inner.names.items():
            if name != "*class":
                of.body[name] = values
                self.grow(self.fields, name, frozenset(v for v in values if isinstance(v, Client)))

    def _import(self, node: ast.Import, frame: Frame) -> None:
        for alias in node.names:
            if alias.asname is not None:
                frame.names[alias.asname] = self._imported(alias.name, frame)
            else:
                top = alias.name.partition(".")[0]
                # Without a module `a` among the files, `a.b` is found by its attributes.
                frame.names[top] = self._imported(top, frame)

    def _imported(self, dotted: str, frame: Frame) -> Values:
        module = None if dotted.partition(".")[0] in ALWAYS_OUTSIDE else self.modules.find(dotted, frame.module)
        if module is None or module is frame.module:
            return frozenset({Outside(dotted)})
        self.execute_module(module)
        return frozenset({InsideModule(module)})

    def _import_from(self, node: ast.ImportFrom, frame: Frame) -> None:
        dotted = origin(node, frame.module.package)
        outside = node.level == 0 and dotted.partition(".")[0] in ALWAYS_OUTSIDE
        module = None if outside else self.modules.find(dotted, frame.module)
        for alias in node.names:
            if alias.name == "*":
                self._import_all(dotted, module, frame)
                continue
            name = alias.asname or alias.name
            if module is not None and module is not frame.module:
                frame.names[name] = self._from_module(module, alias.name, f"{dotted}.{alias.name}", frame)
                continue
            inner = None if outside else self.modules.find(f"{dotted}.{alias.name}", frame.module)
            if inner is not None and inner is not frame.module:
                self.execute_module(inner)
                frame.names[name] = frozenset({InsideModule(inner)})
            else:
                frame.names[name] = frozenset({Outside(f"{dotted}.{alias.name}")})

    def _from_module(self, module: Module, name: str, dotted: str, frame: Frame) -> Values:
        """By name, whether it is imported before or after it is bound there."""
        found = self.module_attribute(module, name)
        defined = found and all(isinstance(value, Function | Class) for value in found)
        return frozenset({Outside(dotted)}) if self._named_guard(dotted, module, name) and not defined else found

    def _named_guard(self, dotted: str, module: Module, name: str) -> bool:
        """Whether configuration says that this name guards, or holds a client: then it is taken at its word."""
        names = self.guarding_names | self.client_names
        return dotted in names or qualified(module, name) in names

    def _import_all(self, dotted: str, module: Module | None, frame: Frame) -> None:
        if module is None:
            if dotted.partition(".")[0] == ANTHROPIC:
                frame.names[f"*{ANTHROPIC}"] = NOTHING
            return
        there = self.execute_module(module)
        listed = texts(unboxed(there.names.get("__all__", NOTHING)))
        for name, values in there.names.items():
            public = name in listed or (not listed and not name.startswith("_"))
            if public and "." not in name:
                frame.names[name] = values

    def attribute(self, values: Values, name: str, frame: Frame) -> Values:
        found = super().attribute(values, name, frame)
        if not found:
            return found
        named: set[Value] = set()
        for value in values:
            match value:
                case Outside(dotted) if dotted in self.guarding_names:
                    by = f"{dotted}, which configuration says guards"
                    client = self.guarded_client(Place(frame.module.path, 1, 1), by, in_test=False)
                    named |= super().attribute(frozenset({client}), name, frame)
                case Outside(dotted) if (whole := f"{dotted}.{name}") in self.guarding_names or self._module(whole):
                    named |= self._imported(whole, frame)
                case InsideModule(module) if self._named_guard(qualified(module, name), module, name):
                    named |= self._from_module(module, name, qualified(module, name), frame)
                case _:
                    pass
        return frozenset(named) if named else found

    def _module(self, dotted: str) -> bool:
        return dotted.partition(".")[0] not in ALWAYS_OUTSIDE and dotted in self.modules

    _STATEMENTS = {
        **Statements._STATEMENTS,
        ast.FunctionDef: _define,
        ast.AsyncFunctionDef: _define,
        ast.ClassDef: _define_class,
        ast.Import: _import,
        ast.ImportFrom: _import_from,
    }


def _owner(frame: Frame) -> Class | None:
    return next((value for value in frame.names.get("*class", NOTHING) if isinstance(value, Class)), None)


def _last(node: ast.expr) -> str:
    match node:
        case ast.Call(func=inner):
            return _last(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""
