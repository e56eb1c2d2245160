"""Gives names of inner modules."""

from .core import *
from .inner.clients import raw as unguarded_client

__all__ = ["safe_client", "unguarded_client"]
