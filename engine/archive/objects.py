"""An archive in an object store: S3, or any that speaks its protocol."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

import uuid_utils
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from relight.engine.errors import ArchiveConflict, ArchiveDamaged, ArchiveError, ArchiveUnreachable, SettingsError

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CONNECT_S = 5
REQUEST_S = 30
RETRIES = 4
RETRY_S = 20
PROBE = ".probe-"

T = TypeVar("T")


class ObjectStore:
    """A bucket's objects below a prefix.

    obstore's blocking calls in threads of asyncio's: with its own coroutines, one in twenty processes was aborted when
    Python ended (github.com/PyO3/pyo3-async-runtimes/issues/40).
    """

    def __init__(self, store: S3Store, place: str, bucket: str) -> None:
        self._store = store
        self.place = place
        self._bucket = bucket
        self._conditional = False

    async def create(self, name: str, body: bytes) -> None:
        """What stands there with the very same bytes counts as written: a request may have been sent twice."""
        await self._prove_conditional()
        if not await self._created(name, body) and await self.read(name) != body:
            raise ArchiveConflict(f"archive {self.place}: {name} is there already: nothing was written")

    async def replace(self, name: str, body: bytes) -> None:
        await self._answered(lambda: self._store.put(name, body))

    async def read(self, name: str) -> bytes:
        try:
            return await self._answered(lambda: bytes(self._store.get(name).bytes()))
        except FileNotFoundError:
            raise ArchiveDamaged(f"archive {self.place}: {name} is not there") from None

    async def has(self, name: str) -> bool:
        try:
            await self._answered(lambda: self._store.head(name))
        except FileNotFoundError:
            await self.is_empty()  # an answer to HEAD does not say whether it is the bucket that is not there
            return False
        return True

    async def is_empty(self) -> bool:
        async for _ in self.each(""):
            return False
        return True

    async def names(self, prefix: str, *, after: str = "") -> list[str]:
        return sorted([name async for name in self._listed(prefix, after=after)])

    async def each(self, prefix: str) -> AsyncIterator[str]:
        async for name in self._listed(prefix):
            yield name

    async def unfinished(self) -> list[str]:
        listed = await self._answered(lambda: self._store.list_with_delimiter())
        return sorted(found["path"] for found in listed["objects"] if found["path"].startswith(PROBE))

    async def written_at(self, name: str) -> datetime | None:
        try:
            return (await self._answered(lambda: self._store.head(name)))["last_modified"]
        except FileNotFoundError:
            return None

    async def delete(self, name: str) -> None:
        try:
            await self._answered(lambda: self._store.delete(name))
        except FileNotFoundError:
            return

    async def _listed(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        listing = self._store.list(prefix.rpartition("/")[0] or None, offset=after or None, chunk_size=1_000)
        while chunk := await self._answered(lambda: next(listing, None)):
            for found in chunk:
                if found["path"].startswith(prefix) and not found["path"].startswith(PROBE):
                    yield found["path"]

    async def _created(self, name: str, body: bytes) -> bool:
        try:
            await self._answered(lambda: self._store.put(name, body, mode="create"))
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    async def _prove_conditional(self) -> None:
        """Once: a store that does not know If-None-Match may overwrite without a word."""
        if self._conditional:
            return
        probe = f"{PROBE}{uuid_utils.uuid4().hex}"
        try:
            proven = await self._created(probe, b"first") and not await self._created(probe, b"second")
        finally:
            await self.delete(probe)
        if not proven:
            raise self._unconditional()
        self._conditional = True

    def _unconditional(self) -> ArchiveError:
        return ArchiveError(
            f"archive {self.place}: this store overwrites although it is asked not to (If-None-Match), so two archivers"
            " could seal the same number; use one that honours it, or a folder"
        )

    async def _answered(self, ask: Callable[[], T]) -> T:
        """Raises `ArchiveUnreachable`, and what the callers above understand."""
        try:
            return await asyncio.to_thread(ask)
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                raise
            raise self._no_bucket() from error
        except NotSupportedError as error:
            raise self._unconditional() from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ArchiveUnreachable(
                f"archive {self.place}: the store refuses the credentials{_code(error)}; check AWS_ACCESS_KEY_ID,"
                " AWS_SECRET_ACCESS_KEY, and what they may do in this bucket"
            ) from error
        except BaseError as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from error
            if "NotImplemented" in str(error):
                raise self._unconditional() from error
            raise ArchiveUnreachable(
                f"archive {self.place}: the store does not answer as it should ({_first_line(error)}); check"
                " AWS_ENDPOINT_URL and AWS_REGION, or try later"
            ) from error

    def _no_bucket(self) -> ArchiveUnreachable:
        return ArchiveUnreachable(
            f"archive {self.place}: there is no bucket {self._bucket}; make it, or correct RELIGHT_ARCHIVE"
        )


def open_bucket(where: str) -> ObjectStore:
    """`s3://bucket/prefix`; endpoint, region and credentials by the usual AWS_* variables. Raises `SettingsError`.

    Plain HTTP only where the endpoint itself says http://.
    """
    parts = urlsplit(where)
    if not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc or ":" in parts.netloc:
        raise SettingsError(f"no archive can lie at {where!r}: name it as s3://bucket/prefix")
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")
    try:
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "timeout": timedelta(seconds=REQUEST_S),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
        )
    except (BaseError, ValueError) as error:
        raise SettingsError(f"archive {where}: {_first_line(error)}; correct RELIGHT_ARCHIVE or AWS_*") from error
    return ObjectStore(store, where, parts.netloc)


def _code(error: Exception) -> str:
    """S3's word for it, where the answer had one."""
    _, _, rest = str(error).partition("<Code>")
    code = rest.partition("</Code>")[0]
    return f" ({code})" if code else ""


def _first_line(error: Exception) -> str:
    return " ".join(str(error).partition("\n")[0].split())[:300]
