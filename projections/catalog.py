"""Which projections and queries exist: whatever the subsystems' files declare."""

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType

import relight.projections
from relight.projections.base import History, Projection, State
from relight.projections.query import Query


@cache
def projections() -> tuple[Projection, ...]:
    """Every projection, by name; a file that declares one is found without being registered anywhere."""
    found = (getattr(module, "projection", None) for module in _modules())
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
    found = (getattr(module, "queries", ()) for module in _modules())
    return {query.name: query for declared in found if isinstance(declared, tuple) for query in declared}


def _modules() -> list[ModuleType]:
    names = (module.name for module in pkgutil.iter_modules(relight.projections.__path__, "relight.projections."))
    return [import_module(name) for name in sorted(names)]
