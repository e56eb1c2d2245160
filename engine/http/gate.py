"""Lets a request in: by its token, its role and tenant, and how much that tenant asks already."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.requests import Request

from relight.engine.errors import NotAllowed, RequestRefused, TokenRefused, Unreachable
from relight.engine.http.edge import EXTRA
from relight.engine.http.limits import AtOnce, HttpLimits, Rates
from relight.engine.http.verifier import Verifier
from relight.engine.tables.pools import Role
from relight.engine.tables.tokens import Token, TokenRole

SCHEME = "bearer "
READS = frozenset({TokenRole.READER, TokenRole.OPERATOR})
PUBLISHES = frozenset({TokenRole.PUBLISHER, TokenRole.OPERATOR})
ANYBODY = frozenset(TokenRole)
DATABASE_ROLES: Mapping[TokenRole, Role] = {
    TokenRole.READER: "relight_reader",
    TokenRole.OPERATOR: "relight_operator",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for which tenant."""

    token: Token
    text: str
    tenant: str

    @property
    def database_role(self) -> Role:
        return DATABASE_ROLES[self.token.role]


class Gate:
    """One for all routes of a process."""

    def __init__(self, verifier: Verifier, limits: HttpLimits) -> None:
        self._verifier = verifier
        self._rates = Rates(limits)
        self._requests = AtOnce(limits.tenant_requests)
        self._streams = AtOnce(limits.tenant_streams)

    @asynccontextmanager
    async def admitted(
        self, request: Request, roles: frozenset[TokenRole], *, tenant: str | None = None
    ) -> AsyncIterator[Caller]:
        """The caller, for as long as the request is at hand; `tenant` is the one asked for.

        Raises `TokenRefused`, `NotAllowed`, `RequestRefused`, and `Unreachable` when no token can be looked up.
        """
        caller = await self.caller(request, roles, tenant=tenant)
        with self._requests.held(caller.token.tenant):
            yield caller

    async def caller(self, request: Request, roles: frozenset[TokenRole], *, tenant: str | None = None) -> Caller:
        """The caller, whose request is counted. Raises as `admitted` does."""
        text = _bearer(request)
        token = await self._verified(text, request.client.host if request.client else "")
        if token.role not in roles:
            raise NotAllowed(
                f"token {token.id} is a {token.role}'s; this needs one of {' or '.join(sorted(roles))}: use that"
            )
        if tenant is not None and tenant != token.tenant and not token.is_platform_operator:
            raise NotAllowed(f"token {token.id} is of another tenant: leave tenant away, or use that tenant's token")
        request.scope[EXTRA].extend(self._rates.count(token.tenant, token.tier))
        return Caller(token, text, token.tenant if tenant is None else tenant)

    def charge(self, caller: Caller, cost: int) -> None:
        """Counts `cost` requests more. Raises `RequestRefused`."""
        self._rates.count(caller.token.tenant, caller.token.tier, cost)

    @contextmanager
    def streaming(self, caller: Caller) -> Iterator[None]:
        """Counts a followed stream while it lasts. Raises `RequestRefused`."""
        with self._streams.held(caller.token.tenant):
            yield

    async def still_good(self, caller: Caller) -> bool:
        """Whether the token has been neither revoked nor expired since, as far as can be told."""
        try:
            await self._verifier.verify(caller.text)
        except (TokenRefused, Unreachable):
            return False
        return True

    async def _verified(self, text: str, address: str) -> Token:
        try:
            if not self._verifier.remembers(text):
                self._rates.check_failures(address)
            return await self._verifier.verify(text)
        except TokenRefused:
            self._rates.count_failure(address)
            raise


def _bearer(request: Request) -> str:
    """Raises `RequestRefused` without a token (RFC 6750: then the challenge says no error)."""
    given = request.headers.getlist("authorization")
    if len(given) != 1 or not given[0].lower().startswith(SCHEME):
        raise RequestRefused(
            "token-refused",
            "a bearer token is needed: send one header `Authorization: Bearer rlt_…`; `relight token create` makes one",
            headers={"WWW-Authenticate": 'Bearer realm="relight"'},
        )
    return given[0][len(SCHEME) :].strip()
