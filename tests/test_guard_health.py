"""What a process says of its recording and guarding, to whoever is paged."""

from collections.abc import Iterator

import anthropic
import httpx2
import pytest
from guarding import ASK, NOON, TLS, idle_recorder

from relight.engine.clock import ScriptedClock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Step
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.process_health import process_health
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.recorder.recorder import Recorder

BREAKS_AT_ONCE = GuardPolicy(retries=0, breaker=BreakerPolicy(consecutive_failures=1, jitter=0, fleet=None))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with idle_recorder(ScriptedClock(NOON)) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeAnthropic]:
    with fake_anthropic_thread() as fake:
        yield fake


def called(
    fake: FakeAnthropic, guard: Guard, *, times: int = 1, model: str = ASK["model"], max_retries: int = 0
) -> None:
    http = httpx2.Client(verify=TLS)
    with anthropic.Anthropic(
        base_url=fake.url, api_key="sk-secret", max_retries=max_retries, middleware=[guard], http_client=http
    ) as client:
        for _ in range(times):
            try:
                client.messages.create(**{**ASK, "model": model})
            except Exception:
                continue


def test_where_all_is_well_nothing_is_said_but_that_servers_are_away(recorder: Recorder, fake: FakeAnthropic) -> None:
    fake.play(())
    called(fake, Guard(recorder))
    said = process_health(recorder).warnings
    assert [warning for warning in said if "NATS" not in warning and "fleet" not in warning] == []


def test_open_breakers_unpriced_models_and_clients_that_multiply_are_said_with_what_to_do(
    recorder: Recorder, fake: FakeAnthropic
) -> None:
    fake.play([Step(), Step(status=500, times=9)])
    guard, other = Guard(recorder, BREAKS_AT_ONCE), Guard(recorder, BREAKS_AT_ONCE)
    called(fake, other, model="claude-unheard-of", max_retries=2)
    called(fake, guard, times=3)
    recorder.stop(deadline_s=0)
    called(fake, guard)
    health = process_health(recorder)
    said = "\n".join(health.warnings)
    assert f"/{ASK['model']} is open until 12:00:30Z, this process's own: 1 failures in a row (3 calls refused)" in said
    assert "1 clients retry beside their guard; use relight.guarded(client), or max_retries=0" in said
    assert "what claude-unheard-of cost is not known: add them to RELIGHT_PRICES_FILE" in said
    assert "2 facts of calls came while the recorder did not run" in said
    assert "sk-secret" not in said + repr(health)


def test_made_up_names_of_models_share_one_breaker_which_is_counted_and_said(
    recorder: Recorder, fake: FakeAnthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.guard.breakers.breakers.MAX_MODELS", 2)
    fake.play([Step(), Step(), Step(status=500), Step()])
    guard, breakers = Guard(recorder, BREAKS_AT_ONCE), Breakers.beside(recorder)
    for model in ("claude-a", "claude-b", "made-up-1", "made-up-2"):
        called(fake, guard, model=model)
    assert len(fake.requests) == 3, "the third one failed, so that the fourth was refused"
    called(fake, guard, model="claude-a")
    assert len(fake.requests) == 4
    [shared] = breakers.health().breakers
    assert shared.name.endswith("/other")
    assert breakers.of("crm").name == "crm", "those that a program names itself do not share theirs"
    health = process_health(recorder)
    assert health.breakers.shared == 2
    assert "2 times a breaker was asked for beyond 200 models" in "\n".join(health.warnings)


def test_very_many_names_of_tools_share_one_breaker_too(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relight.engine.guard.breakers.breakers.MAX_TOOLS", 2)
    breakers = Breakers(recorder)
    names = [breakers.of(name).name for name in ("a", "b", "c", "d", "a")]
    assert (names, breakers.health().shared) == (["a", "b", "other", "other", "a"], 2)
