"""How users reach the gateways of the hosts, on 443 and nothing else: each way is a class that tells its cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pulumi
import pulumi_aws as aws

from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.billing import billed
from rackllama.provision.aws.ranges import require_named_ranges, require_ranges
from rackllama.provision.aws.ways_out import Site
from rackllama.provision.outputs import Cost

HTTPS = 443


@dataclass(frozen=True)
class Entrance:
    """What a way in leaves: rules for the hosts' security group, and where hosts are registered and users come to."""

    ingress: tuple[aws.ec2.SecurityGroupIngressArgs, ...] = ()
    target_group_arn: pulumi.Output[str] | None = None
    address: pulumi.Output[str] | None = None


class WayIn(Protocol):
    """Lets users in."""

    @property
    def needs_internet(self) -> bool:
        """Whether an internet gateway and public subnets are needed."""

    def build(self, site: Site) -> Entrance:
        """Make it."""

    def costs(self, zones: int) -> Sequence[Cost]:
        """What it costs in a network of so many zones."""


@dataclass(frozen=True)
class LoadBalancer:
    """A public network load balancer, from named ranges to 443 of all hosts; TLS ends at the hosts' own gateways.

    Billed by the hour with an address for each zone, and for what passes. Nothing of it survives a destroy. Raises
    RackllamaError without ranges: who may come is said, even where it is everybody.
    """

    clients_from: tuple[str, ...]
    needs_internet: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        _require_clients(self.clients_from)

    def build(self, site: Site) -> Entrance:
        """Make the balancer, its listener, and an empty group of targets."""
        name = f"{site.name}-front"
        tags = site.labels.tags(name)
        group = aws.ec2.SecurityGroup(
            name,
            vpc_id=site.vpc_id,
            description="Users of the load balancer",
            ingress=[https_from(cidr_blocks=list(self.clients_from))],
            egress=[{"protocol": "tcp", "from_port": HTTPS, "to_port": HTTPS, "cidr_blocks": [site.range]}],
            tags=tags,
            opts=site.options(),
        )
        balancer = aws.lb.LoadBalancer(
            name,
            load_balancer_type="network",
            internal=False,
            subnets=list(site.public.values()),
            security_groups=[group.id],
            enable_cross_zone_load_balancing=True,
            tags=tags,
            opts=site.options(site.internet),
        )
        targets = aws.lb.TargetGroup(
            name,
            vpc_id=site.vpc_id,
            port=HTTPS,
            protocol="TCP",
            target_type="instance",
            health_check={"protocol": "TCP", "port": str(HTTPS)},
            tags=tags,
            opts=site.options(),
        )
        aws.lb.Listener(
            name,
            load_balancer_arn=balancer.arn,
            port=HTTPS,
            protocol="TCP",
            default_actions=[{"type": "forward", "target_group_arn": targets.arn}],
            tags=tags,
            opts=site.options(),
        )
        return Entrance((https_from(security_groups=[group.id]),), targets.arn, balancer.dns_name)

    def costs(self, zones: int) -> Sequence[Cost]:
        """The balancer and its addresses."""
        return (
            billed("network load balancer", "network_load_balancer", note="and more for what passes"),
            billed("public addresses of the load balancer", "public_address", zones),
        )


@dataclass(frozen=True)
class PeeredNetwork:
    """From named ranges of a network that is peered, or reaches this one otherwise, straight to 443 of the hosts.

    With `peering_id` (pcx-…) the way back is routed here; the other side's routes, and accepting the peering, are its
    owner's. Costs nothing by itself; AWS bills what passes between zones. Nothing of it survives a destroy.
    """

    clients_from: tuple[str, ...]
    peering_id: str = ""
    needs_internet: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        _require_clients(self.clients_from)
        if self.peering_id:
            require_named_ranges(self.clients_from, "clients_from")  # a route to everywhere is that of the way out

    def build(self, site: Site) -> Entrance:
        """Route back to the peer."""
        for cidr in dict.fromkeys((*self.clients_from, *site.ssh_from)) if self.peering_id else ():
            aws.ec2.Route(
                f"{site.name}-peer-{cidr}",
                route_table_id=site.private_routes,
                destination_cidr_block=cidr,
                vpc_peering_connection_id=self.peering_id,
                opts=site.options(),
            )
        return Entrance(self.rules())

    def rules(self) -> tuple[aws.ec2.SecurityGroupIngressArgs, ...]:
        """What lets these ranges in."""
        return (https_from(cidr_blocks=list(self.clients_from)),)

    def costs(self, zones: int) -> Sequence[Cost]:  # noqa: ARG002
        """Nothing."""
        return ()


@dataclass(frozen=True)
class NoWayIn:
    """Nobody: users come through a port that Session Manager forwards. Costs nothing."""

    needs_internet: bool = field(default=False, init=False)

    def build(self, site: Site) -> Entrance:  # noqa: ARG002
        """Make nothing."""
        return Entrance()

    def costs(self, zones: int) -> Sequence[Cost]:  # noqa: ARG002
        """Nothing."""
        return ()


def _require_clients(ranges: Sequence[str]) -> None:
    require_ranges(ranges, "clients_from")
    if not ranges:
        raise RackllamaError("nobody is let in by way_in", "name ranges in clients_from, or set way_in to none")


def https_from(**sources: Any) -> aws.ec2.SecurityGroupIngressArgs:
    """A rule that lets these in to 443."""
    return aws.ec2.SecurityGroupIngressArgs(protocol="tcp", from_port=HTTPS, to_port=HTTPS, **sources)
