"""What a destroy takes and what it leaves, from a stack's state and the costs that it exports: pure.

A resource stays that its program said to retain (`retainOnDelete`), or that is protected: those are excluded from the
destroy, as it would else stop at them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rackllama.provision.state import Resource, State, unknown_words

HOURS_PER_MONTH = 730  # as AWS counts: 8760 hours a year, by 12


@dataclass(frozen=True)
class Teardown:
    """What goes, what stays, and what that costs on; `costs` are entries of the output of that name.

    `unknown` is what may exist without the state knowing: a destroy does not take it.
    """

    stack: str
    goes: tuple[Resource, ...]
    stays: tuple[Resource, ...]
    costs: tuple[Mapping[str, Any], ...]
    unknown: tuple[Resource, ...] = ()

    @property
    def usd_per_month(self) -> float:
        """What is known of the cost of what stays."""
        return sum(monthly(cost) or 0.0 for cost in self.costs)

    @property
    def has_protected(self) -> bool:
        """Whether a destroy has to be told to leave something out."""
        return any(resource.stays == "protected" for resource in self.stays)

    def as_data(self) -> dict[str, Any]:
        """As plain data."""

        def plain(resource: Resource) -> dict[str, str]:
            return {key: getattr(resource, key) for key in ("type", "name", "id", "stays")}

        return {
            "stack": self.stack,
            "destroyed": [plain(resource) for resource in self.goes],
            "remains": [plain(resource) for resource in self.stays],
            "may_exist": [plain(resource) for resource in self.unknown],
            "costs": [dict(cost) for cost in self.costs],
            "usd_per_month": self.usd_per_month,
        }

    def going(self) -> str:
        """What will be destroyed, in words."""
        if not self.goes:
            return f"{self.stack}: nothing will be destroyed"
        lines = [f"  - {resource.words}" for resource in self.goes]
        return "\n".join([f"{self.stack}: this will be destroyed", *lines])

    def staying(self) -> str:
        """What remains, in words, with what it costs."""
        doubtful = [f"{self.stack}: this may exist, and be billed", unknown_words(self.unknown)] if self.unknown else []
        if not self.stays and not self.costs:
            return "\n".join(doubtful) or f"{self.stack}: nothing remains after it"
        lines = [f"  = {resource.words}: {resource.stays}" for resource in self.stays]
        costs = [f"  $ {cost_words(cost)}" for cost in self.costs]
        if self.stays and not costs:
            costs = ["  $ what it costs is not known: the stack exported no costs of it"]
        total = [f"  $ in all: about {self.usd_per_month:.2f} $ a month"] if len(self.costs) > 1 else []
        return "\n".join([f"{self.stack}: this remains, and is billed on", *lines, *costs, *total, *doubtful])


def teardown(stack: str, state: State, costs: Sequence[Mapping[str, Any]]) -> Teardown:
    """What destroying the stack does. Components and providers exist in the state alone, and are not told of."""
    real = [resource for resource in state.resources if resource.custom]
    return Teardown(
        stack,
        goes=tuple(resource for resource in real if not resource.stays),
        stays=tuple(resource for resource in real if resource.stays),
        costs=tuple(cost for cost in costs if cost.get("survives_destroy")),
        unknown=state.unknown,
    )


def monthly(cost: Mapping[str, Any]) -> float | None:
    """What a cost comes to in a month, in US dollars; None where its price or its amount is not known."""
    hours = {"hour": HOURS_PER_MONTH, "month": 1}.get(cost.get("unit", ""))
    return None if cost.get("usd") is None or hours is None else float(cost["usd"]) * hours


def cost_words(cost: Mapping[str, Any]) -> str:
    """A cost in words: what, how much a month, what to look for."""
    month = monthly(cost)
    if month is not None:
        price = f"about {month:.2f} $ a month"
    elif cost.get("usd") is not None:
        price = f"{float(cost['usd']):.3f} $ a {cost.get('unit')}"
    else:
        price = "price not known"
    known_as = f" [{cost['id']}]" if cost.get("id") else ""
    return f"{cost['what']}{known_as}: {price}" + (f" ({cost['note']})" if cost.get("note") else "")
