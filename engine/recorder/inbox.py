"""What waits for a recorder's writer, in order: what is urgent wakes it, a deferred fact does not."""

import threading
from collections import deque
from itertools import islice
from queue import Empty, SimpleQueue
from typing import cast

from relight.engine.recorder.items import Deferral, Fact, Item, Part

LINGER_S = 0.25
"""So long at most a deferred fact waits: to wake a thread costs its caller more than to put the fact.

With others it is written at the price of one; half of that time cost a lone caller half as much again.
"""


class Inbox:
    """Takes items from any thread, finalizers included: it has no lock that could be held twice by one of them.

    One thread gets. An item is put before it is looked whether somebody waits, and whoever waits says so before it
    looks whether there is something: so none is overlooked.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._taking = threading.RLock()
        """Of two who take both parts of a fact, the first gets the first. A finalizer may take one as well."""
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._waits = False
        self._urgent = False
        self._emptied = True
        self.defer = self._items.append
        """Takes a deferred fact, to be written within `LINGER_S`."""

    def put(self, item: Item) -> None:
        """To be written at once, and all that was deferred before."""
        self._items.append(item)
        self.hurry()

    def hurry(self) -> None:
        """What was put or deferred is to be written at once."""
        self._urgent = True
        if self._waits:
            self._waits = False
            self._bell.put(None)

    def wait(self) -> None:
        """Returns at once where something is urgent, or was left; else within `LINGER_S`."""
        self._waits = True
        try:
            if self._emptied and not self._urgent:
                self._bell.get(timeout=LINGER_S)
        except Empty:
            pass
        finally:
            self._waits = False

    def first(self, limit: int) -> list[Item]:
        """What waits, left where it is; for a look from any thread."""
        try:
            return list(islice(self._items, limit))
        except RuntimeError:  # something was put or taken in the middle of it
            return []

    def next(self) -> Item | None:
        """The first item, None when there is none; does not wait."""
        try:
            with self._taking:
                item = self._items.popleft()
                if hasattr(item, "begins_in"):
                    item = self._deferral(cast("Fact", item))
        except IndexError:
            self._urgent, self._emptied = False, True
            if not self._items:
                return None
            # One was put between the two lines, and its putter's word that it is urgent is wiped out.
            self._urgent = True
            return self.next()
        self._emptied = False
        return item

    def _deferral(self, fact: Fact) -> Deferral:
        """Of the part that it was put for: with its beginning it is put here, or in another process, or nowhere."""
        part: Part | None = fact.part
        if fact.begins_in is self.defer:
            fact.begins_in = None
        else:
            part = fact.part.then
        assert part is not None
        return part.make, fact, fact.context, part.events
