"""Where an event belongs, by its own bytes: the columns beside them in a spool have no hash."""

from functools import lru_cache

import orjson

from relight.events.subjects import observation_subject

_subject = lru_cache(maxsize=4_096)(observation_subject)


def address_of(body: bytes) -> tuple[str, str] | None:
    """Its id and its subject; None where the bytes do not say."""
    try:
        match orjson.loads(body):
            case {"id": str(id_), "region": str(region), "type": str(type_), "tenant": str(tenant)}:
                return id_, _subject(region, type_, tenant)
    except ValueError:
        pass
    return None
