"""Walks an archive's manifests from the first to the last, whatever is wrong with some of them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from relight.engine.archive.keyring import Keyring
from relight.engine.archive.keys import signed_by
from relight.engine.archive.models import Manifest, manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.signed import document_sha256, read_document
from relight.engine.errors import ArchiveDamaged
from relight.events.envelope import GENESIS

AHEAD = 8
"""Files that are read before it is their turn: an object store answers late, but many at a time."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A segment, or a run of numbers up to `last` that none has.

    `manifest`: as far as it can be read. `sha256`: of its document, whether it can be read or not. `vouched`: it is
    signed by the key that speaks for it, or fixed by a later one that is. `faults`: what is wrong with it.
    """

    segment: int
    last: int
    manifest: Manifest | None = None
    sha256: str | None = None
    vouched: bool = False
    faults: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        return self.sha256 is not None


async def walk_manifests(reader: ArchiveReader) -> AsyncIterator[Step]:
    """Every segment in order; one file after the other is read, and the rest goes on without what is damaged."""
    judge = _Judge(reader.keyring, reader.root.archive)
    waiting: Step | None = None
    segments = await reader.segments()
    runs = list(_runs(segments))

    async def read(run: tuple[int, int, bool]) -> tuple[int, int, bytes | None]:
        first, last, there = run
        return first, last, await _body(reader, first) if there else None

    async for first, last, body in ahead(runs, read):
        step = judge.judged(first, last, body)
        if waiting is not None:
            yield _vouched(waiting, step)
        waiting = step
    if waiting is not None:
        yield waiting


async def ahead(
    items: Iterable[T], work: Callable[[T], Coroutine[Any, Any, U]], *, tasks: int = AHEAD
) -> AsyncIterator[U]:
    """What `work` gives of each, in order, with some of the next under way."""
    begun: deque[asyncio.Task[U]] = deque()
    try:
        for item in items:
            begun.append(asyncio.ensure_future(work(item)))
            if len(begun) == tasks:
                yield await begun.popleft()
        while begun:
            yield await begun.popleft()
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


def _runs(segments: list[int]) -> Iterator[tuple[int, int, bool]]:
    """First and last number, and whether it is there; those that are not as one run."""
    for before, segment in pairwise([0, *segments]):
        if segment > before + 1:
            yield before + 1, segment - 1, False
        yield segment, segment, True


async def _body(reader: ArchiveReader, segment: int) -> bytes | None:
    try:
        return await reader.store.read(manifest_name(segment))
    except ArchiveDamaged:
        return None  # it was there when they were listed


def _vouched(step: Step, following: Step) -> Step:
    """A manifest whose signature is gone is still the one that a good later one calls its predecessor."""
    if following.faults or following.manifest is None or step.manifest is None:
        return step
    if not step.vouched and following.manifest.previous_sha256 == step.sha256:
        return replace(step, vouched=True)
    return step


class _Judge:
    def __init__(self, keyring: Keyring, archive: str) -> None:
        self._keyring = keyring
        self._archive = archive
        self._key = keyring.root_key
        self._before: Step | None = None
        self._stated = dict.fromkeys((statement.after_segment for statement in keyring.keys), "")
        """SHA-256 of the segments after which keys were stated, once they were read."""

    def judged(self, segment: int, last: int, body: bytes | None) -> Step:
        if body is None:
            names = manifest_name(segment) if segment == last else f"{manifest_name(segment)} to {last}"
            step = Step(segment=segment, last=last, faults=(f"{names} is not there",))
        else:
            step = self._read(segment, body)
        self._before = step
        return step

    def _read(self, segment: int, body: bytes) -> Step:
        document, _, rest = body.partition(b"\n")
        sha256 = document_sha256(document)
        name = manifest_name(segment)
        try:
            manifest = read_document(document, Manifest)
        except ArchiveDamaged as error:
            return Step(segment=segment, last=segment, sha256=sha256, faults=(f"{name}: {error}",))
        faults = [*self._signature(manifest, document, rest), *self._place(manifest, segment)]
        vouched = not faults
        if not faults:
            faults += [*self._succession(manifest), *self._sequence(manifest)]
            self._key = manifest.key
        if segment in self._stated:
            self._stated[segment] = sha256
        return Step(
            segment=segment,
            last=segment,
            manifest=manifest,
            sha256=sha256,
            vouched=vouched,
            faults=tuple(f"{name} {fault}" for fault in faults),
        )

    def _signature(self, manifest: Manifest, document: bytes, rest: bytes) -> Iterator[str]:
        public = self._keyring.public(manifest.key)
        if public is None:
            yield f"is signed by {manifest.key}, which is no key of this archive"
        elif not rest.endswith(b"\n") or not signed_by(public, document, rest[:-1].decode(errors="replace")):
            yield "was altered since it was signed"
        elif not self._keyring.leads(self._key, manifest.key, segment=manifest.segment):
            yield f"is signed by key {manifest.key}, which does not speak for it after key {self._key}"

    def _place(self, manifest: Manifest, segment: int) -> Iterator[str]:
        if (manifest.archive, manifest.segment) != (self._archive, segment):
            yield f"is segment {manifest.segment} of archive {manifest.archive}: it belongs elsewhere"

    def _succession(self, manifest: Manifest) -> Iterator[str]:
        """The key before said which segment it had sealed last when it endorsed this one."""
        key = manifest.key
        while key != self._key:
            statement = self._keyring.believed[key]
            if (found := self._stated[statement.after_segment]) and found != statement.after_sha256:
                yield f"is signed by key {key}, which was stated after another segment {statement.after_segment}"
            key = statement.endorsed_by

    def _sequence(self, manifest: Manifest) -> Iterator[str]:
        before = self._before
        if before is None:
            if manifest.segment == 1 and manifest.previous_sha256 != GENESIS:
                yield "is the first and follows another all the same"
            return
        if before.manifest is None or not before.vouched:
            return  # that it differs from what was signed is said of the one before
        if manifest.previous_sha256 != before.sha256:
            yield f"does not follow segment {before.segment}"
        earlier = before.manifest
        if manifest.incarnation < earlier.incarnation:
            yield f"goes back to incarnation {manifest.incarnation}"
        if manifest.incarnation == earlier.incarnation and manifest.first_seq <= earlier.last_seq:
            yield f"begins at sequence {manifest.first_seq}, which segment {before.segment} holds"
