"""Which instance type a stack rents: the one that is told, if the model fits on it, or the cheapest that it fits on."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rackllama.catalog.hardware import Instance, find_instance, read_instances
from rackllama.host.errors import RackllamaError
from rackllama.planning.choose import Considered, choose_for, chosen
from rackllama.planning.hardware import from_instance
from rackllama.planning.headers import NamedHeaders
from rackllama.planning.plan import Plan, Wanted
from rackllama.planning.planner import make_plan
from rackllama.planning.shape import read_shape
from rackllama.planning.speed import landing_seconds

TOLD = 3  # of those that were considered, in an error


@dataclass(frozen=True)
class Demand:
    """What is to be served, and how: `context` in tokens of each slot; with `users`, so many are served at once, each
    in a slot and at an acceptable rate. `instance_type` leaves no choice.
    """

    name: str
    context: int | None = None
    parallel: int = 1
    users: int | None = None
    instance_type: str | None = None

    @property
    def wanted(self) -> Wanted:
        """As a plan wants it."""
        return Wanted(context=self.context, parallel=self.users or self.parallel)


@dataclass(frozen=True)
class Choice:
    """An instance type, and the plan for it; `is_free` where the planner took it, and not somebody else."""

    demand: Demand
    instance: Instance
    plan: Plan
    is_free: bool

    def as_data(self) -> dict[str, Any]:
        """Plain data, as a stack exports it. Rates in tokens a second, sizes in bytes, `usd_per_hour` on demand."""
        plan, price = self.plan, self.instance.price
        return {
            "model": self.demand.name,
            "instance": self.instance.name,
            "chosen_by": "planner" if self.is_free else "config",
            "fits": plan.fits,
            "way": plan.way.value,
            "gpus": f"{self.instance.gpus}x{self.instance.gpu}",
            "context": plan.serving.context // plan.serving.parallel,
            "parallel": plan.serving.parallel,
            "usd_per_hour": None if price is None else price.usd_per_hour,
            "price": self.instance.price_note if price is None else f"on demand in {price.region}, {price.date}",
            "landing_bytes": plan.landing.bytes,
            "landing_seconds_at_least": self._landing_seconds(),
            "decode_tok_s": plan.decode_tok_s and asdict(plan.decode_tok_s),
            "users": dict(plan.users),
            "reasons": list(plan.reasons),
        }

    def _landing_seconds(self) -> float | None:
        """By the network, where nobody told how fast its disks write."""
        network = from_instance(self.instance).network_mbs
        return self.plan.landing.seconds or landing_seconds(self.plan.landing.bytes, network, network)


def require_known_type(name: str, usage: str) -> Instance:
    """The type of that name. Raises RackllamaError where there is none, or AWS does not rent it out in that way."""
    instance = find_instance(name)
    if usage not in instance.usage:
        raise RackllamaError(
            f"{name} is not to be had as {usage}", f"set capacity to one of: {', '.join(sorted(instance.usage))}"
        )
    return instance


def choose_instance(
    demand: Demand, model: NamedHeaders, is_offered: Callable[[Instance], bool] = lambda _: True
) -> Choice:
    """The type that `demand` tells, or the cheapest of those offered that serves it.

    Raises RackllamaError where the model does not fit, or nothing that is offered serves it.
    """
    if demand.instance_type is not None:
        return _told(demand, model, find_instance(demand.instance_type))
    offers = {name: instance for name, instance in read_instances().items() if is_offered(instance)}
    considered = choose_for(model, demand.wanted, map(from_instance, offers.values()), users=demand.users)
    best = chosen(considered)
    if best is None or best.plan is None:
        raise RackllamaError(
            f"{demand.name} fits on no instance type that is offered: {_refusals(considered)}",
            "take a smaller variant or context, fewer users, or other zones; `rackllama plan` tells more",
        )
    return Choice(demand, offers[best.hardware.name], best.plan, is_free=True)


def _told(demand: Demand, model: NamedHeaders, instance: Instance) -> Choice:
    plan = make_plan(read_shape(model.headers), from_instance(instance), demand.wanted, model.name, model.total_bytes)
    if not plan.fits:
        remedies = "; ".join((*plan.remedies, "leave instance_type out, and the planner chooses"))
        reason = plan.reasons[-1] if plan.reasons else "there is no room"
        raise RackllamaError(f"{demand.name} does not fit on {instance.name}: {reason}", remedies)
    return Choice(demand, instance, plan, is_free=False)


def _refusals(considered: tuple[Considered, ...]) -> str:
    """Of the largest that have a price."""
    told = [f"{one.hardware.name} {one.refusal}" for one in considered if one.cost_per_hour is not None]
    return "; ".join(told[-TOLD:]) or "none is offered there"
