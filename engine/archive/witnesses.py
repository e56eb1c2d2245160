"""What witnesses say of an archive, in it and at their homes."""

import hashlib
import os
from pathlib import Path

import uuid_utils
from pydantic import ValidationError

from relight.engine.archive.keys import key_id, signed_by, sync_folder
from relight.engine.archive.models import Part, WitnessStatement, witness_name
from relight.engine.archive.signed import read_document, signed_part
from relight.engine.errors import ArchiveDamaged, ArchiveError


class Memory(Part):
    """What a witness keeps at home of an archive: its first key, and the last statement, whole."""

    place: str
    archive: str
    root_key: str
    statement: str


def read_statement(body: bytes, *, archive: str, name: str | None = None) -> WitnessStatement:
    """Signed by the key that it shows, about this archive. Raises `ArchiveDamaged`."""
    document, signature = signed_part(body)
    statement = read_document(document, WitnessStatement)
    public = bytes.fromhex(statement.public)
    if key_id(public) != statement.witness or not signed_by(public, document, signature):
        raise ArchiveDamaged("it was altered since its witness signed it")
    if statement.archive != archive:
        raise ArchiveDamaged(f"it is about archive {statement.archive}")
    if name is not None and name != witness_name(statement.segment, statement.witness):
        raise ArchiveDamaged("it is named for something else")
    return statement


def memory_path(home: Path, place: str) -> Path:
    """Of a witness with this home, for the archive at that place."""
    return home / "witnessed" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"


def read_memory(path: Path) -> Memory | None:
    """Nothing where there is none. Raises `ArchiveError` where it cannot be read: it is not forgotten in silence."""
    try:
        return Memory.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ArchiveError(f"what was witnessed, {path}, cannot be read: {error}; put it back from a backup") from error


def write_memory(path: Path, memory: Memory) -> None:
    """Whole or not at all, and durably."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}-{uuid_utils.uuid4().hex}")
    with partial.open("xb") as file:
        file.write(memory.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync_folder(path.parent)
