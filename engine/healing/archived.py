"""Takes what no spool has from the archive: sealed bytes, verified by hash and signature, published again."""

from collections import defaultdict
from collections.abc import AsyncIterator

from nats.aio.client import Client

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.salvage import salvage_segment
from relight.engine.archive.store import ArchiveStore
from relight.engine.archive.walking import walk_manifests
from relight.engine.log.links import Link, document_of, link_of
from relight.engine.log.numbers import Missing, Numbers
from relight.engine.log.putting_back import put_back, put_back_rulings
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.engine.spool.spool import ControlCopy, Spooled
from relight.events.subjects import CONTROLS


async def put_back_archived(client: Client, store: ArchiveStore, missing: Missing, *, patient: bool) -> Missing:
    """What of it the archive has. Raises `ArchiveError`, and what publishing raises; damaged parts are passed over."""
    js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    rulings: dict[str, dict[bytes, ControlCopy]] = defaultdict(dict)
    sealed: dict[str, Numbers] = defaultdict(Numbers)
    async for links in _sealed(store, missing):
        events: dict[str, dict[bytes, Spooled]] = defaultdict(dict)
        for link in links:
            sealed[link.publisher].add(link.pseq)
            subject, body = link.message.subject, link.message.body
            id = str(document_of(link.message).get("id"))
            if subject.startswith(f"{CONTROLS}."):
                rulings[subject].setdefault(body, ControlCopy(subject, link.pseq, id, body, 0, 0))
            else:
                events[link.publisher].setdefault(body, Spooled(link.pseq, id, subject, body, link.sha256, 0))
        for found in events.values():
            async for _ in put_back(client, js, sorted(found.values()), now_ms=0):
                pass
    for subject, copies in rulings.items():
        newest = missing[subject].highest
        await put_back_rulings(client, js, sorted(copies.values()), newest=newest, patient=patient)
    return sealed


async def _sealed(store: ArchiveStore, missing: Missing) -> AsyncIterator[list[Link]]:
    """A segment's at a time."""
    reader = await ArchiveReader.open_damaged(store)
    async for step in walk_manifests(reader):
        if step.manifest is None or not step.vouched:
            continue
        wanted = {
            span.publisher: numbers
            for span in step.manifest.spans
            if (numbers := missing.get(span.publisher, Numbers()).within(Numbers([(span.first_pseq, span.last_pseq)])))
        }
        if wanted:
            links = [link_of(message) for message in (await salvage_segment(reader, step)).messages]
            yield [link for link in links if link is not None and link.pseq in wanted.get(link.publisher, ())]
