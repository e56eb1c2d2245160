from .clients import safe

Hidden = object()
