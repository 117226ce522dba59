"""The network that hosts stand in: private subnets, a way out for downloads, a way in for users."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws

from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.labels import Labels
from rackllama.provision.aws.ranges import require_named_ranges, require_ranges
from rackllama.provision.aws.ways_in import Entrance, NoWayIn, PeeredNetwork, WayIn
from rackllama.provision.aws.ways_out import EVERYWHERE, NatGateway, Site, WayOut
from rackllama.provision.outputs import Cost

LETTERS = "abcdefgh"
VPC_PREFIX, SUBNET_PREFIX = 16, 20
SSH = 22


@dataclass(frozen=True)
class OwnVpc:
    """A VPC of the stack's own. Each zone has two subnets of the range, placed by the zone's letter: a list of zones
    that grows or is ordered otherwise moves none of them.
    """

    range: str = "10.42.0.0/16"

    def __post_init__(self) -> None:
        require_ranges([self.range], "network_range")
        if IPv4Network(self.range).prefixlen != VPC_PREFIX or not IPv4Network(self.range).is_private:
            raise RackllamaError(f"network_range is {self.range}", "give a /16 of private addresses, as 10.42.0.0/16")

    def subnets(self, zone: str) -> tuple[str, str]:
        """The ranges of a zone's private and public subnet."""
        ranges = list(IPv4Network(self.range).subnets(new_prefix=SUBNET_PREFIX))
        place = LETTERS.index(zone[-1])
        return str(ranges[place]), str(ranges[place + len(LETTERS)])


@dataclass(frozen=True)
class GivenVpc:
    """A VPC that is there already: its routes are its owner's. `subnets` are by zone, and private."""

    vpc_id: str
    subnets: Mapping[str, str]


@dataclass(frozen=True)
class NetworkArgs:
    """Subnets are made in all `zones`, so that a host can move to another where one has no capacity.

    SSH is let in from `ssh_from` only, which is nobody by default. Raises RackllamaError for an open range, and for
    zones that are not the region's.
    """

    labels: Labels
    region: str
    zones: Sequence[str]
    vpc: OwnVpc | GivenVpc = field(default_factory=OwnVpc)
    way_out: WayOut = field(default_factory=NatGateway)
    way_in: WayIn = field(default_factory=NoWayIn)
    ssh_from: Sequence[str] = ()

    @property
    def is_peered(self) -> bool:
        """Whether there is a route back to a peered network."""
        return isinstance(self.way_in, PeeredNetwork) and bool(self.way_in.peering_id)

    def __post_init__(self) -> None:
        require_named_ranges(self.ssh_from, "ssh_from")
        require_zones(self.zones, self.region)
        if not isinstance(self.vpc, GivenVpc):
            return
        if self.is_peered or not isinstance(self.way_in, NoWayIn | PeeredNetwork):
            raise RackllamaError(
                "a load balancer or a peering changes the routes of a VPC, and a given one's are its owner's",
                "set way_in to peered without peering_id, or to none",
            )
        missing = [zone for zone in self.zones if zone not in self.vpc.subnets]
        if missing:
            raise RackllamaError(
                f"no subnet of {self.vpc.vpc_id} is given for {', '.join(missing)}", "give one for each zone"
            )


def require_zones(zones: Sequence[str], region: str) -> None:
    """Raise RackllamaError unless these are zones of the region, each once."""
    for zone in zones:
        if not re.fullmatch(rf"{re.escape(region)}[{LETTERS}]", zone):
            raise RackllamaError(f"{zone!r} is no zone of {region}", f"write zones as {region}a")
    if not zones or len(set(zones)) != len(zones):
        raise RackllamaError("zones names none, or one twice", f"list zones in the order to try, as {region}a")


class Network(pulumi.ComponentResource):
    """Private subnets and a security group for hosts.

    Costs what its ways out and in cost, which `costs` tells; the rest is free. Nothing of it survives a destroy.
    """

    vpc_id: pulumi.Output[str]
    subnet_ids: Mapping[str, pulumi.Input[str]]
    security_group_id: pulumi.Output[str]
    way_out: Sequence[pulumi.Resource]
    entrance: Entrance

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:Network", name, None, opts)
        self._name, self._args = name, args
        vpc_id: pulumi.Input[str]
        if isinstance(args.vpc, GivenVpc):
            vpc_id, self.subnet_ids, self.way_out = args.vpc.vpc_id, args.vpc.subnets, ()
            self.entrance = Entrance(_from_ranges(args.way_in))
        else:
            site = self._own(args.vpc)
            vpc_id, self.subnet_ids = site.vpc_id, site.private
            self.way_out = args.way_out.build(site)
            self.entrance = args.way_in.build(site)
        self.vpc_id = pulumi.Output.from_input(vpc_id)
        self.security_group_id = self._hosts_group(vpc_id).id
        self.register_outputs({"vpc_id": self.vpc_id, "security_group_id": self.security_group_id})

    def costs(self, landed_gb: float) -> Sequence[Cost]:
        """What its ways cost; `landed_gb` is the size of the model in 10^9 bytes."""
        if isinstance(self._args.vpc, GivenVpc):
            return ()
        return (*self._args.way_out.costs(landed_gb), *self._args.way_in.costs(len(self._args.zones)))

    def _own(self, vpc: OwnVpc) -> Site:
        args, name, own = self._args, self._name, pulumi.ResourceOptions(parent=self)
        made = aws.ec2.Vpc(
            name,
            cidr_block=vpc.range,
            enable_dns_support=True,
            enable_dns_hostnames=True,  # interface endpoints are found by name
            tags=args.labels.tags(name),
            opts=own,
        )
        has_internet = args.way_out.needs_internet or args.way_in.needs_internet
        internet = self._internet(made) if has_internet else None
        private_routes = self._table(f"{name}-private", made)
        public_routes = self._table(f"{name}-public", made) if internet else None
        private, public = {}, {}
        for zone in args.zones:
            inner, outer = vpc.subnets(zone)
            private[zone] = self._subnet(f"{name}-private-{zone}", made, zone, inner, private_routes)
            if public_routes:
                public[zone] = self._subnet(f"{name}-public-{zone}", made, zone, outer, public_routes)
        if internet and public_routes:
            aws.ec2.Route(
                f"{name}-internet",
                route_table_id=public_routes.id,
                destination_cidr_block=EVERYWHERE,
                gateway_id=internet.id,
                opts=own,
            )
        return Site(
            name=name,
            region=args.region,
            labels=args.labels,
            vpc_id=made.id,
            range=vpc.range,
            private=private,
            public=public,
            private_routes=private_routes.id,
            internet=internet or made,
            parent=self,
            ssh_from=tuple(args.ssh_from),
        )

    def _internet(self, vpc: aws.ec2.Vpc) -> aws.ec2.InternetGateway:
        return aws.ec2.InternetGateway(
            self._name,
            vpc_id=vpc.id,
            tags=self._args.labels.tags(self._name),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _table(self, name: str, vpc: aws.ec2.Vpc) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(
            name, vpc_id=vpc.id, tags=self._args.labels.tags(name), opts=pulumi.ResourceOptions(parent=self)
        )

    def _subnet(
        self, name: str, vpc: aws.ec2.Vpc, zone: str, cidr: str, routes: aws.ec2.RouteTable
    ) -> pulumi.Output[str]:
        own = pulumi.ResourceOptions(parent=self)
        subnet = aws.ec2.Subnet(
            name,
            vpc_id=vpc.id,
            availability_zone=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags=self._args.labels.tags(name),
            opts=own,
        )
        aws.ec2.RouteTableAssociation(name, subnet_id=subnet.id, route_table_id=routes.id, opts=own)
        return subnet.id

    def _hosts_group(self, vpc_id: pulumi.Input[str]) -> aws.ec2.SecurityGroup:
        """Its rules stand in it, so that one that somebody adds by hand shows as a difference, and goes."""
        name = f"{self._name}-hosts"
        ingress = list(self.entrance.ingress)
        if self._args.ssh_from:
            ranges = list(self._args.ssh_from)
            ingress.append(
                aws.ec2.SecurityGroupIngressArgs(protocol="tcp", from_port=SSH, to_port=SSH, cidr_blocks=ranges)
            )
        return aws.ec2.SecurityGroup(
            name,
            vpc_id=vpc_id,
            description="Hosts that serve models",
            ingress=ingress,
            egress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": [EVERYWHERE]}],
            tags=self._args.labels.tags(name),
            opts=pulumi.ResourceOptions(parent=self),
        )


def _from_ranges(way_in: WayIn) -> tuple[aws.ec2.SecurityGroupIngressArgs, ...]:
    return way_in.rules() if isinstance(way_in, PeeredNetwork) else ()
