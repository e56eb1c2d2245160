"""Splits server-sent events into frames as the SDK does, and skips runs of plain ones at the price of one match."""

import re
from collections.abc import Sequence

import orjson

from relight.engine.guard.streams.frames import PLAIN_EVENTS, Frame

_LINE_END = re.compile(rb"\r\n?|\n")
# Possessive throughout: what does not match must not be tried again from its middle.
_PLAIN = re.compile(rb"(?:event: (?:%s)\ndata: .*+\n\n)*+" % "|".join(PLAIN_EVENTS).encode())

_PLAIN_DATA = re.compile(rb"event: (?:%s)\ndata: (.*)\n\n" % "|".join(PLAIN_EVENTS).encode())


class SseFrames:
    """Lines end in LF, CR or CRLF; a frame ends at an empty line (WHATWG HTML, 9.2.6, "Interpreting an event stream").

    What the body's end cuts off is no frame.
    """

    telling = b"event: message_"
    lots = 32

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """Of a line whose end has not come."""
        self._after_cr = False
        """The chunk ended in CR: an LF at the next one's start belongs to it."""
        self._event = ""
        self._data: list[bytes] = []
        self._between = True
        """No frame is begun."""

    def feed(self, chunk: bytes, *, skip: bool = False) -> Sequence[Frame]:
        at, end = 0, len(chunk)
        if self._after_cr and end:
            self._after_cr = False
            at = 1 if chunk[0] == 0x0A else 0
        skip = skip and b"\r" not in chunk  # `.` matches a CR, which ends a line as well
        frames: list[Frame] = []
        while at < end:
            if skip and self._between:
                # Always a match, if of nothing.
                at = _PLAIN.match(chunk, at).end()  # type: ignore[union-attr]
                if at == end:
                    break
            found = _LINE_END.search(chunk, at)
            self._between = False
            if found is None:
                self._line.append(chunk[at:])
                break
            line, at = chunk[at : found.start()], found.end()
            self._after_cr = at == end and chunk[-1] == 0x0D
            if self._line:
                line = b"".join((*self._line, line))
                self._line.clear()
            if line:
                self._field(line)
            else:
                self._complete(frames)
        return frames

    def unreadable(self, chunk: bytes) -> bool:
        return not all(map(_is_json, _PLAIN_DATA.findall(chunk)))

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # a comment begins with the colon: its name is empty
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._event = value.removeprefix(b" ").decode("utf-8", "replace")

    def _complete(self, frames: list[Frame]) -> None:
        if self._event or self._data:
            frames.append(Frame(self._event, b"\n".join(self._data)))
            self._event, self._data = "", []
        self._between = True


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except ValueError:
        return False
    return True
