from .inner import safe as safe_client
from .inner import Hidden as _Hidden

__all__ = ["safe_client"]
