"""Roles and row-level security: as they stand in the catalog, and with a row that is written and rolled back."""

from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from relight.engine.doctor.models import Finding, fail, ok
from relight.engine.doctor.patient import Patient
from relight.engine.log.reader import Message
from relight.engine.tables.folding import Folded
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.pools import Role, act_as
from relight.engine.tables.store import join_tables
from relight.events.breakers import BreakerFailed
from relight.events.envelope import GENESIS, Head, encode
from relight.events.subjects import observation_subject, source_of
from relight.projections.base import History
from relight.projections.breakers import EVENTS
from relight.projections.catalog import tables

ROLES: Sequence[Role] = ("relight_projector", "relight_reader", "relight_operator", "relight_gate")
OWNER = "relight_owner"
POLICIES = ["platform_operator_reads", "projector_writes", "tenant_reads"]
HISTORY_POLICIES = [*POLICIES[:2], "retention_deletes", "retention_selects", *POLICIES[2:]]
MIGRATE = "run `relight migrate` with this login, or have a superuser GRANT it the roles"


async def roles(patient: Patient) -> Finding:
    session = patient.session
    held = await session.fetch(
        "SELECT rolname, rolsuper OR rolbypassrls AS powerful FROM pg_roles WHERE rolname = ANY($1)", [*ROLES, OWNER]
    )
    if missing := {*ROLES, OWNER} - {row["rolname"] for row in held}:
        return fail(f"missing: {', '.join(sorted(missing))}", MIGRATE)
    if powerful := [row["rolname"] for row in held if row["powerful"]]:
        return fail(
            f"{', '.join(powerful)} may see every tenant's rows", "ALTER ROLE … NOSUPERUSER NOBYPASSRLS, as superuser"
        )
    for role in ROLES:
        try:
            async with session.transaction(readonly=True):
                await act_as(session, role, None)
                acting = await session.fetchval("SELECT current_user")
        except asyncpg.PostgresError as error:
            return fail(f"this login may not become {role} ({error})", MIGRATE)
        if acting != role:
            return fail(f"this login became {acting} instead of {role}", MIGRATE)
    return ok(f"{', '.join(ROLES)} were assumed; none of them bypasses row-level security")


async def row_security(patient: Patient) -> Finding:
    rows = await patient.session.fetch(
        "SELECT name, c.oid IS NOT NULL AS present,"
        " coalesce(c.relrowsecurity AND c.relforcerowsecurity, false) AS forced,"
        " coalesce(c.relowner::regrole::text = $2, false) AS owned,"
        " ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY 1) AS policies"
        " FROM unnest($1::text[]) AS name LEFT JOIN pg_class AS c ON c.oid = to_regclass(name)",
        [table.name for table in tables()],
        OWNER,
    )
    wanted = {table.name: HISTORY_POLICIES if isinstance(table, History) else POLICIES for table in tables()}
    faults = [
        fault
        for row in rows
        for fault, holds in (
            (f"{row['name']} is missing", not row["present"]),
            (f"{row['name']} is not under forced row-level security", row["present"] and not row["forced"]),
            (f"{row['name']} is not {OWNER}'s", row["present"] and not row["owned"]),
            (
                f"{row['name']} has policies {row['policies']}",
                row["present"] and row["policies"] != wanted[row["name"]],
            ),
        )
        if holds
    ]
    if faults:
        return fail("; ".join(faults), "a tenant may see another's rows: CALL relight_protect on it, as its owner")
    return ok(f"forced on all {len(rows)} tables, each with its policies")


class _RolledBack(Exception):
    """Ends the transaction: nothing of it stays."""


async def tenancy(patient: Patient) -> Finding:
    """By the projector's own code, and read as requests read."""
    session, tag = patient.session, patient.tag
    ours, others = f"{tag}-a", f"{tag}-b"
    folded = Folded()
    folded.fold([_event(patient, ours)])
    seen: dict[str, int] = {}
    try:
        async with session.transaction():
            await act_as(session, "relight_projector", None)
            await Partitions().ensure(session, folded.tables)
            await join_tables(session, folded.tables)
            for tenant in (ours, others, ""):
                await act_as(session, "relight_reader", tenant)
                seen[tenant] = await session.fetchval(f"SELECT count(*) FROM {EVENTS.name} WHERE tenant = $1", ours)
            raise _RolledBack
    except _RolledBack:
        pass
    if not seen[ours]:
        return fail("a tenant does not see the row that was written for it", "look at the policies of the tables")
    if seen[others] or seen[""]:
        whose = "another tenant" if seen[others] else "whoever names no tenant"
        return fail(f"{whose} saw the row too", "stop serving queries, and restore row-level security")
    return ok(f"a row of {EVENTS.name} was seen by its tenant alone, and rolled back")


def _event(patient: Patient, tenant: str) -> Message:
    data = BreakerFailed(service_name=patient.tag, error_class="doctor")
    now_us = patient.clock.now_us()
    head = Head(
        id=patient.clock.next_id(),
        type=data.TYPE,
        version=data.VERSION,
        entity=data.entity,
        time=datetime.fromtimestamp(now_us / 1_000_000, UTC),
        tenant=tenant,
        region=patient.settings.region,
    )
    body = encode(
        head,
        data.model_dump_json().encode(),
        source=source_of(head.region, patient.tag),
        publisher=patient.tag,
        pseq=1,
        prev=GENESIS,
        ruling=None,
    )
    return Message(1, now_us * 1_000, observation_subject(head.region, data.TYPE, tenant), body)
