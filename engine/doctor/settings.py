"""The settings: every fault in them at once, and which step uses each."""

import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from relight.engine.doctor.models import SettingUsed
from relight.engine.errors import SettingsError
from relight.engine.settings import PREFIX, Settings

CHECKED_BY = {
    "home": "home",
    "nats_url": "nats",
    "nats_monitor_urls": "fsync",
    "nats_system_url": "fsync",
    "database_url": "postgres",
    "region": "tenancy",
    "tenant": "tenancy",
    "spool": "spool",
    "spool_max_bytes": "disk",
    "proof_ttl_s": "fsync",
    "http_host": "http",
    "http_port": "http",
    "pool_size": "connections",
    "pool_acquire_timeout_s": "connections",
    "statement_timeout_s": "timeouts",
    "session_statement_timeout_s": "timeouts",
}
"""The others are numbers of this process's own: the step `settings` checks them."""


def read_settings(environment: Mapping[str, str] | None = None) -> tuple[Settings, tuple[str, ...]]:
    """The settings without the faulty ones, and every fault: reading them as usual would stop at the first."""
    left = dict(os.environ if environment is None else environment)
    faults: list[str] = []
    while True:
        try:
            settings = Settings.from_environment(left)
            break
        except SettingsError as error:
            faults.append(str(error))
            variable = str(error).partition(" ")[0]
            faulty = [name for name in left if name.upper() == variable]
            if not faulty:
                raise
            for name in faulty:
                del left[name]
    if (settings.nats_url is None) != (settings.database_url is None) and not faults:
        lacking = "RELIGHT_NATS_URL" if settings.nats_url is None else "RELIGHT_DATABASE_URL"
        faults.append(f"{lacking} is not set, but the other server's is: set both, or neither")
    if settings.nats_monitor_urls and settings.nats_url is None and not faults:
        faults.append("RELIGHT_NATS_MONITOR_URLS is set without RELIGHT_NATS_URL: set both, or neither")
    if settings.nats_system_url and settings.nats_url is None and not faults:
        faults.append("RELIGHT_NATS_SYSTEM_URL is set without RELIGHT_NATS_URL: set both, or neither")
    return settings, tuple(faults)


def settings_used(settings: Settings) -> Iterator[SettingUsed]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        yield SettingUsed(
            variable=PREFIX + name.upper(),
            value=_shown(name, value),
            given=name in settings.model_fields_set,
            checked_by=CHECKED_BY.get(name, "settings"),
        )


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ",".join(_shown(name, part) for part in value)
    if not name.endswith(("_url", "_urls")):
        return str(value)
    try:
        parts = urlsplit(str(value))
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    except ValueError:
        return "(an address that cannot be read)"
