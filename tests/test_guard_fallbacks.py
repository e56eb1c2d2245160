"""A guarded call's way through fallbacks: what is on the wire, what is told, and what comes back."""

import anthropic
import pytest
import two_providers
from anthropic import Anthropic, AnthropicBedrock, AsyncAnthropic
from falling_back import MODEL, OTHER, PLAIN, plain
from two_providers import ASK, BREAKS_AT_ONCE, CREDENTIALS, RETRIES_ONCE, SYNC_AND_ASYNC, Scene, ask

from relight.engine.errors import GuardError
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.guarded import guarded
from relight.engine.guard.routes.fallback import Fallback

servers, scene = two_providers.servers, two_providers.scene


@SYNC_AND_ASYNC
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_after_its_retries_a_call_goes_to_another_provider_and_the_record_says_why(
    scene: Scene, stream: bool, asynchronous: bool
) -> None:
    scene.play(first=[Step(status=500, times=9)])
    fallback = scene.bedrock(asynchronous=asynchronous, reason="another provider")
    assert ask(scene.client(RETRIES_ONCE, fallback, asynchronous=asynchronous), stream=stream).endswith("to: hello")
    assert scene.waited == [1.0]
    assert scene.told() == [
        (scene.one, "server_error", None),
        (scene.one, "server_error", None),
        (scene.other, None, f"another provider: {scene.one} server_error"),
    ]
    [call] = scene.calls
    assert call.served_by is not None
    assert (call.attempts, call.failure, call.served_by.name) == (3, None, scene.other)
    assert [len(scene.first.requests), len(scene.second.requests)] == [2, 1]


@SYNC_AND_ASYNC
def test_a_stream_that_fails_before_its_first_delta_goes_on_from_another_model(
    scene: Scene, asynchronous: bool
) -> None:
    scene.play(first=[Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error", times=2)])
    client = scene.client(RETRIES_ONCE, Fallback(model=OTHER), asynchronous=asynchronous)
    assert ask(client, stream=True).endswith("to: hello")
    assert [request.json["model"] for request in scene.first.requests] == [MODEL, MODEL, OTHER]
    assert [failure for _, failure, _ in scene.told()] == ["overloaded", "overloaded", None]


def test_after_the_first_delta_nobody_else_is_asked(scene: Scene) -> None:
    scene.play(first=[Step(fault=Fault.RESET_IN_BODY, after_deltas=1, times=9)])
    with pytest.raises(Exception, match=r".+"):
        ask(scene.client(RETRIES_ONCE, Fallback(model=OTHER), scene.bedrock()), stream=True)
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 0]


@pytest.mark.parametrize(("status", "error"), [(400, anthropic.BadRequestError), (401, anthropic.AuthenticationError)])
def test_what_any_provider_would_refuse_or_nobody_asked_for_goes_nowhere(
    scene: Scene, status: int, error: type[Exception]
) -> None:
    scene.play(first=[Step(status=status, times=9)])
    with pytest.raises(error):
        ask(scene.client(RETRIES_ONCE, scene.bedrock()))
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 0]


@pytest.mark.parametrize(
    ("step", "on"),
    [
        (Step(status=401), "authentication"),
        (Step(status=529), "overloaded"),
        (Step(stop_reason="refusal"), "refusal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_fallback_is_on_leads_to_it_at_once(scene: Scene, step: Step, on: str) -> None:
    scene.play(first=[step])
    assert ask(scene.client(RETRIES_ONCE, scene.bedrock(on=(on,)))).endswith("to: hello")
    assert scene.waited == []
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 1]
    assert scene.attempts[-1].fallback_reason == f"{scene.one} {on}"


def test_a_refusal_that_no_fallback_is_on_is_an_answer(scene: Scene) -> None:
    scene.play(first=[Step(stop_reason="refusal")])
    message = scene.client(RETRIES_ONCE, scene.bedrock()).messages.create(**ASK)
    assert message.stop_reason == "refusal"
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 0]


def test_when_all_fail_the_caller_gets_the_last_ones_own_error(scene: Scene) -> None:
    scene.play(first=[Step(status=529, times=9)], second=[Step(status=403, times=9)])
    with pytest.raises(anthropic.PermissionDeniedError):
        ask(scene.client(RETRIES_ONCE, scene.bedrock(retries=0)))
    assert [failure for _, failure, _ in scene.told()] == ["overloaded", "overloaded", "permission"]


def test_the_retries_of_a_fallback_are_its_own(scene: Scene) -> None:
    scene.play(first=[Step(status=500, times=9)], second=[Step(status=529, times=9)])
    with pytest.raises(anthropic.InternalServerError):
        ask(scene.client(RETRIES_ONCE, scene.bedrock(retries=0)))
    assert [len(scene.first.requests), len(scene.second.requests)] == [2, 1]


def test_a_guarded_client_may_have_fallbacks_of_its_kind_and_its_provider_only(scene: Scene) -> None:
    bedrock = AnthropicBedrock(base_url=scene.first.url, http_client=PLAIN, **CREDENTIALS)
    elsewhere = AnthropicBedrock(
        base_url=scene.second.url, http_client=PLAIN, **CREDENTIALS | {"aws_region": "us-east-1"}
    )
    scene.play(first=[Step(status=400), Step(status=500)])
    client = guarded(bedrock, scene.recorder, BREAKS_AT_ONCE, fallbacks=[Fallback(elsewhere)])
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**ASK)
    assert client.messages.create(**ASK).content
    assert scene.second.requests[0].path == f"/model/{MODEL}/invoke"
    with pytest.raises(GuardError, match="cannot be the fallback of an async one"):
        guarded(
            AsyncAnthropic(api_key="k", http_client=plain(asynchronous=True)),
            scene.recorder,
            fallbacks=[Fallback(bedrock, model="m")],
        )
    with pytest.raises(GuardError, match="its own names for models"):
        guarded(Anthropic(api_key="k", http_client=PLAIN), scene.recorder, fallbacks=[Fallback(bedrock)])
    mistaken = scene.client(RETRIES_ONCE, scene.bedrock(asynchronous=True))
    with pytest.raises(GuardError, match="cannot stand in for a sync one"):
        mistaken.messages.create(**ASK)
    assert len(scene.first.requests) == 2
