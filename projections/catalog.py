"""Which projections and queries exist: whatever the subsystems' files declare."""

import pkgutil
from functools import cache
from importlib import import_module

import relight.projections
from relight.projections.base import History, Projection, State
from relight.projections.query import Query


@cache
def projections() -> tuple[Projection, ...]:
    """Every projection, by name; a file that declares one is found without being registered anywhere."""
    names = (module.name for module in pkgutil.iter_modules(relight.projections.__path__, "relight.projections."))
    found = (getattr(import_module(name), "projection", None) for name in sorted(names))
    return tuple(projection for projection in found if isinstance(projection, Projection))


@cache
def projection_of(type: str) -> Projection | None:
    """The projection that folds events of this type; none folds what recorders say about themselves."""
    return next((projection for projection in projections() if type in projection.handlers), None)


@cache
def tables() -> tuple[State | History, ...]:
    """Every projected table, by name."""
    return tuple(sorted((table for p in projections() for table in p.tables), key=lambda table: table.name))


@cache
def queries() -> dict[str, Query]:
    """Every declared query, by name."""
    modules = (import_module(f"relight.projections.{projection.name}") for projection in projections())
    return {query.name: query for module in modules for query in module.queries}
