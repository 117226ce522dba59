"""The double of the aws provider, over moto's server."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .engine.harness import UBUNTU_AMI, Moto, Stack

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def stack(stacks: Callable[..., Stack], moto: Moto) -> Stack:
    """The stack, not yet up."""
    return stacks(PROGRAMS / "network", environment=moto.environment)


def test_it_goes_up_stays_and_goes_down(stack: Stack, moto: Moto) -> None:
    up = stack.up(preview=True)
    assert up.ok, up.output
    assert stack.outputs()["ubuntu"] == UBUNTU_AMI
    again = stack.up()
    assert again.counts == {"unchanged": up.created}, again.output
    down = stack.destroy()
    assert down.ok, down.output
    reservations = moto.client("ec2").describe_instances()["Reservations"]
    assert all(row["State"]["Name"] == "terminated" for found in reservations for row in found["Instances"])
    assert moto.client("ec2").describe_volumes(Filters=[{"Name": "size", "Values": ["10"]}])["Volumes"] == []


@pytest.mark.slow
def test_a_terminated_machine_is_found_and_made_again(stack: Stack, moto: Moto) -> None:
    assert stack.up().ok
    gone = stack.outputs()["instance"]
    moto.client("ec2").terminate_instances(InstanceIds=[gone])
    refreshed = stack.refresh()
    assert refreshed.deleted >= 1, refreshed.output
    again = stack.up()
    assert again.ok, again.output
    assert stack.outputs()["instance"] != gone


@pytest.mark.slow
def test_a_zone_without_capacity_says_so_and_keeps_the_rest(stack: Stack, moto: Moto) -> None:
    moto.no_capacity("us-east-1a", "t3.micro")
    failed = stack.up()
    assert not failed.ok
    assert "api error InsufficientInstanceCapacity: We currently do not have sufficient t3.micro" in failed.output
    assert "vpc" in stack.resources("aws:ec2/vpc:Vpc")
    stack.config_set("zone", "us-east-1b")
    again = stack.up()
    assert again.ok, again.output
    assert stack.destroy().ok
