"""Ed25519 keys that seal segments: the private one in a file of the archiver's, the public ones in the archive."""

import hashlib
import os
from pathlib import Path

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


class SigningKey:
    """A private key; `id` is the first 16 hexadecimal digits of the SHA-256 of the public one."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = key_id(self.public)

    def sign(self, body: bytes) -> str:
        """Hexadecimal."""
        return self._private.sign(body).hex()


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def signed_by(public: bytes, body: bytes, signature: str) -> bool:
    """Whether the signature is this key's over these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(signature), body)
    except (InvalidSignature, ValueError):
        return False
    return True


def kept_key(path: Path) -> SigningKey:
    """The key in this file (PEM, PKCS 8), made where there is none. Raises `ArchiveError`."""
    try:
        if not path.exists():
            _make(path)
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ArchiveError(f"signing key {path}: {error}; give another by RELIGHT_ARCHIVE_KEY") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ArchiveError(f"signing key {path} is no Ed25519 key; give another by RELIGHT_ARCHIVE_KEY")
    return SigningKey(private)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return  # another process made it just now
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
