"""Payloads of every version, kept for ever, and any CloudEvents SDK: all of them are read."""

from pathlib import Path

import orjson
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from folding import START, event_id, id_at, moment, wire

from relight.events.base import Event
from relight.events.breakers import BreakerFailed
from relight.events.catalog import decode, event_types
from relight.events.certification import CertificationGranted
from relight.events.decisions import DecisionTaken
from relight.events.failover import FailoverPolicyDeclared
from relight.events.values import MAX_INTEGER

PAYLOADS = Path(__file__).parent / "payloads"


def versions() -> list[tuple[str, int]]:
    return [(type, version) for type, cls in event_types().items() for version in range(1, cls.VERSION + 1)]


def test_every_version_of_every_event_has_a_payload_and_nothing_else_has() -> None:
    assert {path.name for path in PAYLOADS.iterdir()} == {f"{type}.v{version}.json" for type, version in versions()}


@pytest.mark.parametrize(("type", "version"), versions())
def test_a_payload_of_any_version_is_still_read(type: str, version: int) -> None:
    body = (PAYLOADS / f"{type}.v{version}.json").read_bytes()
    document = orjson.loads(body)
    event = decode(body)
    assert (event.type, document["dataversion"]) == (type, version)
    assert event.dataversion == event_types()[type].VERSION
    if version == event.dataversion:
        read = orjson.loads(event.data.model_dump_json())
        assert {name: read[name] for name in document["data"]} == document["data"]


@pytest.mark.parametrize(("type", "version"), versions())
def test_the_cloudevents_sdk_reads_ours_and_we_read_what_it_writes(type: str, version: int) -> None:
    body = (PAYLOADS / f"{type}.v{version}.json").read_bytes()
    theirs = JSONFormat().read(None, body)
    assert isinstance(theirs, CloudEvent)
    ours = decode(body)
    assert (theirs.get_id(), theirs.get_type(), theirs.get_subject()) == (ours.id, ours.type, ours.subject)
    assert theirs.get_time() == ours.time
    assert decode(JSONFormat().write(theirs)) == ours


def test_an_event_made_with_the_cloudevents_sdk_is_read() -> None:
    made = CloudEvent(
        attributes={
            "specversion": "1.0",
            "id": event_id(1_767_225_600_000),
            "source": "relight://eu/go-agent",
            "type": "breakers.failed",
            "subject": "search",
            "time": START,
            "datacontenttype": "application/json",
            "tenant": "acme",
            "region": "eu",
            "dataversion": 1,
            "publisher": "go-agent.0",
            "pseq": "1",
            "prev": "0" * 64,
        },
        data={"service_name": "search", "error_class": "timeout"},
    )
    assert decode(JSONFormat().write(made)).data == BreakerFailed(service_name="search", error_class="timeout")


def test_events_with_all_sorts_of_values_survive_the_cloudevents_sdk() -> None:
    facts: list[Event] = [
        DecisionTaken(decision="ü %", decision_type="agent_call", context={"a": [None, 0.1, {"ß": MAX_INTEGER}]}),
        FailoverPolicyDeclared(policy_name="p", source_region="eu", fallback_regions=("b", "a"), is_active=False),
        CertificationGranted.model_validate(
            {
                "certification": "c",
                "component_name": "k",
                "certification_level": "basic",
                "tests_passed": 0,
                "tests_failed": 0,
                "overall_score": 1 / 3,
            }
        ),
    ]
    for fact in facts:
        _, body, ours = wire(fact, id=id_at(0), time=moment(0))
        assert decode(JSONFormat().write(JSONFormat().read(None, body))) == ours
