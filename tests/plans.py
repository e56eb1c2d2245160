"""Query plans as PostgreSQL explains them, and which tables are rightly read whole: those without rows."""

from typing import Any

LEAVES = """
SELECT oid::regclass::text FROM pg_class WHERE oid = $1::text::regclass AND relkind = 'r'
UNION SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass
"""
"""A table's partitions, or itself where it has none."""
FULL = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND reltuples > 0 AND relrowsecurity"
"""Tables and partitions with rows: an empty partition is rightly read whole."""


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for child in plan.get("Plans", ()) for node in nodes(child)]
