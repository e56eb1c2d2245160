"""RELIGHT_HOME: where it is by default, and whether a `relight up` serves it now."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from relight.engine.embedded.lock import taken
from relight.engine.embedded.private import private_folder, write_private
from relight.engine.errors import EmbeddedServerError

LOCK = "up.lock"
CONTENTS = "up.json"
REGIONS = "regions"
# `running()` holds the lock for microseconds to see whether it is free.
PROBE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Running:
    """What `relight up` serves; the addresses contain passwords.

    `region` is set for a region of a topology; `pids` are those of its servers, by name.
    """

    nats_url: str
    monitor_url: str
    database_url: str
    health_url: str
    pid: int
    region: str | None = None
    pids: Mapping[str, int] = field(default_factory=dict)


def default_home() -> Path:
    """Where data goes when RELIGHT_HOME is not set; root's is a folder that PostgreSQL's user can enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/relight")
    shared = os.environ.get("XDG_DATA_HOME", "")
    # The specification: a relative path is invalid and must be ignored.
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".local" / "share") / "relight"


def make_home(home: Path) -> None:
    """Create the folder if need be; only root's may be entered by others (PostgreSQL's user must).

    One that exists is left as it is: its mode may be somebody's decision.
    """
    try:
        if not home.is_dir():
            home.parent.mkdir(parents=True, exist_ok=True)
            private_folder(home, entered_by_others=os.geteuid() == 0)
    except OSError as error:
        raise EmbeddedServerError(f"{home} cannot be made ({error}): set RELIGHT_HOME to another folder.") from error


class HomeLock:
    """Held by `relight up`, so that one process serves a home and others find it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Raises `EmbeddedServerError` when another process holds it."""
        make_home(self._home)
        descriptor = os.open(self._home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + PROBE_S
        while not taken(descriptor):
            if time.monotonic() >= give_up:
                os.close(descriptor)
                raise EmbeddedServerError(
                    f"relight up already serves {self._home}: stop it, or set RELIGHT_HOME to another folder."
                )
            time.sleep(0.005)
        self._descriptor = descriptor
        (self._home / CONTENTS).unlink(missing_ok=True)
        return self

    def announce(self, running: Running) -> None:
        """Tell others where the servers are, once they answer."""
        assert self._descriptor is not None, "announce() needs the lock"
        write_private(self._home / CONTENTS, json.dumps(asdict(running)) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is None:
            return
        (self._home / CONTENTS).unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None


def running(home: Path) -> Running | None:
    """What a live `relight up` announced for this home, or None."""
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise EmbeddedServerError(f"{home} belongs to another user: set RELIGHT_HOME to a folder of yours.") from error
    try:
        if taken(descriptor, fcntl.LOCK_SH):
            return None
        found = Running(**json.loads((home / CONTENTS).read_text()))
    except FileNotFoundError:
        return None  # it starts or stops just now
    finally:
        os.close(descriptor)
    return found if alive(found.pid) else None


def region_home(home: Path, region: str) -> Path:
    """Where the servers and spools of one region of a topology lie."""
    return home / REGIONS / region


def running_regions(home: Path) -> dict[str, Running]:
    """What the regions of a topology announced that are up now, by name."""
    found = (running(path) for path in sorted((home / REGIONS).glob("*")))
    return {up.region: up for up in found if up is not None and up.region is not None}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
