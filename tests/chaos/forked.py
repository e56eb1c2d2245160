"""Processes forked from one that has imported everything: real ones to SIGKILL, and back within milliseconds."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
SERVING = ("relight.engine.http.api", "relight.engine.http.server", "relight.engine.messaging.application")
"""What a process that serves imports when it does."""
CONTEXT.set_forkserver_preload(["publishers", "projectors", "steady", *SERVING])
PR_SET_PDEATHSIG = 1


def forked(target: Callable[..., None], *arguments: Any, log: Path) -> BaseProcess:
    """Runs `target` in a process of its own, which says what it says into `log`."""
    process = CONTEXT.Process(target=_run, args=(target, str(log), *arguments), name=target.__name__, daemon=True)
    process.start()
    return process


def _run(target: Callable[..., None], log: str, *arguments: Any) -> None:
    if sys.platform == "linux":  # the server of forks ends with the run, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    gc.freeze()
    target(*arguments)
