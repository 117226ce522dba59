"""Which hardware to rent: the cheapest that a model fits on, and why not the others. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rackllama.planning.hardware import Hardware
from rackllama.planning.headers import NamedHeaders
from rackllama.planning.memory import layer_costs
from rackllama.planning.plan import MIB, Plan, Wanted
from rackllama.planning.planner import make_plan, serving_of
from rackllama.planning.shape import read_shape
from rackllama.planning.words import amount


@dataclass(frozen=True)
class Considered:
    """One kind of hardware, and why it is not the one: empty for the one that is chosen.

    `plan` is None where none was made, as the answer was plain without it.
    """

    hardware: Hardware
    plan: Plan | None
    refusal: str

    @property
    def cost_per_hour(self) -> float | None:
        """In US dollars; None where nobody told."""
        return None if self.hardware.price is None else self.hardware.price.usd_per_hour

    def as_data(self) -> dict[str, Any]:
        """Plain data, as `--json` has it."""
        rate = self.plan and self.plan.decode_tok_s
        return {
            "hardware": self.hardware.name,
            "cost_per_hour": self.cost_per_hour,
            "fits": self.plan.fits if self.plan else None,
            "decode_tok_s_mid": rate.mid if rate else None,
            "refusal": self.refusal,
        }


@dataclass(frozen=True)
class Wish:
    """What is looked for: at most so many dollars an hour, and room for so many users at an acceptable rate each.

    `least_bytes` is what weights and cache take anywhere, whatever computing needs beside them.
    """

    budget: float | None = None
    users: int | None = None
    least_bytes: int = 0


def choose_for(
    model: NamedHeaders,
    wanted: Wanted,
    offers: Iterable[Hardware],
    budget: float | None = None,
    users: int | None = None,
) -> tuple[Considered, ...]:
    """As `choose`, for a model of which the headers are known."""
    shape = read_shape(model.headers)
    least = sum(layer_costs(shape, serving_of(shape, wanted), 0))
    return choose(
        offers,
        Wish(budget, users, least),
        lambda hardware: make_plan(shape, hardware, wanted, model.name, model.total_bytes),
    )


def choose(offers: Iterable[Hardware], wish: Wish, make_plan: Callable[[Hardware], Plan]) -> tuple[Considered, ...]:
    """All that there is, the cheapest first; the first one that serves is chosen, and has no refusal."""
    considered: list[Considered] = []
    chosen: Considered | None = None
    for hardware in sorted(offers, key=_order):
        refusal, plan = _plainly_refused(hardware, wish), None
        if not refusal:
            plan = make_plan(hardware)
            refusal = _refused(plan, wish)
        if not refusal and chosen:
            refusal = "fits as well, and costs more"
        considered.append(Considered(hardware, plan, refusal))
        if not refusal:
            chosen = considered[-1]
    return tuple(considered)


def chosen(considered: Iterable[Considered]) -> Considered | None:
    """The one without a refusal, if there is one."""
    return next((one for one in considered if not one.refusal), None)


def _order(hardware: Hardware) -> tuple[float, str]:
    return hardware.price.usd_per_hour if hardware.price else float("inf"), hardware.name


def _plainly_refused(hardware: Hardware, wish: Wish) -> str:
    if hardware.price is None:
        return "nobody told what it costs"
    if wish.budget is not None and hardware.price.usd_per_hour > wish.budget:
        return "costs more than the budget"
    memory = _memory(hardware)
    if memory is not None and memory < wish.least_bytes:
        return f"{amount(memory)} of memory in all, and {amount(wish.least_bytes)} are needed"
    return ""


def _memory(hardware: Hardware) -> int | None:
    """Bytes of all GPUs and of the host together; None where not told."""
    if hardware.ram_mib is None:
        return None
    gpus = 0 if hardware.is_unified else sum(gpu.memory_mib for gpu in hardware.gpus)
    return (hardware.ram_mib + gpus) * MIB


def _refused(plan: Plan, wish: Wish) -> str:
    if not plan.fits:
        return f"does not fit: {plan.reasons[-1]}" if plan.reasons else "does not fit"
    if wish.users is None:
        return ""
    if plan.decode_tok_s is None:
        return "how fast it answers there is not known"
    served = plan.users.get("acceptable", 0)
    if served < wish.users:
        return f"serves {served} users at an acceptable rate"
    return ""
