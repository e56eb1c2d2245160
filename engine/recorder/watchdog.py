"""Notices within seconds that a recorder's thread died or hangs, or that its spool is of no use, and sees to it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from relight.engine.recorder.session import Session

TICK_S = 0.5
HANGS_TICKS = 6
"""Ticks without a sign of life. Not seconds: a process that stood still, watchdog and all, has nothing that hangs."""
FAILING_S = 3.0
"""So long a spool may fail to be written before another place is looked for."""
BACK_S, BACK_AT_MOST_S = 2.0, 30.0
"""How soon, and at last how often, a recorder without a disk looks whether there is one again."""

log = logging.getLogger(__name__)


class Watchdog:
    """A thread that looks again and again until it is stopped."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relight-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It does not look again; a look under way is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(TICK_S):
            try:
                self._look()
            except Exception as error:  # it has to outlive what it looks after
                log.error("the recorder's watchdog failed: %r", error, extra={"action": "watchdog_failed"})


@dataclass
class Watch:
    """What was seen of one session's threads, and what was done."""

    session: Session
    restarts: int = 0
    _beats: int = -1
    _missed: int = 0
    _said: bool = False
    _back_at: float = 0.0
    _back_s: float = 0.0

    def __post_init__(self) -> None:
        self._back_s = BACK_S
        self._back_at = time.monotonic() + self._back_s

    def look(self) -> bool:
        """Restarts what has to be; whether the session is to be replaced by another one."""
        self._look_at_writer()
        self._look_at_uplink()
        session = self.session
        if session.spool_fault is not None:
            if time.monotonic() < self._back_at:
                return False
            self._back_s = min(2 * self._back_s, BACK_AT_MOST_S)
            self._back_at = time.monotonic() + self._back_s
            return True
        failing_since = session.writer.disk.failing_since
        return session.damage is not None or (
            session.durable and failing_since is not None and time.monotonic() - failing_since > FAILING_S
        )

    def _look_at_writer(self) -> None:
        writer = self.session.writer
        if writer.leaving:
            return
        self._missed = 0 if writer.disk.beats != self._beats else self._missed + 1
        self._beats = writer.disk.beats
        if writer.alive and self._missed < HANGS_TICKS:
            writer.stuck = None
            self._said = False
            return
        what = "hangs" if writer.alive else "died"
        if writer.revive():
            log.error("the recorder's writer %s: restarted", what, extra={"action": "writer_restarted"})
            self.restarts += 1
            self._missed, self._said, writer.stuck = 0, False, None
            return
        writer.stuck = "the recorder's writer does not come back from the disk: is that hanging, or held by somebody?"
        if not self._said:
            log.error("%s", writer.stuck, extra={"action": "writer_stuck"})
            self._said = True

    def _look_at_uplink(self) -> None:
        uplink = self.session.uplink
        uplink.beat()
        if (uplink.alive and uplink.missed_beats < HANGS_TICKS) or uplink.damage is not None:
            return
        what = "hangs" if uplink.alive else "died"
        log.error("the recorder's uplink %s: restarted", what, extra={"action": "uplink_restarted"})
        self.restarts += 1
        uplink.revive()
