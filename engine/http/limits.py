"""How much one tenant may ask of this process: requests a second by tier, and requests at the same time."""

import asyncio
import ipaddress
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.strategies import SlidingWindowCounterRateLimiter

from relight.engine.errors import PoolExhausted, RequestRefused
from relight.engine.http.windows import Windows
from relight.engine.tables.tokens import Tier

REFUSED_TOKENS_PER_MINUTE = 60
"""Of one client address; tokens known to be good are let in all the same."""


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """Requests a second of a tenant by tier; requests and followed streams of one tenant at the same time."""

    rate_low: int = 20
    rate_standard: int = 200
    rate_high: int = 5_000
    tenant_requests: int = 1_000
    tenant_streams: int = 100
    turn_timeout_s: float = 5


class Rates:
    """Counts what tenants ask, and refused tokens by client address."""

    def __init__(self, limits: HttpLimits) -> None:
        per_second = {Tier.LOW: limits.rate_low, Tier.STANDARD: limits.rate_standard, Tier.HIGH: limits.rate_high}
        self._items: Mapping[Tier, RateLimitItem] = {
            tier: RateLimitItemPerSecond(amount) for tier, amount in per_second.items()
        }
        self._failures = RateLimitItemPerMinute(REFUSED_TOKENS_PER_MINUTE)
        self._windows = Windows()
        self._limiter = SlidingWindowCounterRateLimiter(self._windows)

    def count(self, tenant: str, tier: Tier, cost: int = 1) -> list[tuple[bytes, bytes]]:
        """The headers of the IETF's draft on rate limits. Raises `RequestRefused` when it is one too many."""
        item = self._items[tier]
        taken = self._limiter.hit(item, tenant, cost=min(cost, item.amount))
        remaining, reset_s = self._left(item, tenant)
        headers = [
            (b"ratelimit-policy", b'"%s";q=%d;w=%d' % (tier.value.encode(), item.amount, item.get_expiry())),
            (b"ratelimit", b'"%s";r=%d;t=%d' % (tier.value.encode(), remaining if taken else 0, reset_s)),
        ]
        if not taken:
            raise RequestRefused(
                "rate-limited",
                f"this tenant's tokens of tier {tier} may ask {item.amount} times a second: wait {reset_s} s",
                headers={"Retry-After": str(reset_s)} | {name.decode(): value.decode() for name, value in headers},
            )
        return headers

    def count_failure(self, address: str) -> None:
        """A token from there was refused."""
        self._limiter.hit(self._failures, "failed", network(address))

    def check_failures(self, address: str) -> None:
        """Raises `RequestRefused` when too many tokens from there were refused."""
        if not self._limiter.test(self._failures, "failed", network(address)):
            raise RequestRefused(
                "rate-limited",
                f"more than {REFUSED_TOKENS_PER_MINUTE} tokens a minute from this address were refused: wait",
                headers={"Retry-After": str(self._left(self._failures, "failed", network(address))[1])},
            )

    def _left(self, item: RateLimitItem, *whose: str) -> tuple[int, int]:
        """Requests that remain, and seconds until there are more."""
        expiry = item.get_expiry()
        previous, previous_ttl_s, current, _ = self._windows.get_sliding_window(item.key_for(*whose), expiry)
        used = previous * previous_ttl_s / expiry + current
        return max(0, int(item.amount - used)), max(1, ceil(previous_ttl_s))


@lru_cache(maxsize=4_096)
def network(address: str) -> str:
    """Whom an address belongs to: of IPv6 a whole /64 is one host's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


class AtOnce:
    """How many requests each tenant has at hand."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, tenant: str) -> Iterator[None]:
        """Raises `RequestRefused` when the tenant has too many already."""
        if self._held[tenant] >= self._most:
            raise RequestRefused(
                "too-many-at-once",
                f"this tenant has {self._most} requests at hand already: ask again when some are answered",
                headers={"Retry-After": "1"},
            )
        self._held[tenant] += 1
        try:
            yield
        finally:
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]


class Turns:
    """So many may work at once, and tenants take turns: whoever floods waits behind himself only."""

    def __init__(self, slots: int, *, timeout_s: float) -> None:
        self._free = slots
        self._slots = slots
        self._timeout_s = timeout_s
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Raises `PoolExhausted` when the tenant's turn does not come within the timeout."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(tenant)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, tenant: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(mine)
        try:
            async with asyncio.timeout(self._timeout_s):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # it came just now, too late
            if isinstance(error, TimeoutError):
                raise PoolExhausted(
                    f"none of {self._slots} turns at PostgreSQL came within {self._timeout_s:g} s: ask again later,"
                    " or raise RELIGHT_POOL_SIZE"
                ) from None
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            tenant = next(iter(self._waiting))
            queue = self._waiting.pop(tenant)
            turn = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # last in the round
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
