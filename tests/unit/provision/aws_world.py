"""AWS as tests of components have it: what is registered is written down, and questions are answered from here."""

import asyncio
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime.stack import run_pulumi_func
from pulumi.runtime.sync_await import _sync_await
from pulumi_aws import budgets, cloudwatch, ebs, ec2, iam, lb, s3, ssm

with warnings.catch_warnings():  # pulumi-aws deprecates names of its own as it is loaded, which is at the first use
    warnings.simplefilter("ignore", DeprecationWarning)
    for lazy in (budgets, cloudwatch, ebs, ec2, iam, lb, s3, ssm):
        assert hasattr(lazy, "outputs")

from rackllama.provision.aws.host import GpuHostArgs, Place
from rackllama.provision.aws.labels import Labels
from rackllama.provision.policies import Resource

LABELS = Labels("rackllama-aws-test", "ops", "research")
REGION, ZONES = "us-east-1", ("us-east-1a", "us-east-1b")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5vYm9keSdzIGtleSwgZm9yIHRlc3RzIG9ubHkuLi4u ops@example.org"


@dataclass
class World(Mocks):
    """Gives each resource its name with `-id` as its id, and its inputs back."""

    resources: list[Resource] = field(default_factory=list)
    outputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def call(self, args: MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"{args.token} was asked for, and nobody said what it tells")

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if args.custom:
            self.resources.append(Resource(args.typ, args.name, args.inputs))
        told = {"arn": f"arn:aws:{args.name}", "privateIp": "10.42.0.9", "dnsName": f"{args.name}.test"}
        return f"{args.name}-id", {**told, "name": args.name, **args.inputs}

    def of(self, type_: str) -> list[Mapping[str, Any]]:
        """The inputs of all of a type, by the end of its name."""
        return [one.inputs for one in self.resources if one.type.endswith(f":{type_}")]

    def one(self, type_: str) -> Mapping[str, Any]:
        """The inputs of the one of its type."""
        (found,) = self.of(type_)
        return found


def built(program: Callable[[], Any]) -> World:
    """What the program registers, when all of it is done.

    In a thread of its own, as Pulumi walks the stack for each resource, and that of a test is deep.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_built, program).result()


def _built(program: Callable[[], Any]) -> World:
    world, loops = World(), [asyncio.new_event_loop()]

    def with_loop() -> None:
        # Pulumi would make one for each thread that registers something, and close none.
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    asyncio.set_event_loop(loops[0])
    try:
        with ThreadPoolExecutor(initializer=with_loop) as threads:
            loops[0].set_default_executor(threads)
            set_mocks(world, "rackllama-aws", "test")
            _sync_await(run_pulumi_func(lambda: program() and None))
    finally:
        asyncio.set_event_loop(None)
        for loop in loops:
            loop.close()
    return world


def value_of(output: pulumi.Output[Any]) -> Any:
    """What an output of a program that has ended came to."""
    return asyncio.run(output.future())


def host_args(**told: Any) -> GpuHostArgs:
    """A host in the first zone."""
    return GpuHostArgs(
        **{
            "labels": LABELS,
            "instance_type": "g6.xlarge",
            "place": Place(ZONES[0], "subnet-1", ["sg-1"]),
            "profile": "hosts",
            "ami": "ami-1",
            "ssh_public_key": KEY,
            **told,
        }
    )
