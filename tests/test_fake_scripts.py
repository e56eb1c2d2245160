"""Scripts of the fake Anthropic, its framing, its thread, and `relight fake-anthropic`."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from relight.engine.cli.fake_anthropic import fake_anthropic
from relight.engine.errors import SettingsError
from relight.engine.fake.framing import aws_message
from relight.engine.fake.mix import drawn, parse_mix
from relight.engine.fake.script import Script, Then, load_script
from relight.engine.fake.server import fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step

ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}


def test_the_synchronous_client_has_it_in_a_thread() -> None:
    with fake_anthropic_thread([Step(status=529), Step(fault=Fault.RESET_IN_BODY, after_deltas=1)]) as fake:
        with anthropic.Anthropic(base_url=fake.url, api_key="k", max_retries=0) as client:
            with pytest.raises(anthropic.OverloadedError):
                client.messages.create(**ASK)
            with pytest.raises(httpx2.ReadError):
                list(client.messages.create(**ASK, stream=True))
            assert client.messages.create(**ASK).stop_reason == "end_turn"
    assert [seen.misbehaved for seen in fake.requests] == ["529", "reset_in_body", None]


def test_an_event_stream_message_is_framed_as_aws_reads_it() -> None:
    from botocore.eventstream import EventStreamBuffer

    buffer = EventStreamBuffer()
    buffer.add_data(aws_message({":event-type": "chunk", "ü": "ö"}, b"one") + aws_message({}, b""))
    first, second = list(buffer)
    assert (first.headers, first.payload) == ({":event-type": "chunk", "ü": "ö"}, b"one")
    assert (second.headers, second.payload) == ({}, b"")


def test_a_script_says_what_each_request_meets() -> None:
    steps = (Step(status=500, times=2), Step(status=529))
    served = {
        then: [Script(steps=steps, then=then).step(number).status for number in range(7)]
        for then in (Then.ANSWER, Then.LAST, Then.AGAIN)
    }
    assert served == {
        Then.ANSWER: [500, 500, 529, 200, 200, 200, 200],
        Then.LAST: [500, 500, 529, 529, 529, 529, 529],
        Then.AGAIN: [500, 500, 529, 500, 500, 529, 500],
    }


def test_a_mix_is_the_same_for_the_same_seed_and_has_its_shares() -> None:
    shares = parse_mix("10% 529, 2.5 % reset_before_headers")
    drawn_twice = [[drawn(shares, seed, number) for number in range(4_000)] for seed in (1, 1, 2)]
    assert drawn_twice[0] == drawn_twice[1] != drawn_twice[2]
    assert 0.08 < sum(step.status == 529 for step in drawn_twice[0]) / 4_000 < 0.12
    assert 0.015 < sum(step.fault is not None for step in drawn_twice[0]) / 4_000 < 0.035


def test_a_script_is_read_from_toml_and_json(tmp_path: Path) -> None:
    toml, js = tmp_path / "script.toml", tmp_path / "script.json"
    toml.write_text('then = "last"\nfaults = "1% 500"\n[[steps]]\nstatus = 429\nheaders = { retry-after = 2 }\n')
    js.write_text(
        json.dumps({"then": "last", "faults": "1% 500", "steps": [{"status": 429, "headers": {"retry-after": "2"}}]})
    )
    assert load_script(toml) == load_script(js)
    assert load_script(toml).step(3).headers == {"retry-after": "2"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[steps]]\nstatu = 429", r"steps.0.statu: there is no such field; the fields are status, "),
        ('[[steps]]\nfault = "explode"', r"steps.0.fault: input should be 'reset_before_headers', .* not 'explode'"),
        ("[[steps]]\ndelay_s = -1", r"steps.0.delay_s: input should be greater than or equal to 0, not -1"),
        ("[[steps]]\nstatus = 99", r"steps.0.status: .*, not 99"),
        ("step = 1", r"step: there is no such field; the fields are steps, then, faults, seed"),
        ('faults = "3% explode"', r"faults: 'explode' is neither a status nor a fault: the faults are "),
        ('faults = "60% 500, 50% 529"', r"faults: the shares add up to 110 %"),
        ('faults = "many"', r"faults: 'many' is no share: write as in '10% 529, "),
        ('faults = "3% 200"', r"faults: 200 is no status of an error"),
        ("steps", r"is no TOML: "),
        ('[[steps]]\nheaders = { "a b" = 1 }', r"steps.0.headers.a b.\[key\]: string should match pattern"),
        ("[[steps]]\nheaders = { Content-Length = 1 }", r"steps.0.headers: content-length follows from the body"),
    ],
)
def test_a_wrong_script_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "script.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load_script(path)


def test_the_command_serves_its_script_and_ends_with_a_summary(tmp_path: Path) -> None:
    script = tmp_path / "script.toml"
    script.write_text("[[steps]]\nstatus = 529\n")
    command = [sys.executable, "-m", "relight.engine.cli.main", "fake-anthropic", "--json", "--script", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with anthropic.Anthropic(base_url=url, api_key="k", max_retries=1) as client:
                assert client.messages.create(**ASK).stop_reason == "end_turn"
            process.send_signal(signal.SIGINT)
            lines = [json.loads(line) for line in process.communicate(timeout=20)[0].splitlines()]
        finally:
            process.kill()
    assert [line.get("served") for line in lines] == ["529", "200", None]
    assert lines[-1] == {"requests": 2, "hung_up": 0, "faults": {"529": 1}}
    assert process.returncode == 0


def test_the_command_tells_people_where_it_is_and_heeds_sigterm(capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: it is the signal to itself that ends it, once the request has been served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, raised = f"http://127.0.0.1:{port}", []

    def ask() -> None:
        try:
            key = {"key": "sk-secret"}  # that ends up in the address, which was printed once
            with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, timeout=5, default_query=key) as client:
                assert _listens(port)
                client.messages.create(**ASK)
        except anthropic.APIStatusError as error:
            raised.append(error.status_code)
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    fake_anthropic(port=port, script=None, faults="100% 503", seed=2, tokens_per_s=None, as_json=False)
    asking.join()
    lines = capsys.readouterr().out.splitlines()
    assert f"export ANTHROPIC_BASE_URL={url}" in lines
    assert lines[-2].startswith("#0 POST /v1/messages claude-opus-4-8: 503 (")
    assert lines[-1] == "1 request: 0 answered well; 503 1"
    assert raised == [503]


def _listens(port: int) -> bool:
    """Waits for it."""
    for _ in range(1_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.01)
    return False
