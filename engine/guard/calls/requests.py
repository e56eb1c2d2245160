"""Whether a request can be sent again as it is."""

from collections.abc import Mapping

from anthropic._models import FinalRequestOptions


def is_repeatable(options: FinalRequestOptions) -> bool:
    """False where a body is an open file or an iterator: after an attempt, nobody knows what is left of it."""
    if options.content is None and options.files is None:
        return True
    return _holds_still(options.content) and _holds_still(options.files)


def _holds_still(part: object) -> bool:
    match part:
        case None | bytes() | bytearray() | str():
            return True
        case Mapping():
            return all(_holds_still(value) for value in part.values())
        case tuple() | list():
            return all(_holds_still(value) for value in part)
    return False
