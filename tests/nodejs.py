"""Node and what it needs of npm, set up once a run from the committed lock, outside the checkout."""

import os
import shutil
import subprocess
import time
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir

from conftest import lacking

FOLDER = Path(__file__).parent / "node"
INSTALL_S = 180
RUN_S = 60


def installed() -> Path:
    """A folder with `node_modules` and the scripts; skips the test where Node or npm is missing."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            lacking(program)
    lock = (FOLDER / "package-lock.json").read_bytes()
    ready = Path(gettempdir()) / f"relight-node-{os.getuid()}-{sha256(lock).hexdigest()[:16]}"
    if not (ready / "node_modules").is_dir():
        making = ready.with_name(f"{ready.name}.{os.getpid()}")
        shutil.copytree(FOLDER, making)
        done = subprocess.run(
            ["npm", "ci", "--no-progress"], cwd=making, capture_output=True, text=True, timeout=INSTALL_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        try:
            making.rename(ready)
        except OSError:  # another run was quicker
            shutil.rmtree(making)
    for script in FOLDER.glob("*.mjs"):
        shutil.copy(script, ready)
    return ready


def node(*arguments: str) -> list[str]:
    """The lines that a script prints."""
    started = time.monotonic()
    done = subprocess.run(["node", *arguments], cwd=installed(), capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode == 0, f"after {time.monotonic() - started:.1f} s: {done.stdout}{done.stderr}"
    return done.stdout.splitlines()
