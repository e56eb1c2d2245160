"""Reads an archive's root, and what can be believed of a damaged one."""

from relight.engine.archive.keyring import Fault, read_statements
from relight.engine.archive.keys import signed_by
from relight.engine.archive.models import FORMAT, KEYS, ROOT, Root, key_name
from relight.engine.archive.signed import read_document, signed_part
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged


async def read_root(store: ArchiveStore) -> Root:
    """Signed by the key that it names. Raises `ArchiveDamaged`."""
    if not await store.has(ROOT):
        raise ArchiveDamaged(
            f"archive {store.place}: {ROOT} is not there: is it another folder, or nothing sealed yet?"
        )
    try:
        document, signature = signed_part(await store.read(ROOT))
        root = read_document(document, Root)
    except ArchiveDamaged as error:
        raise ArchiveDamaged(f"archive {store.place}: {ROOT}: {error}") from None
    stated, faults = await read_statements(store)
    # Where the statement of its key is damaged, that is what is said: without a key nothing can be said of the root.
    if root.key not in stated and not any(fault.name == key_name(root.key) for fault in faults):
        raise ArchiveDamaged(f"archive {store.place}: {ROOT} names key {root.key}, which is not in {KEYS}")
    if root.key in stated and not signed_by(bytes.fromhex(stated[root.key][0].public), document, signature):
        raise ArchiveDamaged(f"archive {store.place}: {ROOT} was altered since it was signed")
    return root


async def believed_root(store: ArchiveStore) -> tuple[Root, list[Fault]]:
    """The root, or where it is damaged what its first key's statement tells of it. Raises `ArchiveDamaged`."""
    try:
        return await read_root(store), []
    except ArchiveDamaged as error:
        first = await _self_signed(store)
        if first is None:
            raise
        return first, [Fault(ROOT, str(error))]


async def _self_signed(store: ArchiveStore) -> Root | None:
    stated, _ = await read_statements(store)
    found = [
        statement
        for statement, document, signature in stated.values()
        if statement.endorsed_by == statement.key and signed_by(bytes.fromhex(statement.public), document, signature)
    ]
    if len(found) != 1:
        return None
    (first,) = found
    return Root(format=FORMAT, archive=first.archive, stream="", created_at=first.stated_at, key=first.key)
