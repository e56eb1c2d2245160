"""Events over HTTP: in three modes they are recorded once, as certain as asked; whatever cannot be kept is refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import stack
from serving import PUBLISHER, Answered, Served, answered, served

from relight.engine.http.body import MAX_BODY_BYTES
from relight.events.base import Control
from relight.events.catalog import event_types
from relight.events.envelope import rfc3339

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = "application/cloudevents-batch+json"
METACHARACTERS = ["' OR 1=1 --", "$1; DROP TABLE x", "a.*.>", "\u202e\U0001f600 %00", "<script>", "{{7*7}}", "../.."]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str) -> AsyncIterator[Served]:
    with stack.folder() as spools:
        async with served(shared_database, spools, receive_s=2) as api:
            yield api


def event(**changes: Any) -> dict[str, Any]:
    given = {
        "specversion": "1.0",
        "id": "1",
        "source": "test",
        "type": "breakers.failed",
        "time": "2026-01-01T00:00:00Z",
        "data": {"service_name": "api", "error_class": "Timeout"},
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


async def kept(api: Served, id: str, tenant: str = "acme") -> list[dict[str, Any]]:
    await stack.drained(api.recorder)
    await api.projecting.caught_up()
    return await api.projecting.rows(
        "SELECT tenant, service_name, event_type, details FROM circuit_breaker_events WHERE event_id = $1", id
    )


async def test_a_structured_event_is_recorded_and_its_receipt_reads_it(api: Served) -> None:
    answer = await api.send(event(id="s1"), ack=None)
    assert answer.status == 201
    assert answer.json["ack"] == "replicated"
    assert answer.headers["Relight-Receipt"] == answer.json["receipt"]
    rows = (await api.query("breakers.history", service="api", wait=answer.json["receipt"])).json["rows"]
    assert answer.json["id"] in {row["event_id"] for row in rows}


@pytest.mark.parametrize("ack", ["spooled", "replicated", "projected"])
async def test_the_answer_comes_once_it_is_as_certain_as_asked(api: Served, ack: str) -> None:
    answer = await api.send(event(id=f"ack-{ack}"), ack=ack)
    assert (answer.status, answer.json["ack"]) == (201, ack)
    if ack == "projected":
        rows = (await api.query("breakers.history", service="api")).json["rows"]
        assert answer.json["id"] in {row["event_id"] for row in rows}


async def test_sending_an_event_again_adds_nothing(api: Served) -> None:
    ids = {(await api.send(event(id="twice"))).json["id"] for _ in range(3)}
    [id] = ids
    assert len(await kept(api, id)) == 1


async def test_the_same_id_of_another_tenant_is_another_event(api: Served) -> None:
    mine, theirs = await api.send(event(id="same")), await api.send(event(id="same"), tenant="other")
    assert mine.json["id"] != theirs.json["id"]
    assert [row["tenant"] for row in await kept(api, theirs.json["id"])] == ["other"]


async def test_a_batch_is_recorded_whole_or_not_at_all(api: Served) -> None:
    batch = [event(id=f"b{n}", data={"service_name": f"batch-{n}"}) for n in range(250)]
    answer = await api.send(batch, content_type=BATCH)
    assert answer.status == 200
    assert len(answer.json["accepted"]) == 250
    assert answer.headers["Relight-Receipt"] == answer.json["accepted"][-1]["receipt"]
    before = api.recorder.health().recorded_events
    refused = await api.send([*batch[:3], event(id="bad", data={})], content_type=BATCH)
    assert refused.problem(422, "invalid-event").startswith("event 3: data.service_name: Field required; none was")
    assert api.recorder.health().recorded_events == before
    too_many = await api.send([event(id=f"m{n}", data={"service_name": "x"}) for n in range(1_001)], content_type=BATCH)
    assert "1 to 1000 events are taken at once" in too_many.problem(422, "invalid-event")
    (await api.send([], content_type=BATCH)).problem(422, "invalid-event")


async def test_a_binary_event_has_its_attributes_in_headers(api: Served) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": '"bin \\"1\\""',
        "ce-source": "%2Fcaf%C3%A9",
        "ce-type": "breakers.failed",
        "ce-time": "2026-01-01T00:00:00Z",
        "ce-dataversion": "1",
        "ce-subject": "b%20api",
    }
    answer = await api.send({"service_name": "b api"}, content_type="application/json; charset=utf-8", headers=headers)
    assert answer.status == 201, answer.body
    structured = event(id='bin "1"', source="/café", data={"service_name": "b api"})
    assert (await api.send(structured)).json["id"] == answer.json["id"]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "kind"),
    [
        ("text/plain", b"{}", 415, "wrong-content-type"),
        ("", b"{}", 415, "wrong-content-type"),
        ("application/xml", b"<a/>", 415, "wrong-content-type"),
        ("multipart/form-data; boundary=x", b"--x--", 415, "wrong-content-type"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "wrong-content-type"),
        ("application/json", b"{}", 415, "wrong-content-type"),
        ("application/cloudevents+xml", b"{}", 415, "wrong-content-type"),
        ("application/cloudevents+json; charset=utf-16", b"{}", 415, "wrong-content-type"),
        ("application/cloudevents+json", b"", 400, "malformed"),
        ("application/cloudevents+json", b"{", 400, "malformed"),
        ("application/cloudevents+json", b"\xff\xfe{}", 400, "malformed"),
        ("application/cloudevents+json", b'{"a": NaN}', 400, "malformed"),
        ("application/cloudevents+json", b'"\\ud800"', 400, "malformed"),
        ("application/cloudevents+json", b"[" * 100_000, 400, "malformed"),
        ("application/cloudevents+json", b"null", 422, "invalid-event"),
        ("application/cloudevents+json", b"[]", 422, "invalid-event"),
        ("application/cloudevents+json", b"{}", 422, "invalid-event"),
        (BATCH, b"{}", 400, "malformed"),
        (BATCH, b"[null]", 422, "invalid-event"),
    ],
)
async def test_what_is_no_event_is_refused(api: Served, content_type: str, body: bytes, status: int, kind: str) -> None:
    assert (await api.send(body, content_type=content_type)).problem(status, kind)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"specversion": "0.3"}, "specversion: "),
        ({"id": None}, "id: Field required"),
        ({"id": "x" * 1_001}, "id: "),
        ({"type": "breakers.opened"}, "type: breakers.opened is a ruling"),
        ({"type": "recorder.closed"}, "type: 'recorder.closed' is no event that can be sent"),
        ({"type": "x.*.>"}, "type: 'x.*.>' is no event"),
        ({"subject": "another"}, "subject: 'another', but 'api' is what"),
        ({"region": "mars"}, "region: 'mars', but 'eu' is what"),
        ({"tenant": "other"}, "tenant: 'other', but 'acme' is what"),
        ({"tenant": "-"}, "tenant: '-', but 'acme' is what"),
        ({"time": "yesterday"}, "time: "),
        ({"time": 1}, "time: "),
        ({"time": "2999-01-01T00:00:00Z"}, "time: before 1970, or more than 60 s ahead"),
        ({"time": None}, "time: needed where the id is no UUIDv7"),
        ({"datacontenttype": "text/xml"}, "datacontenttype: "),
        ({"data_base64": "aGk="}, "data_base64: there is no place for it"),
        ({"extra": "x"}, "extra: there is no place for it"),
        ({"dataversion": 9}, "dataversion: 9 of breakers.failed; there is 1 to 1"),
        ({"causationid": "x"}, "causationid: "),
        ({"traceparent": "x"}, "traceparent: "),
        ({"data": []}, "data: "),
        ({"data": {"service_name": "a\x00"}}, "data.service_name: "),
        ({"data": {"service_name": "a", "details": {"n": 2**60}}}, "data.details: "),
        ({"data": {"service_name": "a", "nope": 1}}, "data.nope: there is no place for it"),
        ({"publisher": "p-0"}, "publisher: there is no place for it"),
    ],
)
async def test_an_attribute_that_could_not_be_kept_is_refused_by_name(
    api: Served, changes: dict[str, Any], detail: str
) -> None:
    assert (await api.send(event(**changes))).problem(422, "invalid-event").startswith(detail)


@pytest.mark.parametrize("text", METACHARACTERS)
async def test_metacharacters_in_any_attribute_are_data_or_refused(api: Served, text: str) -> None:
    data = {"service_name": text, "error_class": text, "details": {text: text}}
    answer = await api.send(event(id=text, source=text, subject=text, correlationid=text, data=data), ack="projected")
    assert answer.status == 201, answer.body
    [row] = await kept(api, answer.json["id"])
    assert (row["tenant"], row["service_name"]) == ("acme", text)
    for name in ("specversion", "type", "time", "tenant", "region", "causationid", "traceparent", "dataversion"):
        (await api.send(event(**{name: text}))).problem(422, "invalid-event")


async def test_events_of_a_tenant_full_of_metacharacters_stay_its_own(api: Served) -> None:
    tenant = "a.*.> '; --"
    answer = await api.send(event(id="odd"), tenant=tenant, ack="projected")
    assert [row["tenant"] for row in await kept(api, answer.json["id"])] == [tenant]
    assert (await api.query("breakers.history", service="api", tenant="nobody")).json["rows"] == []


async def test_headers_of_a_binary_event_are_read_strictly(api: Served) -> None:
    good = {"ce-specversion": "1.0", "ce-id": "x", "ce-source": "s", "ce-type": "breakers.failed"}
    for name, value, status, kind in [
        ("ce-id", "caf%C3", 400, "malformed"),
        ("ce-id", "100%", 400, "malformed"),
        ("ce-dataversion", "-1", 422, "invalid-event"),
        ("ce-time", "%00", 422, "invalid-event"),
        ("ce-nonsense", "1", 422, "invalid-event"),
    ]:
        headers = good | {"ce-time": "2026-01-01T00:00:00Z"} | {name: value}
        answer = await api.send({"service_name": "a"}, content_type="application/json", headers=headers)
        answer.problem(status, kind)
    twice = [
        *good.items(),
        ("ce-id", "y"),
        ("Content-Type", "application/json"),
        *(await api.bearer(PUBLISHER)).items(),
    ]
    async with api.http.post(f"{api.url}/v1/events", data=b"{}", headers=twice) as response:
        assert "ce-id is given twice" in (await answered(response)).problem(400, "malformed")


async def test_ten_megabytes_are_refused_and_others_are_answered_meanwhile(api: Served) -> None:
    async def flood() -> Answered:
        return await api.send(b" " * 10_000_000)

    floods = [asyncio.create_task(flood()) for _ in range(5)]
    while not all(task.done() for task in floods):
        assert (await api.query("breakers.open_now")).status == 200
    for task in floods:
        task.result().problem(413, "too-large")


async def test_what_is_too_large_is_noticed_while_it_arrives_though_no_length_was_announced(api: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield b" " * 65_536
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/cloudevents+json", **await api.bearer(PUBLISHER)}
    async with api.http.post(f"{api.url}/v1/events", data=endless(), headers=headers) as response:
        (await answered(response)).problem(413, "too-large")


async def test_a_body_of_just_a_megabyte_is_read(api: Served) -> None:
    body = stack.orjson.dumps(event(id="big"))
    answer = await api.send(body + b" " * (MAX_BODY_BYTES - len(body)))
    assert answer.status == 201
    (await api.send(body + b" " * (MAX_BODY_BYTES - len(body) + 1))).problem(413, "too-large")


async def test_a_body_that_trickles_is_given_up(api: Served) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    token = await api.token(PUBLISHER)
    writer.write(
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/cloudevents+json\r\n"
        b"Content-Length: 1000\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n{"
    )
    answer = await asyncio.wait_for(reader.read(), stack.DEADLINE_S)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert b"/v1/problems/too-slow" in answer
    writer.close()


async def test_the_types_that_may_be_sent_are_observations_with_their_schemas(api: Served) -> None:
    listed = (await api.ask("/v1/event-types", role=PUBLISHER)).json["types"]
    names = {one["type"] for one in listed}
    assert names == {
        name for name, cls in event_types().items() if not issubclass(cls, Control) and not name.startswith("recorder.")
    }
    [failed] = [one for one in listed if one["type"] == "breakers.failed"]
    assert failed["subject"] == "service_name"
    assert failed["data"]["required"] == ["service_name"]


async def test_an_unknown_acknowledgement_is_refused(api: Served) -> None:
    assert (await api.send(event(), ack="hoped")).problem(422, "invalid-parameter").startswith("ack: one of spooled")


async def test_an_id_of_the_future_is_refused_and_one_of_now_is_kept(api: Served) -> None:
    now = api.clock.now()
    answer = await api.send(event(id=api.clock.next_id(), time=rfc3339(now)))
    assert answer.status == 201
    ahead = await api.send(event(id="f", time=rfc3339(now + timedelta(minutes=5))))
    ahead.problem(422, "invalid-event")


async def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_no_trace(
    api: Served, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    before = api.recorder.health().recorded_events
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {await api.token(PUBLISHER)}\r\n"
        writer.write(head.encode() + b"Content-Length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await api.query("breakers.open_now")).status == 200
    assert api.recorder.health().recorded_events == before
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
