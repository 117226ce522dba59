"""The policies: each finds what breaks it, and leaves what keeps it."""

import pytest

from rackllama.provision.policies import Resource, resources_of, violations

TAGS = {"owner": "ops", "cost-center": "research"}
WARNED = Resource("aws:budgets/budget:Budget", "budget", {"tags": TAGS, "notifications": [{"threshold": 100}]})
HOST = {
    "tags": TAGS,
    "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
    "rootBlockDevice": {"encrypted": True},
}


def group(**rule) -> Resource:
    return Resource("aws:ec2/securityGroup:SecurityGroup", "group", {"tags": TAGS, "ingress": [rule]})


def rule(**told) -> Resource:
    return Resource("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "rule", {"tags": TAGS, **told})


def host(**told) -> Resource:
    return Resource("aws:ec2/instance:Instance", "gpu1", {**HOST, **told})


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        (
            group(protocol="tcp", fromPort=22, toPort=22, cidrBlocks=["0.0.0.0/0"]),
            "ports 22 to 22 are open to 0.0.0.0/0",
        ),
        (group(protocol="tcp", fromPort=11434, toPort=11434, cidrBlocks=["128.0.0.0/1"]), "open to 128.0.0.0/1"),
        (group(protocol="tcp", fromPort=8080, toPort=8080, ipv6CidrBlocks=["::/0"]), "open to ::/0"),
        (group(protocol="tcp", fromPort=443, toPort=8443, cidrBlocks=["0.0.0.0/0"]), "ports 443 to 8443"),
        (group(protocol="-1", fromPort=0, toPort=0, cidrBlocks=["0.0.0.0/0"]), "ports 0 to 0"),
        (rule(ipProtocol="tcp", fromPort=22, toPort=22, cidrIpv4="0.0.0.0/0"), "ports 22 to 22"),
        (rule(ipProtocol="udp", fromPort=443, toPort=443, cidrIpv6="::/0"), "ports 443 to 443"),
        (host(metadataOptions={}), "IMDSv2 is not required"),
        (host(metadataOptions={"httpTokens": "required"}), "more than one hop"),
        (host(rootBlockDevice={}), "a volume of it is not encrypted"),
        (host(ebsBlockDevices=[{"encrypted": False}]), "a volume of it is not encrypted"),
        (host(associatePublicIpAddress=True), "a public address"),
        (host(tags={"owner": "ops"}), "no tag cost-center"),
        (Resource("aws:ebs/volume:Volume", "models", {"tags": TAGS}), "it is not encrypted"),
        (Resource("aws:ec2/subnet:Subnet", "net", {"tags": TAGS, "mapPublicIpOnLaunch": True}), "public address"),
        (Resource("aws:ec2/vpc:Vpc", "net", {}), "no tag owner"),
    ],
)
def test_what_breaks_a_policy_is_named(resource, said):
    found = violations([WARNED, resource])
    assert any(said in what and what.startswith(f"{resource.name} ({resource.type})") for what in found), found


def test_hosts_without_a_budget_are_named():
    assert violations([host()]) == ["hosts are there, and no budget warns of what they cost"]
    mute = Resource(WARNED.type, "mute", {"tags": TAGS})
    assert violations([host(), mute]) == ["hosts are there, and no budget warns of what they cost"]


def test_what_keeps_them_is_left():
    kept = [
        WARNED,
        host(),
        group(protocol="tcp", fromPort=443, toPort=443, cidrBlocks=["0.0.0.0/0"]),
        group(protocol="tcp", fromPort=22, toPort=22, cidrBlocks=["10.0.0.0/8"]),
        Resource("aws:ec2/route:Route", "route", {}),
        Resource("rackllama:aws:Network", "net", {}),
    ]
    assert violations(kept) == []


def test_a_state_is_judged_as_well():
    exported = {
        "deployment": {
            "resources": [
                {
                    "urn": "urn:pulumi:test::rackllama-aws::aws:ebs/volume:Volume::models",
                    "type": "aws:ebs/volume:Volume",
                }
            ]
        }
    }
    assert violations(resources_of(exported))[0].startswith("models (aws:ebs/volume:Volume)")
