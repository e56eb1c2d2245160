"""What an answer's status and headers, or an exception, say of how an attempt failed.

Nothing here reads a message: those of servers and libraries may quote what was sent.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpcore2
import httpx2
from anthropic import APIConnectionError, APIStatusError, APITimeoutError

from relight.engine.guard.facts import Failure

MAX_ASKED_S = 366 * 86_400.0
"""Nobody asks for more: it is nonsense, and taken for nothing said."""

_STATUSES = {
    400: Failure.INVALID_REQUEST,
    401: Failure.AUTHENTICATION,
    403: Failure.PERMISSION,
    404: Failure.NOT_FOUND,
    408: Failure.REQUEST_TIMEOUT,
    409: Failure.CONFLICT,
    413: Failure.TOO_LARGE,
    422: Failure.INVALID_REQUEST,
    429: Failure.RATE_LIMITED,
    529: Failure.OVERLOADED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How an attempt failed, and what the server wishes: to be asked again after `asked_s`, or not at all."""

    failure: Failure
    status: int | None = None
    request_id: str | None = None
    asked_s: float | None = None
    should_retry: bool | None = None


def of_response(response: httpx2.Response, *, now_us: int) -> Fault:
    """Of an answer whose status is no success."""
    headers = response.headers
    return Fault(
        failure=of_status(response.status_code),
        status=response.status_code,
        request_id=request_id(headers),
        asked_s=asked_s(headers, now_us=now_us),
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
    )


def of_status(status: int) -> Failure:
    if (failure := _STATUSES.get(status)) is not None:
        return failure
    if status >= 500:
        return Failure.SERVER_ERROR
    return Failure.CLIENT_ERROR if status >= 400 else Failure.UNKNOWN


def of_error(error: BaseException, *, now_us: int) -> Fault:
    """Of what a client raised: the causes behind it tell more than it does itself."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, APIStatusError):
            return of_response(cause.response, now_us=now_us)
    return Fault(failure=_of_causes(chain))


def _of_causes(chain: list[BaseException]) -> Failure:
    for cause in reversed(chain):
        match cause:
            case socket.gaierror():
                return Failure.NAME_RESOLUTION
            case TimeoutError() | APITimeoutError() | httpx2.TimeoutException() | httpcore2.TimeoutException():
                return Failure.TIMEOUT
            case ssl.SSLError():
                return Failure.TLS
            case OSError() | httpx2.TransportError() | httpcore2.NetworkError() | httpcore2.ProtocolError():
                return Failure.CONNECTION
            case httpx2.DecodingError():
                return Failure.MALFORMED
    return Failure.CONNECTION if any(isinstance(cause, APIConnectionError) for cause in chain) else Failure.UNKNOWN


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        # httpcore raises some of its errors inside an except clause, and says no cause.
        following = following.__cause__ or following.__context__


def request_id(headers: Mapping[str, str]) -> str | None:
    """Anthropic's, or the cloud's that stands before it."""
    for name in ("request-id", "x-amzn-requestid", "x-request-id"):
        if (value := headers.get(name)) is not None:
            return value[:256]
    return None


def asked_s(headers: Mapping[str, str], *, now_us: int) -> float | None:
    """Seconds that the server asks to be left alone for: `retry-after-ms`, else `retry-after` (RFC 9110, 10.2.3)."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return _sound(ms / 1_000)
    if (value := headers.get("retry-after")) is None:
        return None
    if (seconds := _number(value)) is not None:
        return _sound(seconds)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    try:
        return _sound(max(at.timestamp() - now_us / 1_000_000, 0.0))
    except (OverflowError, ValueError):
        return None


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _sound(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= MAX_ASKED_S else None
