"""A signed file: one line of JSON, and one line with the Ed25519 signature over exactly those bytes."""

import hashlib
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT
from relight.engine.errors import ArchiveDamaged

M = TypeVar("M", bound=BaseModel)


def sign_document(model: BaseModel, key: SigningKey) -> bytes:
    """The bytes of its file."""
    document = orjson.dumps(model.model_dump(mode="json"))
    return b"%b\n%b\n" % (document, key.sign(document).encode())


def signed_part(body: bytes) -> tuple[bytes, str]:
    """The document that is signed, and the signature. Raises `ArchiveDamaged`."""
    document, _, rest = body.partition(b"\n")
    signature = rest.removesuffix(b"\n")
    if not signature.isalnum() or rest != signature + b"\n":
        raise ArchiveDamaged("it is not one line of JSON and one of its signature")
    return document, signature.decode()


def read_document(document: bytes, model: type[M]) -> M:
    """Raises `ArchiveDamaged`, which says so where a newer release wrote it."""
    try:
        return model.model_validate_json(document)
    except ValidationError as error:
        if (newer := _format(document)) > FORMAT:
            raise ArchiveDamaged(
                f"it has format {newer}, this release knows {FORMAT}: upgrade, or it was altered"
            ) from None
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ArchiveDamaged(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}") from None


def document_sha256(document: bytes) -> str:
    """What the next manifest calls `previous_sha256`."""
    return hashlib.sha256(document).hexdigest()


def _format(document: bytes) -> int:
    try:
        found = orjson.loads(document)
    except ValueError:
        return 0
    said = found.get("format") if isinstance(found, dict) else None
    return said if isinstance(said, int) else 0
