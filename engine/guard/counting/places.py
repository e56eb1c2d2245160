"""Which line of a program makes a model call: the first frame on the stack that is the program's own."""

import asyncio
import sysconfig
import threading
from concurrent.futures import thread
from contextvars import ContextVar
from enum import Enum, auto
from pathlib import Path
from types import FrameType

import anthropic

UNKNOWN_PLACE = "(place not known)"
LONGEST_SITE = 500
CREATED_AT: ContextVar[str | None] = ContextVar("relight_call_created_at", default=None)
"""Where the coroutine that runs now was made, for those that a task runs without whoever made them."""


class Owner(Enum):
    """Whose code a frame is."""

    PROGRAM = auto()
    SDK = auto()
    GUARD = auto()
    PACKAGE = auto()
    """installed"""
    STANDARD = auto()
    LOOP = auto()
    """Below it stands whoever runs the loop or the thread, and not whoever calls."""


_HERE = Path(__file__).parent
_GUARD = str(_HERE.parent)
_OURS = str(_HERE.parent.parent)
_SDK = str(Path(anthropic.__file__).parent)
_STANDARD = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_LOOPS = tuple(
    {
        str(Path(asyncio.__file__).parent),
        threading.__file__,
        thread.__file__,
    }
)
_COUNTING = {str(_HERE / name) for name in ("places.py", "counting.py")}
_INSTALLED = ("site-packages", "dist-packages")
_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", ".git", "package.json")


class Places:
    """Remembers what it found out about files, so that a call costs a walk over frames and no more."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner] = {}
        self._sites: dict[tuple[str, int], str] = {}

    def of_caller(self, frame: FrameType | None) -> str | None:
        """`app/agent.py:12`; None for a call that a Guard makes itself, as to a fallback.

        A program that is installed as a package is a library, too: then the first that is not the SDK's counts.
        """
        calling: FrameType | None = None
        while frame is not None:
            owner = self._owner(frame.f_code.co_filename)
            if owner is Owner.GUARD:
                return None
            if owner is Owner.PROGRAM:
                calling = frame
                break
            if owner is Owner.LOOP:
                break
            if owner is Owner.PACKAGE and calling is None:
                calling = frame
            frame = frame.f_back
        # Where a coroutine is made stands the call; it may be awaited anywhere.
        if (created := CREATED_AT.get()) is not None:
            return created
        return self._site(calling) if calling is not None else UNKNOWN_PLACE

    def _owner(self, file: str) -> Owner:
        owner = self._owners.get(file)
        if owner is None:
            owner = self._owners[file] = _owner_of(file)
        return owner

    def _site(self, frame: FrameType) -> str:
        # Not by the code object: that of the same function in another file is equal to it.
        key = (frame.f_code.co_filename, frame.f_lineno)
        site = self._sites.get(key)
        if site is None:
            site = f"{_relative(frame.f_code.co_filename)}:{frame.f_lineno}"
            self._sites[key] = site = site[-LONGEST_SITE:]
        return site


def _owner_of(file: str) -> Owner:
    if file in _COUNTING:
        return Owner.STANDARD
    if file.startswith(_OURS):
        return Owner.GUARD if file.startswith(_GUARD) else Owner.STANDARD
    if file.startswith(_SDK):
        return Owner.SDK
    if file.startswith(_LOOPS) or "/trio/_core/" in file:
        return Owner.LOOP
    if any(part in _INSTALLED for part in Path(file).parts):
        return Owner.PACKAGE
    return Owner.STANDARD if file.startswith((*_STANDARD, "<frozen")) else Owner.PROGRAM


def _relative(file: str) -> str:
    """To the project's folder, or to where packages are installed: so it is the same on every machine."""
    path = Path(file)
    for number, part in enumerate(path.parts):
        if part in _INSTALLED:
            return "/".join(path.parts[number + 1 :])
    if not path.is_absolute():
        return path.as_posix()
    for folder in path.parents:
        if any((folder / marker).exists() for marker in _MARKERS):
            return path.relative_to(folder).as_posix()
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name
