"""Reads a topology from TOML, or makes the one that a word stands for."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from relight.engine.errors import TopologyRefused
from relight.engine.topology.model import (
    FailoverConditions,
    FailoverPolicy,
    FleetOptions,
    Kind,
    QueueOptions,
    RegionOptions,
    Topology,
)
from relight.engine.topology.rules import checked

STRETCHED: Final = ("eu", "us", "ap")
MESH: Final = "mesh"


def load_topology(named: str | Path) -> Topology:
    """That of a file or of a word: `embedded`, `zone`, `stretch`. Raises `TopologyRefused`."""
    if str(named) in tuple(Kind):
        return built_in(Kind(str(named)))
    try:
        text = Path(named).read_text()
    except (OSError, UnicodeDecodeError) as error:
        words = ", ".join(Kind)
        raise TopologyRefused(
            "readable", f"{named} cannot be read ({error}): name a TOML file, or one of {words}"
        ) from error
    return parse_topology(text, where=str(named))


def parse_topology(text: str, *, where: str = "the topology") -> Topology:
    """Raises `TopologyRefused`; the message says where, and the line of what is no TOML."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyRefused("readable", f"{where} is no TOML: {error}") from error
    fleet = given.get("fleet")
    if isinstance(fleet, dict) and fleet.get("kind") == MESH:
        raise TopologyRefused(
            "known_kind",
            f"{where}: a mesh (a stream for each region, mirrored) is not built yet: choose stretch, which loses"
            " nothing when a region is lost; between its regions expect one round trip per acknowledgement",
        )
    try:
        return checked(Topology.model_validate(given))
    except ValidationError as error:
        raise _explained(error, where) from None


def built_in(kind: Kind) -> Topology:
    """Local servers, and for a stretch a policy for each region: the two others stand in for it, by themselves."""
    names = STRETCHED if kind is Kind.STRETCH else ("local",)
    others = {name: tuple(other for other in names if other != name) for name in names}
    return checked(
        Topology(
            fleet=FleetOptions(kind=kind),
            regions={name: RegionOptions() for name in names},
            policies=tuple(
                FailoverPolicy(name=f"{name}-lost", source=name, fallbacks=fallbacks)
                for name, fallbacks in others.items()
                if fallbacks
            ),
            queues=(QueueOptions(name="default", primary=names[0], replicas=others[names[0]]),),
        )
    )


def _explained(error: ValidationError, where: str) -> TopologyRefused:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_model_at(fault["loc"][:-1]).model_fields)
        return TopologyRefused("known_fields", f"{where}: {path} is no field; known there are {known}")
    if fault["loc"] == ("fleet", "kind"):
        kinds = ", ".join(Kind)
        return TopologyRefused("known_kind", f"{where}: {path} has to be one of {kinds}")
    return TopologyRefused("valid_values", f"{where}: {path} is invalid: {fault['msg']}")


def _model_at(path: tuple[int | str, ...]) -> type[BaseModel]:
    """Which model's fields stand at that place of the file."""
    nested: Mapping[str, type[BaseModel]] = {
        "fleet": FleetOptions,
        "regions": RegionOptions,
        "policies": FailoverPolicy,
        "queues": QueueOptions,
    }
    if not path:
        return Topology
    if path[-1] == "conditions":
        return FailoverConditions
    return nested[str(path[0])]
