"""Buckets of contents: the one that all regions share, and one of each region's own, on its own servers alone."""

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, Placement, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from relight.engine.errors import Unreachable
from relight.engine.log.topology import CONTENT_BUCKET, ensure_content_bucket

REGIONAL = f"{CONTENT_BUCKET}_"
REGION = "relight-region"
"""In a regional bucket's metadata: whose it is."""
NO_SUITABLE_PEERS, NAME_IN_USE = 10005, 10058
PAGE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """An object store; `region` is None for the shared one."""

    name: str
    region: str | None = None

    @property
    def stream(self) -> str:
        return f"OBJ_{self.name}"

    @property
    def chunks(self) -> str:
        """Subjects of chunks begin so."""
        return f"$O.{self.name}.C."

    @property
    def metas(self) -> str:
        """Subjects of what describes objects begin so."""
        return f"$O.{self.name}.M."


SHARED = Bucket(name=CONTENT_BUCKET)


def regional_bucket(region: str) -> Bucket:
    """The region's own: a copy that can be read, and is proven, without any server of another region."""
    return Bucket(name=REGIONAL + "".join(map(_in_name, region)), region=region)


async def declare_bucket(js: JetStreamContext, bucket: Bucket, *, tagged: bool = True) -> None:
    """Makes it where it is not. A regional one stands on one server that has the tag `region:<region>`; on any, where
    they are not `tagged`. Raises `Unreachable` where no server has that tag now."""
    if bucket.region is None:
        await ensure_content_bucket(js)
        return
    try:
        await js.stream_info(bucket.stream)
        return
    except NotFoundError:
        pass
    try:
        await js.add_stream(config=_config(bucket, bucket.region, tagged=tagged))
    except APIError as error:
        if error.err_code == NO_SUITABLE_PEERS:
            raise Unreachable(
                f"bucket {bucket.name} cannot be made: no server with the tag region:{bucket.region} is there: start"
                " one, or tag it so in its server_tags"
            ) from error
        if error.err_code != NAME_IN_USE:
            raise


async def regional_buckets(js: JetStreamContext) -> list[Bucket]:
    """All there are, of whichever regions; those, too, that cannot be reached now."""
    found: list[Bucket] = []
    offset = 0
    while True:
        page = await js.streams_info(offset)
        for info in page:
            region = (info.config.metadata or {}).get(REGION)
            if region is not None and info.config.name == regional_bucket(region).stream:
                found.append(regional_bucket(region))
        if len(page) < PAGE:
            return sorted(found, key=lambda bucket: bucket.name)
        offset += len(page)


def _config(bucket: Bucket, region: str, *, tagged: bool) -> StreamConfig:
    """As an object store's own clients make it."""
    return StreamConfig(
        name=bucket.stream,
        description=f"what region {region} holds of contents by itself, named <tenant>/<sha256>",
        subjects=[f"{bucket.chunks}>", f"{bucket.metas}>"],
        storage=StorageType.FILE,
        num_replicas=1,
        placement=Placement(tags=[f"region:{region}"]) if tagged else None,
        discard=DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        allow_direct=True,
        allow_atomic=True,
        metadata={REGION: region},
    )


def _in_name(letter: str) -> str:
    """A bucket's name has few letters, and no two regions the same one."""
    return letter if letter.isascii() and (letter.isalnum() or letter == "-") else f"_{ord(letter):x}_"
