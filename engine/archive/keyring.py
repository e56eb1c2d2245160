"""Which keys an archive's segments may be signed by: the first one, and those endorsed by the one before."""

from collections.abc import Mapping
from dataclasses import dataclass

from relight.engine.archive.keys import key_id, signed_by
from relight.engine.archive.models import KEYS, KeyStatement, Root, key_name
from relight.engine.archive.signed import read_document, signed_part
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file of the archive."""

    name: str
    detail: str


class Keyring:
    """The keys of an archive that can be believed, by id.

    A key speaks from the first segment that it seals, and then the keys before it no more: one that was stolen after
    its rotation seals no second history, for the new key's segment fixes all that is below it.
    """

    def __init__(self, root_key: str, believed: Mapping[str, KeyStatement]) -> None:
        self.root_key = root_key
        self.believed = believed

    def public(self, key: str) -> bytes | None:
        statement = self.believed.get(key)
        return bytes.fromhex(statement.public) if statement else None

    def leads(self, before: str, key: str, *, segment: int) -> bool:
        """Whether `key` may seal this segment after `before` sealed the one below it."""
        while key != before:
            statement = self.believed.get(key)
            if statement is None or key == self.root_key or statement.after_segment >= segment:
                return False
            key = statement.endorsed_by
        return True

    @property
    def keys(self) -> list[KeyStatement]:
        """In the order in which they were stated."""
        return sorted(self.believed.values(), key=lambda statement: (statement.after_segment, statement.stated_at))


async def read_statements(store: ArchiveStore) -> tuple[dict[str, tuple[KeyStatement, bytes, str]], list[Fault]]:
    """Every key's statement with its signed bytes and signature, unchecked but for its form."""
    stated: dict[str, tuple[KeyStatement, bytes, str]] = {}
    faults = []
    for name in await store.names(KEYS):
        try:
            document, signature = signed_part(await store.read(name))
            statement = read_document(document, KeyStatement)
        except ArchiveDamaged as error:
            faults.append(Fault(name, str(error)))
            continue
        if key_name(statement.key) != name or key_id(bytes.fromhex(statement.public)) != statement.key:
            faults.append(Fault(name, "it states another key than the one it is named for"))
        else:
            stated[statement.key] = (statement, document, signature)
    return stated, faults


async def read_keyring(store: ArchiveStore, root: Root) -> tuple[Keyring, list[Fault]]:
    """The root's key, and what follows from it; and which statements are not right."""
    stated, faults = await read_statements(store)
    believed: dict[str, KeyStatement] = {}
    waiting = [root.key]
    while waiting:
        key = waiting.pop()
        if key not in stated:
            if not any(fault.name == key_name(key) for fault in faults):
                faults.append(Fault(key_name(key), "it is not there"))
            continue
        statement, document, signature = stated[key]
        endorser = statement if key == root.key else believed[statement.endorsed_by]
        right = statement.archive == root.archive and statement.endorsed_by == endorser.key
        if not right or not signed_by(bytes.fromhex(endorser.public), document, signature):
            faults.append(Fault(key_name(key), "it is not signed by the key that endorses it"))
            continue
        believed[key] = statement
        waiting += [other.key for other, _, _ in stated.values() if other.endorsed_by == key and other.key != key]
    known = {key_name(key) for key in believed} | {fault.name for fault in faults}
    faults += [
        Fault(key_name(key), "no key of this archive endorses it") for key in stated if key_name(key) not in known
    ]
    return Keyring(root.key, believed), faults
