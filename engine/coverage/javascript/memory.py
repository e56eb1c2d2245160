"""What every place of a program holds so far, and which answers rest on that."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from relight.engine.coverage.javascript.modules import File
from relight.engine.coverage.javascript.scopes import Binding
from relight.engine.coverage.javascript.tree import Node
from relight.engine.coverage.javascript.values import NOTHING, Values

Key = Binding | tuple[str, Node | File | None, str]
"""A variable; or a field, a result, an export: what it is, of what, and its name."""


class Memory:
    """What places hold only grows; answers that rest on a place are forgotten when it does."""

    def __init__(self) -> None:
        self._held: dict[Key, Values] = {}
        self._answers: dict[object, tuple[Values, frozenset[Key]]] = {}
        self._readers: dict[Key, set[object]] = {}
        self._visitors: dict[Key, dict[Node, None]] = {}
        self._reading: list[set[Key]] = [set()]
        self._asked: set[object] = set()
        self._circular: set[object] = set()

    def holds(self, key: Key) -> Values:
        self._reading[-1].add(key)
        return self._held.get(key, NOTHING)

    def held(self, key: Key) -> Values:
        """The same for whoever adds to it, and does not rest on it."""
        return self._held.get(key, NOTHING)

    def grow(self, key: Key, values: Values) -> Iterable[Node]:
        """Which nodes have to be visited again, now that a place holds more."""
        self._held[key] = self.held(key) | values
        for question in self._readers.pop(key, ()):
            self._answers.pop(question, None)
        return self._visitors.pop(key, ())

    def visiting(self, node: Node, visit: Callable[[Node], None]) -> None:
        """Visits a node, and notes on what it rested."""
        self._reading.append(set())
        try:
            visit(node)
        finally:
            for key in self._reading.pop():
                self._visitors.setdefault(key, {})[node] = None

    def once(self, question: object, answer: Callable[[], Values]) -> Values:
        """The answer; nothing where it turns out to depend on itself."""
        if (known := self._answers.get(question)) is not None:
            self._reading[-1] |= known[1]
            return known[0]
        if question in self._asked:
            self._circular.add(question)
            return NOTHING
        self._asked.add(question)
        self._reading.append(set())
        try:
            found = answer()
        finally:
            self._asked.discard(question)
            self._circular.discard(question)
            rests_on = self._reading.pop()
            self._reading[-1] |= rests_on
        if not self._circular:
            # Else it may lack what a question that waits for it will have.
            self._answers[question] = found, frozenset(rests_on)
            for key in rests_on:
                self._readers.setdefault(key, set()).add(question)
        return found
