"""What is billed beside instances, as the stack tells it."""

from typing import Any

from rackllama.catalog.aws_prices import AwsPrice, aws_price
from rackllama.provision.outputs import Cost, Unit

UNITS: dict[str, Unit] = {"hour": "hour", "month": "month", "GB-month": "month", "GB": "GB"}


def billed(what: str, price: str, amount: float = 1, note: str = "", kept_as: Any = None) -> Cost:
    """The cost of `amount` of what the catalogue prices as `price`; its note says where and when that price held.

    `kept_as` is the id of what survives a destroy.
    """
    found = aws_price(price)
    return Cost(
        what,
        round(found.usd * amount, 4),
        UNITS[found.per],
        kept_as is not None,
        "" if kept_as is None else kept_as,
        "; ".join(filter(None, (note, price_age(found)))),
    )


def price_age(price: AwsPrice) -> str:
    """Where and when the price held."""
    return f"price of {price.region}, {price.date}"
