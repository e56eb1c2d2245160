"""This machine: settings, home, disk, a spool, and the address that the HTTP API listens on."""

import asyncio
import hashlib
import ipaddress
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relight.engine.doctor.models import Finding, fail, inapplicable, ok, warn
from relight.engine.doctor.patient import Patient
from relight.engine.health.limits import DISK_LOW_BYTES
from relight.engine.health.machine import disk_of
from relight.engine.settings import PREFIX
from relight.engine.spool.slots import take_slot
from relight.engine.spool.spool import Spool, Spooled

SLOW_FSYNC_MS = 100.0


async def configured(patient: Patient) -> Finding:
    if patient.faults:
        return fail("; ".join(patient.faults), "correct or unset them: nothing else is examined before")
    given = ", ".join(sorted(PREFIX + name.upper() for name in patient.settings.model_fields_set))
    return ok(f"{len(type(patient.settings).model_fields)} settings are valid; given: {given or 'none'}")


async def home(patient: Patient) -> Finding:
    path = patient.settings.home
    advice = "make it a folder of this user's, or set RELIGHT_HOME to another one"
    try:
        with _temporary(path, patient.tag) as folder:
            file = folder / "probe"
            file.write_bytes(patient.tag.encode())
            _fsync(file)
            if file.read_bytes() != patient.tag.encode():
                return fail(f"{path} gives back other bytes than were written", "check that disk")
    except OSError as error:
        return fail(f"{path} cannot be written: {error.strerror or error}", advice)
    if not path.exists():
        return ok(f"{path} does not exist yet, and can be made")
    status = path.stat()
    if status.st_uid != os.geteuid():
        return warn(f"{path} belongs to user {status.st_uid}, and this is {os.geteuid()}", advice)
    if status.st_mode & 0o022:
        return warn(f"{path} can be written by others (mode {status.st_mode & 0o777:o})", f"chmod go-w {path}")
    return ok(f"{path} can be written, and is this user's alone")


async def disk(patient: Patient) -> Finding:
    free = disk_of(patient.settings.home).free_bytes
    spool_max = patient.settings.spool_max_bytes if patient.settings.spool else 0
    found = f"{free >> 20} MiB free, of which one process's spool may take {spool_max >> 20}"
    if free < min(spool_max, DISK_LOW_BYTES):
        return fail(found, "make room, or lower RELIGHT_SPOOL_MAX_BYTES: recording stops when the disk is full")
    if free < spool_max + DISK_LOW_BYTES:
        return warn(found, "make room, or lower RELIGHT_SPOOL_MAX_BYTES")
    return ok(found)


async def spool(patient: Patient) -> Finding:
    if not patient.settings.spool:
        return inapplicable("RELIGHT_SPOOL is off: events are promised once they are replicated, not before")
    return await asyncio.to_thread(_spooled, patient)


def _spooled(patient: Patient) -> Finding:
    body = os.urandom(1_024)
    sha256 = hashlib.sha256(body).hexdigest()
    with _temporary(patient.settings.home, patient.tag) as folder:
        slot = take_slot(folder)
        try:
            began = time.monotonic()
            slot.spool.commit(
                [Spooled(1, patient.tag, "relight.doctor", body, sha256, patient.clock.now_us() // 1_000)]
            )
            took_ms = (time.monotonic() - began) * 1_000
        finally:
            slot.close()
        again = Spool(folder / "slot-0.db", read_only=True)
        try:
            held = again.pending(0, 2, 1 << 20)
        finally:
            again.close()
    if [(event.pseq, event.body) for event in held] != [(1, body)]:
        return fail("a spool does not give back what was written", "check the disk that RELIGHT_HOME is on")
    found = f"written, fsynced in {took_ms:.1f} ms, read back and removed"
    return warn(found, "a slow disk: receipts wait that long") if took_ms > SLOW_FSYNC_MS else ok(found)


async def http(patient: Patient) -> Finding:
    host, port = patient.settings.http_host, patient.settings.http_port
    where = f"{host} port {port or 'any'}"
    if (health := await patient.openers.service(None)) is not None and port:
        return ok(f"{where}: a service answers there or for this home ({health.service_id})")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        advice = "choose another RELIGHT_HTTP_HOST or RELIGHT_HTTP_PORT"
        return fail(f"{where} cannot be listened on: {error.strerror or error}", advice)
    if not _loopback(host):
        return warn(
            f"{where} is reached from other machines, without TLS",
            "put a proxy with TLS before it and RELIGHT_HTTP_HOST back to 127.0.0.1, or keep that network closed",
        )
    return ok(f"{where} is free")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _temporary(home: Path, tag: str) -> Iterator[Path]:
    """A folder in the home, or where the home would be made: on the same disk in any case."""
    there = home.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    folder = Path(tempfile.mkdtemp(prefix=f".{tag}-", dir=there))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _fsync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
