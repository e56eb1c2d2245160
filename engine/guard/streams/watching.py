"""What the bytes of one streamed answer tell, and when they may be handed out: no I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from pydantic import JsonValue

from relight.engine.guard.facts import Answer, Failure
from relight.engine.guard.recording.answers import read_answer, read_json, read_usage
from relight.engine.guard.streams.frames import Frame, Frames, FramesBroken

HELD_BYTES = 1024 * 1024
"""Held back at most while no delta comes: then an answer is handed out as it is, and not asked for again."""

MESSAGE_BYTES = 4 * 1024 * 1024
"""A message in JSON that is longer is not looked into."""


class Expected(StrEnum):
    """What was asked for, and so may come."""

    EVENTS = "events"
    """a message as a stream of events"""
    MESSAGE = "message"
    """a whole message in JSON, whose body the caller streams"""
    OTHER = "other"
    """a batch's results, a file, the endless events of a session: only watched for its end"""


class How(StrEnum):
    """How reading a streamed body ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """closed early, dropped, or cancelled: by the caller"""


@dataclass(slots=True)
class StreamEnd:
    """How one attempt's body ended, and what it told until then. Times are Unix microseconds."""

    how: How
    ended_us: int
    """When `message_stop` came, else when it failed or was closed."""
    failure: Failure | None = None
    """None if and only if completed; ABANDONED or CANCELLED for an abandoned one."""
    error: BaseException | None = None
    """What reading raised, or what is raised for it; None for an `error` event, which is handed out as it came."""
    error_type: str | None = None
    """Of an `error` event, as the wire names it: `overloaded_error`, or Bedrock's `throttlingException`."""
    delivered: bool = False
    """Something was handed out, so that nothing else can be handed out instead."""
    first_token_us: int | None = None
    """When the first content delta was there."""
    answer: Answer = field(default_factory=Answer)
    sha256: str | None = None
    """Of the bytes as they are handed out, that is without the content encoding; None for what is no answer."""
    size_bytes: int = 0
    body: bytes | None = None
    """These bytes, where they were to be kept and are not more than that."""


class Watch:
    """One attempt's body. `ready`: what came so far, and all that comes, may be handed out.

    Chunks are put into `pending` as they come and looked into by `settle`: at once until the body is ready, then when
    there are `lots` of them or one begins with `telling`, which is a fraction of the price.
    `frames`: None where no events are expected: what comes is ready at once. `message`: it is one JSON message.
    `digest` and `keep_bytes` say what its end tells of the bytes.
    """

    def __init__(
        self,
        frames: Frames | None,
        now_us: Callable[[], int],
        *,
        message: bool = False,
        digest: bool = True,
        keep_bytes: int = 0,
    ) -> None:
        self._frames = frames
        self._now_us = now_us
        self._message = message
        self._keep_bytes = keep_bytes
        self._bound_bytes = max(keep_bytes, MESSAGE_BYTES) if message else keep_bytes
        self._kept: list[bytes] | None = [] if self._bound_bytes else None
        self._digest = sha256() if digest else None
        self._size_bytes = 0
        self._latest = b""
        self._answer = Answer()
        self._began = False
        self._foreign = False
        self._first_token_us: int | None = None
        self._error_type: str | None = None
        self._stopped_us: int | None = None
        self.ready = frames is None
        self.failure: Failure | None = None
        self.pending: list[bytes] = []
        self.telling, self.lots = (b"", 0) if frames is None else (frames.telling, frames.lots)

    @property
    def cut_short(self) -> bool:
        """Where the body ends now: the answer is not whole. Streams of other events end as they like."""
        self.settle()
        return self._frames is not None and self._stopped_us is None and not self._foreign and self.failure is None

    def settle(self) -> None:
        """Looks into what is pending."""
        if not self.pending:
            return
        chunk = b"".join(self.pending)
        self.pending.clear()
        self._latest = chunk
        self._size_bytes += len(chunk)
        if self._digest is not None:
            self._digest.update(chunk)
        if self._kept is not None:
            self._keep(chunk)
        if self._frames is None:
            return
        try:
            for frame in self._frames.feed(chunk, skip=self._first_token_us is not None):
                self._see(frame)
        except FramesBroken as broken:
            for frame in broken.frames:
                self._see(frame)
            self._frames = None
            self._fail(Failure.MALFORMED)
        if not self.ready and self._size_bytes > HELD_BYTES and self.failure is None:
            self.ready = True

    def end(self, how: How, failure: Failure | None = None, error: BaseException | None = None) -> StreamEnd:
        """What the stream itself said overrules what the caller of this knows."""
        self.settle()
        if self._stopped_us is not None:
            how, failure, error = How.COMPLETED, None, None
        elif self.failure is not None:
            how, failure = How.FAILED, self.failure
        elif how is How.ABANDONED and self._frames is not None and self._frames.unreadable(self._latest):
            how, failure = How.FAILED, Failure.MALFORMED  # whoever read it could not go on, and left it
        body = None if self._kept is None else b"".join(self._kept)
        if self._message and how is How.COMPLETED and body is not None:
            self._answer = read_answer(read_json(body)) or Answer()
        return StreamEnd(
            how=how,
            ended_us=self._now_us() if self._stopped_us is None else self._stopped_us,
            failure=failure,
            error=error,
            error_type=self._error_type,
            delivered=self.ready and self._size_bytes > 0,
            first_token_us=self._first_token_us,
            answer=self._answer,
            sha256=None if self._digest is None else self._digest.hexdigest(),
            size_bytes=self._size_bytes,
            body=body if self._size_bytes <= self._keep_bytes else None,
        )

    def _keep(self, chunk: bytes) -> None:
        if self._size_bytes > self._bound_bytes:
            self._kept = None  # a part of a body has neither its digest nor its meaning
        elif self._kept is not None:
            self._kept.append(chunk)

    def _see(self, frame: Frame) -> None:
        if self.failure is not None:
            return
        match frame.event:
            case "" | "ping" | "content_block_start" | "content_block_stop" | "vertex_event":
                pass
            case "content_block_delta":
                if self._first_token_us is None and self._decoded(frame.data) is not None:
                    self._first_token_us = self._now_us()
                    self.ready = True
            case "message_start":
                self._began = True
                if (event := self._decoded(frame.data)) is not None:
                    self._answer = read_answer(event.get("message")) or Answer()
            case "message_delta":
                if (event := self._decoded(frame.data)) is not None:
                    merge(self._answer, event)
                    self.ready = True
            case "message_stop":
                if self._stopped_us is None:
                    self._stopped_us = self._now_us()
                self.ready = True
            case "error":
                told = read_json(frame.data)
                error = told.get("error") if isinstance(told, dict) else None
                self._error_type = str(error.get("type", "unknown")) if isinstance(error, dict) else "unknown"
                self._fail(_FAILURES.get(self._error_type, Failure.UNKNOWN))
            case _:
                self._foreign = self._foreign or not self._began
                self.ready = True

    def _decoded(self, data: bytes) -> dict[str, JsonValue] | None:
        event = read_json(data)
        if isinstance(event, dict):
            return event
        self._fail(Failure.MALFORMED)
        return None

    def _fail(self, failure: Failure) -> None:
        if self._stopped_us is None:
            self.failure = failure


def merge(answer: Answer, event: Mapping[str, JsonValue]) -> None:
    """What `message_delta` adds: its counts are totals, and what it leaves out stays."""
    delta, usage = event.get("delta"), event.get("usage")
    if isinstance(delta, dict) and isinstance(reason := delta.get("stop_reason"), str):
        answer.stop_reason = reason
    if isinstance(usage, dict):
        read_usage(usage, answer.usage)


# The API's error types, then the exceptions of Bedrock's InvokeModelWithResponseStream.
_FAILURES = {
    "rate_limit_error": Failure.RATE_LIMITED,
    "overloaded_error": Failure.OVERLOADED,
    "api_error": Failure.SERVER_ERROR,
    "timeout_error": Failure.SERVER_ERROR,
    "conflict_error": Failure.CONFLICT,
    "invalid_request_error": Failure.INVALID_REQUEST,
    "authentication_error": Failure.AUTHENTICATION,
    "billing_error": Failure.CLIENT_ERROR,
    "permission_error": Failure.PERMISSION,
    "not_found_error": Failure.NOT_FOUND,
    "request_too_large": Failure.TOO_LARGE,
    "throttlingException": Failure.RATE_LIMITED,
    "serviceUnavailableException": Failure.OVERLOADED,
    "internalServerException": Failure.SERVER_ERROR,
    "modelStreamErrorException": Failure.SERVER_ERROR,
    "modelTimeoutException": Failure.REQUEST_TIMEOUT,
    "validationException": Failure.INVALID_REQUEST,
}
