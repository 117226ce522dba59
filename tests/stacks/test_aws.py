"""The stack on AWS from its first preview to its end, on moto's server: nothing of this ran on AWS."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.planner.header_only import header

from rackllama.host.errors import RackllamaError
from rackllama.provision.policies import resources_of, violations
from rackllama.provision.pulumi_cli import find_pulumi
from rackllama.provision.stacks import Stack as DrivenStack
from rackllama.provision.stacks import bring_up

from .engine.harness import UBUNTU_AMI, Moto, Result, Stack

SMALL, R1 = "llama-3.1-8b-q4_k_m", "deepseek-r1-mla-ud-iq1_m"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5vYm9keSdzIGtleSwgZm9yIHRlc3RzIG9ubHkuLi4u ops@example.org"
ROOT = Path(__file__).parents[2]
SECRETS = {"HF_TOKEN": "hf_nobody_is_to_see_this", "AWS_SECRET_ACCESS_KEY": "nor_this_key_of_an_account"}


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Models of which there is nothing but the header."""
    folder = tmp_path_factory.mktemp("models")
    paths = {name: folder / f"{name}.gguf" for name in (SMALL, R1)}
    for name, path in paths.items():
        path.write_bytes(header(name))
    return paths


@pytest.fixture
def stack(stacks, moto: Moto, headers: Mapping[str, Path]) -> Stack:
    """A stack that is told all that it must be, for a small model."""
    made = stacks("aws", environment={**moto.environment, **SECRETS})
    made.config_set_all(
        {
            "aws:region": "us-east-1",
            "model_source": str(headers[SMALL]),
            "zones": ["us-east-1a", "us-east-1b"],
            "ssh_public_key": KEY,
            "ami": UBUNTU_AMI,
            "owner": "ops",
            "cost_center": "research",
            "monthly_budget_usd": 500,
            "budget_email": "ops@example.org",
        }
    )
    return made


def instances(moto: Moto) -> list[dict]:
    """Those that are there, and not terminated."""
    found = moto.client("ec2").describe_instances()["Reservations"]
    every = [instance for reservation in found for instance in reservation["Instances"]]
    return [instance for instance in every if instance["State"]["Name"] != "terminated"]


def left(moto: Moto) -> dict[str, list[str]]:
    """What of ours is there: all that has our tag, and what can have none."""
    ec2, elb = moto.client("ec2"), moto.client("elbv2")
    ours = [{"Name": "tag:owner", "Values": ["ops"]}]
    found = {
        "instances": [instance["InstanceId"] for instance in instances(moto)],
        "vpcs": [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=ours)["Vpcs"]],
        "volumes": [volume["VolumeId"] for volume in ec2.describe_volumes(Filters=ours)["Volumes"]],
        "addresses": [address["AllocationId"] for address in ec2.describe_addresses()["Addresses"]],
        "gateways": [
            gateway["NatGatewayId"]
            for gateway in ec2.describe_nat_gateways()["NatGateways"]
            if gateway["State"] != "deleted"
        ],
        "endpoints": [
            endpoint["VpcEndpointId"]
            for endpoint in ec2.describe_vpc_endpoints()["VpcEndpoints"]
            if endpoint["State"] != "deleted"
        ],
        "balancers": [balancer["LoadBalancerArn"] for balancer in elb.describe_load_balancers()["LoadBalancers"]],
        "roles": [role["RoleName"] for role in moto.client("iam").list_roles()["Roles"]],
        "profiles": [
            profile["InstanceProfileName"]
            for profile in moto.client("iam").list_instance_profiles()["InstanceProfiles"]
        ],
        "alarms": [alarm["AlarmName"] for alarm in moto.client("cloudwatch").describe_alarms()["MetricAlarms"]],
        "buckets": [bucket["Name"] for bucket in moto.client("s3").list_buckets()["Buckets"]],
        "budgets": [
            budget["BudgetName"]
            for budget in moto.client("budgets").describe_budgets(AccountId="123456789012").get("Budgets", [])
        ],
    }
    return {kind: ids for kind, ids in found.items() if ids}


def listed(stack: Stack, folder: Path) -> dict[str, Any]:
    """What Ansible lists of inventories/aws, for this stack."""
    described = yaml.safe_load((ROOT / "inventories" / "aws" / "aws.pulumi.yml").read_text())
    file = folder / "aws.pulumi.yml"
    file.write_text(yaml.safe_dump({**described, "project": str(stack.folder), "stack": stack.name}))
    told = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", file, "--list"],
        cwd=ROOT,
        env={**stack.environment, "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return dict(json.loads(told.stdout))


def done(result: Result) -> Result:
    assert result.ok, result.output
    return result


def test_a_stack_from_preview_to_destroy(stack: Stack, moto: Moto, tmp_path: Path):
    previewed = done(stack.preview())
    assert previewed.created > 20
    assert "g6.xlarge" in previewed.output
    assert left(moto) == {}

    up = done(stack.up())
    assert up.created == previewed.created
    assert len(instances(moto)) == 1
    outputs = stack.outputs()
    groups = listed(stack, tmp_path)
    for group in ("serving", "gateway", "region_us_east_1", "zone_us_east_1a", "type_g6_xlarge"):
        assert groups[group]["hosts"] == ["gpu1"]
    assert groups["_meta"]["hostvars"]["gpu1"]["ansible_host"] == instances(moto)[0]["PrivateIpAddress"]
    host = outputs["hosts"][0]
    assert host["via"] == {
        "kind": "session-manager",
        "instance": instances(moto)[0]["InstanceId"],
        "region": "us-east-1",
    }
    assert (host["gpus"], host["labels"]["zone"]) == (["L4"], "us-east-1a")
    plan = outputs["plan"]
    assert (plan["fits"], plan["instance"], plan["usd_per_hour"]) == (True, "g6.xlarge", 0.8048)
    assert plan["decode_tok_s"]["low"] < plan["decode_tok_s"]["high"]
    (kept,) = [cost for cost in outputs["costs"] if cost["survives_destroy"]]
    assert kept["id"].startswith("vol-")
    assert violations(resources_of({"deployment": {"resources": stack.state()}})) == []

    again = done(stack.up())
    assert (again.created, again.updated, again.replaced, again.deleted) == (0, 0, 0, 0)
    assert again.unchanged == up.created

    done(stack.destroy())
    assert left(moto) == {"volumes": [kept["id"]]}


def test_nothing_is_left_where_nothing_is_kept(stack: Stack, moto: Moto):
    stack.config_set_all({"keep_volume": False, "model_bucket": True, "auto_stop_hours": 2, "count": 2})
    stack.config_set_all({"way_in": "load-balancer", "clients_from": ["203.0.113.0/24"]})
    done(stack.up())
    there = left(moto)
    assert [len(there[kind]) for kind in ("instances", "balancers", "alarms", "buckets")] == [2, 1, 2, 1]
    assert stack.outputs()["entrance"].endswith(".amazonaws.com")
    assert done(stack.up()).unchanged > 40
    done(stack.destroy())
    assert left(moto) == {}


def test_a_host_that_was_removed_is_made_again_beside_its_volume(stack: Stack, moto: Moto):
    done(stack.up())
    (before,) = instances(moto)
    (volume,) = left(moto)["volumes"]
    moto.client("ec2").terminate_instances(InstanceIds=[before["InstanceId"]])
    done(stack.refresh())
    assert "aws:ec2/instance:Instance" not in {row["type"] for row in stack.state()}
    done(stack.up())
    (after,) = instances(moto)
    assert after["InstanceId"] != before["InstanceId"]
    assert left(moto)["volumes"] == [volume]
    attached = moto.client("ec2").describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"]
    assert [each["InstanceId"] for each in attached] == [after["InstanceId"]]


def test_without_capacity_another_zone_does(stack: Stack, moto: Moto):
    moto.no_capacity("us-east-1a", "g6.xlarge")
    failed = stack.up()
    assert not failed.ok
    assert "InsufficientInstanceCapacity" in failed.output
    made = left(moto)
    assert "instances" not in made
    assert "volumes" not in made  # it would stand in the zone without hosts
    assert made["vpcs"]
    network = set(stack.resources("aws:ec2/subnet:Subnet"))

    stack.config_set("zone", "us-east-1b")
    moved = done(stack.up())
    assert (moved.replaced, moved.deleted) == (0, 0)
    assert [instance["Placement"]["AvailabilityZone"] for instance in instances(moto)] == ["us-east-1b"]
    assert stack.outputs()["hosts"][0]["labels"]["zone"] == "us-east-1b"
    assert set(stack.resources("aws:ec2/subnet:Subnet")) == network
    done(stack.destroy())


def test_rackllama_stack_tries_the_other_zones_but_moves_no_volume(stack: Stack, moto: Moto, capfd):
    driven = DrivenStack(stack.folder, stack.name, find_pulumi(stack.environment), stack.environment)
    moto.no_capacity("us-east-1a", "g6.xlarge")
    bring_up(driven)
    assert "us-east-1a: AWS has no free machine of this type in this zone now" in capfd.readouterr().err
    assert driven.config()["zone"] == "us-east-1b"
    (host,) = instances(moto)
    (volume,) = left(moto)["volumes"]
    assert host["Placement"]["AvailabilityZone"] == "us-east-1b"

    moto.client("ec2").terminate_instances(InstanceIds=[host["InstanceId"]])
    moto.no_capacity("us-east-1b", "g6.xlarge")
    done(stack.refresh())
    with pytest.raises(RackllamaError, match="us-east-1a not tried, as rackllama-models1"):
        bring_up(driven)
    assert left(moto)["volumes"] == [volume]


def test_what_a_failure_left_can_be_destroyed(stack: Stack, moto: Moto):
    moto.no_capacity("us-east-1a", "g6.xlarge")
    assert not stack.up().ok
    assert left(moto)
    done(stack.destroy())
    assert left(moto) == {}


@pytest.mark.slow
def test_a_host_keeps_the_type_that_the_planner_took(stack: Stack, moto: Moto):
    done(stack.up())
    (before,) = instances(moto)
    stack.config_set("users", 60)
    again = done(stack.up())
    assert (again.replaced, again.deleted) == (0, 0)
    assert [(each["InstanceId"], each["InstanceType"]) for each in instances(moto)] == [
        (before["InstanceId"], "g6.xlarge")
    ]
    chosen = stack.outputs()["plan"]["instance"]
    assert chosen != "g6.xlarge"
    assert f"hosts keep g6.xlarge, and the planner would now choose {chosen}" in again.output


@pytest.mark.slow
def test_a_newer_image_or_another_key_replaces_no_host(stack: Stack, moto: Moto):
    done(stack.up())
    before = instances(moto)[0]["InstanceId"]
    stack.config_set("ami", "ami-0123456789abcdef0")
    stack.config_set("ssh_public_key", KEY.replace("ops@", "another@"))
    again = done(stack.up())
    assert (again.created, again.updated, again.replaced, again.deleted) == (0, 0, 0, 0)
    assert [instance["InstanceId"] for instance in instances(moto)] == [before]


REFUSED = [
    ({"instance_type": "p5.49xlarge"}, "the catalogue has no instance type 'p5.49xlarge'"),
    ({"instance_type": "p6-b200.48xlarge"}, "does not offer p6-b200.48xlarge"),
    ({"model_source": R1, "instance_type": "g6.xlarge"}, "does not fit on g6.xlarge"),
    ({"ssh_public_key": ""}, "ssh_public_key is not set"),
    ({"ssh_from": ["0.0.0.0/0"]}, "lets the internet in"),
]
# Refused at the same place, so that one now and then will do.
REFUSED_AS_WELL = [
    ({"model_source": "", "model": "deepseek-r2"}, "model is 'deepseek-r2'"),
    ({"ssh_public_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0"}, "ssh_public_key is a private key"),
    ({"ssh_from": ["0.0.0.0/1", "128.0.0.0/1"]}, "lets the internet in"),
    ({"zones": ["eu-west-1a"]}, "no zone of us-east-1"),
    ({"ami": "/no/such/parameter"}, "AWS did not tell which image /no/such/parameter means"),
    ({"monthly_budget_usd": 0}, "monthly_budget_usd is not set"),
    ({"capacity": "capacity-block"}, "capacity block is to be used, and none is named"),
    (
        {"capacity": "capacity-block", "capacity_block_offering_id": "cb-1", "instance_type": "p5.48xlarge"},
        "nothing gives the money back",
    ),
]


@pytest.mark.parametrize(
    ("config", "said"), [*REFUSED, *(pytest.param(*case, marks=pytest.mark.slow) for case in REFUSED_AS_WELL)]
)
def test_what_will_not_do_is_refused_before_anything_is_made(stack: Stack, moto: Moto, headers, config, said):
    config = {key: str(headers[value]) if value == R1 else value for key, value in config.items()}
    stack.config_set_all(config)
    for result in (stack.preview(), stack.up()):
        assert not result.ok
        assert said in result.output
        assert "Remedy: " in result.output
        assert "Traceback" not in result.output
        assert "c2VjcmV0" not in result.output
    assert left(moto) == {}


def test_nothing_secret_is_in_the_state_or_told(stack: Stack, moto: Moto):
    told = done(stack.preview()).output + done(stack.up(preview=True)).output
    told += str(stack.outputs(show_secrets=True)) + stack.state_text()
    for secret in (*SECRETS.values(), os.environ.get("PULUMI_CONFIG_PASSPHRASE", "a passphrase of the tests")):
        assert secret not in told
    assert "ssh-ed25519" in told  # a public key is none
