"""What an answer cost: list prices of models, and those of the user's own file over them."""

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from relight.engine.errors import SettingsError
from relight.engine.guard.facts import Usage

Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=16, decimal_places=6, allow_inf_nan=False)]
"""Per million tokens, and so micro-dollars per token."""
_USD, _FACTOR = 10**6, 10**4
"""Prices and factors are turned into integers of so many decimals: what is summed is exact, and rounded once."""
_BEDROCK = re.compile(r"(?:(?P<geo>[a-z][a-z-]*)\.)?anthropic\.(?P<model>.+?)(?:-v\d+)?(?::[\w-]+)*")
_DATED = re.compile(r"(?P<model>.+?)(?:[-@]\d{8}|-latest|@latest|@default)")
_GLOBAL = ("global", "-", None)
_STANDARD = ("standard", None)


class Rates(BaseModel):
    """Five prices that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Usd
    output: Usd
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    cache_read: Usd | None = None


class LongPrompt(Rates):
    """Prices of a request whose prompt, with what the cache had of it, is longer than that."""

    above: Annotated[int, Field(ge=0)]


class Price(Rates):
    """Of one model. `regional`: what they are multiplied by where inference is bound to a region."""

    long_prompt: LongPrompt | None = None
    regional: Annotated[Decimal, Field(gt=0, le=100, decimal_places=4)] = Decimal(1)
    aliases: tuple[str, ...] = ()
    as_of: date | None = None
    source: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Price] = {}
    web_search: Usd | None = None
    """Per thousand searches."""


@dataclass(frozen=True, slots=True)
class Named:
    """A model as prices name it, and whether its name binds it to a region."""

    model: str
    regional: bool = False


class Prices:
    """Costs in micro-dollars, None where a price is not known."""

    def __init__(self, models: dict[str, Price], web_search: Decimal | None = None) -> None:
        self._models = {name: price for model, price in models.items() for name in (model, *price.aliases)}
        self._web_search = web_search

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """The list prices, and over them those of the file. Raises `SettingsError` that says what is wrong in it."""
        listed = _read(_LISTED.read_text(), "relight's own prices")
        if path is None:
            return cls(listed.models, listed.web_search)
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"RELIGHT_PRICES_FILE cannot be read: {path}: {error}; correct or unset it") from None
        own = _read(text, str(path))
        named = {name for model, price in own.models.items() for name in (model, *price.aliases)}
        models = {
            model: price.model_copy(update={"aliases": tuple(set(price.aliases) - named)})
            for model, price in listed.models.items()
            if model not in named
        }
        web_search = listed.web_search if own.web_search is None else own.web_search
        return cls(models | own.models, web_search)

    @classmethod
    @cache
    def listed(cls) -> Self:
        """The list prices alone."""
        return cls.load()

    def price(self, model: str) -> Price | None:
        """Of a model, by whichever of its names."""
        return self._models.get(model) or self._models.get(named(model).model)

    def cost_microusd(
        self, model: str, usage: Usage, provider: str | None = None, region: str | None = None
    ) -> int | None:
        """What that many tokens cost, rounded half up to a micro-dollar; None where it is not known."""
        price = self.price(model)
        if price is None or usage.service_tier not in _STANDARD or usage.speed not in _STANDARD:
            return None
        if usage.web_searches and self._web_search is None:
            return None
        tokens = _tokens_cost(price, usage)
        if tokens is None:
            return None
        regional = _regional(model, provider, region, usage)
        total = tokens * int((price.regional if regional else 1) * _FACTOR)
        if usage.web_searches and self._web_search is not None:
            total += usage.web_searches * int(self._web_search * 1_000 * _USD) * _FACTOR
        return (2 * total + _USD * _FACTOR) // (2 * _USD * _FACTOR)


_LISTED = files("relight.engine.guard.recording").joinpath("prices.toml")


@lru_cache(maxsize=1_024)
def named(model: str) -> Named:
    """The model behind a provider's id of it: Bedrock's with its prefix and version, Vertex's and ours with a date."""
    regional = False
    name = model.rsplit("/", 1)[-1]
    if bedrock := _BEDROCK.fullmatch(name):
        name, regional = bedrock["model"], bedrock["geo"] != "global"
    if dated := _DATED.fullmatch(name):
        name = dated["model"]
    return Named(name, regional)


def _regional(model: str, provider: str | None, region: str | None, usage: Usage) -> bool:
    if usage.inference_geo not in ("not_available", *_GLOBAL):
        return True
    return named(model).regional or (provider == "gcp.vertex_ai" and region not in _GLOBAL)


def _tokens_cost(price: Price, usage: Usage) -> int | None:
    """In micro-dollars times `_USD`."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    written, read = usage.cache_write_tokens or 0, usage.cache_read_tokens or 0
    # An answer that does not say for how long wrote for the default, which is 5 minutes.
    written_1h = min(usage.cache_write_1h_tokens or 0, written)
    rates: Rates = price
    if price.long_prompt is not None and usage.input_tokens + written + read > price.long_prompt.above:
        rates = price.long_prompt
    total = 0
    for tokens, rate in (
        (usage.input_tokens, rates.input),
        (usage.output_tokens, rates.output),
        (written - written_1h, rates.cache_write_5m),
        (written_1h, rates.cache_write_1h),
        (read, rates.cache_read),
    ):
        if rate is not None:
            total += tokens * int(rate * _USD)
        elif tokens:
            return None
    return total


def _read(text: str, where: str) -> _File:
    try:
        return _File.model_validate(tomllib.loads(text, parse_float=Decimal))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"RELIGHT_PRICES_FILE: {where} is no TOML: {error}; correct it") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise SettingsError(f"RELIGHT_PRICES_FILE: {where}: {place}: {fault['msg']}; correct it") from None
