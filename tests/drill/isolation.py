"""That a tenant still sees its own rows and the platform's alone, asked in SQL and over HTTP."""

import aiohttp
import asyncpg
from mix import MIX
from reporting import Report
from scene import Scene

from relight.projections.catalog import tables

PLATFORM = "-"


async def check(scene: Scene, report: Report, phase: str) -> None:
    unforced, foreign, unasked = await _in_sql(scene)
    report.promise(
        phase,
        "tables under forced row-level security",
        f"{len(tables()) - len(unforced)} of {len(tables())}",
        asked="all",
        kept=not unforced,
        detail=str(unforced),
    )
    report.promise(
        phase,
        "rows of others that a reader sees in SQL, with its tenant and with none",
        f"{foreign}, {unasked}",
        asked="0, 0",
        kept=foreign == unasked == 0,
    )
    asked, leaked, refused = await _over_http(scene)
    report.promise(
        phase, f"rows of others in {asked:,} rows over HTTP", str(leaked), asked="0", kept=leaked == 0 and asked > 0
    )
    report.promise(
        phase,
        "answer to a token that names another tenant",
        str(refused),
        asked="401 or 403",
        kept=refused in (401, 403),
    )


async def _in_sql(scene: Scene) -> tuple[list[str], int, int]:
    connection = await asyncpg.connect(scene.postgres.url)
    try:
        forced = await connection.fetch(
            "SELECT relname FROM pg_class WHERE oid = ANY($1::text[]::regclass[])"
            " AND relrowsecurity AND relforcerowsecurity",
            [table.name for table in tables()],
        )
        unforced = sorted({table.name for table in tables()} - {row["relname"] for row in forced})
        async with connection.transaction(readonly=True):
            await connection.execute("SELECT set_config('role', 'relight_reader', true)")
            unasked = 0
            for table in tables():
                unasked += await connection.fetchval(f"SELECT count(*) FROM {table.name}")
            foreign = 0
            for tenant in scene.tokens:
                await connection.execute("SELECT set_config('relight.tenant', $1, true)", tenant)
                for table in tables():
                    foreign += await connection.fetchval(
                        f"SELECT count(*) FROM {table.name} WHERE tenant NOT IN ($1, '-')", tenant
                    )
    finally:
        await connection.close()
    return unforced, foreign, unasked


async def _over_http(scene: Scene) -> tuple[int, int, int]:
    """Rows that came, those of other tenants among them, and the status of asking for another tenant's."""
    url = scene.fleet.of("api")[0].url
    seen = leaked = 0
    unparameterised = [
        name for name in MIX if name in ("decisions.by_outcome", "breakers.open_now", "incidents.open_now")
    ]
    async with aiohttp.ClientSession(url) as client:
        for tenant, token in scene.tokens.items():
            for name in unparameterised:
                headers = {"Authorization": f"Bearer {token}"}
                async with client.get(f"/v1/queries/{name}", headers=headers) as answer:
                    rows = (await answer.json())["rows"]
                seen += len(rows)
                leaked += sum(row["tenant"] not in (tenant, PLATFORM) for row in rows)
        mine, other = list(scene.tokens)[:2]
        headers = {"Authorization": f"Bearer {scene.tokens[mine]}"}
        async with client.get("/v1/queries/breakers.open_now", params={"tenant": other}, headers=headers) as answer:
            return seen, leaked, answer.status
