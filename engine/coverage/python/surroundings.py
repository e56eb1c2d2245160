"""What surrounds a place: loops, handlers of requests, jobs, agents; also by way of the functions that lead to it."""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Iterable, Iterator

from relight.engine.coverage.models import Circumstance, Reason
from relight.engine.coverage.python.modules import Module
from relight.engine.coverage.python.state import Edge
from relight.engine.coverage.python.values import FunctionNode

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LOOPS = (ast.For, ast.AsyncFor, ast.While, *COMPREHENSIONS)
ROUTES = frozenset(
    {
        *("get", "post", "put", "patch", "delete", "head", "options", "route", "api_route", "websocket"),
        *("websocket_route", "view", "api_view", "http", "on_event", "middleware", "exception_handler"),
    }
)
ROUTERS = re.compile(r"(app|api|router|routes|route|blueprint|bp|web|server|ns|site)$", re.IGNORECASE)
VIEWS = frozenset({"api_view", "action", "require_http_methods", "require_POST", "require_GET", "csrf_exempt"})
REGISTERING = frozenset(
    {
        *("path", "re_path", "Route", "WebSocketRoute", "add_url_rule", "add_api_route", "add_route", "add_get"),
        *("add_post", "add_put", "add_websocket_route", "add_view", "as_view"),
    }
)
JOBS = frozenset({"task", "shared_task", "job", "actor", "subscriber", "agent", "cron", "periodic_task", "db_task"})
VIEW_BASES = re.compile(r"(View|ViewSet|APIView|Resource|HTTPEndpoint|RequestHandler|Consumer|MethodView)$")
VIEW_METHODS = frozenset({"get", "post", "put", "patch", "delete", "list", "create", "dispatch", "receive"})
LAMBDA_NAMES = frozenset({"lambda_handler", "handler", "handle_event"})
AGENT = re.compile(r"(^|[^a-z])agents?($|[^a-z])|[a-z]Agents?($|[^a-z])|^Agents?[A-Z_]|^agents?$")
USER_AGENT = re.compile(r"user[-_]?agent", re.IGNORECASE)
FARTHEST = 4
"""Calls between a handler and a place."""


class Surroundings:
    """Of places in one program; what is known of each module is worked out when it is first asked for."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self._callers: dict[FunctionNode, list[Edge]] = {}
        for edge in edges:
            self._callers.setdefault(edge.callee, []).append(edge)
        self._parents: dict[Module, dict[ast.AST, ast.AST]] = {}
        self._registered: dict[Module, dict[str, int]] = {}

    def within(self, module: Module, node: ast.AST) -> str | None:
        """`RefundAgent.run`, for a place in that method."""
        names = [
            above.name
            for above in self._above(module, node)
            if isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        return ".".join(reversed(names)) or None

    def reasons(self, module: Module, node: ast.AST) -> tuple[Reason, ...]:
        """Each circumstance once, by the nearest that shows it."""
        found: dict[Circumstance, Reason] = {}
        for reason in self._near(module, node):
            found.setdefault(reason.circumstance, reason)
        waiting = deque([(self._function(module, node), 1)])
        seen: set[ast.AST] = set()
        while waiting:
            function, distance = waiting.popleft()
            if function is None or function in seen or distance > FARTHEST:
                continue
            seen.add(function)
            for edge in self._callers.get(function, ()):
                by = self.within(edge.module, edge.node) or "the module"
                where = f"{edge.module.path}:{getattr(edge.node, 'lineno', 1)}"
                if edge.module.source.in_test:
                    continue
                for reason in self._near(edge.module, edge.node):
                    far = Reason(reason.circumstance, f"called from {by} ({where}), {reason.note}")
                    found.setdefault(reason.circumstance, far)
                waiting.append((self._function(edge.module, edge.node), distance + 1))
        return tuple(sorted(found.values(), key=lambda reason: list(Circumstance).index(reason.circumstance)))

    def _near(self, module: Module, node: ast.AST) -> Iterator[Reason]:
        """In the same function, and what that function is."""
        below: ast.AST = node
        inside = True
        for above in self._above(module, node):
            if inside and isinstance(above, LOOPS) and not _before_loop(above, below):
                yield Reason(Circumstance.LOOP, f"in a loop (line {getattr(above, 'lineno', 0)})")
            if isinstance(above, ast.While) and inside and _on_tool_use(above):
                yield Reason(Circumstance.AGENT, f"in a loop on tool use (line {above.lineno})")
            if isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = False
                yield from self._of_function(module, above)
            if isinstance(above, ast.ClassDef) and _names_agent(above.name):
                yield Reason(Circumstance.AGENT, f"class {above.name} is an agent by its name")
            below = above
        if any(_names_agent(part) for part in module.name.split(".")):
            yield Reason(Circumstance.AGENT, f"module {module.name} is an agent by its name")

    def _of_function(self, module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Reason]:
        for decorator in node.decorator_list:
            yield from _of_decorator(decorator, node)
        if node.name in self._registered_in(module):
            line = self._registered_in(module)[node.name]
            yield Reason(Circumstance.HANDLER, f"{node.name} is registered as a handler (line {line})")
        arguments = [argument.arg for argument in node.args.args]
        if node.name in LAMBDA_NAMES and arguments[:2] == ["event", "context"]:
            yield Reason(Circumstance.HANDLER, f"{node.name} handles a cloud function's events")
        owner = self._parents[module].get(node)
        if isinstance(owner, ast.ClassDef) and node.name in VIEW_METHODS:
            if any(VIEW_BASES.search(_last(base)) for base in owner.bases):
                yield Reason(Circumstance.HANDLER, f"{owner.name}.{node.name} handles requests")
        elif arguments[:1] == ["request"] and module.source.file.stem == "views":
            yield Reason(Circumstance.HANDLER, f"{node.name} is a view")
        if _names_agent(node.name):
            yield Reason(Circumstance.AGENT, f"{node.name} is an agent by its name")

    def _registered_in(self, module: Module) -> dict[str, int]:
        """Functions that stand as an argument where routes are registered, in any file: names are enough."""
        known = self._registered.get(module)
        if known is None:
            known = self._registered[module] = {}
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call) and _last(node.func) in REGISTERING:
                    for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                        if isinstance(argument, ast.Name | ast.Attribute):
                            known[_last(argument)] = node.lineno
        return known

    def _function(self, module: Module, node: ast.AST) -> FunctionNode | None:
        return next((above for above in self._above(module, node) if isinstance(above, FUNCTIONS)), None)

    def _above(self, module: Module, node: ast.AST) -> Iterator[ast.AST]:
        parents = self._parents.get(module)
        if parents is None:
            parents = self._parents[module] = {}
            for above in ast.walk(module.tree):
                for child in ast.iter_child_nodes(above):
                    parents[child] = above
        here = parents.get(node)
        while here is not None:
            yield here
            here = parents.get(here)


def _of_decorator(decorator: ast.expr, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Reason]:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = _last(target)
    shown = ast.unparse(target)
    of = _last(target.value) if isinstance(target, ast.Attribute) else ""
    if name in VIEWS or (name in ROUTES and isinstance(target, ast.Attribute) and ROUTERS.search(of)):
        yield Reason(Circumstance.HANDLER, f"{node.name} handles requests (@{shown})")
    elif name in JOBS:
        yield Reason(Circumstance.JOB, f"{node.name} is a job (@{shown})")


def _before_loop(loop: ast.AST, below: ast.AST) -> bool:
    """What a loop goes over, and what comes after it, is evaluated once."""
    match loop:
        case ast.For(iter=iterated, orelse=after) | ast.AsyncFor(iter=iterated, orelse=after):
            return below is iterated or below in after
        case ast.While(orelse=after):
            return below in after
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return False
        case _:
            return False


def _on_tool_use(loop: ast.While) -> bool:
    return any(isinstance(node, ast.Constant) and node.value == "tool_use" for node in ast.walk(loop))


def _names_agent(name: str) -> bool:
    return AGENT.search(name) is not None and USER_AGENT.search(name) is None


def _last(node: ast.expr) -> str:
    match node:
        case ast.Call(func=inner):
            return _last(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""
