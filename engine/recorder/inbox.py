"""What waits for a recorder's writer, in order: what is urgent wakes it, what may wait for company does not."""

import time
from collections import deque
from queue import Empty, SimpleQueue

from relight.engine.recorder.items import Deferral, Item

IDLE_S = 0.5
LINGER_S = 0.05
"""So long a deferred fact waits for others: to wake a thread costs its caller more than to put the fact."""
AWAKE_S = 2.0
"""So long after the last one the writer looks by itself whether there are more, and none has to wake it."""

_AT_WORK, _LINGERS, _DOZES = 0, 1, 2


class Inbox:
    """Takes items from any thread, finalizers included: it has no lock that could be held twice by one of them.

    One thread gets. An item is put before it is looked whether somebody waits, and whoever waits says so before it
    looks whether there is something: so none is overlooked.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._waits = _AT_WORK
        self._urgent = False
        self._deferred_at = -AWAKE_S

    def put(self, item: Item) -> None:
        """To be written at once."""
        self._items.append(item)
        self._urgent = True
        if self._waits:
            self._ring()

    def defer(self, deferral: Deferral) -> None:
        """To be written soon."""
        self._items.append(deferral)
        if self._waits == _DOZES:
            self._ring()

    def wait(self) -> None:
        """Returns once there is something to write, and after `IDLE_S` at the latest."""
        if not (self._urgent or self._items):
            awake = time.monotonic() - self._deferred_at < AWAKE_S
            self._sleep(_LINGERS if awake else _DOZES, LINGER_S if awake else IDLE_S)
            if awake:
                return
        if self._items and not self._urgent:
            self._sleep(_LINGERS, LINGER_S)

    def next(self) -> Item | None:
        """The first item, None when there is none; does not wait."""
        try:
            item = self._items.popleft()
        except IndexError:
            self._urgent = False
            if not self._items:
                return None
            # One was put between the two lines, and its putter's word that it is urgent is wiped out.
            self._urgent = True
            return self.next()
        if type(item) is tuple:
            self._deferred_at = time.monotonic()
        return item

    def _sleep(self, how: int, timeout_s: float) -> None:
        self._waits = how
        try:
            if not (self._urgent or (how == _DOZES and self._items)):
                self._bell.get(timeout=timeout_s)
        except Empty:
            pass
        finally:
            self._waits = _AT_WORK

    def _ring(self) -> None:
        self._waits = _AT_WORK
        self._bell.put(None)
