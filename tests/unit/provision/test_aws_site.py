"""The whole of a stack: from texts of a configuration to all that is registered, one by one and at random."""

import random
from functools import cache
from pathlib import Path

import pytest
import yaml
from tests.planner.header_only import header

from rackllama.catalog.aws_prices import aws_price, read_aws_prices
from rackllama.catalog.hardware import read_instances
from rackllama.host.errors import RackllamaError
from rackllama.host.lander.gguf import from_bytes
from rackllama.planning.headers import NamedHeaders
from rackllama.provision.choice import Choice, choose_instance
from rackllama.provision.policies import violations

from .aws_world import KEY, World, built  # isort: skip
from rackllama.provision.aws.cluster import EFA_CARDS
from rackllama.provision.aws.config import DEFAULTS, Settings, read_settings
from rackllama.provision.aws.offers import require_offered
from rackllama.provision.aws.site import ServingSite, ServingSiteArgs

ROOT = Path(__file__).parents[3]
TOLD = {
    "model": "deepseek-r1",
    "variant": "ud-iq1_m",
    "zones": '["us-east-1a", "us-east-1b"]',
    "ssh_public_key": KEY,
    "owner": "ops",
    "cost_center": "research",
    "monthly_budget_usd": "500",
    "budget_email": "ops@example.org",
}


def settings(region: str | None = "us-east-1", **told: str) -> Settings:
    return read_settings({**TOLD, **told}, region, "rackllama-aws-test")


@cache
def choice(instance_type: str | None = None) -> Choice:
    found = from_bytes(header("llama-3.1-8b-q4_k_m"))
    model = NamedHeaders("small", (found,), found.data_offset + found.data_size)
    return choose_instance(settings(**({"instance_type": instance_type} if instance_type else {})).demand, model)


def site_of(**told: str) -> tuple[World, ServingSite]:
    sites: list[ServingSite] = []
    args = ServingSiteArgs(settings(**told), choice(told.get("instance_type")), "ami-1")
    world = built(lambda: sites.append(ServingSite("rackllama", args)))
    return world, sites[0]


BLOCK = {"capacity": "capacity-block", "instance_type": "p5.48xlarge"}
PEERED = {
    "way_in": "peered",
    "peering_id": "pcx-1",
    "clients_from": '["10.9.0.0/16"]',
    "ssh_from": '["10.9.0.0/16", "10.8.0.0/16"]',
}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"owner": ""}, "owner is not set"),
        ({"budget_email": ""}, "budget_email is not set"),
        ({"budget_email": "nobody"}, "budget_email is 'nobody'"),
        ({"ssh_public_key": ""}, "ssh_public_key is not set"),
        ({"model": ""}, "model is not set"),
        ({"model": "deepseek-r9"}, "model is 'deepseek-r9'"),
        ({"variant": "q99"}, "variant is 'q99'"),
        ({"zones": ""}, "no availability zones are listed"),
        ({"zones": "us-east-1a"}, "zones is 'us-east-1a', which is not a list of texts"),
        ({"zone": "us-east-1c"}, "which is none of us-east-1a, us-east-1b"),
        ({"count": "two"}, "count is 'two', which is not a whole number"),
        ({"count": "true"}, "count is 'true', which is not a whole number"),
        ({"count": "0"}, "count is 0"),
        ({"keep_volume": "yes"}, "keep_volume is 'yes', which is not true or false"),
        ({"capacity": "cheap"}, "capacity is 'cheap'"),
        ({"capacity": "capacity-block"}, "none is named"),
        ({"capacity_block_offering_id": "cb-1", "buy_capacity_block": "true"}, "no capacity block is wanted"),
        ({**BLOCK, "capacity_block_offering_id": "cb-1"}, "nothing gives the money back"),
        ({"capacity": "capacity-block", "capacity_reservation_id": "cr-1"}, "a capacity block is of one type"),
        (
            {**BLOCK, "capacity_reservation_id": "cr-1", "capacity_block_offering_id": "cb-1"},
            "another one would be bought",
        ),
        (
            {"instance_type": "g6.xlarge", "capacity": "capacity-block", "capacity_reservation_id": "cr-1"},
            "not to be had",
        ),
        ({"capacity": "spot", "auto_stop_hours": "2"}, "spot hosts cannot be stopped"),
        ({"auto_stop_hours": "25"}, "auto_stop_hours is 25"),
        ({"volume_id": "vol-1", "count": "2"}, "one volume is given for several hosts"),
        ({"volume_id": "gpu1"}, "volume_id is 'gpu1'"),
        ({"cost_center": "R&D"}, "cost_center is 'R&D', which no tag may hold"),
        ({"ssh_from": '["203.0.113.0/24"]'}, "no way to the hosts, whose addresses are private"),
        ({"way_out": "none"}, "nobody could log in to the hosts"),
        (
            {"way_in": "peered", "peering_id": "pcx-1", "clients_from": '["0.0.0.0/0"]'},
            "clients_from has 0.0.0.0/0, which lets the internet in",
        ),
        ({"way_in": "load-balancer"}, "nobody is let in"),
        ({"way_in": "public"}, "way_in is 'public'"),
        ({"way_out": "proxy"}, "way_out is 'proxy'"),
        ({"ssh_from": '["0.0.0.0/0"]'}, "lets the internet in"),
        ({"vpc_id": "vpc-1", "subnets": '["subnet-1"]'}, "2 zones are listed, and 1 subnets"),
        ({"network_range": "10.0.0.0/20"}, "network_range is 10.0.0.0/20"),
        ({"network_range": "8.8.0.0/16"}, "network_range is 8.8.0.0/16"),
        ({"user": "Root User"}, "no name of a user"),
        ({"zoness": "[]"}, "there is no key zoness"),
    ],
)
def test_what_will_not_do_is_refused_with_a_remedy(told, said):
    with pytest.raises(RackllamaError) as caught:
        settings(**told)
    assert said in caught.value.message
    assert caught.value.remedy


def test_without_a_region_nothing_is_read():
    with pytest.raises(RackllamaError, match="no region is set"):
        settings(region=None)


def test_what_is_not_told_is_as_the_project_says():
    project = yaml.safe_load((ROOT / "stacks/aws/Pulumi.yaml").read_text())["config"]
    kinds = {"string": str, "integer": int, "boolean": bool, "array": list}
    assert {key: told["default"] for key, told in project.items()} == DEFAULTS
    assert all(type(DEFAULTS[key]) is kinds[told["type"]] for key, told in project.items())
    assert all(told["description"] for told in project.values())


def test_the_example_is_well_but_for_its_key():
    example = yaml.safe_load((ROOT / "stacks/aws/Pulumi.example.yaml").read_text())["config"]
    own = {key.removeprefix("rackllama-aws:"): value for key, value in example.items() if key != "aws:region"}
    texts = {key: str(value).replace("'", '"') for key, value in own.items()} | {"ssh_public_key": KEY}
    assert read_settings(texts, example["aws:region"], "example").zone == "us-east-1a"


def test_a_type_that_a_zone_does_not_offer_is_refused():
    instance = read_instances()["p5.48xlarge"]
    require_offered(instance, ["us-east-1a"], {"p5.48xlarge": {"us-east-1a"}})
    with pytest.raises(RackllamaError, match="us-east-1b does not offer") as caught:
        require_offered(instance, ["us-east-1a", "us-east-1b"], {"p5.48xlarge": {"us-east-1a"}})
    assert caught.value.remedy == "set zones to some of: us-east-1a"
    with pytest.raises(RackllamaError) as caught:
        require_offered(instance, ["eu-north-1a"], {})
    assert "aws:region" in caught.value.remedy


def test_hosts_are_told_as_the_inventory_wants_them():
    _, site = site_of(count="2")
    first, second = (host.as_data() for host in site.hosts)
    assert (first["name"], second["name"]) == ("gpu1", "gpu2")
    assert first["gpus"] == ["L4"]
    assert first["roles"] == ["serving", "gateway", "webui"]
    assert second["roles"] == ["serving", "gateway"]
    assert first["via"]["kind"] == "session-manager"
    assert first["labels"]["zone"] == "us-east-1a"
    world, by_peering = site_of(**PEERED)
    assert by_peering.hosts[0].as_data()["via"] == {"kind": "ssh"}
    routed = {one["destinationCidrBlock"] for one in world.of("Route") if "vpcPeeringConnectionId" in one}
    assert routed == {"10.9.0.0/16", "10.8.0.0/16"}


def test_costs_tell_all_that_is_billed_and_what_stays():
    _, site = site_of(
        way_in="load-balancer", clients_from='["203.0.113.0/24"]', auto_stop_hours="3", model_bucket="true"
    )
    costs = {cost.what.partition(",")[0]: cost for cost in site.costs}
    assert (costs["host gpu1"].usd, costs["host gpu1"].unit) == (0.8048, "hour")
    assert costs["root volume of gpu1"].usd == 8.0
    assert {"NAT gateway", "data through the NAT gateway", "network load balancer"} <= costs.keys()
    kept = {what for what, cost in costs.items() if cost.survives_destroy}
    assert kept == {"model volume rackllama-models1", "model bucket"}
    _, bare = site_of(volume_gib="0", way_out="none", **PEERED)
    assert [cost.what.partition(",")[0] for cost in bare.costs] == ["host gpu1", "root volume of gpu1"]


def test_spot_and_blocks_have_no_price_by_the_hour():
    spot = site_of(capacity="spot")[1].costs[0]
    assert spot.usd is None
    assert "on demand it is 0.8048" in spot.note
    told = {"capacity": "capacity-block", "instance_type": "p5.48xlarge", "capacity_reservation_id": "cr-1"}
    assert site_of(**told)[1].costs[0].note == "paid with the capacity block"


def test_each_price_has_a_source_and_its_day():
    for price in read_aws_prices().values():
        assert price.usd > 0
        assert price.source.startswith("https://")
        assert price.date.year >= 2024
    with pytest.raises(RackllamaError, match="no price of 'gold'"):
        aws_price("gold")


def a_configuration(dice: random.Random) -> dict[str, str]:
    """Any that is valid: each knob by itself, and those that hang together, together."""

    def ranges(lowest: int = 8) -> str:
        listed = [f"{dice.randrange(1, 224)}.0.0.0/{dice.randrange(lowest, 9)}" for _ in range(dice.randrange(1, 4))]
        return str(listed).replace("'", '"')

    told = {
        "model_source": "small.gguf",
        "count": str(dice.randrange(1, 4)),
        "way_out": dice.choice(["nat", "endpoints", "none"]),
        "way_in": dice.choice(["load-balancer", "peered", "none"]),
        "clients_from": dice.choice(['["0.0.0.0/0"]', ranges()]),
        "peering_id": dice.choice(["", "pcx-1"]),
        "ssh_from": dice.choice(["[]", ranges()]),
        "zone": dice.choice(["", "us-east-1a", "us-east-1b"]),
        "volume_gib": dice.choice(["-1", "0", "500"]),
        "keep_volume": dice.choice(["true", "false"]),
        "model_bucket": dice.choice(["true", "false"]),
        "root_gib": str(dice.randrange(50, 400)),
        "instance_type": dice.choice(["", "g6.xlarge", "g6e.12xlarge", "p5.48xlarge"]),
    }
    if told["instance_type"] in EFA_CARDS and told["count"] != "1":
        told["efa"] = dice.choice(["true", "false"])
    usages = read_instances()[told["instance_type"]].usage if told["instance_type"] else ("on-demand", "spot")
    told["capacity"] = dice.choice(usages)
    if told["capacity"] == "capacity-block":
        bought = {"capacity_block_offering_id": "cb-1", "buy_capacity_block": "true"}
        told |= dice.choice([{"capacity_reservation_id": "cr-1"}, bought])
    if told["capacity"] == "on-demand":
        told["auto_stop_hours"] = str(dice.randrange(0, 25))
    if dice.random() < 0.2 and told["way_in"] != "load-balancer":
        return told | {"vpc_id": "vpc-1", "subnets": '["subnet-1", "subnet-2"]', "peering_id": ""}
    if told["way_in"] == "peered" and told["peering_id"]:
        told["clients_from"] = ranges()
    else:
        told["ssh_from"] = "[]"
    if told["way_out"] == "none" and told["ssh_from"] == "[]":
        told["way_out"] = "endpoints"
    return told


@pytest.mark.parametrize("count", [80, pytest.param(500, marks=pytest.mark.slow)])
def test_whatever_is_told_keeps_the_policies(count):
    seed = random.SystemRandom().randrange(2**32)
    dice = random.Random(seed)  # noqa: S311 - nothing secret hangs on it
    for number in range(count):
        told = a_configuration(dice)
        world, site = site_of(**told)
        about = f"seed {seed}, configuration {number}: {told}"
        assert violations(world.resources) == [], about
        assert len(world.of("Instance")) == len(site.hosts) == int(told["count"]), about
        assert len(world.of("Volume")) == (0 if told["volume_gib"] == "0" else len(site.hosts)), about
        assert len({(one.type, one.name) for one in world.resources}) == len(world.resources), about
