"""Bearer tokens at rest: made, listed, revoked, and looked up by their id."""

import hashlib
import hmac
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import asyncpg
from pydantic import TypeAdapter, ValidationError

from relight.engine.errors import TokenRefused, Unreachable
from relight.engine.tables.connecting import GONE, Connection
from relight.engine.tables.pools import Pool
from relight.events.envelope import PLATFORM
from relight.events.values import Name

GATE: Final = "relight_gate"
SHAPE = re.compile(r"rlt_([0-9a-f]{16})_[0-9a-f]{64}")
_names = TypeAdapter(Name)


class TokenRole(StrEnum):
    """What a token is for."""

    PUBLISHER = "publisher"
    """sends events"""
    READER = "reader"
    """asks queries, follows changes"""
    OPERATOR = "operator"
    """both; of the platform (tenant `-`), asks for any tenant"""


class Tier(StrEnum):
    """How often a token may ask."""

    LOW = "low"
    STANDARD = "standard"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is known of a token; its secret is not."""

    id: str
    name: str
    tenant: str
    role: TokenRole
    tier: Tier
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def is_platform_operator(self) -> bool:
        return self.tenant == PLATFORM and self.role is TokenRole.OPERATOR

    def check(self, now: datetime) -> None:
        """Raises `TokenRefused` when it was revoked or has expired."""
        if self.revoked_at is not None:
            raise TokenRefused(f"token {self.id} was revoked at {self.revoked_at:%Y-%m-%d %H:%M:%S}: use another one")
        if self.expires_at is not None and self.expires_at <= now:
            raise TokenRefused(
                f"token {self.id} expired at {self.expires_at:%Y-%m-%d %H:%M:%S}: make another one with"
                " `relight token create`"
            )


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token and the hash that proves it."""

    token: Token
    secret_sha256: str

    def proves(self, text: str) -> bool:
        """Whether `text` is this token; takes as long whatever is wrong."""
        return hmac.compare_digest(sha256_of(text), self.secret_sha256)


def token_id(text: str) -> str:
    """The id in a token. Raises `TokenRefused` when it is none of ours."""
    found = SHAPE.fullmatch(text)
    if found is None:
        raise TokenRefused("the bearer token is none of ours: it looks like rlt_<id>_<secret>")
    return found[1]


def sha256_of(text: str) -> str:
    # One fast hash is enough: nobody finds 256 random bits by trying. Slow hashes protect what people can remember.
    return hashlib.sha256(text.encode()).hexdigest()


async def create(
    pool: Pool, *, tenant: str, role: TokenRole, tier: Tier, name: str, now: datetime, expires_at: datetime | None
) -> tuple[Token, str]:
    """A new token and its text, which is shown once and kept nowhere. Raises `TokenRefused`, `Unreachable`."""
    try:
        _names.validate_python(tenant)
    except ValidationError as error:
        raise TokenRefused(f"tenant: {error.errors(include_url=False)[0]['msg']}") from None
    if not name.isprintable() or len(name) > 200:
        raise TokenRefused("name: at most 200 printable characters")
    if expires_at is not None and expires_at <= now:
        raise TokenRefused("expiry: it would have expired already")
    id = secrets.token_hex(8)
    text = f"rlt_{id}_{secrets.token_hex(32)}"
    token = Token(
        id=id,
        name=name,
        tenant=tenant,
        role=role,
        tier=tier,
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
    )
    async with _gate(pool, readonly=False) as connection:
        await connection.execute(
            "INSERT INTO api_tokens (id, secret_sha256, role, tenant, tier, name, created_at, expires_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            id,
            sha256_of(text),
            role.value,
            tenant,
            tier.value,
            name,
            now,
            expires_at,
        )
    return token, text


async def list_tokens(pool: Pool) -> list[Token]:
    """Every token that was ever made, the latest first. Raises `Unreachable`."""
    async with _gate(pool) as connection:
        rows = await connection.fetch(f"{_SELECT} ORDER BY created_at DESC, id")
    return [_stored(row).token for row in rows]


async def revoke(pool: Pool, id: str, *, now: datetime) -> Token:
    """Refused from now on; again is a no-op. Raises `TokenRefused` when there is none of this id, `Unreachable`."""
    async with _gate(pool, readonly=False) as connection:
        await connection.execute("UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", id, now)
        row = await connection.fetchrow(f"{_SELECT} WHERE id = $1", id)
    if row is None:
        raise TokenRefused(f"there is no token {id!r}: see `relight token list`")
    return _stored(row).token


async def load(pool: Pool, id: str) -> StoredToken | None:
    """The token of this id, revoked and expired ones too. Raises `Unreachable` when it could not be asked for."""
    async with _gate(pool) as connection:
        row = await connection.fetchrow(f"{_SELECT} WHERE id = $1", id)
    return None if row is None else _stored(row)


@asynccontextmanager
async def _gate(pool: Pool, *, readonly: bool = True) -> AsyncIterator[Connection]:
    try:
        async with pool.transaction(GATE, readonly=readonly) as connection:
            yield connection
    except (asyncpg.UndefinedTableError, asyncpg.InvalidParameterValueError) as error:
        raise Unreachable(f"there are no tokens yet ({error}): run `relight migrate`") from error
    except (asyncpg.PostgresError, *GONE) as error:
        raise Unreachable(f"tokens cannot be looked up ({error.__context__ or error}): ask again") from error


_SELECT = "SELECT id, secret_sha256, role, tenant, tier, name, created_at, expires_at, revoked_at FROM api_tokens"


def _stored(row: asyncpg.Record) -> StoredToken:
    token = Token(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        role=TokenRole(row["role"]),
        tier=Tier(row["tier"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
    return StoredToken(token, row["secret_sha256"])
