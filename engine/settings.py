"""Every setting, frozen, from RELIGHT_* variables; one that we do not know is refused rather than ignored."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relight.engine.embedded.home import default_home
from relight.engine.errors import SettingsError
from relight.events.values import Name

PREFIX = "RELIGHT_"
TEST_PREFIX = "RELIGHT_TEST_"
"""Variables of the test suite's own; no settings."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ContentPolicy(StrEnum):
    """What is recorded of prompts and answers."""

    NONE = "none"
    DIGEST = "digest"
    """SHA-256 and size"""
    FULL = "full"
    """the bytes too, beside the events, after redaction"""


class Settings(BaseModel):
    """What can be set; `RELIGHT_` and the name in capitals is its variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default_factory=default_home, description="folder of spools and of the servers' data")
    nats_url: str | None = Field(
        default=None,
        description="your NATS server, nats://user:password@host:port; several of one cluster: comma-separated",
    )
    nats_monitor_urls: tuple[str, ...] = Field(
        default=(), description="monitoring addresses of all its servers, comma-separated, to prove that they fsync"
    )
    nats_system_url: str | None = Field(
        default=None,
        description="your NATS server as a user of its system account: only the service's, to prove that servers fsync",
    )
    database_url: str | None = Field(
        default=None, description="your PostgreSQL, postgresql://user:password@host:port/database"
    )
    topology: str | None = Field(
        default=None,
        description="the fleet's regions: a TOML file, or embedded, zone or stretch; it says where servers are",
    )
    region: Name = Field(default="local", description="where this process runs")
    tenant: Name = Field(default="default", description="whose events these are where no scope says otherwise")
    spool: bool = Field(default=True, description="false on hosts without a durable disk: promises REPLICATED only")
    spool_max_bytes: int = Field(
        default=1 << 30, ge=1 << 20, description="what a spool holds on disk, per process; acknowledged events go first"
    )
    spool_retention_s: Positive = Field(
        default=600, description="how long an acknowledged and projected event stays spooled while there is no archive"
    )
    memory_max_events: int = Field(default=100_000, ge=1, description="events taken but not yet on disk, per process")
    ack_timeout_s: Positive = Field(default=30, description="how long reached() waits where no timeout is given")
    proof_ttl_s: Positive = Field(default=60, description="how long a proof that the servers fsync is believed")
    http_host: str = Field(default="127.0.0.1", description="address that the HTTP API and /health listen on")
    http_port: int = Field(default=0, ge=0, le=65_535, description="their port; 0: any free one")
    drain_s: Positive = Field(
        default=10, description="how long stopping may take: requests at hand, the batch in hand, receipts, connections"
    )
    unready_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0, description="how long requests are still taken after /readyz says no, for balancers to notice"
    )
    pool_size: int = Field(
        default=10, ge=1, le=1_000, description="connections to PostgreSQL for requests, per process"
    )
    pool_acquire_timeout_s: Positive = Field(default=5, description="how long a request waits for one of them")
    statement_timeout_s: Positive = Field(default=30, description="how long a request's statement may run")
    session_statement_timeout_s: Positive = Field(
        default=120, description="how long a statement of the projector or of a rebuild may run"
    )
    rate_low: int = Field(default=20, ge=1, description="requests a second of a tenant's tokens of tier low")
    rate_standard: int = Field(default=200, ge=1, description="the same of tier standard")
    rate_high: int = Field(default=5_000, ge=1, description="the same of tier high")
    tenant_requests: int = Field(default=1_000, ge=1, description="one tenant's requests at the same time, per process")
    http_connections: int = Field(default=2_000, ge=1, description="connections of HTTP clients, per process")
    http_receive_s: Positive = Field(default=20, description="how long a client may take to send a request")

    archive: str | None = Field(
        default=None, description="where the archive lies: a folder, or s3://bucket/prefix; none is written without it"
    )
    archive_key: Path | None = Field(
        default=None, description="private key that seals archives; made in the home when first needed"
    )
    archive_trust: str | None = Field(
        default=None, description="id of the key that an archive has to begin with, or that sealed in it since"
    )
    archive_seal_events: int = Field(default=20_000, ge=1, description="events at which a segment is sealed")
    archive_seal_s: Positive = Field(default=60, description="age of its oldest event at which a segment is sealed")

    fault_domain: Name | None = Field(
        default=None, description="what fails together with this process; its host's name if not set"
    )
    content_policy: ContentPolicy = Field(
        default=ContentPolicy.DIGEST, description="of prompts and answers: none, digest, or full, which keeps them"
    )
    prices_file: Path | None = Field(default=None, description="TOML: prices of models, over those that relight knows")
    count_calls: bool = Field(
        default=False, description="counts model calls by the place they are made from, for relight coverage --runtime"
    )

    retention_file: Path | None = Field(
        default=None, description="TOML: how long history rows are kept, by table and tenant"
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Raises `SettingsError` that names the variable."""
        environment = os.environ if environment is None else environment
        given: dict[str, object] = {
            variable.removeprefix(PREFIX).lower(): value
            for variable, value in environment.items()
            if variable.startswith(PREFIX) and not variable.startswith(TEST_PREFIX)
        }
        return cls._checked(given)

    @property
    def said_region(self) -> str | None:
        """The region, where anybody set it."""
        return self.region if "region" in self.model_fields_set else None

    def overridden(self, changes: Mapping[str, object]) -> Self:
        """These settings with some replaced. Raises `SettingsError` that names the setting."""
        return self._checked({**self.model_dump(exclude_unset=True), **changes})

    @classmethod
    def _checked(cls, given: Mapping[str, object]) -> Self:
        values = dict(given)
        if isinstance(urls := values.get("nats_monitor_urls"), str):
            values["nats_monitor_urls"] = tuple(url.strip() for url in urls.split(",") if url.strip())
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            variable = PREFIX + str(fault["loc"][0]).upper()
            if fault["type"] == "extra_forbidden":
                known = ", ".join(PREFIX + name.upper() for name in cls.model_fields)
                raise SettingsError(f"{variable} is no setting; unset it, or choose one of {known}") from None
            raise SettingsError(f"{variable} is invalid: {fault['msg']}; correct or unset it") from None
