"""How long history rows are kept: a policy by table and tenant, from the command line or a TOML file."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from relight.engine.errors import SettingsError
from relight.projections.base import History
from relight.projections.catalog import tables

Keep = timedelta | None
"""None: for good."""

FOREVER = "forever"
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}


def histories() -> dict[str, History]:
    """The tables that can be trimmed, by name: state tables hold what is, not what was."""
    return {table.name: table for table in tables() if isinstance(table, History)}


def parse_keep(text: object, where: str) -> Keep:
    """`90d`, `12w`, `2y`, `36h` or `forever`. Raises `SettingsError` that names `where` it stands."""
    if text == FOREVER:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})([hdwy])", text) if isinstance(text, str) else None
    if found is None:
        raise SettingsError(f"{where}: {text!r} is no time to keep rows; write 36h, 90d, 12w, 2y or {FOREVER}")
    return int(found[1]) * UNITS[found[2]]


def first_id(moment: datetime) -> str:
    """The lowest id that an event of this moment can have."""
    digits = f"{int(moment.timestamp() * 1_000):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """The narrower rule wins: a tenant's for a table, a tenant's, a table's, the default, which is for good."""

    default: Keep = None
    tables: Mapping[str, Keep] = field(default_factory=dict)
    tenants: Mapping[str, "Keeping"] = field(default_factory=dict)
    only_tenant: str | None = None
    """Nobody else's rows are looked at."""
    only_table: str | None = None

    def of(self, table: str, tenant: str) -> Keep:
        """How long this tenant's rows of this table are kept."""
        if self.only_table not in (None, table) or self.only_tenant not in (None, tenant):
            return None
        theirs = self.tenants.get(tenant)
        if theirs is not None:
            if table in theirs.tables:
                return theirs.tables[table]
            if theirs.default is not None:
                return theirs.default
        return self.tables.get(table, self.default)

    def longest(self, table: str) -> Keep:
        """How long anybody's rows of this table are kept, tenants that nothing is known of among them."""
        if self.only_tenant is not None or self.only_table not in (None, table):
            return None
        kept = [self.tables.get(table, self.default), *(self.of(table, tenant) for tenant in self.tenants)]
        return None if None in kept else max(keep for keep in kept if keep is not None)

    def below(self, table: str, tenant: str, now: datetime) -> str | None:
        """Rows of events with lower ids are due."""
        keep = self.of(table, tenant)
        return None if keep is None else first_id(now - keep)

    @classmethod
    def from_file(cls, path: Path, *, tenant: str | None = None, table: str | None = None) -> Self:
        """`default` and tables' names at the top, and the same in `[tenants.NAME]`. Raises `SettingsError`."""
        try:
            given = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"retention policy {path} cannot be read: {error}") from None
        tenants = given.pop("tenants", {})
        if not isinstance(tenants, dict) or not all(isinstance(rules, dict) for rules in tenants.values()):
            raise SettingsError(f"retention policy {path}: tenants are sections, as in [tenants.acme]")
        rules = {name: _rules(theirs, f"{path}, tenant {name}") for name, theirs in tenants.items()}
        top = _rules(given, str(path))
        return cls(default=top.default, tables=top.tables, tenants=rules, only_tenant=tenant, only_table=table)


def _rules(given: Mapping[str, object], where: str) -> Keeping:
    known = histories()
    for name in given:
        if name != "default" and name not in known:
            raise SettingsError(
                f"retention policy {where}: there is no history table {name}; there is {', '.join(known)}"
            )
    rules = {name: parse_keep(text, f"retention policy {where}, {name}") for name, text in given.items()}
    return Keeping(default=rules.pop("default", None), tables=rules)
