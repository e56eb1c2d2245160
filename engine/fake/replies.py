"""What goes over the wire for one request: which bytes, with which pauses, and how the connection ends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from relight.engine.fake import answers, problems, streamed
from relight.engine.fake.asked import Api, Asked, Operation
from relight.engine.fake.batches import Batches
from relight.engine.fake.framing import content_type, error_frame, framed, raw_frame
from relight.engine.fake.steps import Fault, Step

JSON = "application/json"
HTML = "<html><head><title>Bad gateway</title></head><body>The proxy has no answer.</body></html>"
PLAIN_CHUNKS = 8
BODILESS = (204, 205, 304)
BROKEN_JSON = b'{"type": "content_block_delta", "index": 0, "delta": {"ty'


class Ending(StrEnum):
    """Of the answer: what becomes of the connection."""

    WHOLE = "whole"
    """the answer is complete; the connection may be used again"""
    CLOSED = "closed"
    RESET = "reset"
    NEVER = "never"
    """held open until the client goes"""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    chunks: Sequence[tuple[float, bytes]] = ()
    """Each after a pause in seconds."""
    length: int | None = None
    """`content-length`, which may be more than what is sent; None: a chunked body."""
    head: bool = True
    """Whether the status and the headers are sent at all."""
    delay_s: float = 0.0
    head_byte_delay_s: float = 0.0
    ending: Ending = Ending.WHOLE


class Replies:
    """Makes replies; remembers batches."""

    def __init__(self, tokens_per_s: float | None = None) -> None:
        self._batches = Batches()
        self._tokens_per_s = tokens_per_s

    def reply(self, asked: Asked, step: Step, request_id: str, base_url: str) -> Reply:
        if asked.operation is Operation.UNKNOWN:
            step = Step(status=404, delay_s=step.delay_s)
        elif asked.wrong is not None and step.status == 200 and step.body is None:
            step = step.model_copy(update={"status": 400, "error_message": asked.wrong})
        if step.fault is Fault.ERROR_EVENT and not asked.streams:
            status = problems.status_of(step.error_type or "api_error")
            step = step.model_copy(update={"status": status, "fault": None})
        headers = {_request_id_header(asked.api): request_id}
        if step.status < 300 and asked.operation is Operation.MESSAGE and asked.streams and step.body is None:
            reply = self._stream(asked, step, request_id, headers)
        else:
            reply = self._plain(asked, step, request_id, headers, base_url)
        reply = replace(reply, headers={**reply.headers, **step.headers}, delay_s=reply.delay_s + step.delay_s)
        return _headless(reply, step)

    def _stream(self, asked: Asked, step: Step, request_id: str, headers: Mapping[str, str]) -> Reply:
        frames: list[tuple[float, bytes]] = []
        deltas = 0
        for event in streamed.events(answers.message(asked, step)):
            if _breaks_stream(step.fault) and deltas == step.after_deltas and _may_break(event):
                break
            if streamed.is_delta(event):
                deltas += 1
            pause_s = step.chunk_delay_s + (self._pace_s(1) if streamed.is_delta(event) else 0.0)
            frames.append((pause_s, framed(asked.api, event)))
        reply = Reply(200, {"content-type": content_type(asked.api), **headers}, chunks=frames)
        match step.fault:
            case Fault.ERROR_EVENT:
                error_type = step.error_type or "api_error"
                message = problems.error_message(step, error_type)
                frame = error_frame(asked.api, error_type, message, request_id)
                return replace(reply, chunks=[*frames, (step.chunk_delay_s, frame)])
            case Fault.MALFORMED_JSON:
                frame = raw_frame(asked.api, "content_block_delta", BROKEN_JSON)
                return replace(reply, chunks=[*frames, (step.chunk_delay_s, frame)])
            case Fault.EMPTY_BODY:
                return replace(reply, chunks=())
            case Fault.WRONG_CONTENT_TYPE:
                return _html(reply)
            case Fault.TRUNCATED:
                return replace(reply, ending=Ending.CLOSED)
            case Fault.RESET_IN_BODY:
                return replace(reply, ending=Ending.RESET)
            case _:
                return replace(reply, chunks=_slowly(frames, step))

    def _plain(self, asked: Asked, step: Step, request_id: str, headers: Mapping[str, str], base_url: str) -> Reply:
        delay_s, kind = 0.0, JSON
        if step.status in BODILESS:
            body = b""
        elif step.body is not None:
            body = step.body.encode()
        elif step.status >= 300:
            error_type = problems.error_type(step, step.status)
            message = problems.error_message(step, error_type)
            said, more = problems.error_body(asked.api, error_type, message, request_id)
            body, headers = orjson.dumps(said), {**headers, **more}
        elif asked.operation is Operation.MESSAGE:
            answer = answers.message(asked, step)
            body, delay_s = orjson.dumps(answer), self._pace_s(answer["usage"]["output_tokens"])
        elif asked.operation is Operation.COUNT_TOKENS:
            counted = answers.input_tokens(asked.body) if step.input_tokens is None else step.input_tokens
            body = orjson.dumps({"input_tokens": counted})
        else:
            found = self._batches.answer(asked, base_url)
            if found is None:
                return self._plain(asked, Step(status=404), request_id, headers, base_url)
            body, kind = found
        reply = Reply(step.status, {"content-type": kind, **headers}, length=len(body), delay_s=delay_s)
        return _broken(reply, body, step)

    def _pace_s(self, tokens: int) -> float:
        return tokens / self._tokens_per_s if self._tokens_per_s else 0.0


def _broken(reply: Reply, body: bytes, step: Step) -> Reply:
    """`body`, or what the fault leaves of it."""
    some = body[: len(body) // 2 if step.after_bytes is None else step.after_bytes]
    match step.fault:
        case Fault.EMPTY_BODY:
            return replace(reply, length=0)
        case Fault.WRONG_CONTENT_TYPE:
            return _html(reply)
        case Fault.MALFORMED_JSON:
            return replace(reply, chunks=_spread(some, step), length=len(some))
        case Fault.RESET_IN_BODY:
            return replace(reply, chunks=_spread(some, step), ending=Ending.RESET)
        case Fault.TRUNCATED | Fault.NO_MESSAGE_STOP:
            return replace(reply, chunks=_spread(some, step), ending=Ending.CLOSED)
        case _:
            return replace(reply, chunks=_slowly(_spread(body, step), step))


def _headless(reply: Reply, step: Step) -> Reply:
    match step.fault:
        case Fault.RESET_BEFORE_HEADERS:
            return replace(reply, head=False, ending=Ending.RESET)
        case Fault.CLOSED_BEFORE_HEADERS:
            return replace(reply, head=False, ending=Ending.CLOSED)
        case Fault.RESET_AFTER_HEADERS:
            return replace(reply, chunks=(), ending=Ending.RESET)
        case Fault.SILENT:
            return replace(reply, head=False, ending=Ending.NEVER)
        case Fault.SLOW_HEADERS:
            return replace(reply, head_byte_delay_s=step.byte_delay_s)
        case _:
            return reply


def _breaks_stream(fault: Fault | None) -> bool:
    return fault in (
        Fault.ERROR_EVENT,
        Fault.MALFORMED_JSON,
        Fault.NO_MESSAGE_STOP,
        Fault.RESET_IN_BODY,
        Fault.TRUNCATED,
    )


def _may_break(event: Mapping[str, object]) -> bool:
    """Only after the message has begun, and where a delta stood or the stream would end."""
    return event["type"] in ("content_block_delta", "content_block_stop", "message_delta")


def _html(reply: Reply) -> Reply:
    body = HTML.encode()
    return replace(
        reply, headers={**reply.headers, "content-type": "text/html"}, chunks=[(0.0, body)], length=len(body)
    )


def _spread(body: bytes, step: Step) -> Sequence[tuple[float, bytes]]:
    if not step.chunk_delay_s:
        return [(0.0, body)]
    size = max(1, -(-len(body) // PLAIN_CHUNKS))
    return [(step.chunk_delay_s, body[at : at + size]) for at in range(0, len(body), size)]


def _slowly(chunks: Sequence[tuple[float, bytes]], step: Step) -> Sequence[tuple[float, bytes]]:
    return list(_bytewise(chunks, step.byte_delay_s)) if step.fault is Fault.SLOW_BODY else chunks


def _bytewise(chunks: Sequence[tuple[float, bytes]], pause_s: float) -> Iterator[tuple[float, bytes]]:
    for _, chunk in chunks:
        for at in range(len(chunk)):
            yield pause_s, chunk[at : at + 1]


def _request_id_header(api: Api) -> str:
    return "x-amzn-requestid" if api is Api.BEDROCK else "request-id"
