"""What of all tenants lies in a region, as the tables have it: what a failover of it would move."""

from relight.engine.tables.connecting import Session

LED = """
SELECT queue_name FROM federated_queues WHERE is_active AND primary_region = $1 ORDER BY queue_name
"""
HELD = """
SELECT count(*) FROM task_assignments WHERE region = $1 AND owner IS NOT NULL AND status = 'assigned'
"""


async def led_and_held(session: Session, region: str) -> tuple[tuple[str, ...], int]:
    """Names of the queues that it leads, and how many tasks its workers hold."""
    return tuple(row["queue_name"] for row in await session.fetch(LED, region)), await session.fetchval(HELD, region)
