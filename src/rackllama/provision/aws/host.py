"""One GPU host: an EC2 instance that nobody reaches but through what the network lets in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws
import yaml

from rackllama.host.errors import RackllamaError
from rackllama.provision.aws.capacity import Capacity, OnDemand
from rackllama.provision.aws.labels import Labels

KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+|sk-\S+) [A-Za-z0-9+/]+={0,3}( [^\n]*)?")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Place:
    """Where a host stands, and who may talk to it. Network interfaces that a launch template tells replace both.

    It starts when its `way_out` is there.
    """

    zone: str
    subnet_id: pulumi.Input[str]
    security_group_ids: Sequence[pulumi.Input[str]]
    placement_group: pulumi.Input[str] | None = None
    launch_template_id: pulumi.Input[str] | None = None
    way_out: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True)
class GpuHostArgs:
    """`ami` counts when the host is made: a newer one later replaces nothing. So does what cloud-init is told.

    With `keeps_type` another `instance_type` later changes nothing either, as when the catalogue's prices move what a
    planner chooses. `root_gib` is for system, driver, CUDA and engines: models go to the instance store or a volume.
    Raises RackllamaError for what is no public key or no user.
    """

    labels: Labels
    instance_type: str
    place: Place
    profile: pulumi.Input[str]
    ami: str
    ssh_public_key: str
    user: str = "ubuntu"
    capacity: Capacity = field(default_factory=OnDemand)
    root_gib: int = 100
    keeps_type: bool = False

    def __post_init__(self) -> None:
        require_public_key(self.ssh_public_key)
        require_user(self.user)


class GpuHost(pulumi.ComponentResource):
    """A host: IMDSv2 only, an encrypted root, no public address, and the instance store left for role `storage`.

    Costs its type's price by the second while it runs, and its root volume while it is there, running or not. Nothing
    of it survives a destroy, and the instance store not even a stop.
    """

    name: str
    instance_id: pulumi.Output[str]
    instance_type: pulumi.Output[str]
    address: pulumi.Output[str]
    zone: str
    can_stop: bool
    instance: aws.ec2.Instance

    def __init__(self, name: str, args: GpuHostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rackllama:aws:GpuHost", name, None, opts)
        place, tags = args.place, args.labels.tags(name)
        templated = place.launch_template_id is not None
        self.instance = aws.ec2.Instance(
            name,
            ami=args.ami,
            instance_type=args.instance_type,
            availability_zone=place.zone,
            subnet_id=None if templated else place.subnet_id,
            vpc_security_group_ids=None if templated else list(place.security_group_ids),
            associate_public_ip_address=None if templated else False,
            launch_template={"id": place.launch_template_id} if place.launch_template_id is not None else None,
            placement_group=place.placement_group,
            iam_instance_profile=args.profile,
            # One hop, so that no container on the host gets the role's credentials.
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            root_block_device={
                "volume_type": "gp3",
                "volume_size": args.root_gib,
                "encrypted": True,
                "delete_on_termination": True,
                "tags": tags,
            },
            user_data=cloud_config(args.user, args.ssh_public_key),
            tags=tags,
            **args.capacity.launch_options(),
            opts=pulumi.ResourceOptions(
                parent=self,
                # Another one of these would replace a host that serves, or stop it and so empty its instance store.
                depends_on=list(place.way_out),
                delete_before_replace=not args.capacity.has_room_for_two,
                ignore_changes=["ami", "user_data", *(["instance_type"] if args.keeps_type else [])],
            ),
        )
        self.name, self.zone, self.instance_id = name, place.zone, self.instance.id
        self.can_stop = args.capacity.can_stop
        self.instance_type, self.address = self.instance.instance_type, self.instance.private_ip
        self.register_outputs({"instance_id": self.instance_id, "address": self.address})


def require_public_key(key: str) -> None:
    """Raise RackllamaError unless it is one line of an SSH public key."""
    if not KEY.fullmatch(key.strip()):
        what = "a private key" if "PRIVATE KEY" in key else "no public key"  # which is never printed
        raise RackllamaError(
            f"ssh_public_key is {what}",
            'run: pulumi config set ssh_public_key "$(cat ~/.ssh/id_ed25519.pub)"',
        )


def require_user(name: str) -> None:
    """Raise RackllamaError unless a user can be called so."""
    if not USER.fullmatch(name):
        raise RackllamaError(f"{name!r} is no name of a user", "give one as ubuntu, in user")


def cloud_config(user: str, key: str) -> str:
    """What cloud-init is told: who logs in, with which key, and that nobody does with a password."""
    login = {
        "name": user,
        "groups": ["sudo"],
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "shell": "/bin/bash",
        "lock_passwd": True,
        "ssh_authorized_keys": [key.strip()],
    }
    told = {"users": [login], "ssh_pwauth": False, "disable_root": True}
    return "#cloud-config\n" + yaml.safe_dump(told, sort_keys=False, width=4096)
