"""What AWS bills beside instances: prices with their sources and dates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rackllama.catalog.hardware import DATA, read_document
from rackllama.host.errors import RackllamaError

Per = Literal["hour", "GB", "GB-month", "month"]


@dataclass(frozen=True)
class AwsPrice:
    """US dollars `per` hour, GB that passes, GB that lies there for a month, or month; in `region` alone."""

    usd: float
    per: Per
    region: str
    source: str
    date: Any


@cache
def read_aws_prices(path: Path = DATA / "aws_prices.yaml") -> Mapping[str, AwsPrice]:
    """The known prices by name."""
    document = read_document(path)
    return {
        name: AwsPrice(told["usd"], told["per"], document["region"], **document["sources"][told["source"]])
        for name, told in document["prices"].items()
    }


def aws_price(name: str) -> AwsPrice:
    """The price of that name. Raises RackllamaError where there is none."""
    prices = read_aws_prices()
    if name not in prices:
        raise RackllamaError(f"no price of {name!r} is known", f"use one of: {', '.join(prices)}")
    return prices[name]
