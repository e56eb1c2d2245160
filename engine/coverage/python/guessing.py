"""Calls of what nobody here shows: told by how they look, and by the address that they go to."""

from __future__ import annotations

import ast

from relight.engine.coverage.models import Guarded, Kind
from relight.engine.coverage.python.expressions import dotted_name
from relight.engine.coverage.python.functions import Functions
from relight.engine.coverage.python.other_sdks import HOST, HTTP_VERBS, PRETENCES, PRETENDING, is_something_else
from relight.engine.coverage.python.sdk import called
from relight.engine.coverage.python.state import Arguments, Judgement
from relight.engine.coverage.python.values import (
    Box,
    Class,
    Frame,
    Function,
    GuardMiddleware,
    Handed,
    Instance,
    Made,
    MiddlewareOf,
    Other,
    Outside,
    Text,
    Values,
    texts,
)


class Guessing(Functions):
    """Lists what surely is a call of Anthropic's API, or looks like one while its client is not known."""

    def plain_http(self, node: ast.Call, callees: Values, arguments: Arguments, frame: Frame) -> None:
        """A request to the API's address, without the SDK."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        outside = {value.dotted for value in callees if isinstance(value, Outside | Made)}
        verb = next((d.rpartition(".")[2] for d in outside if d.rpartition(".")[2] in HTTP_VERBS), name)
        if verb not in HTTP_VERBS or any(dotted.partition(".")[0] in PRETENCES for dotted in outside):
            return
        for values in arguments.all():
            for text in texts(values):
                if HOST in text and ("/v1/" not in text or "/v1/messages" in text or "/v1/complete" in text):
                    why = f"it goes to {HOST} by {verb}(), past the SDK and so past any Guard"
                    in_test = frame.module.source.in_test
                    self.judge(node, frame, Kind.CALL, f"{HOST} by {verb}", Judgement(Guarded.NO, why, in_test=in_test))
                    return

    def looks_like_one(self, node: ast.Call, callees: Values, frame: Frame) -> None:
        """`x.messages.create(model=…, messages=…)` of something that is not known."""
        dotted: list[str] = []
        here: ast.expr = node.func
        while isinstance(here, ast.Attribute):
            dotted.insert(0, here.attr)
            here = here.value
        start = next((number for number, part in enumerate(dotted) if part in {"messages", "completions"}), None)
        if start is None or (what := called(tuple(dotted[start:]))) is None or what.startswith("completions"):
            return
        before = dotted[:start]
        if set(before) & {"threads", "chat", "conversations", "spaces", "users", "channels"}:
            return
        root = self.evaluate(here, frame)
        for values in (callees, root):
            for value in values:
                if isinstance(value, Made | Outside) and is_something_else(value.dotted):
                    return
                if isinstance(value, Handed) and (value.name in PRETENDING or "return_value" in value.path):
                    return
                if isinstance(value, Instance | Class | Function | Box | Text | Other) and values is callees:
                    return
        if callees and not all(isinstance(value, Handed | Made | Outside) for value in callees):
            return
        if not callees and self._inside(node.func, frame):
            return
        names = {keyword.arg for keyword in node.keywords}
        asks = ("messages" in names and bool(names & {"model", "max_tokens"})) or (
            "batches" in dotted and "requests" in names
        )
        only_spread = names == {None} and frame.module.mentions_anthropic and not node.args
        if not asks and not only_spread:
            return
        self.judge(node, frame, Kind.CALL, what, self._not_known(node, callees, frame))

    def _inside(self, node: ast.expr, frame: Frame) -> bool:
        """Whether some part of the path is an object of a class of the files, which has no such attribute."""
        while isinstance(node, ast.Attribute):
            node = node.value
            values = self.evaluate(node, frame)
            if any(
                isinstance(value, Class | Function | Box | Text | GuardMiddleware | MiddlewareOf) for value in values
            ):
                return True
            if any(isinstance(value, Instance) and not self._open_ended(value.of) for value in values):
                return not any(isinstance(value, Handed) for value in values) and self._closed(node, values)
        return False

    def _closed(self, node: ast.expr, values: Values) -> bool:
        """An attribute that the class itself sets to something unknown may be a client."""
        return not any(isinstance(value, Instance) and dotted_name(node) in {"self", "cls"} for value in values)

    def _open_ended(self, of: Class) -> bool:
        return any(True for _ in self.outside_bases(of)) or any("__getattr__" in each.body for each in self.line_of(of))

    def _not_known(self, node: ast.Call, callees: Values, frame: Frame) -> Judgement:
        handed = [value for value in callees if isinstance(value, Handed)]
        made = [value for value in callees if isinstance(value, Made | Outside)]
        in_test = frame.module.source.in_test
        name = dotted_name(node.func) or ast.unparse(node.func)
        if made:
            why = f"its client comes from {made[0].dotted}, which is outside these files"
            return Judgement(Guarded.UNKNOWN, why, in_test=in_test)
        if handed:
            one = handed[0]
            why = f"its client is handed in as `{one.name}` of {one.function} ({one.place}), and nobody here shows what"
            return Judgement(Guarded.UNKNOWN, why, handed=True, in_test=in_test)
        why = f"nothing in these files shows where the client in `{name}` comes from"
        return Judgement(Guarded.UNKNOWN, why, handed=True, in_test=in_test)
