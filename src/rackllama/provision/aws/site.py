"""All that a stack makes on AWS, of what it was told and what the planner chose."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pulumi
import pulumi_aws as aws

from rackllama.planning.headers import find_headers
from rackllama.provision.aws.billing import billed
from rackllama.provision.aws.capacity import BuyCapacityBlock, Capacity, CapacityBlock, Spot
from rackllama.provision.aws.cluster import GpuCluster, GpuClusterArgs, require_efa
from rackllama.provision.aws.config import Settings
from rackllama.provision.aws.host import GpuHost, GpuHostArgs, Place
from rackllama.provision.aws.network import Network
from rackllama.provision.aws.offers import image_of, require_offered, zones_by_type
from rackllama.provision.aws.role import HostRole, HostRoleArgs
from rackllama.provision.aws.storage import ModelBucket, ModelBucketArgs, ModelVolume, ModelVolumeArgs
from rackllama.provision.aws.watch import AutoStop, AutoStopArgs, Budget
from rackllama.provision.aws.ways_in import HTTPS
from rackllama.provision.choice import Choice, choose_instance
from rackllama.provision.outputs import Cost, DescribedHost, SessionManager, Ssh

SPARE = 1.1  # of a volume's size beside the model, for the file system and a second small one
SPARE_GIB = 20


@dataclass(frozen=True)
class ServingSiteArgs:
    """What was told, what to rent, and the image of the hosts."""

    settings: Settings
    choice: Choice
    ami: str


def planned_site(settings: Settings) -> ServingSiteArgs:
    """Ask AWS and the model's headers, and change nothing. Raises RackllamaError where the site cannot be."""
    offered = zones_by_type()
    zones = settings.network.zones
    choice = choose_instance(
        settings.demand,
        find_headers(settings.source, mirror=settings.mirror),
        lambda instance: settings.capacity.usage in instance.usage and set(zones) <= offered.get(instance.name, set()),
    )
    require_offered(choice.instance, zones, offered)
    if settings.has_efa:
        require_efa(choice.instance.name, settings.count)
    return ServingSiteArgs(settings, choice, image_of(settings.ami))


class ServingSite(pulumi.ComponentResource):
    """Network, hosts, where models are kept, and a budget. What it costs, and what survives a destroy, `costs` tells:
    of itself only the model volumes or bucket, where they are kept, and a capacity block that was bought.
    """

    hosts: Sequence[DescribedHost]
    costs: Sequence[Cost]

    def __init__(self, name: str, args: ServingSiteArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:ServingSite", name, None, opts)
        self._name, self._args, self._own = name, args, pulumi.ResourceOptions(parent=self)
        told = args.settings
        Budget(name, told.budget, self._own)
        self._network = Network(name, told.network, self._own)
        self._bucket = self._make_bucket() if told.has_bucket else None
        self._hosts = GpuCluster("gpu", self._cluster(), self._own).hosts
        self._volumes = self._make_volumes()
        self._stops = self._make_stops()
        self._register_hosts()
        self._warn_of_another_type()
        self.hosts = [self._described(host) for host in self._hosts]
        self.costs = list(self._costs())
        self.register_outputs({"entrance": self._network.entrance.address})

    @property
    def entrance(self) -> pulumi.Output[str] | None:
        """Where users come to, if there is a load balancer."""
        return self._network.entrance.address

    def _make_bucket(self) -> ModelBucket:
        told = self._args.settings
        return ModelBucket(f"{self._name}-models", ModelBucketArgs(told.labels, told.keeps_volume), self._own)

    def _cluster(self) -> GpuClusterArgs:
        told, choice = self._args.settings, self._args.choice
        bucket = self._bucket.bucket if self._bucket else None
        role = HostRole(f"{self._name}-host", HostRoleArgs(told.labels, told.region, bucket), self._own)
        host = GpuHostArgs(
            labels=told.labels,
            instance_type=choice.instance.name,
            place=Place(
                told.zone,
                self._network.subnet_ids[told.zone],
                [self._network.security_group_id],
                way_out=self._network.way_out,
            ),
            profile=role.profile,
            ami=self._args.ami,
            ssh_public_key=told.ssh_public_key,
            user=told.user,
            capacity=self._capacity(),
            root_gib=told.root_gib,
            keeps_type=choice.is_free,
        )
        return GpuClusterArgs(host, self._network.vpc_id, told.count, told.has_efa)

    def _capacity(self) -> Capacity:
        """The capacity that was told; of a block that is bought here, when it is bought."""
        told = self._args.settings
        if told.block is None:
            return told.capacity
        return CapacityBlock(BuyCapacityBlock(f"{self._name}-block", told.block, self._own).reservation_id)

    def _make_volumes(self) -> Sequence[ModelVolume]:
        told = self._args.settings
        size = model_volume_gib(self._args.choice.plan.landing.bytes) if told.volume_gib is None else told.volume_gib
        if not (size or told.volume_id):
            return ()
        return [
            ModelVolume(
                f"{self._name}-models{number}",
                ModelVolumeArgs(told.labels, host, size, told.keeps_volume, told.volume_id),
                self._own,
            )
            for number, host in enumerate(self._hosts, 1)
        ]

    def _make_stops(self) -> Sequence[AutoStop]:
        told = self._args.settings
        return [
            AutoStop(
                f"{self._name}-idle{number}",
                AutoStopArgs(told.labels, told.region, host, told.auto_stop_hours),
                self._own,
            )
            for number, host in enumerate(self._hosts, 1)
            if told.auto_stop_hours
        ]

    def _register_hosts(self) -> None:
        """Let what comes in at the entrance reach the hosts."""
        targets = self._network.entrance.target_group_arn
        for number, host in enumerate(self._hosts if targets is not None else (), 1):
            aws.lb.TargetGroupAttachment(
                f"{self._name}-front{number}",
                target_group_arn=targets,
                target_id=host.instance_id,
                port=HTTPS,
                opts=self._own,
            )

    def _warn_of_another_type(self) -> None:
        """Tell where hosts keep a type that the planner would not choose any more."""
        wanted = self._args.choice.instance.name

        def warn(found: str) -> None:
            if found != wanted:
                pulumi.log.warn(
                    f"hosts keep {found}, and the planner would now choose {wanted}: set instance_type to one of them"
                )

        for host in self._hosts:
            host.instance_type.apply(warn)

    def _described(self, host: GpuHost) -> DescribedHost:
        told, instance = self._args.settings, self._args.choice.instance
        return DescribedHost(
            name=host.name,
            address=host.address,
            user=told.user,
            gpus=[instance.gpu] * instance.gpus,
            roles=["serving", "gateway", "webui"] if host is self._hosts[0] else ["serving", "gateway"],
            via=Ssh() if told.network.ssh_from else SessionManager(host.instance_id, told.region),
            labels={
                "provider": "aws",
                "region": told.region,
                "zone": host.zone,
                "instance_type": host.instance_type,
                "capacity": told.capacity.usage,
                "stack": told.labels.stack,
            },
            console={"kind": "aws", "instance": host.instance_id, "region": told.region},
        )

    def _costs(self) -> Iterator[Cost]:
        told, landed_gb = self._args.settings, self._args.choice.plan.landing.bytes / 1e9
        for host in self._hosts:
            yield replace(host_cost(host.name, self._args.choice, told.capacity), id=host.instance_id)
            yield billed(f"root volume of {host.name}, {told.root_gib} GiB", "gp3", told.root_gib)
        if told.block:
            note = "the fee of the offering, paid at once"
            yield Cost(f"capacity block {told.block.offering_id}", None, "hour", survives_destroy=True, note=note)
        yield from self._network.costs(landed_gb)
        for volume in self._volumes:
            yield from volume.costs()
        for stop in self._stops:
            yield from stop.costs()
        if self._bucket:
            yield from self._bucket.costs(landed_gb)


def model_volume_gib(model_bytes: int) -> int:
    """GiB of a volume that a model of so many bytes has room on."""
    return math.ceil(model_bytes * SPARE / 2**30) + SPARE_GIB


def host_cost(name: str, choice: Choice, capacity: Capacity) -> Cost:
    """What a host costs an hour: known on demand alone."""
    price, what = choice.instance.price, f"host {name}, {choice.instance.name}"
    listed = f"price of {price.region}, {price.date}" if price else choice.instance.price_note
    if isinstance(capacity, CapacityBlock):
        return Cost(what, 0.0, "hour", note="paid with the capacity block")
    if isinstance(capacity, Spot):
        on_demand = f"; on demand it is {price.usd_per_hour}, {listed}" if price else ""
        return Cost(what, None, "hour", note=f"the market's price{on_demand}")
    return Cost(what, price.usd_per_hour if price else None, "hour", note=listed)
