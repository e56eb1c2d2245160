"""Limits that are read from a file, and refusals that are told over HTTP."""

import json
from pathlib import Path

import pytest
from budgeting import NOON_US, check, refused

from relight.engine.errors import DeadlineExceeded, SettingsError
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.routes.refusals import circuit_open
from relight.engine.http.guarded import problem_response
from relight.engine.policies.budget import Limit, Per, Window


def test_limits_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(
        '[[limit]]\nagent = "*"\ntokens = 200_000\nper = "hour"\n[[limit]]\ntenant = "acme"\nattempts = 9\n'
    )
    assert Budgets.load(path).limits == (
        Limit(agent="*", tokens=200_000, per=Per.HOUR),
        Limit(tenant="acme", attempts=9),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no [[limit]]"),
        ("limit = 3", "limit"),
        ('[[limit]]\nagent = "a"', "limit.1: a limit says how many tokens, cost_microusd or attempts"),
        ("[[limit]]\ntoken = 3", "limit.1.token: Extra inputs are not permitted; a limit has tenant, agent, task"),
        ('[[limit]]\ntokens = 3\nper = "week"', "limit.1.per: Input should be 'minute', 'hour' or 'day'"),
        ("[[limit]]\ntokens = -3", "limit.1.tokens"),
        ("[[limit", "is no TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        Budgets.load(path)
    assert said in str(raised.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        Budgets.load(tmp_path / "none.toml")


def test_a_refusal_is_answered_over_http_as_a_problem_that_says_when_to_come_back() -> None:
    budgets = Budgets([Limit(attempts=1, per=Per.MINUTE, window=Window.FIXED)])
    check(budgets).settle()
    answer = problem_response(refused(budgets, now_us=NOON_US + 500_000))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.media_type == "application/problem+json"
    assert json.loads(bytes(answer.body))["kind"] == "attempts"
    answer = problem_response(circuit_open([], now_us=NOON_US))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    answer = problem_response(DeadlineExceeded("too late"))
    assert (answer.status_code, json.loads(bytes(answer.body))["detail"]) == (504, "too late")
