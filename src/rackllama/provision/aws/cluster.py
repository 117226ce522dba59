"""Several GPU hosts, and the fast network between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pulumi
import pulumi_aws as aws

from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.host import GpuHost, GpuHostArgs, Place

# Network cards with EFA, one interface each: EC2 DescribeInstanceTypes, as https://github.com/getmoto/moto carries it
# (5.2.5), of those types of the catalogue that have any.
EFA_CARDS = {
    "p5.48xlarge": 32,
    "p5e.48xlarge": 32,
    "p5en.48xlarge": 16,
    "p6-b200.48xlarge": 8,
    "p4d.24xlarge": 4,
    "p4de.24xlarge": 4,
    "g7e.48xlarge": 4,
    "g6e.48xlarge": 4,
    "p5.4xlarge": 1,
    "g7e.8xlarge": 1,
    "g6e.12xlarge": 1,
    "g6e.8xlarge": 1,
    "g6.48xlarge": 1,
    "g6.12xlarge": 1,
    "g6.16xlarge": 1,
}

TO_ITSELF: dict[str, Any] = {"protocol": "-1", "from_port": 0, "to_port": 0, "self": True}


@dataclass(frozen=True)
class GpuClusterArgs:
    """`host` is what all `count` of them are made from. With `has_efa` they stand close together and speak EFA, for
    engines that spread one model over hosts; without it they are hosts beside each other. Raises RackllamaError where
    the type has no EFA, or one host would speak to nobody.
    """

    host: GpuHostArgs
    vpc_id: pulumi.Input[str]
    count: int = 1
    has_efa: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise RackllamaError(f"{self.count} hosts are asked for", "set count to 1 or more")
        if self.has_efa:
            require_efa(self.host.instance_type, self.count)


class GpuCluster(pulumi.ComponentResource):
    """Hosts NAME1, NAME2 and so on. Costs what they cost: placement group, template and EFA are free, and none of it
    survives a destroy.
    """

    hosts: Sequence[GpuHost]

    def __init__(self, name: str, args: GpuClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:GpuCluster", name, None, opts)
        self._name, self._args = name, args
        host = replace(args.host, place=self._close_together()) if args.has_efa else args.host
        own = pulumi.ResourceOptions(parent=self)
        self.hosts = [GpuHost(f"{name}{number}", host, own) for number in range(1, args.count + 1)]
        self.register_outputs({"addresses": [host.address for host in self.hosts]})

    def _close_together(self) -> Place:
        """The place with a placement group, and interfaces that speak EFA."""
        host, name, own = self._args.host, self._name, pulumi.ResourceOptions(parent=self)
        tags = host.labels.tags(name)
        group = aws.ec2.SecurityGroup(
            f"{name}-efa",
            vpc_id=self._args.vpc_id,
            description="Hosts of one cluster among themselves, as EFA wants it",
            ingress=[aws.ec2.SecurityGroupIngressArgs(**TO_ITSELF)],
            egress=[aws.ec2.SecurityGroupEgressArgs(**TO_ITSELF)],
            tags=host.labels.tags(f"{name}-efa"),
            opts=own,
        )
        near = aws.ec2.PlacementGroup(name, strategy="cluster", tags=tags, opts=own)
        template = aws.ec2.LaunchTemplate(
            name,
            network_interfaces=efa_interfaces(
                EFA_CARDS[host.instance_type], host.place.subnet_id, [*host.place.security_group_ids, group.id]
            ),
            metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1},
            update_default_version=True,
            tags=tags,
            opts=own,
        )
        return replace(host.place, placement_group=near.name, launch_template_id=template.id)


def require_efa(instance_type: str, count: int) -> None:
    """Raise RackllamaError unless so many hosts of the type have somebody to speak EFA to, and can."""
    if count == 1:
        raise RackllamaError("EFA is between hosts, and there is one", "set count to 2 or more, or efa to false")
    if instance_type not in EFA_CARDS:
        raise RackllamaError(
            f"{instance_type} has no EFA", f"set instance_type to one of {', '.join(EFA_CARDS)}, or efa to false"
        )


def efa_interfaces(
    cards: int, subnet_id: pulumi.Input[str], groups: Sequence[pulumi.Input[str]]
) -> list[aws.ec2.LaunchTemplateNetworkInterfaceArgs]:
    """The interfaces of an instance, as AWS recommends them (EC2 User Guide, "Maximize network bandwidth on Amazon EC2
    instances with multiple network cards"): a plain one first, which no EFA can be, then EFA alone on every card, all
    as the device 1. Nothing is said of public addresses, which AWS refuses beside several interfaces, and gives none.
    """
    places = [(0, 0, "interface"), *((card, 1, "efa-only") for card in range(cards))]
    return [
        aws.ec2.LaunchTemplateNetworkInterfaceArgs(
            network_card_index=card,
            device_index=device,
            interface_type=kind,
            subnet_id=subnet_id,
            security_groups=list(groups),
            delete_on_termination="true",
        )
        for card, device, kind in places
    ]
