"""AzureLLMInferenceTrace_*.csv (Azure/AzurePublicDataset, CC-BY): when a model was called, and its tokens, row by row.

TIMESTAMP has seven digits of a second and no zone: it is taken for UTC, to the microsecond. A row does not say who
asked which model of whom, whether the call succeeded, nor how long it took: these stay null, the outcome is `unknown`,
and both of its events are of the row's time.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relight.engine.errors import ImportRefused
from relight.engine.importers.identity import EPOCH, Entry, Fact, Format, Malformed
from relight.engine.importers.lines import MAX_LINE_BYTES, lines
from relight.events.decisions import DecisionOutcomeKnown, DecisionTaken, Outcome

HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"
SOURCE = "AzureLLMInferenceTrace"
MAX_TOKENS = 10**9
"""More are no call's; a few thousand rows of 2^53 would overflow a sum in PostgreSQL."""
_TIME = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")
_NUMBER = re.compile(rb"[+-]?\d{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A row."""

    ordinal: int
    text: bytes
    time: datetime
    context_tokens: int
    generated_tokens: int

    def facts(self, key: str) -> tuple[Fact, ...]:
        taken = DecisionTaken(decision=key, decision_type="agent_call", context={"source": SOURCE, "row": self.ordinal})
        outcome = DecisionOutcomeKnown(
            decision=key,
            outcome=Outcome.UNKNOWN,
            input_tokens=self.context_tokens,
            output_tokens=self.generated_tokens,
        )
        return Fact(event=taken, time=self.time), Fact(event=outcome, time=self.time)


def read(path: Path, now: datetime) -> Iterator[Entry | Malformed]:
    """The rows in their order, numbered from 1 as they stand; empty lines are none. Raises `ImportRefused`."""
    for number, line in lines(path):
        if number == 1:
            if line != HEADER:
                shown = "longer than any" if line is None else repr(line.decode(errors="replace")[:60])
                raise ImportRefused(
                    f"{path} is no Azure LLM inference trace: its first line is {shown}, not {HEADER.decode()}"
                )
        elif line is None:
            yield Malformed(line=number, reason=f"longer than {MAX_LINE_BYTES} bytes")
        elif line.strip():
            yield _call(number, line, now)


def _call(number: int, line: bytes, now: datetime) -> Call | Malformed:
    try:
        fields = line.split(b",")
        if len(fields) != 3:
            raise ValueError(f"{len(fields)} fields, not 3: {_shown(line)}")
        return Call(
            ordinal=number - 1,
            text=line,
            time=_time(fields[0], now),
            context_tokens=_tokens("ContextTokens", fields[1]),
            generated_tokens=_tokens("GeneratedTokens", fields[2]),
        )
    except ValueError as error:
        return Malformed(line=number, reason=str(error))


def _time(text: bytes, now: datetime) -> datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"TIMESTAMP is no time such as 2023-11-16 18:15:46.6805900: {_shown(text)}")
    try:
        whole = datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"TIMESTAMP is on no calendar ({error}): {_shown(text)}") from None
    moment = whole + timedelta(microseconds=int((match[2] or b"0").ljust(6, b"0")[:6]))
    if not EPOCH <= moment <= now:
        raise ValueError(f"TIMESTAMP is {'before 1970' if moment < EPOCH else 'in the future'}: {_shown(text)}")
    return moment


def _tokens(name: str, text: bytes) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{name} is no whole number: {_shown(text)}")
    if not 0 <= (tokens := int(text)) <= MAX_TOKENS:
        raise ValueError(f"{name} is {'negative' if tokens < 0 else f'beyond {MAX_TOKENS:,}'}: {_shown(text)}")
    return tokens


def _shown(text: bytes) -> str:
    return ascii(text.decode(errors="replace")[:60])


AZURE_LLM = Format(name="azure-llm", rows="calls", read=read)
