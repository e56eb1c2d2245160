"""Entity tags: what `If-None-Match` says (RFC 9110, section 13.1.2)."""

import re

ANY = "*"
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LIST = re.compile(rf"[\s,]*{_TAG.pattern}(?:\s*,(?:\s*{_TAG.pattern})?)*\s*")


def names(if_none_match: str | None, tag: str) -> bool:
    """Whether the header names `tag` (without its quotes); one that cannot be read names nothing."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == ANY:
        return True
    return _LIST.fullmatch(if_none_match) is not None and tag in _TAG.findall(if_none_match)
