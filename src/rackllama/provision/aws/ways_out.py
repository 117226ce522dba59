"""How hosts without a public address reach what they download: each way is a class that builds it and tells its cost.

All are of one network, and serve every zone of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pulumi
import pulumi_aws as aws

from rackllama.provision.aws.billing import billed
from rackllama.provision.aws.labels import Labels
from rackllama.provision.outputs import Cost

SESSION_MANAGER = ("ssm", "ssmmessages", "ec2messages")
EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Site:
    """A VPC as far as it is built: subnets by zone, in the order of zones, and the table that routes private ones.

    `ssh_from` are the ranges that SSH is let in from.
    """

    name: str
    region: str
    labels: Labels
    vpc_id: pulumi.Input[str]
    range: pulumi.Input[str]
    private: Mapping[str, pulumi.Input[str]]
    public: Mapping[str, pulumi.Input[str]]
    private_routes: pulumi.Input[str]
    internet: pulumi.Resource
    parent: pulumi.Resource
    ssh_from: Sequence[str] = ()

    def options(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        """Those of a part of the network, made after these others."""
        return pulumi.ResourceOptions(parent=self.parent, depends_on=list(after))


class WayOut(Protocol):
    """Lets hosts in private subnets out."""

    @property
    def needs_internet(self) -> bool:
        """Whether an internet gateway and public subnets are needed."""

    def build(self, site: Site) -> Sequence[pulumi.Resource]:
        """Make it, and give what hosts are to wait for: one that starts before it finds neither packages nor AWS."""

    def costs(self, landed_gb: float) -> Sequence[Cost]:
        """What it costs; `landed_gb` is the size of the model in 10^9 bytes."""


@dataclass(frozen=True)
class NatGateway:
    """To anywhere, through one NAT gateway in the first zone. Billed by the hour, and for each GB that passes.

    Traffic of the other zones passes between zones, which AWS bills as well. Nothing of it survives a destroy.
    """

    needs_internet: bool = field(default=True, init=False)

    def build(self, site: Site) -> Sequence[pulumi.Resource]:
        """Make the gateway, its address and the route to it."""
        name = f"{site.name}-nat"
        address = aws.ec2.Eip(name, domain="vpc", tags=site.labels.tags(name), opts=site.options(site.internet))
        gateway = aws.ec2.NatGateway(
            name,
            allocation_id=address.id,
            subnet_id=next(iter(site.public.values())),
            tags=site.labels.tags(name),
            # Its address is at one gateway at a time, and the first zone may become another.
            opts=pulumi.ResourceOptions(parent=site.parent, depends_on=[site.internet], delete_before_replace=True),
        )
        route = aws.ec2.Route(
            name,
            route_table_id=site.private_routes,
            destination_cidr_block=EVERYWHERE,
            nat_gateway_id=gateway.id,
            opts=site.options(),
        )
        return (route, _s3(site))

    def costs(self, landed_gb: float) -> Sequence[Cost]:
        """Gateway, address and data."""
        landing = billed("", "nat_gateway_data", landed_gb).usd
        return (
            billed("NAT gateway", "nat_gateway"),
            billed("public address of the NAT gateway", "public_address"),
            billed(
                "data through the NAT gateway",
                "nat_gateway_data",
                note=f"{landing:.2f} USD each time the model's {landed_gb:.0f} GB land; S3's own come past it",
            ),
        )


@dataclass(frozen=True)
class Endpoints:
    """To Session Manager and S3 of the region alone, and not to the internet: models and packages come from a mirror.

    Three interface endpoints in the first zone, by the hour and for each GB; that of S3 is free. Nothing of it survives
    a destroy.
    """

    needs_internet: bool = field(default=False, init=False)

    def build(self, site: Site) -> Sequence[pulumi.Resource]:
        """Make the endpoints, and what lets the network at them."""
        name = f"{site.name}-endpoints"
        group = aws.ec2.SecurityGroup(
            name,
            vpc_id=site.vpc_id,
            description="Session Manager for the hosts of this network",
            ingress=[{"protocol": "tcp", "from_port": 443, "to_port": 443, "cidr_blocks": [site.range]}],
            tags=site.labels.tags(name),
            opts=site.options(),
        )
        endpoints = [
            aws.ec2.VpcEndpoint(
                f"{site.name}-{service}",
                vpc_id=site.vpc_id,
                service_name=f"com.amazonaws.{site.region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=[next(iter(site.private.values()))],
                security_group_ids=[group.id],
                private_dns_enabled=True,
                tags=site.labels.tags(f"{site.name}-{service}"),
                opts=site.options(),
            )
            for service in SESSION_MANAGER
        ]
        return (*endpoints, _s3(site))

    def costs(self, landed_gb: float) -> Sequence[Cost]:  # noqa: ARG002 - models come through S3's, which is free
        """The interface endpoints."""
        return (
            billed("interface endpoints for Session Manager", "interface_endpoint", len(SESSION_MANAGER)),
            billed("data through interface endpoints", "interface_endpoint_data"),
        )


@dataclass(frozen=True)
class NoWayOut:
    """To nothing but the network itself, and what it is peered with; S3 of the region is reached. Costs nothing."""

    needs_internet: bool = field(default=False, init=False)

    def build(self, site: Site) -> Sequence[pulumi.Resource]:
        """Make the endpoint of S3."""
        return (_s3(site),)

    def costs(self, landed_gb: float) -> Sequence[Cost]:  # noqa: ARG002
        """Nothing."""
        return ()


def _s3(site: Site) -> pulumi.Resource:
    """What comes from S3 of the region then passes no NAT gateway."""
    name = f"{site.name}-s3"
    return aws.ec2.VpcEndpoint(
        name,
        vpc_id=site.vpc_id,
        service_name=f"com.amazonaws.{site.region}.s3",
        vpc_endpoint_type="Gateway",
        route_table_ids=[site.private_routes],
        tags=site.labels.tags(name),
        opts=site.options(),
    )
