"""Small disks that fill up: a tmpfs of a few MiB where root may mount one."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoMount(Exception):
    """Why no disk can be mounted here."""


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """At `path` until the `with` ends. Raises `NoMount`."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoMount("mounting a small disk takes root on Linux")
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(path))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(path))


def resize(path: Path, megabytes: int) -> None:
    """There is room again."""
    _run("mount", "-o", f"remount,size={megabytes}m", str(path))


def why_not() -> str | None:
    """Why no disk can be mounted here; None where one can."""
    with tempfile.TemporaryDirectory(prefix="relight-mount-") as folder:
        try:
            with small_disk(Path(folder) / "disk", 1):
                return None
        except NoMount as error:
            return str(error)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise NoMount(f"{' '.join(command[:1])} refuses: {said.strip()}") from error
