"""Reads a snapshot back: from the bucket that all regions share, else from the regions' own copies."""

import logging
from collections.abc import AsyncIterator

from nats.js import JetStreamContext

from relight.engine.errors import ContentErased, ContentError, SnapshotDamaged, Unreachable
from relight.engine.log.buckets import SHARED, Bucket, regional_bucket, regional_buckets
from relight.engine.log.content import ContentReader
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.engine.recorder.recorder import Recorder
from relight.events.values import Content

log = logging.getLogger(__name__)


async def read_snapshot(recorder: Recorder, tenant: str, content: Content) -> bytes:
    """The bytes whose SHA-256 is the snapshot's, and no others; in the recorder's loop.

    The shared bucket answers while the cluster has a quorum; the region's own as long as its server lives. Raises
    `ContentErased`; `SnapshotDamaged` where no copy matches; `Unreachable` where one that could not be asked may.
    """
    js = (await recorder.client()).jetstream(timeout=REQUEST_TIMEOUT_S)
    wrong: list[str] = []
    away: list[str] = []
    async for bucket in _buckets(js, recorder.options.region, away):
        try:
            body = await ContentReader(js, bucket, direct=bucket.region is not None).read(tenant, content.sha256)
        except ContentErased:
            raise
        except ContentError as error:
            wrong.append(f"{bucket.name}: {error}")
        except TRANSIENT as error:
            away.append(f"{bucket.name}: {error!r}")
        else:
            for failure in (*wrong, *away):
                log.warning("snapshot %s: %s", content.sha256, failure, extra={"action": "snapshot_copy_used"})
            return body
    if away:
        raise Unreachable(
            f"snapshot {content.sha256} cannot be read now ({'; '.join((*away, *wrong))}): try again later"
        )
    raise SnapshotDamaged(
        f"snapshot {content.sha256} of {tenant} is nowhere as it was written: {'; '.join(wrong)}", sha256=content.sha256
    )


async def _buckets(js: JetStreamContext, region: str, away: list[str]) -> AsyncIterator[Bucket]:
    yield SHARED
    own = regional_bucket(region)
    if away:  # without a quorum nobody says which buckets there are
        yield own
    try:
        others = await regional_buckets(js)
    except TRANSIENT:
        if not away:
            away.append("the regions' own buckets: which there are is not known now")
            yield own
        return
    for bucket in sorted(others, key=lambda bucket: bucket != own):
        if bucket != own or not away:
            yield bucket
