"""What must hold of everything that a stack makes on AWS, judged on resources as they are registered.

The components see to it by themselves; these rules are the second look, on a preview, a state or a test's records.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rackllama.provision.aws.labels import COST_CENTER, OWNER
from rackllama.provision.aws.ranges import is_open

PUBLIC_PORTS = (443, 443)
# Parts of others, that AWS gives no tags.
WITHOUT_TAGS = {
    "aws:ec2/route:Route",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ec2/volumeAttachment:VolumeAttachment",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
}


@dataclass(frozen=True)
class Resource:
    """A resource as it is registered: its type, its name, and its inputs as Pulumi writes them, in camelCase."""

    type: str
    name: str
    inputs: Mapping[str, Any]


def violations(resources: Iterable[Resource]) -> list[str]:
    """What does not hold, each as `NAME (TYPE): what`; none where all does."""
    listed = [resource for resource in resources if resource.type.startswith("aws:")]
    found = [f"{one.name} ({one.type}): {what}" for one in listed for rule in RULES for what in rule(one)]
    return found + list(budget_is_present(listed))


def resources_of(deployment: Mapping[str, Any]) -> list[Resource]:
    """Those of what `pulumi stack export` prints."""
    listed: Sequence[Mapping[str, Any]] = deployment["deployment"].get("resources") or ()
    return [Resource(one["type"], one["urn"].rpartition("::")[2], one.get("inputs") or {}) for one in listed]


def no_public_ingress(resource: Resource) -> Iterator[str]:
    """Nobody in the world but at 443."""
    rules: list[Mapping[str, Any]] = []
    if resource.type == "aws:ec2/securityGroup:SecurityGroup":
        rules = resource.inputs.get("ingress") or []
    elif resource.type == "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule" or (
        resource.type == "aws:ec2/securityGroupRule:SecurityGroupRule" and resource.inputs.get("type") == "ingress"
    ):
        rules = [resource.inputs]
    for rule in rules:
        ports = int(rule.get("fromPort") or 0), int(rule.get("toPort") or 0)
        for cidr in filter(is_open, _ranges(rule)):
            if ports != PUBLIC_PORTS or rule.get("protocol", rule.get("ipProtocol")) != "tcp":
                yield f"ports {ports[0]} to {ports[1]} are open to {cidr}"


def no_public_address(resource: Resource) -> Iterator[str]:
    """Hosts stand in private subnets."""
    if resource.type == "aws:ec2/instance:Instance" and resource.inputs.get("associatePublicIpAddress"):
        yield "a public address is asked for"
    if resource.type == "aws:ec2/subnet:Subnet" and resource.inputs.get("mapPublicIpOnLaunch"):
        yield "whatever is started in it gets a public address"


def imdsv2_is_required(resource: Resource) -> Iterator[str]:
    """Nobody gets a role's credentials by a single request that a program was talked into."""
    if resource.type in {"aws:ec2/instance:Instance", "aws:ec2/launchTemplate:LaunchTemplate"}:
        options = resource.inputs.get("metadataOptions") or {}
        if options.get("httpTokens") != "required":
            yield "IMDSv2 is not required"
        if int(options.get("httpPutResponseHopLimit") or 64) > 1:
            yield "the metadata service answers over more than one hop"


def volumes_are_encrypted(resource: Resource) -> Iterator[str]:
    """Each volume, root or other."""
    if resource.type == "aws:ebs/volume:Volume" and resource.inputs.get("encrypted") is not True:
        yield "it is not encrypted"
    if resource.type == "aws:ec2/instance:Instance":
        root = resource.inputs.get("rootBlockDevice") or {}
        for device in (root, *(resource.inputs.get("ebsBlockDevices") or ())):
            if device.get("encrypted") is not True:
                yield "a volume of it is not encrypted"


def is_tagged(resource: Resource) -> Iterator[str]:
    """Whoever sees it in a bill knows whom to ask."""
    if resource.type in WITHOUT_TAGS:
        return
    tags = resource.inputs.get("tags") or {}
    for tag in (OWNER, COST_CENTER):
        if not tags.get(tag):
            yield f"it has no tag {tag}"


def budget_is_present(resources: Sequence[Resource]) -> Iterator[str]:
    """Where anything runs, somebody is warned of what it costs."""
    has_hosts = any(one.type == "aws:ec2/instance:Instance" for one in resources)
    budgets = [one for one in resources if one.type == "aws:budgets/budget:Budget"]
    if has_hosts and not any(one.inputs.get("notifications") for one in budgets):
        yield "hosts are there, and no budget warns of what they cost"


def _ranges(rule: Mapping[str, Any]) -> list[str]:
    many = [*(rule.get("cidrBlocks") or ()), *(rule.get("ipv6CidrBlocks") or ())]
    return many + [rule[key] for key in ("cidrIpv4", "cidrIpv6") if rule.get(key)]


RULES = (no_public_ingress, no_public_address, imdsv2_is_required, volumes_are_encrypted, is_tagged)
