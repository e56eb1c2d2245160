"""Tokens: their text is shown once, their table is their role's alone, and what is revoked, expired, of another role or
tenant is refused, with PostgreSQL away too."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import stack
from serving import OPERATOR, PUBLISHER, READER, Served, served
from typer.testing import CliRunner

from relight.engine.cli.main import app
from relight.engine.clock import Clock
from relight.engine.errors import TokenRefused, Unreachable
from relight.engine.http import verifier
from relight.engine.http.limits import REFUSED_TOKENS_PER_MINUTE
from relight.engine.http.verifier import Verifier
from relight.engine.tables import tokens
from relight.engine.tables.pools import Pool, PoolOptions, open_pool
from relight.engine.tables.tokens import StoredToken, Tier, Token, TokenRole

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "test",
    "type": "breakers.succeeded",
    "time": "2026-01-01T00:00:00Z",
    "data": {"service_name": "api"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str) -> AsyncIterator[Served]:
    with stack.folder() as spools:
        async with served(shared_database, spools) as api:
            yield api


@pytest_asyncio.fixture(loop_scope="module")
async def pool(shared_database: str) -> AsyncIterator[Pool]:
    async with await open_pool(shared_database, PoolOptions(size=2)) as pool:
        yield pool


async def make(pool: Pool, clock: Clock, *, role: TokenRole = READER, **changes: Any) -> tuple[Token, str]:
    given: dict[str, Any] = {"tenant": "acme", "role": role, "tier": Tier.HIGH, "name": "n", "expires_at": None}
    return await tokens.create(pool, now=clock.now(), **given | changes)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def status_and_challenge(api: Served, headers: dict[str, str]) -> tuple[int, str, str]:
    async with api.http.get(f"{api.url}/v1/queries", headers=headers) as response:
        detail = (await response.json(content_type=None)).get("detail", "")
        return response.status, response.headers.get("WWW-Authenticate", ""), detail


async def test_a_token_is_hashed_at_rest_and_its_text_is_nowhere(pool: Pool, shared_database: str) -> None:
    token, text = await make(pool, Clock())
    assert re.fullmatch(rf"rlt_{token.id}_[0-9a-f]{{64}}", text)
    admin = await asyncpg.connect(shared_database)
    row = str(await admin.fetchrow("SELECT * FROM api_tokens WHERE id = $1", token.id))
    await admin.close()
    assert text.rpartition("_")[2] not in row
    assert tokens.sha256_of(text) in row
    assert token in await tokens.list_tokens(pool)


@pytest.mark.parametrize(
    "role", ["relight_reader", "relight_operator", "relight_projector", "relight_owner", "nobody_else"]
)
async def test_no_other_role_sees_or_writes_tokens(shared_database: str, role: str) -> None:
    connection = await asyncpg.connect(shared_database)
    try:
        if role == "nobody_else":
            await connection.execute("DROP ROLE IF EXISTS test_else; CREATE ROLE test_else")
        await connection.execute(f"SET ROLE {'test_else' if role == 'nobody_else' else role}")
        if role != "relight_owner":
            for statement in ("SELECT FROM api_tokens", "INSERT INTO api_tokens DEFAULT VALUES"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        await connection.execute("RESET ROLE; SET ROLE relight_gate")
        await connection.execute("SELECT FROM api_tokens")
        for statement in (
            "UPDATE api_tokens SET role = 'operator'",
            "DELETE FROM api_tokens",
            "SELECT FROM circuit_breaker_states",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.execute("RESET ROLE; DROP ROLE IF EXISTS test_else")
        await connection.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tenant": ""}, "^tenant: "),
        ({"tenant": "a\x00b"}, "^tenant: "),
        ({"tenant": "x" * 65}, "^tenant: "),
        ({"name": "a\nb"}, "^name: "),
        ({"expires_at": Clock().now() - timedelta(seconds=1)}, "^expiry: "),
    ],
)
async def test_a_token_that_could_never_be_used_is_not_made(pool: Pool, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenRefused, match=message):
        await make(pool, Clock(), **changes)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (None, ""),
        ("", ""),
        ("Basic YTpi", ""),
        ("rlt_0", ""),
        ("Bearer ", 'error="invalid_token"'),
        ("Bearer x", 'error="invalid_token"'),
        ("Bearer rlt_0123456789abcdef_", 'error="invalid_token"'),
        ("Bearer rlt_0123456789abcdef_" + "0" * 64, 'error="invalid_token"'),
        ("Bearer rlt_' OR 1=1 --_" + "0" * 64, 'error="invalid_token"'),
        ('Bearer "\\', 'error="invalid_token"'),
        ("Bearer " + "x" * 8_000, 'error="invalid_token"'),
    ],
)
async def test_without_a_good_token_the_answer_is_401_and_says_how(api: Served, given: str | None, error: str) -> None:
    headers = {} if given is None else {"Authorization": given}
    status, challenge, detail = await status_and_challenge(
        api, headers | {"X-Forwarded-For": f"192.0.2.{len(given or '') % 250}"}
    )
    assert status == 401
    assert challenge.startswith('Bearer realm="relight"')
    assert error in challenge
    assert ("error" in challenge) == bool(error)
    assert "token" in detail


async def test_a_known_id_with_another_secret_is_refused(api: Served) -> None:
    text = await api.token()
    other = text[:-1] + ("0" if text[-1] != "0" else "1")
    assert (await status_and_challenge(api, bearer(text)))[0] == 200
    assert (await status_and_challenge(api, bearer(other)))[0] == 401
    assert (await status_and_challenge(api, bearer(text)))[0] == 200


async def test_a_token_given_twice_or_under_two_headers_is_refused(api: Served) -> None:
    text = await api.token()
    async with api.http.get(
        f"{api.url}/v1/queries", headers=[("Authorization", f"Bearer {text}"), ("Authorization", "Bearer x")]
    ) as response:
        assert response.status == 401


async def test_an_expired_token_is_refused_from_that_moment_on_though_it_was_remembered(api: Served) -> None:
    _, text = await make(api.pool, api.clock, expires_at=api.clock.now() + timedelta(seconds=0.3))
    assert (await status_and_challenge(api, bearer(text)))[0] == 200

    async def refused() -> str:
        status, challenge, detail = await status_and_challenge(api, bearer(text))
        return f"{challenge} {detail}" if status == 401 else ""

    said = await stack.until(refused, "it expires", within_s=verifier.BELIEVED_S - 1)
    assert 'error="invalid_token"' in said
    assert "expired at" in said


async def test_a_revoked_token_that_is_replayed_is_refused_within_seconds(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "BELIEVED_S", 0.5)
    token, text = await make(api.pool, api.clock)
    assert (await status_and_challenge(api, bearer(text)))[0] == 200
    await tokens.revoke(api.pool, token.id, now=api.clock.now())

    async def refused() -> bool:
        return (await status_and_challenge(api, bearer(text)))[0] == 401

    await stack.until(refused, "the revocation is noticed", within_s=2)
    assert "was revoked at" in (await status_and_challenge(api, bearer(text)))[2]
    again = await tokens.revoke(api.pool, token.id, now=api.clock.now())
    assert again.revoked_at is not None
    with pytest.raises(TokenRefused, match="there is no token 'nope'"):
        await tokens.revoke(api.pool, "nope", now=api.clock.now())


async def test_each_role_may_do_what_it_is_for_and_nothing_else(api: Served) -> None:
    may = {
        role: (
            (await api.ask("/v1/queries/breakers.open_now", role=role)).status,
            (await api.send(EVENT, role=role)).status,
            (await api.ask("/v1/event-types", role=role)).status,
        )
        for role in TokenRole
    }
    assert may == {READER: (200, 403, 200), PUBLISHER: (403, 201, 200), OPERATOR: (200, 201, 200)}
    refused = await api.send(EVENT, role=READER)
    assert refused.problem(403, "not-allowed").endswith("this needs one of operator or publisher: use that")
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    assert (await api.ask("/v1/changes", role=PUBLISHER)).status == 403


@pytest.mark.parametrize("path", ["/v1/queries/breakers.open_now", "/v1/changes"])
async def test_another_tenants_rows_are_for_the_platforms_operator_alone(api: Served, path: str) -> None:
    for role, tenant, wanted in [
        (READER, "acme", "other"),
        (OPERATOR, "acme", "other"),
        (OPERATOR, "acme", "-"),
        (READER, "-", "acme"),
    ]:
        async with api.http.get(f"{api.url}{path}?tenant={wanted}", headers=await api.bearer(role, tenant)) as response:
            assert response.status == 403
            assert (await response.json(content_type=None))["type"] == "/v1/problems/not-allowed"
    for role, tenant, wanted in [(READER, "acme", "acme"), (OPERATOR, "-", "acme"), (OPERATOR, "-", "-")]:
        async with api.http.get(f"{api.url}{path}?tenant={wanted}", headers=await api.bearer(role, tenant)) as response:
            assert response.status == 200


async def test_an_events_tenant_is_the_tokens(api: Served) -> None:
    refused = await api.send({**EVENT, "tenant": "other"})
    assert refused.problem(422, "invalid-event").startswith("tenant: 'other', but 'acme' is what")
    assert (await api.send({**EVENT, "tenant": "acme"})).status == 201


async def test_guesses_are_limited_by_address_and_cost_others_nothing(api: Served) -> None:
    good = await api.token()
    guesser = {"X-Forwarded-For": "198.51.100.7"}
    assert (await status_and_challenge(api, bearer(good)))[0] == 200
    statuses = [
        (await status_and_challenge(api, bearer(f"rlt_{n:016x}_" + "0" * 64) | guesser))[0]
        for n in range(REFUSED_TOKENS_PER_MINUTE + 5)
    ]
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429
    assert (await status_and_challenge(api, bearer(good) | guesser))[0] == 200
    assert (await status_and_challenge(api, bearer("rlt_x") | {"X-Forwarded-For": "198.51.100.8"}))[0] == 401


class Table:
    """What a verifier asks, counted; `away` for PostgreSQL being away."""

    def __init__(self, *stored: StoredToken) -> None:
        self.stored = {one.token.id: one for one in stored}
        self.asked = 0
        self.away = False

    async def load(self, id: str) -> StoredToken | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unreachable
        return self.stored.get(id)


async def kept(pool: Pool) -> tuple[StoredToken, str]:
    token, text = await make(pool, Clock())
    stored = await tokens.load(pool, token.id)
    assert stored is not None
    return stored, text


async def test_a_known_and_an_unknown_token_are_each_looked_up_once_in_a_while(pool: Pool) -> None:
    stored, text = await kept(pool)
    table = Table(stored)
    verifying = Verifier(table.load, Clock())
    assert await asyncio.gather(*(verifying.verify(text) for _ in range(50))) == [stored.token] * 50
    for wrong in (text[:-1] + "x"[:0] + ("0" if text[-1] != "0" else "1"), *["rlt_" + "0" * 16 + "_" + "0" * 64] * 9):
        with pytest.raises(TokenRefused):
            await verifying.verify(wrong)
    assert table.asked == 2


async def test_without_the_database_known_tokens_go_on_for_a_while_and_others_hear_that_nobody_can_tell(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, text = await kept(pool)
    table = Table(stored)
    verifying = Verifier(table.load, Clock())
    await verifying.verify(text)
    table.away = True
    monkeypatch.setattr(verifier, "BELIEVED_S", 0)
    for _ in range(20):
        assert await verifying.verify(text) == stored.token
    assert table.asked == 2, "while it is away, it is not asked with every request"
    with pytest.raises(Unreachable):
        await verifying.verify("rlt_" + "0" * 16 + "_" + "0" * 64)
    with pytest.raises(TokenRefused):
        await verifying.verify(text[:-4] + "0000")
    monkeypatch.setattr(verifier, "BELIEVED_WITHOUT_DATABASE_S", 0)
    with pytest.raises(Unreachable):
        await verifying.verify(text)


async def test_what_is_remembered_is_bounded_and_guesses_do_not_push_out_what_is_known(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "MAX_REMEMBERED", 5)
    stored, text = await kept(pool)
    table = Table(stored)
    verifying = Verifier(table.load, Clock())
    await verifying.verify(text)
    for n in range(50):
        with pytest.raises(TokenRefused):
            await verifying.verify(f"rlt_{n:016x}_" + "0" * 64)
    asked = table.asked
    assert await verifying.verify(text) == stored.token
    assert table.asked == asked
    assert len(verifying._unknown) == 5


async def test_the_command_makes_lists_and_revokes_tokens(shared_database: str, tmp_path: Path) -> None:
    def relight(*arguments: str) -> subprocess.CompletedProcess[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
        settings = {"RELIGHT_HOME": str(tmp_path), "RELIGHT_DATABASE_URL": shared_database}
        return subprocess.run(
            [sys.executable, "-m", "relight.engine.cli.main", "token", *arguments],
            env=plain | settings | {"RELIGHT_NATS_URL": "nats://127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def run(*arguments: str) -> Any:
        return relight(*arguments)

    made, shown = await asyncio.gather(
        asyncio.to_thread(run, "create", "--role", "reader", "--tenant", "acme", "--name", "ci", "--json"),
        asyncio.to_thread(run, "create", "--role", "publisher", "--expires-in", "never"),
    )
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert said["token"].startswith(f"rlt_{said['id']}_")
    assert re.fullmatch(r"rlt_[0-9a-f]{16}_[0-9a-f]{64}\n", shown.stdout)
    assert "not shown again" in shown.stderr
    listed, missing = await asyncio.gather(
        asyncio.to_thread(run, "list", "--json"),
        asyncio.to_thread(run, "revoke", "nope"),
    )
    [one] = [token for token in json.loads(listed.stdout) if token["id"] == said["id"]]
    assert (one["role"], one["tenant"], one["tier"], one["name"]) == ("reader", "acme", "standard", "ci")
    assert one["revoked_at"] is None
    assert said["token"] not in listed.stdout
    assert (missing.returncode, "there is no token 'nope'" in missing.stderr) == (1, True)
    revoked = await asyncio.to_thread(run, "revoke", said["id"])
    assert revoked.stdout == f"{said['id']} is revoked\n"


@pytest.mark.parametrize("wrong", [["--role", "king"], ["--role", "reader", "--expires-in", "soon"], []])
async def test_a_token_asked_for_wrongly_is_wrong_usage(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["token", "create", *wrong]).exit_code == 2


async def test_a_database_that_was_not_migrated_is_named_as_the_reason(postgres: str) -> None:
    async with await open_pool(postgres) as pool:
        with pytest.raises(Unreachable, match=r"there are no tokens yet .* `relight migrate`"):
            await tokens.list_tokens(pool)
