"""Prices: exact micro-dollars by whichever name of a model, never a guess, and a file of one's own over them."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relight
from relight.engine.errors import SettingsError
from relight.engine.guard.facts import Usage
from relight.engine.guard.recording.answers import read_usage
from relight.engine.guard.recording.prices import Prices

LISTED = Prices.listed()
tokens = st.integers(0, 10_000_000)


def own(tmp_path: Path, text: str) -> Prices:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return Prices.load(path)


@pytest.mark.parametrize(
    ("model", "usage", "cost_microusd"),
    [
        ("claude-opus-4-8", Usage(1_000, 100), 7_500),
        ("claude-sonnet-4-5", Usage(1_000, 100), 4_500),
        ("claude-haiku-4-5", Usage(1, 1), 6),
        ("claude-opus-4-1", Usage(1_000_000, 0), 15_000_000),
        ("claude-sonnet-5-5", Usage(0, 0, 0, 1_000_000), 100_000),
        ("claude-opus-4-5", Usage(0, 0, 300, 0, 100), 200 * 25 // 4 + 100 * 10),
        ("claude-opus-4-5", Usage(0, 0, 300, 0), 300 * 25 // 4),
        ("claude-haiku-5-5", Usage(100_000, 10), 10_005),
        ("claude-haiku-5-5", Usage(90_000, 10, 5_000, 5_001), 45_000 + 25 + 3_125 + 250),
        ("claude-sonnet-4-5", Usage(200_001, 1_000), 1_200_006 + 22_500),
    ],
)
def test_tokens_cost_what_the_list_says(model: str, usage: Usage, cost_microusd: int) -> None:
    assert LISTED.cost_microusd(model, usage) == cost_microusd


@pytest.mark.parametrize(("output", "cost_microusd"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_half_a_micro_dollar_is_rounded_up_once_at_the_end(output: int, cost_microusd: int) -> None:
    assert LISTED.cost_microusd("claude-haiku-5-5", Usage(0, output)) == cost_microusd


@given(tokens, tokens, tokens, tokens, st.booleans())
def test_a_cost_is_the_exact_sum_rounded(read: int, written: int, cached: int, hit: int, regional: bool) -> None:
    exact = read * Fraction(5) + written * Fraction(25) + cached * Fraction(25, 4) + hit * Fraction(1, 2)
    exact *= Fraction(11, 10) if regional else 1
    region = "europe-west1" if regional else "global"
    cost = LISTED.cost_microusd("claude-opus-4-6", Usage(read, written, cached, hit), "gcp.vertex_ai", region)
    assert cost == int(exact + Fraction(1, 2))


@pytest.mark.parametrize(
    "model",
    [
        "claude-sonnet-4-5",
        "claude-sonnet-4-5-20250929",
        "claude-sonnet-4-5@20250929",
        "claude-sonnet-4-5-latest",
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ],
)
def test_a_model_is_found_by_all_its_names(model: str) -> None:
    assert LISTED.cost_microusd(model, Usage(1_000_000, 0, None, None)) == 6_000_000
    assert LISTED.cost_microusd(model, Usage(1_000, 0)) == 3_000


def test_where_inference_is_bound_to_a_region_newer_models_cost_a_tenth_more() -> None:
    usage = Usage(1_000, 0)
    for model in ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-6"):
        assert LISTED.cost_microusd(model, usage, "aws.bedrock", "eu-west-1") == 3_300
    assert LISTED.cost_microusd("claude-sonnet-4-5@20250929", usage, "gcp.vertex_ai", "europe-west1") == 3_300
    assert LISTED.cost_microusd("claude-sonnet-4-5@20250929", usage, "gcp.vertex_ai", "global") == 3_000
    assert LISTED.cost_microusd("claude-opus-4-6", Usage(1_000, 0, inference_geo="us"), "anthropic", "global") == 5_500
    assert LISTED.cost_microusd("eu.anthropic.claude-3-haiku-20240307-v1:0", usage, "aws.bedrock") == 250


@pytest.mark.parametrize(
    "usage",
    [
        Usage(1_000, None),
        Usage(None, 10),
        Usage(1_000, 10, service_tier="batch"),
        Usage(1_000, 10, service_tier="priority"),
        Usage(1_000, 10, speed="fast"),
    ],
)
def test_what_has_another_price_or_is_not_known_has_no_cost(usage: Usage) -> None:
    assert LISTED.cost_microusd("claude-opus-4-8", usage) is None


@pytest.mark.parametrize(
    "model", ["claude-next-9", "claude-opus", "", "gpt-9", "my-claude-opus-4-8", "claude-opus-4-8-x"]
)
def test_a_model_that_is_not_listed_has_no_price(model: str) -> None:
    assert LISTED.cost_microusd(model, Usage(1_000, 10)) is None


def test_searches_of_the_providers_tool_cost_extra() -> None:
    assert LISTED.cost_microusd("claude-opus-4-8", Usage(1_000, 0, web_searches=3)) == 5_000 + 3 * 10_000


def test_every_listed_price_says_when_and_where_it_was_found() -> None:
    for model, price in LISTED._models.items():
        assert price.as_of is not None, model
        assert price.source, model
        assert price.cache_read is not None, model
        assert price.cache_write_5m is not None, model
        assert price.input < price.cache_write_5m < (price.cache_write_1h or 0), model
        assert price.cache_read < price.input < price.output, model


def test_a_file_of_ones_own_comes_first_and_the_rest_of_the_list_stays(tmp_path: Path) -> None:
    prices = own(
        tmp_path,
        """
        web_search = 5
        [models.claude-opus-4-8]
        input = 1.5
        output = 7.123456
        [models.in-house]
        aliases = ["claude-sonnet-4-0", "house"]
        input = 0.1
        output = 0.2
        """,
    )
    assert prices.cost_microusd("claude-opus-4-8-20260501", Usage(1_000_000, 1_000_000)) == 1_500_000 + 7_123_456
    assert prices.cost_microusd("claude-opus-4-8", Usage(1, 1, 1, 0)) is None  # the file says no price of writing
    assert prices.cost_microusd("house", Usage(10, 0, web_searches=2)) == 1 + 10_000
    assert prices.cost_microusd("claude-sonnet-4-0", Usage(10, 0)) == 1
    assert prices.cost_microusd("claude-sonnet-4", Usage(10, 0)) == 30
    assert prices.cost_microusd("claude-haiku-4-5", Usage(10, 0)) == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.x]\ninput = 1\n", "models.x.output: Field required"),
        ("[models.x]\ninput = -1\noutput = 1\n", "models.x.input: Input should be greater than or equal to 0"),
        ('[models.x]\ninput = "free"\noutput = 1\n', "models.x.input"),
        ("[models.x]\ninput = nan\noutput = 1\n", "models.x.input"),
        ("[models.x]\ninput = 0.0000001\noutput = 1\n", "models.x.input"),
        ("[models.x]\ninput = 1\noutput = 1\nprice = 3\n", "models.x.price: Extra inputs are not permitted"),
        ("[model.x]\ninput = 1\n", "model: Extra inputs are not permitted"),
        ("[models.x\n", "is no TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=r"RELIGHT_PRICES_FILE: .*; correct it") as refused:
        own(tmp_path, text)
    assert said in str(refused.value)
    assert str(tmp_path / "prices.toml") in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        Prices.load(tmp_path / "none.toml")


def test_what_a_stream_says_bit_by_bit_adds_up() -> None:
    usage = Usage()
    read_usage(
        {
            "input_tokens": 10,
            "output_tokens": 1,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
            "service_tier": "standard",
            "inference_geo": "us",
        },
        usage,
    )
    read_usage({"output_tokens": 7, "server_tool_use": {"web_search_requests": 1}, "input_tokens": None}, usage)
    read_usage({"output_tokens": True, "cache_read_input_tokens": -1, "speed": 3}, usage)
    read_usage(None, usage)
    assert usage == Usage(10, 7, 5, None, 3, 1, "standard", None, "us")


async def test_nothing_is_opened_with_a_file_of_prices_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("[models.x]\ninput = 1\n")
    with pytest.raises(SettingsError, match="Field required"):
        async with relight.open(home=tmp_path, prices_file=tmp_path / "prices.toml"):
            pass
