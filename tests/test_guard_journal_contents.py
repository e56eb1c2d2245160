"""What the journal keeps of requests and answers: digests or bytes, and nothing that a hook did not let through."""

from typing import Any

import journaling
import orjson
import pytest
from journaling import BODY, COST, MESSAGE, OPUS, SHA, Scene, attempt, ended, sha256

from relight.engine.errors import ContentError
from relight.engine.guard.facts import Answer, Usage
from relight.engine.settings import ContentPolicy

pytestmark = pytest.mark.asyncio(loop_scope="module")
scene = journaling.scene


async def test_a_digest_is_none_where_the_policy_is_and_the_bytes_are_kept_under_full(scene: Scene) -> None:
    body = orjson.dumps(MESSAGE)
    for policy in ContentPolicy:
        journal, call = scene.journal(content=policy), scene.call(body=BODY | {"metadata": {"user_id": policy.value}})
        journal.taken(call)
        journal.known(ended(call), attempt(body=body))
        taken, tried, *_ = await scene.events_of(call)
        if policy is ContentPolicy.NONE:
            assert "request" not in taken["data"]
            assert "content" not in tried["data"]
            continue
        request, response = taken["data"]["request"], tried["data"]["content"]
        if policy is ContentPolicy.DIGEST:
            with pytest.raises(ContentError):
                await scene.content(request)
        else:
            assert orjson.loads(await scene.content(request)) == call.body
            assert await scene.content(response) == body
            with pytest.raises(ContentError):
                await scene.content(response, tenant="ops")


async def test_hooks_redact_in_order_what_is_kept_and_what_is_digested(scene: Scene) -> None:
    def blank(kind: str, document: Any) -> Any:
        text = orjson.dumps(document).replace(b"secret", b"[hidden]")
        return {"kind": kind, "document": orjson.loads(text)}

    def sign(_: str, document: Any) -> Any:
        return document | {"signed": True}

    for policy in (ContentPolicy.DIGEST, ContentPolicy.FULL):
        journal, call = scene.journal(content=policy, redact=(blank, sign)), scene.call()
        journal.taken(call)
        journal.known(ended(call), attempt(body=orjson.dumps(MESSAGE)))
        taken, tried, *_, known = await scene.events_of(call)
        wanted = {"document": orjson.loads(orjson.dumps(BODY).replace(b"secret", b"[hidden]")), "kind": "request"}
        expected = orjson.dumps(wanted | {"signed": True}, option=orjson.OPT_SORT_KEYS)
        assert taken["data"]["request"]["sha256"] == sha256(expected)
        assert known["data"]["output_tokens"] == 100
    assert await scene.content(taken["data"]["request"]) == expected
    assert b"the [hidden] answer" in await scene.content(tried["data"]["content"])
    assert call.body == BODY


@pytest.mark.parametrize("kind", ["raises", "gives nothing", "gives no JSON"])
async def test_where_a_hook_fails_the_content_is_not_recorded_and_that_is_counted(
    scene: Scene, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_: str, document: Any) -> Any:
        if kind == "raises":
            raise RuntimeError(f"cannot redact {document}")
        return None if kind == "gives nothing" else {"a set": {1, 2}}

    journal, call = scene.journal(content=ContentPolicy.FULL, redact=(hook,)), scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body=orjson.dumps(MESSAGE)))
    taken, tried, *_, known = await scene.events_of(call)
    assert "request" not in taken["data"]
    assert "content" not in tried["data"]
    assert known["data"]["cost_microusd"] == COST
    assert journal.refused_contents == 2
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "content_refused"]
    assert len(said) == 2
    assert call.decision in said[0]
    assert "secret" not in "".join(said)


def streamed(*texts: str) -> bytes:
    start = MESSAGE | {"content": [], "stop_reason": None, "usage": {"input_tokens": 5, "output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "refund", "input": {}},
        },
        *(
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": part}}
            for part in ('{"card"', ': "4111 1111"}')
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), orjson.dumps(e)) for e in events)


async def test_hooks_see_a_streamed_answer_as_the_message_that_it_is(scene: Scene) -> None:
    def blank(kind: str, document: Any) -> Any:
        return orjson.loads(orjson.dumps(document).replace(b"secret", b"[hidden]").replace(b"4111 1111", b"[card]"))

    body = streamed("the se", "cret ans", "wer")
    journal, call = scene.journal(content=ContentPolicy.FULL, redact=(blank,)), scene.call(streams=True)
    journal.taken(call)
    answer = Answer("msg_1", OPUS.model, "tool_use", Usage(5, 7))
    journal.known(ended(call), attempt(body=body, body_sha256=sha256(body), body_bytes=len(body), answer=answer))
    _, tried, *_, known = await scene.events_of(call)
    kept = orjson.loads(await scene.content(tried["data"]["content"]))
    assert kept["content"] == [
        {"type": "text", "text": "the [hidden] answer"},
        {"type": "tool_use", "id": "t", "name": "refund", "input": {"card": "[card]"}},
    ]
    assert (kept["stop_reason"], kept["usage"]) == ("tool_use", {"input_tokens": 5, "output_tokens": 7})
    assert known["data"]["cost_microusd"] == 5 * 5 + 7 * 25


async def test_what_cannot_be_put_together_is_not_recorded_where_there_are_hooks(scene: Scene) -> None:
    journal = scene.journal(content=ContentPolicy.FULL, redact=(lambda _, document: document,))
    bodies_ = (b"<html>the secret", streamed("a") + b'event: error\ndata: {"type":"error"}\n\n', b"\0" * 40, b"")
    for body in bodies_:
        call = scene.call()
        journal.taken(call)
        journal.known(ended(call), attempt(body=body))
        assert "content" not in (await scene.events_of(call))[1]["data"]
    assert journal.refused_contents == len(bodies_)
    call = scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body_sha256=SHA, body_bytes=9))
    assert "content" not in (await scene.events_of(call))[1]["data"]


async def test_a_stream_whose_bytes_nobody_kept_has_the_digest_that_was_made_as_it_passed(scene: Scene) -> None:
    journal, call = scene.journal(), scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body_sha256=SHA, body_bytes=9))
    assert (await scene.events_of(call))[1]["data"]["content"] == {"sha256": SHA, "size_bytes": 9}
