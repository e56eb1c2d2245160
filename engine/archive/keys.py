"""Ed25519 keys: the private one in a file that only its owner may read, the public ones in the archive."""

import hashlib
import os
from pathlib import Path

import uuid_utils
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from relight.engine.errors import ArchiveError

ID_DIGITS = 32
"""Of a key's id: 128 bits, for somebody may be told to trust it."""


class SigningKey:
    """A private key; `id` is the first 32 hexadecimal digits of the SHA-256 of the public one."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = key_id(self.public)

    def sign(self, body: bytes) -> str:
        """Hexadecimal."""
        return self._private.sign(body).hex()


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:ID_DIGITS]


def signed_by(public: bytes, body: bytes, signature: str) -> bool:
    """Whether the signature, in lower-case hexadecimal, is this key's over these bytes."""
    try:
        raw = bytes.fromhex(signature)
        if raw.hex() != signature:
            return False  # one signature has one form, or a changed byte could go unnoticed
        Ed25519PublicKey.from_public_bytes(public).verify(raw, body)
    except (InvalidSignature, ValueError):
        return False
    return True


def sealing_key_path(home: Path, given: Path | None) -> Path:
    """Where the key that seals archives lies; `given` is RELIGHT_ARCHIVE_KEY."""
    return given or home / "keys" / "archive.pem"


def witness_key_path(home: Path) -> Path:
    return home / "keys" / "witness.pem"


def kept_key(path: Path) -> SigningKey:
    """The key in this file (PEM, PKCS 8), made where there is none. Raises `ArchiveError`."""
    try:
        if not path.exists():
            make_key(path)
    except OSError as error:
        raise ArchiveError(f"signing key {path}: {error.strerror or error}; give another place for it") from error
    return read_key(path)


def read_key(path: Path) -> SigningKey:
    """The key in this file. Raises `ArchiveError`, also where others than its owner may read it."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise ArchiveError(
                f"signing key {path} can be read by others (mode {mode & 0o777:o}): rotate it if they may have, then"
                f" chmod 600 {path}"
            )
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArchiveError(f"signing key {path} cannot be read: {reason}; put it back from its backup") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ArchiveError(f"signing key {path} is no Ed25519 key; put it back from its backup")
    return SigningKey(private)


def make_key(path: Path) -> None:
    """A new key in this file, whole or not at all; where there is one already, that one stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    partial = path.with_name(f".{path.name}-{uuid_utils.uuid4().hex}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        return  # another process made it just now
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes durable what was named, renamed or removed in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
