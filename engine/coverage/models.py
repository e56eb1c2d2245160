"""What `relight coverage` finds: places in sources where a client is constructed or a model is called."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from relight.engine.coverage.config import CoverageConfig


class Language(StrEnum):
    PYTHON = "python"
    TYPESCRIPT = "typescript"
    JAVASCRIPT = "javascript"


class Kind(StrEnum):
    """`client`: one is constructed here; `call`: a model is called here."""

    CLIENT = "client"
    CALL = "call"


class Guarded(StrEnum):
    """`unknown` where the sources at hand cannot tell; a call counts as guarded only when it is `yes`."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Circumstance(StrEnum):
    """What makes a place urgent; their weights are configuration."""

    HANDLER = "handler"
    """of requests: a route, a view, a lambda"""
    JOB = "job"
    """of a queue: celery, rq, faststream"""
    LOOP = "loop"
    AGENT = "agent"
    """its name, class or module says so, or it loops on tool use"""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a place is urgent, in a few words that name what was seen: `in a loop (line 12)`."""

    circumstance: Circumstance
    note: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One step of how a reader came to its judgement."""

    path: str
    line: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One place. Lines and columns count from 1; `path` is as `SourceFile.path`.

    `what` is the class constructed, or the method called as far as it is known: `AsyncAnthropic`, `messages.create`.
    `why` is one sentence, without a full stop, for whoever asks why it counts as guarded or not. `evidence` begins at
    the place itself and ends at what decided. `priority` is filled in by `priorities.prioritized`.
    """

    path: str
    line: int
    column: int
    end_line: int
    language: Language
    kind: Kind
    what: str
    guarded: Guarded
    why: str
    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()
    within: str | None = None
    """The function or method around it, `RefundAgent.run`; None at the top of a module."""
    in_test: bool = False
    reasons: tuple[Reason, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A file, or a part of one, about which nothing can be said; `why` is one sentence without a full stop."""

    path: str
    line: int | None
    why: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `path` is what is shown, with `/`; `module_root` is the folder that it was found under."""

    path: str
    file: Path
    module_root: Path
    language: Language
    in_test: bool


class Reader(Protocol):
    """Reads sources of one language family; never imports or runs them."""

    languages: frozenset[Language]

    def read(self, files: Iterable[SourceFile], config: CoverageConfig) -> Iterator[Site | NotUnderstood]:
        """Every site of these files, and what could not be understood.

        `files` is gone through once, one by one as they are read: whoever gave them shows progress by that.
        """
