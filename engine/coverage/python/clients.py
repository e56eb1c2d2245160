"""Clients: how one is constructed, guarded, derived from another, and called."""

from __future__ import annotations

import ast
from dataclasses import replace

from relight.engine.coverage.models import Evidence, Guarded, Kind
from relight.engine.coverage.python.expressions import Expressions
from relight.engine.coverage.python.sdk import called
from relight.engine.coverage.python.state import Arguments, Judgement
from relight.engine.coverage.python.values import (
    NOTHING,
    Box,
    Class,
    Client,
    Frame,
    Function,
    GuardMiddleware,
    Handed,
    Instance,
    Made,
    MiddlewareOf,
    Nil,
    Outside,
    Part,
    Place,
    Something,
    Text,
    Value,
    Values,
    texts,
    unboxed,
)

SDK_RETRIES = 2
LONGEST_TRAIL = 8
CERTAINTY = (Guarded.NO, Guarded.UNKNOWN, Guarded.YES)


class Clients(Expressions):
    """Makes clients of calls, and judgements of calls on clients."""

    def construct(self, what: str, arguments: Arguments, at: ast.expr, frame: Frame, of: Class | None = None) -> Client:
        """A client made by the SDK's class with these arguments."""
        place = self.place(at, frame)
        guarded, why, by = self._by_middleware(arguments, what, place)
        client = Client(
            what,
            place,
            guarded,
            self._retries(arguments, SDK_RETRIES),
            in_test=frame.module.source.in_test,
            by_hand=guarded is Guarded.YES,
            handed=guarded is Guarded.UNKNOWN and by == "handed",
            of=of,
            why=why,
            trail=(Evidence(place.path, place.line, f"{what} is constructed"),),
        )
        self.note_client(client, at, frame)
        return client

    def note_client(self, client: Client, at: ast.expr, frame: Frame) -> None:
        judgement = Judgement(client.guarded, client.why, client.trail, client.handed, client.in_test, _warning(client))
        self.judge(at, frame, Kind.CLIENT, client.what, judgement)

    def _by_middleware(self, arguments: Arguments, what: str, place: Place) -> tuple[Guarded, str, str]:
        given = arguments.get("middleware")
        if "middleware" in arguments.names() or given:
            guarded = self.guards(given)
            if guarded is Guarded.YES:
                return guarded, f"{what} is constructed with a Guard in its middleware at {place}", ""
            if guarded is Guarded.UNKNOWN:
                handed = any(isinstance(value, Handed) for value in given)
                why = f"{what} is constructed at {place} with middleware that comes from outside these files"
                return guarded, why, "handed" if handed else ""
            return guarded, f"{what} is constructed at {place} with middleware that has no Guard in it", ""
        for keyword, values in arguments.keywords:
            if keyword is not None:
                continue
            boxes = [value for value in values if isinstance(value, Box)]
            in_box = unboxed(values, "middleware")
            named = any(key == "middleware" for box in boxes for key, _ in box.entries)
            if named:
                guarded = self.guards(in_box)
                return guarded, f"{what} is constructed at {place} with keywords that hold its middleware", ""
            open_ended = any(key is None for box in boxes for key, _ in box.entries)
            if not boxes or open_ended or len(boxes) < len(values):
                handed = any(isinstance(value, Handed) for value in values)
                why = f"{what} is constructed at {place} with keywords that these files do not show"
                return Guarded.UNKNOWN, why, "handed" if handed else ""
        return (
            Guarded.NO,
            f"{what} is constructed at {place} without a Guard, and its calls do not pass through one",
            "",
        )

    @staticmethod
    def guards(middleware: Values) -> Guarded:
        """Whether a Guard is in it, whichever of these it is."""
        if any(isinstance(value, Handed) for value in middleware) or not middleware:
            return Guarded.UNKNOWN
        return min((Clients.guards_one(value) for value in middleware), key=CERTAINTY.index)

    @staticmethod
    def guards_one(value: Value) -> Guarded:
        match value:
            case GuardMiddleware():
                return Guarded.YES
            case MiddlewareOf(client):
                return client.guarded
            case Box(entries):
                # One element that is a Guard is enough, if it surely is one.
                return max(
                    (Clients.guards(held) for _, held in entries if held), key=CERTAINTY.index, default=Guarded.NO
                )
            case Function() | Class() | Instance() | Text() | Nil():
                return Guarded.NO
            case Made(dotted) | Outside(dotted) if dotted.partition(".")[0] in {"anthropic", "builtins"}:
                return Guarded.NO
            case Made() | Outside() | Handed() | Something():
                return Guarded.UNKNOWN
            case _:
                return Guarded.NO

    @staticmethod
    def _retries(arguments: Arguments, otherwise: int | None) -> int | None:
        values = arguments.get("max_retries")
        for keyword, spread in arguments.keywords:
            if keyword is None and not values:
                values = unboxed(spread, "max_retries") if any(isinstance(v, Box) for v in spread) else NOTHING
        if not values and "max_retries" not in arguments.names():
            return otherwise
        numbers = [text for text in texts(values) if text.isdigit()]
        return int(numbers[0]) if len(numbers) == 1 else None

    def guarded(self, arguments: Arguments, at: ast.expr, frame: Frame, by: str) -> Values:
        """What `relight.guarded` and what configuration names give: the client that is handed in, guarded."""
        place = self.place(at, frame)
        first = arguments.get("client", 0) | arguments.starred
        self.handed_to_guard(arguments, at, frame, by)
        found = {self._through(value, place, by) for value in first if isinstance(value, Client)}
        if not found:
            found = {self.guarded_client(place, by, in_test=frame.module.source.in_test)}
        return frozenset(found)

    def guarded_client(self, place: Place, by: str, *, in_test: bool, what: str = "client") -> Client:
        why = f"its client comes from {by} at {place}"
        trail = (Evidence(place.path, place.line, f"a guarded client comes from {by}"),)
        return Client(what, place, Guarded.YES, 0, in_test=in_test, why=why, trail=trail)

    @staticmethod
    def _through(client: Client, place: Place, by: str) -> Client:
        trail = (*client.trail, Evidence(place.path, place.line, f"it passes through {by}"))[:LONGEST_TRAIL]
        why = f"its client passes through {by} at {place}"
        return replace(client, guarded=Guarded.YES, retries=0, by_hand=False, handed=False, why=why, trail=trail)

    def handed_to_guard(self, arguments: Arguments, at: ast.expr, frame: Frame, by: str) -> None:
        """Clients among a guard's arguments are called by it: the one guarded, and those to fall back to."""
        place = self.place(at, frame)
        for values in arguments.all():
            for value in values | unboxed(values):
                if isinstance(value, Client):
                    self.guarded_at.setdefault(value.place, (place, by))

    def derive(self, client: Client, how: str, arguments: Arguments, at: ast.expr, frame: Frame) -> Client:
        """`with_options`, `copy` and `with_middleware`: the same client with something changed."""
        place = self.place(at, frame)
        trail = (*client.trail, Evidence(place.path, place.line, f"{how} makes another of it"))[:LONGEST_TRAIL]
        derived = replace(client, retries=self._retries(arguments, client.retries), trail=trail)
        if how == "with_middleware":
            given = [*arguments.positional, *((arguments.starred,) if arguments.starred else ())]
            within = [self.guards(values) for values in given]
            if Guarded.YES in within:
                return self._guarded_by_hand(derived, how, place)
            if Guarded.UNKNOWN in within and client.guarded is Guarded.NO:
                why = f"{how} at {place} is given middleware that comes from outside these files"
                return replace(derived, guarded=Guarded.UNKNOWN, why=why)
            return derived
        if "middleware" not in arguments.names():
            return derived
        match self.guards(arguments.get("middleware")):
            case Guarded.YES if client.guarded is Guarded.YES:
                return derived
            case Guarded.YES:
                return self._guarded_by_hand(derived, how, place)
            case Guarded.UNKNOWN:
                why = f"{how} at {place} is given middleware that comes from outside these files"
                return replace(derived, guarded=Guarded.UNKNOWN, why=why)
            case Guarded.NO:
                why = f"{how} at {place} replaces its middleware by some that has no Guard in it"
                # What is called past the Guard from here on is not the client that was guarded.
                origin = place if client.guarded is Guarded.YES else client.place
                return replace(derived, guarded=Guarded.NO, by_hand=False, why=why, place=origin)

    def _guarded_by_hand(self, client: Client, how: str, place: Place) -> Client:
        self.guarded_at.setdefault(client.place, (place, how))
        why = f"{how} at {place} puts a Guard into its client's middleware"
        return replace(client, guarded=Guarded.YES, by_hand=True, handed=False, why=why)

    def call_part(self, part: Part, arguments: Arguments, at: ast.expr, frame: Frame, how: str = "") -> Values:
        """A call of `client.messages.create` and the like; notes it, and gives what is of interest later."""
        client, path = part.client, part.path
        what = called(path)
        if what is None:
            if path[-1] == "thread" and leads(path):
                return frozenset({part})
            return NOTHING
        judgement = Judgement(
            client.guarded,
            (client.why or f"nothing here says where its client of type {client.what} was constructed") + how,
            client.trail,
            client.handed,
            client.in_test,
            _warning(client),
        )
        self.judge(at, frame, Kind.CALL, what, judgement)
        if client.guarded is Guarded.NO and not client.handed:
            self.called_raw.setdefault(client.place, self.place(at, frame))
        return NOTHING


def leads(path: tuple[str, ...]) -> bool:
    return len(path) >= 2 and path[-2] == "messages"


def _warning(client: Client) -> str | None:
    if client.guarded is Guarded.YES and client.retries != 0:
        has = "its own retries are on" if client.retries else "it is not known whether its own retries are off"
        return f"attempts would multiply: {has}; construct it with max_retries=0"
    return None
