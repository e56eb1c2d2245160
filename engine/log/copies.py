"""What one server holds of the stream by itself, as its monitoring address tells: a leader speaks for its own copy."""

import urllib.request
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from relight.engine.log.topology import STREAM

ASK_S = 2.0

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One server's; `leads`: it is the one that acknowledges."""

    server: str
    first_seq: int
    last_seq: int
    messages: int
    leads: bool
    stream: str = STREAM


class _State(BaseModel):
    messages: int
    first_seq: int
    last_seq: int


class _Cluster(BaseModel):
    leader: str = ""


class _Stream(BaseModel):
    name: str
    state: _State
    cluster: _Cluster | None = None


class _Account(BaseModel):
    stream_detail: tuple[_Stream, ...] = ()


class _Streams(BaseModel):
    account_details: tuple[_Account, ...] = ()


class _Server(BaseModel):
    server_name: str
    tags: tuple[str, ...] | None = None


def copy_of(url: str, stream: str = STREAM) -> Copy | None:
    """None where the server does not answer, or holds no copy. Blocks, for twice `ASK_S` at most."""
    try:
        found = _Streams.model_validate_json(_asked(f"{url.rstrip('/')}/jsz?accounts=true&streams=true"))
        server = _Server.model_validate_json(_asked(f"{url.rstrip('/')}/varz"))
    except (OSError, ValidationError):
        return None
    for account in found.account_details:
        for detail in account.stream_detail:
            if detail.name == stream:
                return Copy(
                    server=server.server_name,
                    first_seq=detail.state.first_seq,
                    last_seq=detail.state.last_seq,
                    messages=detail.state.messages,
                    leads=detail.cluster is None or detail.cluster.leader == server.server_name,
                    stream=stream,
                )
    return None


def _asked(url: str) -> bytes:
    with _direct.open(url, timeout=ASK_S) as response:
        answer: bytes = response.read()
        return answer
