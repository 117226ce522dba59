"""A stack's configuration: from texts, as `pulumi config` has them, to what the components are made from."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rackllama.catalog.models import CatalogueEntry, read_catalogue
from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.capacity import BuyCapacityBlockArgs, Capacity, CapacityBlock, OnDemand, Spot
from rackllama.provision.aws.host import require_public_key, require_user
from rackllama.provision.aws.labels import Labels
from rackllama.provision.aws.network import GivenVpc, NetworkArgs, OwnVpc
from rackllama.provision.aws.watch import BudgetArgs, require_hours
from rackllama.provision.aws.ways_in import LoadBalancer, NoWayIn, PeeredNetwork, WayIn
from rackllama.provision.aws.ways_out import Endpoints, NatGateway, NoWayOut, WayOut
from rackllama.provision.choice import Demand, require_known_type

UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
# What each key is unless it is set: the same stands in stacks/aws/Pulumi.yaml. Required ones are empty.
DEFAULTS: Mapping[str, str | int | bool | list[str]] = {
    "model": "",
    "variant": "",
    "model_source": "",
    "mirror": "",
    "context": 0,
    "parallel": 1,
    "users": 0,
    "instance_type": "",
    "count": 1,
    "efa": False,
    "capacity": "on-demand",
    "capacity_reservation_id": "",
    "capacity_block_offering_id": "",
    "buy_capacity_block": False,
    "zones": [],
    "zone": "",
    "network_range": "10.42.0.0/16",
    "vpc_id": "",
    "subnets": [],
    "way_out": "nat",
    "way_in": "none",
    "clients_from": [],
    "peering_id": "",
    "ssh_from": [],
    "ssh_public_key": "",
    "user": "ubuntu",
    "ami": UBUNTU,
    "root_gib": 100,
    "volume_gib": -1,
    "volume_id": "",
    "keep_volume": True,
    "model_bucket": False,
    "owner": "",
    "cost_center": "",
    "monthly_budget_usd": 0,
    "budget_email": "",
    "auto_stop_hours": 0,
}
REQUIRED = {
    "ssh_public_key": '"$(cat ~/.ssh/id_ed25519.pub)"',
    "owner": "YOUR-NAME",
    "cost_center": "WHO-PAYS",
    "monthly_budget_usd": "DOLLARS",
    "budget_email": "YOU@EXAMPLE.ORG",
}


@dataclass(frozen=True)
class Settings:
    """All that a stack is told. `zone` is the one that hosts stand in; `volume_gib` is None where the model's size
    tells it, and 0 for no volume. `source` is what `rackllama plan` takes. `block` is one that is bought.
    """

    labels: Labels
    region: str
    demand: Demand
    source: str
    mirror: str
    network: NetworkArgs
    zone: str
    capacity: Capacity
    block: BuyCapacityBlockArgs | None
    count: int
    has_efa: bool
    ssh_public_key: str
    user: str
    ami: str
    root_gib: int
    volume_gib: int | None
    volume_id: str
    keeps_volume: bool
    has_bucket: bool
    budget: BudgetArgs
    auto_stop_hours: int


def read_settings(told: Mapping[str, str | None], region: str | None, stack: str) -> Settings:
    """The settings of the stack `stack` (its full name) from the texts of its configuration, by key.

    Raises RackllamaError for what is missing, unknown or would not do, with the command that sets it right.
    """
    if not region:
        raise RackllamaError("no region is set", "run: pulumi config set aws:region us-east-1")
    values = _values(told)
    _require(values)
    zones = tuple(values["zones"])
    if not zones:
        raise RackllamaError(
            "no availability zones are listed",
            f"list them in the order to try: pulumi config set --path 'zones[0]' {region}a",
        )
    zone = values["zone"] or zones[0]
    if zone not in zones:
        raise RackllamaError(f"zone is {zone}, which is none of {', '.join(zones)}", "set one of zones, or unset it")
    require_public_key(values["ssh_public_key"])
    require_user(values["user"])
    source, name = _model(values)
    labels = Labels(stack, values["owner"], values["cost_center"])
    capacity = _capacity(values)
    instance_type = values["instance_type"] or None
    if instance_type:
        require_known_type(instance_type, capacity.usage)
    _check_together(values, capacity)
    settings = Settings(
        labels=labels,
        region=region,
        demand=Demand(name, values["context"] or None, values["parallel"], values["users"] or None, instance_type),
        source=source,
        mirror=values["mirror"],
        network=NetworkArgs(
            labels=labels,
            region=region,
            zones=zones,
            vpc=_vpc(values, zones),
            way_out=_way_out(values),
            way_in=_way_in(values),
            ssh_from=tuple(values["ssh_from"]),
        ),
        zone=zone,
        capacity=capacity,
        block=_block(values, labels),
        count=values["count"],
        has_efa=values["efa"],
        ssh_public_key=values["ssh_public_key"],
        user=values["user"],
        ami=values["ami"],
        root_gib=values["root_gib"],
        volume_gib=None if values["volume_gib"] < 0 else values["volume_gib"],
        volume_id=values["volume_id"],
        keeps_volume=values["keep_volume"],
        has_bucket=values["model_bucket"],
        budget=BudgetArgs(labels, values["monthly_budget_usd"], values["budget_email"]),
        auto_stop_hours=values["auto_stop_hours"],
    )
    _check_reach(settings)
    return settings


def _check_reach(settings: Settings) -> None:
    """Raise RackllamaError where nobody could log in to the hosts: in a VPC of the stack's own no address is public."""
    network = settings.network
    if not isinstance(network.vpc, OwnVpc):
        return
    if network.ssh_from and not network.is_peered:
        raise RackllamaError(
            "ssh_from names ranges that have no way to the hosts, whose addresses are private",
            "leave it empty, as Session Manager needs no open port; or set way_in to peered, with peering_id",
        )
    if isinstance(network.way_out, NoWayOut) and not network.ssh_from:
        raise RackllamaError(
            "way_out is none, and without a way to Session Manager nobody could log in to the hosts",
            "set way_out to endpoints; or way_in to peered, with peering_id and ssh_from",
        )


def _values(told: Mapping[str, str | None]) -> dict[str, Any]:
    """Each key's value, of the type of its default."""
    unknown = sorted(told.keys() - DEFAULTS.keys())
    if unknown:
        raise RackllamaError(f"there is no key {unknown[0]}", f"use one of: {', '.join(DEFAULTS)}")
    return {key: _parsed(key, told.get(key), default) for key, default in DEFAULTS.items()}


def _parsed(key: str, text: str | None, default: Any) -> Any:
    if text is None or not text.strip():
        return default
    if isinstance(default, str):
        return text.strip()
    wanted = {bool: "true or false", int: "a whole number", list: "a list of texts"}[type(default)]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if type(value) is not type(default) or (isinstance(value, list) and not is_texts):
        raise RackllamaError(f"{key} is {text!r}, which is not {wanted}", f"run: pulumi config set {key}, as {wanted}")
    return value


def _require(values: Mapping[str, Any]) -> None:
    for key, example in REQUIRED.items():
        if not values[key]:
            raise RackllamaError(f"{key} is not set", f"run: pulumi config set {key} {example}")
    for key in ("context", "users", "auto_stop_hours", "volume_gib"):
        least = -1 if key == "volume_gib" else 0
        if values[key] < least:
            raise RackllamaError(f"{key} is {values[key]}", f"set {key} to {least} or more")
    for key in ("parallel", "count", "root_gib"):
        if values[key] < 1:
            raise RackllamaError(f"{key} is {values[key]}", f"set {key} to 1 or more")


def _model(values: Mapping[str, Any]) -> tuple[str, str]:
    """What the model's headers are found by, and its name for people."""
    model, variant, source = values["model"], values["variant"], values["model_source"]
    if source:
        return source, model or source
    catalogue = read_catalogue()
    entry: CatalogueEntry = _one_of("model", model, catalogue)
    _one_of("variant", variant, dict.fromkeys(entry.variants, entry))
    return f"{model}:{variant}", f"{model}:{variant}"


def _capacity(values: Mapping[str, Any]) -> Capacity:
    reservation = values["capacity_reservation_id"]
    kinds: Mapping[str, Capacity] = {
        OnDemand.usage: OnDemand(),
        Spot.usage: Spot(),
        CapacityBlock.usage: CapacityBlock(reservation),
    }
    capacity = _one_of("capacity", values["capacity"], kinds)
    if isinstance(capacity, CapacityBlock) and not (reservation or values["capacity_block_offering_id"]):
        raise RackllamaError(
            "a capacity block is to be used, and none is named",
            "set capacity_reservation_id to one that you have (cr-…), or buy one: docs/aws.md",
        )
    return capacity


def _check_together(values: Mapping[str, Any], capacity: Capacity) -> None:
    """Raise RackllamaError for what is well by itself, and not beside something else."""
    if values["auto_stop_hours"] and not isinstance(capacity, OnDemand):
        raise RackllamaError(
            f"auto_stop_hours is set, and {capacity.usage} hosts cannot be stopped, or are paid for all the same",
            "set auto_stop_hours to 0, or capacity to on-demand",
        )
    if values["auto_stop_hours"]:
        require_hours(values["auto_stop_hours"])
    if isinstance(capacity, CapacityBlock) and not values["instance_type"]:
        raise RackllamaError("a capacity block is of one type, and none is told", "set instance_type to the block's")
    if values["capacity_reservation_id"] and values["capacity_block_offering_id"]:
        raise RackllamaError(
            "a capacity block is named, and another one would be bought",
            "unset capacity_block_offering_id, or capacity_reservation_id",
        )
    if values["volume_id"] and not re.fullmatch(r"vol-[0-9a-f]+", values["volume_id"]):
        raise RackllamaError(f"volume_id is {values['volume_id']!r}", "give an id, as vol-0123456789abcdef0")
    if values["volume_id"] and values["count"] > 1:
        raise RackllamaError(
            "one volume is given for several hosts, and gp3 is for one at a time", "unset volume_id, or set count to 1"
        )
    if values["capacity_block_offering_id"] and not isinstance(capacity, CapacityBlock):
        raise RackllamaError("an offering is named, and no capacity block is wanted", "set capacity to capacity-block")


def _block(values: Mapping[str, Any], labels: Labels) -> BuyCapacityBlockArgs | None:
    offering = values["capacity_block_offering_id"]
    return BuyCapacityBlockArgs(labels, offering, values["buy_capacity_block"]) if offering else None


def _vpc(values: Mapping[str, Any], zones: tuple[str, ...]) -> OwnVpc | GivenVpc:
    if not values["vpc_id"]:
        return OwnVpc(values["network_range"])
    if len(values["subnets"]) != len(zones):
        raise RackllamaError(
            f"{len(zones)} zones are listed, and {len(values['subnets'])} subnets of {values['vpc_id']}",
            "list in subnets a private subnet for each of zones, in the same order",
        )
    return GivenVpc(values["vpc_id"], dict(zip(zones, values["subnets"], strict=True)))


def _way_out(values: Mapping[str, Any]) -> WayOut:
    ways: Mapping[str, WayOut] = {"nat": NatGateway(), "endpoints": Endpoints(), "none": NoWayOut()}
    return _one_of("way_out", values["way_out"], ways)


def _way_in(values: Mapping[str, Any]) -> WayIn:
    ranges = tuple(values["clients_from"])
    way = _one_of("way_in", values["way_in"], {"load-balancer": LoadBalancer, "peered": PeeredNetwork, "none": NoWayIn})
    if way is PeeredNetwork:
        return PeeredNetwork(ranges, values["peering_id"])
    return LoadBalancer(ranges) if way is LoadBalancer else NoWayIn()


def _one_of[Value](key: str, value: str, accepted: Mapping[str, Value]) -> Value:
    if value not in accepted:
        is_set = f"{key} is {value!r}" if value else f"{key} is not set"
        raise RackllamaError(is_set, f"run: pulumi config set {key}, to one of: {', '.join(accepted)}")
    return accepted[value]
