"""What makes a place urgent: loops, request handlers, jobs of queues and agents around it, or around who calls it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from relight.engine.coverage.javascript import calling
from relight.engine.coverage.javascript.evaluation import Evaluation
from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node, arguments, name_of, parameters, unquoted
from relight.engine.coverage.javascript.values import Function, Guarding
from relight.engine.coverage.models import Circumstance, Reason

LOOPS = frozenset({"do_statement", "for_in_statement", "for_statement", "while_statement"})
ITERATING = frozenset({"every", "filter", "find", "flatMap", "forEach", "map", "reduce", "some"})
ROUTING = frozenset({"all", "delete", "get", "head", "options", "patch", "post", "put", "use"})
ROUTERS = re.compile(r"(^|\.|_)(app|api|router|routes?|server|fastify|hono|koa|web)$", re.IGNORECASE)
SERVING = frozenset(
    {
        *("createServer", "defineEventHandler", "eventHandler", "serve", "onRequest", "onCall", "mutation", "query"),
        *("procedure", "defineAction", "withApiHandler"),
    }
)
QUEUES = frozenset(
    {
        *("Worker", "process", "define", "schedule", "work", "createFunction", "onMessagePublished", "setInterval"),
        *("subscribe", "consume", "onSchedule", "task"),
    }
)
HANDLING_KEYS = frozenset({"fetch", "handler"})
QUEUE_KEYS = frozenset({"eachBatch", "eachMessage", "handleMessage", "run"})
HANDLING_DECORATORS = frozenset(
    {"Get", "Post", "Put", "Patch", "Delete", "All", "Sse", "MessagePattern", "SubscribeMessage", "Query", "Mutation"}
)
QUEUE_DECORATORS = frozenset(
    {"Process", "Processor", "EventPattern", "OnEvent", "Cron", "Interval", "RabbitSubscribe", "SqsMessageHandler"}
)
VERBS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
ROUTE_FILES = re.compile(r"(^|/)(route|\+server|\+page\.server)\.[cm]?[jt]sx?$")
REMIX = frozenset({"action", "loader"})
LAMBDAS = frozenset({"handler", "lambdaHandler"})
OF_QUEUE = re.compile(r"SQS|SNS|Kinesis|DynamoDBStream|EventBridge|Scheduled|S3Event")
AGENT = re.compile(r"agent(?!s?[-_]?log|ur)", re.IGNORECASE)
MOST_CALLERS = 3
"""Calls up from a place."""


@dataclass(slots=True)
class Circumstances:
    """Knows who calls each function among the files."""

    evaluation: Evaluation
    _users: dict[Node, list[Node]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for file in self.evaluation.program.files.values():
            for node in file.tree.root.walk():
                if node.kind in ("call_expression", "new_expression"):
                    handed = [each for each in arguments(node) if each.kind not in FUNCTIONS]
                    values = self.evaluation.of(calling.callee(node)) | self.evaluation.all_of(handed)
                    for value in values:
                        if isinstance(value, Function | Guarding):
                            self._users[value.node].append(node)

    def of(self, node: Node) -> tuple[Reason, ...]:
        """Each circumstance once, with the nearest that was seen of it."""
        found: dict[Circumstance, str] = {}
        for circumstance, note in self._around(node, set(), MOST_CALLERS):
            found.setdefault(circumstance, note)
        return tuple(Reason(circumstance, note) for circumstance, note in found.items())

    def _around(self, node: Node, seen: set[Node], calls: int) -> Iterator[tuple[Circumstance, str]]:
        place = node
        functions: list[Node] = []
        for above in node.above():
            once = above.field("right") or above.field("initializer")
            if (above.kind in LOOPS and place is not once) or _repeats(above, place):
                yield Circumstance.LOOP, f"in a loop (line {above.line})"
            if above.kind in FUNCTIONS:
                functions.append(above)
                yield from _handles(above)
            if above.kind in FUNCTIONS or above.kind in CLASSES:
                name = name_of_function(above)
                if name is not None and AGENT.search(name):
                    yield Circumstance.AGENT, f"in {name}"
            place = above
        if AGENT.search(PurePosixPath(node.tree.path).stem):
            yield Circumstance.AGENT, f"in {node.tree.path}"
        for function in functions if calls else ():
            for user in self._users.get(function, ()):
                if user not in seen:
                    seen.add(user)
                    yield from self._used(function, user, seen, calls)

    def _used(self, function: Node, user: Node, seen: set[Node], calls: int) -> Iterator[tuple[Circumstance, str]]:
        name = name_of_function(function) or "the function around it"
        where = f"{name}, called at {user.tree.path}:{user.line}"
        if (registered := _registered(user)) is not None:
            yield registered[0], f"{registered[1]} by {where}"
        if calling.property_of(calling.callee(user))[1] in ITERATING and any(
            isinstance(value, Function) and value.node is function for value in self.evaluation.all_of(arguments(user))
        ):
            yield Circumstance.LOOP, f"in a loop by {where}"
        for circumstance, note in self._around(user, seen, calls - 1):
            yield circumstance, f"{note.partition(' by ')[0]} by {where}"


def name_of_function(node: Node) -> str | None:
    """A function's or class's own name, or that of what it is assigned to."""
    named = node.field("name")
    if named is not None:
        return name_of(named)
    parent = node.parent
    while parent is not None and parent.kind in ("parenthesized_expression", "as_expression", "satisfies_expression"):
        parent = parent.parent
    if parent is None:
        return None
    match parent.kind:
        case "variable_declarator" | "public_field_definition" | "field_definition":
            named = parent.field("name") or parent.field("property")
        case "pair":
            named = parent.field("key")
        case "assignment_expression":
            left = parent.field("left")
            named = left and (left.field("property") or left)
        case _:
            return None
    return None if named is None else name_of(named)


def _repeats(call: Node, place: Node) -> bool:
    """Whether a call runs the callback that the place stands in for each of several things."""
    if call.kind != "call_expression" or place is calling.callee(call):
        return False
    holder, name = calling.property_of(calling.callee(call))
    return holder is not None and name in ITERATING and any(each.kind in FUNCTIONS for each in arguments(call))


def _handles(function: Node) -> Iterator[tuple[Circumstance, str]]:
    """What a function says of itself: where it is handed to, its decorators, its name where frameworks look for it."""
    parent = function.parent
    call = parent.parent if parent is not None and parent.kind == "arguments" else None
    if call is not None and (registered := _registered(call)) is not None:
        yield registered
    yield from _decorated(function)
    name = name_of_function(function)
    path = function.tree.path
    if (function.kind == "method_definition" and parent is not None and parent.kind == "object") or (
        parent is not None and parent.kind == "pair"
    ):
        if name in HANDLING_KEYS:
            yield Circumstance.HANDLER, f"in {name}, a request handler (line {function.line})"
        elif name in QUEUE_KEYS:
            yield Circumstance.JOB, f"in {name}, a queue's job (line {function.line})"
    if not _is_exported(function, name):
        return
    if (name in VERBS and ROUTE_FILES.search(path)) or (name in REMIX and "routes/" in path):
        yield Circumstance.HANDLER, f"in the route {name} of {path}"
    elif "pages/api/" in path and "default" in _exporting_tokens(function):
        yield Circumstance.HANDLER, f"in the route {path}"
    elif name in LAMBDAS:
        taken = " ".join(parameter.text for parameter in parameters(function))
        circumstance = Circumstance.JOB if OF_QUEUE.search(taken) else Circumstance.HANDLER
        yield circumstance, f"in the lambda {name} (line {function.line})"
    elif _says(function, "use server"):
        yield Circumstance.HANDLER, f"in the server action {name} (line {function.line})"


def _registered(call: Node) -> tuple[Circumstance, str] | None:
    """What a call registers the function as that it is handed."""
    holder, name = calling.property_of(calling.callee(call))
    if call.kind == "new_expression":
        return (Circumstance.JOB, f"in a queue's worker (line {call.line})") if name == "Worker" else None
    handed = arguments(call)
    first = unquoted(handed[0]) if handed else None
    if holder is not None and name in ROUTING and (ROUTERS.search(holder.text) or (first or "").startswith("/")):
        return Circumstance.HANDLER, f"in a request handler (line {call.line})"
    if name in SERVING or (name == "addEventListener" and first == "fetch"):
        return Circumstance.HANDLER, f"in a request handler (line {call.line})"
    if name in QUEUES:
        return Circumstance.JOB, f"in a queue's job (line {call.line})"
    return None


def _decorated(function: Node) -> Iterator[tuple[Circumstance, str]]:
    """By decorators before a method, or on its class."""
    names = set()
    siblings = function.parent.children if function.parent is not None else []
    for sibling in reversed(siblings[: siblings.index(function)] if function in siblings else []):
        if sibling.kind != "decorator":
            break
        names.add(_decorator(sibling))
    owner = next((above for above in function.above() if above.kind in CLASSES), None)
    if owner is not None and function.kind == "method_definition":
        around = [*owner.children, *(owner.parent.children if owner.parent is not None else [])]
        names |= {_decorator(child) for child in around if child.kind == "decorator"} & {"Processor"}
    for name in sorted(names & HANDLING_DECORATORS):
        yield Circumstance.HANDLER, f"in a request handler, @{name} (line {function.line})"
    for name in sorted(names & QUEUE_DECORATORS):
        yield Circumstance.JOB, f"in a queue's job, @{name} (line {function.line})"


def _decorator(node: Node) -> str:
    called = node.first("call_expression")
    function = (called.field("function") if called is not None else None) or (
        node.children[0] if node.children else None
    )
    return "" if function is None else function.text.rpartition(".")[2]


def _exporting(function: Node) -> Node | None:
    return next((above for above in function.above() if above.kind == "export_statement"), None)


def _exporting_tokens(function: Node) -> frozenset[str]:
    statement = _exporting(function)
    return frozenset() if statement is None else statement.tokens


def _is_exported(function: Node, name: str | None) -> bool:
    if _exporting(function) is not None:
        return True
    assigned = function.parent
    if assigned is not None and assigned.kind == "assignment_expression":
        return (left := assigned.field("left")) is not None and left.text.startswith(("exports.", "module.exports"))
    return False


def _says(function: Node, directive: str) -> bool:
    body = function.field("body")
    root = function
    for above in function.above():
        root = above
    for block in (root, body):
        first = block.children[0] if block is not None and block.children else None
        if first is not None and first.kind == "expression_statement" and first.text.strip(";\"' \n") == directive:
            return True
    return False
